//! A project with a store, schedulers and a worker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::clock::{Clock, Ids};
use flumen_core::flow::store::{Claim, Held, MetaStore, NewRun, PendingWait, Renewal, RunFilter};
use flumen_core::flow::{
    Answer, Ask, Failure, FlowName, FlowVersion, Interval, Notice, Origin, Outcome, RunId, RunRecord, RunState,
    TaskKey, TriggerRule, Wait,
};
use flumen_core::task_kind::units::Period;
use flumen_core::task_kind::{Path, Uses};
use flumen_core::{Error, Result};
use flumen_flow::compiled::Compiled;
use flumen_flow::definition::params::Resolved;
use flumen_flow::definition::{Catchup, Flow, Hooks, OnOverlap, Retry, RuleSpec, ScheduleSpec, Task};
use flumen_flow::machine::{Graph, Run};
use flumen_scheduler::{Entry, Flows, Looker, News, Notifier, Parts, Roster, Services, Watcher};
use flumen_store::memory::MemoryStore;
use flumen_store::sqlite::SqliteStore;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Midnight of the day on which every test begins.
pub fn first_day() -> DateTime<Utc> {
    "2024-10-04T00:00:00Z".parse().unwrap()
}

/// The time of Tokio, which tests can let pass.
pub struct TokioClock {
    began: tokio::time::Instant,
    first: DateTime<Utc>,
    /// What was added to it.
    ahead: AtomicU64,
}

impl TokioClock {
    pub fn new() -> Self {
        Self { began: tokio::time::Instant::now(), first: first_day(), ahead: AtomicU64::new(0) }
    }

    /// Somebody sets the clock, or the machine was off.
    pub fn jump(&self, by: Duration) {
        self.ahead.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> DateTime<Utc> {
        let ahead = Duration::from_secs(self.ahead.load(Ordering::SeqCst));
        self.first + TimeDelta::from_std(self.began.elapsed() + ahead).unwrap()
    }
}

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Ids for Counter {
    fn next(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::SeqCst)) + 1)
    }
}

/// The flows of the project.
pub struct Project {
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
    changes: watch::Sender<u64>,
}

impl Project {
    fn new() -> Self {
        Self { entries: Mutex::default(), changes: watch::channel(0).0 }
    }

    /// Adds flows and deployments, or changes them.
    pub fn put(&self, entries: impl IntoIterator<Item = Entry>) {
        let added = entries.into_iter().map(|entry| (entry.label(), Arc::new(entry)));
        self.entries.lock().unwrap().extend(added);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes a flow out, as if its file were broken.
    pub fn remove(&self, label: &str) {
        self.entries.lock().unwrap().remove(label);
        self.changes.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Roster for Project {
    fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.lock().unwrap().values().cloned().collect()
    }

    fn find(&self, flow: &FlowName, deployment: Option<&str>) -> Option<Arc<Entry>> {
        let label = deployment.map_or(flow.to_string(), |deployment| format!("{flow}@{deployment}"));
        self.entries.lock().unwrap().get(&label).cloned()
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let changes = self.changes.subscribe();
        futures::stream::unfold(changes, |mut changes| async move {
            changes.changed().await.ok()?;
            Some(((), changes))
        })
        .boxed()
    }

    async fn render(&self, _: &Entry, resolved: Resolved) -> Result<Map<String, Value>> {
        let mut values = resolved.values;
        for name in resolved.templates {
            match values[&name].as_str() {
                Some("{{ broken }}") => return Err(Error::invalid("there is no name 'broken'")),
                text => values.insert(name, Value::from(format!("rendered {}", text.unwrap()))),
            };
        }
        Ok(values)
    }
}

#[async_trait]
impl Flows for Project {
    async fn graph(&self, record: &RunRecord) -> Result<Arc<Graph>> {
        let entry = self.find(&record.flow, record.deployment.as_deref());
        let entry = entry.ok_or_else(|| Error::not_found(format!("there is no flow '{}'", record.flow)))?;
        Ok(Arc::new(entry.flow.graph.clone()))
    }

    async fn answer(&self, _: &Run, _: &Graph, _: &TaskKey, _: Ask) -> Option<Answer> {
        None
    }
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Diary(Mutex<Vec<String>>);

impl Diary {
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Watcher for Diary {
    fn store_fails(&self, error: &Error) {
        self.0.lock().unwrap().push(format!("store: {error}"));
    }
    fn run_fails(&self, _: RunId, error: &Error) {
        self.0.lock().unwrap().push(format!("run: {error}"));
    }
    fn refused(&self, _: RunId, _: Option<&TaskKey>, _: &str) {}
    fn told(&self, news: &News<'_>) {
        self.0.lock().unwrap().push(match news {
            News::FlowFails { flow, error } => format!("{flow} fails: {error}"),
            News::Missed { flow, first, last } => format!("{flow} missed {}..{}", short(*first), short(*last)),
            News::LeftOut { flow, first, last } => format!("{flow} left out {}..{}", short(*first), short(*last)),
            News::LookFails { error, .. } => format!("look fails: {error}"),
            News::Late { notice } => format!("late: {}", notice.cause),
            News::NoticeFails { error, is_last, .. } => format!("notice fails: {error}, last: {is_last}"),
        });
    }
}

/// The start of an interval.
pub fn short(interval: Interval) -> String {
    interval.start.format("%d %H:%M").to_string()
}

/// Looks at a light that is red, green, or broken; and passes notices on while the line stands.
#[derive(Default)]
pub struct Outside {
    /// What the light shows; red is nothing.
    pub light: Mutex<Option<Result<Outcome, String>>>,
    /// Every look: at which wait, and when.
    pub looks: Mutex<Vec<(u64, DateTime<Utc>)>>,
    /// Looks that never end.
    pub hangs: Mutex<BTreeSet<u64>>,
    /// How many deliveries fail from now on.
    pub fails: Mutex<usize>,
    /// Every try: when, and of what.
    pub tries: Mutex<Vec<String>>,
    /// What was passed on.
    pub delivered: Mutex<Vec<Notice>>,
    clock: std::sync::OnceLock<Arc<TokioClock>>,
}

impl Outside {
    fn now(&self) -> DateTime<Utc> {
        self.clock.get().unwrap().now()
    }
}

#[async_trait]
impl Looker for Outside {
    async fn look(&self, wait: &PendingWait) -> Result<Option<Outcome>> {
        self.looks.lock().unwrap().push((wait.id, self.now()));
        let hangs = self.hangs.lock().unwrap().contains(&wait.id);
        if hangs {
            std::future::pending::<()>().await;
        }
        self.light.lock().unwrap().clone().transpose().map_err(Error::unavailable)
    }
}

#[async_trait]
impl Notifier for Outside {
    async fn deliver(&self, notice: &Notice) -> Result<()> {
        self.tries.lock().unwrap().push(self.now().format("%H:%M:%S").to_string());
        let mut fails = self.fails.lock().unwrap();
        if *fails > 0 {
            *fails -= 1;
            return Err(Error::unavailable("the line is dead"));
        }
        self.delivered.lock().unwrap().push(notice.clone());
        Ok(())
    }
}

/// What a worker makes of a run.
#[derive(Clone, Copy, PartialEq)]
pub enum Does {
    Succeed,
    Fail,
    /// Nothing, until it is told to.
    Hold,
}

/// What the worker is to do, and what it has in hand.
pub struct Bench {
    pub does: Mutex<Does>,
    /// The only flow whose runs it holds.
    holds: Mutex<Option<String>>,
    /// The tasks that are held back, those of the earliest interval first.
    held: Mutex<BTreeMap<(DateTime<Utc>, RunId), Held>>,
    /// What tasks of these flows wait for.
    pub waits: Mutex<HashMap<String, Wait>>,
    /// The most runs that were at work at once.
    pub most: Mutex<usize>,
}

pub struct World {
    pub store: Arc<dyn MetaStore>,
    pub clock: Arc<TokioClock>,
    pub project: Arc<Project>,
    pub diary: Arc<Diary>,
    pub outside: Arc<Outside>,
    pub bench: Arc<Bench>,
    pub ids: Arc<Counter>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    pub fn over(store: Arc<dyn MetaStore>) -> Self {
        let bench = Bench {
            does: Mutex::new(Does::Succeed),
            holds: Mutex::default(),
            held: Mutex::default(),
            waits: Mutex::default(),
            most: Mutex::default(),
        };
        let clock = Arc::new(TokioClock::new());
        let outside = Outside { clock: Arc::clone(&clock).into(), ..Outside::default() };
        Self {
            store,
            clock,
            outside: Arc::new(outside),
            project: Arc::new(Project::new()),
            diary: Arc::default(),
            bench: Arc::new(bench),
            ids: Arc::default(),
            _folder: None,
        }
    }

    pub fn in_memory() -> Self {
        Self::over(Arc::new(MemoryStore::new()))
    }

    pub async fn in_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("flumen.db")).await.unwrap();
        Self { _folder: Some(folder), ..Self::over(Arc::new(store)) }
    }

    pub fn parts(&self) -> Parts {
        Parts {
            store: Arc::clone(&self.store),
            flows: Arc::clone(&self.project) as _,
            roster: Arc::clone(&self.project) as _,
            looker: Arc::clone(&self.outside) as _,
            notifier: Arc::clone(&self.outside) as _,
            clock: Arc::clone(&self.clock) as _,
            ids: Arc::clone(&self.ids) as _,
            watcher: Arc::clone(&self.diary) as _,
        }
    }

    /// Starts a scheduler.
    pub fn scheduler(&self) -> Process {
        self.start(self.parts())
    }

    /// Starts a scheduler that sees the store through another.
    pub fn scheduler_over<S: MetaStore + 'static>(&self, store: &Arc<S>) -> Process {
        self.start(Parts { store: Arc::clone(store) as _, ..self.parts() })
    }

    /// Starts a scheduler with parts of its own.
    pub fn start(&self, parts: Parts) -> Process {
        let stop = CancellationToken::new();
        let services = Services::new(parts);
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { services.run(&stop).await }
        });
        Process { stop, task }
    }

    /// Starts the worker.
    pub fn worker(&self) -> Process {
        let (store, clock, bench) = (Arc::clone(&self.store), Arc::clone(&self.clock), Arc::clone(&self.bench));
        let task = tokio::spawn(async move { work(store, clock, bench).await });
        Process { stop: CancellationToken::new(), task }
    }

    /// Lets time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until `condition` holds, which is looked at whenever something is new, and now and then.
    pub async fn until<F: Future<Output = bool>>(&self, mut condition: impl FnMut() -> F) {
        let mut wakes = self.store.wakes();
        while !condition().await {
            drop(tokio::time::timeout(Duration::from_millis(20), wakes.next()).await);
        }
    }

    /// The worker does not end runs of `flow`.
    pub fn hold_only(&self, flow: &str) {
        *self.bench.holds.lock().unwrap() = Some(flow.to_owned());
    }

    /// Ends what the worker has in hand of the oldest run that it holds.
    pub async fn finish_one(&self) {
        let (_, held) = self.bench.held.lock().unwrap().pop_first().unwrap();
        self.store.finish(&held, &Outcome::success(Value::Null), self.clock.now()).await.unwrap();
    }

    /// Somebody runs a flow for the hour `hour` of the first day.
    pub async fn ask(&self, flow: &str, hour: i64) -> RunId {
        let start = first_day() + TimeDelta::hours(hour);
        let new = NewRun {
            id: RunId::new(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{flow}{hour}").as_bytes())),
            flow: flow.into(),
            version: FlowVersion::of(flow.as_bytes()),
            deployment: None,
            interval: Interval { start, end: start + TimeDelta::hours(1) },
            params: Map::new(),
            origin: Origin::Person { name: "ann".to_owned() },
            unique: None,
            start: true,
        };
        self.store.create_runs(std::slice::from_ref(&new), self.clock.now()).await.unwrap();
        new.id
    }

    /// All runs of a flow, oldest first.
    pub async fn runs(&self, flow: &str) -> Vec<RunRecord> {
        let filter = RunFilter { flow: Some(flow.into()), oldest_first: true, ..RunFilter::default() };
        self.store.runs(&filter).await.unwrap()
    }

    /// All runs of a flow, oldest first, as `04 00:00 success`.
    pub async fn said(&self, flow: &str) -> Vec<String> {
        self.runs(flow).await.iter().map(|run| format!("{} {}", short(run.interval), run.state)).collect()
    }

    /// Whether there are `count` runs of the flow, and all have ended.
    pub async fn all_ended(&self, flow: &str, count: usize) -> bool {
        let runs = self.runs(flow).await;
        runs.len() >= count && runs.iter().all(|run| run.state.is_terminal())
    }
}

/// Something that runs, and is killed with its handle.
pub struct Process {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Process {
    /// Asks it to stop, and waits until it has.
    pub async fn end(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn work(store: Arc<dyn MetaStore>, clock: Arc<TokioClock>, bench: Arc<Bench>) {
    let mut wakes = store.wakes();
    loop {
        let now = clock.now();
        let expires = now + TimeDelta::days(10_000);
        let claim = Claim { worker: "w1".into(), pools: Vec::new(), only: Vec::new(), limit: 64, now, expires };
        let claimed = store.claim(&claim).await.unwrap().work;
        for work in &claimed {
            let wait = bench.waits.lock().unwrap().get(work.run.flow.as_str()).cloned();
            if let Some(wait) = wait {
                store.finish(&work.held(), &Outcome::Deferred { wait }, clock.now()).await.unwrap();
                continue;
            }
            let is_held = bench.holds.lock().unwrap().as_deref() == Some(work.run.flow.as_str());
            let outcome = match if is_held { Does::Hold } else { *bench.does.lock().unwrap() } {
                Does::Succeed => {
                    Outcome::Success { output: Value::Null, reads: Vec::new(), writes: written(&work.run) }
                }
                Does::Fail => Outcome::Failure(Failure::new("exit", "it broke")),
                Does::Hold => {
                    let mut held = bench.held.lock().unwrap();
                    held.insert((work.run.interval.start, work.lease.run), work.held());
                    let mut most = bench.most.lock().unwrap();
                    *most = held.len().max(*most);
                    continue;
                }
            };
            store.finish(&work.held(), &outcome, clock.now()).await.unwrap();
        }
        let held: Vec<Held> = bench.held.lock().unwrap().values().cloned().collect();
        let renewals = store.renew(&"w1".into(), &held, expires).await.unwrap();
        for (held, renewal) in held.iter().zip(renewals) {
            if matches!(renewal, Renewal::Stop { .. }) {
                bench.held.lock().unwrap().retain(|_, kept| kept.run != held.run);
                store.finish(held, &Outcome::Cancelled, clock.now()).await.unwrap();
            }
        }
        if claimed.is_empty() && wakes.next().await.is_none() {
            return;
        }
    }
}

/// A flow writes the data set of its name.
fn written(run: &RunRecord) -> Vec<String> {
    vec![format!("lake.{}", run.flow)]
}

/// A schedule by cron.
pub fn cron(text: &str, start: Option<&str>, catchup: Catchup) -> ScheduleSpec {
    ScheduleSpec {
        rules: vec![RuleSpec::Cron(text.to_owned())],
        timezone: "UTC".to_owned(),
        start: start.map(str::to_owned),
        catchup,
        ..ScheduleSpec::default()
    }
}

/// A flow of one task.
pub fn flow(name: &str, schedule: Option<ScheduleSpec>) -> Flow {
    Flow {
        name: name.to_owned(),
        description: None,
        tags: Vec::new(),
        params: Vec::new(),
        schedule,
        max_active_runs: 16,
        on_overlap: OnOverlap::Queue,
        timeout: None,
        deadline: None,
        warn_after: None,
        tasks: vec![task("only")],
        groups: Vec::new(),
        hooks: Hooks::default(),
        file: format!("flows/{name}.yml"),
        warnings: Vec::new(),
        source: String::new(),
    }
}

fn task(id: &str) -> Task {
    Task {
        id: id.to_owned(),
        description: None,
        kind: "shell".to_owned(),
        config: Value::Null,
        needs: Vec::new(),
        trigger_rule: TriggerRule::AllSuccess,
        when: None,
        for_each: None,
        group: None,
        setup: false,
        teardown: None,
        branch: None,
        retry: Retry {
            retries: 0,
            delays: vec![Period(Duration::from_secs(10))],
            backoff: None,
            max_delay: None,
            jitter: 0.0,
            on: Vec::new(),
            not_on: Vec::new(),
            max_infra: 3,
        },
        timeout: None,
        pool: "default".to_owned(),
        pool_slots: 1,
        priority: 0,
        rate: None,
        depends_on_past: false,
        deadline: None,
        warn_after: None,
        cache: None,
        env: BTreeMap::new(),
        memory: None,
        hooks: Hooks::default(),
        given: None,
        uses: Uses::default(),
        path: Path::top(),
    }
}

/// The flow, as the project has it.
pub fn entry(flow: Flow) -> Entry {
    let version = FlowVersion::of(format!("{flow:?}").as_bytes());
    Entry::of(Arc::new(Compiled::new(flow).unwrap()), version)
}

/// Hours.
pub fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3_600)
}

/// Whether no two runs are about the same.
pub fn are_distinct(runs: &[RunRecord]) -> bool {
    runs.iter().map(|run| run.interval).collect::<BTreeSet<_>>().len() == runs.len()
}

/// How many runs have not ended.
pub fn open(runs: &[RunRecord]) -> usize {
    runs.iter().filter(|run| !run.state.is_terminal()).count()
}

/// How many runs have begun and not ended.
pub fn running(runs: &[RunRecord]) -> usize {
    runs.iter().filter(|run| run.state == RunState::Running).count()
}
