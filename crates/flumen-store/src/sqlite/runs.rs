//! Runs: made, told, stepped, forgotten.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Commit, Created, NewRun, Wake, no_run, run_changed};
use flumen_core::flow::{FlowName, Origin, RunId, RunState, Signal};
use flumen_core::{Error, Result};
use serde::Serialize;
use sqlx::Row as _;

use super::queue;
use super::writer::Tx;
use crate::columns::{json, us};

/// What an id is in a column.
pub(super) fn key_of(run: RunId) -> Vec<u8> {
    run.uuid().as_bytes().to_vec()
}

/// A row of the list that several rows are inserted from at once.
pub(super) fn listed<T: Serialize>(rows: &[T]) -> Result<String> {
    json(&rows)
}

/// The number that a run has within the store.
///
/// Errors: `NotFound`.
pub(super) async fn seq(tx: &mut Tx, run: RunId) -> Result<i64> {
    let found = sqlx::query_scalar("select seq from runs where id = ?").bind(key_of(run));
    let found = found.fetch_optional(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
    found.ok_or_else(|| no_run(run))
}

pub(super) async fn create(tx: &mut Tx, new: &NewRun, now: DateTime<Utc>) -> Result<Created> {
    let deployment = new.deployment.clone().unwrap_or_default();
    let known = sqlx::query_scalar::<_, Vec<u8>>(
        "select id from runs where id = ?1 union all select id from runs where flow = ?2 and deployment = ?3 and only_text = ?4 limit 1",
    )
    .bind(key_of(new.id))
    .bind(new.flow.as_str())
    .bind(&deployment)
    .bind(&new.unique)
    .fetch_optional(&mut tx.connection)
    .await
    .map_err(|error| tx.failed(error))?;
    if let Some(id) = known {
        let id = uuid_of(&id)?;
        return Ok(Created { id, new: false });
    }
    let record = crate::first_record(new, now);
    let inserted = sqlx::query_scalar::<_, i64>(
        "insert into runs (id, flow, deployment, version, start_us, state, only_text, backfill, begun, body)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning seq",
    )
    .bind(key_of(new.id))
    .bind(new.flow.as_str())
    .bind(&deployment)
    .bind(new.version.as_str())
    .bind(us(new.interval.start))
    .bind(RunState::Queued.name())
    .bind(&new.unique)
    .bind(match &new.origin {
        Origin::Backfill { id } => Some(id),
        _ => None,
    })
    .bind(new.start)
    .bind(json(&record)?)
    .fetch_one(&mut tx.connection)
    .await
    .map_err(|error| tx.failed(error))?;
    if new.start {
        post(tx, inserted, &[Signal::Start]).await?;
    }
    tx.wake(Wake::Run);
    Ok(Created { id: new.id, new: true })
}

/// Begins runs of a flow that wait for their turn.
pub(super) async fn start(tx: &mut Tx, flow: &FlowName, limit: u32) -> Result<Vec<RunId>> {
    let rows = sqlx::query(
        "select seq, id from runs where flow = ?1 and begun = 0 and ended_us is null order by seq
         limit max(0, ?2 - (select count(*) from runs where flow = ?1 and begun = 1 and ended_us is null))",
    );
    let rows = rows.bind(flow.as_str()).bind(limit).fetch_all(&mut tx.connection).await;
    let mut started = Vec::new();
    for row in rows.map_err(|error| tx.failed(error))? {
        let seq: i64 = row.try_get("seq").map_err(|error| tx.failed(error))?;
        let id: Vec<u8> = row.try_get("id").map_err(|error| tx.failed(error))?;
        execute(tx, sqlx::query("update runs set begun = 1 where seq = ?").bind(seq)).await?;
        post(tx, seq, &[Signal::Start]).await?;
        started.push(uuid_of(&id)?);
    }
    Ok(started)
}

pub(super) fn uuid_of(bytes: &[u8]) -> Result<RunId> {
    let id = sqlx::types::Uuid::from_slice(bytes);
    id.map(RunId::new).map_err(|error| Error::data("the id of a run in the store cannot be read").caused_by(error))
}

/// Puts letters into an inbox.
pub(super) async fn post(tx: &mut Tx, run: i64, signals: &[Signal]) -> Result<()> {
    for signal in signals {
        let id = sqlx::query_scalar::<_, i64>("insert into letters (run, body) values (?, ?) returning id")
            .bind(run)
            .bind(json(signal)?)
            .fetch_one(&mut tx.connection)
            .await
            .map_err(|error| tx.failed(error))?;
        sqlx::query("update runs set pending = ? where seq = ? and pending is null")
            .bind(id)
            .bind(run)
            .execute(&mut tx.connection)
            .await
            .map_err(|error| tx.failed(error))?;
        tx.wake(Wake::Inbox);
    }
    Ok(())
}

pub(super) async fn take(tx: &mut Tx, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<RunId>> {
    let rows = sqlx::query(
        "update runs set taken_us = ?1 where seq in (
            select seq from runs where pending is not null and (taken_us is null or taken_us <= ?2) order by pending limit ?3
         ) returning id, pending",
    )
    .bind(us(until))
    .bind(us(now))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut tx.connection)
    .await
    .map_err(|error| tx.failed(error))?;
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        let pending: i64 = row.try_get("pending").map_err(|error| tx.failed(error))?;
        let id: Vec<u8> = row.try_get("id").map_err(|error| tx.failed(error))?;
        taken.push((pending, uuid_of(&id)?));
    }
    taken.sort_by_key(|(pending, _)| *pending);
    Ok(taken.into_iter().map(|(_, run)| run).collect())
}

pub(super) async fn commit(tx: &mut Tx, commit: &Commit) -> Result<u64> {
    let run = seq(tx, commit.run).await?;
    let step = i64::try_from(commit.version).unwrap_or(i64::MAX);
    let record = &commit.record;
    // The letters that were read leave first: what is left decides whether the run is to be stepped again.
    if !commit.read.is_empty() {
        execute(
            tx,
            sqlx::query("delete from letters where run = ?1 and id in (select value from json_each(?2))")
                .bind(run)
                .bind(listed(&commit.read)?),
        )
        .await?;
    }
    let changed = execute(
        tx,
        sqlx::query(
            "update runs set step = step + 1, taken_us = null, state = ?1, ended_us = ?2, version = ?3, body = ?4,
                pending = (select min(id) from letters where run = ?5)
             where seq = ?5 and step = ?6",
        )
        .bind(record.state.name())
        .bind(record.ended.map(us))
        .bind(record.version.as_str())
        .bind(json(record)?)
        .bind(run)
        .bind(step),
    )
    .await?;
    if changed == 0 {
        return Err(run_changed(commit.run));
    }
    if !commit.tasks.is_empty() {
        let mut rows = Vec::with_capacity(commit.tasks.len());
        for task in &commit.tasks {
            rows.push((task.key.to_string(), task.state.name(), json(task)?));
        }
        execute(
            tx,
            sqlx::query(
                "insert or replace into tasks (run, key, state, body)
                 select ?1, value ->> 0, value ->> 1, value ->> 2 from json_each(?2)",
            )
            .bind(run)
            .bind(listed(&rows)?),
        )
        .await?;
    }
    insert_bodies(tx, "events", run, &commit.events).await?;
    queue::remove(tx, run, commit.run, &commit.dequeue).await?;
    queue::put(tx, run, commit.run, &commit.enqueue).await?;
    around(tx, run, commit).await?;
    let left = sqlx::query_scalar::<_, bool>("select pending is not null from runs where seq = ?").bind(run);
    if left.fetch_one(&mut tx.connection).await.map_err(|error| tx.failed(error))? {
        tx.wake(Wake::Inbox);
    }
    tx.wake(Wake::Run);
    Ok(commit.version + 1)
}

/// The part of a commit that lies outside the run.
async fn around(tx: &mut Tx, run: i64, commit: &Commit) -> Result<()> {
    for (timer, at) in &commit.timers {
        let name = json(timer)?;
        match at {
            None => {
                execute(tx, sqlx::query("delete from timers where run = ? and timer = ?").bind(run).bind(name)).await?;
            }
            Some(at) => {
                let set = "insert or replace into timers (run, timer, at_us) values (?, ?, ?)";
                execute(tx, sqlx::query(set).bind(run).bind(name).bind(us(*at))).await?;
                let first = sqlx::query_scalar::<_, Option<i64>>("select min(at_us) from timers");
                let first = first.fetch_one(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
                if first.is_some_and(|first| first >= us(*at)) {
                    tx.wake(Wake::Timer);
                }
            }
        }
    }
    for (key, number, cause) in &commit.stops {
        let stop = "update leases set stop = ? where run = ? and key = ? and number = ?";
        let number = i64::try_from(*number).unwrap_or(i64::MAX);
        if execute(tx, sqlx::query(stop).bind(cause).bind(run).bind(key.to_string()).bind(number)).await? > 0 {
            tx.wake(Wake::Stop);
        }
    }
    for (key, wait) in &commit.waits {
        let gone = "delete from waits where run = ? and key = ?";
        execute(tx, sqlx::query(gone).bind(run).bind(key.to_string())).await?;
        if let Some((number, wait)) = wait {
            let begun = "insert into waits (run, key, number, body) values (?, ?, ?, ?)";
            let number = i64::try_from(*number).unwrap_or(i64::MAX);
            execute(tx, sqlx::query(begun).bind(run).bind(key.to_string()).bind(number).bind(json(wait)?)).await?;
            tx.wake(Wake::Wait);
        }
    }
    if insert_bodies(tx, "notices", run, &commit.notices).await? {
        tx.wake(Wake::Notice);
    }
    if insert_bodies(tx, "touched", run, &commit.touched).await? {
        tx.wake(Wake::Wait);
    }
    if commit.to_next.is_empty() {
        return Ok(());
    }
    let next = sqlx::query_scalar::<_, i64>(
        "select next.seq from runs this join runs next on next.flow = this.flow and next.deployment = this.deployment
            and next.start_us > this.start_us
         where this.seq = ? order by next.start_us, next.seq limit 1",
    );
    let next = next.bind(run).fetch_optional(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
    match next {
        Some(next) => post(tx, next, &commit.to_next).await,
        None => Ok(()),
    }
}

/// Inserts rows that are a body and nothing else; whether there were any.
async fn insert_bodies<T: Serialize>(tx: &mut Tx, table: &'static str, run: i64, rows: &[T]) -> Result<bool> {
    if rows.is_empty() {
        return Ok(false);
    }
    let bodies = rows.iter().map(json).collect::<Result<Vec<_>>>()?;
    let mut sql = String::new();
    // The name of the table is one of ours.
    let _ = write!(sql, "insert into {table} (run, body) select ?1, value from json_each(?2) order by key");
    execute(tx, sqlx::query(sqlx::AssertSqlSafe(sql)).bind(run).bind(listed(&bodies)?)).await?;
    Ok(true)
}

pub(super) async fn prune(tx: &mut Tx, before: DateTime<Utc>, limit: usize) -> Result<usize> {
    let old = sqlx::query_scalar::<_, i64>(
        "select seq from runs where ended_us < ? and state in ('success', 'failed', 'cancelled') order by ended_us limit ?",
    );
    let old = old.bind(us(before)).bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let old = old.fetch_all(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
    let list = listed(&old)?;
    for table in ["tasks", "events", "letters", "queue", "leases", "timers", "waits", "notices", "touched"] {
        let sql = format!("delete from {table} where run in (select value from json_each(?))");
        execute(tx, sqlx::query(sqlx::AssertSqlSafe(sql)).bind(list.clone())).await?;
    }
    execute(tx, sqlx::query("delete from runs where seq in (select value from json_each(?))").bind(list)).await?;
    let unused = "delete from versions where saved_us < ? and not exists (select 1 from runs where runs.version = versions.hash)";
    execute(tx, sqlx::query(unused).bind(us(before))).await?;
    Ok(old.len())
}

/// Executes a statement; how many rows it changed.
pub(super) async fn execute(
    tx: &mut Tx,
    query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
) -> Result<u64> {
    let done = query.execute(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
    Ok(done.rows_affected())
}
