//! The embedded cluster's conformance table on the real API server: what it is held against there must be true here.

use crate::cluster::Cluster;

#[path = "../../crates/kube-sim/tests/conformance/behaviours/mod.rs"]
mod behaviours;
#[path = "../../crates/kube-sim/tests/conformance/place.rs"]
mod place;

use behaviours::for_each_behaviour;

macro_rules! on_the_real_server {
    ($module:ident: $($behaviour:ident,)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    let cluster = super::Cluster::shared().await;
                    let namespace = cluster.namespace().await.name;
                    let place = super::place::Place { client: cluster.admin.clone(), namespace };
                    super::behaviours::$module::$behaviour(&place).await;
                }
            )*
        }
    };
}
for_each_behaviour!(on_the_real_server);
