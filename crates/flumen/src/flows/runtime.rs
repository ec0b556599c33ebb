//! Scheduler and worker, put together in this process.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use flumen_core::clock::Clock;
use flumen_core::flow::store::{MetaStore, PendingWait, Pool, Rate, Work};
use flumen_core::flow::{Answer, Ask, Interval, Notice, Outcome, RunId, RunRecord, TaskKey, WorkerId};
use flumen_core::{Error, Result};
use flumen_flow::definition::params::ParamType;
use flumen_flow::definition::{Checker, Deployment};
use flumen_flow::machine::{Graph, Run};
use flumen_project::Project;
use flumen_scheduler::{Flows, Looker, News, Notifier, Parts, Roster, Services};
use flumen_worker::host::{Current, FlowsNow, Host};
use flumen_worker::kept::Kept;
use flumen_worker::library::{Library, Variant};
use flumen_worker::log::{Masks, Stream};
use flumen_worker::project_flows::{ProjectFlows, check_deployment, project_hooks};
use flumen_worker::templates::secrets_of;
use flumen_worker::watchdog::Watchdog;
use flumen_worker::worker::{LEASE, Only, Settings, Worker};
use flumen_worker::{answers, kinds};
use tokio_util::sync::CancellationToken;

use super::roster::FixedRoster;
use super::server::CommandLock;
use super::workers;
use crate::context::Context;
use crate::metadata;
use crate::output::Output;

/// Attempts at once, for each core; they wait more than they compute.
const SLOTS_PER_CORE: usize = 8;
/// How long attempts may go on once the process is to end.
pub const DRAIN: Duration = Duration::from_secs(30);

/// What commands about flows work with.
pub struct Flowing {
    /// The project.
    pub project: Arc<Project>,
    /// Where runs are kept.
    pub store: Arc<dyn MetaStore>,
    /// Where logs are kept.
    pub kept: Kept,
    /// Versions of flows.
    pub library: Arc<Library>,
    checker: Checker,
}

impl Flowing {
    /// Opens what a project has.
    ///
    /// Errors: `NotFound` outside a project; those of the store.
    pub async fn open(context: &Context) -> Result<Arc<Self>> {
        let project = context.project()?;
        let store = metadata::runs(&project).await?;
        Self::over(project, store)
    }

    /// Opens what a project has, for commands that only look at its files: these do without a database.
    ///
    /// Errors: `NotFound` outside a project.
    pub async fn open_files(context: &Context) -> Result<Arc<Self>> {
        let project = context.project()?;
        let store = metadata::runs_if_any(&project).await;
        Self::over(project, store)
    }

    fn over(project: Arc<Project>, store: Arc<dyn MetaStore>) -> Result<Arc<Self>> {
        let kept = Kept::new(project.lake()?);
        let checker = Checker::new(kinds::known());
        let library = Arc::new(Library::new(kept.clone(), project_hooks(&project, &checker)));
        Ok(Arc::new(Self { project, store, kept, library, checker }))
    }

    /// The flows of the project as they are now.
    ///
    /// Errors: those of the folder and of the store.
    pub async fn flows(&self) -> Result<ProjectFlows> {
        self.read_variables().await?;
        let pools: BTreeSet<String> = self.store.pools().await?.into_iter().map(|pool| pool.pool.name).collect();
        ProjectFlows::read(&self.project, &pools, &self.checker)
    }

    /// Reads the variables that the store has: templates have them from then on.
    ///
    /// Errors: those of the store.
    pub async fn read_variables(&self) -> Result<()> {
        self.project.keep_variables(self.store.variables().await?);
        Ok(())
    }

    /// A deployment that is about to be written, checked.
    ///
    /// Errors: its mistakes; those of the store.
    pub async fn check_deployment(&self, file: &str, text: &str) -> Result<Deployment> {
        self.read_variables().await?;
        let pools: BTreeSet<String> = self.store.pools().await?.into_iter().map(|pool| pool.pool.name).collect();
        check_deployment(&self.project, &pools, &self.checker, file, text)
    }

    /// Makes the pools that `flumen.yml` names what it says.
    ///
    /// Errors: `Invalid` for a rate that cannot be read; those of the store.
    pub async fn apply_pools(&self) -> Result<()> {
        let known = self.store.pools().await?;
        for (name, settings) in &self.project.settings().pools {
            let rate = settings
                .rate
                .as_deref()
                .map(rate)
                .transpose()
                .map_err(|error| error.within(format!("pools.{name}")))?;
            let pool = Pool { name: name.clone(), slots: settings.slots, rate };
            if known.iter().all(|known| known.pool != pool) {
                self.store.save_pool(&pool).await?;
            }
        }
        Ok(())
    }

    /// The parameters of a run that are never shown.
    pub async fn secret_params(&self, run: &RunRecord) -> Vec<String> {
        match self.library.version(&run.version, &*self.store).await {
            Ok(version) => {
                let params = version.compiled.flow.params.iter();
                params.filter(|spec| spec.kind == ParamType::Secret).map(|spec| spec.name.clone()).collect()
            }
            // Which of them are secrets cannot be known any more.
            Err(_) => run.params.keys().cloned().collect(),
        }
    }

    /// Masks the secrets of a run in what is shown of it.
    pub async fn masks(&self, run: &RunRecord, now: DateTime<Utc>) -> Masks {
        match self.library.version(&run.version, &*self.store).await {
            Ok(version) => Masks::new(secrets_of(&self.project, run, &version, now).iter().map(String::as_str)),
            Err(_) => Masks::default(),
        }
    }

    /// What attempts share, for a worker in this process.
    ///
    /// Errors: those of starting the process that watches over it.
    pub fn host(
        self: &Arc<Self>,
        context: &Context,
        watcher: Arc<dyn flumen_worker::host::Watcher>,
        wishes: Wishes,
    ) -> Result<Arc<Host>> {
        let binary = std::env::current_exe().map_err(|error| Error::io("this program", error))?;
        Ok(Arc::new(Host {
            project: Arc::clone(&self.project),
            environment: context.environment.clone(),
            store: Arc::clone(&self.store),
            library: Arc::clone(&self.library),
            flows: Arc::new(Now { flowing: Arc::clone(self), clock: Arc::clone(&context.clock) }),
            kept: self.kept.clone(),
            use_cache: !wishes.no_cache,
            keeps_runs: wishes.keeps_runs,
            watchdog: Some(Arc::new(Watchdog::start(&binary)?)),
            binary,
            interpreters: Arc::default(),
            watcher,
            clock: Arc::clone(&context.clock),
            ids: Arc::clone(&context.ids),
        }))
    }
}

/// How a command wants its runs to be done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// Without outputs that there are already.
    pub no_cache: bool,
    /// In this process: no other worker is given their tasks.
    pub keeps_runs: bool,
}

/// How often something may begin: `10/min`, `100/1h`.
pub fn rate(text: &str) -> Result<Rate> {
    let wrong = || Error::invalid(format!("'{text}' is not a rate")).hint("write for example 10/min or 100/1h");
    let (count, per) = text.split_once('/').ok_or_else(wrong)?;
    let count = count.trim().parse().map_err(|_| wrong())?;
    let per = per.trim();
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
    let per: flumen_core::task_kind::units::Period = per.parse().map_err(|_| wrong())?;
    Ok(Rate { count, per: per.0 })
}

/// Attempts at once, unless told otherwise.
pub fn default_slots() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) * SLOTS_PER_CORE
}

/// What a worker in this process is.
pub struct WorkerOptions {
    /// The pools from which it takes work; all, where none is named.
    pub pools: Vec<String>,
    /// The runs of which it takes work; all, where none is named.
    pub only: Arc<Only>,
    /// Whether others are told that it is there.
    pub announced: bool,
    /// Whether this process is a scheduler too.
    pub schedules: bool,
    /// Whether it works for a command, on the runs of that alone.
    pub commanded: bool,
    /// Attempts at once.
    pub slots: Option<usize>,
    /// How long a lease holds.
    pub lease: Option<Duration>,
    /// How long attempts may go on once it is to end.
    pub drain: Duration,
}

/// The name of this machine.
pub fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The name of a worker or a scheduler in this process, which no other has.
pub fn new_id(context: &Context) -> WorkerId {
    // The end of an id is what differs between processes of one moment.
    let id = context.ids.next().simple().to_string();
    WorkerId::from(format!("{}-{}-{}", machine(), std::process::id(), &id[id.len() - 6..]))
}

/// A worker on `host`.
pub fn worker(host: &Arc<Host>, options: WorkerOptions, context: &Context) -> Worker {
    let settings = Settings {
        id: new_id(context),
        host: machine(),
        schedules: options.schedules,
        commanded: options.commanded,
        pools: options.pools,
        announced: options.announced,
        only: options.only,
        slots: options.slots.unwrap_or_else(default_slots),
        lease: options.lease.unwrap_or(LEASE),
        drain: options.drain,
    };
    Worker::new(Arc::clone(host), settings)
}

/// What a scheduler does, on `host`.
pub fn services(host: &Arc<Host>, roster: Arc<dyn Roster>, output: Output) -> Services {
    Services::new(Parts {
        store: Arc::clone(&host.store),
        flows: Arc::new(Stepping(Arc::clone(host))),
        roster,
        looker: Arc::new(Stepping(Arc::clone(host))),
        notifier: Arc::new(Stepping(Arc::clone(host))),
        clock: Arc::clone(&host.clock),
        ids: Arc::clone(&host.ids),
        watcher: Arc::new(Told::new(output)),
    })
}

/// The flows of the project as they are now, for tasks that start others.
struct Now {
    flowing: Arc<Flowing>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl FlowsNow for Now {
    async fn current(&self, flow: &str, deployment: Option<&str>) -> Result<Current> {
        let flowing = &self.flowing;
        let flows = flowing.flows().await?;
        let deployment = deployment.map(|name| flows.deployment(name)).transpose()?;
        if let Some(other) = deployment.filter(|deployment| deployment.flow != flow) {
            return Err(Error::invalid(format!(
                "deployment '{}' is one of flow '{}', not of '{flow}'",
                other.name, other.flow
            )));
        }
        let pool = deployment.and_then(|deployment| deployment.pool.clone());
        let variant = Variant { pool, ..Variant::default() };
        let version =
            flowing.library.keep(flows.flow(flow)?, &variant, flowing.project.dir(), &*flowing.store, self.clock.now());
        let params = deployment.map(|deployment| deployment.params.clone()).unwrap_or_default();
        Ok(Current { version: version.await?, params })
    }
}

/// What a scheduler asks about flows, answered by a host.
struct Stepping(Arc<Host>);

#[async_trait]
impl Flows for Stepping {
    async fn graph(&self, record: &RunRecord) -> Result<Arc<Graph>> {
        answers::graph(&self.0, record).await
    }

    async fn answer(&self, run: &Run, graph: &Graph, key: &TaskKey, ask: Ask) -> Option<Answer> {
        answers::answer(&self.0, run, graph, key, ask).await
    }
}

#[async_trait]
impl Looker for Stepping {
    async fn look(&self, wait: &PendingWait) -> Result<Option<Outcome>> {
        flumen_worker::look(&self.0, wait).await
    }
}

#[async_trait]
impl Notifier for Stepping {
    async fn deliver(&self, notice: &Notice) -> Result<()> {
        flumen_worker::hooks::deliver(&self.0, notice).await
    }
}

/// From the start of the first interval to that of the last.
fn stretch(first: &Interval, last: &Interval) -> String {
    match first == last {
        true => super::show::interval(first),
        false => format!("{} … {}", super::show::interval(first), super::show::interval(last)),
    }
}

/// Tells a person what goes wrong, each thing once in a row.
pub struct Told {
    output: Output,
    last: Mutex<String>,
}

impl Told {
    /// Tells it by `output`.
    pub fn new(output: Output) -> Self {
        Self { output, last: Mutex::new(String::new()) }
    }

    fn tell(&self, text: String) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != text {
            self.output.warning(&text);
            *last = text;
        }
    }
}

impl flumen_scheduler::Watcher for Told {
    fn store_fails(&self, error: &Error) {
        self.tell(format!("runs wait: {error}"));
    }

    fn run_fails(&self, run: RunId, error: &Error) {
        self.tell(format!("run {run} cannot go on: {error}"));
    }

    fn refused(&self, run: RunId, task: Option<&TaskKey>, cause: &str) {
        match task {
            Some(task) => self.output.detail(format_args!("run {run}, task {task}: {cause}")),
            None => self.output.detail(format_args!("run {run}: {cause}")),
        }
    }

    fn told(&self, news: &News<'_>) {
        let run = |run: RunId| super::show::short(run);
        match news {
            News::FlowFails { flow, error } => self.tell(format!("no run of flow '{flow}' can be made: {error}")),
            News::Missed { flow, first, last } => self.output.note(format_args!(
                "flow '{flow}': intervals were missed and are not run, as its catchup says: {}",
                stretch(first, last)
            )),
            News::LeftOut { flow, first, last } => self.output.note(format_args!(
                "flow '{flow}': intervals are left out, since max_active_runs are active (on_overlap: skip): {}",
                stretch(first, last)
            )),
            News::LookFails { wait, error } => self.tell(format!(
                "run {}, task {}: what it waits for cannot be looked at: {error}",
                run(wait.run),
                wait.key
            )),
            News::Late { notice } => {
                let of = notice.occasion.key().map(|key| format!(", task {key}")).unwrap_or_default();
                self.output.warning(format_args!("run {}{of}: {}", run(notice.run), notice.cause));
            }
            News::NoticeFails { notice, error, is_last } => {
                let what = if *is_last { "is given up" } else { "is tried again" };
                self.tell(format!("run {}: a hook cannot be begun and {what}: {error}", run(notice.run)));
            }
        }
    }
}

impl flumen_worker::host::Watcher for Told {
    fn line(&self, _: &Work, _: Stream, _: &str) {}

    fn store_fails(&self, error: &Error) {
        self.tell(format!("work waits: {error}"));
    }

    fn child(&self, _: RunId) {}
}

/// Works on the runs that `only` names until `work` has ended; then the worker drains. Runs of schedules are not made.
pub async fn with_local<T>(
    host: &Arc<Host>,
    only: Arc<Only>,
    slots: Option<usize>,
    flowing: &Arc<Flowing>,
    context: &Context,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let _lock = CommandLock::take(&flowing.project)?;
    let roster = Arc::new(FixedRoster::new(flowing.flows().await?, flowing, context));
    let services = services(host, roster, context.output);
    let keeps_runs = host.keeps_runs;
    let options = WorkerOptions {
        pools: Vec::new(),
        only: Arc::clone(&only),
        announced: keeps_runs,
        schedules: false,
        commanded: true,
        slots,
        lease: None,
        drain: DRAIN,
    };
    let worker = worker(host, options, context);
    let id = worker.id().clone();
    // What a command kept for itself that was killed is everybody's.
    workers::lose_dead(flowing, context.clock.now()).await?;
    if keeps_runs {
        // Who keeps runs is known before: others can tell when they are to be let go of.
        worker.announce().await?;
        flowing.store.keep_for(&id, &only.runs()).await?;
    }
    let stop = CancellationToken::new();
    let scheduling = tokio::spawn({
        let stop = stop.clone();
        async move { services.run_on_runs(&stop).await }
    });
    let working = tokio::spawn({
        let stop = stop.clone();
        async move { worker.run(&stop).await }
    });
    let result = work.await;
    stop.cancel();
    // What they wanted to do is in the store.
    let ending = async { tokio::join!(scheduling, working) };
    tokio::pin!(ending);
    if tokio::time::timeout(Duration::from_secs(1), &mut ending).await.is_err() {
        context.output.note("hooks and tasks are at work still");
        let _ = ending.await;
    }
    if keeps_runs {
        flowing.store.lose_worker(&id, "the command has ended", context.clock.now()).await?;
    }
    result
}
