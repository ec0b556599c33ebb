//! What holds runs and tasks back that their own events do not tell: who works, what is full, what is paused.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::Result;
use flumen_core::flow::store::WorkerRecord;
use flumen_core::flow::{Ask, RunId, RunRecord, RunState, TaskKey, TaskRun, TaskState, WaitFor};
use flumen_project::Project;

use super::runtime::Flowing;
use super::server::ServerRecord;
use super::{server, show, workers};
use crate::output::duration;

/// A worker tells that it is there more often than this.
const QUIET: TimeDelta = TimeDelta::seconds(20);
/// Waits that are read at once.
const WAITS: usize = 1_000;
/// Bytes without which a disk is full.
const LEAST_ROOM: u64 = 1 << 20;
/// What is said of a full disk.
pub const FULL: &str = "The disk is full: work waits, and goes on by itself when there is room.";

/// A task that waits for a person.
#[derive(Debug)]
pub struct Asked {
    /// Its run.
    pub run: RunId,
    /// The task.
    pub key: TaskKey,
    /// What is asked.
    pub question: String,
}

/// All tasks that wait for a person, the oldest first.
///
/// Errors: those of the store.
pub async fn asked(flowing: &Flowing) -> Result<Vec<Asked>> {
    let (mut asked, mut last) = (Vec::new(), 0);
    loop {
        let page = flowing.store.waits(last, WAITS).await?;
        let is_last = page.len() < WAITS;
        for wait in page {
            last = wait.id;
            if let WaitFor::Person { question } = wait.wait.on {
                asked.push(Asked { run: wait.run, key: wait.key, question });
            }
        }
        if is_last {
            return Ok(asked);
        }
    }
}

/// The workers that are there and take work.
///
/// Errors: those of the store.
pub async fn workers(flowing: &Flowing, now: DateTime<Utc>) -> Result<Vec<WorkerRecord>> {
    let mut there = workers::present(flowing, now).await?;
    there.retain(|worker| worker.slots > 0 && !worker.commanded);
    Ok(there)
}

/// A server that works on the project: one of this folder, else one that the store knows of, on this machine or another.
///
/// Errors: those of the store and of locks.
pub async fn server(flowing: &Flowing, now: DateTime<Utc>) -> Result<Option<ServerRecord>> {
    if let Some(server) = server::current(&flowing.project)? {
        return Ok(Some(server));
    }
    let there = workers::present(flowing, now).await?;
    let scheduler = there.into_iter().find(|worker| worker.schedules);
    Ok(scheduler.map(|worker| ServerRecord {
        process: worker.process,
        version: worker.version,
        addresses: Vec::new(),
        host: Some(worker.host),
    }))
}

/// What holds back a run, a sentence each.
///
/// Errors: those of the store.
pub async fn of_run(run: &RunRecord, flowing: &Flowing, now: DateTime<Utc>) -> Result<Vec<String>> {
    let mut said = Vec::new();
    if run.state == RunState::Running && is_forsaken(flowing, now).await? {
        said.push(format!(
            "Nobody works on it now: 'flumen run resume {}' or 'flumen up' goes on.",
            show::short(run.id)
        ));
    }
    if !run.state.is_terminal() && disk_is_full(&flowing.project) {
        said.push(FULL.to_owned());
    }
    if run.state != RunState::Queued {
        return Ok(said);
    }
    let flow = &run.flow;
    let active = flowing.store.active_runs(flow).await?;
    let most = flowing.library.version(&run.version, &*flowing.store).await?.compiled.flow.max_active_runs;
    if active >= u64::from(most) {
        said.push(format!("{active} of at most {most} runs of flow '{flow}' are active (max_active_runs)."));
    }
    if is_forsaken(flowing, now).await? {
        said.push("Nobody works on this project now: 'flumen up' begins what waits.".to_owned());
    }
    Ok(said)
}

/// What a run waits for now, a sentence each. Where it `is_local`, its worker is one that nobody else knows of.
///
/// Errors: those of the store.
pub async fn of_waiting(run: &RunRecord, is_local: bool, flowing: &Flowing, now: DateTime<Utc>) -> Result<Vec<String>> {
    let mut said = of_run(run, flowing, now).await?;
    if run.state != RunState::Running {
        return Ok(said);
    }
    let version = flowing.library.version(&run.version, &*flowing.store).await?;
    let mut pools: BTreeMap<&str, u32> = BTreeMap::new();
    for task in flowing.store.tasks(run.id).await? {
        let Some(number) = version.graph.number(task.key.task.as_str()) else { continue };
        let node = version.graph.node(number);
        match task.state {
            TaskState::Queued => {
                let most = pools.entry(&node.pool).or_default();
                *most = node.slots.max(*most);
            }
            TaskState::Scheduled if task.asked == Some(Ask::Past) => {
                said.push(format!("Task '{}' waits for itself in the run before (depends_on_past).", task.key))
            }
            _ => {}
        }
    }
    for (pool, slots) in pools {
        let found = in_pool(pool, slots, flowing, now).await?;
        said.extend(found.room.filter(|_| found.is_full));
        said.extend(Some(found.workers).filter(|_| !found.is_served && !is_local));
    }
    Ok(said)
}

/// Whether the disk with the project's folder is full: then nothing is begun and nothing ends until there is room.
pub fn disk_is_full(project: &Project) -> bool {
    // Where it cannot be said, whoever writes will say it.
    free_bytes(project.dir()).is_some_and(|free| free < LEAST_ROOM)
}

/// The free bytes on the disk of a folder, if the system says so.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether no server, worker or command works on the project, as far as can be seen from here.
///
/// Errors: those of the store and of locks.
pub async fn is_forsaken(flowing: &Flowing, now: DateTime<Utc>) -> Result<bool> {
    let project = &flowing.project;
    Ok(server::current(project)?.is_none()
        && !server::is_command_at_work(project)?
        && workers::present(flowing, now).await?.is_empty())
}

/// What holds back a task run of a run, a sentence each. `pool` and `slots` are what it asks for.
///
/// Errors: those of the store.
pub async fn of_task(
    task: &TaskRun,
    pool: &str,
    slots: u32,
    flowing: &Flowing,
    now: DateTime<Utc>,
) -> Result<Vec<String>> {
    match task.state {
        TaskState::Queued => in_queue(pool, slots, flowing, now).await,
        TaskState::Running => Ok(at_work(task, flowing, now).await?.into_iter().collect()),
        _ => Ok(Vec::new()),
    }
}

async fn in_queue(pool: &str, slots: u32, flowing: &Flowing, now: DateTime<Utc>) -> Result<Vec<String>> {
    let InPool { room, workers, .. } = in_pool(pool, slots, flowing, now).await?;
    Ok(room.into_iter().chain([workers]).collect())
}

/// What there is to say of a pool to a task that waits in it.
struct InPool {
    /// Of its slots, if it has so many and no more.
    room: Option<String>,
    is_full: bool,
    /// Of who takes from it.
    workers: String,
    is_served: bool,
}

async fn in_pool(pool: &str, slots: u32, flowing: &Flowing, now: DateTime<Utc>) -> Result<InPool> {
    let (mut said, mut is_full) = (Vec::new(), false);
    let pools = flowing.store.pools().await?;
    if let Some(of) = pools.iter().find(|of| of.pool.name == pool) {
        match of.pool.slots {
            Some(0) => {
                is_full = true;
                said.push(format!(
                    "Pool '{pool}' has no slots: nothing of it begins. 'flumen pool set {pool} --slots {slots}' gives it some."
                ));
            }
            Some(all) => {
                is_full = of.used.saturating_add(slots.min(all)) > all;
                if slots > all {
                    said.push(format!("It asks for {slots} slots, more than there are: it begins when all are free."));
                }
                said.push(format!("Pool '{pool}': slots taken {} of {all}, tasks waiting {}.", of.used, of.queued));
            }
            None => {}
        }
    }
    let there = workers(flowing, now).await?;
    let serving = there.iter().filter(|worker| worker.pools.is_empty() || worker.pools.iter().any(|one| one == pool));
    let (count, room) = serving.fold((0, 0), |(count, room), worker| (count + 1, room + worker.slots));
    let workers = match (there.len(), count) {
        (0, _) => "No worker is there: 'flumen up' or 'flumen worker' starts one.".to_owned(),
        (_, 0) => format!("No worker takes tasks of pool '{pool}': 'flumen worker --pool {pool}' starts one."),
        (_, 1) => format!("One worker takes tasks of this pool, {room} at a time."),
        (_, many) => format!("{many} workers take tasks of this pool, {room} at a time."),
    };
    let room = (!said.is_empty()).then(|| said.join(" "));
    Ok(InPool { room, is_full, workers, is_served: count > 0 })
}

/// What there is to say of the worker of a task that is at work.
async fn at_work(task: &TaskRun, flowing: &Flowing, now: DateTime<Utc>) -> Result<Option<String>> {
    let Some(id) = &task.worker else { return Ok(None) };
    let workers = flowing.store.workers().await?;
    let Some(worker) = workers.iter().find(|worker| worker.id == *id) else { return Ok(None) };
    let quiet = now - worker.seen;
    Ok((quiet > QUIET).then(|| {
        let quiet = duration(quiet.to_std().unwrap_or_default());
        format!(
            "Worker {id} (process {} on {}) was last heard {quiet} ago: when its lease is over, the task is begun anew.",
            worker.process, worker.host
        )
    }))
}
