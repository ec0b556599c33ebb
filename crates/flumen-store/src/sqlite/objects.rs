//! What is kept besides runs: schedules' cursors, backfills, versions of flows, pools, workers, notices.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Advance, Backfill, Created, PendingNotice, Pool, PoolUse, Rate, Wake, WorkerRecord};
use flumen_core::flow::{FlowName, FlowVersion};
use flumen_core::{Error, ErrorKind, Result};
use rusqlite::{Row, params};

use super::runs::create;
use super::writer::Tx;
use crate::columns::{body, json, most, positive, us};

pub(super) fn advance(tx: &mut Tx, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
    let is = tx.value::<String>("select value from cursors where name = ?", params![advance.schedule])?;
    if is != advance.from {
        let message = format!("schedule '{}' was moved on meanwhile", advance.schedule);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let moved = "insert or replace into cursors (name, value) values (?, ?)";
    tx.execute(moved, params![advance.schedule, advance.to])?;
    advance.runs.iter().map(|new| create(tx, new, now)).collect()
}

pub(super) fn save_backfill(tx: &mut Tx, backfill: &Backfill) -> Result<()> {
    let saved = "insert or replace into backfills (id, created_us, body) values (?, ?, ?)";
    tx.execute(saved, params![backfill.id, us(backfill.created), json(backfill)?])?;
    tx.wake(Wake::Run);
    Ok(())
}

pub(super) fn save_version(
    tx: &Tx,
    flow: &FlowName,
    version: &FlowVersion,
    content: &Bytes,
    now: DateTime<Utc>,
) -> Result<()> {
    let saved = "insert or replace into versions (hash, flow, saved_us, content) values (?, ?, ?, ?)";
    tx.execute(saved, params![version.as_str(), flow.as_str(), us(now), &content[..]]).map(drop)
}

pub(super) fn set_paused(tx: &mut Tx, flow: &FlowName, paused: bool) -> Result<()> {
    let sql = match paused {
        true => "insert or ignore into paused (flow) values (?)",
        false => "delete from paused where flow = ?",
    };
    tx.execute(sql, params![flow.as_str()])?;
    tx.wake(Wake::Run);
    Ok(())
}

pub(super) fn set_variable(tx: &Tx, name: &str, value: Option<&str>) -> Result<bool> {
    let was = tx.value::<i64>("select 1 from variables where name = ?", params![name])?.is_some();
    match value {
        Some(value) => {
            tx.execute("insert or replace into variables (name, value) values (?, ?)", params![name, value])?
        }
        None => tx.execute("delete from variables where name = ?", params![name])?,
    };
    Ok(was)
}

pub(super) fn save_pool(tx: &mut Tx, pool: &Pool) -> Result<()> {
    let per = |rate: Rate| i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX);
    tx.execute(
        "insert into pools (name, slots, rate_count, rate_us) values (?1, ?2, ?3, ?4)
         on conflict (name) do update set slots = ?2, rate_count = ?3, rate_us = ?4",
        params![pool.name, pool.slots, pool.rate.map(|rate| rate.count), pool.rate.map(per)],
    )?;
    tx.wake(Wake::Queue);
    Ok(())
}

pub(super) fn remove_pool(tx: &mut Tx, name: &str) -> Result<()> {
    if tx.execute("delete from pools where name = ?", params![name])? == 0 {
        return Err(Error::not_found(format!("there is no pool '{name}'")).hint("'flumen pool list' shows them"));
    }
    tx.wake(Wake::Queue);
    Ok(())
}

/// A pool and its use, from a row with `name`, `slots`, `rate_count`, `rate_us`, `used` and `queued`.
pub(super) fn pool_use(row: &Row<'_>) -> rusqlite::Result<PoolUse> {
    let count: Option<u32> = row.get("rate_count")?;
    let per: Option<i64> = row.get("rate_us")?;
    let rate = count.zip(per).map(|(count, per)| Rate { count, per: Duration::from_micros(positive(per)) });
    Ok(PoolUse {
        pool: Pool { name: row.get("name")?, slots: row.get("slots")?, rate },
        used: row.get("used")?,
        queued: positive(row.get("queued")?),
    })
}

pub(super) fn beat(tx: &Tx, worker: &WorkerRecord) -> Result<()> {
    let seen = "insert or replace into workers (id, seen_us, body) values (?, ?, ?)";
    tx.execute(seen, params![worker.id.as_str(), us(worker.seen), json(worker)?]).map(drop)
}

pub(super) fn take_notices(
    tx: &Tx,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<PendingNotice>> {
    let mut taken = tx.rows(
        "update notices set held_us = ?1 where id in (
            select id from notices where held_us is null or held_us <= ?2 order by id limit ?3
         ) returning id, body",
        params![us(until), us(now), most(limit)],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)),
    )?;
    taken.sort_unstable();
    taken.iter().map(|(id, text)| Ok(PendingNotice { id: positive(*id), notice: body(text)? })).collect()
}
