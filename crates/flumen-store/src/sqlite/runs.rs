//! Runs: made, told, stepped, forgotten.

use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Commit, Created, NewRun, Taken, Wake, no_run, run_changed};
use flumen_core::flow::{FlowName, Origin, RunId, RunState, Signal};
use flumen_core::{Error, Result};
use rusqlite::params;
use serde::Serialize;

use super::db::Db;
use super::queue;
use super::reads::{letters, numbered};
use super::writer::Tx;
use crate::columns::{json, most, number, positive, us};

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
pub(super) fn seq(db: &Db, run: RunId) -> Result<i64> {
    db.value("select seq from runs where id = ?", params![key_of(run)])?.ok_or_else(|| no_run(run))
}

pub(super) fn create(tx: &mut Tx, new: &NewRun, now: DateTime<Utc>) -> Result<Created> {
    let deployment = new.deployment.clone().unwrap_or_default();
    let known = tx.value::<Vec<u8>>(
        "select id from runs where id = ?1
         union all select id from runs where flow = ?2 and deployment = ?3 and only_text = ?4 limit 1",
        params![key_of(new.id), new.flow.as_str(), deployment, new.unique],
    )?;
    if let Some(id) = known {
        return Ok(Created { id: uuid_of(&id)?, new: false });
    }
    let record = crate::first_record(new, now);
    let backfill = match &new.origin {
        Origin::Backfill { id } => Some(id),
        _ => None,
    };
    let inserted = tx.one::<i64>(
        "insert into runs (id, flow, deployment, version, start_us, state, only_text, backfill, begun, body)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) returning seq",
        params![
            key_of(new.id),
            new.flow.as_str(),
            deployment,
            new.version.as_str(),
            us(new.interval.start),
            RunState::Queued.name(),
            new.unique,
            backfill,
            new.start,
            json(&record)?
        ],
    )?;
    if new.start {
        post(tx, inserted, &[Signal::Start])?;
    }
    tx.wake(Wake::Run);
    Ok(Created { id: new.id, new: true })
}

/// Begins runs of a flow that wait for their turn.
pub(super) fn start(tx: &mut Tx, flow: &FlowName, limit: u32) -> Result<Vec<RunId>> {
    let waiting = tx.rows(
        "select seq, id from runs where flow = ?1 and begun = 0 and ended_us is null order by seq
         limit max(0, ?2 - (select count(*) from runs where flow = ?1 and begun = 1 and ended_us is null))",
        params![flow.as_str(), limit],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)),
    )?;
    let mut started = Vec::new();
    for (seq, id) in waiting {
        tx.execute("update runs set begun = 1 where seq = ?", params![seq])?;
        post(tx, seq, &[Signal::Start])?;
        started.push(uuid_of(&id)?);
    }
    Ok(started)
}

pub(super) fn uuid_of(bytes: &[u8]) -> Result<RunId> {
    let id = uuid::Uuid::from_slice(bytes);
    id.map(RunId::new).map_err(|error| Error::data("the id of a run in the store cannot be read").caused_by(error))
}

/// Puts letters into an inbox.
pub(super) fn post(tx: &mut Tx, run: i64, signals: &[Signal]) -> Result<()> {
    let mut first = None;
    for signal in signals {
        let put = "insert into letters (run, body) values (?, ?)";
        tx.execute(put, params![run, json(signal)?])?;
        first.get_or_insert(tx.connection.last_insert_rowid());
    }
    if let Some(first) = first {
        tx.execute("update runs set pending = ? where seq = ? and pending is null", params![first, run])?;
        tx.wake(Wake::Inbox);
    }
    Ok(())
}

pub(super) fn take(tx: &Tx, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<Taken>> {
    let mut taken = tx.rows(
        "update runs set taken_us = ?1 where seq in (
            select seq from runs where pending is not null and (taken_us is null or taken_us <= ?2) order by pending limit ?3
         ) returning pending, id, step, seq",
        params![us(until), us(now), most(limit)],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?)),
    )?;
    taken.sort_unstable();
    let with_letters = |(_, id, step, seq): &(i64, Vec<u8>, i64, i64)| {
        let inbox = tx.rows("select id, body from letters where run = ? order by id", params![seq], numbered)?;
        Ok(Taken { run: uuid_of(id)?, inbox: letters(&inbox).ok().map(|letters| (positive(*step), letters)) })
    };
    taken.iter().map(with_letters).collect()
}

pub(super) fn commit(tx: &mut Tx, commit: &Commit) -> Result<u64> {
    let record = &commit.record;
    // The letters that were read leave first: what is left decides whether the run is to be stepped again.
    for letter in &commit.read {
        tx.execute("delete from letters where id = ?", params![number(*letter)])?;
    }
    let changed = tx.row(
        "update runs set step = step + 1, taken_us = null, state = ?1, ended_us = ?2, version = ?3, body = ?4,
            pending = (select min(id) from letters where letters.run = runs.seq)
         where id = ?5 and step = ?6 returning seq, pending is not null",
        params![
            record.state.name(),
            record.ended.map(us),
            record.version.as_str(),
            json(record)?,
            key_of(commit.run),
            number(commit.version)
        ],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)),
    )?;
    let Some((run, left)) = changed else {
        seq(tx, commit.run)?;
        return Err(run_changed(commit.run));
    };
    for task in &commit.tasks {
        tx.execute(
            "insert or replace into tasks (run, key, state, body) values (?, ?, ?, ?)",
            params![run, task.key.to_string(), task.state.name(), json(task)?],
        )?;
    }
    insert_bodies(tx, "insert into events (run, body) values (?, ?)", run, &commit.events)?;
    queue::remove(tx, run, commit.run, &commit.dequeue)?;
    queue::put(tx, run, commit.run, &commit.enqueue)?;
    around(tx, run, commit)?;
    if left {
        tx.wake(Wake::Inbox);
    }
    tx.wake(Wake::Run);
    Ok(commit.version + 1)
}

/// The part of a commit that lies outside the run.
fn around(tx: &mut Tx, run: i64, commit: &Commit) -> Result<()> {
    for (timer, at) in &commit.timers {
        let name = json(timer)?;
        match at {
            None => drop(tx.execute("delete from timers where run = ? and timer = ?", params![run, name])?),
            Some(at) => {
                let set = "insert or replace into timers (run, timer, at_us) values (?, ?, ?)";
                tx.execute(set, params![run, name, us(*at)])?;
                let first = tx.one::<Option<i64>>("select min(at_us) from timers", ())?;
                if first.is_some_and(|first| first >= us(*at)) {
                    tx.wake(Wake::Timer);
                }
            }
        }
    }
    for (key, lease, cause) in &commit.stops {
        let stop = "update leases set stop = ? where run = ? and key = ? and number = ?";
        if tx.execute(stop, params![cause, run, key.to_string(), number(*lease)])? > 0 {
            tx.wake(Wake::Stop);
        }
    }
    for (key, wait) in &commit.waits {
        tx.execute("delete from waits where run = ? and key = ?", params![run, key.to_string()])?;
        if let Some((lease, wait)) = wait {
            let begun = "insert into waits (run, key, number, body) values (?, ?, ?, ?)";
            tx.execute(begun, params![run, key.to_string(), number(*lease), json(wait)?])?;
            tx.wake(Wake::Wait);
        }
    }
    if insert_bodies(tx, "insert into notices (run, body) values (?, ?)", run, &commit.notices)? {
        tx.wake(Wake::Notice);
    }
    if insert_bodies(tx, "insert into touched (run, body) values (?, ?)", run, &commit.touched)? {
        tx.wake(Wake::Wait);
    }
    if commit.to_next.is_empty() {
        return Ok(());
    }
    let next = tx.value::<i64>(
        "select next.seq from runs this join runs next on next.flow = this.flow and next.deployment = this.deployment
            and next.start_us > this.start_us
         where this.seq = ? order by next.start_us, next.seq limit 1",
        params![run],
    )?;
    match next {
        Some(next) => post(tx, next, &commit.to_next),
        None => Ok(()),
    }
}

/// Inserts rows that are a body and nothing else; whether there were any.
fn insert_bodies<T: Serialize>(tx: &Tx, insert: &'static str, run: i64, rows: &[T]) -> Result<bool> {
    for row in rows {
        tx.execute(insert, params![run, json(row)?])?;
    }
    Ok(!rows.is_empty())
}

pub(super) fn prune(tx: &Tx, before: DateTime<Utc>, limit: usize) -> Result<usize> {
    let old = tx.column::<i64>(
        "select seq from runs where ended_us < ? and state in ('success', 'failed', 'cancelled') order by ended_us, seq limit ?",
        params![us(before), most(limit)],
    )?;
    let list = listed(&old)?;
    for table in ["tasks", "events", "letters", "queue", "leases", "timers", "waits", "notices", "touched"] {
        let sql = format!("delete from {table} where run in (select value from json_each(?))");
        tx.execute(&sql, params![list])?;
    }
    let kept = "delete from kept_runs where run in (select id from runs where seq in (select value from json_each(?)))";
    tx.execute(kept, params![list])?;
    tx.execute("delete from runs where seq in (select value from json_each(?))", params![list])?;
    let unused = "delete from versions where saved_us < ? and not exists (select 1 from runs where runs.version = versions.hash)";
    tx.execute(unused, params![us(before)])?;
    Ok(old.len())
}
