//! The scripted API server keeps its promises: first those that a real one keeps too, then those of the script.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::{AsyncReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams, WatchEvent, WatchParams},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::behaviours::{self, Cluster, for_each_behaviour};

const NAMESPACE: &str = "behaviours";

fn pod(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    json!({
        "metadata": {"namespace": NAMESPACE, "name": name, "uid": format!("uid-{name}"), "labels": labels},
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]},
        "status": {"phase": "Pending"},
    })
}

impl Cluster for ScriptedApi {
    fn client(&self) -> Client {
        Self::client(self)
    }
    fn namespace(&self) -> &str {
        NAMESPACE
    }
    async fn create(&self, name: &str, labels: &[(&str, &str)]) {
        let mut pod = pod(name, labels);
        pod["metadata"]["uid"] = uuid::Uuid::now_v7().to_string().into();
        self.apply(pod);
    }
    async fn relabel(&self, name: &str, labels: &[(&str, &str)]) {
        let uid =
            self.shared.lock().pods[&(Sort::Pod, NAMESPACE.to_owned(), name.to_owned())]["metadata"]["uid"].clone();
        let mut pod = pod(name, labels);
        pod["metadata"]["uid"] = uid;
        self.apply(pod);
    }
    async fn delete(&self, name: &str) {
        Self::delete(self, NAMESPACE, name);
    }
    async fn forget_history(&self) {
        self.expire(GoneAs::Frame);
    }
}

macro_rules! on_the_scripted_server {
    ($($behaviour:ident,)*) => {
        mod as_a_real_one {
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $behaviour() {
                    behaviours::$behaviour(&ScriptedApi::new()).await;
                }
            )*

            #[tokio::test(start_paused = true)]
            async fn a_watch_from_before_the_history_gets_an_error_frame() {
                behaviours::a_watch_from_before_the_history_gets_an_error_frame(&ScriptedApi::new()).await;
            }
        }
    };
}
for_each_behaviour!(on_the_scripted_server);

fn pods(api: &ScriptedApi) -> Api<Pod> {
    Api::all(api.client())
}

/// The next event of kube's watcher, in a word or two.
async fn next(events: &mut (impl futures::Stream<Item = watcher::Result<Event<Pod>>> + Unpin)) -> String {
    match events.next().await.unwrap() {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(pod)) => format!("list {}", pod.name_any()),
        Ok(Event::InitDone) => "listed".to_owned(),
        Ok(Event::Apply(pod)) => format!("apply {}", pod.name_any()),
        Ok(Event::Delete(pod)) => format!("delete {}", pod.name_any()),
        Err(watcher::Error::WatchError(status)) => format!("error frame {}", status.code),
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) => format!("watch refused {}", status.code),
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) => format!("list refused {}", status.code),
        Err(watcher::Error::WatchFailed(_)) => "watch broke".to_owned(),
        Err(other) => format!("{other}"),
    }
}

macro_rules! assert_next {
    ($events:expr, $($expected:expr),+ $(,)?) => {
        for expected in [$($expected),+] {
            assert_eq!(next(&mut $events).await, expected);
        }
    };
}

#[tokio::test(start_paused = true)]
async fn an_expired_history_in_a_frame_makes_the_watcher_list_again() {
    let api = ScriptedApi::new();
    api.apply(pod("a", &[]));
    let mut events = pin!(watcher(pods(&api), watcher::Config::default()));
    assert_next!(events, "init", "list a", "listed");
    let follow = async {
        api.wait_for_watches(1).await;
        api.replace_silently(vec![pod("b", &[])]);
        api.expire(GoneAs::Frame);
        api.disconnect(End::Eof);
    };
    let (event, ()) = futures::join!(next(&mut events), follow);
    assert_eq!(event, "error frame 410");
    assert_next!(events, "init", "list b", "listed");
}

#[tokio::test(start_paused = true)]
async fn an_expired_history_as_a_status_refuses_the_watch() {
    let api = ScriptedApi::new();
    let mut events = pin!(watcher(pods(&api), watcher::Config::default()));
    assert_next!(events, "init", "listed");
    api.expire(GoneAs::Status);
    // kube's watcher keeps asking from the old version for ever.
    assert_next!(events, "watch refused 410", "watch refused 410");
    assert_eq!(api.requests_of(Kind::List).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_frame_of_the_scripts_ends_the_watches_that_are_open() {
    let api = ScriptedApi::new();
    let mut events = pin!(watcher(pods(&api), watcher::Config::default()));
    assert_next!(events, "init", "listed");
    let follow = async {
        api.wait_for_watches(1).await;
        api.send_error(&Refusal::too_old(1, 2));
    };
    let (event, ()) = futures::join!(next(&mut events), follow);
    assert_eq!(event, "error frame 410");
    // The frame is not repeated to the next watch.
    assert_next!(events, "init", "listed");
    let follow = async {
        api.wait_for_watches(1).await;
        api.send("MODIFIED", pod("unknown", &[]));
    };
    let (event, ()) = futures::join!(next(&mut events), follow);
    assert_eq!(event, "apply unknown");
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_is_resumed_from_its_last_version() {
    for end in [End::Eof, End::Reset] {
        let api = ScriptedApi::new();
        let mut events = pin!(watcher(pods(&api), watcher::Config::default()));
        assert_next!(events, "init", "listed");
        let follow = async {
            api.wait_for_watches(1).await;
            api.apply(pod("a", &[]));
            api.disconnect(end);
            api.apply(pod("b", &[]));
        };
        let (event, ()) = futures::join!(next(&mut events), follow);
        assert_eq!(event, "apply a");
        if end == End::Reset {
            assert_next!(events, "watch broke");
        }
        assert_next!(events, "apply b");
        assert_eq!(api.requests_of(Kind::List).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_moves_the_version_that_a_watch_goes_on_from() {
    let api = ScriptedApi::new();
    let config = watcher::Config::default().labels("tier=a").timeout(30);
    let mut events = pin!(watcher(pods(&api), config));
    assert_next!(events, "init", "listed");
    let follow = async {
        api.wait_for_watches(1).await;
        api.apply(pod("other", &[]));
        api.send_bookmark();
        api.wait_for_watches(1).await;
        // Without the bookmark the watch would be too old now.
        api.compact();
        api.disconnect(End::Eof);
        api.wait_for_requests(Kind::Watch, 2).await;
        api.apply(pod("mine", &[("tier", "a")]));
    };
    let (event, ()) = futures::join!(next(&mut events), follow);
    assert_eq!(event, "apply mine");
}

#[tokio::test(start_paused = true)]
async fn a_dead_watch_stays_open_beyond_its_time() {
    let api = ScriptedApi::new();
    let from = api.version().to_string();
    let mut frames = pin!(pods(&api).watch(&WatchParams::default().timeout(5), &from).await.unwrap());
    let silence = async {
        api.play_dead();
        api.apply(pod("a", &[]));
        tokio::time::sleep(Duration::from_secs(600)).await;
    };
    tokio::select! {
        biased;
        frame = frames.next() => panic!("the dead speak: {frame:?}"),
        () = silence => {}
    }
    assert_eq!(api.open_watches(), 0);
    let mut frames = pin!(pods(&api).watch(&WatchParams::default(), &from).await.unwrap());
    assert!(matches!(frames.next().await, Some(Ok(WatchEvent::Added(_)))), "a new watch lives");
}

#[tokio::test(start_paused = true)]
async fn a_planned_429_bears_retry_after_and_passes() {
    let api = ScriptedApi::new();
    api.fail_next(Kind::List, 1, Refusal::too_many_requests(7));
    let request = || http::Request::get("/api/v1/pods").body(kube::client::Body::empty()).unwrap();
    let response = api.client().send(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"7".parse().unwrap()));
    assert!(api.client().send(request()).await.unwrap().status().is_success());

    api.fail_next(Kind::List, 1, Refusal::too_many_requests(7));
    let mut events = pin!(watcher(pods(&api), watcher::Config::default()));
    assert_next!(events, "init", "list refused 429", "init", "listed");
}

#[tokio::test(start_paused = true)]
async fn an_expired_continue_token_is_a_410_that_offers_another() {
    let api = ScriptedApi::new();
    for name in ["a", "b", "c"] {
        api.apply(pod(name, &[]));
    }
    api.limit_pages(1);
    let page = pods(&api).list(&ListParams::default().limit(500)).await.unwrap();
    let token = page.metadata.continue_.unwrap();
    api.expire(GoneAs::Frame);
    let next = pods(&api).list(&ListParams::default().continue_token(&token)).await;
    let Err(kube::Error::Api(status)) = next else { panic!("the token is too old") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(status.metadata.unwrap().continue_.is_some());

    let fresh = watcher::Config::default();
    let mut events = pin!(watcher(pods(&api), fresh));
    assert_next!(events, "init", "list a", "list b", "list c", "listed");
}

#[tokio::test(start_paused = true)]
async fn a_lost_permission_refuses_every_request_until_it_is_back() {
    let api = ScriptedApi::new();
    api.apply(pod("a", &[]));
    api.forbid();
    let Err(kube::Error::Api(status)) = pods(&api).list(&ListParams::default()).await else { panic!("forbidden") };
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    assert!(status.message.ends_with("cannot list resource \"pods\" in API group \"\" at the cluster scope"));
    let single = Api::<Pod>::namespaced(api.client(), NAMESPACE);
    assert!(matches!(single.get("a").await, Err(kube::Error::Api(status)) if status.code == 403));
    api.restore();
    assert_eq!(single.get("a").await.unwrap().name_any(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_log_answers_attempt_by_attempt() {
    let api = ScriptedApi::new();
    api.apply(pod("p", &[]));
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    api.set_logs(
        NAMESPACE,
        "p",
        "main",
        vec![
            LogAttempt::Fails(Refusal::container_waits("main", "p", "ContainerCreating").into()),
            LogAttempt::Fails(Failure::Reset),
            LogAttempt::Text(vec![text("half of ")], LogEnd::BreaksOff),
            LogAttempt::Text(vec![text("half of "), text("it\n")], LogEnd::Complete),
        ],
    );
    let api_of_pods = Api::<Pod>::namespaced(api.client(), NAMESPACE);
    let params = LogParams { container: Some("main".to_owned()), ..LogParams::default() };
    let Err(kube::Error::Api(status)) = api_of_pods.logs("p", &params).await else { panic!("it waits") };
    assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"));
    assert_eq!(status.message, "container \"main\" in pod \"p\" is waiting to start: ContainerCreating");
    assert!(matches!(api_of_pods.logs("p", &params).await, Err(kube::Error::Service(_))));
    let mut log = pin!(api_of_pods.log_stream("p", &params).await.unwrap());
    let mut read = Vec::new();
    assert!(log.read_to_end(&mut read).await.is_err());
    assert_eq!(read, b"half of ");
    assert_eq!(api_of_pods.logs("p", &params).await.unwrap(), "half of it\n");
    assert_eq!(api_of_pods.logs("p", &params).await.unwrap(), "half of it\n", "the last attempt repeats");
    let cut = LogParams { limit_bytes: Some(9), ..params.clone() };
    assert_eq!(api_of_pods.logs("p", &cut).await.unwrap(), "half of i");

    let side = LogParams { container: Some("side".to_owned()), ..params.clone() };
    assert_eq!(api_of_pods.logs("p", &side).await.unwrap(), "", "nothing scripted, nothing printed");
    let previous = LogParams { previous: true, ..params };
    assert!(matches!(api_of_pods.logs("p", &previous).await, Err(kube::Error::Api(status)) if status.code == 400));
    api.set_previous_logs(NAMESPACE, "p", "main", log_text("before"));
    assert_eq!(api_of_pods.logs("p", &previous).await.unwrap(), "before");
}

#[tokio::test(start_paused = true)]
async fn a_log_can_hang() {
    let api = ScriptedApi::new();
    api.apply(pod("p", &[]));
    api.set_logs(NAMESPACE, "p", "main", vec![LogAttempt::Text(vec![Bytes::from_static(b"x")], LogEnd::Hangs)]);
    let params = LogParams { container: Some("main".to_owned()), ..LogParams::default() };
    let api_of_pods = Api::<Pod>::namespaced(api.client(), NAMESPACE);
    let begun = Instant::now();
    let read = tokio::time::timeout(Duration::from_secs(60), api_of_pods.logs("p", &params)).await;
    assert!(read.is_err() && begun.elapsed() >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_scripted_is_held_against_the_test() {
    let api = ScriptedApi::new();
    let create = pods(&api).list(&ListParams::default().labels("a")).await;
    assert!(create.is_ok() && api.take_unexpected().is_empty());
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(api.client());
    assert!(nodes.list(&ListParams::default()).await.is_err());
    let timestamps = LogParams { timestamps: true, ..LogParams::default() };
    assert!(Api::<Pod>::namespaced(api.client(), "x").logs("p", &timestamps).await.is_err());
    assert!(Api::<Pod>::namespaced(api.client(), "x").delete("p", &Default::default()).await.is_err());
    let unexpected = api.take_unexpected();
    assert_eq!(
        unexpected,
        [
            "GET /api/v1/nodes?: no such path is scripted",
            "GET /api/v1/namespaces/x/pods/p/log?&timestamps=true: the parameter `timestamps` is not scripted",
            "DELETE /api/v1/namespaces/x/pods/p?: only GET is scripted",
        ]
    );
    let left = std::panic::catch_unwind(|| {
        let api = ScriptedApi::new();
        api.shared.change(|state| state.unexpected.push("GET /x".to_owned()));
        drop(api);
    });
    assert!(left.is_err());
}

#[tokio::test]
async fn the_same_server_listens_on_a_port() {
    let api = ScriptedApi::new();
    let server = api.listen().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    server.write_kubeconfig(&file);
    let kubeconfig = kube::config::Kubeconfig::read_from(&file).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let pods = Api::<Pod>::all(client);
    let from = api.version().to_string();
    let mut frames = pin!(pods.watch(&WatchParams::default(), &from).await.unwrap());
    api.apply(pod("a", &[]));
    let frame = tokio::time::timeout(Duration::from_secs(20), frames.next()).await.unwrap();
    assert!(matches!(frame, Some(Ok(WatchEvent::Added(pod))) if pod.name_any() == "a"));
    api.disconnect(End::Reset);
    let frame = tokio::time::timeout(Duration::from_secs(20), frames.next()).await.unwrap();
    assert!(matches!(frame, Some(Err(_)) | None), "{frame:?}");
    assert!(matches!(pods.list(&ListParams::default()).await, Ok(list) if list.items.len() == 1));
}
