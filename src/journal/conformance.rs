//! What every [`Journal`] must do, whatever it stands on. [`suite!`] makes a test of each.

use std::{sync::Arc, time::Duration};

use podherald_core::{
    about::About,
    event::{Draft, Event, Slot},
    execution::{Execution, Status},
    told::Told,
};

use super::{
    Adopted, Audit, Bounds, Change, Cursor, DeadLetter, DeadLetterQuery, EventQuery, ExecutionQuery, Journal, Next,
    Place, PodQuery, Record, Retention, Subscription,
    fixture::{Pod, at},
};

macro_rules! suite {
    ($open:path: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (journal, _kept) = $open().await;
                $crate::journal::conformance::$name(&*journal).await;
                journal.close().await;
            }
        )*
    };
    ($open:path) => {
        $crate::journal::conformance::suite!($open:
            an_acknowledged_append_is_there_for_every_reader,
            a_repeated_append_leaves_no_trace,
            an_append_of_nothing_succeeds,
            seq_counts_each_execution_without_a_gap,
            records_read_back_equal_those_that_followers_heard,
            a_follower_of_one_execution_hears_only_of_it,
            evidence_without_an_event_is_told_as_a_change,
            the_head_moves_with_the_events,
            executions_are_listed_newest_first_in_pages,
            filters_of_a_list_all_apply,
            lists_leave_the_output_out,
            a_later_attempt_takes_the_output_of_the_earlier_away,
            a_conflicting_pod_is_shown_and_touches_nothing,
            known_tells_the_record_and_who_owns_the_execution,
            open_evidence_ends_with_the_pod,
            pods_are_listed_by_name_until_they_are_gone,
            a_name_means_its_latest_pod,
            events_of_all_come_in_pages,
            retention_takes_what_is_old_and_raises_the_floor,
            an_execution_that_goes_on_is_never_taken,
            a_new_sink_begins_with_the_present_and_a_known_one_where_it_was,
            a_cursor_never_goes_back_and_belongs_to_a_sink_that_subscribed,
            dead_letters_are_kept_with_the_move_that_passes_them_until_they_are_old,
            what_every_required_sink_is_done_with_is_carried,
            a_batch_is_bounded_in_records_and_in_bytes,
            retention_waits_for_required_sinks_and_for_no_other,
            what_other_roles_tell_is_numbered_kept_and_shown_before_and_after_there_is_a_pod,
            what_another_monitor_has_published_is_shown_as_it_was,
            of_an_event_that_is_known_it_is_only_noted_that_it_was_told,
            what_is_to_come_in_order_waits_for_what_comes_before_it,
            what_others_have_told_ends_before_the_first_that_nobody_has,
            another_monitor_may_have_counted_an_attempt_first,
            every_attempt_is_ended_live_or_unaccounted_for,
            a_closed_journal_says_so,
        );
    };
}
pub(crate) use suite;

const EVERYTHING: EventQuery = EventQuery { after: 0, limit: 1000 };

fn all() -> ExecutionQuery {
    ExecutionQuery { limit: 100, ..ExecutionQuery::default() }
}

async fn append(journal: &dyn Journal, changes: Vec<Change>) {
    for change in changes {
        journal.append(vec![change]).await.unwrap();
    }
}

fn positions(records: &[Arc<Record>]) -> Vec<u64> {
    records.iter().map(|record| record.position).collect()
}

async fn ids(journal: &dyn Journal, query: ExecutionQuery) -> Vec<String> {
    let listed = journal.executions(query).await.unwrap();
    listed.into_iter().map(|listed| listed.execution.execution_id).collect()
}

async fn names(journal: &dyn Journal, query: PodQuery) -> Vec<String> {
    journal.pods(query).await.unwrap().into_iter().map(|evidence| evidence.name).collect()
}

pub(crate) async fn an_acknowledged_append_is_there_for_every_reader(journal: &dyn Journal) {
    let mut pod = Pod::new("e", "u", 1);
    journal.append(vec![pod.schedule(at(1)), pod.start(at(2)), pod.end(at(3), 3, "hello")]).await.unwrap();
    let execution = journal.execution("e".into()).await.unwrap().unwrap();
    assert_eq!(execution.status, Status::Failed);
    assert_eq!(execution.stdout.as_deref(), Some("hello"));
    assert_eq!(execution.times.started, Some(at(2)));
    assert_eq!(execution.pods[0].uid, "u");
    let records = journal.execution_events("e".into(), 0, 10).await.unwrap();
    let types: Vec<_> = records.iter().map(|record| record.event_type).collect();
    assert_eq!(types, ["pod_scheduled", "execution_started", "execution_running", "execution_failed"]);
    assert_eq!(journal.pod("lab".into(), "executor-u".into()).await.unwrap(), Some(pod.evidence));
    assert_eq!(journal.execution("other".into()).await.unwrap(), None);
}

pub(crate) async fn a_repeated_append_leaves_no_trace(journal: &dyn Journal) {
    let changes = Pod::new("e", "u", 1).life(0);
    journal.append(changes.clone()).await.unwrap();
    let before = (journal.execution("e".into()).await.unwrap(), journal.events(EVERYTHING).await.unwrap());
    let mut follower = journal.follow("e");
    journal.append(vec![changes.last().unwrap().clone()]).await.unwrap();
    let after = (journal.execution("e".into()).await.unwrap(), journal.events(EVERYTHING).await.unwrap());
    assert_eq!(before, after);
    assert!(follower.try_next().is_none());
}

pub(crate) async fn an_append_of_nothing_succeeds(journal: &dyn Journal) {
    journal.append(Vec::new()).await.unwrap();
}

pub(crate) async fn seq_counts_each_execution_without_a_gap(journal: &dyn Journal) {
    let (mut one, mut other) = (Pod::new("one", "u1", 1), Pod::new("other", "u2", 1));
    append(journal, vec![one.schedule(at(1)), other.schedule(at(1)), one.start(at(2)), other.end(at(2), 0, "")]).await;
    append(journal, one.life(2)).await;
    for (id, count) in [("one", 5), ("other", 2)] {
        let records = journal.execution_events(id.into(), 0, 100).await.unwrap();
        let seqs: Vec<_> = records.iter().map(|record| record.seq).collect();
        assert_eq!(seqs, (1..=count).collect::<Vec<_>>());
        let source = format!("pod-monitor:{}", journal.epoch());
        for record in records {
            assert_eq!(*record.source, *source);
            assert_eq!(record.version.0, [(source.clone(), record.seq)].into());
            let event: podherald_core::event::Event = serde_json::from_slice(&record.bytes).unwrap();
            assert_eq!((event.source, event.seq), (source.clone(), record.seq));
        }
    }
}

pub(crate) async fn records_read_back_equal_those_that_followers_heard(journal: &dyn Journal) {
    let (mut all, mut one) = (journal.follow_all(), journal.follow("e"));
    let mut pod = Pod::new("e", "u", 1).labelled("team", "blue");
    journal.append(vec![pod.schedule(at(1)), pod.start(at(2)), pod.end(at(3), 0, "x")]).await.unwrap();
    let read = journal.events(EVERYTHING).await.unwrap();
    assert_eq!(read.len(), 4);
    for record in &read {
        for follower in [&mut all, &mut one] {
            let Next::Record(heard) = follower.next().await else { panic!("a record") };
            assert_eq!(heard, *record);
        }
    }
    assert_eq!(read, journal.execution_events("e".into(), 0, 10).await.unwrap());
    assert_eq!(read[0].about.labels.get("team").map(String::as_str), Some("blue"));
}

pub(crate) async fn a_follower_of_one_execution_hears_only_of_it(journal: &dyn Journal) {
    let mut follower = journal.follow("one");
    append(journal, vec![Pod::new("other", "u2", 1).schedule(at(1)), Pod::new("one", "u1", 1).schedule(at(1))]).await;
    let Some(Next::Record(record)) = follower.try_next() else { panic!("a record") };
    assert_eq!(&*record.execution_id, "one");
    assert!(follower.try_next().is_none());
}

pub(crate) async fn evidence_without_an_event_is_told_as_a_change(journal: &dyn Journal) {
    let (mut all, mut one) = (journal.follow_all(), journal.follow("e"));
    append(journal, vec![Pod::new("e", "u", 1).seen(at(1))]).await;
    assert!(matches!(one.try_next(), Some(Next::Changed)));
    assert!(all.try_next().is_none());
    assert_eq!(journal.execution("e".into()).await.unwrap().unwrap().status, Status::Pending);
}

pub(crate) async fn the_head_moves_with_the_events(journal: &dyn Journal) {
    let mut head = journal.head();
    assert_eq!(*head.borrow_and_update(), 0);
    let mut pod = Pod::new("e", "u", 1);
    append(journal, vec![pod.schedule(at(1)), pod.seen(at(2)), pod.start(at(3))]).await;
    assert_eq!(*head.borrow_and_update(), 3);
    let (snapshot, listed) = journal.snapshot(all()).await.unwrap();
    assert_eq!((snapshot, listed.len()), (3, 1));
}

pub(crate) async fn executions_are_listed_newest_first_in_pages(journal: &dyn Journal) {
    for n in 0..5 {
        append(journal, vec![Pod::new(&format!("e{n}"), &format!("u{n}"), 1).seen(at(n))]).await;
    }
    let first = journal.executions(ExecutionQuery { limit: 3, ..all() }).await.unwrap();
    assert_eq!(first.iter().map(|l| &*l.execution.execution_id).collect::<Vec<_>>(), ["e4", "e3", "e2"]);
    assert_eq!(ids(journal, ExecutionQuery { before: Some(first[2].key), ..all() }).await, ["e1", "e0"]);
    let both = vec![Status::Pending, Status::Failed];
    assert_eq!(ids(journal, ExecutionQuery { limit: 2, statuses: both, ..all() }).await, ["e4", "e3"]);
}

pub(crate) async fn filters_of_a_list_all_apply(journal: &dyn Journal) {
    let mut failed =
        Pod::new("failed", "u1", 1).in_namespace("north").labelled("team", "blue").labelled("user-id", "ann");
    let mut done = Pod::new("done", "u2", 1).labelled("team", "blue").labelled("app.io/x", "it's");
    append(journal, vec![failed.end(at(1), 1, ""), done.end(at(1), 0, ""), Pod::new("new", "u3", 1).seen(at(1))]).await;
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let cases = [
        (ExecutionQuery { statuses: vec![Status::Failed], ..all() }, vec!["failed"]),
        (ExecutionQuery { statuses: vec![Status::Failed, Status::Pending], ..all() }, vec!["new", "failed"]),
        (ExecutionQuery { statuses: vec![Status::Failed, Status::Failed], ..all() }, vec!["failed"]),
        (ExecutionQuery { statuses: vec![Status::Timeout], ..all() }, vec![]),
        (ExecutionQuery { namespace: Some("north".into()), ..all() }, vec!["failed"]),
        (ExecutionQuery { user_id: Some("ann".into()), ..all() }, vec!["failed"]),
        (ExecutionQuery { labels: vec![label("team", "blue")], ..all() }, vec!["done", "failed"]),
        (ExecutionQuery { labels: vec![label("team", "blue"), label("app.io/x", "it's")], ..all() }, vec!["done"]),
        (ExecutionQuery { labels: vec![label("team", "blue"), label("team", "red")], ..all() }, vec![]),
        (ExecutionQuery { ids: vec!["new".into(), "done".into(), "none".into()], ..all() }, vec!["new", "done"]),
        (ExecutionQuery { namespace: Some("lab".into()), labels: vec![label("team", "blue")], ..all() }, vec!["done"]),
    ];
    for (query, expected) in cases {
        assert_eq!(ids(journal, query.clone()).await, expected, "{query:?}");
    }
}

pub(crate) async fn lists_leave_the_output_out(journal: &dyn Journal) {
    append(journal, Pod::new("e", "u", 1).life(0)).await;
    let whole = journal.execution("e".into()).await.unwrap().unwrap();
    assert_eq!((whole.stdout.as_deref(), whole.stderr.as_deref()), (Some("out"), Some("err")));
    let listed = journal.executions(all()).await.unwrap().remove(0).execution;
    assert_eq!(listed, Execution { stdout: None, stderr: None, ..whole });
}

pub(crate) async fn a_later_attempt_takes_the_output_of_the_earlier_away(journal: &dyn Journal) {
    append(journal, Pod::new("e", "u1", 1).life(0)).await;
    let mut second = Pod::new("e", "u2", 2);
    append(journal, vec![second.schedule(at(10))]).await;
    let execution = journal.execution("e".into()).await.unwrap().unwrap();
    assert_eq!((execution.status, execution.attempt, execution.attempts), (Status::Scheduled, 2, 2));
    assert_eq!((execution.stdout, execution.pods.len()), (None, 2));
    append(journal, vec![second.end(at(11), 1, "second")]).await;
    assert_eq!(journal.execution("e".into()).await.unwrap().unwrap().stdout.as_deref(), Some("second"));
}

pub(crate) async fn a_conflicting_pod_is_shown_and_touches_nothing(journal: &dyn Journal) {
    append(journal, Pod::new("e", "u1", 1).life(0)).await;
    let before = journal.execution("e".into()).await.unwrap();
    let mut thief = Pod::new("e", "u2", 1).in_namespace("other").conflicting();
    append(journal, vec![thief.seen(at(9))]).await;
    assert_eq!(journal.execution("e".into()).await.unwrap(), before);
    assert_eq!(names(journal, PodQuery { limit: 9, ..PodQuery::default() }).await, ["executor-u2"]);
    let with_events = Change { events: Pod::new("e", "u2", 1).schedule(at(1)).events, ..thief.seen(at(9)) };
    journal.append(vec![with_events]).await.unwrap_err();
}

pub(crate) async fn known_tells_the_record_and_who_owns_the_execution(journal: &dyn Journal) {
    let (mut first, mut second) = (Pod::new("e", "u1", 1), Pod::new("e", "u2", 2));
    let mut thief = Pod::new("e", "u3", 1).in_namespace("other").conflicting();
    append(journal, vec![first.seen(at(1)), second.seen(at(2)), thief.seen(at(3))]).await;
    let asked = [("u2", "e"), ("u9", "e"), ("u9", "f")].map(|(uid, id)| (uid.to_owned(), id.to_owned()));
    let known = journal.known(asked.to_vec()).await.unwrap();
    assert_eq!(known[0].evidence, Some(second.evidence));
    let claim = known[1].claim.clone().unwrap();
    assert_eq!(claim.namespace, "lab");
    assert_eq!(claim.attempts, [("key-u1".to_owned(), 1), ("key-u2".to_owned(), 2)].into());
    assert_eq!((known[1].evidence.clone(), known[2].clone()), (None, super::Known::default()));
}

pub(crate) async fn open_evidence_ends_with_the_pod(journal: &dyn Journal) {
    let mut pod = Pod::new("e", "u", 1);
    let mut life = pod.life(0);
    let last = life.pop().unwrap();
    append(journal, life).await;
    let open = journal.open_evidence().await.unwrap();
    assert_eq!(open.iter().map(|evidence| &*evidence.uid).collect::<Vec<_>>(), ["u"]);
    append(journal, vec![last]).await;
    assert_eq!(journal.open_evidence().await.unwrap(), []);
}

pub(crate) async fn pods_are_listed_by_name_until_they_are_gone(journal: &dyn Journal) {
    for (uid, namespace) in [("b", "lab"), ("a", "lab"), ("c", "alpha"), ("d", "lab")] {
        append(journal, vec![Pod::new(&format!("e-{uid}"), uid, 1).in_namespace(namespace).seen(at(0))]).await;
    }
    let query = PodQuery { limit: 10, ..PodQuery::default() };
    assert_eq!(names(journal, query.clone()).await, ["executor-c", "executor-a", "executor-b", "executor-d"]);
    assert_eq!(names(journal, PodQuery { limit: 1, ..query.clone() }).await, ["executor-c"]);
    let after = Some(("lab".to_owned(), "executor-a".to_owned(), "a".to_owned()));
    assert_eq!(names(journal, PodQuery { after, ..query.clone() }).await, ["executor-b", "executor-d"]);
    let of_alpha = PodQuery { namespace: Some("alpha".into()), ..query.clone() };
    assert_eq!(names(journal, of_alpha).await, ["executor-c"]);
    let of_execution = PodQuery { execution_id: Some("e-b".into()), ..query.clone() };
    assert_eq!(names(journal, of_execution).await, ["executor-b"]);
    append(journal, vec![Pod::new("e-b", "b", 1).go(at(1))]).await;
    assert_eq!(names(journal, query).await, ["executor-c", "executor-a", "executor-d"]);
}

pub(crate) async fn a_name_means_its_latest_pod(journal: &dyn Journal) {
    let mut old = Pod::new("e", "u1", 1);
    let mut new = Pod::new("e", "u2", 2);
    new.evidence.name.clone_from(&old.evidence.name);
    append(journal, vec![old.go(at(1)), new.go(at(2))]).await;
    let found = journal.pod("lab".into(), "executor-u1".into()).await.unwrap();
    assert_eq!(found, Some(new.evidence));
    assert_eq!(journal.pod("other".into(), "executor-u1".into()).await.unwrap(), None);
}

pub(crate) async fn events_of_all_come_in_pages(journal: &dyn Journal) {
    append(journal, Pod::new("e", "u1", 1).life(0)).await;
    append(journal, Pod::new("f", "u2", 1).life(0)).await;
    assert_eq!(positions(&journal.events(EventQuery { after: 3, limit: 4 }).await.unwrap()), [4, 5, 6, 7]);
    assert_eq!(positions(&journal.execution_events("f".into(), 7, 2).await.unwrap()), [8, 9]);
    assert_eq!(positions(&journal.events(EventQuery { after: 10, limit: 4 }).await.unwrap()), [0; 0]);
}

pub(crate) async fn retention_takes_what_is_old_and_raises_the_floor(journal: &dyn Journal) {
    append(journal, Pod::new("old", "u1", 1).life(0)).await;
    append(journal, Pod::new("new", "u2", 1).life(500)).await;
    assert_eq!(journal.floor(), 0);
    let retention = Retention { age: Duration::from_secs(100), now: at(510), batch: 10 };
    assert_eq!(journal.prune(retention).await.unwrap().executions, ["old"]);
    assert_eq!(journal.prune(retention).await.unwrap().executions, [""; 0]);
    assert_eq!(journal.floor(), 5);
    assert_eq!(journal.execution("old".into()).await.unwrap(), None);
    assert_eq!(ids(journal, all()).await, ["new"]);
    assert_eq!(positions(&journal.events(EVERYTHING).await.unwrap()), [6, 7, 8, 9, 10]);
    assert_eq!(journal.pod("lab".into(), "executor-u1".into()).await.unwrap(), None);
}

pub(crate) async fn an_execution_that_goes_on_is_never_taken(journal: &dyn Journal) {
    let (mut first, mut second) = (Pod::new("e", "u1", 1), Pod::new("e", "u2", 2));
    append(journal, vec![first.start(at(0)), second.start(at(1)), second.end(at(2), 0, ""), second.go(at(3))]).await;
    let retention = Retention { age: Duration::from_secs(1), now: at(1000), batch: 10 };
    // The latest attempt has ended, the first one has not.
    assert_eq!(journal.prune(retention).await.unwrap().executions, [""; 0]);
    append(journal, vec![first.end(at(990), 0, "")]).await;
    let later = Retention { age: Duration::from_secs(100), ..retention };
    assert_eq!(journal.prune(later).await.unwrap().executions, [""; 0], "its last end is not old");
    assert_eq!(journal.prune(retention).await.unwrap().executions, ["e"]);
}

const REQUIRED: Subscription = Subscription { sink: "required", required: true };
const OPTIONAL: Subscription = Subscription { sink: "optional", required: false };

fn cursor(position: u64) -> Cursor {
    Cursor { position, missed: 0 }
}

pub(crate) async fn a_new_sink_begins_with_the_present_and_a_known_one_where_it_was(journal: &dyn Journal) {
    assert_eq!(journal.subscribe(vec![OPTIONAL]).await.unwrap(), [cursor(0)]);
    append(journal, Pod::new("e", "u", 1).life(0)).await;
    assert_eq!(journal.subscribe(vec![REQUIRED, OPTIONAL]).await.unwrap(), [cursor(5), cursor(0)]);
    let moved = Cursor { position: 3, missed: 2 };
    journal.advance("optional", moved, vec![]).await.unwrap();
    assert_eq!(journal.subscribe(vec![]).await.unwrap(), []);
    assert_eq!(journal.subscribe(vec![OPTIONAL]).await.unwrap(), [moved]);
}

pub(crate) async fn a_cursor_never_goes_back_and_belongs_to_a_sink_that_subscribed(journal: &dyn Journal) {
    journal.subscribe(vec![OPTIONAL]).await.unwrap();
    let far = Cursor { position: 9, missed: 2 };
    journal.advance("optional", far, vec![]).await.unwrap();
    journal.advance("optional", Cursor { position: 4, missed: 1 }, vec![]).await.unwrap();
    assert_eq!(journal.subscribe(vec![OPTIONAL]).await.unwrap(), [far]);
    assert!(journal.advance("stranger", far, vec![]).await.unwrap_err().to_string().contains("no sink stranger"));
}

fn letter(position: u64, second: i64) -> DeadLetter {
    DeadLetter {
        position,
        at: at(second),
        reason: "too large".to_owned(),
        event_id: Some("id".to_owned()),
        execution_id: "e".into(),
        event_type: "execution_failed".into(),
        result_unproven: true,
        bytes: "{}".into(),
    }
}

pub(crate) async fn dead_letters_are_kept_with_the_move_that_passes_them_until_they_are_old(journal: &dyn Journal) {
    journal.subscribe(vec![REQUIRED, OPTIONAL]).await.unwrap();
    let list = async |sink: Option<&str>, before, limit| {
        let query = DeadLetterQuery { sink: sink.map(str::to_owned), before, limit, ..DeadLetterQuery::default() };
        journal.dead_letters(query).await.unwrap()
    };
    journal.advance("stranger", cursor(1), vec![letter(1, 1)]).await.unwrap_err();
    assert_eq!(list(None, None, 9).await, [], "without the move there is no letter");
    journal.advance("required", cursor(3), vec![letter(1, 10), letter(3, 30)]).await.unwrap();
    // It comes again: a loss of power may have taken the move back, or its answer was lost.
    journal.advance("required", cursor(3), vec![letter(3, 99)]).await.unwrap();
    journal.advance("optional", cursor(1), vec![letter(1, 20)]).await.unwrap();
    let all = list(None, None, 9).await;
    let told: Vec<_> = all.iter().map(|listed| (&*listed.sink, listed.letter.clone())).collect();
    assert_eq!(told, [("optional", letter(1, 20)), ("required", letter(3, 30)), ("required", letter(1, 10))]);
    assert_eq!(list(Some("required"), None, 9).await, all[1..]);
    assert_eq!(list(None, Some(all[0].key), 1).await, all[1..2]);
    let retention = Retention { age: Duration::from_secs(10), now: at(35), batch: 10 };
    journal.prune(retention).await.unwrap();
    assert_eq!(list(None, None, 9).await, all[1..2]);
}

pub(crate) async fn what_every_required_sink_is_done_with_is_carried(journal: &dyn Journal) {
    let life = Pod::new("e", "u", 1).life(0);
    let ids: Vec<_> = life.iter().flat_map(|change| &*change.events).map(|draft| draft.event_id).collect();
    let carried = async |execution: &str| {
        journal.carried(ids.iter().map(|id| (execution.to_owned(), *id)).collect()).await.unwrap()
    };
    journal.subscribe(vec![REQUIRED, OPTIONAL]).await.unwrap();
    append(journal, life.clone()).await;
    journal.advance("optional", cursor(5), vec![]).await.unwrap();
    assert_eq!(carried("e").await, [false; 5]);
    journal.advance("required", cursor(3), vec![]).await.unwrap();
    assert_eq!(carried("e").await, [true, true, true, false, false]);
    assert_eq!(carried("another").await, [true; 5], "it is not here");
    journal.subscribe(vec![OPTIONAL]).await.unwrap();
    assert_eq!(carried("e").await, [true; 5], "nobody must have it");
}

pub(crate) async fn a_batch_is_bounded_in_records_and_in_bytes(journal: &dyn Journal) {
    append(journal, Pod::new("e", "u", 1).life(0)).await;
    append(journal, Pod::new("f", "v", 1).life(0)).await;
    let batch = |after, records, bytes| async move {
        positions(&journal.batch(after, Bounds { records, bytes }).await.unwrap())
    };
    assert_eq!(batch(0, 3, usize::MAX).await, [1, 2, 3]);
    assert_eq!(batch(8, 3, usize::MAX).await, [9, 10]);
    assert_eq!(batch(10, 3, usize::MAX).await, [0; 0]);
    let all = journal.events(EVERYTHING).await.unwrap();
    assert_eq!(batch(0, 9, 1).await, [1], "one is always given, or a large one would never be");
    assert_eq!(batch(0, 9, all[0].bytes.len() + 1).await, [1, 2]);
    assert_eq!(journal.batch(0, Bounds { records: 99, bytes: usize::MAX }).await.unwrap(), all);
}

pub(crate) async fn retention_waits_for_required_sinks_and_for_no_other(journal: &dyn Journal) {
    journal.subscribe(vec![REQUIRED, OPTIONAL]).await.unwrap();
    append(journal, Pod::new("a", "u1", 1).life(0)).await;
    append(journal, Pod::new("b", "u2", 1).life(0)).await;
    let retention = Retention { age: Duration::from_secs(10), now: at(1000), batch: 10 };
    journal.advance("required", cursor(4), vec![]).await.unwrap();
    assert_eq!(journal.prune(retention).await.unwrap().executions, [""; 0], "the fifth event is of the first");
    journal.advance("required", cursor(9), vec![]).await.unwrap();
    assert_eq!(journal.prune(retention).await.unwrap().executions, ["a"]);
    journal.subscribe(vec![OPTIONAL]).await.unwrap();
    assert_eq!(journal.prune(retention).await.unwrap().executions, ["b"], "who is gone holds nothing");
}

pub(crate) async fn what_other_roles_tell_is_numbered_kept_and_shown_before_and_after_there_is_a_pod(
    journal: &dyn Journal,
) {
    let mut follower = journal.follow("e");
    let of_role = |run| {
        let mut draft = Pod::new("e", "u", 1).schedule(at(0)).events[0].clone();
        draft.event_id = podherald_core::event::event_id("e", "key-u", Slot::Progress { run, offset: 0 });
        draft.metadata.service_name = "role".to_owned();
        draft
    };
    journal.tell(vec![of_role(1), of_role(2)]).await.unwrap();
    let execution = journal.execution("e".into()).await.unwrap().unwrap();
    assert_eq!((execution.status, execution.attempts, execution.pods.len()), (Status::Scheduled, 1, 0));
    append(journal, vec![Pod::new("e", "u", 1).start(at(1))]).await;
    journal.tell(vec![of_role(2), of_role(3)]).await.unwrap();
    journal.tell(vec![]).await.unwrap();
    let records = journal.execution_events("e".into(), 0, 9).await.unwrap();
    let told = |record: &Arc<Record>| (record.source.starts_with("role:"), record.seq, record.about.namespace.clone());
    let told: Vec<_> = records.iter().map(told).collect();
    let (role, monitor) = (true, false);
    let lab = || Some("lab".to_owned());
    let expected = [(role, 1, None), (role, 2, None), (monitor, 1, lab()), (monitor, 2, lab()), (role, 3, lab())];
    assert_eq!(told, expected);
    for record in &records {
        assert!(matches!(follower.try_next(), Some(Next::Record(heard)) if heard == *record));
    }
    assert_eq!(journal.events(EVERYTHING).await.unwrap(), records);
    assert_eq!(ids(journal, ExecutionQuery { namespace: Some("lab".into()), ..all() }).await, ["e"]);
    let known = journal.known(vec![("u".to_owned(), "e".to_owned())]).await.unwrap();
    assert_eq!(known[0].claim.as_ref().unwrap().namespace, "lab", "the first pod owns it, not who spoke first");
}

/// What another one made of this change.
fn published(change: &Change) -> Vec<Adopted> {
    let number = |(seq, draft): (u64, &Draft)| {
        let event = draft.clone().number("pod-monitor:other", seq);
        let bytes = event.to_bytes().into();
        Adopted { event, bytes, about: About::default(), in_order: false, recalled: false }
    };
    (1..).zip(&*change.events).map(number).collect()
}

fn place(partition: i32, next: i64) -> Place {
    Place { topic: "execution_events".to_owned(), partition, next }
}

pub(crate) async fn what_another_monitor_has_published_is_shown_as_it_was(journal: &dyn Journal) {
    assert_eq!(journal.places().await.unwrap(), []);
    let mut follower = journal.follow("e");
    let adopted = published(&Pod::new("e", "u", 1).end(at(3), 3, "hello"));
    journal.adopt(adopted.clone(), vec![place(0, 5), place(1, 7)]).await.unwrap();
    journal.adopt(vec![], vec![place(0, 6)]).await.unwrap();
    assert_eq!(journal.places().await.unwrap(), [place(0, 6), place(1, 7)]);
    let execution = journal.execution("e".into()).await.unwrap().unwrap();
    assert_eq!((execution.status, execution.stdout.as_deref()), (Status::Failed, Some("hello")));
    let records = journal.execution_events("e".into(), 0, 9).await.unwrap();
    for (record, adopted) in records.iter().zip(&adopted) {
        let Event { source, seq, .. } = &adopted.event;
        assert_eq!((&record.bytes, &*record.source, record.seq, record.told), (&adopted.bytes, &**source, *seq, true));
        assert!(matches!(follower.try_next(), Some(Next::Record(heard)) if heard == *record));
    }
    assert_eq!(records.len(), adopted.len());
    // Here it would say so itself, and is known by its id.
    append(journal, vec![Pod::new("e", "u", 1).end(at(4), 3, "hello again")]).await;
    assert_eq!(journal.execution_events("e".into(), 0, 9).await.unwrap().len(), adopted.len());
    let known = journal.known(vec![("u".to_owned(), "e".to_owned())]).await.unwrap().remove(0);
    assert_eq!(known.told, adopted.iter().map(|adopted| Told::of(&adopted.event)).collect::<Vec<_>>());
}

pub(crate) async fn what_is_to_come_in_order_waits_for_what_comes_before_it(journal: &dyn Journal) {
    let mut pod = Pod::new("e", "u", 1);
    let changes = [pod.schedule(at(1)), pod.start(at(2)), pod.end(at(3), 0, "out")];
    let drafts: Vec<_> = changes.iter().flat_map(|change| change.events.iter().cloned()).collect();
    let about = About {
        namespace: Some("lab".to_owned()),
        labels: [("team".to_owned(), "blue".to_owned())].into_iter().collect(),
        pod_uid: Some("u".to_owned()),
    };
    let published: Vec<_> = (1..)
        .zip(drafts)
        .map(|(seq, draft)| {
            let event = draft.number("pod-monitor:other", seq);
            Adopted { bytes: event.to_bytes().into(), event, about: about.clone(), in_order: true, recalled: false }
        })
        .collect();
    let id = |adopted: &Adopted| adopted.event.event_id;
    let early = journal.adopt(vec![published[1].clone(), published[3].clone()], vec![place(0, 4)]).await.unwrap();
    assert_eq!(early, [id(&published[1]), id(&published[3])]);
    assert_eq!(journal.execution("e".into()).await.unwrap(), None, "nothing is known of it");
    assert_eq!(ids(journal, all()).await, [""; 0]);
    let early =
        journal.adopt(vec![published[3].clone(), published[0].clone(), published[1].clone()], vec![]).await.unwrap();
    assert_eq!(early, [id(&published[3])]);
    let regardless = Adopted { in_order: false, ..published[3].clone() };
    assert!(journal.adopt(vec![regardless, published[2].clone()], vec![]).await.unwrap().is_empty());
    let records = journal.execution_events("e".into(), 0, 9).await.unwrap();
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 4, 3]);
    assert!(records.iter().all(|record| *record.about == about), "{records:?}");
    let execution = journal.execution("e".into()).await.unwrap().unwrap();
    assert_eq!(
        (execution.status, &*execution.pods[0].uid, &*execution.labels["team"]),
        (Status::Completed, "u", "blue")
    );
    assert_eq!(ids(journal, ExecutionQuery { namespace: Some("lab".into()), ..all() }).await, ["e"]);
}

pub(crate) async fn what_others_have_told_ends_before_the_first_that_nobody_has(journal: &dyn Journal) {
    let end = |n: i64| Pod::new(&format!("e{n}"), &format!("u{n}"), 1).end(at(n), 0, "");
    let told_after = async |position| journal.told_after(position).await.unwrap();
    let head = || *journal.head().borrow();
    assert_eq!(told_after(0).await, None);
    journal.adopt(published(&end(1)), vec![]).await.unwrap();
    let first = head();
    assert_eq!([told_after(0).await, told_after(first).await], [Some(first), None]);
    append(journal, vec![end(2)]).await;
    let mine = head();
    journal.adopt(published(&end(3)), vec![]).await.unwrap();
    assert_eq!([told_after(0).await, told_after(first).await], [Some(first), None]);
    assert_eq!(told_after(mine).await, Some(head()));
    journal.adopt(published(&end(2)), vec![]).await.unwrap();
    assert_eq!(told_after(0).await, Some(head()), "it has been told since");
}

pub(crate) async fn of_an_event_that_is_known_it_is_only_noted_that_it_was_told(journal: &dyn Journal) {
    let change = Pod::new("e", "u", 1).schedule(at(1));
    append(journal, vec![change.clone()]).await;
    let mine = journal.execution_events("e".into(), 0, 9).await.unwrap();
    journal.adopt(published(&change), vec![]).await.unwrap();
    let marked = journal.execution_events("e".into(), 0, 9).await.unwrap();
    let told = |record: &Arc<Record>| Arc::new(Record { told: true, ..Record::clone(record) });
    assert_eq!(marked, mine.iter().map(told).collect::<Vec<_>>());
    assert!(!mine[0].told);
}

pub(crate) async fn another_monitor_may_have_counted_an_attempt_first(journal: &dyn Journal) {
    let mut pod = Pod::new("e", "u", 1);
    append(journal, vec![pod.schedule(at(1))]).await;
    pod.evidence.attempt = 4;
    append(journal, vec![pod.start(at(2))]).await;
    let known = journal.known(vec![("u2".to_owned(), "e".to_owned())]).await.unwrap().remove(0);
    assert_eq!(known.claim.unwrap().attempts.values().copied().collect::<Vec<_>>(), [4]);
}

pub(crate) async fn every_attempt_is_ended_live_or_unaccounted_for(journal: &dyn Journal) {
    append(journal, Pod::new("a", "u1", 1).life(0)).await;
    append(journal, vec![Pod::new("a", "u2", 2).start(at(1))]).await;
    append(journal, vec![Pod::new("b", "u3", 1).start(at(1)), Pod::new("b", "u4", 1).start(at(1))]).await;
    let mut lost = Pod::new("c", "u5", 1);
    append(journal, vec![lost.start(at(1)), lost.go(at(2))]).await;
    append(journal, vec![Pod::new("c", "u6", 1).in_namespace("other").conflicting().seen(at(3))]).await;
    let Audit { ended, live, unaccounted, conflicts, items } = journal.audit(10).await.unwrap();
    assert_eq!((ended, live, unaccounted, conflicts), (1, 2, 1, 1));
    assert_eq!(items, [lost.evidence]);
    assert_eq!(journal.audit(0).await.unwrap().items, []);
}

pub(crate) async fn a_closed_journal_says_so(journal: &dyn Journal) {
    let mut pod = Pod::new("e", "u", 1);
    let (mut all, mut one) = (journal.follow_all(), journal.follow("e"));
    append(journal, vec![pod.schedule(at(1))]).await;
    journal.close().await;
    journal.close().await;
    assert!(matches!(journal.append(vec![pod.start(at(2))]).await, Err(super::Error::Closed)));
    for follower in [&mut all, &mut one] {
        assert!(matches!(follower.next().await, Next::Record(_)));
        assert!(matches!(follower.next().await, Next::Closed));
    }
    assert!(matches!(journal.follow("e").next().await, Next::Closed));
    assert!(matches!(journal.follow_all().next().await, Next::Closed));
    assert!(!journal.health().writable);
    assert!(journal.execution("e".into()).await.unwrap().is_some(), "what is written stays readable");
}
