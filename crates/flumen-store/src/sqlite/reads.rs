//! Looking: by connections of their own, which see what was last committed and hold nobody up.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Letter, Loaded, PendingWait, RunFilter, no_run};
use flumen_core::flow::{
    Event, FlowVersion, Lease, RunId, RunRecord, RunState, TaskId, TaskRun, TaskState, Touched, WorkerId,
};
use flumen_core::{Error, Result};
use rusqlite::types::Value;
use rusqlite::{Params, Row, params, params_from_iter};
use serde::de::DeserializeOwned;

use super::db::Db;
use super::runs::{key_of, listed, seq, uuid_of};
use crate::columns::{are_open, body, ids_that_begin_with, in_order, moment, most, number, positive, task_key, us};

/// An id and a text after it.
pub(super) fn numbered(row: &Row<'_>) -> rusqlite::Result<(i64, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

/// The bodies that a query gives.
pub(super) fn bodies<T: DeserializeOwned>(db: &Db, sql: &str, params: impl Params) -> Result<Vec<T>> {
    db.column::<String>(sql, params)?.iter().map(|text| body(text)).collect()
}

/// Whether anything waits for a worker.
pub(super) fn has_queue(db: &Db) -> Result<bool> {
    db.one("select exists (select 1 from queue)", ())
}

pub(super) fn run(db: &Db, run: RunId) -> Result<RunRecord> {
    let text = db.value::<String>("select body from runs where id = ?", params![key_of(run)])?;
    body(&text.ok_or_else(|| no_run(run))?)
}

pub(super) fn letters(rows: &[(i64, String)]) -> Result<Vec<Letter>> {
    rows.iter().map(|(id, text)| Ok(Letter { id: positive(*id), signal: body(text)? })).collect()
}

pub(super) fn inbox(db: &Db, run: RunId) -> Result<(u64, Vec<Letter>)> {
    // One statement, so that both are of one moment.
    let rows = db.rows(
        "select runs.step, letters.id, letters.body from runs left join letters on letters.run = runs.seq
         where runs.id = ? order by letters.id",
        params![key_of(run)],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<String>>(2)?)),
    )?;
    let (version, ..) = rows.first().ok_or_else(|| no_run(run))?;
    let version = positive(*version);
    let rows: Vec<(i64, String)> = rows.into_iter().filter_map(|(_, id, text)| id.zip(text)).collect();
    Ok((version, letters(&rows)?))
}

pub(super) fn loaded(db: &Db, run: RunId) -> Result<Loaded> {
    // Read in one transaction, so that all is of one moment.
    let transaction = db.connection.unchecked_transaction().map_err(|error| db.failed(error))?;
    let row = db.row("select seq, step, body from runs where id = ?", params![key_of(run)], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
    });
    let (seq, step, record) = row?.ok_or_else(|| no_run(run))?;
    let tasks = db.column::<String>("select body from tasks where run = ?", params![seq])?;
    let inbox = db.rows("select id, body from letters where run = ? order by id", params![seq], numbered)?;
    drop(transaction);
    let (record, tasks) = (body(&record)?, in_order(&tasks)?);
    Ok(Loaded { version: positive(step), record, tasks, inbox: letters(&inbox)? })
}

pub(super) fn leases(db: &Db, run: RunId) -> Result<Vec<Lease>> {
    let rows = db.rows(
        "select key, number, worker, expires_us from leases where run = (select seq from runs where id = ?)",
        params![key_of(run)],
        |row| {
            let (key, worker) = (row.get::<_, String>(0)?, row.get::<_, String>(2)?);
            Ok((key, row.get::<_, i64>(1)?, worker, row.get::<_, i64>(3)?))
        },
    )?;
    let lease = |(key, number, worker, expires): (String, i64, String, i64)| {
        let (key, worker) = (task_key(&key)?, WorkerId::from(worker));
        Ok(Lease { run, key, number: positive(number), worker, expires: moment(expires) })
    };
    let mut leases = rows.into_iter().map(lease).collect::<Result<Vec<_>>>()?;
    leases.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(leases)
}

pub(super) fn waits(db: &Db, after: u64, limit: usize) -> Result<Vec<PendingWait>> {
    let rows = db.rows(
        "select waits.id, runs.id, waits.key, waits.number, waits.body from waits join runs on runs.seq = waits.run
         where waits.id > ? order by waits.id limit ?",
        params![number(after), most(limit)],
        |row| {
            let (run, key, text) = (row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(4)?);
            Ok((row.get::<_, i64>(0)?, run, key, row.get::<_, i64>(3)?, text))
        },
    )?;
    let wait = |(id, run, key, number, text): (i64, Vec<u8>, String, i64, String)| {
        let (run, key, wait) = (uuid_of(&run)?, task_key(&key)?, body(&text)?);
        Ok(PendingWait { id: positive(id), run, key, number: positive(number), wait })
    };
    rows.into_iter().map(wait).collect()
}

pub(super) fn runs(db: &Db, filter: &RunFilter) -> Result<Vec<RunRecord>> {
    match query_of(filter) {
        Some((sql, values)) => bodies(db, &sql, params_from_iter(values)),
        None => Ok(Vec::new()),
    }
}

/// The statement for a filter, with its values; `None` where nothing can match.
fn query_of(filter: &RunFilter) -> Option<(String, Vec<Value>)> {
    let mut sql = "select body from runs where true".to_owned();
    let mut values: Vec<Value> = Vec::new();
    let mut and = |text: &str, value: Value| {
        sql.push_str(text);
        values.push(value);
    };
    if let Some(flow) = &filter.flow {
        and(" and flow = ?", flow.to_string().into());
    }
    if let Some(deployment) = &filter.deployment {
        and(" and deployment = ?", deployment.clone().into());
    }
    for (index, state) in filter.states.iter().enumerate() {
        let text = match (index, index + 1 == filter.states.len()) {
            (0, true) => " and state = ?",
            (0, false) => " and state in (?",
            (_, false) => ", ?",
            (_, true) => ", ?)",
        };
        and(text, state.name().to_owned().into());
    }
    if let Some(from) = filter.from {
        and(" and start_us >= ?", us(from).into());
    }
    if let Some(to) = filter.to {
        and(" and start_us <= ?", us(to).into());
    }
    if let Some(prefix) = &filter.prefix {
        let (first, last) = ids_that_begin_with(prefix)?;
        and(" and id between ?", first.to_vec().into());
        and(" and ?", last.to_vec().into());
    }
    if let Some(backfill) = &filter.backfill {
        // The sign keeps its index from being used: it would go over all the runs that the backfill ever had.
        and(if are_open(filter) { " and +backfill = ?" } else { " and backfill = ?" }, backfill.clone().into());
    }
    let (later, order) = if filter.oldest_first { (">", "asc") } else { ("<", "desc") };
    if let Some(after) = filter.after {
        and(&format!(" and seq {later} (select seq from runs where id = ?)"), key_of(after).into());
    }
    and(&format!(" order by seq {order} limit ?"), most(filter.limit.unwrap_or(usize::MAX)).into());
    Some((sql, values))
}

pub(super) fn active(db: &Db, flow: &str) -> Result<u64> {
    let sql = "select count(*) from runs where state in (?, ?) and flow = ?";
    let count = db.one::<i64>(sql, params![RunState::Running.name(), RunState::Paused.name(), flow])?;
    Ok(positive(count))
}

pub(super) fn tasks(db: &Db, run: RunId) -> Result<Vec<TaskRun>> {
    in_order(&db.column::<String>("select body from tasks where run = ?", params![seq(db, run)?])?)
}

pub(super) fn tasks_of(db: &Db, run: RunId, tasks: &[TaskId]) -> Result<Vec<TaskRun>> {
    // An item's key is that of its task with its number in brackets.
    let texts = db.column::<String>(
        "select body from json_each(?2) wanted join tasks on tasks.run = ?1
            and (tasks.key = wanted.value or tasks.key > wanted.value || '[' and tasks.key < wanted.value || '\\')",
        params![seq(db, run)?, listed(tasks)?],
    )?;
    in_order(&texts)
}

pub(super) fn last_success(db: &Db, run: RunId) -> Result<Option<RunRecord>> {
    let text = db.value::<String>(
        "select past.body from runs this join runs past on past.flow = this.flow and past.deployment = this.deployment
            and past.start_us < this.start_us and past.state = 'success'
         where this.id = ? order by past.start_us desc, past.seq desc limit 1",
        params![key_of(run)],
    )?;
    text.map(|text| body(&text)).transpose()
}

pub(super) fn events(db: &Db, run: RunId, after: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
    let rows = db.rows(
        "select id, body from events where run = ? and id > ? order by id limit ?",
        params![seq(db, run)?, number(after), most(limit)],
        numbered,
    )?;
    rows.into_iter().map(|(id, text)| Ok((positive(id), body(&text)?))).collect()
}

pub(super) fn past(db: &Db, run: RunId, task: &TaskId) -> Result<Option<TaskState>> {
    let state = db.value::<Option<String>>(
        "select (select state from tasks where tasks.run = past.seq and tasks.key = ?2)
         from runs this join runs past on past.flow = this.flow and past.deployment = this.deployment
            and past.start_us < this.start_us
         where this.id = ?1 order by past.start_us desc, past.seq desc limit 1",
        params![key_of(run), task.as_str()],
    )?;
    let Some(state) = state else { return Ok(None) };
    state.map_or(Ok(Some(TaskState::None)), |state| state.parse().map(Some))
}

pub(super) fn touched(db: &Db, after: u64, limit: usize) -> Result<Vec<(u64, RunId, Touched)>> {
    let rows = db.rows(
        "select touched.id, runs.id, touched.body from touched join runs on runs.seq = touched.run
         where touched.id > ? order by touched.id limit ?",
        params![number(after), most(limit)],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?)),
    )?;
    rows.into_iter().map(|(id, run, text)| Ok((positive(id), uuid_of(&run)?, body(&text)?))).collect()
}

pub(super) fn touched_by(db: &Db, run: RunId) -> Result<Vec<Touched>> {
    let of_run = "select body from touched where run = (select seq from runs where id = ?) order by id";
    bodies(db, of_run, params![key_of(run)])
}

pub(super) fn variables(db: &Db) -> Result<BTreeMap<String, String>> {
    let rows = db.rows("select name, value from variables", (), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.into_iter().collect())
}

pub(super) fn ended(db: &Db, before: DateTime<Utc>) -> Result<Vec<RunId>> {
    let ids = db.column::<Vec<u8>>(
        "select id from runs where ended_us < ? and state in ('success', 'failed', 'cancelled') order by ended_us, seq",
        params![us(before)],
    )?;
    ids.iter().map(|id| uuid_of(id)).collect()
}

/// The content of a version.
pub(super) fn version(db: &Db, version: &FlowVersion) -> Result<bytes::Bytes> {
    let content = db.value::<Vec<u8>>("select content from versions where hash = ?", params![version.as_str()])?;
    content
        .map(bytes::Bytes::from)
        .ok_or_else(|| Error::not_found(format!("there is no version '{}' of a flow", version.short())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn runs_are_found_without_those_that_are_not_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("flumen.db"), &Arc::from("the store")).unwrap();
        super::super::migrations::migrate(&db, "the store").unwrap();
        let plan = |filter: RunFilter| {
            let (sql, values) = query_of(&filter).unwrap();
            let read = |row: &Row<'_>| row.get::<_, String>("detail");
            db.rows(&format!("explain query plan {sql}"), params_from_iter(values), read).unwrap().join("; ")
        };
        let of_backfill = |states: Vec<RunState>| {
            plan(RunFilter { backfill: Some("b".to_owned()), states, oldest_first: true, ..RunFilter::default() })
        };
        let open = of_backfill(vec![RunState::Queued, RunState::Running]);
        assert!(open.contains("INDEX runs_state (state=?)"), "{open}");
        let all = of_backfill(Vec::new());
        assert!(all.contains("INDEX runs_backfill"), "{all}");
        let of_intervals = plan(RunFilter {
            flow: Some("f".into()),
            deployment: Some(String::new()),
            from: Some(DateTime::UNIX_EPOCH),
            to: Some(DateTime::UNIX_EPOCH),
            limit: Some(500),
            ..RunFilter::default()
        });
        let index = "INDEX runs_line (flow=? AND deployment=? AND start_us>? AND start_us<?)";
        assert!(of_intervals.contains(index), "{of_intervals}");
    }
}
