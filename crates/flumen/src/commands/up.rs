//! `flumen up`, `flumen scheduler`, `flumen worker`: servers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flumen_core::flow::store::WorkerRecord;
use flumen_core::task_kind::units::Period;
use flumen_core::{Error, Result};
use flumen_project::Changes;
use flumen_worker::worker::Only;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::doors::{Addresses, DoorOptions, Doors, announce};
use crate::flows::history;
use crate::flows::roster::{ProjectRoster, Reading, Watched, not_used};
use crate::flows::runtime::{DRAIN, Flowing, Told, Wishes, WorkerOptions, new_id, services, worker};
use crate::flows::server::{ServerLock, ServerRecord};
use crate::flows::{watching, workers};
use crate::memory;
use crate::output::{Output, Table};

/// Run flows on their schedules: scheduler, worker and doors in one process
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Where it listens for SQL clients is said by 'serve: { pg: ADDRESS, flight: ADDRESS }' in flumen.yml, or by --pg and --flight. Ctrl-C
or SIGTERM lets it drain: no more tasks begin, and those at work may end.

Examples:
  flumen up
  flumen up --slots 32 --pg 127.0.0.1:5439
")]
pub struct UpCommand {
    /// Where Postgres' clients come to; port 0 takes a free one [default: nowhere]
    #[arg(long, value_name = "ADDRESS", help_heading = "Doors")]
    pg: Option<SocketAddr>,
    #[command(flatten)]
    doors: DoorOptions,
    #[command(flatten)]
    worker: Options,
    /// Write the addresses to this file as soon as all is ready; removed at the end
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Make runs of schedules and see to what they wait for; the tasks are left to workers
#[derive(Debug, clap::Args)]
pub struct SchedulerCommand {
    /// Write a line to this file as soon as all is ready; removed at the end
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Do the tasks of runs that schedulers step; list the workers that there are
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WorkerCommand {
    #[command(subcommand)]
    action: Option<WorkerAction>,
    #[command(flatten)]
    worker: Options,
    /// Write a line to this file as soon as all is ready; removed at the end
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum WorkerAction {
    /// The workers that are there, and those that were
    List,
}

/// How a worker works.
#[derive(Debug, clap::Args)]
struct Options {
    /// The pools from which it takes work; several with commas [default: all]
    #[arg(long = "pool", value_name = "POOL", value_delimiter = ',', help_heading = "Worker")]
    pools: Vec<String>,
    /// Tasks at once [default: 8 for each core]
    #[arg(long, value_name = "N", help_heading = "Worker")]
    slots: Option<usize>,
    /// How long a task is held for a worker that is not heard of any more
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Worker")]
    lease: Period,
    /// How long tasks at work may take to end once the worker is to end; then they are stopped, and begun again elsewhere
    #[arg(long, value_name = "TIME", default_value_t = Period(DRAIN), help_heading = "Worker")]
    drain: Period,
}

impl Options {
    fn of(self) -> Result<WorkerOptions> {
        let Period(lease) = self.lease;
        if lease < Duration::from_millis(300) {
            return Err(Error::invalid("--lease is too short").hint("give it a second at least"));
        }
        if self.slots == Some(0) {
            return Err(
                Error::invalid("--slots 0 would do nothing").hint("leave it out, or start only 'flumen scheduler'")
            );
        }
        Ok(WorkerOptions {
            pools: self.pools,
            announced: true,
            schedules: false,
            commanded: false,
            only: Arc::new(Only::default()),
            slots: self.slots,
            lease: Some(lease),
            drain: self.drain.0,
        })
    }
}

impl UpCommand {
    /// Works until it is cancelled, which is its normal end.
    pub async fn run(self, context: &Context) -> Result<()> {
        let project = context.project()?;
        let mut lock = ServerLock::take(&project)?;
        let settings = &project.settings().serve;
        let pg = self.pg.map_or_else(|| address("serve.pg", settings.pg.as_deref()), |pg| Ok(Some(pg)))?;
        let flight =
            self.doors.flight.map_or_else(|| address("serve.flight", settings.flight.as_deref()), |at| Ok(Some(at)))?;
        let doors = match pg.is_some() || flight.is_some() {
            true => Some(self.doors.open(pg, flight, context).await?),
            false => None,
        };
        let addresses = doors.as_ref().map(|doors| doors.addresses.clone()).unwrap_or_default();
        lock.announce(&record(&addresses))?;
        let parts = Parts { scheduler: true, worker: Some(self.worker.of()?), doors };
        let serving = serve(parts, self.ready_file, context);
        let stop = context.cancel.clone();
        let (served, maintained) = tokio::join!(serving, self.doors.maintain(&stop, context));
        served.and(maintained)
    }
}

impl SchedulerCommand {
    /// Works until it is cancelled, which is its normal end.
    pub async fn run(self, context: &Context) -> Result<()> {
        // Another one may work on the project, here or elsewhere.
        let mut lock = ServerLock::take(context.project()?.as_ref()).ok();
        if let Some(lock) = &mut lock {
            lock.announce(&record(&Addresses::default()))?;
        }
        serve(Parts { scheduler: true, worker: None, doors: None }, self.ready_file, context).await
    }
}

impl WorkerCommand {
    /// Works until it is cancelled, which is its normal end.
    pub async fn run(self, context: &Context) -> Result<()> {
        if let Some(WorkerAction::List) = self.action {
            return list(context).await;
        }
        serve(Parts { scheduler: false, worker: Some(self.worker.of()?), doors: None }, self.ready_file, context).await
    }
}

fn address(key: &str, text: Option<&str>) -> Result<Option<SocketAddr>> {
    let parse = |text: &str| {
        text.parse().map_err(|_| {
            Error::invalid(format!("{key}: '{text}' is not an address")).hint("write HOST:PORT, such as 127.0.0.1:5439")
        })
    };
    text.map(parse).transpose()
}

fn record(addresses: &Addresses) -> ServerRecord {
    ServerRecord {
        process: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: addresses.pg.iter().chain(&addresses.flight).cloned().collect(),
        host: None,
    }
}

/// What a server does.
struct Parts {
    scheduler: bool,
    worker: Option<WorkerOptions>,
    doors: Option<Doors>,
}

async fn serve(parts: Parts, ready_file: Option<PathBuf>, context: &Context) -> Result<()> {
    if let Some(stale) = ready_file.as_deref().filter(|path| path.is_file()) {
        std::fs::remove_file(stale).map_err(|error| Error::io(stale.display(), error))?;
    }
    // Queries are faster with much memory at hand.
    let is_sparing = parts.doors.is_none();
    if is_sparing {
        memory::in_small_pages();
    }
    let flowing = Flowing::open(context).await?;
    flowing.apply_pools().await?;
    let stop = context.cancel.clone();
    let host = flowing.host(context, Arc::new(Told::new(context.output)), Wishes::default())?;
    let mut tasks = tokio::task::JoinSet::new();
    // The scheduler ends last: how the tasks ended that the worker still had is for it to see.
    let mut last = tokio::task::JoinSet::new();
    let (stop_last, output) = (CancellationToken::new(), context.output);
    workers::lose_dead(&flowing, context.clock.now()).await?;
    if parts.scheduler {
        let roster = Arc::new(ProjectRoster::new(Arc::clone(&flowing), context));
        tell_reading(context.output, true, roster.read().await);
        let services = services(&host, Arc::clone(&roster) as _, context.output);
        last.spawn({
            let stop = stop_last.clone();
            async move { services.run(&stop).await }
        });
        let stop = stop.clone();
        if let Some(age) = flowing.project.settings().keep_runs {
            let (flowing, roster, clock) = (Arc::clone(&flowing), Arc::clone(&roster), Arc::clone(&context.clock));
            tasks.spawn(history::forget_by_and_by(flowing, roster, age, clock, output, stop.clone()));
        }
        tasks.spawn(async move {
            let told = |told| match told {
                Watched::Read(reading) => tell_reading(output, false, reading),
                Watched::ByLooking(error) => output.warning(error),
            };
            if let Err(error) = roster.watch(&stop, told).await {
                output.warning(error);
                stop.cancelled().await;
            }
        });
    }
    if !parts.scheduler {
        let (project, stop) = (Arc::clone(&flowing.project), stop.clone());
        tasks.spawn(async move {
            if let Err(error) =
                watching::follow_settings(&project, &stop, |changes| tell_settings(output, changes)).await
            {
                output.warning(error);
                stop.cancelled().await;
            }
        });
    }
    let slots = parts.worker.as_ref().map(|options| options.slots.unwrap_or_else(crate::flows::runtime::default_slots));
    if parts.scheduler {
        let (flowing, clock) = (Arc::clone(&flowing), Arc::clone(&context.clock));
        tasks.spawn(workers::watch_over(Arc::clone(&flowing), Arc::clone(&clock), output, stop.clone()));
        if parts.worker.is_none() {
            tasks.spawn(workers::tell_of_scheduler(flowing, new_id(context), clock, stop.clone()));
        }
    }
    if let Some(options) = parts.worker {
        let worker = worker(&host, WorkerOptions { schedules: parts.scheduler, ..options }, context);
        let stop = stop.clone();
        tasks.spawn(async move { worker.run(&stop).await });
    }
    let addresses = parts.doors.as_ref().map(|doors| doors.addresses.clone()).unwrap_or_default();
    let is_open_to_all = parts.doors.as_ref().is_some_and(|doors| doors.is_open_to_all);
    if let Some(doors) = parts.doors {
        let stop = stop.clone();
        tasks.spawn(async move { doors.serve(stop).await });
    }
    if let Some(path) = &ready_file {
        announce(path, &format!("{}ready\n", addresses.lines()))?;
    }
    if is_sparing {
        memory::give_back();
        memory::forget_the_start();
    }
    tell_ready(parts.scheduler, slots, &addresses, is_open_to_all, context)?;
    drained(&mut tasks, &stop, context).await;
    stop_last.cancel();
    while last.join_next().await.is_some() {}
    match &ready_file {
        Some(path) => std::fs::remove_file(path).map_err(|error| Error::io(path.display(), error)),
        None => Ok(()),
    }
}

/// Waits for the end of everything.
async fn drained(tasks: &mut tokio::task::JoinSet<()>, stop: &CancellationToken, context: &Context) {
    stop.cancelled().await;
    let waiting = async { while tasks.join_next().await.is_some() {} };
    tokio::pin!(waiting);
    // What ends at once needs no words.
    if tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err() {
        context.output.note("draining: no more tasks begin, and those at work may end; Ctrl-C once more ends it now");
        waiting.await;
    }
}

fn tell_ready(
    scheduler: bool,
    slots: Option<usize>,
    addresses: &Addresses,
    is_open_to_all: bool,
    context: &Context,
) -> Result<()> {
    let output = &context.output;
    if output.json {
        return output.json(&json!({ "scheduler": scheduler, "slots": slots, "doors": addresses.json() }));
    }
    let mut parts = Vec::new();
    if scheduler {
        parts.push("scheduler".to_owned());
    }
    parts.extend(slots.map(|slots| format!("worker with {slots} slots")));
    output.note(format_args!("ready: {}; Ctrl-C ends it", parts.join(", ")));
    let lines = addresses.lines();
    if !lines.is_empty() {
        output.line(lines.trim_end())?;
    }
    if is_open_to_all {
        output.note("there are no users: nobody has to log in, and only this computer is listened to");
    }
    Ok(())
}

/// Tells what became of the project's settings.
fn tell_settings(output: Output, changes: Result<Changes>) {
    match changes {
        Ok(changes) if changes.files.is_empty() => {}
        Ok(changes) => {
            output.note(format_args!("read again: {}", changes.files.join(", ")));
            if let Some(text) = not_used(&changes) {
                output.warning(text);
            }
        }
        Err(error) => output.warning(error),
    }
}

/// Tells what became of the flows' files.
fn tell_reading(output: Output, is_first: bool, reading: Result<Reading>) {
    match reading {
        Ok(reading) => {
            for problem in &reading.problems {
                output.warning(problem);
            }
            if !is_first && !reading.changed.is_empty() {
                output.note(format_args!("read again: {}", reading.changed.join(", ")));
            }
        }
        Err(error) => output.warning(format_args!("the flows could not be read: {error}")),
    }
}

async fn list(context: &Context) -> Result<()> {
    let flowing = Flowing::open(context).await?;
    let mut workers: Vec<WorkerRecord> = flowing.store.workers().await?;
    // Schedulers and commands are not told of here.
    workers.retain(|worker| worker.slots > 0 && !worker.commanded);
    if context.output.json {
        return context.output.json(&workers);
    }
    if workers.is_empty() {
        context.output.note("no worker was ever here: 'flumen up' starts one");
        return Ok(());
    }
    let now = context.clock.now();
    let mut table = Table::new(["worker", "host", "pools", "slots", "version", "seen"]);
    for worker in workers {
        let ago = crate::output::duration((now - worker.seen).to_std().unwrap_or_default());
        let state = if worker.draining { " (ending)" } else { "" };
        table.row([
            worker.id.to_string(),
            worker.host,
            if worker.pools.is_empty() { "all".to_owned() } else { worker.pools.join(", ") },
            worker.slots.to_string(),
            worker.version,
            format!("{ago} ago{state}"),
        ]);
    }
    context.output.table(&table)
}
