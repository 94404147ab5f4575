//! Random steps of random pods, restarts, crashes and retention, against a model that is a few maps.
//!
//! After every action the journal must say what the model says. The invariants (acknowledged is there, no id twice, seq
//! without a gap, an execution is the fold of its events) are also checked on the journal's own words.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;
use podherald_core::{
    event::Event,
    evidence::Evidence,
    execution::{Execution, Status},
};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};
use tempfile::TempDir;

use super::{copy_journal, open_in};
use crate::journal::{
    Change, EventQuery, ExecutionQuery, Follower, Journal as _, Next, PodQuery, Record, Retention, Sqlite,
    fixture::{Pod, at},
};

const EXECUTIONS: usize = 3;
const PODS: usize = 10;

#[derive(Debug, Clone)]
enum Action {
    /// Appends that wait at the same time, each of steps of pods; one of them may be wrong in itself.
    Append { appends: Vec<Vec<(usize, Step)>>, with_a_bad_one: bool },
    /// In order: closed and opened.
    Restart,
    /// The file as it is at this moment, opened elsewhere.
    Crash,
    /// Everything that ended at least so many steps ago, so many at a time.
    Prune { age: i64, batch: usize },
}

#[derive(Debug, Clone)]
enum Step {
    See,
    Schedule,
    Start,
    End { code: i32 },
    Go,
    Repeat,
}

fn action() -> impl Strategy<Value = Action> {
    let step = prop_oneof![
        2 => Just(Step::See),
        2 => Just(Step::Schedule),
        2 => Just(Step::Start),
        3 => (0..3).prop_map(|code| Step::End { code }),
        3 => Just(Step::Go),
        2 => Just(Step::Repeat),
    ];
    let appends = vec(vec((0..PODS, step), 1..4), 1..4);
    prop_oneof![
        12 => (appends, proptest::bool::weighted(0.1))
            .prop_map(|(appends, with_a_bad_one)| Action::Append { appends, with_a_bad_one }),
        1 => Just(Action::Restart),
        2 => Just(Action::Crash),
        2 => (0..20_i64, 1..4_usize).prop_map(|(age, batch)| Action::Prune { age, batch }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_is_what_the_model_says(actions in vec(action(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::begin().await;
            for action in actions {
                run.step(action).await?;
                run.check().await?;
            }
            run.journal.close().await;
            TestCaseResult::Ok(())
        })?;
    }
}

/// A journal, its model, and the pods that write it.
struct Run {
    dir: TempDir,
    journal: Arc<Sqlite>,
    follower: Follower,
    heard: Vec<Arc<Record>>,
    model: Model,
    pods: Vec<(Pod, Vec<Change>)>,
    tick: i64,
}

impl Run {
    async fn begin() -> Self {
        let dir = TempDir::new().unwrap();
        let journal = open_in(&dir).await;
        let pod = |n: usize| {
            let pod =
                Pod::new(&format!("e{}", n % EXECUTIONS), &format!("u{n}"), u32::try_from(n / EXECUTIONS + 1).unwrap());
            (if n == PODS - 1 { pod.in_namespace("other").conflicting() } else { pod }, Vec::new())
        };
        Self {
            follower: journal.follow_all(),
            heard: Vec::new(),
            model: Model::new(journal.epoch()),
            dir,
            journal,
            pods: (0..PODS).map(pod).collect(),
            tick: 0,
        }
    }

    async fn step(&mut self, action: Action) -> TestCaseResult {
        match action {
            Action::Append { appends, with_a_bad_one } => {
                let mut appends: Vec<Vec<Change>> = appends
                    .into_iter()
                    .map(|steps| steps.into_iter().filter_map(|(pod, step)| self.drive(pod, &step)).collect())
                    .collect();
                let bad = with_a_bad_one.then_some(appends.len() / 2);
                if let Some(bad) = bad {
                    appends.insert(bad, vec![stray()]);
                }
                let answers = join_all(appends.iter().map(|changes| self.journal.append(changes.clone()))).await;
                for (n, (changes, answer)) in appends.iter().zip(answers).enumerate() {
                    prop_assert_eq!(answer.is_err(), Some(n) == bad);
                    if answer.is_ok() {
                        changes.iter().for_each(|change| self.model.append(change));
                    }
                }
                self.listen();
            }
            Action::Restart => {
                self.journal.close().await;
                self.journal = open_in(&self.dir).await;
                self.follower = self.journal.follow_all();
            }
            Action::Crash => {
                let dir = TempDir::new().unwrap();
                copy_journal(self.dir.path(), dir.path());
                self.journal = open_in(&dir).await;
                self.dir = dir;
                self.follower = self.journal.follow_all();
            }
            Action::Prune { age, batch } => {
                let retention = Retention { age: Duration::from_secs(age.unsigned_abs()), now: at(self.tick), batch };
                let mut pruned = self.journal.prune(retention).await.unwrap().executions;
                let mut expected = self.model.prune(at(self.tick - age), batch);
                pruned.sort();
                expected.sort();
                prop_assert_eq!(pruned, expected);
            }
        }
        Ok(())
    }

    /// The pod's next step, if it can take it: a pod that is gone takes none.
    fn drive(&mut self, pod: usize, step: &Step) -> Option<Change> {
        self.tick += 1;
        let now = at(self.tick);
        let (pod, past) = &mut self.pods[pod];
        let evidence = &pod.evidence;
        if matches!(step, Step::Repeat) {
            // A pod that the journal has finished with is not seen again.
            return past.last().filter(|_| self.model.evidence.contains_key(&evidence.uid)).cloned();
        }
        let is_over = evidence.gone.is_some()
            || matches!(step, Step::Schedule) && evidence.emitted.pod_scheduled
            || matches!(step, Step::Start) && evidence.emitted.started
            || matches!(step, Step::End { .. } | Step::Start | Step::Schedule) && evidence.terminal.is_some()
            || matches!(step, Step::Go) && evidence.terminal.is_none();
        let change = match step {
            _ if is_over && !(evidence.conflict && evidence.gone.is_none()) => return None,
            _ if evidence.conflict => {
                if matches!(step, Step::Go) {
                    pod.go(now)
                } else {
                    pod.seen(now)
                }
            }
            Step::Schedule => pod.schedule(now),
            Step::Start => pod.start(now),
            Step::End { code } => pod.end(now, *code, &format!("printed at {}", self.tick)),
            Step::Go => pod.go(now),
            Step::See | Step::Repeat => pod.seen(now),
        };
        past.push(change.clone());
        Some(change)
    }

    fn listen(&mut self) {
        while let Some(next) = self.follower.try_next() {
            let Next::Record(record) = next else { panic!("a record, not {next:?}") };
            self.heard.push(record);
        }
    }

    async fn check(&mut self) -> TestCaseResult {
        let (journal, model) = (&self.journal, &self.model);
        let records = journal.events(EventQuery { after: 0, limit: 10_000 }).await.unwrap();
        let said: Vec<_> = records.iter().map(|record| (record.position, record.bytes.to_vec())).collect();
        let expected: Vec<_> = model.events.iter().map(|(position, event)| (*position, event.to_bytes())).collect();
        prop_assert_eq!(said, expected);
        prop_assert_eq!(*journal.head().borrow(), model.head);
        prop_assert_eq!(journal.floor(), model.floor);
        invariants(&records)?;
        let heard: HashSet<_> = self.heard.iter().map(|record| record.position).collect();
        prop_assert_eq!(heard.len(), self.heard.len(), "no follower hears anything twice");
        prop_assert!(self.heard.is_sorted_by_key(|record| record.position));
        prop_assert_eq!(self.heard.len() as u64, model.head, "nor misses anything");

        for (id, known) in &model.executions {
            let shown = (!known.forgotten).then(|| known.execution.clone());
            prop_assert_eq!(journal.execution(id.clone()).await.unwrap(), shown);
            let events = journal.execution_events(id.clone(), 0, 10_000).await.unwrap();
            prop_assert_eq!(&events, &records.iter().filter(|r| &*r.execution_id == id).cloned().collect::<Vec<_>>());
            if !known.was_forgotten {
                folds(&known.execution, &events)?;
            }
        }
        let listed = journal.executions(ExecutionQuery { limit: 100, ..ExecutionQuery::default() }).await.unwrap();
        let listed: Vec<_> = listed.into_iter().map(|listed| listed.execution.execution_id).collect();
        prop_assert_eq!(listed, model.listed());

        let open: BTreeSet<_> = journal.open_evidence().await.unwrap().into_iter().map(|e| e.uid).collect();
        let expected: BTreeSet<_> = model.evidence.values().filter(|e| !e.is_closed()).map(|e| e.uid.clone()).collect();
        prop_assert_eq!(open, expected);
        let pods = journal.pods(PodQuery { limit: 100, ..PodQuery::default() }).await.unwrap();
        let mut present: Vec<_> = model.evidence.values().filter(|e| e.gone.is_none()).cloned().collect();
        present.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        prop_assert_eq!(pods, present);
        let asked = self.pods.iter().map(|(pod, _)| (pod.evidence.uid.clone(), pod.evidence.execution_id.clone()));
        let known = journal.known(asked.collect()).await.unwrap();
        for ((pod, _), known) in self.pods.iter().zip(known) {
            prop_assert_eq!(known.evidence.as_ref(), model.evidence.get(&pod.evidence.uid));
            prop_assert_eq!(known.claim.map(|claim| claim.attempts), model.claim(&pod.evidence.execution_id));
        }
        Ok(())
    }
}

/// What holds for any journal, whatever was done to it.
fn invariants(records: &[Arc<Record>]) -> TestCaseResult {
    let mut ids = HashSet::new();
    let mut last = BTreeMap::new();
    for record in records {
        let event: Event = serde_json::from_slice(&record.bytes).unwrap();
        prop_assert!(ids.insert(event.event_id), "an id twice");
        prop_assert_eq!((&*record.source, record.seq, record.attempt), (&*event.source, event.seq, event.attempt));
        prop_assert_eq!(record.status, Status::after(&event.payload));
        if let Some(before) = last.insert((event.execution_id, event.source), event.seq) {
            prop_assert_eq!(event.seq, before + 1, "a gap");
        }
    }
    Ok(())
}

/// What the events alone say of an execution.
fn folds(execution: &Execution, events: &[Arc<Record>]) -> TestCaseResult {
    let mut folded = Execution::new(&execution.execution_id);
    for record in events {
        folded.apply(&serde_json::from_slice(&record.bytes).unwrap());
        prop_assert_eq!(&*record.version, &folded.as_of);
    }
    prop_assert_eq!(&folded.as_of, &execution.as_of);
    if folded.attempt == execution.attempt {
        prop_assert_eq!(folded.status, execution.status);
        prop_assert_eq!((folded.exit, folded.stdout), (execution.exit, execution.stdout.clone()));
    }
    Ok(())
}

/// An event of one execution under the evidence of another.
fn stray() -> Change {
    let mut pod = Pod::new("stray", "stray", 1);
    Change { evidence: Arc::new(Pod::new("e0", "stray", 1).evidence), ..pod.schedule(at(0)) }
}

/// The journal as it should be.
struct Model {
    source: String,
    evidence: BTreeMap<String, Evidence>,
    settled: BTreeSet<String>,
    executions: BTreeMap<String, Known>,
    events: BTreeMap<u64, Event>,
    head: u64,
    floor: u64,
    seen: u64,
}

struct Known {
    execution: Execution,
    last_end: Option<Timestamp>,
    forgotten: bool,
    was_forgotten: bool,
    key: u64,
}

impl Model {
    fn new(epoch: &str) -> Self {
        Self {
            source: format!("pod-monitor:{epoch}"),
            evidence: BTreeMap::new(),
            settled: BTreeSet::new(),
            executions: BTreeMap::new(),
            events: BTreeMap::new(),
            head: 0,
            floor: 0,
            seen: 0,
        }
    }

    fn append(&mut self, change: &Change) {
        let evidence = &*change.evidence;
        self.evidence.insert(evidence.uid.clone(), evidence.clone());
        if evidence.terminal.is_some() {
            self.settled.insert(evidence.uid.clone());
        }
        if evidence.conflict {
            return;
        }
        let known = self.executions.entry(evidence.execution_id.clone()).or_insert_with(|| {
            self.seen += 1;
            Known {
                execution: Execution::new(&evidence.execution_id),
                last_end: None,
                forgotten: false,
                was_forgotten: false,
                key: self.seen,
            }
        });
        if known.forgotten && evidence.attempt <= known.execution.attempt {
            return;
        }
        known.forgotten = false;
        known.execution.witness(evidence);
        for draft in change.events.iter() {
            if self.events.values().any(|event| event.event_id == draft.event_id) {
                continue;
            }
            let seq = known.execution.as_of.0.get(&self.source).copied().unwrap_or(0) + 1;
            let event = draft.clone().number(&self.source, seq);
            known.execution.apply(&event);
            if event.payload.terminal().is_some() {
                known.last_end = known.last_end.max(Some(event.timestamp));
            }
            self.head += 1;
            self.events.insert(self.head, event);
        }
    }

    fn prune(&mut self, before: Timestamp, batch: usize) -> Vec<String> {
        let mut candidates: Vec<_> =
            self.executions.iter().filter(|(id, known)| self.is_prunable(id, known, before)).collect();
        candidates.sort_by_key(|(_, known)| known.last_end);
        let taken: Vec<String> = candidates.into_iter().take(batch).map(|(id, _)| id.clone()).collect();
        for id in &taken {
            for (position, _) in self.events.extract_if(.., |_, event| event.execution_id == *id) {
                self.floor = self.floor.max(position);
            }
            let known = self.executions.get_mut(id).unwrap();
            (known.forgotten, known.was_forgotten) = (true, true);
            self.settled.extend(self.evidence.values().filter(|e| e.execution_id == *id).map(|e| e.uid.clone()));
        }
        // Those that leave no trace go at once, those of earlier batches as many at a time as others.
        let done = self.executions.iter().filter(|(id, known)| known.forgotten && !self.is_tracked(id));
        let (now, mut earlier): (Vec<_>, Vec<_>) = done.partition(|(id, _)| taken.contains(id));
        earlier.sort_by_key(|(_, known)| known.key);
        earlier.truncate(batch);
        let done: BTreeSet<String> = now.into_iter().chain(earlier).map(|(id, _)| id.clone()).collect();
        self.evidence.retain(|_, e| !(done.contains(&e.execution_id) && e.is_closed()));
        self.executions.retain(|id, _| !done.contains(id));
        self.evidence.retain(|_, e| !(e.conflict && e.is_closed() && !self.executions.contains_key(&e.execution_id)));
        taken
    }

    fn is_prunable(&self, id: &str, known: &Known, before: Timestamp) -> bool {
        let has_ended = |attempt| {
            self.events
                .values()
                .any(|e| e.execution_id == *id && e.attempt == attempt && e.payload.terminal().is_some())
        };
        !known.forgotten
            && known.execution.status.is_terminal()
            && known.last_end.is_some_and(|end| end < before)
            && self
                .evidence
                .values()
                .filter(|e| e.execution_id == id && !e.conflict)
                .all(|e| self.settled.contains(&e.uid) || has_ended(e.attempt))
    }

    fn is_tracked(&self, id: &str) -> bool {
        self.evidence.values().any(|e| e.execution_id == id && !e.conflict && !e.is_closed())
    }

    fn listed(&self) -> Vec<String> {
        let mut shown: Vec<_> = self.executions.iter().filter(|(_, known)| !known.forgotten).collect();
        shown.sort_by_key(|(_, known)| std::cmp::Reverse(known.key));
        shown.into_iter().map(|(id, _)| id.clone()).collect()
    }

    fn claim(&self, id: &str) -> Option<BTreeMap<String, u32>> {
        let pods = self.evidence.values().filter(|e| e.execution_id == id && !e.conflict);
        let attempts: BTreeMap<_, _> = pods.map(|e| (e.attempt_key.clone(), e.attempt)).collect();
        (!attempts.is_empty()).then_some(attempts)
    }
}
