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
use rusqlite::params;

use super::writer::Tx;
use super::{SqliteStore, leases, objects, queue, reads, runs};
use crate::columns::{json, number, us};

#[async_trait]
impl MetaStore for SqliteStore {
    async fn create_runs(&self, new: &[NewRun], now: DateTime<Utc>) -> Result<Vec<Created>> {
        let new = new.to_vec();
        self.writer.write(move |tx| new.iter().map(|new| runs::create(tx, new, now)).collect()).await
    }

    async fn start_runs(&self, flow: &FlowName, limit: u32) -> Result<Vec<RunId>> {
        let flow = flow.clone();
        self.writer.write(move |tx| runs::start(tx, &flow, limit)).await
    }

    async fn send(&self, run: RunId, signal: &Signal) -> Result<()> {
        let signal = signal.clone();
        let send = move |tx: &mut Tx| {
            let seq = runs::seq(tx, run)?;
            runs::post(tx, seq, &[signal])
        };
        self.writer.write(send).await
    }

    async fn take_runs(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<Taken>> {
        self.writer.hint(move |tx| runs::take(tx, now, until, limit)).await
    }

    async fn load(&self, run: RunId) -> Result<Loaded> {
        self.readers.read(move |db| reads::loaded(db, run)).await
    }

    async fn inbox(&self, run: RunId) -> Result<(u64, Vec<Letter>)> {
        self.readers.read(move |db| reads::inbox(db, run)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<u64> {
        let commit = commit.clone();
        self.writer.write(move |tx| runs::commit(tx, &commit)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        if !self.readers.read(reads::has_queue).await? {
            return Ok(Claimed::default());
        }
        let claim = claim.clone();
        self.writer.write(move |tx| queue::claim(tx, &claim)).await
    }

    async fn renew(&self, worker: &WorkerId, held: &[Held], expires: DateTime<Utc>) -> Result<Vec<Renewal>> {
        let (worker, held) = (worker.clone(), held.to_vec());
        self.writer.write(move |tx| leases::renew(tx, &worker, &held, expires)).await
    }

    async fn finish(&self, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
        let (held, outcome) = (held.clone(), outcome.clone());
        self.writer.write(move |tx| leases::finish(tx, &held, &outcome, now)).await
    }

    async fn keep_for(&self, worker: &WorkerId, runs: &[RunId]) -> Result<()> {
        let (worker, runs) = (worker.clone(), runs.to_vec());
        self.writer.write(move |tx| leases::keep_for(tx, &worker, &runs)).await
    }

    async fn lose_worker(&self, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize> {
        let (worker, cause) = (worker.clone(), cause.to_owned());
        self.writer.write(move |tx| leases::lose_worker(tx, &worker, &cause, now)).await
    }

    async fn expire_leases(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        self.writer.write(move |tx| leases::expire(tx, now, limit)).await
    }

    async fn ring_timers(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        self.writer.write(move |tx| leases::ring(tx, now, limit)).await
    }

    async fn leases(&self, run: RunId) -> Result<Vec<Lease>> {
        self.readers.read(move |db| reads::leases(db, run)).await
    }

    async fn waits(&self, after: u64, limit: usize) -> Result<Vec<PendingWait>> {
        self.readers.read(move |db| reads::waits(db, after, limit)).await
    }

    async fn take_notices(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<PendingNotice>> {
        self.writer.write(move |tx| objects::take_notices(tx, now, until, limit)).await
    }

    async fn note(&self, event: &Event) -> Result<()> {
        let (run, body) = (event.run, json(event)?);
        let note = move |tx: &mut Tx| {
            let seq = runs::seq(tx, run)?;
            tx.execute("insert into events (run, body) values (?, ?)", params![seq, body])?;
            tx.wake(Wake::Run);
            Ok(())
        };
        self.writer.write(note).await
    }

    async fn settle_notice(&self, id: u64) -> Result<()> {
        let settle = "delete from notices where id = ?";
        self.writer.write(move |tx| tx.execute(settle, params![number(id)]).map(drop)).await
    }

    async fn touched(&self, after: u64, limit: usize) -> Result<Vec<(u64, RunId, Touched)>> {
        self.readers.read(move |db| reads::touched(db, after, limit)).await
    }

    async fn touched_by(&self, run: RunId) -> Result<Vec<Touched>> {
        self.readers.read(move |db| reads::touched_by(db, run)).await
    }

    fn wakes(&self) -> BoxStream<'static, Wake> {
        self.bell.listen()
    }

    async fn run(&self, run: RunId) -> Result<RunRecord> {
        self.readers.read(move |db| reads::run(db, run)).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let filter = filter.clone();
        self.readers.read(move |db| reads::runs(db, &filter)).await
    }

    async fn active_runs(&self, flow: &FlowName) -> Result<u64> {
        let flow = flow.clone();
        self.readers.read(move |db| reads::active(db, flow.as_str())).await
    }

    async fn tasks(&self, run: RunId) -> Result<Vec<TaskRun>> {
        self.readers.read(move |db| reads::tasks(db, run)).await
    }

    async fn tasks_of(&self, run: RunId, tasks: &[TaskId]) -> Result<Vec<TaskRun>> {
        let tasks = tasks.to_vec();
        self.readers.read(move |db| reads::tasks_of(db, run, &tasks)).await
    }

    async fn last_success(&self, run: RunId) -> Result<Option<RunRecord>> {
        self.readers.read(move |db| reads::last_success(db, run)).await
    }

    async fn events(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        self.readers.read(move |db| reads::events(db, run, after, limit)).await
    }

    async fn past(&self, run: RunId, task: &TaskId) -> Result<Option<TaskState>> {
        let task = task.clone();
        self.readers.read(move |db| reads::past(db, run, &task)).await
    }

    async fn cursor(&self, schedule: &str) -> Result<Option<String>> {
        let schedule = schedule.to_owned();
        self.readers.read(move |db| db.value("select value from cursors where name = ?", params![schedule])).await
    }

    async fn advance(&self, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
        let advance = advance.clone();
        self.writer.write(move |tx| objects::advance(tx, &advance, now)).await
    }

    async fn save_backfill(&self, backfill: &Backfill) -> Result<()> {
        let backfill = backfill.clone();
        self.writer.write(move |tx| objects::save_backfill(tx, &backfill)).await
    }

    async fn backfills(&self) -> Result<Vec<Backfill>> {
        let sql = "select body from backfills order by created_us desc, id desc";
        self.readers.read(move |db| reads::bodies(db, sql, ())).await
    }

    async fn save_version(
        &self,
        flow: &FlowName,
        version: &FlowVersion,
        content: &Bytes,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let (flow, version, content) = (flow.clone(), version.clone(), content.clone());
        self.writer.write(move |tx| objects::save_version(tx, &flow, &version, &content, now)).await
    }

    async fn version(&self, version: &FlowVersion) -> Result<Bytes> {
        let version = version.clone();
        self.readers.read(move |db| reads::version(db, &version)).await
    }

    async fn set_paused(&self, flow: &FlowName, paused: bool) -> Result<()> {
        let flow = flow.clone();
        self.writer.write(move |tx| objects::set_paused(tx, &flow, paused)).await
    }

    async fn paused(&self) -> Result<Vec<FlowName>> {
        let names = self.readers.read(|db| db.column::<String>("select flow from paused order by flow", ())).await?;
        Ok(names.into_iter().map(FlowName::from).collect())
    }

    async fn set_variable(&self, name: &str, value: Option<&str>) -> Result<bool> {
        let (name, value) = (name.to_owned(), value.map(str::to_owned));
        self.writer.write(move |tx| objects::set_variable(tx, &name, value.as_deref())).await
    }

    async fn variables(&self) -> Result<BTreeMap<String, String>> {
        self.readers.read(reads::variables).await
    }

    async fn save_pool(&self, pool: &Pool) -> Result<()> {
        let pool = pool.clone();
        self.writer.write(move |tx| objects::save_pool(tx, &pool)).await
    }

    async fn remove_pool(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.writer.write(move |tx| objects::remove_pool(tx, &name)).await
    }

    async fn pools(&self) -> Result<Vec<PoolUse>> {
        let sql = "with names as (select name from pools union select pool from leases union select pool from queue)
             select names.name, slots, rate_count, rate_us,
                (select coalesce(sum(slots), 0) from leases where pool = names.name) as used,
                (select count(*) from queue where pool = names.name) as queued
             from names left join pools on pools.name = names.name order by names.name";
        self.readers.read(move |db| db.rows(sql, (), objects::pool_use)).await
    }

    async fn beat(&self, worker: &WorkerRecord) -> Result<()> {
        let worker = worker.clone();
        self.writer.write(move |tx| objects::beat(tx, &worker)).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>> {
        self.readers.read(|db| reads::bodies(db, "select body from workers order by id", ())).await
    }

    async fn forget_workers(&self, before: DateTime<Utc>) -> Result<usize> {
        self.writer.write(move |tx| tx.execute("delete from workers where seen_us < ?", params![us(before)])).await
    }

    async fn ended_before(&self, before: DateTime<Utc>) -> Result<Vec<RunId>> {
        self.readers.read(move |db| reads::ended(db, before)).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize> {
        self.writer.write(move |tx| runs::prune(tx, before, limit)).await
    }
}
