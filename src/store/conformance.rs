//! What every [`Store`] must do, whatever it stands on. [`suite!`] makes a test of each.
//!
//! The tests on a real server have this file too: it names only what stands beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    about::About,
    event::{Event, Exit, ExitSource, Metadata, Payload, ResourceUsage, Slot, Terminal, event_id},
    execution::{Execution, Status},
};
use proptest::{
    collection::{btree_map, vec},
    prelude::{Strategy, any},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use uuid::Uuid;

use super::{
    Appended, Arrival, Attempt, DeadLetter, DeadLetterQuery, EventQuery, ExecutionQuery, Found, Incoming, Listed,
    Outcome, Place, Store, Stored,
};

macro_rules! suite {
    ($open:path: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (store, _kept) = $open().await;
                $crate::store::conformance::$name(&store).await;
            }
        )*
    };
    ($open:path) => {
        $crate::store::conformance::suite!($open:
            events_are_kept_as_they_were_and_folded,
            what_comes_again_or_out_of_order_changes_nothing,
            a_later_attempt_takes_over_and_the_earlier_keeps_its_end,
            an_event_that_this_program_does_not_know_is_kept,
            executions_are_listed_newest_first_and_pages_stay_right_while_others_come,
            filters_of_a_list_all_apply,
            events_come_in_pages_by_time,
            the_first_result_of_an_attempt_stays_and_the_same_again_is_said,
            a_role_is_done_with_an_event_for_ever,
            dead_letters_are_kept_as_they_were_once,
            writers_of_one_execution_at_the_same_time_lose_nothing,
            writers_of_many_executions_at_the_same_time_lose_nothing,
            whatever_programs_print_and_people_name_is_read_back_as_it_was,
            output_beyond_any_limit_of_a_document_is_read_back_whole,
        );
    };
}
pub(crate) use suite;

/// Nothing comes twice from one offset.
static OFFSET: AtomicU64 = AtomicU64::new(0);

/// So many seconds after a certain noon.
pub(crate) fn at(seconds: i64) -> Timestamp {
    "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// An attempt that is driven through its life, a second each step.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    execution_id: String,
    attempt: u32,
    about: About,
    user_id: Option<String>,
    second: i64,
    seq: u64,
}

impl Run {
    pub(crate) fn new(execution_id: &str, attempt: u32) -> Self {
        let (about, execution_id) = (About::default(), execution_id.to_owned());
        Self { execution_id, attempt, about, user_id: None, second: 0, seq: 100 * u64::from(attempt) }
    }

    pub(crate) fn at_second(mut self, second: i64) -> Self {
        self.second = second;
        self
    }

    fn of(mut self, user_id: &str, namespace: &str, labels: &[(&str, &str)]) -> Self {
        self.user_id = Some(user_id.to_owned());
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.about = About { namespace: Some(namespace.to_owned()), labels, pod_uid: Some("u".to_owned()) };
        self
    }

    fn event(&mut self, slot: Slot, payload: Payload) -> Event {
        self.second += 1;
        self.seq += 1;
        Event {
            event_id: event_id(&self.execution_id, &self.attempt.to_string(), slot),
            event_version: "1.0".to_owned(),
            synthesized: false,
            timestamp: at(self.second),
            execution_id: self.execution_id.clone(),
            attempt: self.attempt,
            source: "pod-monitor:epoch".to_owned(),
            seq: self.seq,
            metadata: Metadata {
                service_name: "pod-monitor".to_owned(),
                user_id: self.user_id.clone(),
                ..Metadata::default()
            },
            payload,
        }
    }

    fn arrives(&mut self, slot: Slot, payload: Payload) -> Arrival {
        let event = self.event(slot, payload);
        arrival(&self.about, &event.to_bytes().into())
    }

    pub(crate) fn scheduled(&mut self) -> Arrival {
        self.arrives(Slot::PodScheduled, Payload::PodScheduled { pod_name: "p".to_owned(), node_name: None })
    }

    pub(crate) fn started(&mut self) -> Arrival {
        let pod_name = "p".to_owned();
        self.arrives(Slot::Started, Payload::ExecutionStarted { pod_name, node_name: None, container_id: None })
    }

    pub(crate) fn says(&mut self, offset: u64, message: &str) -> Arrival {
        let message = Some(message.to_owned());
        let payload = Payload::ExecutionProgress { progress_percentage: None, message, offset };
        self.arrives(Slot::Progress { run: 0, offset }, payload)
    }

    fn end(&mut self, code: i32, stdout: &str) -> Event {
        let terminal = Terminal {
            exit_code: Some(code),
            exit: Exit { code: Some(code), signal: None, source: ExitSource::Kubelet },
            resource_usage: Some(ResourceUsage { execution_time_wall_seconds: Some(1.5), ..ResourceUsage::default() }),
            stdout: stdout.to_owned(),
            stderr: "err".to_owned(),
            ..Terminal::default()
        };
        let payload =
            if code == 0 { Payload::ExecutionCompleted(terminal) } else { Payload::ExecutionFailed(terminal) };
        self.event(Slot::Terminal, payload)
    }

    pub(crate) fn ends(&mut self, code: i32, stdout: &str) -> Arrival {
        let event = self.end(code, stdout);
        arrival(&self.about, &event.to_bytes().into())
    }

    pub(crate) fn amended(&mut self, n: u32, evidence: &str) -> Arrival {
        let evidence = vec![evidence.to_owned()];
        let amended = Payload::ExecutionAmended { amends: Uuid::nil(), exit: None, evidence };
        self.arrives(Slot::Amended(n), amended)
    }

    pub(crate) fn is_deleted(&mut self) -> Arrival {
        self.arrives(Slot::PodDeleted, Payload::PodDeleted { pod_name: "p".to_owned(), reason: None })
    }

    pub(crate) fn life(&mut self) -> Vec<Arrival> {
        vec![self.scheduled(), self.started(), self.ends(0, "out"), self.is_deleted()]
    }
}

/// At a new offset of the topic that it belongs to.
fn arrival(about: &About, bytes: &Bytes) -> Arrival {
    let offset = OFFSET.fetch_add(1, Ordering::Relaxed);
    let read = |topic: &str| {
        Arrival::read(Place { topic: topic.into(), partition: 3 }, offset, about.clone(), bytes.clone()).unwrap()
    };
    let first = read("execution_events");
    if first.event_type.starts_with("pod_") { read("pod_events") } else { first }
}

/// As the event of it comes once more, from another offset.
fn again(arrival: &Arrival) -> Arrival {
    let mut again = arrival.clone();
    again.offset = OFFSET.fetch_add(1, Ordering::Relaxed);
    again
}

async fn execution(store: &dyn Store, id: &str) -> Execution {
    store.execution(id.to_owned()).await.unwrap().unwrap().execution
}

/// Two at a time, to the end.
pub(crate) async fn listed(store: &dyn Store, mut query: ExecutionQuery) -> Vec<String> {
    let mut ids = Vec::new();
    query.limit = 2;
    loop {
        let page = store.executions(query.clone()).await.unwrap();
        let Some(last) = page.last() else { return ids };
        query.after = Some(last.cursor.clone());
        ids.extend(page.into_iter().map(|listed| listed.execution.execution_id));
    }
}

pub(crate) async fn kept(store: &dyn Store, id: &str) -> Vec<Bytes> {
    let query = EventQuery { execution_id: id.to_owned(), after: None, limit: 1000 };
    store.events(query).await.unwrap().into_iter().map(|event| event.bytes).collect()
}

pub(crate) async fn events_are_kept_as_they_were_and_folded(store: &dyn Store) {
    assert_eq!(store.execution("e".to_owned()).await.unwrap(), None);
    assert_eq!(store.append(vec![]).await.unwrap(), []);
    let arrivals = Run::new("e", 1).of("ann", "lab", &[("team", "blue")]).life();
    assert_eq!(store.append(arrivals.clone()).await.unwrap(), [Appended::New; 4]);
    let found = store.execution("e".to_owned()).await.unwrap().unwrap();
    let mut expected = Execution::new("e");
    for arrival in &arrivals {
        let event = serde_json::from_slice(&arrival.bytes).unwrap();
        expected.apply(&event);
        expected.learn(&arrival.about, &event);
    }
    assert_eq!(expected.labels, [("team".to_owned(), "blue".to_owned())].into());
    let pods: Vec<_> = expected.pods.iter().map(|pod| (&*pod.namespace, &*pod.uid)).collect();
    assert_eq!(pods, [("lab", "u")]);
    assert_eq!(found.execution, expected);
    assert_eq!((expected.stdout.as_deref(), expected.stderr.as_deref()), (Some("out"), Some("err")));
    assert_eq!((expected.times.scheduled, expected.times.started), (Some(at(1)), Some(at(2))));
    let of = |arrival: &Arrival| (arrival.place.clone(), arrival.offset + 1);
    assert_eq!(found.watermarks, [of(&arrivals[2]), of(&arrivals[3])].into());
    let bytes: Vec<_> = arrivals.iter().map(|arrival| arrival.bytes.clone()).collect();
    assert_eq!(kept(store, "e").await, bytes);
    assert_eq!(kept(store, "other").await, [""; 0]);
    let ended_by = Some(arrivals[2].event_id);
    let (execution_id, status, ended_at) = ("e".to_owned(), Status::Completed, Some(at(3)));
    let attempt = Attempt { execution_id, attempt: 1, status, ended_at, ended_by };
    assert_eq!(store.attempts("e".to_owned()).await.unwrap(), [attempt]);
    store.check().await.unwrap();
}

pub(crate) async fn what_comes_again_or_out_of_order_changes_nothing(store: &dyn Store) {
    let mut run = Run::new("e", 1);
    let (scheduled, started) = (run.scheduled(), run.started());
    let (half, done) = (run.says(1, "half"), run.says(2, "done"));
    // From the other topic, and so early.
    let mut order = vec![scheduled.clone(), started, half.clone(), done.clone()];
    store.append(order.clone()).await.unwrap();
    let before = store.execution("e".to_owned()).await.unwrap();
    assert_eq!(store.append(order.clone()).await.unwrap(), [Appended::Known; 4]);
    assert_eq!(store.execution("e".to_owned()).await.unwrap(), before);
    assert_eq!(store.append(vec![again(&half), again(&scheduled)]).await.unwrap(), [Appended::Known; 2]);
    let after = store.execution("e".to_owned()).await.unwrap().unwrap();
    assert_eq!(after.execution.progress.unwrap().message.as_deref(), Some("done"), "the older is not news");
    assert_eq!(after.execution.status, Status::Running);

    let last = run.ends(3, "out");
    let deleted = run.is_deleted();
    order.extend([last, deleted]);
    for arrival in order.iter().rev() {
        let (mut other, id) = (arrival.clone(), "e".to_owned());
        other.offset = OFFSET.fetch_add(1, Ordering::Relaxed);
        store.append(vec![other.clone(), other]).await.unwrap();
        assert!(store.execution(id).await.unwrap().is_some());
    }
    let ended = execution(store, "e").await;
    assert_eq!((ended.status, ended.stdout.as_deref(), ended.times.ended), (Status::Failed, Some("out"), Some(at(5))));
    assert_eq!(kept(store, "e").await.len(), 6);
}

pub(crate) async fn a_later_attempt_takes_over_and_the_earlier_keeps_its_end(store: &dyn Store) {
    let (mut first, mut second) = (Run::new("e", 1), Run::new("e", 2).at_second(10));
    store.append(first.life()).await.unwrap();
    store.append(vec![second.scheduled()]).await.unwrap();
    let now = execution(store, "e").await;
    assert_eq!((now.status, now.attempt, now.attempts, now.stdout), (Status::Scheduled, 2, 2, None));
    store.append(vec![first.says(9, "late"), second.ends(1, "second")]).await.unwrap();
    let now = execution(store, "e").await;
    assert_eq!((now.status, now.stdout.as_deref(), now.progress), (Status::Failed, Some("second"), None));
    // Late, and of the same rank.
    let mut late = Run::new("e", 1);
    store.append(vec![late.started(), late.ends(1, "other")]).await.unwrap();
    let attempts = store.attempts("e".to_owned()).await.unwrap();
    let ends: Vec<_> = attempts.iter().map(|attempt| (attempt.attempt, attempt.status, attempt.ended_at)).collect();
    assert_eq!(ends, [(1, Status::Completed, Some(at(3))), (2, Status::Failed, Some(at(12)))]);
}

pub(crate) async fn an_event_that_this_program_does_not_know_is_kept(store: &dyn Store) {
    let bytes = Bytes::from_static(
        br#" {"event_id":"7d444840-9dc0-11d1-b245-5ffdce74fad2", "event_type":"saga_started","timestamp":"2026-03-01T12:00:00Z",
        "execution_id":"e","source":"s","seq":1,"metadata":{},"big":123456789012345678901234567890} "#,
    );
    let arrival = arrival(&About::default(), &bytes);
    let watermark = (arrival.place.clone(), arrival.offset + 1);
    assert_eq!(store.append(vec![arrival]).await.unwrap(), [Appended::New]);
    assert_eq!(kept(store, "e").await, [bytes]);
    let found = store.execution("e".to_owned()).await.unwrap().unwrap();
    assert_eq!((found.execution.status, found.watermarks), (Status::Pending, [watermark].into()));
    assert_eq!(store.attempts("e".to_owned()).await.unwrap(), []);
    let place = Place { topic: "t".into(), partition: 0 };
    let refusal = Arrival::read(place, 1, About::default(), "{}".into()).unwrap_err();
    assert!(refusal.contains("cannot be read as an event: missing field"), "{refusal}");
}

pub(crate) async fn executions_are_listed_newest_first_and_pages_stay_right_while_others_come(store: &dyn Store) {
    for (id, second) in [("aa", 20), ("a", 20), ("d", 40), ("c", 30), ("e", 10)] {
        store.append(Run::new(id, 1).at_second(second).life()).await.unwrap();
    }
    assert_eq!(listed(store, ExecutionQuery::default()).await, ["d", "c", "aa", "a", "e"]);
    let page = store.executions(ExecutionQuery { limit: 2, ..ExecutionQuery::default() }).await.unwrap();
    let Listed { cursor, execution: of_list } = page[1].clone();
    assert_eq!(of_list, Execution { stdout: None, stderr: None, ..execution(store, "c").await });
    // One comes, and one that is listed changes.
    store.append(Run::new("f", 1).at_second(50).life()).await.unwrap();
    store.append(vec![Run::new("d", 2).at_second(60).started()]).await.unwrap();
    let rest = ExecutionQuery { after: Some(cursor), ..ExecutionQuery::default() };
    assert_eq!(listed(store, rest).await, ["aa", "a", "e"]);
    assert_eq!(listed(store, ExecutionQuery::default()).await, ["f", "d", "c", "aa", "a", "e"]);
}

pub(crate) async fn filters_of_a_list_all_apply(store: &dyn Store) {
    let mut runs = [
        Run::new("new", 1).of("ann", "lab", &[("team", "blue"), ("k8s.io/$x", "a.b")]).at_second(40),
        Run::new("run", 1).of("bob", "lab", &[("team", "blue")]).at_second(30),
        Run::new("done", 1).of("ann", "lab", &[("team", "red")]).at_second(20),
        Run::new("far", 1).of("ann", "far", &[("team", "blue")]).at_second(10),
    ];
    let first = [runs[0].scheduled(), runs[1].started(), runs[2].ends(0, ""), runs[3].ends(1, "")];
    store.append(first.to_vec()).await.unwrap();
    let all = ExecutionQuery::default;
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let cases = [
        (ExecutionQuery { statuses: vec![Status::Completed, Status::Failed], ..all() }, vec!["done", "far"]),
        (ExecutionQuery::open(None, 2), vec!["new", "run"]),
        (ExecutionQuery { namespace: Some("lab".into()), ..all() }, vec!["new", "run", "done"]),
        (ExecutionQuery { user_id: Some("ann".into()), ..all() }, vec!["new", "done", "far"]),
        (ExecutionQuery { labels: vec![label("team", "blue")], ..all() }, vec!["new", "run", "far"]),
        (ExecutionQuery { labels: vec![label("team", "blue"), label("k8s.io/$x", "a.b")], ..all() }, vec!["new"]),
        (ExecutionQuery { labels: vec![label("team", "lue")], ..all() }, vec![]),
        (
            ExecutionQuery {
                statuses: vec![Status::Scheduled, Status::Failed],
                namespace: Some("lab".into()),
                user_id: Some("ann".into()),
                labels: vec![label("team", "blue")],
                ..all()
            },
            vec!["new"],
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(listed(store, query.clone()).await, expected, "{query:?}");
    }
}

pub(crate) async fn events_come_in_pages_by_time(store: &dyn Store) {
    let mut run = Run::new("e", 1);
    let life = run.life();
    // The same second: the writer's order counts.
    let mut after: Event = serde_json::from_slice(&life[3].bytes).unwrap();
    after.event_id = Uuid::nil();
    after.seq += 1;
    let last = arrival(&About::default(), &after.to_bytes().into());
    for arrival in [&last, &life[2], &life[0], &life[3], &life[1]] {
        store.append(vec![arrival.clone()]).await.unwrap();
    }
    let mut query = EventQuery { execution_id: "e".to_owned(), after: None, limit: 2 };
    let mut ids = Vec::new();
    loop {
        let page = store.events(query.clone()).await.unwrap();
        let Some(end) = page.last() else { break };
        query.after = Some(end.cursor);
        ids.extend(page.iter().map(|event| event.cursor.event_id));
    }
    let expected: Vec<_> = life.iter().chain([&last]).map(|arrival| arrival.event_id).collect();
    assert_eq!(ids, expected);
}

pub(crate) async fn the_first_result_of_an_attempt_stays_and_the_same_again_is_said(store: &dyn Store) {
    let outcome = Outcome::of(&Run::new("e", 1).end(0, "out")).unwrap();
    assert_eq!((&*outcome.stdout, &*outcome.terminal.stdout), (&b"out"[..], ""));
    assert_eq!(store.result("e".to_owned(), None).await.unwrap(), None);
    assert_eq!(store.put_result(outcome.clone()).await.unwrap(), Stored::First);
    assert_eq!(store.put_result(outcome.clone()).await.unwrap(), Stored::Again);
    let other = Outcome { event_id: Uuid::nil(), status: Status::Failed, ..outcome.clone() };
    assert_eq!(store.put_result(other).await.unwrap(), Stored::Other { event_id: outcome.event_id });
    assert_eq!(store.result("e".to_owned(), Some(1)).await.unwrap(), Some(outcome.clone()));
    let second = Outcome::of(&Run::new("e", 2).end(3, "second")).unwrap();
    // Two processors at once: one of them is first.
    let both = join_all([second.clone(), second.clone()].map(|outcome| store.put_result(outcome))).await;
    let mut both: Vec<_> = both.into_iter().map(Result::unwrap).collect();
    both.sort_by_key(|stored| *stored != Stored::First);
    assert_eq!(both, [Stored::First, Stored::Again]);
    assert_eq!(store.result("e".to_owned(), None).await.unwrap(), Some(second));
    assert_eq!(store.result("e".to_owned(), Some(1)).await.unwrap(), Some(outcome));
    assert_eq!(store.result("e".to_owned(), Some(3)).await.unwrap(), None);
}

pub(crate) async fn a_role_is_done_with_an_event_for_ever(store: &dyn Store) {
    let id = Uuid::from_u128(7);
    assert!(!store.is_finished("one", id).await.unwrap());
    assert!(store.finish("one", id, at(0)).await.unwrap());
    assert!(!store.finish("one", id, at(9)).await.unwrap());
    assert!(store.is_finished("one", id).await.unwrap());
    assert!(!store.is_finished("other", id).await.unwrap());
    assert!(!store.is_finished("one", Uuid::nil()).await.unwrap());
}

fn letter(role: &str, offset: u64, second: i64) -> DeadLetter {
    let binary = Bytes::from_static(b"\xff\x00\xfe");
    DeadLetter {
        role: role.to_owned(),
        incoming: Incoming {
            place: Place { topic: "execution_events".into(), partition: 2 },
            offset,
            key: Some(binary.clone()),
            headers: vec![("a.$b".to_owned(), Some(binary.clone())), ("none".to_owned(), None)],
            payload: (offset > 1).then_some(binary),
        },
        reason: "it\0is no event".to_owned(),
        tries: 5,
        at: at(second),
    }
}

pub(crate) async fn dead_letters_are_kept_as_they_were_once(store: &dyn Store) {
    let letters = [letter("one", 1, 30), letter("one", 2, 20), letter("other", 1, 10)];
    for letter in letters.iter().rev() {
        store.bury(letter.clone()).await.unwrap();
        store.bury(DeadLetter { at: at(99), tries: 9, ..letter.clone() }).await.unwrap();
    }
    let list = async |role: Option<&str>, after, limit| {
        let query = DeadLetterQuery { role: role.map(str::to_owned), after, limit };
        store.dead_letters(query).await.unwrap()
    };
    let all = list(None, None, 9).await;
    assert_eq!(all.iter().map(|listed| listed.letter.clone()).collect::<Vec<_>>(), letters);
    assert_eq!(list(Some("one"), None, 9).await, all[..2]);
    assert_eq!(list(None, Some(all[0].cursor.clone()), 1).await, all[1..2]);
    assert_eq!(list(Some("one"), Some(all[0].cursor.clone()), 9).await, all[1..2]);
}

pub(crate) async fn writers_of_one_execution_at_the_same_time_lose_nothing(store: &dyn Store) {
    let mut run = Run::new("e", 1);
    let mut amendments: Vec<Arrival> = (0..12).map(|n| run.amended(n, "late")).collect();
    // As if each were of a partition of its own.
    for (partition, arrival) in (0..).zip(&mut amendments) {
        arrival.place.partition = partition;
    }
    let appended =
        join_all(amendments.iter().map(|arrival| store.append(vec![arrival.clone(), arrival.clone()]))).await;
    for appended in appended {
        assert_eq!(appended.unwrap(), [Appended::New, Appended::Known]);
    }
    let found = store.execution("e".to_owned()).await.unwrap().unwrap();
    assert_eq!((found.execution.amended.len(), found.watermarks.len()), (12, 12));
}

/// More than go into one command, some known before and some large. One has an id that an error message would be cut in.
pub(crate) async fn writers_of_many_executions_at_the_same_time_lose_nothing(store: &dyn Store) {
    let mut runs: Vec<_> = (0..80).map(|n| Run::new(&format!("e{n}"), 1)).collect();
    runs.push(Run::new(&format!("a{}", "ö".repeat(84)), 1));
    let large = "x".repeat(100 << 10);
    runs[7] = Run::new("e7", 1).of("ann", "lab", &[("large", &large)]);
    let known = runs.iter_mut().step_by(3).map(Run::scheduled).collect();
    store.append(known).await.unwrap();
    let batches = (0..3_u32).map(|writer| {
        let of_all = runs.iter_mut().flat_map(|run| [run.started(), run.amended(writer, "late")]);
        let at_writer = of_all.map(|mut arrival| {
            arrival.place.partition = writer.cast_signed();
            arrival
        });
        at_writer.collect()
    });
    let batches: Vec<Vec<Arrival>> = batches.collect();
    for _ in 0..2 {
        for appended in join_all(batches.iter().map(|batch| store.append(batch.clone()))).await {
            appended.unwrap();
        }
    }
    for run in runs {
        let Found { execution, watermarks, .. } = store.execution(run.execution_id.clone()).await.unwrap().unwrap();
        let at_writers = watermarks.keys().filter(|place| (0..3).contains(&place.partition)).count();
        assert_eq!(
            (execution.status, execution.amended.len(), at_writers),
            (Status::Running, 3, 3),
            "{}",
            run.execution_id
        );
        assert_eq!(store.attempts(run.execution_id).await.unwrap().len(), 1);
    }
}

/// Texts that a database may have opinions on.
fn text() -> impl Strategy<Value = String> {
    vec(proptest::sample::select(vec!['a', '.', '$', '\0', '/', 'é', '\u{ffff}', '💥', ' ', '"', '\\']), 0..12)
        .prop_map(|characters| characters.into_iter().collect())
}

pub(crate) async fn whatever_programs_print_and_people_name_is_read_back_as_it_was(store: &dyn Store) {
    let mut runner = TestRunner::deterministic();
    let labels = btree_map(text(), text(), 0..6);
    let strategy = (text(), labels, text(), vec(any::<u8>(), 0..64), text());
    for n in 0..40 {
        let (name, labels, user, bytes, printed) = strategy.new_tree(&mut runner).unwrap().current();
        let id = format!("{n}{name}");
        let about =
            About { namespace: Some(name.clone()), labels: labels.clone().into_iter().collect(), pod_uid: None };
        let mut run = Run { user_id: Some(user.clone()), about, ..Run::new(&id, 1) };
        let end = run.end(1, &printed);
        store.append(vec![arrival(&run.about, &end.to_bytes().into())]).await.unwrap();
        let found = execution(store, &id).await;
        assert_eq!(
            (&found.labels, found.user_id.as_ref(), found.stdout.as_ref()),
            (&labels, Some(&user), Some(&printed))
        );
        assert_eq!(kept(store, &id).await, [end.to_bytes()]);
        let labels = labels.into_iter().collect();
        let query = ExecutionQuery {
            namespace: Some(name),
            user_id: Some(user),
            labels,
            limit: 50,
            ..ExecutionQuery::default()
        };
        let ids: Vec<_> = store.executions(query).await.unwrap().into_iter().map(|l| l.cursor.execution_id).collect();
        assert!(ids.contains(&id), "{id:?} is not in {ids:?}");
        let outcome = Outcome { stdout: bytes.clone().into(), stderr: printed.into(), ..Outcome::of(&end).unwrap() };
        store.put_result(outcome.clone()).await.unwrap();
        assert_eq!(store.result(id, None).await.unwrap(), Some(outcome));
    }
}

pub(crate) async fn output_beyond_any_limit_of_a_document_is_read_back_whole(store: &dyn Store) {
    const BYTES: usize = 17 << 20;
    let mut run = Run::new("e", 1);
    let end = run.end(0, &"ö".repeat(BYTES / 2));
    let arrival = arrival(&About::default(), &end.to_bytes().into());
    assert_eq!(store.append(vec![arrival.clone(), run.is_deleted()]).await.unwrap(), [Appended::New; 2]);
    assert_eq!(store.append(vec![arrival]).await.unwrap(), [Appended::Known]);
    assert_eq!(kept(store, "e").await[0], end.to_bytes());
    assert_eq!(
        execution(store, "e").await.stdout,
        Outcome::of(&end).map(|o| String::from_utf8(o.stdout.into()).unwrap())
    );
    let outcome = Outcome { stderr: vec![0xff; BYTES].into(), ..Outcome::of(&end).unwrap() };
    assert_eq!(store.put_result(outcome.clone()).await.unwrap(), Stored::First);
    assert_eq!(store.put_result(outcome.clone()).await.unwrap(), Stored::Again);
    assert!(store.result("e".to_owned(), Some(1)).await.unwrap() == Some(outcome));
}
