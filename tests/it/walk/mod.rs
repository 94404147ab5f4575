//! Random walks: pods live their lives on the embedded cluster while the API, the clock and podherald itself fail, on virtual
//! time. After each walk the promises are checked: one end for every attempt (P1), the right one (P2), output that is
//! complete or says how it is not (P3), and readers that miss nothing (P4).
//!
//! A walk follows from its seed. `PODHERALD_WALK_SEED=n` walks one again; `PODHERALD_WALKS=from..to` other ones than CI does.

mod check;
mod clock;
mod jobs;
mod reader;

use std::{ops::Range, sync::Arc, time::Duration};

use kube_sim::{
    api::Api,
    cluster::{Cluster, Kind, Options},
    fault::{
        Faults, Weather,
        life::{Chronicle, Deed, Life, play},
    },
};
use podherald::{clock::Clock, jitter};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tower::Layer;

use self::{clock::JumpyClock, reader::Reader};
use crate::inside::Inside;

/// Walks in a run of all tests.
const WALKS: Range<u64> = 0..300;
/// How long things go wrong.
const STORM: Duration = Duration::from_secs(600);
/// How long its last faults are felt at most: a watch that fell silent is found out after this time.
const CLEARING: Duration = Duration::from_secs(120);
/// How long all is well after that: longer than a round of the reconciler and any deadline.
const CALM: Duration = Duration::from_secs(1500);
const NAMESPACE: &str = "default";
const SETTINGS: [(&str, &str); 3] =
    [("kube.label_selectors", "execution-id"), ("kube.namespaces", "default"), ("logs.max_bytes", "64KiB")];

/// A pod that was created.
struct Played {
    uid: String,
    execution_id: String,
    life: Life,
    /// When the first of its deeds happens that can be its end.
    ends_at: Instant,
}

#[test]
#[expect(clippy::print_stdout, reason = "shown when the test fails, to walk the same again")]
fn whatever_fails_every_attempt_ends_once_and_rightly_and_readers_miss_nothing() {
    for seed in range_of_walks(WALKS) {
        println!("PODHERALD_WALK_SEED={seed}");
        walk(seed);
    }
}

#[test]
fn a_seed_walks_the_same_way_again() {
    for seed in 0..10 {
        assert_eq!(walk(seed), walk(seed), "seed {seed}");
    }
}

#[expect(clippy::disallowed_methods, reason = "these are no settings of podherald")]
fn range_of_walks(otherwise: Range<u64>) -> Range<u64> {
    match (std::env::var("PODHERALD_WALK_SEED"), std::env::var("PODHERALD_WALKS")) {
        (Ok(seed), _) => range(&format!("{seed}..{}", seed.parse::<u64>().unwrap() + 1)),
        (_, Ok(walks)) => range(&walks),
        _ => otherwise,
    }
}

fn range(text: &str) -> Range<u64> {
    let (from, to) = text.split_once("..").expect("a range such as 300..2000");
    from.parse().unwrap()..to.parse().unwrap()
}

/// The whole story of one seed, in words: what went wrong, and all events.
fn walk(seed: u64) -> String {
    // Made inside, where the clock is the paused one.
    runtime().block_on(async { Walk::new(seed).run().await })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

struct Walk {
    dice: StdRng,
    seed: u64,
    cluster: Cluster,
    faults: Faults,
    clock: Arc<JumpyClock>,
    chronicle: Chronicle,
    herald: Inside,
    lives: JoinSet<()>,
    played: Vec<Played>,
    /// Jobs are made in place of pods.
    makes_jobs: bool,
    jobs: Vec<jobs::PlayedJob>,
    readers: Vec<Reader>,
    /// From then on podherald sees everything as it happens.
    clear_from: Instant,
}

impl Walk {
    fn new(seed: u64) -> Self {
        jitter::seed(seed);
        let clock = Arc::new(JumpyClock::starting_at("2026-03-01T00:00:00Z".parse().unwrap()));
        let honest = clock.honest();
        let cluster = Cluster::new(Options { clock: Arc::new(move || honest.now()), seed: Some(seed) });
        let chronicle = Chronicle::default();
        cluster.set_logs(Arc::new(chronicle.clone()));
        Self {
            dice: StdRng::seed_from_u64(seed),
            seed,
            cluster,
            faults: Faults::new(seed),
            herald: Inside::new(clock.clone(), &SETTINGS),
            clock,
            chronicle,
            lives: JoinSet::new(),
            played: Vec::new(),
            makes_jobs: false,
            jobs: Vec::new(),
            readers: Vec::new(),
            clear_from: Instant::now() + STORM + CLEARING,
        }
    }

    async fn run(mut self) -> String {
        self.storm().await;
        self.calm().await;
        check::all(&mut self).await
    }

    async fn storm(&mut self) {
        self.start().await;
        self.readers.push(Reader::of_all());
        let storm_ends = Instant::now() + STORM;
        while Instant::now() < storm_ends {
            self.step().await;
            let pause = Duration::from_millis(self.dice.random_range(0..20_000));
            self.read_until(Instant::now() + pause).await;
        }
    }

    /// Something happens.
    async fn step(&mut self) {
        match self.dice.random_range(0..10) {
            0..=3 if self.makes_jobs => self.create_job(),
            0..=3 => self.create(),
            4..=5 => {
                let weather = self.drawn_weather();
                self.faults.set(weather);
            }
            6 => self.faults.set(Weather::default()),
            7 => {
                let seconds = self.dice.random_range(-300..300);
                self.clock.jump(seconds);
            }
            8 if self.herald.runs() => {
                self.readers.iter_mut().for_each(Reader::hang_up);
                self.herald.kill().await;
            }
            9 => self.cluster.compact(),
            _ => {
                if !self.herald.runs() {
                    self.start().await;
                }
            }
        }
    }
}

impl Walk {
    async fn start(&mut self) {
        let client = kube::Client::new(self.faults.layer(Api::new(self.cluster.clone())), NAMESPACE);
        self.herald.launch(client, Box::new(|journal| journal)).await;
    }

    fn create(&mut self) {
        let number = self.played.len();
        // Some executions are tried again.
        let execution_id = match self.played.last() {
            Some(last) if self.dice.random_bool(0.1) => last.execution_id.clone(),
            _ => format!("e{number}"),
        };
        let (name, life) = (format!("executor-{number}"), Life::drawn(&mut self.dice));
        let pod = self.cluster.create(Kind::Pod, NAMESPACE, life.pod(&name, &execution_id)).unwrap();
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let (cluster, chronicle) = (self.cluster.clone(), self.chronicle.clone());
        let ends_at = Instant::now() + life.until(Deed::ends);
        let played = Played { uid: uid.clone(), execution_id: execution_id.clone(), life: life.clone(), ends_at };
        self.lives.spawn(async move { play(&cluster, &chronicle, NAMESPACE, &name, &uid, &life).await });
        self.played.push(played);
        if self.dice.random_bool(0.3) {
            self.readers.push(Reader::of_one(execution_id));
        }
    }

    fn drawn_weather(&mut self) -> Weather {
        let mut weather = Weather::default();
        for fault in [
            &mut weather.refused,
            &mut weather.broken,
            &mut weather.delayed,
            &mut weather.stale_list,
            &mut weather.expired,
            &mut weather.watch_ended,
            &mut weather.watch_broken,
            &mut weather.watch_silent,
            &mut weather.frame_dropped,
            &mut weather.frame_doubled,
            &mut weather.frame_swapped,
            &mut weather.frame_delayed,
            &mut weather.log_broken,
            &mut weather.log_unretrievable,
        ] {
            *fault = [0.0, 0.0, 0.05, 0.3, 0.9][self.dice.random_range(0..5)];
        }
        weather
    }

    /// Lets time pass; who reads goes on reading, and now and then loses the connection.
    async fn read_until(&mut self, until: Instant) {
        if !self.herald.runs() {
            sleep_until(until).await;
            return;
        }
        let lost = self.dice.random_range(0..self.readers.len() * 4);
        if let Some(reader) = self.readers.get_mut(lost) {
            reader.hang_up();
        }
        let herald = &self.herald;
        futures::future::join_all(self.readers.iter_mut().map(|reader| reader.read(herald, until))).await;
    }

    async fn calm(&mut self) {
        self.faults.set(Weather::default());
        self.clock.right_itself();
        if !self.herald.runs() {
            self.start().await;
        }
        self.read_until(Instant::now() + CALM).await;
        while self.lives.try_join_next().is_some() {}
        assert!(self.lives.is_empty(), "{} lives are not over", self.lives.len());
    }
}
