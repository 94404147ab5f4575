//! The outputs of an Indexed Job's indexes. Each index is a program's run of its own, and no other pod's output stands for it.
//!
//! A Job may have a hundred thousand of them, so those below a limit are kept, whenever they come; of the others it is said
//! how many there were.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    event::{IndexOutput, Indexes},
    evidence::{Evidence, Outcome},
    mapper::{self, Policy},
    output::Collected,
};

/// True if this pod completed an index whose output is kept, whatever becomes of the Job.
pub fn keeps_output(pod: &Evidence, policy: &Policy) -> bool {
    completed(pod).is_some_and(|index| index < policy.max_indexes)
}

/// What is known of a Job's indexes by what its pods keep; none if it has none.
pub fn outputs(pods: &[Arc<Evidence>], policy: &Policy) -> Option<Indexes> {
    let mut last = BTreeMap::new();
    let mut left_out = BTreeSet::new();
    for pod in pods {
        let Some(index) = completed(pod) else { continue };
        if index >= policy.max_indexes {
            left_out.insert(index);
            continue;
        }
        let Some((part, output)) = pod.subject.of_job().zip(output(pod, index)) else { continue };
        let end = pod.ending.as_ref().map(|ending| (ending.at, part.number));
        last.entry(index)
            .and_modify(|known: &mut (Option<_>, IndexOutput)| {
                if known.0 < end {
                    *known = (end, output.clone());
                }
            })
            .or_insert_with(|| (end, output.clone()));
    }
    let outputs: Vec<_> = last.into_values().map(|(_, output)| output).collect();
    let left_out = u32::try_from(left_out.len()).unwrap_or(u32::MAX);
    (!outputs.is_empty() || left_out > 0).then_some(Indexes { outputs, left_out })
}

/// The index that this pod completed.
fn completed(pod: &Evidence) -> Option<u32> {
    let has_completed = pod.ending.as_ref().is_some_and(|ending| ending.outcome == Outcome::Completed);
    pod.subject.of_job().filter(|_| has_completed)?.index
}

/// What an index printed, as far as it could be read by now.
fn output(pod: &Evidence, index: u32) -> Option<IndexOutput> {
    let unread = Collected::default();
    let part = pod.subject.of_job()?;
    let collected = part.output.as_deref().unwrap_or(&unread);
    let code = pod.ending.as_ref().and_then(|ending| ending.exit.code);
    let mut output = IndexOutput {
        index,
        pod_name: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        exit_code: collected.exit_code.filter(|_| code == Some(0)).or(code),
        stdout: collected.stdout.summary.clone(),
        stderr: collected.stderr.as_ref().map(|stderr| stderr.summary.clone()),
        uri: format!("{}?index={index}", mapper::output_uri(&pod.execution_id)),
        raw_uri: None,
    };
    if part.output.is_none() || !collected.is_stored() {
        output.lose();
    }
    Some(output)
}
