//! `podherald finalizers`: shows the pods that bear our finalizer, and lets them go, whatever the settings say.

use std::{io::Write, time::Duration};

use kube::{Api, Client, api::ListParams};
use podherald_core::hold::{FINALIZER, OUTCOME_ANNOTATION, Wish};

use super::{
    Metrics,
    patch::{self, Done, Meta, Target},
};
use crate::{leadership::Leads, wording};

/// Pods of a page.
const PAGE: u32 = 500;

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pods are unknown.
    #[error("the pods cannot be listed: {0}; it needs the right to list pods, which deploy/rbac.yaml gives")]
    List(String),
    /// Some pods are still held.
    #[error(
        "{failed} of {all} pods are still held, the last one because: {reason}; it needs the right to patch pods, which \
         deploy/hold.yaml gives"
    )]
    Release {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
        /// Of the last one.
        reason: String,
    },
    /// Standard output is gone.
    #[error("cannot print")]
    Print(#[from] std::io::Error),
}

/// Prints the pods that bear the finalizer.
///
/// # Errors
/// See [`Error`].
pub async fn list(client: &Client, namespace: Option<&str>, out: &mut (impl Write + Send)) -> Result<(), Error> {
    writeln!(out, "NAMESPACE\tNAME\tDELETED\tOUTCOME")?;
    for pod in held(client, namespace).await? {
        let deleted = pod.metadata.deletion_timestamp.as_ref().map_or_else(|| "-".to_owned(), |at| at.0.to_string());
        let outcome = pod.metadata.annotations.iter().flatten().find(|(key, _)| *key == OUTCOME_ANNOTATION);
        let Target { namespace, name, .. } = target(&pod);
        writeln!(out, "{namespace}\t{name}\t{deleted}\t{}", outcome.map_or("-", |(_, id)| id))?;
    }
    Ok(())
}

/// Takes the finalizer off these pods, or only says which.
///
/// # Errors
/// See [`Error`].
pub async fn release(
    client: &Client,
    namespace: Option<&str>,
    dry_run: bool,
    out: &mut (impl Write + Send),
) -> Result<(), Error> {
    let pods = held(client, namespace).await?;
    if pods.is_empty() {
        writeln!(out, "no pod is held")?;
    }
    let (all, mut failed, mut last) = (pods.len(), 0, String::new());
    for pod in pods {
        let target = target(&pod);
        let name = format!("{}/{}", target.namespace, target.name);
        if dry_run {
            writeln!(out, "would release {name}")?;
            continue;
        }
        match patch::fulfil(client, &Leads::always(), &target, Wish::Abandon, &Metrics::default()).await {
            Ok(Done::Released) => writeln!(out, "released {name}")?,
            Ok(Done::Held | Done::Nothing | Done::Gone) => writeln!(out, "already released {name}")?,
            Err(reason) => {
                writeln!(out, "still held {name}: {reason}")?;
                (failed, last) = (failed + 1, reason);
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(Error::Release { failed, all, reason: last }) }
}

fn target(pod: &Meta) -> Target {
    let meta = pod.metadata.clone();
    Target {
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
    }
}

async fn held(client: &Client, namespace: Option<&str>) -> Result<Vec<Meta>, Error> {
    let pods: Api<Meta> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut params = ListParams::default().limit(PAGE);
    let mut held = Vec::new();
    loop {
        let asked = tokio::time::timeout(Duration::from_secs(60), pods.list(&params)).await;
        let page = asked.map_err(|_| Error::List("no answer within 60 s".to_owned()))?;
        let page = page.map_err(|error| Error::List(wording::of(&error)))?;
        let is_ours = |pod: &Meta| pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        held.extend(page.items.into_iter().filter(is_ours));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(held),
        }
    }
}
