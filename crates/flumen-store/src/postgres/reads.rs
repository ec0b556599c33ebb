//! Looking. Each call is one statement, so that all of its answer is of one moment.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Letter, Loaded, PendingWait, RunFilter, no_run};
use flumen_core::flow::{
    Event, FlowName, FlowVersion, Lease, RunId, RunRecord, RunState, TaskId, TaskRun, TaskState, Touched, WorkerId,
};
use flumen_core::{Error, Result};
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgRow, Postgres};
use sqlx::types::Uuid;
use sqlx::{Decode, Row as _, Type};

use super::PostgresStore;
use super::sessions::{Ask, first};
use crate::columns::{are_open, body, ids_that_begin_with, in_order, moment, most, number, positive, task_key, us};

pub(super) fn letters(ids: &[i64], bodies: &[String]) -> Result<Vec<Letter>> {
    ids.iter().zip(bodies).map(|(id, text)| Ok(Letter { id: positive(*id), signal: body(text)? })).collect()
}

impl PostgresStore {
    /// The value at `place` of a row.
    pub(super) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(&self, row: &'r PgRow, place: usize) -> Result<T> {
        row.try_get(place).map_err(|error| self.sessions.failed(error))
    }

    /// The row of a run.
    ///
    /// Errors: `NotFound`.
    async fn row<'q>(&self, run: RunId, ask: impl Fn() -> Ask<'q> + Sync) -> Result<PgRow> {
        self.sessions.read(ask).await?.pop().ok_or_else(|| no_run(run))
    }

    /// Bodies, in the order of the answer.
    async fn bodies<'q, T: DeserializeOwned>(&self, ask: impl Fn() -> Ask<'q> + Sync) -> Result<Vec<T>> {
        let rows = self.sessions.read(ask).await?;
        rows.iter().map(|row| body(&self.get::<String>(row, 0)?)).collect()
    }

    pub(super) async fn read_run(&self, run: RunId) -> Result<RunRecord> {
        let row = self.row(run, || sqlx::query("select body from runs where id = $1").bind(run.uuid())).await?;
        body(&self.get::<String>(&row, 0)?)
    }

    pub(super) async fn read_inbox(&self, run: RunId) -> Result<(u64, Vec<Letter>)> {
        let ask = || {
            sqlx::query(
                "select step, array(select id from letters where run = seq order by id),
                    array(select body from letters where run = seq order by id)
                 from runs where id = $1",
            )
            .bind(run.uuid())
        };
        // What is decided by it is on the disk no sooner than it is itself: nothing is waited for here.
        let row = self.sessions.hint(ask).await?.pop().ok_or_else(|| no_run(run))?;
        let inbox = letters(&self.get::<Vec<i64>>(&row, 1)?, &self.get::<Vec<String>>(&row, 2)?)?;
        Ok((positive(self.get(&row, 0)?), inbox))
    }

    pub(super) async fn read_loaded(&self, run: RunId) -> Result<Loaded> {
        let ask = || {
            sqlx::query(
                "select step, body, array(select body from tasks where run = seq),
                    array(select id from letters where run = seq order by id),
                    array(select body from letters where run = seq order by id)
                 from runs where id = $1",
            )
            .bind(run.uuid())
        };
        let row = self.row(run, ask).await?;
        Ok(Loaded {
            version: positive(self.get(&row, 0)?),
            record: body(&self.get::<String>(&row, 1)?)?,
            tasks: in_order(&self.get::<Vec<String>>(&row, 2)?)?,
            inbox: letters(&self.get::<Vec<i64>>(&row, 3)?, &self.get::<Vec<String>>(&row, 4)?)?,
        })
    }

    pub(super) async fn read_leases(&self, run: RunId) -> Result<Vec<Lease>> {
        let ask = || {
            sqlx::query(
                "select key, number, worker, expires_us from leases where run = (select seq from runs where id = $1)",
            )
            .bind(run.uuid())
        };
        let rows = self.sessions.read(ask).await?;
        let lease = |row: &PgRow| {
            Ok(Lease {
                run,
                key: task_key(&self.get::<String>(row, 0)?)?,
                number: positive(self.get(row, 1)?),
                worker: WorkerId::from(self.get::<String>(row, 2)?),
                expires: moment(self.get(row, 3)?),
            })
        };
        let mut leases = rows.iter().map(lease).collect::<Result<Vec<_>>>()?;
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(leases)
    }

    pub(super) async fn read_waits(&self, after: u64, limit: usize) -> Result<Vec<PendingWait>> {
        let ask = || {
            sqlx::query(
                "select waits.id, runs.id, key, number, waits.body from waits join runs on runs.seq = waits.run
                 where waits.id > $1 order by waits.id limit $2",
            )
            .bind(number(after))
            .bind(most(limit))
        };
        let rows = self.sessions.read(ask).await?;
        let wait = |row: &PgRow| {
            Ok(PendingWait {
                id: positive(self.get(row, 0)?),
                run: RunId::new(self.get(row, 1)?),
                key: task_key(&self.get::<String>(row, 2)?)?,
                number: positive(self.get(row, 3)?),
                wait: body(&self.get::<String>(row, 4)?)?,
            })
        };
        rows.iter().map(wait).collect()
    }

    pub(super) async fn read_touched(&self, after: u64, limit: usize) -> Result<Vec<(u64, RunId, Touched)>> {
        let ask = || {
            sqlx::query(
                "select touched.id, runs.id, touched.body from touched join runs on runs.seq = touched.run
                 where touched.id > $1 order by touched.id limit $2",
            )
            .bind(number(after))
            .bind(most(limit))
        };
        let rows = self.sessions.read(ask).await?;
        let touched = |row: &PgRow| {
            Ok((positive(self.get(row, 0)?), RunId::new(self.get(row, 1)?), body(&self.get::<String>(row, 2)?)?))
        };
        rows.iter().map(touched).collect()
    }

    pub(super) async fn read_touched_by(&self, run: RunId) -> Result<Vec<Touched>> {
        let of_run = "select body from touched where run = (select seq from runs where id = $1) order by id";
        self.bodies(|| sqlx::query(of_run).bind(run.uuid())).await
    }

    pub(super) async fn read_variables(&self) -> Result<BTreeMap<String, String>> {
        let rows = self.sessions.read(|| sqlx::query("select name, value from variables")).await?;
        rows.iter().map(|row| Ok((self.get(row, 0)?, self.get(row, 1)?))).collect()
    }

    pub(super) async fn read_runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let Some(prefix) = filter.prefix.as_deref().map(ids_that_begin_with).map_or(Some(None), |ids| ids.map(Some))
        else {
            return Ok(Vec::new());
        };
        let states: Vec<&str> = filter.states.iter().map(|state| state.name()).collect();
        let (later, order) = if filter.oldest_first { (">", "asc") } else { ("<", "desc") };
        let after = format!("seq {later} (select seq from runs where id = $9)");
        // A condition for each wish, so that each set of wishes gets a plan of its own. All values are there always.
        let wishes = [
            (filter.flow.is_some(), "flow = $1"),
            (filter.deployment.is_some(), "deployment = $2"),
            (!states.is_empty(), "state = any($3)"),
            (filter.from.is_some(), "start_us >= $4"),
            (filter.to.is_some(), "start_us <= $5"),
            (prefix.is_some(), "id between $6 and $7"),
            // An expression has no index: that of the column would go over all the runs that the backfill ever had.
            (filter.backfill.is_some(), if are_open(filter) { "backfill || '' = $8" } else { "backfill = $8" }),
            (filter.after.is_some(), after.as_str()),
        ];
        let wishes: Vec<&str> = wishes.iter().filter(|(is_wish, _)| *is_wish).map(|(_, wish)| *wish).collect();
        let is_any = if wishes.is_empty() { "true".to_owned() } else { wishes.join(" and ") };
        // The number is part of the text: the plan depends on it.
        let limit = most(filter.limit.unwrap_or(usize::MAX));
        let sql = format!("select body from runs where {is_any} order by seq {order} limit {limit}");
        let ask = || {
            sqlx::query(sqlx::AssertSqlSafe(sql.as_str()))
                .bind(filter.flow.as_ref().map(FlowName::as_str))
                .bind(filter.deployment.as_deref())
                .bind(&states)
                .bind(filter.from.map(us))
                .bind(filter.to.map(us))
                .bind(prefix.map(|(low, _)| Uuid::from_bytes(low)))
                .bind(prefix.map(|(_, high)| Uuid::from_bytes(high)))
                .bind(filter.backfill.as_deref())
                .bind(filter.after.map(RunId::uuid))
        };
        self.bodies(ask).await
    }

    pub(super) async fn count_active(&self, flow: &FlowName) -> Result<u64> {
        let ask = || {
            sqlx::query("select count(*) from runs where state = any(array[$1, $2]) and flow = $3")
                .bind(RunState::Running.name())
                .bind(RunState::Paused.name())
                .bind(flow.as_str())
        };
        let rows = self.sessions.read(ask).await?;
        rows.first().map_or(Ok(0), |row| Ok(positive(self.get(row, 0)?)))
    }

    pub(super) async fn read_tasks(&self, run: RunId) -> Result<Vec<TaskRun>> {
        let ask = || {
            sqlx::query("select array(select body from tasks where run = seq) from runs where id = $1").bind(run.uuid())
        };
        let row = self.row(run, ask).await?;
        in_order(&self.get::<Vec<String>>(&row, 0)?)
    }

    pub(super) async fn read_tasks_of(&self, run: RunId, tasks: &[TaskId]) -> Result<Vec<TaskRun>> {
        let names: Vec<&str> = tasks.iter().map(TaskId::as_str).collect();
        // An item's key is that of its task with its number in brackets.
        let ask = || {
            sqlx::query(
                r#"select array(
                    select body from unnest($2::text[]) as wanted (name) join tasks on tasks.run = seq and (
                        key = wanted.name
                        or key > wanted.name || '[' collate "C" and key < wanted.name || '\' collate "C"
                    )
                 ) from runs where id = $1"#,
            )
            .bind(run.uuid())
            .bind(&names)
        };
        let row = self.row(run, ask).await?;
        in_order(&self.get::<Vec<String>>(&row, 0)?)
    }

    pub(super) async fn read_last_success(&self, run: RunId) -> Result<Option<RunRecord>> {
        let ask = || {
            sqlx::query(
                "select past.body from runs this join runs past on past.flow = this.flow
                    and past.deployment = this.deployment and past.start_us < this.start_us and past.state = 'success'
                 where this.id = $1 order by past.start_us desc, past.seq desc limit 1",
            )
            .bind(run.uuid())
        };
        Ok(self.bodies(ask).await?.pop())
    }

    pub(super) async fn read_events(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        let ask = || {
            sqlx::query(
                "select array(select id from events where run = seq and id > $2 order by id limit $3),
                    array(select body from events where run = seq and id > $2 order by id limit $3)
                 from runs where id = $1",
            )
            .bind(run.uuid())
            .bind(number(after))
            .bind(most(limit))
        };
        let row = self.row(run, ask).await?;
        let (ids, bodies) = (self.get::<Vec<i64>>(&row, 0)?, self.get::<Vec<String>>(&row, 1)?);
        ids.iter().zip(&bodies).map(|(id, text)| Ok((positive(*id), body(text)?))).collect()
    }

    pub(super) async fn read_past(&self, run: RunId, task: &TaskId) -> Result<Option<TaskState>> {
        let ask = || {
            sqlx::query(
                "select (select state from tasks where tasks.run = past.seq and tasks.key = $2)
                 from runs this join runs past on past.flow = this.flow and past.deployment = this.deployment
                    and past.start_us < this.start_us
                 where this.id = $1 order by past.start_us desc, past.seq desc limit 1",
            )
            .bind(run.uuid())
            .bind(task.as_str())
        };
        let Some(row) = self.sessions.read(ask).await?.pop() else { return Ok(None) };
        let state: Option<String> = self.get(&row, 0)?;
        state.map_or(Ok(Some(TaskState::None)), |state| state.parse().map(Some))
    }

    pub(super) async fn read_cursor(&self, schedule: &str) -> Result<Option<String>> {
        let rows =
            self.sessions.read(|| sqlx::query("select value from cursors where name = $1").bind(schedule)).await?;
        rows.first().map(|row| self.get(row, 0)).transpose()
    }

    pub(super) async fn read_paused(&self) -> Result<Vec<FlowName>> {
        let rows = self.sessions.read(|| sqlx::query("select flow from paused order by flow")).await?;
        rows.iter().map(|row| Ok(FlowName::from(self.get::<String>(row, 0)?))).collect()
    }

    pub(super) async fn read_ended(&self, before: DateTime<Utc>) -> Result<Vec<RunId>> {
        let ask = || {
            sqlx::query(
                "select id from runs where ended_us < $1 and state in ('success', 'failed', 'cancelled') order by ended_us, seq",
            )
            .bind(us(before))
        };
        let rows = self.sessions.read(ask).await?;
        rows.iter().map(|row| Ok(RunId::new(self.get::<Uuid>(row, 0)?))).collect()
    }

    /// The bodies of a whole table, in the order that `sql` says.
    pub(super) async fn read_all<T: DeserializeOwned>(&self, sql: &'static str) -> Result<Vec<T>> {
        self.bodies(|| sqlx::query(sql)).await
    }

    /// The content of a version.
    pub(super) async fn read_version(&self, version: &FlowVersion) -> Result<bytes::Bytes> {
        let ask = || sqlx::query("select content from versions where hash = $1").bind(version.as_str());
        let row = self.sessions.read(ask).await?.pop();
        let row =
            row.ok_or_else(|| Error::not_found(format!("there is no version '{}' of a flow", version.short())))?;
        let content: Vec<u8> = first(&row).map_err(|error| self.sessions.failed(error))?;
        Ok(content.into())
    }
}
