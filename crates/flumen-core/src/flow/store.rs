//! Where runs are kept: the one place in which servers, schedulers and workers meet.
//!
//! A run is changed by [`commit`](MetaStore::commit) alone: whoever steps it reads it with its version, and writes what follows
//! in one transaction that fails where somebody else was faster. Everybody else leaves a letter in its inbox (a [`Signal`]),
//! in the transaction that makes it true: a claim takes the row out of the queue, gives the lease and says so; an end takes the
//! lease back and says so. So a crash between any two calls loses nothing, and nobody has to look at history to find out what
//! is to do: the queue, the leases, the timers and the inboxes hold what is open, and nothing else.
//!
//! What always holds: a task run is in the queue, or leased, or neither, never twice; numbers of leases only grow, over all runs;
//! the log only grows, until it is pruned.
//!
//! The present is passed in. A store that machines share may take its own clock instead, which is the same for all of them.
//! [`testkit`](crate::testkit) holds every store to this contract.

pub mod commit;
pub mod objects;
pub mod work;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;

use super::{
    Event, FlowName, FlowVersion, Lease, Outcome, RunId, RunRecord, RunState, Signal, TaskId, TaskRun, TaskState,
    Touched, WorkerId,
};
use crate::error::{Error, ErrorKind, Result};

pub use commit::Commit;
pub use objects::{Advance, Backfill, BackfillState, Created, NewRun, Pool, PoolUse, Rate, RunFilter, WorkerRecord};
pub use work::{Claim, Claimed, Held, Letter, Loaded, PendingNotice, PendingWait, Renewal, Rung, Taken, Wake, Work};

/// Keeps flows and their runs.
///
/// What one call has done, every later one sees, also from another process, and it survives the loss of power once the call
/// returns. A call does all it says or nothing. Errors besides those named: `Unavailable` where the store cannot be reached.
#[async_trait]
pub trait MetaStore: Send + Sync {
    // Runs, as whoever steps them sees them.

    /// Makes runs. One whose id or `unique` text is there already is not made again; the answer, in the order of `runs`, says
    /// which run there is now.
    async fn create_runs(&self, runs: &[NewRun], now: DateTime<Utc>) -> Result<Vec<Created>>;

    /// Begins the oldest runs of a flow that were made without `start`, as long as fewer than `limit` of its runs have begun and
    /// not ended. Answers with those that it began.
    async fn start_runs(&self, flow: &FlowName, limit: u32) -> Result<Vec<RunId>>;

    /// Puts a letter into the inbox of a run.
    ///
    /// Errors: `NotFound`.
    async fn send(&self, run: RunId, signal: &Signal) -> Result<()>;

    /// Takes up to `limit` runs that have letters, oldest letter first, to step them: see [`inbox`](Self::inbox) for what comes with
    /// them. Nobody else is given them until `until`,
    /// or until the run's next commit. This keeps schedulers out of each other's way; what keeps them from harm is the version. That they
    /// are taken may be lost with the power.
    async fn take_runs(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<Taken>>;

    /// All of a run that stepping it needs, and its inbox.
    ///
    /// Errors: `NotFound`.
    async fn load(&self, run: RunId) -> Result<Loaded>;

    /// The version of a run and its inbox: enough for whoever remembers the rest from that version. It may be seen before it
    /// survives the loss of power; what is written because of it survives no sooner than it does.
    ///
    /// Errors: `NotFound`.
    async fn inbox(&self, run: RunId) -> Result<(u64, Vec<Letter>)>;

    /// Writes what a step decided, in one transaction, and answers with the run's new version.
    ///
    /// Errors: `NotFound`; `Conflict`, where the run has another version, or a row that is to leave the queue was claimed
    /// meanwhile. Whoever gets it loads the run again.
    async fn commit(&self, commit: &Commit) -> Result<u64>;

    // The queue, as workers see it.

    /// Takes task runs out of the queue and gives leases on them: no more than the pools have slots, and their rates allow; by
    /// priority, and runs with the same priority in turn, whatever each of them has in the queue. One that needs more slots
    /// than are free is waited for; one that needs more than there are gets all. The run is told.
    async fn claim(&self, claim: &Claim) -> Result<Claimed>;

    /// Renews the leases of a worker until `expires`, and says of each, in the same order, whether it still holds.
    async fn renew(&self, worker: &WorkerId, held: &[Held], expires: DateTime<Utc>) -> Result<Vec<Renewal>>;

    /// Ends a lease with the outcome of its attempt. The run is told.
    ///
    /// Errors: `Conflict` where the lease is not held any more: the outcome is refused, since somebody else is at it or it is
    /// decided already.
    async fn finish(&self, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()>;

    /// Keeps runs for one worker: nobody else is given their tasks until that one is [lost](Self::lose_worker). They need not be
    /// there yet: so a run can be kept before anybody sees it.
    async fn keep_for(&self, worker: &WorkerId, runs: &[RunId]) -> Result<()>;

    /// Takes back, at once, all leases of a worker that is known to be gone. The runs are told. Answers with their number. Runs that
    /// were kept for it are everybody's from now on.
    async fn lose_worker(&self, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize>;

    /// Takes back up to `limit` leases that ended at `now` or before. The runs are told.
    async fn expire_leases(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung>;

    /// Rings up to `limit` timers that were set to `now` or before: each is gone, and its run is told.
    async fn ring_timers(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung>;

    /// The leases of a run.
    async fn leases(&self, run: RunId) -> Result<Vec<Lease>>;

    // What waits for something outside.

    /// The waits of deferred tasks, in the order of their ids, from after `after` on. Whoever sees that one is over sends the
    /// run [`Signal::Ended`] with the wait's number.
    async fn waits(&self, after: u64, limit: usize) -> Result<Vec<PendingWait>>;

    /// Takes up to `limit` notices; nobody else is given them until `until`. One that is not settled by then is given again.
    async fn take_notices(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<PendingNotice>>;

    /// Adds to what has happened to a run, whatever state it is in, and changes nothing else.
    ///
    /// Errors: `NotFound`.
    async fn note(&self, event: &Event) -> Result<()>;

    /// A notice was passed on; it is forgotten.
    async fn settle_notice(&self, id: u64) -> Result<()>;

    /// Data sets that task runs touched, in the order of their ids, from after `after` on.
    async fn touched(&self, after: u64, limit: usize) -> Result<Vec<(u64, RunId, Touched)>>;

    /// The data sets that tasks of a run touched, in order; none of a run that is not there.
    async fn touched_by(&self, run: RunId) -> Result<Vec<Touched>>;

    /// Wakes whoever listens, when there is something new of some kind. One wake may stand for many; a listener that falls
    /// behind is woken once. The stream ends with the store.
    fn wakes(&self) -> BoxStream<'static, Wake>;

    // Looking at runs.

    /// A run.
    ///
    /// Errors: `NotFound`.
    async fn run(&self, run: RunId) -> Result<RunRecord>;

    /// Runs, the latest first unless the filter says otherwise.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>>;

    /// How many runs of a flow are running or paused.
    async fn active_runs(&self, flow: &FlowName) -> Result<u64>;

    /// The task runs of a run to which something has happened.
    ///
    /// Errors: `NotFound`.
    async fn tasks(&self, run: RunId) -> Result<Vec<TaskRun>>;

    /// The task runs of these tasks to which something has happened, with the items of each in order: what templates and
    /// workers need of a run that may be large.
    ///
    /// Errors: `NotFound`.
    async fn tasks_of(&self, run: RunId, tasks: &[TaskId]) -> Result<Vec<TaskRun>>;

    /// What happened in a run, oldest first, from after the event `after` on.
    async fn events(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<(u64, Event)>>;

    /// Where `task` is in the run of the same flow and deployment whose interval is the last before that of `run`; `None`
    /// where there is no such run.
    async fn past(&self, run: RunId, task: &TaskId) -> Result<Option<TaskState>>;

    /// The run of the same flow and deployment that succeeded, and whose interval is the last before that of `run`.
    async fn last_success(&self, run: RunId) -> Result<Option<RunRecord>>;

    // Schedules and backfills.

    /// How far a schedule has come: the text that the last [`advance`](Self::advance) left.
    async fn cursor(&self, schedule: &str) -> Result<Option<String>>;

    /// Makes runs and moves a cursor on, in one transaction.
    ///
    /// Errors: `Conflict` where the cursor is not where the caller believes it to be.
    async fn advance(&self, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>>;

    /// Keeps a backfill, new or changed.
    async fn save_backfill(&self, backfill: &Backfill) -> Result<()>;

    /// All backfills, the latest first.
    async fn backfills(&self) -> Result<Vec<Backfill>>;

    // Flows.

    /// Keeps the content of a version, which is its hash.
    async fn save_version(
        &self,
        flow: &FlowName,
        version: &FlowVersion,
        content: &Bytes,
        now: DateTime<Utc>,
    ) -> Result<()>;

    /// The content of a version.
    ///
    /// Errors: `NotFound`.
    async fn version(&self, version: &FlowVersion) -> Result<Bytes>;

    /// Stops a flow's schedule, or lets it go on.
    async fn set_paused(&self, flow: &FlowName, paused: bool) -> Result<()>;

    /// The flows whose schedules are stopped, sorted.
    async fn paused(&self) -> Result<Vec<FlowName>>;

    // Variables.

    /// Keeps a variable that templates have as `var.NAME`; or forgets it, where there is no value. Answers whether there was one.
    async fn set_variable(&self, name: &str, value: Option<&str>) -> Result<bool>;

    /// All variables, by their names.
    async fn variables(&self) -> Result<BTreeMap<String, String>>;

    // Pools and workers.

    /// Keeps a pool, new or changed. A pool that nobody has made has no limits.
    async fn save_pool(&self, pool: &Pool) -> Result<()>;

    /// Forgets a pool.
    ///
    /// Errors: `NotFound`.
    async fn remove_pool(&self, name: &str) -> Result<()>;

    /// The pools that were made and those that are in use, sorted by name.
    async fn pools(&self) -> Result<Vec<PoolUse>>;

    /// A worker is there: keeps what it says of itself.
    async fn beat(&self, worker: &WorkerRecord) -> Result<()>;

    /// The workers that were ever there and not forgotten, sorted.
    async fn workers(&self) -> Result<Vec<WorkerRecord>>;

    /// Forgets workers that were last seen before `before`.
    async fn forget_workers(&self, before: DateTime<Utc>) -> Result<usize>;

    // History.

    /// The runs that ended before `before`, the one that ended first before the others.
    async fn ended_before(&self, before: DateTime<Utc>) -> Result<Vec<RunId>>;

    /// Forgets up to `limit` runs that ended before `before`, with all that belongs to them; in one transaction, so that a
    /// long history is pruned in many. Answers with their number. Versions of flows that are older and that no run keeps go
    /// too.
    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize>;
}

/// The answer where a run is not there.
pub fn no_run(run: RunId) -> Error {
    Error::not_found(format!("there is no run '{run}'")).hint("'flumen run list' shows them")
}

/// The answer to a commit that came too late.
pub fn run_changed(run: RunId) -> Error {
    Error::new(ErrorKind::Conflict, format!("run {run} was changed meanwhile"))
}

/// The answer to whoever holds no lease any more.
pub fn not_held(held: &Held) -> Error {
    let Held { run, key, number } = held;
    Error::new(ErrorKind::Conflict, format!("run {run}: the lease {number} on task '{key}' has ended"))
        .hint("what this attempt did is not taken; another one has its place, or it was stopped")
}

/// Whether a run in this state counts against its flow's `max_active_runs`.
pub fn is_active(state: RunState) -> bool {
    matches!(state, RunState::Running | RunState::Paused)
}
