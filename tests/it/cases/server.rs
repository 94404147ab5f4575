//! The cases through the running server: watch, list, GET and log go over kube's client to the scripted API server, and
//! the events come out of the HTTP API.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    task::{spawn_blocking, yield_now},
    time::sleep,
};

use super::{
    expect::differences,
    grammar::{Case, Fetch, FrameKind, Logs, Part, Step, load, recorded},
    own,
    variants::{self, At, FRAMES, INTERRUPTIONS, Telling, Variant, tell, tell_with_one_interruption},
};
use crate::{
    scripted_api::{End, GoneAs, Kind, LogAttempt, LogEnd, Refusal},
    world::World,
};

/// `logs.deadline` and `monitor.exit_grace` together, and a little.
const AFTERWARDS: Duration = Duration::from_millis(40_500);

struct Player {
    world: World,
    /// A watch that is too old is told so in both ways by turns (T5).
    gone_as: GoneAs,
}

impl Player {
    /// Plays the case; `haste`, if any, is the number of breaths that podherald has before it is killed.
    async fn play(case: &Case, haste: Option<usize>) -> Vec<Value> {
        let reconciles = case.steps.iter().any(|step| matches!(step, Step::Reconcile { .. }));
        let settings = [
            // Every pod of the cases is admitted.
            ("kube.label_selectors", "!no-such-label"),
            // What a watch told must not have to be told by the reconciler.
            ("monitor.reconcile_interval", if reconciles { "5s" } else { "300s" }),
        ];
        let mut world = World::new("2026-02-10T12:00:03Z", &settings);
        world.start().await;
        let mut player = Self { world, gone_as: GoneAs::Frame };
        let mut steps = case.steps.iter().peekable();
        while let Some(step) = steps.next() {
            let after_restart = match (step, steps.peek()) {
                (Step::Restart, Some(Step::Relist { .. })) => steps.next(),
                _ => None,
            };
            player.step(step, after_restart).await;
            // What a deletion tells, no later list tells again.
            let is_told_again = matches!(step, Step::Watch { kind, .. } if *kind != FrameKind::Deleted);
            match (haste, steps.peek()) {
                (Some(breaths), Some(Step::Restart)) if is_told_again => breathe(breaths).await,
                _ => player.world.settle().await,
            }
        }
        sleep(AFTERWARDS).await;
        let events = player.world.events().await;
        player.check_readers(&events).await;
        events
    }

    /// One step; after a restart, the list that the new process is to find.
    async fn step(&mut self, step: &Step, after_restart: Option<&Step>) {
        let api = &self.world.api;
        match step {
            Step::Watch { kind, pod, logs } => {
                self.script_logs(std::slice::from_ref(pod), logs);
                api.send(kind.as_str(), pod.clone());
            }
            Step::WatchRaw { kind, object } => api.send_raw(kind, object),
            Step::WatchDisconnect => api.disconnect(End::Eof),
            Step::Relist { pods, logs } => {
                self.script_logs(pods, logs);
                let lists = api.requests_of(Kind::List).len();
                api.replace_silently(pods.clone());
                api.expire(self.gone_as);
                api.disconnect(End::Eof);
                self.gone_as = match self.gone_as {
                    GoneAs::Frame => GoneAs::Status,
                    GoneAs::Status => GoneAs::Frame,
                };
                api.wait_for_requests(Kind::List, lists + 1).await;
            }
            Step::Reconcile { pods, logs } => {
                self.script_logs(pods, logs);
                let lists = api.requests_of(Kind::List).len();
                api.replace_silently(pods.clone());
                api.wait_for_requests(Kind::List, lists + 1).await;
            }
            Step::Restart => {
                self.world.kill().await;
                if let Some(Step::Relist { pods, logs }) = after_restart {
                    self.script_logs(pods, logs);
                    self.world.api.replace_silently(pods.clone());
                }
                self.world.start().await;
            }
            Step::PublishFault { count } => self.world.faults.add(*count),
            Step::Tick { seconds } => sleep(Duration::from_secs_f64(*seconds)).await,
            Step::SecondMonitor => assert!(self.world.is_owned(), "a second process has to wait"),
        }
    }

    fn script_logs(&self, pods: &[Value], logs: &Logs) {
        for pod in pods {
            let (namespace, name) = variants::key(pod);
            for (container, fetches) in logs {
                let attempts = fetches.iter().map(attempt).collect();
                self.world.api.set_logs(&namespace, &name, container, attempts);
            }
        }
    }

    /// What holds for every reader, whatever the case: ids are unique, no number is missing, and an execution that is
    /// shown as ended has its terminal event.
    async fn check_readers(&self, events: &[Value]) {
        let mut ids = BTreeSet::new();
        let mut numbers = BTreeMap::<_, u64>::new();
        let mut ended = BTreeMap::new();
        for event in events {
            let id = event["execution_id"].as_str().unwrap();
            assert!(ids.insert(event["event_id"].as_str().unwrap()), "twice in the journal: {event}");
            let number = numbers.entry((id, event["source"].as_str().unwrap())).or_default();
            *number += 1;
            assert_eq!(event["seq"], *number, "a number is missing before {event}");
            let is_ended = ended.entry(id).or_insert(false);
            let status = event["event_type"].as_str().unwrap().strip_prefix("execution_").unwrap_or_default();
            *is_ended |= matches!(status, "completed" | "failed" | "timeout" | "cancelled");
        }
        for (id, is_ended) in ended {
            let (status, execution) = self.world.get(&format!("/executions/{id}")).await;
            assert!(status.is_success(), "{execution}");
            let shown = execution["status"].as_str().unwrap();
            assert_eq!(matches!(shown, "completed" | "failed" | "timeout" | "cancelled"), is_ended, "{execution}");
        }
    }
}

/// Lets tasks go on and commits come back, while the clock stands still.
async fn breathe(times: usize) {
    for _ in 0..times {
        yield_now().await;
        spawn_blocking(|| ()).await.unwrap();
    }
}

fn attempt(fetch: &Fetch) -> LogAttempt {
    match fetch {
        Fetch::Parts(parts) => LogAttempt::Text(parts.iter().map(Part::bytes).collect(), LogEnd::Complete),
        Fetch::Error { status, message } => LogAttempt::Fails(Refusal::of_code(*status, message.as_str()).into()),
    }
}

async fn run(tellings: &[Telling], haste: Option<usize>) {
    let mut failures = Vec::new();
    for telling in tellings {
        let events = Player::play(&telling.case, haste).await;
        let differences = differences(&telling.case.expect, &events);
        if !differences.is_empty() {
            failures.push((telling.name.clone(), differences));
        }
    }
    variants::report(tellings.len(), &failures);
}

fn all() -> Vec<Case> {
    [load(), own::cases()].concat()
}

#[tokio::test(start_paused = true)]
async fn every_case_is_served_as_expected() {
    run(&tell(&[all(), recorded()].concat(), &FRAMES), None).await;
}

#[tokio::test(start_paused = true)]
async fn every_case_is_served_the_same_when_lists_and_restarts_come_between_all_steps() {
    run(&tell(&[all(), recorded()].concat(), &INTERRUPTIONS), None).await;
}

#[tokio::test(start_paused = true)]
async fn every_case_is_served_the_same_with_one_list_or_restart_at_any_step() {
    run(&tell_with_one_interruption(&all()), None).await;
}

#[tokio::test(start_paused = true)]
async fn every_case_is_served_the_same_when_each_step_is_interrupted_half_way() {
    for breaths in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
        run(&tell(&all(), &[Variant::Restarted(At::Each)]), Some(breaths)).await;
    }
}
