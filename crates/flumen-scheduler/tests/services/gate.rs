//! A store that fails, one that counts what is asked of it, and keeps what its scheduler decided.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::*;
use flumen_core::flow::*;
use flumen_core::{Error, Result};
use futures::stream::BoxStream;

/// What stands before a store.
#[derive(Default)]
pub struct Gate {
    /// Nothing passes.
    pub closed: AtomicBool,
    /// One in so many calls fails, where it is not 0.
    pub every: AtomicU64,
    /// Some of the calls that fail are carried out twice instead, as by a driver that tries again.
    pub twice: AtomicBool,
    /// Calls take so long that others come between.
    pub slow: AtomicBool,
    /// How many calls there were; begun with another number, it is another history.
    pub count: AtomicU64,
    /// How often each call was made.
    pub calls: Mutex<BTreeMap<&'static str, u64>>,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Passes,
    /// It is not carried out.
    Lost,
    /// It is carried out, and the answer is lost.
    Unanswered,
    /// It is carried out twice, and the second answer counts.
    Twice,
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
            true if self.twice.load(Ordering::SeqCst) && mixed & 0x600 == 0 => Fate::Twice,
            true if mixed & 1 == 0 => Fate::Lost,
            true => Fate::Unanswered,
        }
    }

    /// Lets others come between.
    async fn breathe(&self) {
        if self.slow.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }
}

fn away() -> Error {
    Error::unavailable("the store is away")
}

/// What a scheduler did to schedules and their runs.
#[derive(Debug, Clone)]
pub enum Deed {
    Advanced(Advance),
    Cancelled(RunId),
}

/// A deed that was carried out.
#[derive(Debug, Clone)]
pub struct Done {
    /// Which of the schedulers.
    pub by: usize,
    pub at: DateTime<Utc>,
    pub deed: Deed,
    /// Whether the scheduler knows it.
    pub answered: bool,
}

/// What several schedulers did, in order.
pub type Log = Arc<Mutex<Vec<Done>>>;

/// A store behind a gate.
pub struct Gated {
    store: Arc<dyn MetaStore>,
    pub gate: Gate,
    by: usize,
    log: Log,
    now: Box<dyn Fn() -> DateTime<Utc> + Send + Sync>,
}

impl Gated {
    pub fn new(store: Arc<dyn MetaStore>, gate: Gate) -> Self {
        Self::logged(store, gate, 0, Log::default(), || DateTime::UNIX_EPOCH)
    }

    /// The store as scheduler number `by` sees it.
    pub fn logged(
        store: Arc<dyn MetaStore>,
        gate: Gate,
        by: usize,
        log: Log,
        now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static,
    ) -> Self {
        Self { store, gate, by, log, now: Box::new(now) }
    }

    /// Makes a call as the gate lets it.
    async fn through<T, F: Future<Output = Result<T>> + Send>(
        &self,
        name: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T> {
        self.gate.breathe().await;
        let fate = self.gate.fate(name);
        if fate == Fate::Lost {
            return Err(away());
        }
        let mut result = call().await;
        if fate == Fate::Twice {
            result = call().await;
        }
        self.gate.breathe().await;
        if fate == Fate::Unanswered { Err(away()) } else { result }
    }

    /// Keeps a deed; its number.
    fn keep(&self, at: DateTime<Utc>, deed: Deed) -> usize {
        let mut log = self.log.lock().unwrap();
        log.push(Done { by: self.by, at, deed, answered: false });
        log.len() - 1
    }

    async fn log_advance(&self, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
        let number = AtomicUsize::new(0);
        let call = || async {
            let created = self.store.advance(advance, now).await?;
            number.store(self.keep(now, Deed::Advanced(advance.clone())), Ordering::SeqCst);
            Ok(created)
        };
        let created = self.through("advance", call).await?;
        self.log.lock().unwrap()[number.into_inner()].answered = true;
        Ok(created)
    }

    async fn log_send(&self, run: RunId, signal: &Signal) -> Result<()> {
        let call = || async {
            self.store.send(run, signal).await?;
            if matches!(signal, Signal::Cancel { .. }) {
                self.keep((self.now)(), Deed::Cancelled(run));
            }
            Ok(())
        };
        self.through("send", call).await
    }
}

macro_rules! gated {
    ($($call:ident($($name:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl MetaStore for Gated {
            $(async fn $call(&self, $($name: $type),*) -> Result<$out> {
                self.through(stringify!($call), || self.store.$call($($name),*)).await
            })*

            async fn advance(&self, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
                self.log_advance(advance, now).await
            }

            async fn send(&self, run: RunId, signal: &Signal) -> Result<()> {
                self.log_send(run, signal).await
            }

            fn wakes(&self) -> BoxStream<'static, Wake> {
                self.store.wakes()
            }
        }
    };
}

gated! {
    create_runs(runs: &[NewRun], now: DateTime<Utc>) -> Vec<Created>;
    start_runs(flow: &FlowName, limit: u32) -> Vec<RunId>;
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
    note(event: &Event) -> ();
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
