//! Who holds the Lease, on the embedded cluster and on virtual time.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube_sim::cluster::{Cluster, Options};
use podherald::{
    clock::TokioClock,
    health::{Readiness, Role},
    leadership::{Elector, Metrics, Office, Signs},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

const DURATION: Duration = Duration::from_secs(15);
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(3);

struct Candidate {
    signs: Signs,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Candidate {
    fn stand(client: &kube::Client, me: &str) -> Self {
        let office = Office {
            namespace: "default".to_owned(),
            name: "podherald".to_owned(),
            duration: DURATION,
            me: me.to_owned(),
        };
        let clock = Arc::new(TokioClock::starting_at(Timestamp::UNIX_EPOCH));
        let readiness = Arc::new(Readiness::of(&[Role::Api, Role::Monitor]));
        let elector = Elector::new(client.clone(), office, clock, readiness, Metrics::default());
        let (signs, stop) = (elector.signs(), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(elector.run(stop.clone()));
        Self { signs, stop, task }
    }

    fn holds(&self) -> bool {
        self.signs.held.borrow().is_some_and(|until| Instant::now() < until)
    }

    async fn until_holding(&self) -> Duration {
        let begun = Instant::now();
        while !self.holds() {
            assert!(begun.elapsed() < DURATION * 3, "it does not get the Lease");
            sleep(Duration::from_millis(100)).await;
        }
        begun.elapsed()
    }
}

fn cluster() -> kube::Client {
    let cluster = Cluster::new(Options { clock: Arc::new(|| Timestamp::UNIX_EPOCH), seed: Some(1) });
    kube::Client::new(kube_sim::api::Api::new(cluster), "default")
}

#[tokio::test(start_paused = true)]
async fn one_holds_the_lease_and_keeps_it_as_long_as_it_lives() {
    let client = cluster();
    let one = Candidate::stand(&client, "one");
    one.until_holding().await;
    let other = Candidate::stand(&client, "other");
    for _ in 0..100 {
        sleep(INTERVAL).await;
        assert!(one.holds() && !other.holds());
    }
    let lease = Api::<Lease>::namespaced(client, "default").get("podherald").await.unwrap();
    assert_eq!(*one.signs.uid.borrow(), lease.metadata.uid);
    assert_eq!(*other.signs.uid.borrow(), lease.metadata.uid);
    let spec = lease.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("one"), Some(0)));
}

/// T91: only the time that passes here counts.
#[tokio::test(start_paused = true)]
async fn a_lease_whose_holder_died_is_taken_after_its_time_and_not_before() {
    let client = cluster();
    let mut one = Candidate::stand(&client, "one");
    one.until_holding().await;
    let other = Candidate::stand(&client, "other");
    sleep(INTERVAL * 4).await;
    one.task.shutdown().await;
    let waited = other.until_holding().await;
    assert!((DURATION - INTERVAL..=DURATION + INTERVAL * 2).contains(&waited), "{waited:?}");
    let lease = Api::<Lease>::namespaced(client, "default").get("podherald").await.unwrap();
    assert_eq!(lease.spec.unwrap().lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_is_taken_at_the_next_look() {
    let client = cluster();
    let mut one = Candidate::stand(&client, "one");
    one.until_holding().await;
    let other = Candidate::stand(&client, "other");
    sleep(INTERVAL).await;
    one.stop.cancel();
    one.task.join_next().await.unwrap().unwrap();
    assert!(!one.holds());
    let waited = other.until_holding().await;
    assert!(waited <= INTERVAL, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn who_starts_again_on_the_same_journal_need_not_wait_for_itself() {
    let client = cluster();
    let mut one = Candidate::stand(&client, "one");
    one.until_holding().await;
    one.task.shutdown().await;
    let again = Candidate::stand(&client, "one");
    assert!(again.until_holding().await < INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_has_replaced_is_lost() {
    let client = cluster();
    let one = Candidate::stand(&client, "one");
    one.until_holding().await;
    let leases = Api::<Lease>::namespaced(client, "default");
    let mut lease = leases.get("podherald").await.unwrap();
    lease.spec.as_mut().unwrap().holder_identity = Some("usurper".to_owned());
    leases.replace("podherald", &kube::api::PostParams::default(), &lease).await.unwrap();
    sleep(INTERVAL + Duration::from_secs(1)).await;
    assert!(!one.holds());
    // The usurper does not renew it.
    assert!(one.until_holding().await > DURATION - INTERVAL * 2);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_look_at_the_lease_says_what_it_needs() {
    let forbidden =
        r#"{"kind":"Status","status":"Failure","message":"leases is forbidden","reason":"Forbidden","code":403}"#;
    let answer =
        move || http::Response::builder().status(403).body(kube::client::Body::from(forbidden.as_bytes().to_vec()));
    let service = tower::service_fn(move |_: http::Request<kube::client::Body>| std::future::ready(answer()));
    let one = Candidate::stand(&kube::Client::new(service, "default"), "one");
    sleep(INTERVAL).await;
    let trouble = one.signs.trouble.borrow().clone().unwrap();
    for part in [
        "monitor.lease",
        "podherald in namespace default",
        "get, create and update",
        "deploy/lease.yaml",
        "leases is forbidden",
    ] {
        assert!(trouble.contains(part), "{trouble}");
    }
    assert!(!one.holds());
}
