//! The processes that the node's tests start: `shim`, a container's; `host DIRECTORY POD`, one with a node that runs a pod
//! until somebody kills it.

use std::{env, error::Error, path::PathBuf, process::ExitCode, sync::Arc};

use kube_sim::{
    cluster::{Cluster, Kind, Options},
    node::{self, Node, shim},
};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == "shim" => shim::main(arguments),
        _ => match host(
            arguments.next().unwrap_or_default().into(),
            &arguments.next().unwrap_or_default().to_string_lossy(),
        ) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of a cluster of its own")]
fn host(directory: PathBuf, pod: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::new(Options { clock: Arc::new(jiff::Timestamp::now), seed: None });
        let node = Node::new(cluster.clone(), node::Options::new(directory, env::current_exe()?, "shim"))?;
        cluster.create(Kind::Pod, "default", serde_json::from_str(pod)?)?;
        node.run(CancellationToken::new()).await;
        Ok(())
    })
}
