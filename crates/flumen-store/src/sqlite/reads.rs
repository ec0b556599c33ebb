//! Looking: by connections of their own, which see what was last committed and hold nobody up.

use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Letter, Loaded, PendingWait, RunFilter, no_run};
use flumen_core::flow::{Event, FlowName, Lease, RunId, RunRecord, RunState, TaskId, TaskRun, TaskState, WorkerId};
use flumen_core::{Error, Result};
use serde::de::DeserializeOwned;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::SqliteStore;
use super::runs::{key_of, uuid_of};
use crate::columns::{body, ids_that_begin_with, in_order, json, moment, most, positive, task_key, us};

impl SqliteStore {
    async fn row(&self, sql: &'static str, run: RunId) -> Result<sqlx::sqlite::SqliteRow> {
        let row = sqlx::query(sql).bind(key_of(run)).fetch_optional(&self.pool).await;
        row.map_err(|error| self.failed(error))?.ok_or_else(|| no_run(run))
    }

    /// The bodies that a query gives, with the ids before them.
    async fn bodies<T: DeserializeOwned>(
        &self,
        query: sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<Vec<(u64, T)>> {
        let rows = query.fetch_all(&self.pool).await.map_err(|error| self.failed(error))?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let id: i64 = row.try_get(0).map_err(|error| self.failed(error))?;
            let text: String = row.try_get(1).map_err(|error| self.failed(error))?;
            Ok((positive(id), body(&text)?))
        };
        rows.iter().map(read).collect()
    }

    pub(super) async fn read_run(&self, run: RunId) -> Result<RunRecord> {
        let row = self.row("select body from runs where id = ?", run).await?;
        body(&row.try_get::<String, _>(0).map_err(|error| self.failed(error))?)
    }

    pub(super) async fn read_inbox(&self, run: RunId) -> Result<(u64, Vec<Letter>)> {
        // One statement, so that both are of one moment.
        let rows = sqlx::query(
            "select runs.step, letters.id, letters.body from runs left join letters on letters.run = runs.seq
             where runs.id = ? order by letters.id",
        );
        let rows = rows.bind(key_of(run)).fetch_all(&self.pool).await.map_err(|error| self.failed(error))?;
        let first = rows.first().ok_or_else(|| no_run(run))?;
        let version = positive(first.try_get(0).map_err(|error| self.failed(error))?);
        let mut letters = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: Option<i64> = row.try_get(1).map_err(|error| self.failed(error))?;
            let text: Option<String> = row.try_get(2).map_err(|error| self.failed(error))?;
            if let (Some(id), Some(text)) = (id, text) {
                letters.push(Letter { id: positive(id), signal: body(&text)? });
            }
        }
        Ok((version, letters))
    }

    pub(super) async fn read_loaded(&self, run: RunId) -> Result<Loaded> {
        // Read in one transaction, so that all is of one moment.
        let mut tx = self.pool.begin().await.map_err(|error| self.failed(error))?;
        let row = sqlx::query("select seq, step, body from runs where id = ?").bind(key_of(run));
        let row = row.fetch_optional(&mut *tx).await.map_err(|error| self.failed(error))?.ok_or_else(|| no_run(run))?;
        let (seq, step): (i64, i64) =
            (row.try_get(0).map_err(|error| self.failed(error))?, row.try_get(1).map_err(|error| self.failed(error))?);
        let record = body(&row.try_get::<String, _>(2).map_err(|error| self.failed(error))?)?;
        let tasks = sqlx::query_scalar::<_, String>("select body from tasks where run = ?").bind(seq);
        let tasks = tasks.fetch_all(&mut *tx).await.map_err(|error| self.failed(error))?;
        let letters = sqlx::query("select id, body from letters where run = ? order by id").bind(seq);
        let letters = letters.fetch_all(&mut *tx).await.map_err(|error| self.failed(error))?;
        tx.rollback().await.map_err(|error| self.failed(error))?;
        let mut inbox = Vec::with_capacity(letters.len());
        for row in &letters {
            let id: i64 = row.try_get(0).map_err(|error| self.failed(error))?;
            let text: String = row.try_get(1).map_err(|error| self.failed(error))?;
            inbox.push(Letter { id: positive(id), signal: body(&text)? });
        }
        let tasks = in_order(&tasks)?;
        Ok(Loaded { version: positive(step), record, tasks, inbox })
    }

    pub(super) async fn read_leases(&self, run: RunId) -> Result<Vec<Lease>> {
        let rows = sqlx::query(
            "select key, number, worker, expires_us from leases where run = (select seq from runs where id = ?)",
        );
        let rows = rows.bind(key_of(run)).fetch_all(&self.pool).await.map_err(|error| self.failed(error))?;
        let mut leases = Vec::with_capacity(rows.len());
        for row in &rows {
            let failed = |error| self.failed(error);
            leases.push(Lease {
                run,
                key: task_key(&row.try_get::<String, _>("key").map_err(failed)?)?,
                number: positive(row.try_get("number").map_err(failed)?),
                worker: WorkerId::from(row.try_get::<String, _>("worker").map_err(failed)?),
                expires: moment(row.try_get("expires_us").map_err(failed)?),
            });
        }
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(leases)
    }

    pub(super) async fn read_waits(&self, after: u64, limit: usize) -> Result<Vec<PendingWait>> {
        let rows = sqlx::query(
            "select waits.id, runs.id as run, waits.key, waits.number, waits.body from waits join runs on runs.seq = waits.run
             where waits.id > ? order by waits.id limit ?",
        );
        let rows = rows.bind(most(after as usize)).bind(most(limit)).fetch_all(&self.pool).await;
        let rows = rows.map_err(|error| self.failed(error))?;
        let mut waits = Vec::with_capacity(rows.len());
        for row in &rows {
            let failed = |error| self.failed(error);
            waits.push(PendingWait {
                id: positive(row.try_get(0).map_err(failed)?),
                run: uuid_of(&row.try_get::<Vec<u8>, _>(1).map_err(failed)?)?,
                key: task_key(&row.try_get::<String, _>(2).map_err(failed)?)?,
                number: positive(row.try_get(3).map_err(failed)?),
                wait: body(&row.try_get::<String, _>(4).map_err(failed)?)?,
            });
        }
        Ok(waits)
    }

    pub(super) async fn read_runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let mut query = QueryBuilder::<Sqlite>::new("select body from runs where true");
        if let Some(flow) = &filter.flow {
            query.push(" and flow = ").push_bind(flow.as_str().to_owned());
        }
        if let Some(deployment) = &filter.deployment {
            query.push(" and deployment = ").push_bind(deployment.clone());
        }
        if !filter.states.is_empty() {
            query.push(" and state in (");
            let mut list = query.separated(", ");
            for state in &filter.states {
                list.push_bind(state.name());
            }
            query.push(")");
        }
        let bounds: [(&str, Option<DateTime<Utc>>); 2] =
            [(" and start_us >= ", filter.from), (" and start_us <= ", filter.to)];
        for (text, bound) in bounds {
            if let Some(at) = bound {
                query.push(text).push_bind(us(at));
            }
        }
        if let Some(prefix) = &filter.prefix {
            let Some((first, last)) = ids_that_begin_with(prefix) else { return Ok(Vec::new()) };
            query.push(" and id between ").push_bind(first.to_vec()).push(" and ").push_bind(last.to_vec());
        }
        if let Some(backfill) = &filter.backfill {
            query.push(" and backfill = ").push_bind(backfill.clone());
        }
        let (later, order) = if filter.oldest_first { (">", "asc") } else { ("<", "desc") };
        if let Some(after) = filter.after {
            query
                .push(format!(" and seq {later} (select seq from runs where id = "))
                .push_bind(key_of(after))
                .push(")");
        }
        query.push(format!(" order by seq {order} limit ")).push_bind(most(filter.limit.unwrap_or(usize::MAX)));
        let texts = query.build_query_scalar::<String>().fetch_all(&self.pool).await;
        texts.map_err(|error| self.failed(error))?.iter().map(|text| body(text)).collect()
    }

    pub(super) async fn count_active(&self, flow: &FlowName) -> Result<u64> {
        let count = sqlx::query_scalar::<_, i64>("select count(*) from runs where state in (?, ?) and flow = ?");
        let count = count.bind(RunState::Running.name()).bind(RunState::Paused.name()).bind(flow.as_str());
        Ok(positive(count.fetch_one(&self.pool).await.map_err(|error| self.failed(error))?))
    }

    pub(super) async fn read_tasks(&self, run: RunId) -> Result<Vec<TaskRun>> {
        let seq: i64 =
            self.row("select seq from runs where id = ?", run).await?.try_get(0).map_err(|error| self.failed(error))?;
        let texts = sqlx::query_scalar::<_, String>("select body from tasks where run = ?").bind(seq);
        in_order(&texts.fetch_all(&self.pool).await.map_err(|error| self.failed(error))?)
    }

    pub(super) async fn read_tasks_of(&self, run: RunId, tasks: &[TaskId]) -> Result<Vec<TaskRun>> {
        let seq: i64 =
            self.row("select seq from runs where id = ?", run).await?.try_get(0).map_err(|error| self.failed(error))?;
        // An item's key is that of its task with its number in brackets.
        let texts = sqlx::query_scalar::<_, String>(
            "select body from json_each(?2) wanted join tasks on tasks.run = ?1
                and (tasks.key = wanted.value or tasks.key > wanted.value || '[' and tasks.key < wanted.value || '\\')",
        );
        let texts = texts.bind(seq).bind(json(&tasks)?).fetch_all(&self.pool).await;
        in_order(&texts.map_err(|error| self.failed(error))?)
    }

    pub(super) async fn read_last_success(&self, run: RunId) -> Result<Option<RunRecord>> {
        let text = sqlx::query_scalar::<_, String>(
            "select past.body from runs this join runs past on past.flow = this.flow and past.deployment = this.deployment
                and past.start_us < this.start_us and past.state = 'success'
             where this.id = ? order by past.start_us desc, past.seq desc limit 1",
        );
        let text = text.bind(key_of(run)).fetch_optional(&self.pool).await.map_err(|error| self.failed(error))?;
        text.map(|text| body(&text)).transpose()
    }

    pub(super) async fn read_events(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        let seq: i64 =
            self.row("select seq from runs where id = ?", run).await?.try_get(0).map_err(|error| self.failed(error))?;
        let events = sqlx::query("select id, body from events where run = ? and id > ? order by id limit ?");
        self.bodies(events.bind(seq).bind(most(after as usize)).bind(most(limit))).await
    }

    pub(super) async fn read_past(&self, run: RunId, task: &TaskId) -> Result<Option<TaskState>> {
        let row = sqlx::query(
            "select (select state from tasks where tasks.run = past.seq and tasks.key = ?2)
             from runs this join runs past on past.flow = this.flow and past.deployment = this.deployment
                and past.start_us < this.start_us
             where this.id = ?1 order by past.start_us desc, past.seq desc limit 1",
        );
        let row = row.bind(key_of(run)).bind(task.as_str()).fetch_optional(&self.pool).await;
        let Some(row) = row.map_err(|error| self.failed(error))? else { return Ok(None) };
        let state: Option<String> = row.try_get(0).map_err(|error| self.failed(error))?;
        state.map_or(Ok(Some(TaskState::None)), |state| state.parse().map(Some))
    }

    pub(super) async fn read_touched(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, RunId, flumen_core::flow::Touched)>> {
        let rows = sqlx::query(
            "select touched.id, runs.id, touched.body from touched join runs on runs.seq = touched.run
             where touched.id > ? order by touched.id limit ?",
        );
        let rows = rows.bind(most(after as usize)).bind(most(limit)).fetch_all(&self.pool).await;
        let mut touched = Vec::new();
        for row in rows.map_err(|error| self.failed(error))? {
            let failed = |error| self.failed(error);
            let run = uuid_of(&row.try_get::<Vec<u8>, _>(1).map_err(failed)?)?;
            let text: String = row.try_get(2).map_err(failed)?;
            touched.push((positive(row.try_get(0).map_err(failed)?), run, body(&text)?));
        }
        Ok(touched)
    }

    /// The bodies of a whole table, in the order that `sql` says.
    pub(super) async fn read_all<T: DeserializeOwned>(&self, sql: &'static str) -> Result<Vec<T>> {
        let texts = sqlx::query_scalar::<_, String>(sql).fetch_all(&self.pool).await;
        texts.map_err(|error| self.failed(error))?.iter().map(|text| body(text)).collect()
    }

    /// The content of a version.
    pub(super) async fn read_version(&self, version: &flumen_core::flow::FlowVersion) -> Result<bytes::Bytes> {
        let content = sqlx::query_scalar::<_, Vec<u8>>("select content from versions where hash = ?");
        let content = content.bind(version.as_str()).fetch_optional(&self.pool).await;
        let content = content.map_err(|error| self.failed(error))?;
        content
            .map(bytes::Bytes::from)
            .ok_or_else(|| Error::not_found(format!("there is no version '{}' of a flow", version.short())))
    }
}
