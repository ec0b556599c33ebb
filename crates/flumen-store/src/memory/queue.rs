//! The queue: what waits for a worker, in the order in which it comes to one.
//!
//! Runs take turns: a row's turn is one after that of its run's last row, and never before the first that still waits. So a run
//! with one row is not behind the thousand rows of another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::{Claim, Pool, PoolUse, Rate};
use flumen_core::flow::{Queued, RunId, TaskKey, WorkerId};

/// A row's place in its pool: the higher priority first, then by turns, then by age.
type Place = (Reverse<i32>, u64, u64);

#[derive(Debug, Default)]
pub(super) struct Queue {
    pools: BTreeMap<String, PoolQueue>,
    places: HashMap<(RunId, TaskKey), (String, Place)>,
    tails: HashMap<(RunId, String, i32), Tail>,
    next: u64,
}

/// A row that left the queue for a worker, and the slots that it got.
pub(super) struct TakenRow {
    pub(super) run: RunId,
    pub(super) queued: Queued,
    pub(super) slots: u32,
}

/// The queue of one pool, and what limits it.
#[derive(Debug, Default)]
struct PoolQueue {
    rows: BTreeMap<Place, (RunId, Queued)>,
    limits: Option<Pool>,
    used: u32,
    /// When the next would begin if they came evenly. It may run ahead of the present by one period.
    even: Option<DateTime<Utc>>,
}

/// The rows of a run in one pool at one priority.
#[derive(Debug, Default)]
struct Tail {
    rows: usize,
    turn: u64,
}

impl Queue {
    pub(super) fn holds(&self, run: RunId, key: &TaskKey) -> bool {
        self.places.contains_key(&(run, key.clone()))
    }

    pub(super) fn put(&mut self, run: RunId, queued: Queued) {
        self.next += 1;
        let pool = self.pools.entry(queued.pool.clone()).or_default();
        let priority = Reverse(queued.priority);
        let first = pool.rows.range((priority, 0, 0)..).next().map(|(place, _)| *place);
        let first = first.filter(|place| place.0 == priority).map_or(0, |place| place.1);
        let tail = self.tails.entry((run, queued.pool.clone(), queued.priority)).or_default();
        tail.turn = if tail.rows == 0 { first } else { first.max(tail.turn + 1) };
        tail.rows += 1;
        let place = (priority, tail.turn, self.next);
        self.places.insert((run, queued.key.clone()), (queued.pool.clone(), place));
        pool.rows.insert(place, (run, queued));
    }

    pub(super) fn remove(&mut self, run: RunId, key: &TaskKey) -> Option<Queued> {
        let (name, place) = self.places.remove(&(run, key.clone()))?;
        let (_, queued) = self.pools.get_mut(&name)?.rows.remove(&place)?;
        let line = (run, name, queued.priority);
        if let Some(tail) = self.tails.get_mut(&line) {
            tail.rows -= 1;
            if tail.rows == 0 {
                self.tails.remove(&line);
            }
        }
        Some(queued)
    }

    /// Takes rows for a worker, but those of runs that are `kept` for another; and when more may begin, where only a rate holds them
    /// back.
    pub(super) fn take(
        &mut self,
        claim: &Claim,
        kept: &HashMap<RunId, WorkerId>,
    ) -> (Vec<TakenRow>, Option<DateTime<Utc>>) {
        let mut taken = Vec::new();
        let mut again = None;
        while taken.len() < claim.limit {
            again = None;
            let mut first: Option<(Place, String)> = None;
            for (name, pool) in &self.pools {
                if !claim.pools.is_empty() && !claim.pools.contains(name) {
                    continue;
                }
                match pool.first(claim, kept) {
                    First::Row(place) if first.as_ref().is_none_or(|(best, _)| place < *best) => {
                        first = Some((place, name.clone()))
                    }
                    First::At(at) => again = Some(again.map_or(at, |other: DateTime<Utc>| other.min(at))),
                    _ => {}
                }
            }
            let Some((place, name)) = first else { break };
            let Some(pool) = self.pools.get_mut(&name) else { break };
            let Some((run, queued)) = pool.rows.get(&place).map(|(run, queued)| (*run, queued.clone())) else { break };
            let slots = pool.begin(queued.slots, claim.now);
            self.remove(run, &queued.key);
            taken.push(TakenRow { run, queued, slots });
        }
        (taken, again)
    }

    pub(super) fn give_back(&mut self, pool: &str, slots: u32) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.used = pool.used.saturating_sub(slots);
        }
    }

    pub(super) fn set_limits(&mut self, pool: &Pool) {
        self.pools.entry(pool.name.clone()).or_default().limits = Some(pool.clone());
    }

    pub(super) fn drop_limits(&mut self, name: &str) -> bool {
        self.pools.get_mut(name).is_some_and(|pool| pool.limits.take().is_some())
    }

    pub(super) fn pools(&self) -> Vec<PoolUse> {
        let known = |(name, pool): (&String, &PoolQueue)| {
            let limits = pool.limits.clone();
            let is_known = limits.is_some() || pool.used > 0 || !pool.rows.is_empty();
            is_known.then(|| PoolUse {
                pool: limits.unwrap_or_else(|| Pool { name: name.clone(), slots: None, rate: None }),
                used: pool.used,
                queued: pool.rows.len() as u64,
            })
        };
        self.pools.iter().filter_map(known).collect()
    }
}

/// What a pool has to give now.
enum First {
    /// Nothing.
    Nothing,
    /// This row.
    Row(Place),
    /// Something, later.
    At(DateTime<Utc>),
}

impl PoolQueue {
    fn first(&self, claim: &Claim, kept: &HashMap<RunId, WorkerId>) -> First {
        let now = claim.now;
        let is_anothers = |run: &RunId| kept.get(run).is_some_and(|worker| *worker != claim.worker);
        let is_wanted = |run: &RunId| (claim.only.is_empty() || claim.only.contains(run)) && !is_anothers(run);
        let first = self.rows.iter().find(|(_, (run, _))| is_wanted(run));
        let Some((place, (_, queued))) = first else { return First::Nothing };
        let all = self.limits.as_ref().and_then(|limits| limits.slots).unwrap_or(u32::MAX);
        let wanted = queued.slots.min(all);
        if all == 0 || self.used.saturating_add(wanted) > all {
            return First::Nothing;
        }
        match (self.limits.as_ref().and_then(|limits| limits.rate), self.even) {
            (Some(rate), Some(even)) => {
                let (span, step) = spans(rate);
                let begin = even - (span - step);
                if begin > now { First::At(begin) } else { First::Row(*place) }
            }
            _ => First::Row(*place),
        }
    }

    /// Takes slots, and a place in the rate.
    fn begin(&mut self, slots: u32, now: DateTime<Utc>) -> u32 {
        let limits = self.limits.as_ref();
        let slots = slots.min(limits.and_then(|limits| limits.slots).unwrap_or(u32::MAX));
        self.used = self.used.saturating_add(slots);
        if let Some(rate) = limits.and_then(|limits| limits.rate) {
            let (_, step) = spans(rate);
            self.even = Some(self.even.map_or(now, |even| even.max(now)) + step);
        }
        slots
    }
}

/// The period of a rate, and the share of one.
fn spans(rate: Rate) -> (TimeDelta, TimeDelta) {
    let span = TimeDelta::from_std(rate.per).unwrap_or(TimeDelta::days(365));
    (span, span / i32::try_from(rate.count.max(1)).unwrap_or(i32::MAX))
}
