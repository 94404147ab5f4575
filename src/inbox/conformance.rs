//! What every [`Inbox`] must do with a [`Member`], wherever its messages come from. [`suite!`] makes a test of each.
//!
//! The tests on real servers have this file too: it names only what stands beside it.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use podherald_core::event::{Draft, Metadata, Payload, Slot, event_id};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Delivery, Inbox, Member, Metrics, Policy};

macro_rules! suite {
    ($open:path: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::inbox::conformance::$name(&mut $open().await).await;
            }
        )*
    };
    ($open:path) => {
        $crate::inbox::conformance::suite!($open:
            of_one_key_the_next_is_given_when_the_first_is_done_with,
            what_is_done_is_kept_up_to_the_first_that_is_not,
            a_refused_message_comes_again_and_holds_up_its_key_alone,
            a_message_that_is_dropped_comes_again,
            a_message_that_fails_too_often_goes_to_the_dead_letters_and_the_rest_goes_on,
            no_more_is_taken_than_the_hand_may_hold,
        );
    };
}
pub(crate) use suite;

/// Messages, all of them in one place, and a group that is there before the first.
pub(crate) trait Far: Send {
    /// They are there when this returns.
    fn send(&self, events: Vec<Draft>) -> BoxFuture<'_, ()>;
    /// Of the group's next member.
    fn inbox(&self) -> BoxFuture<'_, Box<dyn Inbox>>;
    /// The group's dead letters, oldest first: the event, and why.
    fn letters(&self) -> BoxFuture<'_, Vec<(Bytes, String)>>;
}

/// Every wait ends by then.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const POLICY: Policy = Policy {
    tries: 3,
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(100),
    in_hand: 6,
    seen: 100,
};

/// The event with this number of the execution that is the key.
pub(crate) fn draft(key: &str, n: u32) -> Draft {
    Draft {
        event_id: event_id(key, "key", Slot::Progress { run: n, offset: 0 }),
        execution_id: key.to_owned(),
        attempt: 1,
        timestamp: jiff::Timestamp::UNIX_EPOCH,
        synthesized: false,
        metadata: Metadata { service_name: "role".to_owned(), ..Metadata::default() },
        payload: Payload::ExecutionProgress {
            progress_percentage: None,
            message: Some(format!("{key}{n}")),
            offset: 0,
        },
    }
}

/// Its name in these tests, `a1` for instance.
pub(crate) fn name(delivery: &Delivery) -> String {
    name_of(&delivery.message.bytes)
}

pub(crate) fn name_of(event: &[u8]) -> String {
    let event: serde_json::Value = serde_json::from_slice(event).unwrap();
    event["message"].as_str().unwrap().to_owned()
}

/// A member at work, and the role that it works for.
pub(crate) struct Role {
    pub(crate) given: mpsc::Receiver<Delivery>,
    pub(crate) metrics: Metrics,
    stop: CancellationToken,
    member: JoinSet<()>,
}

impl Role {
    pub(crate) fn begin(inbox: Box<dyn Inbox>, policy: Policy) -> Self {
        let (out, given) = mpsc::channel(100);
        let (stop, metrics) = (CancellationToken::new(), Metrics::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(Member::new("test", inbox, policy, metrics.clone()).run(out, stop.clone()));
        Self { given, metrics, stop, member: tasks }
    }

    async fn of(far: &impl Far) -> Self {
        Self::begin(far.inbox().await, POLICY)
    }

    pub(crate) async fn next(&mut self) -> Delivery {
        timeout(LIMIT, self.given.recv()).await.expect("a message comes in time").expect("the member works")
    }

    /// The next ones, sorted by their names.
    async fn all(&mut self, names: &[&str]) -> Vec<Delivery> {
        let mut all = Vec::new();
        for _ in names {
            all.push(self.next().await);
        }
        all.sort_by_key(name);
        assert_eq!(all.iter().map(name).collect::<Vec<_>>(), names);
        all
    }

    async fn one(&mut self, name: &str) -> Delivery {
        self.all(&[name]).await.swap_remove(0)
    }

    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        timeout(LIMIT, self.member.join_next()).await.expect("it ends in time").unwrap().unwrap();
    }
}

pub(crate) async fn of_one_key_the_next_is_given_when_the_first_is_done_with(far: &mut impl Far) {
    let mut role = Role::of(far).await;
    far.send(vec![draft("a", 1), draft("a", 2), draft("b", 1), draft("b", 2)]).await;
    let mut first = role.all(&["a1", "b1"]).await;
    first.pop().unwrap().ack();
    role.one("b2").await.ack();
    far.send(vec![draft("b", 3)]).await;
    role.one("b3").await.ack();
    first.pop().unwrap().ack();
    let last = role.one("a2").await;
    assert_eq!(last.message.execution_id.as_ref(), "a");
    assert_eq!((&*last.message.event_type, last.message.tries), ("execution_progress", 1));
    assert_eq!(last.message.event_id, draft("a", 2).event_id);
    last.ack();
    role.end().await;
}

pub(crate) async fn what_is_done_is_kept_up_to_the_first_that_is_not(far: &mut impl Far) {
    let mut role = Role::of(far).await;
    far.send(vec![draft("a", 1), draft("b", 1), draft("c", 1), draft("d", 1)]).await;
    let [a, b, c, d] = role.all(&["a1", "b1", "c1", "d1"]).await.try_into().unwrap();
    a.ack();
    c.ack();
    d.ack();
    role.end().await;
    b.ack(); // too late
    let mut role = Role::of(far).await;
    for delivery in role.all(&["b1", "c1", "d1"]).await {
        delivery.ack();
    }
    role.end().await;
    far.send(vec![draft("e", 1)]).await;
    let mut role = Role::of(far).await;
    role.one("e1").await.ack();
    role.end().await;
}

pub(crate) async fn a_refused_message_comes_again_and_holds_up_its_key_alone(far: &mut impl Far) {
    let mut role = Role::of(far).await;
    far.send(vec![draft("a", 1), draft("b", 1), draft("a", 2), draft("b", 2)]).await;
    let mut first = role.all(&["a1", "b1"]).await;
    first.pop().unwrap().ack();
    role.one("b2").await.ack();
    first.pop().unwrap().nack("not yet");
    let again = role.one("a1").await;
    assert_eq!(again.message.tries, 2);
    again.ack();
    role.one("a2").await.ack();
    role.end().await;
    assert!(far.letters().await.is_empty());
}

pub(crate) async fn a_message_that_is_dropped_comes_again(far: &mut impl Far) {
    let mut role = Role::of(far).await;
    far.send(vec![draft("a", 1)]).await;
    drop(role.one("a1").await);
    role.one("a1").await.ack();
    role.end().await;
}

pub(crate) async fn a_message_that_fails_too_often_goes_to_the_dead_letters_and_the_rest_goes_on(far: &mut impl Far) {
    let mut role = Role::of(far).await;
    far.send(vec![draft("a", 1), draft("a", 2)]).await;
    for tries in 1..=POLICY.tries {
        let delivery = role.one("a1").await;
        assert_eq!(delivery.message.tries, tries);
        delivery.nack(format!("it is poison ({tries})"));
    }
    role.one("a2").await.ack();
    assert_eq!((role.metrics.refused.get(), role.metrics.dead_letters.get()), (3, 1));
    role.end().await;
    let letters = far.letters().await;
    assert_eq!(letters.iter().map(|(event, _)| name_of(event)).collect::<Vec<_>>(), ["a1"]);
    assert!(letters[0].1.contains("it is poison (3)"), "{letters:?}");
    far.send(vec![draft("b", 1)]).await;
    let mut role = Role::of(far).await;
    role.one("b1").await.ack();
    role.end().await;
}

pub(crate) async fn no_more_is_taken_than_the_hand_may_hold(far: &mut impl Far) {
    let mut role = Role::of(far).await;
    let many: Vec<String> = (10..50).map(|n| format!("k{n}-")).collect();
    far.send(many.iter().map(|key| draft(key, 1)).collect()).await;
    let mut held = std::collections::VecDeque::new();
    for key in &many {
        let delivery = role.next().await;
        assert_eq!(name(&delivery), format!("{key}1"));
        held.push_back(delivery);
        assert!(held.len() + role.given.len() <= POLICY.in_hand, "{} and {}", held.len(), role.given.len());
        if held.len() == POLICY.in_hand {
            held.drain(..).for_each(Delivery::ack);
        }
    }
    held.drain(..).for_each(Delivery::ack);
    role.end().await;
}
