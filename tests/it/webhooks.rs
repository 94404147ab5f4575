//! A webhook from outside: a process that is killed, an endpoint that goes and comes back, and the API between them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU16, Ordering},
};

use axum::{Router, extract::State, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use ring::hmac;
use serde_json::{Value, value::RawValue};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

use crate::{
    herald::{Herald, LIMIT, POLL, types},
    pods,
    process::Place,
};

const KEY: &[u8] = b"a key of twenty-four by.";

/// An endpoint that keeps what it takes.
#[derive(Clone, Default)]
struct Endpoint {
    status: Arc<AtomicU16>,
    taken: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Endpoint {
    async fn serve(&self) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=s3cret", listener.local_addr().unwrap());
        let take = |State(endpoint): State<Self>, headers: HeaderMap, body: Bytes| async move {
            let status = StatusCode::from_u16(endpoint.status.load(Ordering::Relaxed)).unwrap();
            if status.is_success() {
                endpoint.taken.lock().unwrap().push((headers, body));
            }
            status
        };
        let router = Router::new().route("/hook", post(take)).with_state(self.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        (url, tasks)
    }

    /// What it has taken once there is so much of it: the event's id, and its bytes, for which the signature stands.
    async fn taken(&self, count: usize) -> Vec<(String, String)> {
        let deadline = Instant::now() + LIMIT;
        while self.taken.lock().unwrap().len() < count {
            assert!(Instant::now() < deadline, "it was not sent {count} events");
            tokio::time::sleep(POLL).await;
        }
        self.taken.lock().unwrap().iter().map(|(headers, body)| verified(headers, body)).collect()
    }
}

/// As a receiver does it that knows nothing but the two specifications.
fn verified(headers: &HeaderMap, body: &[u8]) -> (String, String) {
    #[derive(serde::Deserialize)]
    struct CloudEvent<'a> {
        id: String,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let signed = [format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(), body].concat();
    let signature = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &signed, &signature).unwrap();
    assert_eq!(header("content-type"), "application/cloudevents+json");
    let event: CloudEvent<'_> = serde_json::from_slice(body).unwrap();
    assert_eq!(event.id, header("webhook-id"));
    (event.id, event.data.get().to_owned())
}

async fn webhook(herald: &Herald) -> Value {
    herald.get("/webhooks").await["items"][0].clone()
}

#[tokio::test]
async fn an_endpoint_that_was_gone_gets_every_event_once_it_is_enabled_whatever_dies_in_between() {
    let endpoint = Endpoint::default();
    endpoint.status.store(410, Ordering::Relaxed);
    let (url, _serving) = endpoint.serve().await;
    let secret = format!("whsec_{}", STANDARD.encode(KEY));
    let settings = [
        ("PODHERALD_WEBHOOK__ORDERS__URL", url.as_str()),
        ("PODHERALD_WEBHOOK__ORDERS__SECRET", &secret),
        ("PODHERALD_WEBHOOK__ORDERS__ALLOW_PRIVATE", "true"),
    ];
    let place = Place::new().await;
    let start = async || {
        let mut herald = place.launch(&settings);
        herald.until_listening().await;
        herald.until_ready().await;
        herald
    };
    let herald = start().await;
    place.api.apply(pods::ended("a", 7));
    let deadline = Instant::now() + LIMIT;
    while webhook(&herald).await["disabled"].is_null() {
        assert!(Instant::now() < deadline, "{}", herald.log());
        tokio::time::sleep(POLL).await;
    }
    herald.ended("a").await;
    assert!(!herald.log().contains("s3cret") && !herald.log().contains(&secret), "{}", herald.log());
    let disabled = webhook(&herald).await["disabled"].clone();
    herald.kill().await;

    endpoint.status.store(200, Ordering::Relaxed);
    let herald = start().await;
    let told = webhook(&herald).await;
    assert_eq!(told["disabled"], disabled);
    assert_eq!((told["name"].as_str(), told["sink"]["name"].as_str()), (Some("orders"), Some("webhook:orders")));
    assert!(told["url"].as_str().unwrap().ends_with("/***"), "{told}");
    assert_eq!(told["disabled"]["reason"], "it answers 410 Gone");
    let ready = herald.get("/readyz").await["sinks"][0].clone();
    assert!(ready["last_error"].as_str().unwrap().contains("disabled since"), "{ready}");
    assert_eq!(herald.counter("podherald_webhook_disabled{webhook=\"orders\"}").await, 1);

    let enable = "/webhooks/orders/enable";
    let (status, problem) = herald.post(enable, &[("origin", "https://evil.example")]).await;
    assert_eq!((status, problem["type"].as_str()), (StatusCode::FORBIDDEN, Some("urn:podherald:problem:forbidden")));
    assert_eq!(webhook(&herald).await["disabled"], disabled);
    assert_eq!(endpoint.taken(0).await, []);
    let (status, enabled) = herald.post(enable, &[]).await;
    assert_eq!((status, &enabled["disabled"]), (StatusCode::OK, &Value::Null));

    let events = herald.events("a").await;
    let taken = endpoint.taken(events.len()).await;
    let data: Vec<Value> = taken.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(data, events, "{:?}", types(&data));
    let logged = herald.pages("/webhooks/orders/deliveries?limit=2").await;
    assert!(logged.len() > events.len() && logged.iter().any(|delivery| delivery["status"] == 410), "{logged:?}");

    let (id, bytes) = &taken[0];
    let (status, again) = herald.post(&format!("/webhooks/orders/deliveries/{id}/redeliver"), &[]).await;
    assert_eq!((status, &again["redelivery"], &again["status"]), (StatusCode::OK, &true.into(), &200.into()));
    assert_eq!(endpoint.taken(events.len() + 1).await.last(), Some(&(id.clone(), bytes.clone())));

    for (path, kind) in [
        ("/webhooks/order/enable", "webhook-not-found"),
        ("/webhooks/orders/deliveries/none/redeliver", "delivery-not-found"),
        ("/webhooks/orders/deliveries/none/skip", "delivery-not-found"),
        (&format!("/webhooks/orders/deliveries/{id}/skip"), "not-skippable"),
        ("/webhooks/orders/enable?now=1", "invalid-parameter"),
        ("/webhooks", "method-not-allowed"),
    ] {
        let (_, problem) = herald.post(path, &[]).await;
        assert_eq!(problem["type"], format!("urn:podherald:problem:{kind}"), "{path}: {problem}");
    }
}
