//! The queue: what waits for a worker, in the order in which it comes to one.
//!
//! Runs take turns: a row's turn is one after that of its run's last row, and never before the first that still waits. So a run
//! with one row is not behind the thousand rows of another.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::{Claim, Claimed, Wake, Work, run_changed};
use flumen_core::flow::{Lease, Queued, RunId, RunRecord, Signal, TaskKey};
use flumen_core::{Error, Result};
use rusqlite::{Row, params};

use super::db::Db;
use super::runs::{listed, post};
use super::writer::Tx;
use crate::columns::{body, json, moment, most, positive, us};

/// Takes rows out, unclaimed.
///
/// Errors: `Conflict` if one is not there.
pub(super) fn remove(tx: &Tx, run: i64, id: RunId, keys: &[TaskKey]) -> Result<()> {
    for key in keys {
        if tx.execute("delete from queue where run = ?1 and key = ?2", params![run, key.to_string()])? == 0 {
            return Err(run_changed(id));
        }
    }
    Ok(())
}

/// Puts rows in, in order.
///
/// Errors: `Internal` if one is there already, or leased.
pub(super) fn put(tx: &mut Tx, run: i64, id: RunId, rows: &[Queued]) -> Result<()> {
    // The next turn of this run, by pool and priority.
    let mut turns: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for queued in rows {
        let turn = match turns.entry((queued.pool.as_str(), queued.priority)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(tx.one::<i64>(
                "select max(
                    coalesce((select min(turn) from queue where pool = ?1 and priority = ?2), 0),
                    coalesce((select max(turn) + 1 from queue where run = ?3 and pool = ?1 and priority = ?2), 0))",
                params![queued.pool, queued.priority, run],
            )?),
        };
        let put = tx.execute(
            "insert or ignore into queue (run, key, pool, priority, turn, body) select ?1, ?2, ?3, ?4, ?5, ?6
             where not exists (select 1 from leases where run = ?1 and key = ?2)",
            params![run, queued.key.to_string(), queued.pool, queued.priority, *turn, json(queued)?],
        )?;
        if put == 0 {
            return Err(Error::internal(format!("run {id}: task '{}' was to be queued a second time", queued.key)));
        }
        *turn += 1;
    }
    if !rows.is_empty() {
        tx.wake(Wake::Queue);
    }
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
    fn of(db: &Db, pool: &str) -> Result<Self> {
        let room = db.row(
            "select (select coalesce(sum(slots), 0) from leases where pool = ?1) as used, slots, rate_count, rate_us, even_us
             from (select 1) left join pools on pools.name = ?1",
            params![pool],
            |row| {
                let number = |name| row.get::<_, Option<i64>>(name);
                let mut room = Self { slots: None, used: 0, rate: None, even: number("even_us")?.map(moment) };
                room.used = u32::try_from(number("used")?.unwrap_or_default()).unwrap_or(u32::MAX);
                room.slots = number("slots")?.and_then(|slots| u32::try_from(slots).ok());
                if let (Some(count), Some(span)) = (number("rate_count")?, number("rate_us")?) {
                    let span = TimeDelta::microseconds(span);
                    room.rate = Some((span, span / i32::try_from(count.max(1)).unwrap_or(i32::MAX)));
                }
                Ok(room)
            },
        )?;
        room.ok_or_else(|| Error::internal(format!("nothing can be said of pool '{pool}'")))
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
    run: i64,
    place: (std::cmp::Reverse<i64>, i64, i64),
    queued: Queued,
}

/// The first rows of a pool that are not of the runs in `others`, a JSON list of their numbers; of the runs in `only`, a JSON list of
/// ids as text, where there is one.
fn first_rows(db: &Db, pool: &str, limit: usize, others: &str, only: Option<&str>) -> Result<VecDeque<Waiting>> {
    let read = |row: &Row<'_>| {
        let place = (std::cmp::Reverse(row.get("priority")?), row.get("turn")?, row.get("id")?);
        Ok((row.get::<_, i64>("run")?, place, row.get::<_, String>("body")?))
    };
    let rows = match only {
        None => db.rows(
            "select id, run, priority, turn, body from queue
             where pool = ?1 and run not in (select value from json_each(?3))
             order by priority desc, turn, id limit ?2",
            params![pool, most(limit), others],
            read,
        ),
        Some(only) => db.rows(
            "select id, run, priority, turn, body from queue
             where pool = ?1 and run not in (select value from json_each(?3)) and run in (
                select seq from runs where id in (select unhex(value) from json_each(?4)))
             order by priority desc, turn, id limit ?2",
            params![pool, most(limit), others, only],
            read,
        ),
    };
    rows?.into_iter().map(|(run, place, text)| Ok(Waiting { run, place, queued: body(&text)? })).collect()
}

/// Takes rows for a worker.
pub(super) fn claim(tx: &mut Tx, claim: &Claim) -> Result<Claimed> {
    let only = if claim.only.is_empty() { None } else { Some(listed(&claim.only)?) };
    let names = match claim.pools.is_empty() {
        true => tx.column("select distinct pool from queue", ())?,
        false => claim.pools.clone(),
    };
    let others = listed(&tx.column::<i64>(
        "select seq from runs where id in (select run from kept_runs where worker <> ?)",
        params![claim.worker.as_str()],
    )?)?;
    let mut pools = Vec::with_capacity(names.len());
    for pool in &names {
        let rows = first_rows(tx, pool, claim.limit, &others, only.as_deref())?;
        if !rows.is_empty() {
            pools.push((pool, Room::of(tx, pool)?, rows));
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
            tx.execute("update pools set even_us = ? where name = ?", params![room.even.map(us), pool])?;
        }
    }
    Ok(Claimed { work: lease(tx, claim, taken)?, again })
}

/// Gives leases on rows, and tells their runs.
fn lease(tx: &mut Tx, claim: &Claim, taken: Vec<(Waiting, u32)>) -> Result<Vec<Work>> {
    if taken.is_empty() {
        return Ok(Vec::new());
    }
    // Time is the floor, so that a store that was lost and made anew still gives greater numbers.
    let count = most(taken.len());
    let last = tx.one::<i64>(
        "update numbers set last = max(?1, last + 1) + ?2 - 1 returning last",
        params![us(claim.now), count],
    )?;
    let mut number = last - count;
    let mut records: HashMap<i64, RunRecord> = HashMap::new();
    let mut work = Vec::with_capacity(taken.len());
    for (row, slots) in taken {
        number += 1;
        let record = match records.entry(row.run) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(body(&tx.one::<String>("select body from runs where seq = ?", params![row.run])?)?)
            }
        };
        let (key, worker) = (row.queued.key.clone(), claim.worker.clone());
        let (.., id) = row.place;
        tx.execute("delete from queue where id = ?", params![id])?;
        tx.execute(
            "insert into leases (run, key, number, worker, expires_us, pool, slots) values (?, ?, ?, ?, ?, ?, ?)",
            params![row.run, key.to_string(), number, worker.as_str(), us(claim.expires), row.queued.pool, slots],
        )?;
        let positive = positive(number);
        let signal = Signal::Claimed { key: key.clone(), number: positive, worker: worker.clone(), at: claim.now };
        post(tx, row.run, &[signal])?;
        let lease = Lease { run: record.id, key, number: positive, worker, expires: claim.expires };
        work.push(Work { lease, queued: row.queued, run: record.clone() });
    }
    Ok(work)
}
