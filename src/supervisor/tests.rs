#![allow(clippy::unwrap_used)]

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::*;

/// What happened, in order.
type Diary = Arc<Mutex<Vec<&'static str>>>;

fn supervisor() -> (Supervisor, Arc<Readiness>, Diary) {
    let readiness = Arc::new(Readiness::of(&[]));
    (Supervisor::new(readiness.clone()), readiness, Diary::default())
}

/// Writes its name when it is asked to stop, and again when it has.
fn note(
    diary: &Diary,
    takes: Duration,
    asked: &'static str,
    done: &'static str,
) -> impl FnOnce(CancellationToken) -> Work {
    let diary = diary.clone();
    move |token| {
        Box::pin(async move {
            token.cancelled().await;
            diary.lock().unwrap().push(asked);
            sleep(takes).await;
            diary.lock().unwrap().push(done);
            Ok(())
        })
    }
}

fn one_signal_after(delay: Duration) -> impl Stream<Item = ()> {
    stream::once(sleep(delay))
}

async fn stopped(token: CancellationToken) -> Result<(), Failure> {
    token.cancelled().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_signal_ends_all_phases_in_order() {
    let (mut supervisor, readiness, diary) = supervisor();
    let second = Duration::from_secs(1);
    supervisor.spawn("listener", Phase::Listener, note(&diary, second, "listener asked", "listener done"));
    supervisor.spawn("collector", Phase::Drain, note(&diary, second, "collector asked", "collector done"));
    supervisor.spawn("watcher", Phase::Intake, note(&diary, second, "watcher asked", "watcher done"));
    supervisor.spawn("streams", Phase::Streams, note(&diary, second, "streams asked", "streams done"));
    let probe = readiness.clone();
    supervisor.spawn("relay", Phase::Flush, move |token| async move {
        token.cancelled().await;
        if probe.is_draining() { Ok(()) } else { Err("still ready".into()) }
    });
    let start = Instant::now();
    supervisor.run(one_signal_after(Duration::from_secs(60))).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(64));
    assert_eq!(
        *diary.lock().unwrap(),
        [
            "streams asked",
            "streams done",
            "watcher asked",
            "watcher done",
            "collector asked",
            "collector done",
            "listener asked",
            "listener done",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_early_end_of_a_critical_task_ends_the_process_in_order_and_names_it() {
    for (result, expected) in
        [(Err("disk gone".into()), "disk gone"), (Ok(()), "it returned without having been asked to")]
            as [(Result<(), Failure>, _); 2]
    {
        let (mut supervisor, readiness, diary) = supervisor();
        supervisor.spawn("collector", Phase::Drain, note(&diary, Duration::ZERO, "asked", "done"));
        supervisor.spawn("watcher", Phase::Intake, move |_| async move {
            sleep(Duration::from_secs(5)).await;
            result
        });
        let error = supervisor.run(stream::pending()).await.unwrap_err();
        assert!(
            matches!(&error, Error::Early { name: "watcher", source } if source.to_string() == expected),
            "{error:?}"
        );
        assert_eq!(*diary.lock().unwrap(), ["asked", "done"], "the others still end in order");
        assert!(readiness.is_draining());
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_early_end() {
    let (mut supervisor, ..) = supervisor();
    supervisor.spawn("mapper", Phase::Drain, |_| async { panic!("a bug") });
    let error = supervisor.run(stream::pending()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Early { name: "mapper", source } if source.to_string() == "it panicked: a bug"),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restarting_task_is_started_again_with_growing_pauses() {
    let (mut supervisor, ..) = supervisor();
    let starts = Arc::new(Mutex::new(Vec::new()));
    let noted = starts.clone();
    supervisor.spawn_restarting("relay", Phase::Flush, move |_| {
        let starts = noted.clone();
        async move {
            starts.lock().unwrap().push(Instant::now());
            if starts.lock().unwrap().len().is_multiple_of(2) { Err("broker away".into()) } else { panic!("a bug") }
        }
    });
    supervisor.run(one_signal_after(Duration::from_secs(600))).await.unwrap();
    let starts = starts.lock().unwrap();
    let pauses: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let bounds = [1, 2, 4, 8, 16, 30, 30, 30].map(Duration::from_secs);
    assert!(pauses.len() > bounds.len());
    for (pause, bound) in pauses.iter().zip(bounds) {
        // Timers of the paused clock have a resolution of a millisecond.
        assert!((bound / 2..=bound + Duration::from_millis(1)).contains(pause), "{pause:?} is not jitter of {bound:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarting_task_that_was_stable_begins_with_the_shortest_pause_again() {
    let (mut supervisor, ..) = supervisor();
    let starts = Arc::new(AtomicU32::new(0));
    let counted = starts.clone();
    supervisor.spawn_restarting("relay", Phase::Flush, move |token| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            match token.run_until_cancelled(sleep(2 * LONGEST_PAUSE)).await {
                Some(()) => Err("broker away".into()),
                None => Ok(()),
            }
        }
    });
    supervisor.run(one_signal_after(Duration::from_secs(610))).await.unwrap();
    assert_eq!(starts.load(Ordering::Relaxed), 11, "one a minute and at most a second");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_to_be_restarted_ends_at_once() {
    let (mut supervisor, ..) = supervisor();
    supervisor.spawn_restarting("relay", Phase::Flush, |_| async { Err("broker away".into()) });
    let start = Instant::now();
    supervisor.run(one_signal_after(Duration::from_secs(300))).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_because_its_feeder_has_ended_is_no_failure() {
    let (mut supervisor, ..) = supervisor();
    let (feed, mut food) = mpsc::channel::<()>(1);
    supervisor.spawn("watcher", Phase::Intake, |token| async move {
        token.cancelled().await;
        drop(feed);
        Ok(())
    });
    supervisor.spawn("streams", Phase::Streams, stopped);
    supervisor.spawn("mapper", Phase::Drain, |_| async move {
        while food.recv().await.is_some() {}
        Ok(())
    });
    supervisor.run(one_signal_after(Duration::ZERO)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_phase_that_overruns_is_aborted_and_the_next_still_gets_its_time() {
    let (mut supervisor, _, diary) = supervisor();
    let hour = Duration::from_secs(3600);
    supervisor.spawn("stuck stream", Phase::Streams, note(&diary, hour, "stuck", "never"));
    supervisor.spawn("collector", Phase::Drain, note(&diary, Duration::from_secs(2), "asked", "done"));
    supervisor.spawn("deaf listener", Phase::Listener, |_| std::future::pending());
    let start = Instant::now();
    let error = supervisor.run(one_signal_after(Duration::ZERO)).await.unwrap_err();
    assert_eq!(error.to_string(), "aborted what did not end in time: stuck stream, deaf listener");
    assert_eq!(*diary.lock().unwrap(), ["stuck", "asked", "done"]);
    assert!(start.elapsed() <= DEADLINE + Duration::from_millis(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn every_phase_gets_its_time_even_if_all_overrun() {
    let (mut supervisor, ..) = supervisor();
    for (name, phase) in ["a", "b", "c", "d", "e"].into_iter().zip(Phase::ALL) {
        supervisor.spawn(name, phase, |_| std::future::pending());
    }
    let token = supervisor.token(Phase::Listener);
    let start = Instant::now();
    let (error, asked) = tokio::join!(supervisor.run(one_signal_after(Duration::ZERO)), async {
        token.cancelled().await;
        start.elapsed()
    });
    assert_eq!(error.unwrap_err().to_string(), "aborted what did not end in time: a, b, c, d, e");
    assert!(DEADLINE - asked >= Duration::from_millis(900), "the last phase has a second left: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_aborts() {
    let (mut supervisor, ..) = supervisor();
    supervisor.spawn("deaf", Phase::Drain, |_| std::future::pending());
    supervisor.spawn("listener", Phase::Listener, stopped);
    let (send, receive) = mpsc::channel(2);
    let start = Instant::now();
    let (result, ()) = tokio::join!(supervisor.run(ReceiverStream::new(receive)), async {
        send.send(()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        send.send(()).await.unwrap();
    });
    assert_eq!(result.unwrap_err().to_string(), "aborted by a second signal while waiting for: deaf, listener");
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_on_the_way_out_is_reported() {
    let (mut supervisor, ..) = supervisor();
    supervisor.spawn("relay", Phase::Flush, |token| async move {
        token.cancelled().await;
        Err("not acknowledged".into())
    });
    let error = supervisor.run(one_signal_after(Duration::ZERO)).await.unwrap_err();
    assert!(matches!(error, Error::Failed { name: "relay", .. }), "{error:?}");
}
