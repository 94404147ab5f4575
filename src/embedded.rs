//! The cluster inside podherald: its API, its node, and the demo that keeps them busy.

use std::{fmt, io, net::SocketAddr, path::Path, sync::Arc};

use kube_sim::{
    api::{self, Api},
    cluster::{self, Cluster},
    node::{self, Node},
    tls::{self, Credentials},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::counter::ConstCounter,
    registry::Registry,
};
use tokio::net::TcpListener;

use crate::{
    clock::Clock,
    config, demo,
    supervisor::{Phase, Supervisor},
};

/// The argument under which the program is a container's shim and nothing else; see [`kube_sim::node`].
pub const SHIM: &str = "node-shim";

/// Why there is no embedded cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("embedded.listen = {address} cannot be listened on; choose a free loopback address and port, or `off`")]
    Listen {
        /// `embedded.listen`.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Nobody could be let in.
    #[error(transparent)]
    Credentials(#[from] tls::Error),
    /// Nobody would know how to get in.
    #[error("the kubeconfig {path} cannot be written")]
    Kubeconfig {
        /// `kubeconfig` in the data directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The node has no place for its pods.
    #[error(transparent)]
    Node(#[from] node::Error),
}

/// Starts a cluster on a data directory that the caller owns, and gives a client of it.
///
/// # Errors
/// What kept it from starting.
pub async fn start(
    config: &config::Embedded,
    data_dir: &Path,
    clock: &Arc<dyn Clock>,
    supervisor: &mut Supervisor,
    registry: &mut Registry,
) -> Result<kube::Client, Error> {
    let clock = clock.clone();
    let cluster = Cluster::new(cluster::Options { clock: Arc::new(move || clock.now()), seed: None });
    let api = Api::new(cluster.clone());

    let directory = data_dir.join("node");
    let options =
        node::Options { max_pods: config.max_pods as usize, ..node::Options::new(directory, "/proc/self/exe", SHIM) };
    let node = Node::new(cluster.clone(), options)?;
    registry.register_collector(Box::new(Losses { cluster, node: node.counters() }));
    // After the drain: what the monitor still collects, the node still has.
    supervisor.spawn("node", Phase::Flush, |stop| async move {
        node.run(stop).await;
        Ok(())
    });
    tracing::warn!("the embedded cluster runs pods as local processes of this user, without any isolation");
    if let Some(address) = config.listen {
        serve(&api, address, &data_dir.join("kubeconfig"), supervisor).await?;
    }

    let client = kube::Client::new(api, "default");
    if config.demo {
        let client = client.clone();
        supervisor.spawn("demo", Phase::Intake, |stop| async move {
            demo::run(client, stop).await;
            Ok(())
        });
    }
    Ok(client)
}

/// What the embedded cluster drops, cuts or leaves, as metrics.
#[derive(Debug)]
struct Losses {
    cluster: Cluster,
    node: node::Counters,
}

impl Collector for Losses {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cluster = self.cluster.counters();
        for (name, help, count) in [
            ("rotated_logs", "Full logs of containers that were begun anew", self.node.rotated_logs()),
            ("rotated_log_bytes", "Bytes of logs that went with that", self.node.rotated_log_bytes()),
            ("left_processes", "Processes that could not be killed with their container", self.node.left_processes()),
            ("held_outputs", "Outputs that somebody held open after their container's end", self.node.held_outputs()),
            ("refused_events", "Kubernetes events of the node that were not taken", self.node.refused_events()),
            ("dropped_events", "Kubernetes events that made room for later ones", cluster.dropped_events),
            ("cut_watches", "Watches that were ended for reading too slowly", cluster.cut_watches),
        ] {
            let counter = ConstCounter::new(count);
            let name = format!("podherald_embedded_{name}");
            counter.encode(encoder.encode_descriptor(&name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

/// The API for kubectl.
async fn serve(api: &Api, address: SocketAddr, kubeconfig: &Path, supervisor: &mut Supervisor) -> Result<(), Error> {
    let unavailable = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(unavailable)?;
    let credentials = Credentials::generate()?;
    let bound = listener.local_addr().map_err(unavailable)?;
    let path = kubeconfig.display().to_string();
    credentials
        .write_kubeconfig(bound, kubeconfig)
        .map_err(|source| Error::Kubeconfig { path: path.clone(), source })?;
    tracing::info!(api = %bound, kubeconfig = path, "kubectl --kubeconfig has the embedded cluster");
    let api = api.clone();
    supervisor.spawn("embedded api", Phase::Listener, |stop| async move {
        Ok(api::serve(api, listener, credentials, stop).await?)
    });
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_embedded_cluster_loses_is_a_metric() {
        let clock = Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
        let cluster = Cluster::new(cluster::Options { clock, seed: None });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Losses { cluster, node: node::Counters::default() }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "rotated_logs",
            "rotated_log_bytes",
            "left_processes",
            "held_outputs",
            "refused_events",
            "dropped_events",
            "cut_watches",
        ] {
            assert!(text.contains(&format!("podherald_embedded_{name}_total 0\n")), "{text}");
        }
    }
}
