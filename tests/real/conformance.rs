//! The embedded cluster's conformance table on the real API server: what it is held against there must be true here.

use crate::cluster::Cluster;

#[path = "../../crates/kube-sim/tests/conformance/behaviours.rs"]
mod behaviours;
#[path = "../../crates/kube-sim/tests/conformance/place.rs"]
mod place;

use behaviours::for_each_behaviour;

macro_rules! on_the_real_server {
    ($($behaviour:ident,)*) => {$(
        #[tokio::test]
        async fn $behaviour() {
            let cluster = Cluster::shared().await;
            let namespace = cluster.namespace().await.name;
            behaviours::$behaviour(&place::Place { client: cluster.admin.clone(), namespace }).await;
        }
    )*};
}
for_each_behaviour!(on_the_real_server);
