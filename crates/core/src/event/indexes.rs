//! What the indexes of an Indexed Job printed, beside the output that the attempt goes by.

use serde::{Deserialize, Serialize};

use super::StreamSummary;

/// The indexes that completed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Indexes {
    /// In order; of those below `logs.max_indexes`.
    pub outputs: Vec<IndexOutput>,
    /// How many more completed: their output was not kept.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(required = true))]
    pub left_out: u32,
}

/// The output of one index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct IndexOutput {
    /// `batch.kubernetes.io/job-completion-index`.
    pub index: u32,
    /// `metadata.name` of the pod that completed it, of several the last.
    pub pod_name: String,
    /// `metadata.uid` of that pod.
    pub pod_uid: String,
    /// The container's, or what the program reported in place of a 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Standard output.
    pub stdout: StreamSummary,
    /// Standard error, where the log told it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StreamSummary>,
    /// Where it is: the blob of standard output where there is one, otherwise the path at which podherald serves it.
    pub uri: String,
    /// The blob that holds the log as it came, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_uri: Option<String>,
}

impl IndexOutput {
    /// There is nothing left to read.
    pub fn lose(&mut self) {
        for stream in std::iter::once(&mut self.stdout).chain(&mut self.stderr) {
            stream.lose();
        }
    }
}
