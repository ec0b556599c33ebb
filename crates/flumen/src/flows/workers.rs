//! Workers and schedulers, as the store knows them: which are there, and which have ended without a word.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::Result;
use flumen_core::clock::Clock;
use flumen_core::flow::WorkerId;
use flumen_core::flow::store::WorkerRecord;
use flumen_worker::presence::{self, BEAT};
use flumen_worker::watchdog;
use tokio_util::sync::CancellationToken;

use super::runtime::{Flowing, machine};
use crate::output::Output;

/// One that was not seen for so long is not there any more.
pub const ABSENT: TimeDelta = TimeDelta::seconds(40);
/// How often a scheduler looks whether the processes of workers are there.
const EVERY: Duration = Duration::from_secs(1);

/// Everybody who is there and not about to end: workers, schedulers, and commands that keep runs for themselves.
///
/// Errors: those of the store.
pub async fn present(flowing: &Flowing, now: DateTime<Utc>) -> Result<Vec<WorkerRecord>> {
    let machine = machine();
    let is_there =
        |worker: &WorkerRecord| !worker.draining && now - worker.seen < ABSENT && !presence::is_gone(worker, &machine);
    Ok(flowing.store.workers().await?.into_iter().filter(is_there).collect())
}

/// Takes back the leases of workers on this machine whose processes are gone: nobody has to wait for their end. So are runs that were
/// kept for somebody who is not heard of any more. Answers with those that had something, and how many leases that were.
///
/// Errors: those of the store.
pub async fn lose_dead(flowing: &Flowing, now: DateTime<Utc>) -> Result<Vec<(WorkerId, usize)>> {
    lose(flowing, now, &mut BTreeSet::new()).await
}

/// Like [`lose_dead`], without those in `known`, to whom those are added that are gone.
async fn lose(flowing: &Flowing, now: DateTime<Utc>, known: &mut BTreeSet<WorkerId>) -> Result<Vec<(WorkerId, usize)>> {
    let machine = machine();
    let mut all = flowing.store.workers().await?;
    all.retain(|worker| !known.contains(&worker.id));
    let (gone, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|worker| presence::is_gone(worker, &machine));
    if !gone.is_empty() {
        // Their tasks must have ended before others begin them again.
        let processes = gone.iter().map(|worker| (worker.process, worker.born)).collect();
        let _ = tokio::task::spawn_blocking(move || watchdog::clear(&processes)).await;
    }
    let silent = rest.into_iter().filter(|worker| worker.commanded && now - worker.seen >= ABSENT);
    let mut lost = Vec::new();
    let gone = gone.into_iter().map(|worker| (worker, "ended without a word"));
    for (worker, what) in gone.chain(silent.map(|worker| (worker, "is not heard of any more"))) {
        let cause = format!("worker {} {what}", worker.id);
        let leases = flowing.store.lose_worker(&worker.id, &cause, now).await?;
        if leases > 0 {
            lost.push((worker.id.clone(), leases));
        }
        known.insert(worker.id);
    }
    Ok(lost)
}

/// Sees within a second when a worker on this machine has died, and lets others begin its tasks, until `stop`.
pub async fn watch_over(flowing: Arc<Flowing>, clock: Arc<dyn Clock>, output: Output, stop: CancellationToken) {
    let mut known = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        // Where the store cannot be used, others say so; then leases end with time.
        for (worker, leases) in lose(&flowing, clock.now(), &mut known).await.unwrap_or_default() {
            let tasks = if leases == 1 { "its task is".to_owned() } else { format!("its {leases} tasks are") };
            output.warning(format_args!("worker {worker} ended without a word: {tasks} begun again"));
        }
    }
}

/// Tells others that a scheduler without a worker is there, until `stop`.
pub async fn tell_of_scheduler(flowing: Arc<Flowing>, id: WorkerId, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let started = clock.now();
    let mut beats = tokio::time::interval(BEAT);
    loop {
        let is_over = tokio::select! {
            () = stop.cancelled() => true,
            _ = beats.tick() => false,
        };
        let record = WorkerRecord {
            schedules: true,
            draining: is_over,
            ..presence::this_process(id.clone(), machine(), started, clock.now())
        };
        // One that is not heard of for a while is not there for others: as it is with all others then.
        let _ = flowing.store.beat(&record).await;
        if is_over {
            return;
        }
    }
}
