//! Events as no monitor publishes them: twice, out of order, at two places at once. They come to processors that are killed between
//! any two steps, or to two at a time. Whatever comes, each attempt has one result, and it is told under one id.
//!
//! `PODHERALD_RESULT_ROUNDS` sets how often all of it is done (1). What is drawn is drawn from a seed, which is printed;
//! `PODHERALD_CRASH_SEED` draws the same again.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use mongodb::bson::{Document, doc};
use podherald::store::{Store, mongo::Mongo};
use podherald_core::{
    event::{Slot, event_id},
    execution::{ResultState, Status},
    topic::Topic,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::World;
use crate::{
    cluster::{Cluster, variable},
    crash::optional_variable,
    herald::{LIMIT, POLL, ends},
    store::{
        Server,
        conformance::{Run, kept},
        store,
    },
};

const ROLES: [(&str, &str); 1] = [("PODHERALD_ROLES", "api,result_processor")];
const PARTITIONS: i32 = 4;
/// Of `src/crash.rs`: before the store and after it, after the telling, after the commit.
const POINTS: [&str; 4] = ["store", "tell", "acknowledge", "place"];
/// Between two lives, until a process is dead.
const PACE: Duration = Duration::from_millis(150);

/// How a life comes.
#[derive(Debug, Clone, Copy)]
enum Disorder {
    None,
    Twice,
    /// As members of a group may be given it that take a partition over from each other.
    AtTwoPlacesAtOnce,
    EndsFirst,
    DeletedFirst,
    EndsTwice,
    EndsTwiceAtOnce,
    SecondAttemptFirst,
}

const DISORDERS: [Disorder; 8] = [
    Disorder::None,
    Disorder::Twice,
    Disorder::AtTwoPlacesAtOnce,
    Disorder::EndsFirst,
    Disorder::DeletedFirst,
    Disorder::EndsTwice,
    Disorder::EndsTwiceAtOnce,
    Disorder::SecondAttemptFirst,
];

/// Published at the same time, with the partitions where somebody has chosen them.
type Step = Vec<(Bytes, Option<i32>)>;

/// An execution as it is published, and what is to become of it.
struct Life {
    id: String,
    disorder: Disorder,
    steps: Vec<Step>,
    /// Of each attempt, the events of which one is what it came to.
    ends: BTreeMap<u32, Vec<Uuid>>,
}

impl Life {
    fn new(id: String, disorder: Disorder) -> Self {
        let [scheduled, started, end, deleted] = attempt(&id, 1);
        let mut expected = vec![uuid(&end)];
        let mut ends = BTreeMap::new();
        let at_two_places = |one: &Bytes, other: &Bytes| vec![(one.clone(), Some(0)), (other.clone(), Some(1))];
        let steps = match disorder {
            Disorder::None => in_turn([scheduled, started, end, deleted]),
            Disorder::Twice => {
                let life = in_turn([scheduled, started, end, deleted]);
                [life.clone(), life].concat()
            }
            Disorder::AtTwoPlacesAtOnce => {
                [scheduled, started, end, deleted].map(|event| at_two_places(&event, &event)).to_vec()
            }
            Disorder::EndsFirst => in_turn([end, scheduled, started, deleted]),
            Disorder::DeletedFirst => in_turn([deleted, scheduled, started, end]),
            Disorder::EndsTwice => {
                let other = another_end(&end);
                in_turn([scheduled, started, end, other, deleted])
            }
            Disorder::EndsTwiceAtOnce => {
                let other = another_end(&end);
                expected.push(uuid(&other));
                let at_once = at_two_places(&end, &other);
                [in_turn([scheduled, started]), vec![at_once], in_turn([deleted])].concat()
            }
            Disorder::SecondAttemptFirst => {
                let [_, started_again, end_again, deleted_again] = attempt(&id, 2);
                ends.insert(2, vec![uuid(&end_again)]);
                in_turn([scheduled, started_again, end_again, deleted_again, deleted, started, end])
            }
        };
        ends.insert(1, expected);
        Self { id, disorder, steps, ends }
    }

    /// Ids of all that is published of it.
    fn published(&self) -> BTreeSet<Uuid> {
        self.steps.iter().flatten().map(|(event, _)| uuid(event)).collect()
    }
}

/// What a monitor tells of an attempt that ends with 0.
fn attempt(id: &str, number: u32) -> [Bytes; 4] {
    let events: Vec<_> = Run::new(id, number).life().into_iter().map(|arrival| arrival.bytes).collect();
    events.try_into().unwrap()
}

fn in_turn<const N: usize>(events: [Bytes; N]) -> Vec<Step> {
    events.map(|event| vec![(event, None)]).to_vec()
}

/// The same attempt ends otherwise, as somebody tells who knows no better.
fn another_end(end: &Bytes) -> Bytes {
    let mut other = json(end);
    other["event_id"] = json!(Uuid::new_v5(&Uuid::NAMESPACE_OID, &uuid(end).into_bytes()));
    other["event_type"] = json!("execution_failed");
    other["stdout"] = json!("another output");
    other.to_string().into()
}

fn json(event: &[u8]) -> Value {
    serde_json::from_slice(event).unwrap()
}

fn uuid(event: &[u8]) -> Uuid {
    json(event)["event_id"].as_str().unwrap().parse().unwrap()
}

/// What is published by hand, and the store that it comes to.
struct Hand<'a> {
    world: &'a World<'a>,
    store: Mongo,
    producer: FutureProducer,
    lives: Vec<Life>,
}

impl<'a> Hand<'a> {
    async fn of(world: &'a World<'a>) -> Self {
        for topic in [Topic::ExecutionEvents, Topic::PodEvents, Topic::ExecutionResults] {
            world.broker.create(&format!("{}{}", world.prefix, topic.name()), PARTITIONS, &[]).await;
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", world.broker.address()).set("enable.idempotence", "true");
        let store = store(&world.mongo, &world.database).await;
        Self { world, store, producer: config.create().unwrap(), lives: Vec::new() }
    }

    /// Publishes one life each, at the same time.
    async fn publish(&mut self, disorders: &[Disorder]) {
        let first = self.lives.len();
        let lives = (first..).zip(disorders).map(|(n, disorder)| Life::new(format!("life-{n}"), *disorder));
        self.lives.extend(lives);
        join_all(self.lives[first..].iter().map(|life| self.carry(life))).await;
    }

    async fn carry(&self, life: &Life) {
        for step in &life.steps {
            join_all(step.iter().map(|(event, partition)| self.send(&life.id, event, *partition))).await;
        }
    }

    async fn send(&self, key: &str, event: &[u8], partition: Option<i32>) {
        let event_type = json(event)["event_type"].as_str().unwrap().to_owned();
        let topic = format!("{}{}", self.world.prefix, Topic::of(&event_type).unwrap().name());
        let mut record = FutureRecord::to(&topic).key(key).payload(event);
        record.partition = partition;
        self.producer.send(record, LIMIT).await.unwrap();
    }

    /// Waits until all that was published is kept and told, and fails unless each attempt has one result, which is that of the
    /// event that ended it first, is told under one id and always with the same words, and no event is lost.
    async fn assert_kept(&self) {
        let mut results = BTreeMap::new();
        for life in &self.lives {
            let deadline = Instant::now() + LIMIT;
            loop {
                match self.kept(life).await {
                    Ok(of_life) => break results.extend(of_life),
                    Err(missing) => assert!(Instant::now() < deadline, "{} ({:?}): {missing}", life.id, life.disorder),
                }
                sleep(POLL).await;
            }
        }
        let database = Server::shared().await.database(&self.world.database).await;
        let stored = database.collection::<Document>("execution_results").count_documents(doc! {}).await.unwrap();
        assert_eq!(stored, results.len() as u64);
        self.assert_told(&results).await;
    }

    /// By attempt, the event that its result is of; or what is still missing.
    async fn kept(&self, life: &Life) -> Result<BTreeMap<(String, u32), Uuid>, String> {
        let mut ids = life.published();
        let mut results = BTreeMap::new();
        for (attempt, ends) in &life.ends {
            let result = self.store.result(life.id.clone(), Some(*attempt)).await.unwrap();
            let result = result.ok_or(format!("no result of attempt {attempt}"))?;
            assert!(ends.contains(&result.event_id), "{}: {result:?}", life.id);
            ids.insert(event_id(&life.id, &result.event_id.to_string(), Slot::ResultStored));
            results.insert((life.id.clone(), *attempt), result.event_id);
        }
        let found: BTreeSet<_> = kept(&self.store, &life.id).await.iter().map(|event| uuid(event)).collect();
        assert!(found.is_subset(&ids), "{}: {found:?}, but {ids:?}", life.id);
        if found != ids {
            return Err(format!("{:?} are missing", ids.difference(&found).collect::<Vec<_>>()));
        }
        let execution = self.store.execution(life.id.clone()).await.unwrap().ok_or("no execution")?.execution;
        let ended = matches!(life.disorder, Disorder::EndsTwiceAtOnce) || execution.status == Status::Completed;
        if !ended || execution.result != Some(ResultState::Stored) {
            return Err(format!("{execution:?}"));
        }
        Ok(results)
    }

    async fn assert_told(&self, results: &BTreeMap<(String, u32), Uuid>) {
        let mut told: BTreeMap<(String, u32), Value> = BTreeMap::new();
        for message in self.world.told().await {
            let mut event = message.json();
            for of_the_writer in ["source", "seq"] {
                event.as_object_mut().unwrap().remove(of_the_writer).unwrap();
            }
            let attempt = event["attempt"].as_u64().unwrap().try_into().unwrap();
            let first = told.entry((message.key, attempt)).or_insert_with(|| event.clone());
            assert_eq!(*first, event);
        }
        let of: BTreeMap<_, Uuid> = told
            .iter()
            .map(|(attempt, event)| (attempt.clone(), serde_json::from_value(event["result_of"].clone()).unwrap()))
            .collect();
        assert_eq!(of, *results);
    }
}

fn rounds() -> usize {
    optional_variable("PODHERALD_RESULT_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap())
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "shown when the test fails, to draw the same again")]
async fn processors_that_are_killed_between_any_two_steps_leave_each_attempt_one_result_that_is_told() {
    let seed = optional_variable("PODHERALD_CRASH_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("PODHERALD_CRASH_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let binary = PathBuf::from(variable("PODHERALD_CRASH_BINARY"));
    let cluster = Cluster::shared().await;
    let world = World::new(&cluster, &Server::shared().await.uri("")).await;
    let mut hand = Hand::of(&world).await;
    for (kill, point) in POINTS.iter().cycle().take(rounds() * POINTS.len()).enumerate() {
        let point = format!("{point}:{}", rng.random_range(1..=3));
        let blobs = world.blobs();
        let settings = [ROLES[0], ("PODHERALD_BLOB__URL", &*blobs), ("PODHERALD_CRASH_AT", &*point)];
        let mut dying = world.launch(&binary, &settings);
        // Sometimes there is another that goes on; with the next kill it is gone too.
        let _other = if rng.random() { Some(world.start(ROLES[0].1).await) } else { None };
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = dying.herald.has_ended() {
                break status;
            }
            assert!(Instant::now() < deadline, "{point} was not reached:\n{}", dying.herald.log());
            hand.publish(&[DISORDERS[rng.random_range(0..DISORDERS.len())]]).await;
            sleep(PACE).await;
        };
        let log = dying.herald.log();
        assert_eq!(status.signal(), Some(9), "kill {kill}, {point}: {status}\n{log}");
        assert!(log.contains("dying at a crash point"), "kill {kill}, {point}:\n{log}");
    }
    let _last = world.start(ROLES[0].1).await;
    hand.assert_kept().await;
}

#[tokio::test]
async fn what_comes_twice_or_out_of_order_or_to_two_processors_at_once_is_one_result() {
    let cluster = Cluster::shared().await;
    let world = World::new(&cluster, &Server::shared().await.uri("")).await;
    let mut hand = Hand::of(&world).await;
    let processors = [world.start(ROLES[0].1).await, world.start(ROLES[0].1).await];
    for _ in 0..rounds() {
        hand.publish(&DISORDERS.repeat(5)).await;
    }
    hand.assert_kept().await;
    for processor in &processors {
        let given = processor.herald.counter("podherald_inbox_given_total{group=\"result-processor-group\"}").await;
        assert!(given > 0);
    }
}

#[tokio::test]
async fn an_end_that_nobody_can_read_is_told_to_have_no_result() {
    let cluster = Cluster::shared().await;
    let world = World::new(&cluster, &Server::shared().await.uri("")).await;
    let hand = Hand::of(&world).await;
    let _processor = world.start(ROLES[0].1).await;
    let mut end = attempt("e", 1).into_iter().map(|event| json(&event)).find(ends).unwrap();
    end["exit"] = json!("three");
    hand.send("e", end.to_string().as_bytes(), None).await;
    let deadline = Instant::now() + LIMIT;
    let result = async || Some(hand.store.execution("e".to_owned()).await.unwrap()?.execution.result?);
    while result().await != Some(ResultState::Failed) {
        assert!(Instant::now() < deadline, "{:?}", result().await);
        sleep(POLL).await;
    }
    let told = world.told().await[0].json();
    assert_eq!((&told["event_type"], &told["result_of"]), (&json!("result_failed"), &end["event_id"]));
}
