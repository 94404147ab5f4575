//! Makes blobs of what the terminal event will not hold, and names them in it.

use futures::{StreamExt, stream};
use podherald_core::{
    event::{IndexOutput, Verdict},
    output::Collected,
};
use tokio::time::Instant;

use super::Collector;
use crate::{
    blob::{Blobs, Owner},
    output_store::{self, Reader, Stream},
};

/// Outputs of one attempt under way at a time; the store has a bound of its own.
const AT_ONCE: usize = 8;

/// The blobs of one output. A stream that the event tells whole has none, though there may be a file of it.
#[derive(Default)]
struct Uris {
    stdout: Option<String>,
    stderr: Option<String>,
    raw: Option<String>,
}

impl Collector {
    /// What is not there by the deadline is not named.
    pub(super) async fn make_blobs(
        &self,
        execution_id: &str,
        attempt: u32,
        attempt_key: &str,
        collected: &mut Collected,
    ) {
        let Some(blobs) = &self.blobs else { return };
        let until = blobs.deadline();
        let owner = Owner { execution_id, attempt_key, index: None };
        let is_told = |stream: Stream| match stream {
            Stream::Stdout => collected.stdout.whole,
            Stream::Stderr => collected.stderr.as_ref().is_none_or(|stderr| stderr.whole),
            Stream::Raw => false,
        };
        let uris = self.put_files(blobs, owner, attempt, None, &is_told, until).await;
        collected.stdout.summary.uri = uris.stdout;
        if let Some(stderr) = &mut collected.stderr {
            stderr.summary.uri = uris.stderr;
        }
        collected.raw_uri = uris.raw;
        let outputs = collected.indexes.iter_mut().flat_map(|indexes| &mut indexes.outputs);
        let kept = outputs.filter(|output| output.stdout.verdict != Verdict::Lost);
        let put = kept.map(|output| async {
            let owner = Owner { index: Some(output.index), ..owner };
            let pod = Some(output.pod_uid.clone());
            name(output, self.put_files(blobs, owner, attempt, pod.as_deref(), &|_| false, until).await);
        });
        stream::iter(put).for_each_concurrent(AT_ONCE, |put| put).await;
    }

    async fn put_files(
        &self,
        blobs: &Blobs,
        owner: Owner<'_>,
        attempt: u32,
        pod: Option<&str>,
        is_told: &(impl Fn(Stream) -> bool + Sync),
        until: Instant,
    ) -> Uris {
        let mut uris = Uris::default();
        let files = match self.store.files(owner.execution_id, attempt, pod).await {
            Ok(files) => files,
            Err(error) => {
                self.no_blob(owner, &error);
                return uris;
            }
        };
        let has_raw = files.iter().any(|(stream, _)| *stream == Stream::Raw);
        for (stream, content) in files {
            if is_told(stream) {
                continue;
            }
            // A short log whose streams the event holds is worth no blob.
            let is_short = content.length() <= self.limits.inline_bytes as u64;
            if stream == Stream::Raw && is_short && uris.stdout.is_none() && uris.stderr.is_none() {
                continue;
            }
            let uri = match self.put(blobs, owner, stream, &content, until).await {
                Ok(uri) => uri,
                Err(error) => {
                    self.no_blob(owner, &error);
                    continue;
                }
            };
            match stream {
                Stream::Stdout => uris.stdout = uri,
                Stream::Stderr => uris.stderr = uri,
                Stream::Raw => uris.raw = uri,
            }
        }
        if !has_raw {
            // Then the log is standard output.
            uris.raw.clone_from(&uris.stdout);
        }
        uris
    }

    /// The URI, if the blob is there.
    async fn put(
        &self,
        blobs: &Blobs,
        owner: Owner<'_>,
        stream: Stream,
        content: &Reader,
        until: Instant,
    ) -> output_store::Result<Option<String>> {
        let uri = blobs.name(owner, stream, content).await?;
        self.store.note_blob(owner.execution_id, &uri).await?;
        Ok(blobs.put(&uri, content, until).await.then_some(uri))
    }

    fn no_blob(&self, owner: Owner<'_>, error: &output_store::Error) {
        self.metrics.no_blob.inc();
        tracing::error!(execution_id = owner.execution_id, %error, "no blob was made of an output; its event names none");
    }
}

fn name(output: &mut IndexOutput, uris: Uris) {
    if let Some(uri) = &uris.stdout {
        output.uri.clone_from(uri);
    }
    output.stdout.uri = uris.stdout;
    if let Some(stderr) = &mut output.stderr {
        stderr.uri = uris.stderr;
    }
    output.raw_uri = uris.raw;
}
