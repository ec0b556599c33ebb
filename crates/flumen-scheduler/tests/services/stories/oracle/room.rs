//! Which runs of a flow were open at which moment, and which had to make room.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use flumen_core::flow::{Origin, RunId, RunRecord};

use super::watch::{SLACK, Watch, is_in_force};
use super::{Verdict, is_near};
use crate::gate::Deed;
use crate::stories::facts::{Facts, FlowFacts};
use crate::stories::tables::Moment;
use crate::world::short;

/// How long a run may lie begun before it is seen to.
const HELD: TimeDelta = TimeDelta::seconds(300);

pub struct Room<'a> {
    flow: &'a FlowFacts,
    /// When runs were cancelled.
    cancelled: BTreeMap<RunId, Moment>,
    /// Runs of the schedule that were made until now.
    pub made: BTreeSet<RunId>,
}

impl<'a> Room<'a> {
    pub fn new(facts: &Facts, flow: &'a FlowFacts) -> Self {
        let cancelled = facts.deeds.iter().rev().filter_map(|done| match done.deed {
            Deed::Cancelled(run) => Some((run, done.at)),
            Deed::Advanced(_) => None,
        });
        Self { flow, cancelled: cancelled.collect(), made: BTreeSet::new() }
    }

    /// Whether a run was open at `at`: whether it may have been, and whether it must.
    fn is_open(&self, run: &RunRecord, at: Moment) -> (bool, bool) {
        let is_known = self.made.contains(&run.id) || (run.origin != Origin::Schedule && run.created <= at);
        let is_sure = self.made.contains(&run.id) || run.created + SLACK < at;
        let ended = run.ended.unwrap_or(Moment::MAX_UTC);
        // One that is being cancelled takes no room, from some moment on; until it was, it was open.
        let cancelled = self.cancelled.get(&run.id).copied();
        let may = is_known && at <= ended;
        let is_there = match cancelled {
            Some(cancelled) => at <= cancelled,
            None => at < ended,
        };
        (may, may && is_sure && is_there)
    }

    /// The least and the most runs that were open.
    pub fn open(&self, at: Moment) -> (usize, usize) {
        let open: Vec<(bool, bool)> = self.flow.runs.iter().map(|run| self.is_open(run, at)).collect();
        (open.iter().filter(|open| open.1).count(), open.iter().filter(|open| open.0).count())
    }

    /// The least and the most runs for which there was room.
    pub fn free(&self, limit: usize, at: Moment) -> (usize, usize) {
        let (least, most) = self.open(at);
        (limit.saturating_sub(most), limit.saturating_sub(least))
    }

    /// The runs that make room for another one: those that run, and then those that wait. `None` where that was too close.
    pub fn oldest(&self, limit: usize, at: Moment) -> Option<Vec<RunId>> {
        let open: Vec<&RunRecord> = self.flow.runs.iter().filter(|run| self.is_open(run, at).0).collect();
        let is_clear = |run: &&RunRecord| {
            self.is_open(run, at).1
                && !run.started.is_some_and(|started| is_near(started, at))
                && !run.ended.is_some_and(|ended| is_near(ended, at) && ended < at)
        };
        let is_close = open.iter().any(|run| !is_clear(run));
        let (active, waiting): (Vec<&RunRecord>, Vec<&RunRecord>) =
            open.iter().partition(|run| run.started.is_some_and(|started| started < at));
        let count = (open.len() + 1).saturating_sub(limit);
        let oldest = active.into_iter().chain(waiting).take(count).map(|run| run.id);
        (!is_close).then(|| oldest.collect())
    }

    /// No more runs are active at once than may be.
    pub fn is_kept(&self) -> Verdict {
        for run in &self.flow.runs {
            let Some(started) = run.started else { continue };
            let is_active = |other: &&RunRecord| {
                other.started.is_some_and(|at| at <= started) && other.ended.is_none_or(|ended| started < ended)
            };
            let active = self.flow.runs.iter().filter(is_active).count();
            let eras = || self.flow.eras.iter();
            let in_force = eras().filter(|era| is_in_force(era, started)).map(|era| era.definition.limit).max();
            let lately = eras().filter(|era| era.span.meets(started - HELD, started));
            let lately = lately.map(|era| era.definition.limit).max();
            let limit = if eras().len() == 1 { in_force } else { lately };
            if limit.is_none_or(|limit| active > limit) {
                return Err(format!("{active} runs were active when {} began", short(run.interval)));
            }
        }
        Ok(())
    }
}

/// Runs that have to make room, as far as that is clear.
#[derive(Default)]
pub struct Victims {
    fallen: BTreeMap<RunId, Moment>,
    /// When it was not clear.
    unclear: Vec<Moment>,
}

impl Victims {
    pub fn fall(&mut self, runs: Option<Vec<RunId>>, at: Moment) {
        match runs {
            Some(runs) => {
                for run in runs {
                    self.fallen.entry(run).or_insert(at);
                }
            }
            None => self.unclear.push(at),
        }
    }

    /// They are cancelled soon, or end by themselves; and no others are.
    pub fn are(&self, facts: &Facts, flow: &FlowFacts, watch: &Watch<'_>) -> Verdict {
        let mut cancelled = BTreeMap::new();
        for done in &facts.deeds {
            if let Deed::Cancelled(run) = done.deed {
                cancelled.entry(run).or_insert(done.at);
            }
        }
        for run in &flow.runs {
            let shown = short(run.interval);
            let fell = self.fallen.get(&run.id);
            let is_cancelled = cancelled.get(&run.id);
            if let Some(at) = is_cancelled
                && fell.is_none()
                && !self.unclear.iter().any(|unclear| unclear <= at)
            {
                return Err(format!("{shown} was cancelled at {at} for no run"));
            }
            if let Some(fell) = fell {
                let gone = is_cancelled.copied().into_iter().chain(run.ended).min().unwrap_or(facts.end);
                if watch.must_by(*fell).is_some_and(|(by, _)| by < gone) {
                    return Err(format!("{shown} was to make room at {fell}, and did at {gone}"));
                }
            }
        }
        Ok(())
    }
}
