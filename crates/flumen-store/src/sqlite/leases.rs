//! Leases and timers: renewed, ended, run out.

use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::flow::store::{Held, Renewal, Rung, Wake, not_held};
use flumen_core::flow::{Outcome, Signal, WorkerId};
use sqlx::Row as _;

use super::queue::seq_of;
use super::runs::{execute, post};
use super::writer::Tx;
use crate::columns::{body, moment, number, task_key, us};

pub(super) async fn renew(
    tx: &mut Tx,
    worker: &WorkerId,
    held: &[Held],
    expires: DateTime<Utc>,
) -> Result<Vec<Renewal>> {
    let mut renewals = Vec::with_capacity(held.len());
    for held in held {
        let stop = sqlx::query_scalar::<_, Option<String>>(
            "update leases set expires_us = ?1
             where run = (select seq from runs where id = ?2) and key = ?3 and number = ?4 and worker = ?5 returning stop",
        )
        .bind(us(expires))
        .bind(super::runs::key_of(held.run))
        .bind(held.key.to_string())
        .bind(number(held.number))
        .bind(worker.as_str())
        .fetch_optional(&mut tx.connection)
        .await
        .map_err(|error| tx.failed(error))?;
        renewals.push(match stop {
            None => Renewal::Gone,
            Some(None) => Renewal::Held,
            Some(Some(cause)) => Renewal::Stop { cause },
        });
    }
    Ok(renewals)
}

pub(super) async fn finish(tx: &mut Tx, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
    let Some(run) = seq_of(tx, held.run).await? else { return Err(not_held(held)) };
    let ended = "delete from leases where run = ? and key = ? and number = ?";
    let ended = sqlx::query(ended).bind(run).bind(held.key.to_string()).bind(number(held.number));
    if execute(tx, ended).await? == 0 {
        return Err(not_held(held));
    }
    tx.wake(Wake::Queue);
    let signal = Signal::Ended { key: held.key.clone(), number: held.number, outcome: outcome.clone(), at: now };
    post(tx, run, &[signal]).await
}

/// Ends the leases that `rows` names, and tells their runs that the worker was lost, because of what `cause` says.
async fn lose(
    tx: &mut Tx,
    rows: Vec<sqlx::sqlite::SqliteRow>,
    cause: impl Fn(&WorkerId, DateTime<Utc>) -> String,
    now: DateTime<Utc>,
) -> Result<usize> {
    let count = rows.len();
    for row in rows {
        let failed = |error| tx.failed(error);
        let (run, key): (i64, String) = (row.try_get("run").map_err(failed)?, row.try_get("key").map_err(failed)?);
        let of: i64 = row.try_get("number").map_err(failed)?;
        let worker = WorkerId::from(row.try_get::<String, _>("worker").map_err(failed)?);
        let expired = moment(row.try_get("expires_us").map_err(failed)?);
        let cause = cause(&worker, expired);
        let outcome = Outcome::Lost { worker, cause };
        let key = task_key(&key)?;
        execute(tx, sqlx::query("delete from leases where run = ? and key = ?").bind(run).bind(key.to_string()))
            .await?;
        let number = u64::try_from(of).unwrap_or_default();
        post(tx, run, &[Signal::Ended { key, number, outcome, at: now }]).await?;
        tx.wake(Wake::Queue);
    }
    Ok(count)
}

pub(super) async fn lose_worker(tx: &mut Tx, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize> {
    let rows =
        sqlx::query("select run, key, number, worker, expires_us from leases where worker = ? order by run, key");
    let rows = rows.bind(worker.as_str()).fetch_all(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
    lose(tx, rows, |_, _| cause.to_owned(), now).await
}

pub(super) async fn expire(tx: &mut Tx, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
    let rows = sqlx::query(
        "select run, key, number, worker, expires_us from leases where expires_us <= ? order by expires_us, run, key limit ?",
    );
    let rows = rows.bind(us(now)).bind(number(limit as u64)).fetch_all(&mut tx.connection).await;
    let rows = rows.map_err(|error| tx.failed(error))?;
    let cause = |worker: &WorkerId, at: DateTime<Utc>| {
        format!("the lease of worker {worker} expired {} s ago", (now - at).num_seconds())
    };
    let count = lose(tx, rows, cause, now).await?;
    let next = sqlx::query_scalar::<_, Option<i64>>("select min(expires_us) from leases");
    let next = next.fetch_one(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
    Ok(Rung { count, next: next.map(moment) })
}

pub(super) async fn ring(tx: &mut Tx, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
    let rows = sqlx::query(
        "delete from timers where (run, timer) in (select run, timer from timers where at_us <= ? order by at_us, run, timer limit ?)
         returning run, timer, at_us",
    );
    let rows = rows.bind(us(now)).bind(number(limit as u64)).fetch_all(&mut tx.connection).await;
    let rows = rows.map_err(|error| tx.failed(error))?;
    let count = rows.len();
    for row in rows {
        let failed = |error| tx.failed(error);
        let (run, timer): (i64, String) = (row.try_get("run").map_err(failed)?, row.try_get("timer").map_err(failed)?);
        let at = moment(row.try_get("at_us").map_err(failed)?);
        post(tx, run, &[Signal::Due { timer: body(&timer)?, at }]).await?;
    }
    let next = sqlx::query_scalar::<_, Option<i64>>("select min(at_us) from timers");
    let next = next.fetch_one(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
    Ok(Rung { count, next: next.map(moment) })
}
