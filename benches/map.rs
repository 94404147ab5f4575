//! Decode and map: watch frames of pods on one core.
//!
//! The frames are those of one pod's life (Pending, Running, Succeeded; about 6 KB each, managedFields included), recorded
//! from a real API server with `benches/peers/run.sh frames`. They are decoded exactly as kube's watcher does it. Full
//! `k8s_openapi` pods, decoded in the same rounds, are the yardstick.
//!
//! `cargo bench --bench map`, with `-- --tiny` just to see it work.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

use std::{hint::black_box, time::Duration};

use jiff::Timestamp;
use kube::core::WatchEvent;
use podherald::monitor::wire;
use podherald_core::{
    identity::{self, Place},
    mapper::{self, Observation, Policy},
    pod::Pod,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

const FRAMES: &str = include_str!("../tests/fixtures/frames_6k.jsonl");

fn decode<K: DeserializeOwned>(frame: &str) -> K {
    match serde_json::from_str::<WatchEvent<K>>(frame).unwrap() {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => object,
        other => panic!("unexpected frame: {other:?}"),
    }
}

fn decode_lean(frame: &str) -> Pod {
    decode::<wire::Pod>(frame).facts.unwrap()
}

/// One pod's life through the mapper, its collected output included. Returns the number of events.
fn live<'a>(looks: impl IntoIterator<Item = &'a Pod>, places: &[Place], policy: &Policy, now: Timestamp) -> usize {
    let mut looks = looks.into_iter().peekable();
    let first = *looks.peek().unwrap();
    let execution_id = identity::execution_id(first, places).unwrap();
    let mut evidence = mapper::begin(first, execution_id, 1, policy, now);
    let mut events = 0;
    for pod in looks {
        let step = mapper::observe(&mut evidence, Observation::Seen(pod), policy, now);
        events += step.events.len();
        if step.collect {
            let output = Observation::Collected(Box::default());
            events += mapper::observe(&mut evidence, output, policy, now).events.len();
        }
    }
    assert!(evidence.terminal.is_some(), "the recorded pod ends");
    black_box(evidence);
    events
}

/// Time that `work` takes for `lives` pod lives.
fn time(lives: u32, mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..lives {
        work();
    }
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let (rounds, lives) = if std::env::args().any(|argument| argument == "--tiny") { (1, 10) } else { (11, 5_000) };
    let frames: Vec<&str> = FRAMES.lines().collect();
    let pods: Vec<Pod> = frames.iter().map(|frame| decode_lean(frame)).collect();
    let places = identity::default_places();
    let (policy, now) = (Policy::default(), "2026-02-10T12:00:00Z".parse().unwrap());
    let looks = u32::try_from(frames.len()).unwrap() * lives;

    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        // All in each round, so that a noisy moment meets all of them.
        times[0].push(time(lives, || {
            for frame in &frames {
                black_box(decode::<k8s_openapi::api::core::v1::Pod>(black_box(frame)));
            }
        }));
        times[1].push(time(lives, || {
            for frame in &frames {
                black_box(decode_lean(black_box(frame)));
            }
        }));
        times[2].push(time(lives, || {
            black_box(live(black_box(&pods), &places, &policy, now));
        }));
        times[3].push(time(lives, || {
            let decoded = frames.iter().map(|frame| decode_lean(black_box(frame))).collect::<Vec<_>>();
            black_box(live(&decoded, &places, &policy, now));
        }));
    }

    let bytes = FRAMES.len() as f64 / frames.len() as f64;
    let events = live(&pods, &places, &policy, now);
    println!("{} frames of {bytes:.0} bytes and {events} events a pod; {rounds} rounds of {lives} pods", frames.len());
    for (name, times) in
        ["decode into k8s_openapi", "decode into podherald's", "map", "decode and map"].into_iter().zip(times)
    {
        let each = median(times).as_secs_f64() / f64::from(looks);
        println!("{name:24} {:9.0} a second, {:6.2} us each", 1.0 / each, each * 1e6);
    }
}
