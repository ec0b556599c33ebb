//! The seam, put together.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::flow::store::{
    Advance, Backfill, Claim, Claimed, Commit, Created, Held, Letter, Loaded, MetaStore, NewRun, PendingNotice,
    PendingWait, Pool, PoolUse, Renewal, RunFilter, Rung, Wake, WorkerRecord,
};
use flumen_core::flow::{
    Event, FlowName, FlowVersion, Lease, Outcome, RunId, RunRecord, Signal, TaskId, TaskRun, TaskState, Touched,
    WorkerId,
};
use futures::stream::BoxStream;
use sqlx::Row as _;

use super::runs::execute;
use super::{SqliteStore, leases, objects, queue, runs};
use crate::columns::{body, us};

#[async_trait]
impl MetaStore for SqliteStore {
    async fn create_runs(&self, new: &[NewRun], now: DateTime<Utc>) -> Result<Vec<Created>> {
        let new = new.to_vec();
        self.writer
            .write(move |tx| {
                Box::pin(async move {
                    let mut created = Vec::with_capacity(new.len());
                    for new in &new {
                        created.push(runs::create(tx, new, now).await?);
                    }
                    Ok(created)
                })
            })
            .await
    }

    async fn start_runs(&self, flow: &FlowName, limit: u32) -> Result<Vec<RunId>> {
        let flow = flow.clone();
        self.writer.write(move |tx| Box::pin(async move { runs::start(tx, &flow, limit).await })).await
    }

    async fn send(&self, run: RunId, signal: &Signal) -> Result<()> {
        let signal = signal.clone();
        self.writer
            .write(move |tx| {
                Box::pin(async move {
                    let seq = runs::seq(tx, run).await?;
                    runs::post(tx, seq, &[signal]).await
                })
            })
            .await
    }

    async fn take_runs(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<RunId>> {
        self.writer.write(move |tx| Box::pin(runs::take(tx, now, until, limit))).await
    }

    async fn load(&self, run: RunId) -> Result<Loaded> {
        self.read_loaded(run).await
    }

    async fn inbox(&self, run: RunId) -> Result<(u64, Vec<Letter>)> {
        self.read_inbox(run).await
    }

    async fn commit(&self, commit: &Commit) -> Result<u64> {
        let commit = commit.clone();
        self.writer.write(move |tx| Box::pin(async move { runs::commit(tx, &commit).await })).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let claim = claim.clone();
        self.writer.write(move |tx| Box::pin(async move { queue::claim(tx, &claim).await })).await
    }

    async fn renew(&self, worker: &WorkerId, held: &[Held], expires: DateTime<Utc>) -> Result<Vec<Renewal>> {
        let (worker, held) = (worker.clone(), held.to_vec());
        self.writer.write(move |tx| Box::pin(async move { leases::renew(tx, &worker, &held, expires).await })).await
    }

    async fn finish(&self, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
        let (held, outcome) = (held.clone(), outcome.clone());
        self.writer.write(move |tx| Box::pin(async move { leases::finish(tx, &held, &outcome, now).await })).await
    }

    async fn lose_worker(&self, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize> {
        let (worker, cause) = (worker.clone(), cause.to_owned());
        self.writer.write(move |tx| Box::pin(async move { leases::lose_worker(tx, &worker, &cause, now).await })).await
    }

    async fn expire_leases(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        self.writer.write(move |tx| Box::pin(leases::expire(tx, now, limit))).await
    }

    async fn ring_timers(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        self.writer.write(move |tx| Box::pin(leases::ring(tx, now, limit))).await
    }

    async fn leases(&self, run: RunId) -> Result<Vec<Lease>> {
        self.read_leases(run).await
    }

    async fn waits(&self, after: u64, limit: usize) -> Result<Vec<PendingWait>> {
        self.read_waits(after, limit).await
    }

    async fn take_notices(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<PendingNotice>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.writer
            .write(move |tx| {
                Box::pin(async move {
                    let rows = sqlx::query(
                        "update notices set held_us = ?1 where id in (
                            select id from notices where held_us is null or held_us <= ?2 order by id limit ?3
                         ) returning id, body",
                    );
                    let rows = rows.bind(us(until)).bind(us(now)).bind(limit).fetch_all(&mut tx.connection).await;
                    let mut taken = Vec::new();
                    for row in rows.map_err(|error| tx.failed(error))? {
                        let id: i64 = row.try_get(0).map_err(|error| tx.failed(error))?;
                        let text: String = row.try_get(1).map_err(|error| tx.failed(error))?;
                        let id = u64::try_from(id).unwrap_or_default();
                        taken.push(PendingNotice { id, notice: body(&text)? });
                    }
                    taken.sort_by_key(|notice| notice.id);
                    Ok(taken)
                })
            })
            .await
    }

    async fn settle_notice(&self, id: u64) -> Result<()> {
        let id = i64::try_from(id).unwrap_or(i64::MAX);
        self.writer
            .write(move |tx| {
                Box::pin(async move {
                    execute(tx, sqlx::query("delete from notices where id = ?").bind(id)).await.map(drop)
                })
            })
            .await
    }

    async fn touched(&self, after: u64, limit: usize) -> Result<Vec<(u64, RunId, Touched)>> {
        self.read_touched(after, limit).await
    }

    fn wakes(&self) -> BoxStream<'static, Wake> {
        self.bell.listen()
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
        let value = sqlx::query_scalar("select value from cursors where name = ?").bind(schedule);
        value.fetch_optional(&self.pool).await.map_err(|error| self.failed(error))
    }

    async fn advance(&self, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
        let advance = advance.clone();
        self.writer.write(move |tx| Box::pin(async move { objects::advance(tx, &advance, now).await })).await
    }

    async fn save_backfill(&self, backfill: &Backfill) -> Result<()> {
        let backfill = backfill.clone();
        self.writer.write(move |tx| Box::pin(async move { objects::save_backfill(tx, &backfill).await })).await
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
        let (flow, version, content) = (flow.clone(), version.clone(), content.clone());
        self.writer
            .write(move |tx| Box::pin(async move { objects::save_version(tx, &flow, &version, &content, now).await }))
            .await
    }

    async fn version(&self, version: &FlowVersion) -> Result<Bytes> {
        self.read_version(version).await
    }

    async fn set_paused(&self, flow: &FlowName, paused: bool) -> Result<()> {
        let flow = flow.clone();
        self.writer.write(move |tx| Box::pin(async move { objects::set_paused(tx, &flow, paused).await })).await
    }

    async fn paused(&self) -> Result<Vec<FlowName>> {
        let names =
            sqlx::query_scalar::<_, String>("select flow from paused order by flow").fetch_all(&self.pool).await;
        Ok(names.map_err(|error| self.failed(error))?.into_iter().map(FlowName::from).collect())
    }

    async fn save_pool(&self, pool: &Pool) -> Result<()> {
        let pool = pool.clone();
        self.writer.write(move |tx| Box::pin(async move { objects::save_pool(tx, &pool).await })).await
    }

    async fn remove_pool(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.writer.write(move |tx| Box::pin(async move { objects::remove_pool(tx, &name).await })).await
    }

    async fn pools(&self) -> Result<Vec<PoolUse>> {
        let rows = sqlx::query(
            "with names as (select name from pools union select pool from leases union select pool from queue)
             select names.name, slots, rate_count, rate_us,
                (select coalesce(sum(slots), 0) from leases where pool = names.name) as used,
                (select count(*) from queue where pool = names.name) as queued
             from names left join pools on pools.name = names.name order by names.name",
        );
        let rows = rows.fetch_all(&self.pool).await.map_err(|error| self.failed(error))?;
        rows.iter().map(objects::pool_use).collect::<sqlx::Result<_>>().map_err(|error| self.failed(error))
    }

    async fn beat(&self, worker: &WorkerRecord) -> Result<()> {
        let worker = worker.clone();
        self.writer.write(move |tx| Box::pin(async move { objects::beat(tx, &worker).await })).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>> {
        self.read_all("select body from workers order by id").await
    }

    async fn forget_workers(&self, before: DateTime<Utc>) -> Result<usize> {
        self.writer.write(move |tx| Box::pin(objects::forget_workers(tx, before))).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize> {
        self.writer.write(move |tx| Box::pin(runs::prune(tx, before, limit))).await
    }
}
