//! podherald in this process, over any `kube::Client`: watch, mapper, collector, journal and routes are the real ones, and all
//! of them go by tokio's clock.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use podherald::{
    app::{Cluster, Seams, Server, Wrap},
    clock::Clock,
    config::Config,
    http::{Access, Options},
    lock::{Acquired, DataDir},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::sleep,
};
use tower::ServiceExt;

/// Time in which everything is done that waits for nothing; less than any delay that is tested.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);

/// A data directory, and podherald on it unless it is dead.
pub(crate) struct Inside {
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) clock: Arc<dyn Clock>,
    directory: TempDir,
    running: Option<Running>,
}

struct Running {
    router: Router,
    tasks: JoinSet<()>,
    data_dir: DataDir,
}

impl Inside {
    /// Nothing runs yet. The settings are those of `podherald.toml`, key by key.
    pub(crate) fn new(clock: Arc<dyn Clock>, settings: &[(&str, &str)]) -> Self {
        // In memory where the machine has it: what is tested here is not the disk.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { settings, clock, directory: directory.unwrap(), running: None }
    }

    /// Starts podherald on the data directory and says how many watches it will have.
    pub(crate) async fn launch(&mut self, client: kube::Client, journal: Wrap) -> usize {
        let data_dir = own(self.directory.path()).await;
        let settings: Vec<_> = self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let config = Config::of(&settings).unwrap();
        let access = Access::of("127.0.0.1:0".parse().unwrap(), false, &[]).unwrap();
        let seams = Seams { cluster: Cluster::Client(client), clock: self.clock.clone(), journal };
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

    /// True if podherald runs.
    pub(crate) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// True if a second podherald on this data directory would have to wait.
    pub(crate) fn is_owned(&self) -> bool {
        matches!(DataDir::acquire(self.directory.path()), Ok(Acquired::Busy))
    }

    /// The answer to a request with these headers.
    pub(crate) async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let router = self.running.as_ref().expect("podherald runs").router.clone();
        let request = Request::get(path).header("host", "localhost");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// The status and JSON of a GET.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.ask(path, &[]).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// The status and text of a GET.
    pub(crate) async fn text(&self, path: &str) -> (StatusCode, String) {
        let response = self.ask(path, &[]).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Directories of outputs, each of one attempt or one pod.
    pub(crate) fn output_directories(&self) -> usize {
        let list = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let executions = list(&self.directory.path().join("output")).filter(|path| !path.ends_with("unfinished"));
        executions.map(|execution| list(&execution).count()).sum()
    }

    /// Takes the journal away from a podherald that is dead.
    pub(crate) fn lose_journal(&self) {
        for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
            let _ = std::fs::remove_file(self.directory.path().join(name));
        }
    }

    /// The disk loses what programs printed, while podherald goes on.
    pub(crate) fn lose_outputs(&self) {
        let output = self.directory.path().join("output");
        for entry in std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path()) {
            let files = std::fs::read_dir(&entry).unwrap().map(|entry| entry.unwrap().path());
            // The lists of blobs stay.
            files.filter(|path| path.is_dir()).for_each(|path| std::fs::remove_dir_all(path).unwrap());
        }
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
                None => {
                    crate::contract::assert_exact(&events);
                    return events;
                }
            }
        }
    }

    /// The execution as it is now; null if nobody knows it.
    pub(crate) async fn execution(&self, id: &str) -> Value {
        match self.get(&format!("/executions/{id}")).await {
            (StatusCode::OK, execution) => execution,
            _ => Value::Null,
        }
    }

    /// A gauge's value.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        let bytes = self.ask("/metrics", &[]).await.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
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
