//! What so many pods cost: nothing grows faster than their number.
//!
//! Work is counted, not timed: the bytes that this thread allocates, on which everything is done but the journal's reads and
//! writes, and the requests to the API server. The scripted API server is on it too, so it has to be as good.

use std::{env, time::Duration};

use serde_json::{Value, json};
use tikv_jemalloc_ctl::thread;
use tokio::time::Instant;

use crate::{
    scripted_api::{Kind, log_text},
    world::{MOMENT, World},
};

const BEGIN: &str = "2026-02-10T12:00:00Z";
/// Numbers of pods; `just soak` has greater ones.
const SIZES: [usize; 2] = [400, 4000];
/// What a pod among many may cost, in those of one among few.
const GROWTH: f64 = 1.15;
/// Of tokio's time.
const LIMIT: Duration = Duration::from_secs(600);

fn pod(n: usize, phase: &str, state: Value) -> Value {
    let status = json!({"name": "executor", "restartCount": 0, "state": state});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("executor-{n}"), "namespace": "ns", "uid": format!("uid-{n}"), "creationTimestamp": BEGIN,
            "labels": {"execution-id": format!("e-{n}")}
        },
        "spec": {"nodeName": format!("node-{}", n % 50), "restartPolicy": "Never", "containers": [{"name": "executor"}]},
        "status": {"phase": phase, "containerStatuses": [status]}
    })
}

fn running(n: usize) -> Value {
    pod(n, "Running", json!({"running": {"startedAt": BEGIN}}))
}

fn ended(n: usize) -> Value {
    let end = json!({"exitCode": 0, "reason": "Completed", "startedAt": BEGIN, "finishedAt": "2026-02-10T12:00:02Z"});
    pod(n, "Succeeded", json!({"terminated": end}))
}

async fn until(world: &World, metric: &str, value: usize) {
    let begun = Instant::now();
    loop {
        let found = world.metric(metric).await;
        if usize::try_from(found).unwrap() == value {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{metric} is {found}, not {value}, after {LIMIT:?}");
        tokio::time::sleep(MOMENT).await;
    }
}

/// Bytes allocated and requests made for one pod of so many, from a cold start until all have ended and are gone.
async fn cost_of_one_among(pods: usize) -> (f64, f64) {
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id"), ("kube.jobs", "false")]);
    for n in 0..pods {
        world.api.apply(running(n));
        world.api.set_logs("ns", &format!("executor-{n}"), "executor", log_text("done\n"));
    }
    let allocated = || thread::allocatedp::read().unwrap().get();
    let before = allocated();
    world.start().await;
    until(&world, "podherald_journal_events_total", 4 * pods).await;
    (0..pods).for_each(|n| world.api.apply(ended(n)));
    until(&world, "podherald_journal_events_total", 6 * pods).await;
    (0..pods).for_each(|n| world.api.delete("ns", &format!("executor-{n}")));
    until(&world, "podherald_monitor_tracked_pods", 0).await;
    let requests: usize =
        [Kind::List, Kind::Get, Kind::Log].into_iter().map(|kind| world.api.requests_of(kind).len()).sum();
    #[allow(clippy::cast_precision_loss)]
    let per_pod = |amount: u64| amount as f64 / pods as f64;
    (per_pod(allocated() - before), per_pod(requests as u64))
}

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "it says how long to go on, and is no setting")]
async fn a_pod_costs_the_same_among_many_as_among_few() {
    let sizes = env::var("PODHERALD_SIZES").map_or(SIZES.to_vec(), |sizes| {
        sizes.split(',').map(|size| size.parse().expect("PODHERALD_SIZES are numbers")).collect()
    });
    let mut least = None;
    for pods in sizes {
        let (bytes, requests) = cost_of_one_among(pods).await;
        let (least_bytes, least_requests) = *least.get_or_insert((bytes, requests));
        assert!(bytes <= GROWTH * least_bytes, "a pod costs {bytes} bytes among {pods}, {least_bytes} among few");
        assert!(
            requests <= GROWTH * least_requests,
            "{requests} requests a pod among {pods}, {least_requests} among few"
        );
    }
}
