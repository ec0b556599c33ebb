//! A project in a folder of its own, with all that a worker has; and servers that answer what they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::clock::{Clock, Ids};
use flumen_core::flow::store::{Commit, MetaStore, NewRun, Work};
use flumen_core::flow::{
    FlowName, Interval, Lease, Origin, Outcome, Queued, RunId, RunRecord, TaskKey, TaskRun, WorkerId,
};
use flumen_core::{Error, Result};
use flumen_flow::definition::Checker;
use flumen_flow::definition::params::resolve;
use flumen_project::{Environment, Project};
use flumen_store::memory::MemoryStore;
use flumen_worker::host::{Current, FlowsNow, Host, Watcher};
use flumen_worker::kept::Kept;
use flumen_worker::library::{Library, Version};
use flumen_worker::log::Stream;
use flumen_worker::project_flows::ProjectFlows;
use flumen_worker::{execute, kinds};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The start of the interval of all runs, which is a day.
pub fn start() -> DateTime<Utc> {
    "2021-01-05T00:00:00Z".parse().unwrap()
}

/// A clock that stands still, unless it is told to go.
pub struct TestClock(Mutex<DateTime<Utc>>);

impl TestClock {
    pub fn advance(&self, seconds: i64) {
        *self.0.lock().unwrap() += TimeDelta::seconds(seconds);
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }
}

struct TestIds(AtomicU64);

impl Ids for TestIds {
    fn next(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + (1 << 64))
    }
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Seen {
    lines: Mutex<Vec<String>>,
    children: Mutex<Vec<RunId>>,
    printed: tokio::sync::Notify,
}

impl Watcher for Seen {
    fn line(&self, _: &Work, stream: Stream, text: &str) {
        self.lines.lock().unwrap().push(format!("{stream:?} {text}"));
        self.printed.notify_one();
    }

    fn store_fails(&self, error: &Error) {
        self.lines.lock().unwrap().push(format!("store: {error}"));
    }

    fn child(&self, run: RunId) {
        self.children.lock().unwrap().push(run);
    }
}

impl Seen {
    pub fn children(&self) -> Vec<RunId> {
        self.children.lock().unwrap().clone()
    }

    /// Waits until a line like this was printed.
    pub async fn wait_for(&self, line: &str) {
        while !self.lines.lock().unwrap().iter().any(|seen| seen.contains(line)) {
            self.printed.notified().await;
        }
    }
}

/// The flows of the project, as its files are now.
struct Flows {
    project: Arc<Project>,
    library: Arc<Library>,
    store: Arc<MemoryStore>,
}

impl Flows {
    async fn version(&self, name: &str) -> Result<Arc<Version>> {
        let checker = Checker::new(kinds::known());
        let flows = ProjectFlows::read(&self.project, &BTreeSet::new(), &checker)?;
        self.library.keep(flows.flow(name)?, &Default::default(), self.project.dir(), &*self.store, start()).await
    }
}

#[async_trait]
impl FlowsNow for Flows {
    async fn current(&self, flow: &str, deployment: Option<&str>) -> Result<Current> {
        let mut params = Map::new();
        if deployment == Some("green") {
            params.insert("color".to_owned(), "green".into());
        }
        Ok(Current { version: self.version(flow).await?, params })
    }
}

/// A project with a worker's surroundings.
pub struct Fixture {
    folder: tempfile::TempDir,
    pub host: Arc<Host>,
    pub store: Arc<MemoryStore>,
    pub clock: Arc<TestClock>,
    pub seen: Arc<Seen>,
    flows: Arc<Flows>,
}

impl Fixture {
    /// A project with these files, and variables.
    pub fn new(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("flumen.yml"), "").unwrap();
        std::fs::create_dir(folder.path().join("flows")).unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let project = Arc::new(Project::load_with(folder.path(), Environment::of(variables)).unwrap());
        let kept = Kept::new(project.lake().unwrap());
        let library = Arc::new(Library::new(kept.clone(), Default::default()));
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(TestClock(Mutex::new(start() + TimeDelta::days(2))));
        let seen = Arc::new(Seen::default());
        let flows =
            Arc::new(Flows { project: Arc::clone(&project), library: Arc::clone(&library), store: Arc::clone(&store) });
        let host = Arc::new(Host {
            project,
            environment: "main".to_owned(),
            store: Arc::clone(&store) as Arc<dyn MetaStore>,
            library,
            flows: Arc::clone(&flows) as Arc<dyn FlowsNow>,
            kept,
            keeps_runs: false,
            use_cache: true,
            binary: folder.path().join("flumen"),
            interpreters: Arc::default(),
            watchdog: None,
            watcher: Arc::clone(&seen) as Arc<dyn Watcher>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ids: Arc::new(TestIds(AtomicU64::new(1))),
        });
        Self { folder, host, store, clock, seen, flows }
    }

    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A run of the flow `test`, whose tasks are these.
    pub async fn begin(&self, tasks: &str) -> RunRecord {
        self.write("flows/test.yml", &format!("flow: test\ntasks:\n  {}\n", tasks.trim().replace('\n', "\n  ")));
        let run = self.make_run("test", start()).await;
        self.store.run(run).await.unwrap()
    }

    /// A run of a flow, about the day that begins then.
    pub async fn make_run(&self, flow: &str, start: DateTime<Utc>) -> RunId {
        let version = self.flows.version(flow).await.unwrap_or_else(|error| panic!("{error} {:?}", error.remedy()));
        let id = RunId::fresh(self.host.ids.next());
        let new = NewRun {
            id,
            flow: FlowName::from(flow),
            version: version.id.clone(),
            deployment: None,
            interval: Interval { start, end: start + TimeDelta::days(1) },
            params: resolve(&version.compiled.flow.params, &BTreeMap::new()).unwrap().values,
            origin: Origin::Person { name: "ann".to_owned() },
            unique: None,
            start: true,
        };
        self.store.create_runs(&[new], self.clock.now()).await.unwrap();
        id
    }

    /// The work that attempt `attempt` at the task `task` of a run is.
    pub fn work(&self, run: &RunRecord, task: &str, attempt: u32) -> Work {
        let key: TaskKey = task.parse().unwrap();
        let lease = Lease {
            run: run.id,
            key: key.clone(),
            number: u64::from(attempt) * 100,
            worker: WorkerId::from("w1"),
            expires: self.clock.now() + TimeDelta::hours(1),
        };
        let queued =
            Queued { key, attempt, lists: false, item: None, pool: "default".to_owned(), slots: 1, priority: 0 };
        Work { lease, queued, run: run.clone() }
    }

    /// Runs an attempt to its end.
    pub async fn execute(&self, work: &Work) -> Outcome {
        execute(&self.host, work, &CancellationToken::new()).await
    }

    /// Runs the task `one` of a new run of these tasks, and gives what it printed too.
    pub async fn run(&self, tasks: &str) -> (Outcome, Vec<String>) {
        let run = self.begin(tasks).await;
        let outcome = self.execute(&self.work(&run, "one", 1)).await;
        (outcome, self.lines())
    }

    /// The output of the task `one` of a new run of these tasks.
    pub async fn output(&self, tasks: &str) -> Value {
        match self.run(tasks).await {
            (Outcome::Success { output, .. }, _) => output,
            (other, lines) => panic!("{other:?}\n{}", lines.join("\n")),
        }
    }

    /// How the task `one` of a new run of these tasks fails: its kind and its message.
    pub async fn failure(&self, tasks: &str) -> (String, String) {
        match self.run(tasks).await {
            (Outcome::Failure(failure), _) => (failure.kind, failure.message),
            (other, lines) => panic!("{other:?}\n{}", lines.join("\n")),
        }
    }

    /// The lines that were printed since the last time.
    pub fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lines.lock().unwrap())
    }

    /// Writes the state of a run, and of task runs of it, as a scheduler would.
    pub async fn commit(&self, run: RunId, change: impl FnOnce(&mut RunRecord), tasks: Vec<TaskRun>) {
        let loaded = self.store.load(run).await.unwrap();
        let mut commit = Commit::new(loaded.record, loaded.version, self.clock.now());
        commit.read = loaded.inbox.iter().map(|letter| letter.id).collect();
        change(&mut commit.record);
        commit.tasks = tasks;
        self.store.commit(&commit).await.unwrap();
    }

    /// A task run that has begun now.
    pub fn begun(&self, work: &Work) -> TaskRun {
        let mut task = TaskRun::new(work.queued.key.clone(), self.clock.now());
        task.attempt = work.queued.attempt;
        task.began = Some(self.clock.now());
        task
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Attempts leave nothing behind.
        let work = self.dir().join(".flumen/work");
        let left: Vec<_> = std::fs::read_dir(work).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// A request that a test's web server got.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What a test's web server answers.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Whether the connection breaks after the body.
    pub cut: bool,
}

impl Answer {
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self {
            headers: vec![("content-type", "application/json; charset=utf-8".to_owned())],
            ..Self::text(status, body)
        }
    }
}

/// A web server whose answers are a function of the requests.
pub struct WebServer {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl WebServer {
    pub async fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let service = service(Arc::clone(&requests), answer);
        tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            axum::serve(listener, service).with_graceful_shutdown(until).await.unwrap();
        });
        Self { url, requests, _stop: stop }
    }

    /// The same, behind a socket in the file system.
    pub fn start_at(socket: &Path, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let service = service(Arc::clone(&requests), answer);
        tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            axum::serve(listener, service).with_graceful_shutdown(until).await.unwrap();
        });
        Self { url: format!("unix://{}", socket.display()), requests, _stop: stop }
    }

    /// What was asked since the last time.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

/// Answers each request, and keeps it.
fn service(
    requests: Arc<Mutex<Vec<Request>>>,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> axum::Router {
    let answer = Arc::new(answer);
    axum::Router::new().fallback(move |request: axum::extract::Request| {
        let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let headers = parts.headers.iter();
            let request = Request {
                method: parts.method.to_string(),
                path: parts.uri.to_string(),
                headers: headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect(),
                body: String::from_utf8(body.to_vec()).unwrap(),
            };
            let Answer { status, headers, body, cut } = answer(&request);
            requests.lock().unwrap().push(request);
            let mut made = axum::response::Response::builder().status(status);
            for (name, value) in headers {
                made = made.header(name, value);
            }
            let end = cut.then(|| Err(std::io::Error::other("the connection breaks")));
            let pieces = futures::stream::iter(std::iter::once(Ok(body)).chain(end));
            made.body(axum::body::Body::from_stream(pieces)).unwrap()
        }
    })
}
