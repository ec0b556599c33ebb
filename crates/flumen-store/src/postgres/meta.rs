//! The seam, put together.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::flow::store::{
    Advance, Backfill, Claim, Claimed, Commit, Created, Held, Letter, Loaded, MetaStore, NewRun, PendingNotice,
    PendingWait, Pool, PoolUse, Renewal, RunFilter, Rung, Taken, Wake, WorkerRecord,
};
use flumen_core::flow::{
    Event, FlowName, FlowVersion, Lease, Outcome, RunId, RunRecord, Signal, TaskId, TaskRun, TaskState, Touched,
    WorkerId,
};
use futures::stream::BoxStream;

use super::PostgresStore;

#[async_trait]
impl MetaStore for PostgresStore {
    async fn create_runs(&self, new: &[NewRun], now: DateTime<Utc>) -> Result<Vec<Created>> {
        self.make_runs(new, now).await
    }

    async fn start_runs(&self, flow: &FlowName, limit: u32) -> Result<Vec<RunId>> {
        self.begin(flow, limit).await
    }

    async fn send(&self, run: RunId, signal: &Signal) -> Result<()> {
        self.post(run, signal).await
    }

    async fn take_runs(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<Taken>> {
        self.take(now, until, limit).await
    }

    async fn load(&self, run: RunId) -> Result<Loaded> {
        self.read_loaded(run).await
    }

    async fn inbox(&self, run: RunId) -> Result<(u64, Vec<Letter>)> {
        self.read_inbox(run).await
    }

    async fn commit(&self, commit: &Commit) -> Result<u64> {
        self.step(commit).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.take_rows(claim).await
    }

    async fn renew(&self, worker: &WorkerId, held: &[Held], expires: DateTime<Utc>) -> Result<Vec<Renewal>> {
        self.renew_leases(worker, held, expires).await
    }

    async fn finish(&self, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
        self.finish_lease(held, outcome, now).await
    }

    async fn keep_for(&self, worker: &WorkerId, runs: &[RunId]) -> Result<()> {
        self.keep_runs(worker, runs).await
    }

    async fn lose_worker(&self, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize> {
        self.lose_all(worker, cause, now).await
    }

    async fn expire_leases(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        self.expire(now, limit).await
    }

    async fn ring_timers(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        self.ring(now, limit).await
    }

    async fn leases(&self, run: RunId) -> Result<Vec<Lease>> {
        self.read_leases(run).await
    }

    async fn waits(&self, after: u64, limit: usize) -> Result<Vec<PendingWait>> {
        self.read_waits(after, limit).await
    }

    async fn take_notices(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<PendingNotice>> {
        self.hand_out_notices(now, until, limit).await
    }

    async fn note(&self, event: &Event) -> Result<()> {
        self.keep_event(event).await
    }

    async fn settle_notice(&self, id: u64) -> Result<()> {
        self.drop_notice(id).await
    }

    async fn touched(&self, after: u64, limit: usize) -> Result<Vec<(u64, RunId, Touched)>> {
        self.read_touched(after, limit).await
    }

    async fn touched_by(&self, run: RunId) -> Result<Vec<Touched>> {
        self.read_touched_by(run).await
    }

    fn wakes(&self) -> BoxStream<'static, Wake> {
        self.listener.listen()
    }

    async fn run(&self, run: RunId) -> Result<RunRecord> {
        self.read_run(run).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        self.read_runs(filter).await
    }

    async fn active_runs(&self, flow: &FlowName) -> Result<u64> {
        self.count_active(flow).await
    }

    async fn tasks(&self, run: RunId) -> Result<Vec<TaskRun>> {
        self.read_tasks(run).await
    }

    async fn tasks_of(&self, run: RunId, tasks: &[TaskId]) -> Result<Vec<TaskRun>> {
        self.read_tasks_of(run, tasks).await
    }

    async fn last_success(&self, run: RunId) -> Result<Option<RunRecord>> {
        self.read_last_success(run).await
    }

    async fn events(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        self.read_events(run, after, limit).await
    }

    async fn past(&self, run: RunId, task: &TaskId) -> Result<Option<TaskState>> {
        self.read_past(run, task).await
    }

    async fn cursor(&self, schedule: &str) -> Result<Option<String>> {
        self.read_cursor(schedule).await
    }

    async fn advance(&self, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
        self.move_on(advance, now).await
    }

    async fn save_backfill(&self, backfill: &Backfill) -> Result<()> {
        self.keep_backfill(backfill).await
    }

    async fn backfills(&self) -> Result<Vec<Backfill>> {
        self.read_all("select body from backfills order by created_us desc, id desc").await
    }

    async fn save_version(
        &self,
        flow: &FlowName,
        version: &FlowVersion,
        content: &Bytes,
        now: DateTime<Utc>,
    ) -> Result<()> {
        self.keep_version(flow, version, content, now).await
    }

    async fn version(&self, version: &FlowVersion) -> Result<Bytes> {
        self.read_version(version).await
    }

    async fn set_paused(&self, flow: &FlowName, paused: bool) -> Result<()> {
        self.pause(flow, paused).await
    }

    async fn paused(&self) -> Result<Vec<FlowName>> {
        self.read_paused().await
    }

    async fn set_variable(&self, name: &str, value: Option<&str>) -> Result<bool> {
        self.keep_variable(name, value).await
    }

    async fn variables(&self) -> Result<BTreeMap<String, String>> {
        self.read_variables().await
    }

    async fn save_pool(&self, pool: &Pool) -> Result<()> {
        self.keep_pool(pool).await
    }

    async fn remove_pool(&self, name: &str) -> Result<()> {
        self.drop_pool(name).await
    }

    async fn pools(&self) -> Result<Vec<PoolUse>> {
        self.read_pools().await
    }

    async fn beat(&self, worker: &WorkerRecord) -> Result<()> {
        self.keep_worker(worker).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>> {
        self.read_all("select body from workers order by id").await
    }

    async fn forget_workers(&self, before: DateTime<Utc>) -> Result<usize> {
        self.drop_workers(before).await
    }

    async fn ended_before(&self, before: DateTime<Utc>) -> Result<Vec<RunId>> {
        self.read_ended(before).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize> {
        self.forget(before, limit).await
    }
}
