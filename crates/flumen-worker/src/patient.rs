//! The store as attempts see it: one that is away is waited for, as long as the attempt may go on. A task does not fail because the
//! metadata cannot be reached for a while; whoever cannot renew its lease meanwhile is stopped by its worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::{
    Advance, Backfill, Claim, Claimed, Commit, Created, Held, Letter, Loaded, MetaStore, NewRun, PendingNotice,
    PendingWait, Pool, PoolUse, Renewal, RunFilter, Rung, Taken, Wake, WorkerRecord,
};
use flumen_core::flow::{
    Event, FlowName, FlowVersion, Lease, Outcome, RunId, RunRecord, Signal, TaskId, TaskRun, TaskState, Touched,
    WorkerId,
};
use flumen_core::{Error, ErrorKind, Result};
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::host::{Current, FlowsNow, Host, Watcher};

/// The wait after the first failure; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Host {
    /// This host for an attempt that may go on until `cancel`: what it asks of the store is asked until there is an answer.
    pub(crate) fn patient(&self, cancel: &CancellationToken) -> Arc<Self> {
        let patience = Patience { cancel: cancel.clone(), watcher: Arc::clone(&self.watcher) };
        let store = Arc::new(PatientStore { store: Arc::clone(&self.store), patience: patience.clone() });
        let flows = Arc::new(PatientFlows { flows: Arc::clone(&self.flows), patience });
        Arc::new(Self { store, flows, ..self.clone() })
    }
}

/// How long is waited.
#[derive(Clone)]
struct Patience {
    cancel: CancellationToken,
    watcher: Arc<dyn Watcher>,
}

impl Patience {
    /// Makes a call until it is answered. It may be made again though it was carried out, and its answer was lost.
    ///
    /// Errors: those of the call, but `Unavailable`; `Cancelled`.
    async fn call<T, F: Future<Output = Result<T>> + Send>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T> {
        let mut wait = FIRST_WAIT;
        loop {
            match call().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => self.watcher.store_fails(&error),
                answer => return answer,
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Error::cancelled()),
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            }
        }
    }
}

struct PatientFlows {
    flows: Arc<dyn FlowsNow>,
    patience: Patience,
}

#[async_trait]
impl FlowsNow for PatientFlows {
    async fn current(&self, flow: &str, deployment: Option<&str>) -> Result<Current> {
        self.patience.call(|| self.flows.current(flow, deployment)).await
    }
}

struct PatientStore {
    store: Arc<dyn MetaStore>,
    patience: Patience,
}

macro_rules! patient {
    ($($call:ident($($name:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl MetaStore for PatientStore {
            $(async fn $call(&self, $($name: $type),*) -> Result<$out> {
                self.patience.call(|| self.store.$call($($name),*)).await
            })*

            fn wakes(&self) -> BoxStream<'static, Wake> {
                self.store.wakes()
            }
        }
    };
}

patient! {
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
