//! podherald in this process, over a scripted API server: kube's client, watch, mapper, collector, journal and routes are
//! the real ones, and all of them go by tokio's clock.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use futures::stream;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use podherald::{
    app::{Seams, Server},
    clock::{Clock, TokioClock},
    config::Config,
    http::{Access, Options},
    lock::{Acquired, DataDir},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};
use tower::ServiceExt;

use crate::{
    faulty_journal::{Faults, FaultyJournal},
    scripted_api::ScriptedApi,
};

/// Time in which everything is done that waits for nothing; less than any delay that is tested.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);

/// A cluster, a data directory, and podherald unless it is dead.
pub(crate) struct World {
    pub(crate) api: ScriptedApi,
    pub(crate) faults: Faults,
    settings: Vec<(String, String)>,
    clock: Arc<dyn Clock>,
    directory: TempDir,
    running: Option<Running>,
}

struct Running {
    router: Router,
    tasks: JoinSet<()>,
    data_dir: DataDir,
}

impl World {
    /// Nothing runs yet. The clock shows `begin`; the settings are those of `podherald.toml`, key by key.
    pub(crate) fn new(begin: &str, settings: &[(&str, &str)]) -> Self {
        let begin: Timestamp = begin.parse().unwrap();
        // In memory where the machine has it: what is tested here is not the disk.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Self {
            api: ScriptedApi::new(),
            faults: Faults::default(),
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            clock: Arc::new(TokioClock::starting_at(begin)),
            directory: directory.unwrap(),
            running: None,
        }
    }

    /// Starts podherald on the data directory, and waits until its watches are open.
    pub(crate) async fn start(&mut self) {
        let watches = self.launch().await;
        self.api.wait_for_watches(watches).await;
    }

    /// Starts podherald and says how many watches it will have.
    pub(crate) async fn launch(&mut self) -> usize {
        let data_dir = own(self.directory.path()).await;
        let settings: Vec<_> = self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let config = Config::of(&settings).unwrap();
        let access = Access::of("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let faults = self.faults.clone();
        let seams = Seams {
            client: self.api.client(),
            clock: self.clock.clone(),
            journal: Box::new(|inner| Arc::new(FaultyJournal { inner, faults })),
        };
        let watches = config.kube.label_selectors.len() * config.kube.namespaces.len().max(1);
        let server = Server::compose(&config, Options::new(access), data_dir.path(), seams).await.unwrap();
        let router = server.router();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { server.run(None, stream::pending()).await.unwrap() });
        self.running = Some(Running { router, tasks, data_dir });
        watches
    }

    /// Ends podherald as a kill does: nothing is drained, nothing said.
    pub(crate) async fn kill(&mut self) {
        let Running { router, mut tasks, data_dir } = self.running.take().expect("podherald runs");
        tasks.shutdown().await;
        drop((router, data_dir));
        // Commits that were under way end by themselves, as they do in a disk's cache.
        sleep(MOMENT).await;
    }

    /// True if a second podherald on this data directory would have to wait.
    pub(crate) fn is_owned(&self) -> bool {
        matches!(DataDir::acquire(self.directory.path()), Ok(Acquired::Busy))
    }

    /// The status and JSON of a GET.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let router = self.running.as_ref().expect("podherald runs").router.clone();
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// All events so far, page by page.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let mut events = Vec::new();
        let mut path = "/events?limit=500".to_owned();
        loop {
            let (status, page) = self.get(&path).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            events.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => path = format!("/events?limit=500&after={next}"),
                None => return events,
            }
        }
    }

    /// Lets everything happen that waits for nothing.
    pub(crate) async fn settle(&self) {
        self.api.wait_for_watches(1).await;
        sleep(MOMENT).await;
    }

    /// The execution as it is now; null if nobody knows it.
    pub(crate) async fn execution(&self, id: &str) -> Value {
        match self.get(&format!("/executions/{id}")).await {
            (StatusCode::OK, execution) => execution,
            _ => Value::Null,
        }
    }

    /// The execution's status within `limit` of tokio's time, as soon as it is this.
    pub(crate) async fn until(&self, id: &str, status: &str, limit: Duration) -> Value {
        let begun = Instant::now();
        loop {
            let execution = self.execution(id).await;
            if execution["status"] == status {
                return execution;
            }
            assert!(begun.elapsed() < limit, "{id} is not {status} after {limit:?}: {execution}");
            sleep(MOMENT).await;
        }
    }

    /// What is wrong with a role; none if it is ready.
    pub(crate) async fn problem(&self, role: &str) -> Option<String> {
        match self.get(&format!("/readyz?role={role}")).await {
            (StatusCode::OK, _) => None,
            (_, problem) => Some(problem.to_string()),
        }
    }
}

/// Takes the data directory. Another test that is just starting a process holds a copy of our last lock until its exec.
async fn own(path: &Path) -> DataDir {
    for _ in 0..10_000 {
        match DataDir::acquire(path).unwrap() {
            Acquired::Owned(data_dir) => return data_dir,
            // Real time has to pass, and the paused clock must not.
            Acquired::Busy => spawn_blocking(std::thread::yield_now).await.unwrap(),
        }
    }
    panic!("somebody else has the data directory {}", path.display())
}
