//! `[embedded]`: the cluster inside podherald.

use std::net::SocketAddr;

use super::{Error, Mode, setting::settings, source::Effective, value::positive};

settings! {
    /// The cluster inside podherald, where `kube.mode` asks for it. Its pods are local processes without isolation.
    pub struct Embedded in "embedded." {
        /// Where the cluster's Kubernetes API listens for kubectl; `off`: nowhere. Only a loopback address will do: whoever
        /// may make pods runs programs as podherald's user. The kubeconfig, which is needed to be let in, is written to
        /// `kubeconfig` in the data directory; port 0 takes any free port.
        /// `PODHERALD_EMBEDDED__LISTEN`, default `"127.0.0.1:0"`.
        listen: Option<SocketAddr> = "127.0.0.1:0",
        /// Keeps a few example pods coming, as `--demo` does.
        /// `PODHERALD_EMBEDDED__DEMO`, default `false`.
        demo: bool = false,
        /// Pods that run at once; more wait.
        /// `PODHERALD_EMBEDDED__MAX_PODS`, default `64`.
        max_pods: u32 = 64,
    }
}

impl Embedded {
    pub(super) fn validate(&self, effective: &Effective, mode: Mode) -> Result<(), Error> {
        if self.listen.is_some_and(|address| !address.ip().is_loopback()) {
            return Err(effective.refuse("embedded.listen", "a loopback address such as `127.0.0.1:0`, or `off`"));
        }
        if self.demo && mode == Mode::Cluster {
            return Err(effective.refuse(
                "embedded.demo",
                "`false` where `kube.mode` is `cluster`: the demo runs on the embedded cluster only",
            ));
        }
        positive(effective, "embedded.max_pods", self.max_pods)
    }
}
