//! The conformance table, held against the embedded cluster. tests/real holds the same against the real API server.

#![allow(clippy::unwrap_used)]

mod behaviours;
mod own;
mod place;

use std::sync::Arc;

use behaviours::for_each_behaviour;
use kube_sim::{
    api::Api,
    cluster::{Cluster, Options},
};

fn place() -> place::Place {
    let clock = Arc::new(|| "2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::new(Options { clock, seed: Some(1) });
    // Like a real one that has been started anew: version 1 is too old for it.
    cluster.compact();
    place::Place { client: kube::Client::new(Api::new(cluster), "default"), namespace: "default".to_owned() }
}

macro_rules! on_the_embedded_cluster {
    ($module:ident: $($behaviour:ident,)*) => {
        mod $module {
            $(
                #[tokio::test(start_paused = true)]
                async fn $behaviour() {
                    super::behaviours::$module::$behaviour(&super::place()).await;
                }
            )*
        }
    };
}
for_each_behaviour!(on_the_embedded_cluster);
