//! Leases and timers: renewed, ended, run out.

use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::flow::store::{Held, Renewal, Rung, Wake, not_held};
use flumen_core::flow::{Outcome, RunId, Signal, WorkerId};
use rusqlite::{Row, params};

use super::runs::{key_of, post};
use super::writer::Tx;
use crate::columns::{body, moment, most, number, positive, task_key, us};

pub(super) fn renew(tx: &Tx, worker: &WorkerId, held: &[Held], expires: DateTime<Utc>) -> Result<Vec<Renewal>> {
    let renew_one = |held: &Held| {
        let stop = tx.value::<Option<String>>(
            "update leases set expires_us = ?1
             where run = (select seq from runs where id = ?2) and key = ?3 and number = ?4 and worker = ?5 returning stop",
            params![us(expires), key_of(held.run), held.key.to_string(), number(held.number), worker.as_str()],
        )?;
        Ok(match stop {
            None => Renewal::Gone,
            Some(None) => Renewal::Held,
            Some(Some(cause)) => Renewal::Stop { cause },
        })
    };
    held.iter().map(renew_one).collect()
}

pub(super) fn finish(tx: &mut Tx, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
    let ended = tx.value::<i64>(
        "delete from leases where run = (select seq from runs where id = ?) and key = ? and number = ? returning run",
        params![key_of(held.run), held.key.to_string(), number(held.number)],
    )?;
    let Some(run) = ended else { return Err(not_held(held)) };
    tx.wake(Wake::Queue);
    let signal = Signal::Ended { key: held.key.clone(), number: held.number, outcome: outcome.clone(), at: now };
    post(tx, run, &[signal])
}

/// A lease, as it is taken back.
struct Lost {
    run: i64,
    key: String,
    number: i64,
    worker: WorkerId,
    expired: DateTime<Utc>,
}

impl Lost {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            run: row.get("run")?,
            key: row.get("key")?,
            number: row.get("number")?,
            worker: WorkerId::from(row.get::<_, String>("worker")?),
            expired: moment(row.get("expires_us")?),
        })
    }
}

/// Ends leases, and tells their runs that the worker was lost, because of what `cause` says.
fn lose(tx: &mut Tx, leases: Vec<Lost>, cause: impl Fn(&Lost) -> String, now: DateTime<Utc>) -> Result<usize> {
    let count = leases.len();
    for lost in leases {
        let key = task_key(&lost.key)?;
        let outcome = Outcome::Lost { worker: lost.worker.clone(), cause: cause(&lost) };
        tx.execute("delete from leases where run = ? and key = ?", params![lost.run, lost.key])?;
        post(tx, lost.run, &[Signal::Ended { key, number: positive(lost.number), outcome, at: now }])?;
        tx.wake(Wake::Queue);
    }
    Ok(count)
}

pub(super) fn lose_worker(tx: &mut Tx, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize> {
    let leases = tx.rows(
        "select run, key, number, worker, expires_us from leases where worker = ? order by run, key",
        params![worker.as_str()],
        Lost::read,
    )?;
    if tx.execute("delete from kept_runs where worker = ?", params![worker.as_str()])? > 0 {
        tx.wake(Wake::Queue);
    }
    lose(tx, leases, |_| cause.to_owned(), now)
}

pub(super) fn keep_for(tx: &Tx, worker: &WorkerId, runs: &[RunId]) -> Result<()> {
    for run in runs {
        let kept = "insert or replace into kept_runs (run, worker) values (?, ?)";
        tx.execute(kept, params![key_of(*run), worker.as_str()])?;
    }
    Ok(())
}

pub(super) fn expire(tx: &mut Tx, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
    let leases = tx.rows(
        "select run, key, number, worker, expires_us from leases where expires_us <= ? order by expires_us, run, key limit ?",
        params![us(now), most(limit)],
        Lost::read,
    )?;
    let cause = |lost: &Lost| {
        format!("the lease of worker {} expired {} s ago", lost.worker, (now - lost.expired).num_seconds())
    };
    let count = lose(tx, leases, cause, now)?;
    let next = tx.one::<Option<i64>>("select min(expires_us) from leases", ())?;
    Ok(Rung { count, next: next.map(moment) })
}

pub(super) fn ring(tx: &mut Tx, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
    let rung = tx.rows(
        "delete from timers where (run, timer) in (select run, timer from timers where at_us <= ? order by at_us, run, timer limit ?)
         returning run, timer, at_us",
        params![us(now), most(limit)],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)),
    )?;
    let count = rung.len();
    for (run, timer, at) in rung {
        post(tx, run, &[Signal::Due { timer: body(&timer)?, at: moment(at) }])?;
    }
    let next = tx.one::<Option<i64>>("select min(at_us) from timers", ())?;
    Ok(Rung { count, next: next.map(moment) })
}
