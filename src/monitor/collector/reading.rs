//! One try at reading a log.

use std::{fmt, future::Future, time::Duration};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Resource,
    api::{GetParams, LogParams},
    client::Body,
    core::{PartialObjectMeta, Request},
};
use podherald_core::output::{Limits, LogEnd, Scan, Scanner};
use tokio::time::{Instant, timeout_at};

use super::Job;
use crate::{
    monitor::beginning::Comparison,
    output_store::{self, Writer},
    wording,
};

/// What was found in a log, and where its bytes went.
pub(super) type Read = (Scan, Result<Writer, output_store::Error>);

/// What came of a log so far.
#[derive(Debug)]
pub(super) struct Reading {
    scanner: Scanner,
    /// Or why the disk failed: the event will hold what it can.
    writer: Result<Writer, output_store::Error>,
}

/// Why a try did not give the whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    /// For evidence and the operator: the server's own words, cut short.
    pub(super) why: String,
    /// The server asks to wait this long.
    pub(super) retry_after: Option<Duration>,
}

/// The sorts of trouble; names of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gone,
    NotFound,
    Forbidden,
    Rejected,
    NotReady,
    NotRetrievable,
    Throttled,
    ServerError,
    Unreachable,
    BrokeOff,
    Deadline,
}

/// How often it is worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    None,
    /// So many times in all.
    Tries(u32),
    UntilDeadline,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Rejected => "rejected",
            Self::NotReady => "not_ready",
            Self::NotRetrievable => "not_retrievable",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::Unreachable => "unreachable",
            Self::BrokeOff => "broke_off",
            Self::Deadline => "deadline",
        }
    }

    pub(super) fn patience(self) -> Patience {
        match self {
            Self::Gone | Self::Deadline => Patience::None,
            // It was seen a moment ago: it is gone, or this one of several API servers is behind (T20a).
            Self::NotFound => Patience::Tries(3),
            Self::NotRetrievable => Patience::Tries(2),
            // A role may be granted late and a kubelet be behind; neither is worth the whole deadline.
            Self::Forbidden | Self::Rejected => Patience::Tries(3),
            Self::NotReady | Self::Throttled | Self::ServerError | Self::Unreachable | Self::BrokeOff => {
                Patience::UntilDeadline
            }
        }
    }
}

impl Trouble {
    pub(super) fn new(kind: Kind, why: impl fmt::Display) -> Self {
        Self { kind, why: shortened(&why.to_string()), retry_after: None }
    }
}

impl Reading {
    pub(super) fn new(limits: Limits, writer: Writer) -> Self {
        Self { scanner: Scanner::new(limits), writer: Ok(writer) }
    }

    /// Bytes read so far.
    pub(super) fn total(&self) -> u64 {
        self.scanner.total()
    }

    pub(super) fn finish(self, end: LogEnd, termination_message: Option<&str>) -> Read {
        (self.scanner.finish(end, termination_message), self.writer)
    }

    /// Reads the log of a container from its start to its end, and says whether these were those of the log.
    pub(super) async fn read(&mut self, client: &kube::Client, job: &Job, container: &str) -> Result<LogEnd, Trouble> {
        let mut beginning = job.beginning.clone().map(Comparison::new);
        let mut body = self.open(client, job, container).await?;
        while let Some(frame) = by(job.deadline, Kind::BrokeOff, body.frame()).await? {
            let frame = frame.map_err(|e| Trouble::new(Kind::BrokeOff, wording::of(&e)))?;
            let Ok(bytes) = frame.into_data() else { continue };
            self.scanner.push(&bytes);
            if let Some(beginning) = &mut beginning {
                beginning.push(&mut bytes.clone());
            }
            if let Ok(writer) = &mut self.writer
                && let Err(error) = writer.write(&bytes).await
            {
                self.writer = Err(error);
            }
        }
        let is_whole = beginning.is_none_or(|beginning| beginning.fits());
        Ok(match (is_whole, job.is_open) {
            (false, _) => LogEnd::BegunAnew,
            (true, true) => LogEnd::BrokeOff,
            (true, false) => LogEnd::Complete,
        })
    }

    /// The body of the log, if that is what the answer is.
    async fn open(&self, client: &kube::Client, job: &Job, container: &str) -> Result<Body, Trouble> {
        // No limitBytes, tailLines or timestamps: they cut or change the bytes (T69, T75).
        let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        let request = Request::new(Pod::url_path(&(), Some(&job.namespace)))
            .logs(&job.pod, &params)
            .map_err(|e| Trouble::new(Kind::Rejected, wording::of(&e)))?;
        let response = by(job.deadline, Kind::Unreachable, client.send(request.map(Body::from))).await?;
        let response = response.map_err(|e| Trouble::new(Kind::Unreachable, wording::of(&e)))?;
        let (head, body) = response.into_parts();
        if head.status == StatusCode::OK {
            return Ok(body);
        }
        let message = by(job.deadline, Kind::ServerError, message(body)).await.unwrap_or_default();
        Err(refusal(head.status, &head.headers, &message))
    }
}

/// Whose a pod's name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Another,
    Nobody,
    /// This pod's or, for all that is known, it may be.
    Itself,
}

/// True if after this trouble another try is certain to be of no log of ours: a later pod of the same name has one too (T16).
pub(super) async fn is_over(trouble: &Trouble, client: &kube::Client, job: &Job) -> bool {
    match trouble.kind {
        // Asked for a log of a container that has ended, a kubelet that knows of none speaks of another.
        Kind::NotReady => holder(client, job).await != Holder::Itself,
        // That nobody has the name, a server that is behind says too.
        Kind::NotFound => holder(client, job).await == Holder::Another,
        _ => false,
    }
}

async fn holder(client: &kube::Client, job: &Job) -> Holder {
    let Ok(request) =
        Request::new(Pod::url_path(&(), Some(&job.namespace))).get_metadata(&job.pod, &GetParams::default())
    else {
        return Holder::Itself;
    };
    match timeout_at(job.deadline, client.request::<PartialObjectMeta<Pod>>(request)).await {
        Ok(Ok(pod)) if pod.metadata.uid.as_ref().is_some_and(|uid| *uid != job.uid) => Holder::Another,
        Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::NOT_FOUND.as_u16() => Holder::Nobody,
        _ => Holder::Itself,
    }
}

/// What an answer that is not a log means.
fn refusal(status: StatusCode, headers: &HeaderMap, message: &str) -> Trouble {
    let is_waiting = ["ContainerCreating", "PodInitializing", "is waiting to start", "is not available"]
        .iter()
        .any(|words| message.contains(words));
    let kind = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Kind::NotFound,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        StatusCode::BAD_REQUEST if is_waiting => Kind::NotReady,
        StatusCode::TOO_MANY_REQUESTS => Kind::Throttled,
        // The client renews its token by itself.
        StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT => Kind::ServerError,
        _ if status.is_client_error() => Kind::Rejected,
        _ => Kind::ServerError,
    };
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let why = match kind {
        Kind::Forbidden => format!("forbidden: {message}"),
        _ => format!("{status}: {message}"),
    };
    Trouble { retry_after: retry_after.map(Duration::from_secs), ..Trouble::new(kind, why) }
}

/// The message of a `Status`, or the text that came in its place; at most a few KiB are read.
async fn message(mut body: Body) -> String {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend(frame.into_data().unwrap_or_default());
        if text.len() > 4096 {
            break;
        }
    }
    match serde_json::from_slice::<serde_json::Value>(&text) {
        Ok(status) => status["message"].as_str().unwrap_or_default().to_owned(),
        Err(_) => String::from_utf8_lossy(&text).into_owned(),
    }
}

async fn by<T>(deadline: Instant, kind: Kind, work: impl Future<Output = T>) -> Result<T, Trouble> {
    timeout_at(deadline, work).await.map_err(|_| Trouble::new(kind, "no answer before the deadline"))
}

fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_refusal_has_its_meaning() {
        let creating = "container \"executor\" in pod \"p\" is waiting to start: ContainerCreating";
        let not_valid = "container x is not valid for pod p";
        for (status, message, kind) in [
            (400, creating, Kind::NotReady),
            (400, "PodInitializing", Kind::NotReady),
            (400, not_valid, Kind::Rejected),
            (401, "Unauthorized", Kind::ServerError),
            (403, "pods \"p\" is forbidden", Kind::Forbidden),
            (404, "pods \"p\" not found", Kind::NotFound),
            (410, "", Kind::NotFound),
            (405, "", Kind::Rejected),
            (429, "", Kind::Throttled),
            (500, "", Kind::ServerError),
            (503, "", Kind::ServerError),
            (204, "", Kind::ServerError),
            (302, "", Kind::ServerError),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(refusal(status, &HeaderMap::new(), message).kind, kind, "{status} {message}");
        }
    }

    #[test]
    fn retry_after_counts_in_seconds() {
        for (value, expected) in [("3", Some(3)), ("0", Some(0)), ("soon", None), ("-1", None)] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            let trouble = refusal(StatusCode::TOO_MANY_REQUESTS, &headers, "");
            assert_eq!(trouble.retry_after, expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn the_servers_words_are_one_short_line() {
        assert_eq!(Trouble::new(Kind::ServerError, "a\n  b").why, "a b");
        assert_eq!(Trouble::new(Kind::ServerError, "é".repeat(500)).why.chars().count(), 203);
    }
}
