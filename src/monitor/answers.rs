//! What the API server's answers are worth: of several servers behind one address one may be behind the others, and then it lacks
//! what is new and shows what was. Versions tell, within one type (T7, T8).

use std::time::Duration;

use podherald_core::{
    job,
    mapper::{self, Observation},
    silence::Node,
};
use tokio::time::Instant;

use super::{Monitor, resolve::Answer, step::Outcome};

/// A pod outside its watches is asked for this often while its attempt is open, and after.
const STRAY_OPEN: Duration = Duration::from_secs(5);
const STRAY_ENDED: Duration = Duration::from_secs(60);

impl Monitor {
    pub(super) fn answer(&mut self, uid: &str, answer: Answer, outcome: &mut Outcome) {
        let Some(tracked) = self.index.get_mut(uid) else { return };
        tracked.resolving = false;
        match answer {
            Answer::Absent(version) => {
                let deleted = tracked.left;
                if self.is_outdated(uid, version) {
                    tracing::warn!(uid, version, "an API server that is behind does not have it (yet), will ask again");
                    self.ask_again(uid);
                } else {
                    self.observe(uid, Observation::Gone { deleted }, outcome);
                }
            }
            Answer::Pod(found, node) => {
                let Some(pod) = self.identified(*found) else { return };
                let is_outdated = self.is_outdated(uid, pod.version);
                self.observe(uid, Observation::Seen(&pod), outcome);
                if let Some(node) = node.filter(|_| !is_outdated) {
                    self.looked(uid, node, outcome);
                }
                self.found(uid, is_outdated);
            }
            Answer::Job(found) => {
                let Some(job) = self.identified(*found) else { return };
                let is_outdated = self.is_outdated(uid, job.version);
                self.observe_job(uid, job::Observation::Seen(&job), outcome);
                self.found(uid, is_outdated);
            }
            Answer::Failed => self.ask_again(uid),
        }
        self.index.reschedule(uid);
    }

    /// Asks for a pod of which nothing is heard, unless the API server is to be asked later anyway.
    pub(super) fn look(&mut self, uid: &str) {
        let now = self.clock.now();
        let Some(tracked) = self.index.get_mut(uid) else { return };
        let is_due = mapper::node_to_ask(&tracked.evidence, &self.options.policy, now).is_some();
        if is_due && tracked.recheck.is_none() {
            self.resolve(uid);
        }
    }

    /// Takes in what was found of the node of a pod that is not heard of.
    fn looked(&mut self, uid: &str, node: Node, outcome: &mut Outcome) {
        let was_open = self.index.evidence(uid).is_some_and(|evidence| evidence.ending.is_none());
        let found = node.word();
        self.observe(uid, Observation::Looked(node), outcome);
        let Some(evidence) = self.index.evidence(uid).filter(|_| was_open) else { return };
        self.metrics.count_unheard(found, evidence.ending.is_some());
        let (namespace, name) = (evidence.namespace.as_str(), evidence.name.as_str());
        let (execution_id, node) = (evidence.execution_id.as_str(), evidence.node_name.as_deref());
        match &evidence.ending {
            Some(ending) => {
                let why = ending.cause.as_ref().map(|cause| cause.evidence.join("; "));
                tracing::warn!(
                    namespace,
                    name,
                    execution_id,
                    node,
                    found,
                    why,
                    "nothing was heard of it: its attempt ends"
                );
            }
            None => {
                tracing::info!(namespace, name, execution_id, node, found, "nothing is heard of it, will look again");
            }
        }
    }

    /// A GET has shown it, maybe as it was long ago.
    fn found(&mut self, uid: &str, is_outdated: bool) {
        if is_outdated {
            return self.ask_again(uid);
        }
        let Some(tracked) = self.index.get_mut(uid) else { return };
        tracked.failures = 0;
        tracked.left = false;
        if tracked.strayed {
            let pause = if tracked.evidence.terminal.is_some() { STRAY_ENDED } else { STRAY_OPEN };
            tracked.recheck = Some(Instant::now() + pause);
        }
    }

    fn ask_again(&mut self, uid: &str) {
        let Some(tracked) = self.index.get_mut(uid) else { return };
        let pause = Duration::from_millis(500) * (1 << tracked.failures.min(6));
        tracked.failures += 1;
        tracked.recheck = Some(Instant::now() + pause);
    }

    /// True if this is older than what is known of the pod or Job.
    fn is_outdated(&mut self, uid: &str, version: Option<u64>) -> bool {
        let now = Instant::now();
        let is_outdated = self.index.get_mut(uid).is_some_and(|tracked| tracked.is_outdated(version, now));
        if is_outdated {
            self.metrics.outdated.inc();
        }
        is_outdated
    }

    /// Notes that a watch or its list shows a tracked pod or Job, unless as it was before something that is known.
    pub(super) fn show(&mut self, uid: &str, version: Option<u64>, watch: usize) {
        if !self.is_outdated(uid, version)
            && let Some(tracked) = self.index.get_mut(uid)
        {
            tracked.show(watch, Instant::now());
        }
    }
}
