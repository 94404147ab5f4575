//! What a member holds, and what is to be done with it next. It is told what happens and what time it is; it does nothing.
//!
//! Each place is a lane: its messages from the first that is not done with on. Of one key only the first of those is ever
//! given, so a message that rests holds up what is behind it of the same key, and nothing else. A lane is finished up to its
//! first message that is not done with: what was answered out of order waits for those before it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;
use podherald_core::gap::Gap;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Incoming, Letter, Message, Place, Policy, read};
use crate::jitter;

/// A message that was given, or a letter. Void once its place was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    place: Place,
    /// Of the lane: a place that comes back has another.
    life: u64,
    offset: u64,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { topic, partition } = &self.place;
        write!(f, "{topic}/{partition} at {}", self.offset)
    }
}

/// What has become of a ticket.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// It was not processed, and this is why.
    Failed(String),
    Buried,
    /// The dead letters do not take it now.
    Unburied,
}

/// See the module.
pub(super) struct Hand {
    policy: Policy,
    lanes: BTreeMap<Place, Lane>,
    lives: u64,
    seen: Seen,
    /// Where the last one was taken from: the others come first.
    last: Option<Place>,
}

struct Lane {
    life: u64,
    entries: VecDeque<Entry>,
    /// After all that came.
    next: u64,
    /// What was last said to be finished.
    told: Option<u64>,
    is_paused: bool,
}

struct Entry {
    incoming: Arc<Incoming>,
    /// Without one it can only be buried.
    message: Option<Message>,
    tries: u32,
    state: State,
}

enum State {
    /// May be given, from then on.
    Waiting(Option<Instant>),
    Given,
    /// May be buried, from then on, after so many failures.
    Dying {
        reason: String,
        since: Option<Instant>,
        failures: u32,
    },
    Burying {
        reason: String,
        failures: u32,
    },
    Done,
}

impl Entry {
    fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn due(&self) -> Option<Option<Instant>> {
        match self.state {
            State::Waiting(since) | State::Dying { since, .. } => Some(since),
            _ => None,
        }
    }
}

/// What is to be done.
pub(super) enum Due {
    Give(Ticket),
    Bury(Ticket),
}

impl Hand {
    pub(super) fn new(policy: Policy) -> Self {
        Self { seen: Seen::new(policy.seen), policy, lanes: BTreeMap::new(), lives: 0, last: None }
    }

    /// Takes a message that follows all others of its place.
    pub(super) fn take(&mut self, incoming: Incoming) {
        let (message, state) = match read(&incoming) {
            Ok(message) => (Some(message), State::Waiting(None)),
            // It is no event, and nothing that a role could do anything about.
            Err(_) if incoming.payload.as_deref().is_some_and(Gap::is_in) => (None, State::Done),
            Err(reason) => (None, State::Dying { reason, since: None, failures: 0 }),
        };
        let lane = self.lane(&incoming.place, incoming.offset);
        lane.next = incoming.offset + 1;
        lane.entries.push_back(Entry { incoming: Arc::new(incoming), message, tries: 0, state });
    }

    /// Before this is nothing else.
    pub(super) fn pass(&mut self, place: &Place, next: u64) {
        let lane = self.lane(place, next);
        lane.next = lane.next.max(next);
    }

    /// Lets go of all that is there.
    pub(super) fn drop_place(&mut self, place: &Place) {
        self.lanes.remove(place);
    }

    fn lane(&mut self, place: &Place, first: u64) -> &mut Lane {
        if !self.lanes.contains_key(place) {
            self.lives += 1;
            let lane =
                Lane { life: self.lives, entries: VecDeque::new(), next: first, told: Some(first), is_paused: false };
            self.lanes.insert(place.clone(), lane);
        }
        self.lanes.get_mut(place).expect("the lines before inserted it")
    }

    /// The next that may be given or buried now, the places in turn.
    pub(super) fn due(&self, now: Instant) -> Option<Due> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let first = self.lanes.range((after, Bound::Unbounded));
        // Those of the first round come again; they were not due.
        first.chain(&self.lanes).find_map(|(place, lane)| {
            let entry = lane.ready().find(|entry| entry.due().flatten().is_none_or(|since| since <= now))?;
            let ticket = Ticket { place: place.clone(), life: lane.life, offset: entry.incoming.offset };
            Some(if matches!(entry.state, State::Waiting(_)) { Due::Give(ticket) } else { Due::Bury(ticket) })
        })
    }

    /// When the next will be due that is not now.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.lanes.values().flat_map(Lane::ready).filter_map(|entry| entry.due().flatten()).min()
    }

    /// Gives one that is due, unless its event is known.
    pub(super) fn give(&mut self, ticket: &Ticket) -> Option<Message> {
        self.last = Some(ticket.place.clone());
        let entry = find(&mut self.lanes, ticket)?;
        let message = entry.message.as_mut()?;
        if self.seen.has(message.event_id) {
            entry.state = State::Done;
            return None;
        }
        entry.tries += 1;
        message.tries = entry.tries;
        entry.state = State::Given;
        Some(message.clone())
    }

    /// Gives a letter that is due.
    pub(super) fn letter(&mut self, ticket: &Ticket) -> Option<Letter> {
        let entry = find(&mut self.lanes, ticket)?;
        let State::Dying { reason, failures, .. } = &entry.state else { return None };
        let (reason, failures) = (reason.clone(), *failures);
        entry.state = State::Burying { reason: reason.clone(), failures };
        Some(Letter { incoming: entry.incoming.clone(), reason, tries: entry.tries })
    }

    /// False if the ticket is void.
    pub(super) fn settle(&mut self, ticket: &Ticket, outcome: Outcome, now: Instant) -> bool {
        let policy = self.policy;
        let Some(entry) = find(&mut self.lanes, ticket) else { return false };
        entry.state = match outcome {
            Outcome::Done => {
                self.seen.insert(entry.message.as_ref().map(|message| message.event_id));
                State::Done
            }
            Outcome::Failed(reason) if entry.tries >= policy.tries => State::Dying { reason, since: None, failures: 0 },
            Outcome::Failed(_) => State::Waiting(Some(now + policy.pause(entry.tries))),
            Outcome::Buried => State::Done,
            Outcome::Unburied => match &entry.state {
                State::Burying { reason, failures } => {
                    let (reason, failures) = (reason.clone(), failures + 1);
                    State::Dying { reason, since: Some(now + policy.pause(failures)), failures }
                }
                _ => return false,
            },
        };
        true
    }

    /// Up to where each place is done with, where that is news; [`Hand::told`] says that it was kept.
    pub(super) fn finished(&mut self) -> Vec<(Place, u64)> {
        let finished = self.lanes.iter_mut().filter_map(|(place, lane)| {
            while lane.entries.front().is_some_and(Entry::is_done) {
                lane.entries.pop_front();
            }
            let next = lane.entries.front().map_or(lane.next, |first| first.incoming.offset);
            (lane.told != Some(next)).then(|| (place.clone(), next))
        });
        finished.collect()
    }

    pub(super) fn told(&mut self, place: &Place, next: u64) {
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.told = Some(next);
        }
    }

    /// Places with too much in hand, and places with little again.
    pub(super) fn to_pause(&self) -> Vec<Place> {
        self.places(|lane| !lane.is_paused && lane.entries.len() >= self.policy.in_hand)
    }

    pub(super) fn to_resume(&self) -> Vec<Place> {
        self.places(|lane| lane.is_paused && lane.entries.len() <= self.policy.in_hand / 2)
    }

    pub(super) fn mark(&mut self, places: &[Place], is_paused: bool) {
        for place in places {
            if let Some(lane) = self.lanes.get_mut(place) {
                lane.is_paused = is_paused;
            }
        }
    }

    fn places(&self, of: impl Fn(&Lane) -> bool) -> Vec<Place> {
        self.lanes.iter().filter(|(_, lane)| of(lane)).map(|(place, _)| place.clone()).collect()
    }

    /// Messages that are not done with, and those behind them.
    pub(super) fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.entries.len()).sum()
    }
}

impl Lane {
    /// The first of each key that is not done with, and all without a key.
    fn ready(&self) -> impl Iterator<Item = &Entry> {
        let mut keys: HashSet<&Bytes> = HashSet::new();
        let open = self.entries.iter().filter(|entry| !entry.is_done());
        open.filter(move |entry| entry.incoming.key.as_ref().is_none_or(|key| keys.insert(key)))
            .filter(|entry| entry.due().is_some())
    }
}

fn find<'a>(lanes: &'a mut BTreeMap<Place, Lane>, ticket: &Ticket) -> Option<&'a mut Entry> {
    let lane = lanes.get_mut(&ticket.place).filter(|lane| lane.life == ticket.life)?;
    let at = lane.entries.binary_search_by_key(&ticket.offset, |entry| entry.incoming.offset).ok()?;
    lane.entries.get_mut(at)
}

impl Policy {
    /// After so many failures.
    pub(super) fn pause(&self, failures: u32) -> std::time::Duration {
        let doublings = failures.saturating_sub(1).min(16);
        jitter::part_of(self.longest_pause.min(self.first_pause * 2_u32.pow(doublings)), 0.9..=1.0)
    }
}

/// The last ids that were acknowledged.
struct Seen {
    max: usize,
    order: VecDeque<Uuid>,
    ids: HashSet<Uuid>,
}

impl Seen {
    fn new(max: usize) -> Self {
        Self { max, order: VecDeque::new(), ids: HashSet::new() }
    }

    fn has(&self, id: Uuid) -> bool {
        self.ids.contains(&id)
    }

    fn insert(&mut self, id: Option<Uuid>) {
        let Some(id) = id.filter(|id| self.ids.insert(*id)) else { return };
        self.order.push_back(id);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use podherald_core::event::Draft;

    use super::*;
    use crate::inbox::conformance::{POLICY, draft, name_of};

    fn place(partition: i32) -> Place {
        Place { topic: "t".into(), partition }
    }

    fn incoming(partition: i32, offset: u64, draft: Draft) -> Incoming {
        let key = Some(Bytes::copy_from_slice(draft.execution_id.as_bytes()));
        let payload = Some(draft.number("role:1", 1).to_bytes().into());
        Incoming { place: place(partition), offset, key, headers: Vec::new(), payload }
    }

    fn give(hand: &mut Hand, now: Instant) -> Option<(Ticket, Option<String>)> {
        let Some(Due::Give(ticket)) = hand.due(now) else { return None };
        let message = hand.give(&ticket);
        Some((ticket, message.map(|message| name_of(&message.bytes))))
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_was_acknowledged_is_known_and_only_so_far_back() {
        let now = Instant::now();
        let mut hand = Hand::new(Policy { seen: 2, first_pause: std::time::Duration::ZERO, ..POLICY });
        let mut next = 0;
        let mut given = |hand: &mut Hand, key: &str| {
            hand.take(incoming(0, next, draft(key, 1)));
            next += 1;
            give(hand, now).unwrap()
        };
        let (a, _) = given(&mut hand, "a");
        hand.settle(&a, Outcome::Failed(String::new()), now);
        let (again, name) = give(&mut hand, now).unwrap();
        assert_eq!((&again, name.as_deref()), (&a, Some("a1")), "a try that failed is not known");
        hand.settle(&a, Outcome::Done, now);
        assert_eq!(given(&mut hand, "a").1, None);
        for key in ["b", "c"] {
            let (ticket, name) = given(&mut hand, key);
            assert!(name.is_some());
            hand.settle(&ticket, Outcome::Done, now);
        }
        assert_eq!(given(&mut hand, "b").1, None);
        assert_eq!(given(&mut hand, "a").1.as_deref(), Some("a1"), "two are remembered");
        assert_eq!(hand.finished(), [(place(0), 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_revoked_is_gone_and_its_answers_are_void_even_if_it_comes_back() {
        let now = Instant::now();
        let mut hand = Hand::new(POLICY);
        hand.take(incoming(0, 5, draft("a", 1)));
        hand.take(incoming(1, 7, draft("b", 1)));
        let (a, _) = give(&mut hand, now).unwrap();
        let (b, _) = give(&mut hand, now).unwrap();
        hand.drop_place(&place(0));
        hand.take(incoming(0, 5, draft("a", 1)));
        assert!(!hand.settle(&a, Outcome::Done, now));
        assert!(hand.settle(&b, Outcome::Done, now));
        assert_eq!(hand.finished(), [(place(1), 8)]);
        assert_eq!(give(&mut hand, now).unwrap().1.as_deref(), Some("a1"));
    }

    #[tokio::test(start_paused = true)]
    async fn places_take_turns() {
        let now = Instant::now();
        let mut hand = Hand::new(POLICY);
        for (partition, key) in [(0, "a"), (0, "b"), (0, "c"), (1, "d"), (2, "e")] {
            let offset = u64::from(key.as_bytes()[0]);
            hand.take(incoming(partition, offset, draft(key, 1)));
        }
        let order: Vec<_> = std::iter::from_fn(|| give(&mut hand, now)).map(|(_, name)| name.unwrap()).collect();
        assert_eq!(order, ["a1", "d1", "e1", "b1", "c1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_passed_and_neither_given_nor_buried() {
        let now = Instant::now();
        let mut hand = Hand::new(POLICY);
        let gap = Gap::new("epoch", "kafka", 1..=9, jiff::Timestamp::UNIX_EPOCH).to_bytes();
        hand.take(Incoming { payload: Some(gap.into()), ..incoming(0, 3, draft("a", 1)) });
        assert_eq!(hand.finished(), [(place(0), 4)]);
        hand.take(incoming(0, 4, draft("a", 1)));
        let (ticket, name) = give(&mut hand, now).unwrap();
        assert_eq!(name.as_deref(), Some("a1"));
        hand.settle(&ticket, Outcome::Done, now);
        assert!(hand.due(now).is_none() && hand.len() == 1);
        assert_eq!(hand.finished(), [(place(0), 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_buried_untried_and_finished_only_when_it_is() {
        let now = Instant::now();
        let mut hand = Hand::new(POLICY);
        hand.take(Incoming { payload: Some(Bytes::from_static(b"noise")), ..incoming(0, 3, draft("a", 1)) });
        hand.pass(&place(0), 9);
        let bury = |hand: &mut Hand, now| match hand.due(now) {
            Some(Due::Bury(ticket)) => Some((hand.letter(&ticket).unwrap(), ticket)),
            _ => None,
        };
        let (letter, ticket) = bury(&mut hand, now).unwrap();
        assert_eq!((letter.tries, letter.incoming.offset), (0, 3));
        assert!(letter.reason.starts_with("it cannot be read as an event"), "{}", letter.reason);
        hand.settle(&ticket, Outcome::Unburied, now);
        assert!(bury(&mut hand, now).is_none() && hand.finished().is_empty());
        let later = hand.wake().unwrap();
        let (_, ticket) = bury(&mut hand, later).unwrap();
        hand.settle(&ticket, Outcome::Buried, later);
        assert_eq!(hand.finished(), [(place(0), 9)]);
        hand.told(&place(0), 9);
        assert!(hand.finished().is_empty());
    }
}
