//! Who could see to a flow at which moment.

use chrono::TimeDelta;

use crate::stories::facts::{Era, Facts, FlowFacts, Life};
use crate::stories::tables::Moment;

/// What is done at once is done within this.
pub const SLACK: TimeDelta = TimeDelta::milliseconds(1_500);
/// A service sleeps so long at the most, and so long it may take to see that the clock was moved.
const SLEEP: TimeDelta = TimeDelta::seconds(62);
/// A store that was away is tried again within this.
const RETRY: TimeDelta = TimeDelta::seconds(24);
/// Over a store that loses calls, things are done within this. It may take many tries.
const TRIES: TimeDelta = TimeDelta::seconds(300);

/// What cannot always be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maybe {
    Yes,
    No,
    /// It was so close that both are right.
    Either,
}

/// A stretch of time in which a scheduler can see to a flow.
#[derive(Debug, Clone, Copy)]
struct Chance {
    from: Moment,
    to: Moment,
    /// By then it must have seen that it can.
    awake: Moment,
}

pub struct Watch<'a> {
    facts: &'a Facts,
    flow: &'a FlowFacts,
    /// Those of each scheduler.
    chances: Vec<Vec<Chance>>,
}

impl<'a> Watch<'a> {
    pub fn new(facts: &'a Facts, flow: &'a FlowFacts) -> Self {
        let chances = facts.lives.iter().map(|life| chances(facts, flow, life)).collect();
        Self { facts, flow, chances }
    }

    /// When what is to be done at `moment` must be done at the latest, and by which scheduler, if anybody can do it at all.
    pub fn must_by(&self, moment: Moment) -> Option<(Moment, usize)> {
        let of_life = |(place, (life, chances)): (usize, (&Life, &Vec<Chance>))| {
            let by = |chance: &Chance| {
                let from = moment.max(chance.from);
                let is_lossy = life.lossy.iter().any(|lossy| lossy.meets(from - TRIES, from + TRIES));
                let by = (from + if is_lossy { TRIES } else { SLACK }).max(chance.awake);
                (chance.to > by).then_some(by)
            };
            chances.iter().filter_map(by).min().map(|by| (by, place))
        };
        self.facts.lives.iter().zip(&self.chances).enumerate().filter_map(of_life).min()
    }

    /// Whether somebody decided, being there and allowed to.
    pub fn may(&self, by: usize, at: Moment) -> bool {
        let life = &self.facts.lives[by].span;
        life.from <= at
            && life.to.is_none_or(|to| at <= to)
            && self.flow.eras.iter().any(|era| is_in_force(era, at))
            && !self.is_paused(at)
    }

    fn is_paused(&self, at: Moment) -> bool {
        self.flow.pauses.iter().any(|pause| pause.from < at && pause.to.is_none_or(|to| at < to))
    }

    /// Whether an interval that ended at `end` ended while scheduler `by` watched, which decided about it at `at` by `era`.
    pub fn is_live(&self, by: usize, at: Moment, era: &Era, end: Moment) -> Maybe {
        let life = &self.facts.lives[by];
        // It watches since some moment between these two.
        let (mut first, mut last) = (life.span.from, life.span.from);
        let mut began = |from: Moment, seen_by: Moment, is_seen: bool| {
            if life.span.from <= seen_by && from <= at {
                if is_seen {
                    first = first.max(from);
                }
                last = last.max(seen_by);
            }
        };
        let troubles = || life.away.iter().chain(&life.lossy);
        for (place, known) in self.flow.eras.iter().enumerate() {
            let before = place.checked_sub(1).map(|before| &self.flow.eras[before]);
            // Nobody watched for what was written later.
            let is_new = before.is_none_or(|before| {
                before.span.to != Some(known.span.from) || before.definition.table != known.definition.table
            });
            if is_new && known.span.from <= era.span.from {
                let is_late = troubles().any(|trouble| trouble.meets(known.span.from - SLACK, known.span.from + RETRY));
                began(known.span.from, known.span.from + if is_late { RETRY } else { SLACK }, true);
            }
        }
        for pause in self.flow.pauses.iter() {
            let Some(to) = pause.to else { continue };
            let is_hidden =
                to - pause.from <= SLACK || troubles().any(|trouble| trouble.meets(pause.from - SLACK, to + RETRY));
            let seen_by = to + if is_hidden { TRIES } else { SLACK };
            began(to, seen_by, !is_hidden);
        }
        for (before, after) in &self.facts.jumps {
            if *after - *before > TimeDelta::seconds(180) && life.span.has(*before) {
                began(*after, *after + SLEEP, true);
            }
        }
        match end {
            end if end >= last => Maybe::Yes,
            end if end < first => Maybe::No,
            _ => Maybe::Either,
        }
    }
}

/// Whether a scheduler may go by it at `at`.
pub fn is_in_force(era: &Era, at: Moment) -> bool {
    era.span.meets(at - SLACK, at)
}

fn chances(facts: &Facts, flow: &FlowFacts, life: &Life) -> Vec<Chance> {
    let end = life.span.to.unwrap_or(facts.end);
    // All moments at which something began or ended, and how long it may take to be noticed.
    let mut marks = vec![(life.span.from, SLACK), (end, SLACK)];
    for span in flow.eras.iter().map(|era| era.span).chain(flow.pauses.iter().copied()) {
        marks.extend([Some(span.from), span.to].into_iter().flatten().map(|mark| (mark, SLACK)));
    }
    for span in &life.away {
        marks.extend([(span.from, SLACK), (span.to.unwrap_or(facts.end), RETRY)]);
    }
    marks.extend(facts.jumps.iter().flat_map(|(before, after)| [(*before, SLACK), (*after, SLEEP)]));
    marks.retain(|(mark, _)| (life.span.from..=end).contains(mark));
    marks.sort_unstable();
    let mut awake = life.span.from;
    let mut chances = Vec::new();
    for pair in marks.windows(2) {
        let ((from, wait), (to, _)) = (pair[0], pair[1]);
        awake = awake.max(from + wait);
        let middle = from + (to - from) / 2;
        let can = from < to
            && flow.eras.iter().any(|era| era.span.has(middle))
            && !flow.pauses.iter().any(|pause| pause.has(middle))
            && !life.away.iter().any(|away| away.has(middle))
            && !facts.jumps.iter().any(|(before, after)| *before <= middle && middle < *after);
        if can {
            chances.push(Chance { from, to, awake });
        }
    }
    chances
}
