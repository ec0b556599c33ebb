//! A store that fails, and one that counts what is asked of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::*;
use flumen_core::flow::*;
use flumen_core::{Error, Result};
use flumen_flow::definition::{Catchup, DatasetRule, Flow, ScheduleSpec};
use flumen_store::memory::MemoryStore;
use futures::stream::BoxStream;

use crate::world::*;

const MOMENT: Duration = Duration::from_secs(1);

/// What stands before a store.
#[derive(Default)]
pub struct Gate {
    /// Nothing passes.
    closed: AtomicBool,
    /// One in so many calls fails, where it is not 0.
    every: AtomicU64,
    count: AtomicU64,
    /// How often each call was made.
    calls: Mutex<BTreeMap<&'static str, u64>>,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Passes,
    /// It is not carried out.
    Lost,
    /// It is carried out, and the answer is lost.
    Unanswered,
}

impl Gate {
    fn fate(&self, call: &'static str) -> Fate {
        *self.calls.lock().unwrap().entry(call).or_default() += 1;
        let every = self.every.load(Ordering::SeqCst);
        // As good as random, and always the same.
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        if self.closed.load(Ordering::SeqCst) {
            return Fate::Lost;
        }
        match every > 0 && (mixed >> 1).is_multiple_of(every) {
            false => Fate::Passes,
            true if mixed & 1 == 0 => Fate::Lost,
            true => Fate::Unanswered,
        }
    }
}

fn away() -> Error {
    Error::unavailable("the store is away")
}

struct Gated {
    store: Arc<MemoryStore>,
    gate: Gate,
}

macro_rules! gated {
    ($($call:ident($($name:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl MetaStore for Gated {
            $(async fn $call(&self, $($name: $type),*) -> Result<$out> {
                let fate = self.gate.fate(stringify!($call));
                if fate == Fate::Lost {
                    return Err(away());
                }
                let result = self.store.$call($($name),*).await;
                if fate == Fate::Unanswered { Err(away()) } else { result }
            })*

            fn wakes(&self) -> BoxStream<'static, Wake> {
                self.store.wakes()
            }
        }
    };
}

gated! {
    create_runs(runs: &[NewRun], now: DateTime<Utc>) -> Vec<Created>;
    start_runs(flow: &FlowName, limit: u32) -> Vec<RunId>;
    send(run: RunId, signal: &Signal) -> ();
    take_runs(now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Vec<Taken>;
    load(run: RunId) -> Loaded;
    inbox(run: RunId) -> (u64, Vec<Letter>);
    commit(commit: &Commit) -> u64;
    claim(claim: &Claim) -> Claimed;
    renew(worker: &WorkerId, held: &[Held], expires: DateTime<Utc>) -> Vec<Renewal>;
    finish(held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> ();
    keep_for(worker: &WorkerId, runs: &[RunId]) -> ();
    lose_worker(worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> usize;
    expire_leases(now: DateTime<Utc>, limit: usize) -> Rung;
    ring_timers(now: DateTime<Utc>, limit: usize) -> Rung;
    leases(run: RunId) -> Vec<Lease>;
    waits(after: u64, limit: usize) -> Vec<PendingWait>;
    take_notices(now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Vec<PendingNotice>;
    settle_notice(id: u64) -> ();
    touched(after: u64, limit: usize) -> Vec<(u64, RunId, Touched)>;
    touched_by(run: RunId) -> Vec<Touched>;
    run(run: RunId) -> RunRecord;
    runs(filter: &RunFilter) -> Vec<RunRecord>;
    active_runs(flow: &FlowName) -> u64;
    tasks(run: RunId) -> Vec<TaskRun>;
    tasks_of(run: RunId, tasks: &[TaskId]) -> Vec<TaskRun>;
    events(run: RunId, after: u64, limit: usize) -> Vec<(u64, Event)>;
    past(run: RunId, task: &TaskId) -> Option<TaskState>;
    last_success(run: RunId) -> Option<RunRecord>;
    cursor(schedule: &str) -> Option<String>;
    advance(advance: &Advance, now: DateTime<Utc>) -> Vec<Created>;
    save_backfill(backfill: &Backfill) -> ();
    backfills() -> Vec<Backfill>;
    save_version(flow: &FlowName, version: &FlowVersion, content: &Bytes, now: DateTime<Utc>) -> ();
    version(version: &FlowVersion) -> Bytes;
    set_paused(flow: &FlowName, paused: bool) -> ();
    paused() -> Vec<FlowName>;
    set_variable(name: &str, value: Option<&str>) -> bool;
    variables() -> BTreeMap<String, String>;
    save_pool(pool: &Pool) -> ();
    remove_pool(name: &str) -> ();
    pools() -> Vec<PoolUse>;
    beat(worker: &WorkerRecord) -> ();
    ended_before(before: DateTime<Utc>) -> Vec<RunId>;
    workers() -> Vec<WorkerRecord>;
    forget_workers(before: DateTime<Utc>) -> usize;
    prune(before: DateTime<Utc>, limit: usize) -> usize;
}

/// A project, and the gate before what its schedulers see of the store; everybody else sees all.
fn gated() -> (World, Arc<Gated>) {
    let store = Arc::new(MemoryStore::new());
    let world = World::over(Arc::clone(&store) as _);
    (world, Arc::new(Gated { store, gate: Gate::default() }))
}

fn hourly(name: &str, start: Option<&str>) -> Flow {
    Flow { max_active_runs: 2, ..flow(name, Some(cron("0 * * * *", start, Catchup::All))) }
}

/// Flows by the clock and by data sets, and a wait, over a store that loses calls and answers.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_now_and_then_loses_nothing() {
    for every in [3, 5, 7, 11, 29] {
        let (world, gated) = gated();
        let after = DatasetRule::One("lake.hourly".to_owned());
        let after = ScheduleSpec { rules: Vec::new(), datasets: Some(after), ..cron("", None, Catchup::Last) };
        world.project.put([
            entry(hourly("hourly", Some("2024-10-03T20:00"))),
            entry(Flow { max_active_runs: 9, ..flow("after", Some(after)) }),
            entry(flow("waiting", None)),
        ]);
        let until = WaitFor::Dataset { dataset: "lake.hourly".to_owned(), since: first_day() };
        world.bench.waits.lock().unwrap().insert("waiting".to_owned(), Wait { on: until, until: None });
        world.ask("waiting", 1).await;
        gated.gate.every.store(every, Ordering::SeqCst);
        let _running = (world.scheduler_over(&gated), world.scheduler_over(&gated), world.worker());
        world.pass(hours(6)).await;
        let hourly = world.runs("hourly").await;
        assert!(are_distinct(&hourly), "{every}");
        assert_eq!((hourly.len(), open(&hourly)), (9, 0), "{every}");
        assert_eq!(world.said("waiting").await, ["04 01:00 success"], "{every}");
        let after = world.runs("after").await;
        assert!((3..=9).contains(&after.len()) && open(&after) == 0, "{every}: {}", after.len());
        assert!(world.diary.take().iter().all(|told| told == "store: the store is away"), "{every}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_waited_for() {
    let (world, gated) = gated();
    world.project.put([entry(hourly("flow", None))]);
    let _running = (world.scheduler_over(&gated), world.worker());
    world.pass(hours(1) + MOMENT).await;
    gated.gate.closed.store(true, Ordering::SeqCst);
    world.pass(hours(3)).await;
    assert_eq!(world.runs("flow").await.len(), 1);
    let told = world.diary.take().len();
    assert!((100..20_000).contains(&told), "it is tried, but not all the time: {told}");
    gated.gate.closed.store(false, Ordering::SeqCst);
    world.pass(12 * MOMENT).await;
    assert_eq!(world.runs("flow").await.len(), 4, "soon after it is back");
    assert_eq!(open(&world.runs("flow").await), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_nothing_is_due() {
    let (world, gated) = gated();
    world.project.put((0..1_000).map(|number| {
        let at = format!("{} 3 1 1 *", number % 60);
        entry(flow(&format!("flow{number}"), Some(cron(&at, None, Catchup::Last))))
    }));
    let _running = (world.scheduler_over(&gated), world.worker());
    world.pass(10 * MOMENT).await;
    gated.gate.calls.lock().unwrap().clear();
    world.pass(hours(1)).await;
    let calls = gated.gate.calls.lock().unwrap().clone();
    let all: u64 = calls.values().sum();
    // A look a minute, for whatever may have been missed.
    assert!(all <= 60 * 12, "{calls:?}");
}
