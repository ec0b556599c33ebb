//! What holds runs and tasks back that their own events do not tell: who works, what is full, what is paused.

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::Result;
use flumen_core::flow::store::WorkerRecord;
use flumen_core::flow::{RunRecord, RunState, TaskRun, TaskState};

use super::runtime::Flowing;
use super::server;
use crate::output::duration;

/// A worker that was not seen for so long is not there any more.
const ABSENT: TimeDelta = TimeDelta::seconds(60);
/// A worker tells that it is there more often than this.
const QUIET: TimeDelta = TimeDelta::seconds(45);

/// The workers that are there and take work.
///
/// Errors: those of the store.
pub async fn workers(flowing: &Flowing, now: DateTime<Utc>) -> Result<Vec<WorkerRecord>> {
    let workers = flowing.store.workers().await?;
    Ok(workers.into_iter().filter(|worker| !worker.draining && now - worker.seen < ABSENT).collect())
}

/// What holds back a run that has not begun, a sentence each.
///
/// Errors: those of the store.
pub async fn of_run(run: &RunRecord, flowing: &Flowing, now: DateTime<Utc>) -> Result<Vec<String>> {
    let mut said = Vec::new();
    if run.state != RunState::Queued {
        return Ok(said);
    }
    let flow = &run.flow;
    if flowing.store.paused().await?.contains(flow) {
        said.push(format!("Flow '{flow}' is paused: 'flumen flow resume {flow}' lets its runs begin."));
    }
    let active = flowing.store.active_runs(flow).await?;
    let most = flowing.library.version(&run.version, &*flowing.store).await?.compiled.flow.max_active_runs;
    if active >= u64::from(most) {
        said.push(format!("{active} of at most {most} runs of flow '{flow}' are active (max_active_runs)."));
    }
    if server::current(&flowing.project)?.is_none() && workers(flowing, now).await?.is_empty() {
        said.push("Nobody works on this project now: 'flumen up' begins what waits.".to_owned());
    }
    Ok(said)
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
    let mut said = Vec::new();
    let pools = flowing.store.pools().await?;
    if let Some(of) = pools.iter().find(|of| of.pool.name == pool) {
        match of.pool.slots {
            Some(all) if slots > all => said.push(format!(
                "It asks for {slots} slots and pool '{pool}' has {all}: it never begins so; 'flumen pool set {pool} --slots {slots}' makes room."
            )),
            Some(all) => said.push(format!(
                "Of the {all} slots of pool '{pool}' {} are taken, and {} tasks wait for them.",
                of.used, of.queued
            )),
            None => {}
        }
    }
    let there = workers(flowing, now).await?;
    let serving = there.iter().filter(|worker| worker.pools.is_empty() || worker.pools.iter().any(|one| one == pool));
    let (count, room) = serving.fold((0, 0), |(count, room), worker| (count + 1, room + worker.slots));
    said.push(match (there.len(), count) {
        (0, _) => "No worker is there: 'flumen up' or 'flumen worker' starts one.".to_owned(),
        (_, 0) => format!("No worker takes tasks of pool '{pool}': 'flumen worker --pool {pool}' starts one."),
        (_, 1) => format!("One worker, with {room} slots, takes tasks of this pool."),
        (_, many) => format!("{many} workers, with {room} slots together, take tasks of this pool."),
    });
    Ok(said)
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
