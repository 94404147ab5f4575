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
        let Some(output) = output(pod, index) else { continue };
        let end = pod.ending.as_ref().map(|ending| (ending.at, pod.uid.clone()));
        last.entry(index)
            .and_modify(|known: &mut (Option<_>, IndexOutput)| {
                if known.0 < end {
                    *known = (end.clone(), output.clone());
                }
            })
            .or_insert_with(|| (end.clone(), output.clone()));
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

fn output(pod: &Evidence, index: u32) -> Option<IndexOutput> {
    let collected = pod.subject.of_job()?.output.as_deref()?;
    let code = pod.ending.as_ref().and_then(|ending| ending.exit.code);
    let mut output = IndexOutput {
        index,
        pod_name: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        exit_code: collected.exit_code.filter(|_| code == Some(0)).or(code),
        stdout: collected.stdout.summary.clone(),
        stderr: collected.stderr.as_ref().map(|stderr| stderr.summary.clone()),
        uri: format!("{}?index={index}", mapper::output_uri(&pod.execution_id)),
    };
    if !collected.is_stored() {
        output.lose();
    }
    Some(output)
}
