//! What a decision rests on, in words.

use crate::{
    evidence::{Evidence, MainState},
    pod::Termination,
    silence,
};

/// The facts behind a decision, one a line.
pub(crate) fn facts(evidence: &Evidence) -> Vec<String> {
    let mut facts = vec![format!("pod phase {:?}", evidence.phase)];
    if let Some(reason) = &evidence.reason {
        facts.push(match &evidence.message {
            Some(message) => format!("pod reason {reason}: {message}"),
            None => format!("pod reason {reason}"),
        });
    }
    let end = evidence.exit.as_ref().map(|exit| ("main", exit.run, &exit.end));
    let init = evidence.init_failure.as_ref().map(|init| (init.container.as_str(), 0, &init.end));
    for (container, run, end) in end.into_iter().chain(init) {
        facts.push(describe_end(container, run, end));
    }
    match evidence.state {
        MainState::Running => facts.push("main container last seen running".to_owned()),
        MainState::Unknown => facts.push("no status of the main container".to_owned()),
        MainState::Waiting | MainState::Terminated => {}
    }
    if let Some(pending) = &evidence.pending {
        facts.push(format!("waiting: {} since {}", pending.reason, pending.since));
    }
    if let Some(disruption) = &evidence.disruption {
        facts.push(format!("condition DisruptionTarget: {}", disruption.reason));
    }
    if let Some(intent) = &evidence.intent {
        facts.push(format!("annotated intent: {}", intent.reason));
    }
    if evidence.deletion.is_some() {
        facts.push("deletion was requested".to_owned());
    }
    facts.extend(silence::facts(evidence));
    if let Some(at) = evidence.result_unproven {
        facts.push(format!("result_unproven: let go at {at}, held for as long as may be"));
    }
    if let Some(gone) = &evidence.gone {
        facts.push(if gone.deleted { "pod deleted".to_owned() } else { "pod not found".to_owned() });
    }
    facts
}

fn describe_end(container: &str, run: u32, end: &Termination) -> String {
    let mut text = format!("container {container} terminated");
    match end.code {
        Some(code) => text.push_str(&format!(", exit code {code}")),
        None => text.push_str(", exit code unknown"),
    }
    if let Some(reason) = &end.reason {
        text.push_str(&format!(", reason {reason}"));
    }
    if let Some(signal) = end.code.filter(|code| (129..=159).contains(code)).map(|code| code - 128) {
        text.push_str(&format!(", by convention signal {signal}"));
    }
    if let Some(at) = end.finished_at {
        text.push_str(&format!(", finished {at}"));
    }
    if run > 0 {
        text.push_str(&format!(", after {run} restarts"));
    }
    text
}
