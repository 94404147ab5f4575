//! From a pod's end to `result_stored` at a reader of events. Each program prints the time as the last thing that it does, and the
//! result carries it; so the node, the monitor, the log, the journal, the store and the stream are all in it.

use std::time::Duration;

use podherald::clock::{Clock, SystemClock};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    Sizes,
    common::{
        pods::{self, Pods},
        process::{LIMIT, Process},
    },
};

/// Between two pods.
const PACE: Duration = Duration::from_millis(100);

pub(crate) async fn measure(sizes: &Sizes, mongo: Option<&String>) {
    let data = tempfile::tempdir().unwrap();
    let mongo = mongo.map(|uri| ("PODHERALD_MONGO__URI", &**uri));
    let variables: Vec<_> = [("PODHERALD_ROLES", "api,monitor,result_processor")].into_iter().chain(mongo).collect();
    let mut podherald = Process::podherald(data.path(), &variables).await;
    podherald.until_ready().await;
    let mut stream = BufReader::new(TcpStream::connect(podherald.address()).await.unwrap());
    let request = "GET /events HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let pods = Pods::of(data.path()).await;
    let making = async {
        for id in pods::executions("told", sizes.pods) {
            pods.create(&[id], &["date", "+%s%N"]).await;
            sleep(PACE).await;
        }
    };
    let reading = async {
        let (mut ended, mut told) = (Vec::new(), Vec::new());
        let mut line = String::new();
        while told.len() < sizes.pods {
            line.clear();
            timeout(LIMIT, stream.read_line(&mut line)).await.expect("results in time").unwrap();
            let now = SystemClock.now().as_nanosecond();
            let Some(event) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok())
            else {
                continue;
            };
            let since = |event: &Value| {
                let at: i128 = event["stdout"].as_str().unwrap().trim().parse().unwrap();
                (now - at) as f64 / 1e6
            };
            match event["event_type"].as_str() {
                Some("execution_completed") => ended.push(since(&event)),
                Some("result_stored") => told.push(since(&event)),
                _ => {}
            }
        }
        (ended, told)
    };
    let ((), (ended, told)) = tokio::join!(making, reading);
    podherald.stop().await;
    let place = if mongo.is_some() { "MongoDB" } else { "embedded" };
    for (what, mut waits) in [("execution_completed", ended), ("result_stored", told)] {
        waits.sort_by(f64::total_cmp);
        let share = |share: usize| waits[(waits.len() - 1) * share / 100];
        println!("| {what}, {place} | {:.1} | {:.1} |", share(50), share(99));
    }
}
