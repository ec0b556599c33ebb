//! What is kept besides runs: schedules' cursors, backfills, versions of flows, pools, workers.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Advance, Backfill, Created, Pool, PoolUse, Rate, Wake, WorkerRecord};
use flumen_core::flow::{FlowName, FlowVersion};
use flumen_core::{Error, ErrorKind, Result};
use sqlx::Row as _;

use super::runs::{create, execute};
use super::writer::Tx;
use crate::columns::{json, us};

pub(super) async fn advance(tx: &mut Tx, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
    let is = sqlx::query_scalar::<_, String>("select value from cursors where name = ?").bind(&advance.schedule);
    let is = is.fetch_optional(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
    if is != advance.from {
        let message = format!("schedule '{}' was moved on meanwhile", advance.schedule);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let moved = sqlx::query("insert or replace into cursors (name, value) values (?, ?)");
    execute(tx, moved.bind(&advance.schedule).bind(&advance.to)).await?;
    let mut created = Vec::with_capacity(advance.runs.len());
    for new in &advance.runs {
        created.push(create(tx, new, now).await?);
    }
    Ok(created)
}

pub(super) async fn save_backfill(tx: &mut Tx, backfill: &Backfill) -> Result<()> {
    let saved = sqlx::query("insert or replace into backfills (id, created_us, body) values (?, ?, ?)");
    execute(tx, saved.bind(&backfill.id).bind(us(backfill.created)).bind(json(backfill)?)).await?;
    tx.wake(Wake::Run);
    Ok(())
}

pub(super) async fn save_version(
    tx: &mut Tx,
    flow: &FlowName,
    version: &FlowVersion,
    content: &Bytes,
    now: DateTime<Utc>,
) -> Result<()> {
    let saved = sqlx::query("insert or replace into versions (hash, flow, saved_us, content) values (?, ?, ?, ?)");
    let saved = saved.bind(version.as_str()).bind(flow.as_str()).bind(us(now)).bind(content.to_vec());
    execute(tx, saved).await.map(drop)
}

pub(super) async fn set_paused(tx: &mut Tx, flow: &FlowName, paused: bool) -> Result<()> {
    let sql = match paused {
        true => "insert or ignore into paused (flow) values (?)",
        false => "delete from paused where flow = ?",
    };
    execute(tx, sqlx::query(sql).bind(flow.as_str())).await?;
    tx.wake(Wake::Run);
    Ok(())
}

pub(super) async fn save_pool(tx: &mut Tx, pool: &Pool) -> Result<()> {
    let saved = sqlx::query(
        "insert into pools (name, slots, rate_count, rate_us) values (?1, ?2, ?3, ?4)
         on conflict (name) do update set slots = ?2, rate_count = ?3, rate_us = ?4",
    );
    let per = |rate: Rate| i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX);
    let saved = saved.bind(&pool.name).bind(pool.slots).bind(pool.rate.map(|rate| rate.count)).bind(pool.rate.map(per));
    execute(tx, saved).await?;
    tx.wake(Wake::Queue);
    Ok(())
}

pub(super) async fn remove_pool(tx: &mut Tx, name: &str) -> Result<()> {
    if execute(tx, sqlx::query("delete from pools where name = ?").bind(name)).await? == 0 {
        return Err(Error::not_found(format!("there is no pool '{name}'")).hint("'flumen pool list' shows them"));
    }
    tx.wake(Wake::Queue);
    Ok(())
}

/// A pool and its use, from a row with `name`, `slots`, `rate_count`, `rate_us`, `used` and `queued`.
pub(super) fn pool_use(row: &sqlx::sqlite::SqliteRow) -> sqlx::Result<PoolUse> {
    let count: Option<u32> = row.try_get("rate_count")?;
    let per: Option<i64> = row.try_get("rate_us")?;
    let rate = count
        .zip(per)
        .map(|(count, per)| Rate { count, per: Duration::from_micros(u64::try_from(per).unwrap_or_default()) });
    Ok(PoolUse {
        pool: Pool { name: row.try_get("name")?, slots: row.try_get("slots")?, rate },
        used: row.try_get("used")?,
        queued: u64::try_from(row.try_get::<i64, _>("queued")?).unwrap_or_default(),
    })
}

pub(super) async fn beat(tx: &mut Tx, worker: &WorkerRecord) -> Result<()> {
    let seen = sqlx::query("insert or replace into workers (id, seen_us, body) values (?, ?, ?)");
    execute(tx, seen.bind(worker.id.as_str()).bind(us(worker.seen)).bind(json(worker)?)).await.map(drop)
}

pub(super) async fn forget_workers(tx: &mut Tx, before: DateTime<Utc>) -> Result<usize> {
    let gone = execute(tx, sqlx::query("delete from workers where seen_us < ?").bind(us(before))).await?;
    Ok(usize::try_from(gone).unwrap_or(usize::MAX))
}
