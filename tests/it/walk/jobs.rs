//! The same walks with Jobs: whoever makes them tries again, deletes pods or the Job itself, and writes the conditions, all at
//! times of its own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kube_sim::{
    cluster::{Cluster, Kind},
    fault::life::{Chronicle, Deed, Life, play},
};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{NAMESPACE, Walk, check, range_of_walks, reader::Reader, runtime};
use crate::herald::ends;

/// Half as many as of bare pods: the storm is the same.
const WALKS: std::ops::Range<u64> = 0..150;

#[test]
#[expect(clippy::print_stdout, reason = "shown when the test fails, to walk the same again")]
fn whatever_fails_every_job_ends_once_and_rightly_and_leaves_nothing_behind() {
    for seed in range_of_walks(WALKS) {
        println!("PODHERALD_WALK_SEED={seed}");
        runtime().block_on(async { Walk::new(seed).run_with_jobs().await });
    }
}

/// A Job that was made, and what becomes of it.
pub(super) struct PlayedJob {
    name: String,
    uid: String,
    plan: Plan,
    made_at: Instant,
}

#[derive(Clone)]
struct Plan {
    /// What its pods end with, one after the other: the Job tries again until it is 0, or the codes are used up.
    codes: Vec<i32>,
    /// Pods are removed as soon as they have ended, and their logs with them (T53).
    sweeps: bool,
    /// Somebody deletes the Job while its last pod runs.
    is_cut_off: bool,
    /// It is gone after its end.
    has_ttl: bool,
    /// Between any two things that happen.
    pauses: Vec<Duration>,
}

impl Plan {
    fn drawn(dice: &mut StdRng) -> Self {
        let mut codes: Vec<i32> = (0..dice.random_range(0..3)).map(|_| dice.random_range(1..100)).collect();
        codes.push(if dice.random_bool(0.6) { 0 } else { dice.random_range(1..100) });
        let pause = |dice: &mut StdRng| {
            Duration::from_millis(if dice.random_bool(0.4) { 0 } else { dice.random_range(0..30_000) })
        };
        Self {
            sweeps: dice.random_bool(0.3),
            is_cut_off: dice.random_bool(0.2),
            has_ttl: dice.random_bool(0.5),
            pauses: (0..20).map(|_| pause(dice)).collect(),
            codes,
        }
    }

    fn has_succeeded(&self) -> bool {
        self.codes.last() == Some(&0)
    }
}

fn printed(job: &str, number: usize) -> Bytes {
    format!("pod {number} of {job}\n").into()
}

async fn play_job(cluster: Cluster, chronicle: Chronicle, name: String, uid: String, plan: Plan) {
    let mut pauses = plan.pauses.iter().copied();
    let mut pause = || sleep(pauses.next().unwrap_or_default());
    let last = plan.codes.len() - 1;
    for (number, code) in plan.codes.iter().enumerate() {
        // No Job tries again within the second that the times of its pods are told in.
        sleep(Duration::from_secs(1)).await;
        pause().await;
        let is_cut_off = plan.is_cut_off && number == last;
        let mut deeds = vec![(Duration::ZERO, Deed::Schedule), (Duration::from_millis(300), Deed::Start)];
        if !is_cut_off {
            deeds.push((plan.pauses[number], Deed::Exit { code: *code, oom: false }));
        }
        if plan.sweeps && !is_cut_off {
            deeds.push((plan.pauses[number + 5], Deed::Remove));
        }
        let output = printed(&name, number);
        let life = Life { restart_policy: "Never", deadline_seconds: None, deeds, output };
        let pod_name = format!("{name}-{number}");
        let mut pod = life.pod(&pod_name, &name);
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": true}]);
        pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = uid.clone().into();
        let pod = cluster.create(Kind::Pod, NAMESPACE, pod).unwrap();
        let pod_uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        play(&cluster, &chronicle, NAMESPACE, &pod_name, &pod_uid, &life).await;
        if is_cut_off {
            pause().await;
            return remove(&cluster, &name, &uid, plan.codes.len());
        }
        let field = if *code == 0 { "succeeded" } else { "failed" };
        change(&cluster, &name, &uid, |status| status[field] = (status[field].as_u64().unwrap_or_default() + 1).into());
    }
    let conditions = match plan.has_succeeded() {
        true => [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")],
        false => [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")],
    };
    for (kind, reason) in conditions {
        pause().await;
        change(&cluster, &name, &uid, |status| {
            if !status["conditions"].is_array() {
                status["conditions"] = json!([]);
            }
            let condition = json!({"type": kind, "status": "True", "reason": reason});
            status["conditions"].as_array_mut().unwrap().push(condition);
        });
    }
    if plan.has_ttl {
        pause().await;
        remove(&cluster, &name, &uid, plan.codes.len());
    }
}

fn change(cluster: &Cluster, name: &str, uid: &str, change: impl FnOnce(&mut Value)) {
    cluster.update(Kind::Job, NAMESPACE, name, Some(uid), |job| change(&mut job["status"])).unwrap();
}

/// The Job first, then its pods, as the garbage collector does.
fn remove(cluster: &Cluster, name: &str, uid: &str, pods: usize) {
    cluster.remove(Kind::Job, NAMESPACE, name, uid).unwrap();
    for number in 0..pods {
        let pod = format!("{name}-{number}");
        let Some(object) = cluster.get(Kind::Pod, NAMESPACE, &pod) else { continue };
        cluster.remove(Kind::Pod, NAMESPACE, &pod, object["metadata"]["uid"].as_str().unwrap()).unwrap();
    }
}

impl Walk {
    async fn run_with_jobs(mut self) {
        self.makes_jobs = true;
        self.storm().await;
        self.calm().await;
        let events = self.herald.events().await;
        for job in &self.jobs {
            self.check_job(job, &events).await;
        }
        check::readers(&self, &events);
        let there = [Kind::Job, Kind::Pod].map(|kind| self.cluster.list(kind, NAMESPACE).len()).iter().sum::<usize>();
        assert_eq!(self.herald.metric("podherald_monitor_tracked_pods").await, i64::try_from(there).unwrap());
        assert_eq!(self.herald.metric("podherald_monitor_unknown_jobs").await, 0);
        self.readers.clear();
        self.herald.kill().await;
    }

    pub(super) fn create_job(&mut self) {
        let name = format!("j{}", self.jobs.len());
        let plan = Plan::drawn(&mut self.dice);
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "labels": {"execution-id": name}},
            "spec": {"backoffLimit": 6, "template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "executor", "image": "none"}],
            }}},
        });
        let job: Arc<Value> = self.cluster.create(Kind::Job, NAMESPACE, job).unwrap();
        let uid = job["metadata"]["uid"].as_str().unwrap().to_owned();
        let (cluster, chronicle) = (self.cluster.clone(), self.chronicle.clone());
        self.lives.spawn(play_job(cluster, chronicle, name.clone(), uid.clone(), plan.clone()));
        if self.dice.random_bool(0.3) {
            self.readers.push(Reader::of_one(name.clone()));
        }
        self.jobs.push(PlayedJob { name, uid, plan, made_at: Instant::now() });
    }

    async fn check_job(&self, job: &PlayedJob, events: &[Value]) {
        let PlayedJob { name, plan, uid, .. } = job;
        let of_job: Vec<&Value> = events.iter().filter(|event| event["execution_id"] == **name).collect();
        let is_there = self.cluster.get(Kind::Job, NAMESPACE, name).is_some();
        let was_in_sight = job.made_at > self.clear_from;
        if of_job.is_empty() && !is_there && !was_in_sight {
            return; // born and gone while nobody could see
        }
        // P1
        let execution = self.herald.execution(name).await;
        let attempts = execution["attempts"].as_u64().unwrap();
        for attempt in 1..=attempts {
            let is_end = |event: &&&Value| ends(event) && event["attempt"] == attempt;
            assert_eq!(of_job.iter().filter(is_end).count(), 1, "{name} ({uid}), attempt {attempt}: {of_job:#?}");
        }
        assert_eq!(attempts, 1, "{execution:#}");
        let end = of_job.iter().find(|event| ends(event)).unwrap();
        // P2: what is still there can be read off it, what went may have been seen by nobody.
        let kind = match (plan.is_cut_off, plan.has_succeeded()) {
            (false, true) => "execution_completed",
            (_, _) => "execution_failed",
        };
        let class = end["cause"]["class"].as_str();
        let is_ignorance = end["event_type"] == "execution_failed" && matches!(class, Some("unknown" | "deleted"));
        assert!(end["event_type"] == kind || (!is_there && is_ignorance), "{name} is no {kind}: {end:#}");
        let is_certain = is_there && !plan.sweeps && (was_in_sight || !is_ignorance);
        if is_certain {
            assert_eq!(end["exit_code"], plan.codes[plan.codes.len() - 1], "{name}: {end:#}");
        }
        // P3
        let stdout = end["stdout"].as_str().unwrap();
        let outputs: Vec<Bytes> = (0..plan.codes.len()).map(|number| printed(name, number)).collect();
        match end["output"]["stdout"]["verdict"].as_str().unwrap() {
            "complete" if is_certain => {
                assert_eq!(stdout.as_bytes(), outputs[outputs.len() - 1], "{end:#}");
            }
            "complete" => {
                assert!(stdout.is_empty() || outputs.iter().any(|output| output == stdout.as_bytes()), "{end:#}");
            }
            "partial" => assert!(outputs.iter().any(|output| output.starts_with(stdout.as_bytes())), "{end:#}"),
            "lost" => assert!(stdout.is_empty(), "{end:#}"),
            verdict => panic!("{name}: nothing makes its output {verdict}: {end:#}"),
        }
    }
}
