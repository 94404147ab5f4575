//! The messages `evaluation:*`, which systems from before podherald listen to: fewer than the events, and flatter.

use jiff::Timestamp;
use serde::Serialize;

use crate::event::{Event, Payload, Terminal};

/// What is published for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `evaluation:` and what became of it.
    pub channel: &'static str,
    /// JSON.
    pub body: Vec<u8>,
}

/// Where [`Began`] is published.
pub const RUNNING: &str = "evaluation:running";
/// Where [`Ended`] is published after code 0.
pub const COMPLETED: &str = "evaluation:completed";
/// Where [`Ended`] is published after a failure or a timeout.
pub const FAILED: &str = "evaluation:failed";
/// Where [`Ended`] is published after somebody ended it on purpose.
pub const CANCELLED: &str = "evaluation:cancelled";

/// The stream of an execution's events is called this and the execution's id.
pub const STREAM_PREFIX: &str = "evaluation:events:";
/// The stream of gaps. It has the prefix, so that a right to that is enough; what follows can stand in no label.
pub const GAPS: &str = "evaluation:events::gaps";

/// An evaluation began.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Began<'a> {
    /// The execution's id.
    eval_id: &'a str,
    /// RFC 3339, UTC, microseconds.
    #[serde(with = "crate::time")]
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    timestamp: Timestamp,
}

/// An evaluation ended. What nobody knows is null: readers count on the fields.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ended<'a> {
    /// The execution's id.
    eval_id: &'a str,
    /// Null where nobody knows.
    #[cfg_attr(feature = "schema", schema(required = true))]
    exit_code: Option<i32>,
    /// `stdout` of the event.
    output: &'a str,
    /// `stderr` of the event, or else why it ended.
    error: &'a str,
    /// Null where nobody knows.
    #[cfg_attr(feature = "schema", schema(required = true))]
    duration_seconds: Option<f64>,
    /// RFC 3339, UTC, microseconds.
    #[serde(with = "crate::time")]
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    timestamp: Timestamp,
}

/// What is published for this event, if anything is. `started` is when the attempt's main container started.
///
/// These systems know no timeout: it is a failure. Nothing says `evaluation:queued` but an event that something was queued,
/// and the monitor, which sees pods, has none.
pub fn message(event: &Event, started: Option<Timestamp>) -> Option<Message> {
    let (channel, ended) = match &event.payload {
        Payload::ExecutionRunning { .. } => (RUNNING, None),
        Payload::ExecutionCompleted(terminal) => (COMPLETED, Some(terminal)),
        Payload::ExecutionFailed(terminal) | Payload::ExecutionTimeout(terminal) => (FAILED, Some(terminal)),
        Payload::ExecutionCancelled(terminal) => (CANCELLED, Some(terminal)),
        Payload::PodScheduled { .. }
        | Payload::ExecutionStarted { .. }
        | Payload::PodRunning { .. }
        | Payload::ExecutionProgress { .. }
        | Payload::PodTerminated { .. }
        | Payload::PodDeleted { .. }
        | Payload::ExecutionAmended { .. }
        | Payload::ResultStored(_)
        | Payload::ResultFailed { .. } => return None,
    };
    let (eval_id, timestamp) = (event.execution_id.as_str(), event.timestamp);
    let body = match ended {
        None => serde_json::to_vec(&Began { eval_id, timestamp }),
        Some(terminal) => serde_json::to_vec(&Ended {
            eval_id,
            exit_code: terminal.exit.code,
            output: &terminal.stdout,
            error: error(terminal),
            duration_seconds: measured(terminal).or_else(|| between(started?, timestamp)),
            timestamp,
        }),
    };
    Some(Message { channel, body: body.expect("a message holds only strings and numbers") })
}

/// True if [`message`] makes use of the time of the start.
pub fn needs_start(event: &Event) -> bool {
    event.payload.terminal().is_some_and(|terminal| measured(terminal).is_none())
}

/// What the program said, else what podherald says of its end.
fn error(terminal: &Terminal) -> &str {
    let said = Some(terminal.stderr.as_str()).filter(|stderr| !stderr.is_empty());
    said.or(terminal.error_message.as_deref())
        .or_else(|| terminal.cause.as_ref().map(|cause| cause.message.as_str()))
        .unwrap_or_default()
}

fn measured(terminal: &Terminal) -> Option<f64> {
    terminal.resource_usage.as_ref()?.execution_time_wall_seconds
}

/// Both times are the kubelet's own; an end that podherald dated itself may lie before the start (T89).
fn between(started: Timestamp, ended: Timestamp) -> Option<f64> {
    let seconds = ended.duration_since(started).as_secs_f64();
    (seconds >= 0.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    #![allow(clippy::needless_pass_by_value, reason = "JSON is written where it is used")]

    use serde_json::{Value, json};

    use super::*;

    const START: &str = "2026-03-01T12:00:00Z";

    fn event(payload: Value) -> Event {
        let mut event = json!({
            "event_id": "00000000-0000-0000-0000-000000000001", "event_version": "1.0",
            "timestamp": "2026-03-01T12:00:02.5Z", "execution_id": "e", "attempt": 1, "source": "pod-monitor:x", "seq": 1,
            "metadata": {"service_name": "pod-monitor", "service_version": "0", "environment": "test"},
        });
        event.as_object_mut().unwrap().extend(payload.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    fn ended(event_type: &str, more: Value) -> Event {
        let mut payload = json!({
            "event_type": event_type, "exit": {"code": 3, "signal": null, "source": "kubelet"},
            "stdout": "out", "stderr": "err", "output": serde_json::to_value(crate::event::Output::default()).unwrap(),
        });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event(payload)
    }

    fn said(event: &Event) -> (&'static str, Value) {
        let message = message(event, Some(START.parse().unwrap())).unwrap();
        (message.channel, serde_json::from_slice(&message.body).unwrap())
    }

    #[test]
    fn each_end_has_its_channel_and_a_timeout_is_a_failure() {
        let body = json!({"eval_id": "e", "exit_code": 3, "output": "out", "error": "err", "duration_seconds": 2.5,
            "timestamp": "2026-03-01T12:00:02.500000Z"});
        for (event_type, channel) in [
            ("execution_completed", "evaluation:completed"),
            ("execution_failed", "evaluation:failed"),
            ("execution_timeout", "evaluation:failed"),
            ("execution_cancelled", "evaluation:cancelled"),
        ] {
            assert_eq!(said(&ended(event_type, json!({}))), (channel, body.clone()), "{event_type}");
        }
    }

    #[test]
    fn running_is_said_once_an_attempt_and_steps_on_the_way_are_not_said() {
        let running = event(json!({"event_type": "execution_running", "pod_name": "p"}));
        let body = json!({"eval_id": "e", "timestamp": "2026-03-01T12:00:02.500000Z"});
        assert_eq!(said(&running), ("evaluation:running", body));
        for silent in [
            json!({"event_type": "pod_scheduled", "pod_name": "p"}),
            json!({"event_type": "execution_started", "pod_name": "p"}),
            json!({"event_type": "pod_running", "pod_name": "p", "container_statuses": []}),
            json!({"event_type": "execution_progress", "offset": 1}),
            json!({"event_type": "pod_terminated", "pod_name": "p"}),
            json!({"event_type": "pod_deleted", "pod_name": "p"}),
            json!({"event_type": "execution_amended", "amends": "00000000-0000-0000-0000-000000000001", "evidence": []}),
        ] {
            assert_eq!(message(&event(silent.clone()), None), None, "{silent}");
        }
    }

    #[test]
    fn what_nobody_knows_is_null_and_a_failure_never_goes_without_words() {
        let cause =
            json!({"class": "deleted", "reason": "Deleted", "message": "somebody deleted it", "evidence": ["x"]});
        let unknown = json!({"exit": {"code": null, "signal": null, "source": "none"}, "stderr": "", "cause": cause});
        let event = ended("execution_failed", unknown.clone());
        let body: Value = serde_json::from_slice(&message(&event, None).unwrap().body).unwrap();
        assert_eq!([&body["exit_code"], &body["duration_seconds"]], [&Value::Null, &Value::Null]);
        assert!(body.as_object().unwrap().contains_key("exit_code"));
        assert_eq!(body["error"], "somebody deleted it");
        let mut told = unknown;
        told["error_message"] = json!("the pod was deleted");
        assert_eq!(said(&ended("execution_failed", told)).1["error"], "the pod was deleted");
    }

    #[test]
    fn the_programs_own_measure_of_its_time_comes_first_and_no_time_is_negative() {
        let usage = json!({"resource_usage": {"execution_time_wall_seconds": 1.25}});
        let measured = ended("execution_completed", usage);
        assert_eq!(said(&measured).1["duration_seconds"], 1.25);
        assert!(!needs_start(&measured));
        let plain = ended("execution_completed", json!({}));
        assert!(
            needs_start(&plain) && !needs_start(&event(json!({"event_type": "execution_running", "pod_name": "p"})))
        );
        let late: Value =
            serde_json::from_slice(&message(&plain, Some("2026-03-01T12:00:03Z".parse().unwrap())).unwrap().body)
                .unwrap();
        assert_eq!(late["duration_seconds"], Value::Null);
    }
}
