//! What a terminal event says: how an attempt ended, why, and what it printed and used.

use serde::{Deserialize, Serialize};

use super::Indexes;

/// What a terminal event says. Which fields a type carries is decided where it is made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Terminal {
    /// Absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Code, signal and who says so.
    pub exit: Exit,
    /// Only on `execution_failed` and `execution_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<ErrorType>,
    /// Only on `execution_failed`: the cause in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Only on `execution_timeout`: `activeDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// Only on `execution_cancelled`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only on `execution_cancelled`: who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// Only on `execution_cancelled`: the program did not end by itself in its grace period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_terminated: Option<bool>,
    /// Always there except on a plain success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Present once an out-of-memory kill was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    /// From the program's report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_usage: Option<ResourceUsage>,
    /// Head and tail up to the inline limit, lossily decoded.
    pub stdout: String,
    /// Head and tail up to the inline limit, lossily decoded.
    pub stderr: String,
    /// How complete the two are and where the rest is.
    pub output: Output,
}

/// `exit`: how the deciding container ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Exit {
    /// Null where nobody knows.
    #[cfg_attr(feature = "schema", schema(required = true))]
    pub code: Option<i32>,
    /// Only as the runtime reported it; 128+n is a convention, not a fact (T43).
    #[cfg_attr(feature = "schema", schema(required = true))]
    pub signal: Option<i32>,
    /// Who says so.
    pub source: ExitSource,
}

/// Where `exit` comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExitSource {
    /// The container status.
    Kubelet,
    /// The program's own report.
    Report,
    /// podherald's wrapper in the pod.
    Wrapper,
    /// Nobody.
    #[default]
    None,
}

/// `cause`: why the attempt ended as it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Cause {
    /// The class that alarms and dashboards count.
    pub class: CauseClass,
    /// A short reason in the field's own words, `OOMKilled` for instance.
    pub reason: String,
    /// One sentence for a person.
    pub message: String,
    /// The facts that it rests on, one a line; never empty.
    pub evidence: Vec<String>,
}

/// `cause.class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CauseClass {
    /// The program itself.
    UserCode,
    /// A memory limit.
    ResourceLimit,
    /// `activeDeadlineSeconds`.
    Timeout,
    /// Evicted by the kubelet or through the API.
    Evicted,
    /// A more important pod took the place.
    Preempted,
    /// The node went away.
    NodeLost,
    /// The program never ran.
    NeverStarted,
    /// Somebody asked for it.
    Cancelled,
    /// The pod was deleted under the program.
    Deleted,
    /// The cluster.
    Platform,
    /// Nobody knows.
    Unknown,
}

/// `error_type`, derived from the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    /// The program failed.
    ScriptError,
    /// It asked for too much.
    ResourceLimit,
    /// It took too long.
    Timeout,
    /// Exit code 126.
    PermissionDenied,
    /// Not the program's doing.
    SystemError,
}

/// `oom`: out-of-memory kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Oom {
    /// The kubelet or the report tells of one.
    pub seen: bool,
    /// It killed the main process: reason `OOMKilled` with code 137 (T46).
    pub fatal: bool,
}

/// `resource_usage`; what is not known is null, never 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ResourceUsage {
    /// Seconds.
    #[cfg_attr(feature = "schema", schema(required = true))]
    pub execution_time_wall_seconds: Option<f64>,
    /// In units of `clk_tck_hertz`.
    #[cfg_attr(feature = "schema", schema(required = true))]
    pub cpu_time_jiffies: Option<i64>,
    /// Jiffies a second.
    #[cfg_attr(feature = "schema", schema(required = true))]
    pub clk_tck_hertz: Option<i64>,
    /// KiB.
    #[cfg_attr(feature = "schema", schema(required = true))]
    pub peak_memory_kb: Option<i64>,
    /// KiB: the memory limit of the container in its pod's spec, as podherald first saw it. A Job has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_kb: Option<u64>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time_seconds: Option<f64>,
    /// Processes killed for memory within the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<i64>,
    /// `wrapper`, `cgroup` or `report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// `output`: how complete each stream is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Output {
    /// Standard output.
    pub stdout: StreamSummary,
    /// Standard error.
    pub stderr: StreamSummary,
    /// Where the whole is, when the inline text is not the whole: the blob of standard output, or else of standard error, where
    /// there is one (`file://` or `s3://`); otherwise the path at which podherald serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The blob that holds the log as it came, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_uri: Option<String>,
    /// What each index of an Indexed Job printed; absent for anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexes: Option<Indexes>,
}

/// One stream of `output`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StreamSummary {
    /// Bytes that the program wrote, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// Bytes that podherald has.
    pub bytes_kept: u64,
    /// Hex digest over all bytes, not only the kept ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
    /// How far to trust it.
    pub verdict: Verdict,
    /// `message` when the text is the termination or waiting message instead of a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The blob that holds the kept bytes, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

impl StreamSummary {
    /// Nothing of it can be read any more; what is known of it stays.
    pub fn lose(&mut self) {
        self.bytes_kept = 0;
        self.verdict = Verdict::Lost;
    }
}

/// How complete a stream is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All of it.
    Complete,
    /// All was read, the middle was not kept.
    Truncated,
    /// A part is missing: the read broke off, or the log had been begun anew.
    Partial,
    /// Nothing could be read.
    #[default]
    Lost,
}

impl Verdict {
    /// As events say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Partial => "partial",
            Self::Lost => "lost",
        }
    }
}
