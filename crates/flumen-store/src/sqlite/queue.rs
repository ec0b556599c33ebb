//! The queue: what waits for a worker, in the order in which it comes to one.
//!
//! Runs take turns: a row's turn is one after that of its run's last row, and never before the first that still waits. So a run
//! with one row is not behind the thousand rows of another.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::{Claim, Claimed, Wake, Work, run_changed};
use flumen_core::flow::{Lease, Queued, RunId, RunRecord, Signal, TaskKey};
use flumen_core::{Error, Result};
use sqlx::Row as _;

use super::runs::{execute, key_of, listed, post};
use super::writer::Tx;
use crate::columns::{body, json, moment, us};

/// Takes rows out, unclaimed.
///
/// Errors: `Conflict` if one is not there.
pub(super) async fn remove(tx: &mut Tx, run: i64, id: RunId, keys: &[TaskKey]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let gone = "delete from queue where run = ?1 and key in (select value from json_each(?2))";
    let gone = execute(tx, sqlx::query(gone).bind(run).bind(listed(keys)?)).await?;
    if gone == keys.len() as u64 { Ok(()) } else { Err(run_changed(id)) }
}

/// Puts rows in, in order.
///
/// Errors: `Internal` if one is there already, or leased.
pub(super) async fn put(tx: &mut Tx, run: i64, id: RunId, rows: &[Queued]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let keys: Vec<&TaskKey> = rows.iter().map(|queued| &queued.key).collect();
    let twice = sqlx::query_scalar::<_, String>(
        "select key from queue where run = ?1 and key in (select value from json_each(?2))
         union all select key from leases where run = ?1 and key in (select value from json_each(?2)) limit 1",
    );
    let twice = twice.bind(run).bind(listed(&keys)?).fetch_optional(&mut tx.connection).await;
    if let Some(key) = twice.map_err(|error| tx.failed(error))? {
        return Err(Error::internal(format!("run {id}: task '{key}' was to be queued a second time")));
    }
    // The next turn of this run, by pool and priority.
    let mut turns: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    let mut list = Vec::with_capacity(rows.len());
    for queued in rows {
        let line = (queued.pool.as_str(), queued.priority);
        let turn = match turns.entry(line) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let turn = sqlx::query_scalar::<_, i64>(
                    "select max(
                        coalesce((select min(turn) from queue where pool = ?1 and priority = ?2), 0),
                        coalesce((select max(turn) + 1 from queue where run = ?3 and pool = ?1 and priority = ?2), 0))",
                );
                let turn = turn.bind(&queued.pool).bind(queued.priority).bind(run).fetch_one(&mut tx.connection);
                let turn = turn.await.map_err(|error| tx.failed(error))?;
                place.insert(turn)
            }
        };
        list.push((queued.key.to_string(), &queued.pool, queued.priority, *turn, json(queued)?));
        *turn += 1;
    }
    execute(
        tx,
        sqlx::query(
            "insert into queue (run, key, pool, priority, turn, body)
             select ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each(?2) order by json_each.key",
        )
        .bind(run)
        .bind(listed(&list)?),
    )
    .await?;
    tx.wake(Wake::Queue);
    Ok(())
}

/// What a pool allows.
struct Room {
    slots: Option<u32>,
    used: u32,
    /// The period of its rate, and the share of one.
    rate: Option<(TimeDelta, TimeDelta)>,
    even: Option<DateTime<Utc>>,
}

impl Room {
    async fn of(tx: &mut Tx, pool: &str) -> Result<Self> {
        let used = sqlx::query_scalar::<_, i64>("select coalesce(sum(slots), 0) from leases where pool = ?").bind(pool);
        let used = used.fetch_one(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
        let limits = sqlx::query("select slots, rate_count, rate_us, even_us from pools where name = ?").bind(pool);
        let limits = limits.fetch_optional(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
        let mut room = Self { slots: None, used: u32::try_from(used).unwrap_or(u32::MAX), rate: None, even: None };
        let Some(row) = limits else { return Ok(room) };
        let number = |name| row.try_get::<Option<i64>, _>(name).map_err(|error| tx.failed(error));
        room.slots = number("slots")?.and_then(|slots| u32::try_from(slots).ok());
        room.even = number("even_us")?.map(moment);
        if let (Some(count), Some(span)) = (number("rate_count")?, number("rate_us")?) {
            let span = TimeDelta::microseconds(span);
            room.rate = Some((span, span / i32::try_from(count.max(1)).unwrap_or(i32::MAX)));
        }
        Ok(room)
    }

    /// The slots that a row takes which wants `wanted`, if there are so many now.
    fn fits(&self, wanted: u32) -> Option<u32> {
        let all = self.slots.unwrap_or(u32::MAX);
        let wanted = wanted.min(all);
        (all > 0 && self.used.saturating_add(wanted) <= all).then_some(wanted)
    }

    /// When the rate lets the next one begin, if not now.
    fn later(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let ((span, step), even) = (self.rate?, self.even?);
        let begin = even - (span - step);
        (begin > now).then_some(begin)
    }

    fn begin(&mut self, slots: u32, now: DateTime<Utc>) {
        self.used = self.used.saturating_add(slots);
        if let Some((_, step)) = self.rate {
            self.even = Some(self.even.map_or(now, |even| even.max(now)) + step);
        }
    }
}

/// A row of the queue.
struct Waiting {
    id: i64,
    run: i64,
    place: (std::cmp::Reverse<i64>, i64, i64),
    queued: Queued,
}

/// The first rows of a pool; of the runs in `only`, a JSON list of ids as text, where there is one.
async fn first_rows(tx: &mut Tx, pool: &str, limit: usize, only: Option<&str>) -> Result<Vec<Waiting>> {
    let rows = match only {
        None => sqlx::query(
            "select id, run, priority, turn, body from queue where pool = ?1 order by priority desc, turn, id limit ?2",
        ),
        Some(_) => sqlx::query(
            "select id, run, priority, turn, body from queue where pool = ?1 and run in (
                select seq from runs where id in (select unhex(value) from json_each(?3)))
             order by priority desc, turn, id limit ?2",
        ),
    };
    let rows = rows.bind(pool).bind(i64::try_from(limit).unwrap_or(i64::MAX)).bind(only);
    let rows = rows.fetch_all(&mut tx.connection).await;
    let rows = rows.map_err(|error| tx.failed(error))?;
    let mut waiting = Vec::with_capacity(rows.len());
    for row in rows {
        let number = |name| row.try_get::<i64, _>(name).map_err(|error| tx.failed(error));
        let text: String = row.try_get("body").map_err(|error| tx.failed(error))?;
        let id = number("id")?;
        let place = (std::cmp::Reverse(number("priority")?), number("turn")?, id);
        waiting.push(Waiting { id, run: number("run")?, place, queued: body(&text)? });
    }
    Ok(waiting)
}

/// The pools in which something waits.
async fn used_pools(tx: &mut Tx) -> Result<Vec<String>> {
    let names = sqlx::query_scalar("select distinct pool from queue");
    names.fetch_all(&mut tx.connection).await.map_err(|error| tx.failed(error))
}

/// Takes rows for a worker.
pub(super) async fn claim(tx: &mut Tx, claim: &Claim) -> Result<Claimed> {
    let only = if claim.only.is_empty() { None } else { Some(listed(&claim.only)?) };
    let names = if claim.pools.is_empty() { used_pools(tx).await? } else { claim.pools.clone() };
    let mut pools = Vec::with_capacity(names.len());
    for pool in &names {
        let rows = first_rows(tx, pool, claim.limit, only.as_deref()).await?;
        if !rows.is_empty() {
            pools.push((pool, Room::of(tx, pool).await?, std::collections::VecDeque::from(rows)));
        }
    }
    let mut taken: Vec<(Waiting, u32)> = Vec::new();
    let mut again = None;
    while taken.len() < claim.limit {
        again = None;
        let mut first: Option<(usize, u32)> = None;
        for (index, (_, room, rows)) in pools.iter().enumerate() {
            let Some(row) = rows.front() else { continue };
            let Some(slots) = room.fits(row.queued.slots) else { continue };
            if let Some(at) = room.later(claim.now) {
                again = Some(again.map_or(at, |other: DateTime<Utc>| other.min(at)));
                continue;
            }
            let is_first = first.is_none_or(|(best, _): (usize, u32)| {
                pools[best].2.front().is_some_and(|other| row.place < other.place)
            });
            if is_first {
                first = Some((index, slots));
            }
        }
        let Some((index, slots)) = first else { break };
        let (_, room, rows) = &mut pools[index];
        let Some(row) = rows.pop_front() else { break };
        room.begin(slots, claim.now);
        taken.push((row, slots));
    }
    for (pool, room, _) in &pools {
        if room.rate.is_some() {
            let even = sqlx::query("update pools set even_us = ? where name = ?").bind(room.even.map(us)).bind(*pool);
            execute(tx, even).await?;
        }
    }
    let work = lease(tx, claim, taken).await?;
    Ok(Claimed { work, again })
}

/// Gives leases on what was taken, and tells its runs.
async fn lease(tx: &mut Tx, claim: &Claim, taken: Vec<(Waiting, u32)>) -> Result<Vec<Work>> {
    if taken.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = taken.iter().map(|(row, _)| row.id).collect();
    execute(tx, sqlx::query("delete from queue where id in (select value from json_each(?))").bind(listed(&ids)?))
        .await?;
    // Time is the floor, so that a store that was lost and made anew still gives greater numbers.
    let last = sqlx::query_scalar::<_, i64>("update numbers set last = max(?1, last + 1) + ?2 - 1 returning last");
    let count = i64::try_from(taken.len()).unwrap_or(i64::MAX);
    let last = last.bind(us(claim.now)).bind(count).fetch_one(&mut tx.connection).await;
    let mut number = last.map_err(|error| tx.failed(error))? - count;
    let mut records: HashMap<i64, RunRecord> = HashMap::new();
    let mut work = Vec::with_capacity(taken.len());
    for (row, slots) in taken {
        number += 1;
        let record = match records.get(&row.run) {
            Some(record) => record.clone(),
            None => {
                let text = sqlx::query_scalar::<_, String>("select body from runs where seq = ?").bind(row.run);
                let text = text.fetch_one(&mut tx.connection).await.map_err(|error| tx.failed(error))?;
                let record: RunRecord = body(&text)?;
                records.insert(row.run, record.clone());
                record
            }
        };
        let key = row.queued.key.clone();
        let leased =
            "insert into leases (run, key, number, worker, expires_us, pool, slots) values (?, ?, ?, ?, ?, ?, ?)";
        let leased = sqlx::query(leased)
            .bind(row.run)
            .bind(key.to_string())
            .bind(number)
            .bind(claim.worker.as_str())
            .bind(us(claim.expires))
            .bind(&row.queued.pool)
            .bind(i64::from(slots));
        execute(tx, leased).await?;
        let positive = u64::try_from(number).unwrap_or_default();
        let signal =
            Signal::Claimed { key: key.clone(), number: positive, worker: claim.worker.clone(), at: claim.now };
        post(tx, row.run, &[signal]).await?;
        let lease =
            Lease { run: record.id, key, number: positive, worker: claim.worker.clone(), expires: claim.expires };
        work.push(Work { lease, queued: row.queued, run: record });
    }
    Ok(work)
}

/// Whether a run is in the store under this number; for those who hold only its id.
pub(super) async fn seq_of(tx: &mut Tx, run: RunId) -> Result<Option<i64>> {
    let found = sqlx::query_scalar("select seq from runs where id = ?").bind(key_of(run));
    found.fetch_optional(&mut tx.connection).await.map_err(|error| tx.failed(error))
}
