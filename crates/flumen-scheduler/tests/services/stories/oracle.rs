//! Says of every interval of a story whether it was to be run, left out or missed.
//!
//! It enumerates the intervals of each definition by brute force, and goes through the decisions of the schedulers one after
//! the other: what was due, who watched, how much room there was, and what follows from that. Where a moment was so close to
//! another that either may have come first, both are right.

mod room;
mod watch;

use std::collections::{BTreeMap, VecDeque};

use chrono::TimeDelta;
use flumen_core::flow::{Interval, Origin, RunId};
use flumen_flow::definition::{Catchup, OnOverlap};
use serde_json::Value;

use self::room::{Room, Victims};
use self::watch::{Maybe, SLACK, Watch, is_in_force};
use super::facts::{Era, Facts, FlowFacts, News};
use super::tables::Moment;
use crate::gate::{Deed, Done};
use crate::world::short;

/// Runs that may be made ahead of their turn.
const AHEAD: usize = 16;

type Verdict = Result<(), String>;

/// Judges a story.
pub fn judge(facts: &Facts) -> Verdict {
    for flow in &facts.flows {
        Case::new(facts, flow).judge().map_err(|wrong| format!("{}: {wrong}", flow.name))?;
    }
    Ok(())
}

/// A move of a schedule: what a scheduler decided about the intervals since the last one.
struct Move<'a> {
    by: usize,
    at: Moment,
    answered: bool,
    runs: Vec<Interval>,
    ids: Vec<RunId>,
    /// The definition that it is about, where there is a run to tell it by.
    version: Option<&'a flumen_core::flow::FlowVersion>,
    known: Moment,
    /// The end of the last interval that is decided.
    last: Option<Moment>,
}

impl<'a> Move<'a> {
    fn of(done: &'a Done, schedule: &str) -> Option<Self> {
        let Deed::Advanced(advance) = &done.deed else { return None };
        let to: Value = serde_json::from_str(&advance.to).unwrap();
        let moment = |value: &Value| value.as_str().map(|text| text.parse().unwrap());
        (advance.schedule == schedule).then(|| Self {
            by: done.by,
            at: done.at,
            answered: done.answered,
            runs: advance.runs.iter().map(|run| run.interval).collect(),
            ids: advance.runs.iter().map(|run| run.id).collect(),
            version: advance.runs.first().map(|run| &run.version),
            known: moment(&to["known"]).unwrap(),
            last: moment(&to["last"]["end"]),
        })
    }
}

/// One flow of a story.
struct Case<'a> {
    facts: &'a Facts,
    flow: &'a FlowFacts,
    watch: Watch<'a>,
    room: Room<'a>,
    victims: Victims,
    /// The intervals of each era.
    intervals: Vec<Vec<Interval>>,
    known: Moment,
    last: Option<Moment>,
    /// When the last move was.
    moved: Moment,
    /// What each scheduler said, as far as it is not explained.
    told: Vec<VecDeque<News>>,
}

impl<'a> Case<'a> {
    fn new(facts: &'a Facts, flow: &'a FlowFacts) -> Self {
        let begin = flow.eras[0].span.from;
        // One without a start may go on after one that began long ago.
        let from = flow.eras.iter().filter_map(|era| era.definition.table.start).min().unwrap_or(begin).min(begin);
        let intervals = flow.eras.iter().map(|era| era.definition.table.intervals(from, facts.end));
        Self {
            facts,
            flow,
            watch: Watch::new(facts, flow),
            room: Room::new(facts, flow),
            victims: Victims::default(),
            intervals: intervals.collect(),
            known: begin,
            last: None,
            moved: begin,
            told: (0..facts.lives.len()).map(|by| told(facts, flow, by)).collect(),
        }
    }

    fn judge(mut self) -> Verdict {
        let schedule = format!("schedule:{}", self.flow.name);
        let moves: Vec<Move<'_>> = self.facts.deeds.iter().filter_map(|done| Move::of(done, &schedule)).collect();
        if let Some(first) = moves.first() {
            self.first_move(first)?;
        }
        for step in moves.iter().skip(1) {
            self.next_move(step).map_err(|wrong| {
                let runs: Vec<String> = step.runs.iter().map(|run| short(*run)).collect();
                format!("{wrong}, at {} by {}, which made {runs:?}, to {:?}", step.at, step.by, step.last)
            })?;
        }
        self.nothing_is_left()?;
        self.runs_are(&moves)?;
        self.nothing_else_is_told()?;
        self.room.is_kept()?;
        self.victims.are(self.facts, self.flow, &self.watch)
    }

    /// The flow is seen for the first time.
    fn first_move(&mut self, first: &Move<'_>) -> Verdict {
        if first.known != first.at || first.last.is_some() || !first.runs.is_empty() {
            return Err(format!("it did not begin with {}", first.at));
        }
        let seen = self.flow.eras.iter().any(|era| is_in_force(era, first.at));
        if !seen || self.watch.must_by(self.flow.eras[0].span.from).is_some_and(|(by, _)| by < first.at) {
            return Err(format!("it was first seen at {}", first.at));
        }
        (self.known, self.moved) = (first.at, first.at);
        Ok(())
    }

    fn next_move(&mut self, step: &Move<'_>) -> Verdict {
        // One that decides nothing says something else.
        if step.last == self.last && step.runs.is_empty() {
            return Ok(());
        }
        if step.known != self.known || step.last <= self.last || !self.watch.may(step.by, step.at) {
            return Err("nobody should have done this".to_owned());
        }
        // Where there is no run to tell by, it is one of those in force.
        let fits = |era: &&Era| step.version.is_none_or(|version| *version == era.version) && is_in_force(era, step.at);
        let mut wrong = "there is no such definition".to_owned();
        let eras: Vec<usize> = (0..self.flow.eras.len()).filter(|era| fits(&&self.flow.eras[*era])).collect();
        for era in eras.into_iter().rev() {
            match self.is_right(step, era) {
                Ok(news) => {
                    self.told[step.by].drain(..news);
                    self.mind_victims(step, era);
                    (self.last, self.moved) = (step.last, step.at);
                    self.room.made.extend(&step.ids);
                    return Ok(());
                }
                Err(why) => wrong = why,
            }
        }
        Err(wrong)
    }

    /// What is due at a moment and was not decided before.
    fn pending(&self, era: usize, at: Moment) -> Vec<Interval> {
        let table = &self.flow.eras[era].definition.table;
        let is_new = |interval: &&Interval| match self.last {
            Some(last) => interval.end > last,
            None => table.start.is_some() || interval.end > self.known,
        };
        self.intervals[era].iter().filter(|interval| interval.end <= at).filter(is_new).copied().collect()
    }

    /// Whether a move is what the definition wants; how much was said of it.
    fn is_right(&self, step: &Move<'_>, era: usize) -> Result<usize, String> {
        let due = self.pending(era, step.at);
        let Some(decided) = due.iter().position(|interval| Some(interval.end) == step.last) else {
            return Err("that is no interval that was due".to_owned());
        };
        self.is_in_time(step, era, &due[..=decided])?;
        let newest = *due.last().unwrap();
        let live = self.is_live(step, era, &newest);
        let wishes = match self.flow.eras[era].definition.catchup {
            Catchup::All => vec![due.clone()],
            Catchup::Last => vec![vec![newest]],
            Catchup::None => match live {
                Maybe::Yes => vec![vec![newest]],
                Maybe::No => vec![Vec::new()],
                Maybe::Either => vec![vec![newest], Vec::new()],
            },
        };
        let mut wrong = String::new();
        for wanted in &wishes {
            if self.is_done_well(step, era, &due, decided + 1, wanted) {
                match self.is_told(step, &due[..=decided], wanted) {
                    Ok(news) => return Ok(news),
                    Err(why) => wrong = why,
                }
            }
        }
        let shown = |intervals: &[Interval]| intervals.iter().map(|it| short(*it)).collect::<Vec<_>>();
        let free = self.room.free(self.flow.eras[era].definition.limit, step.at);
        let wishes: Vec<_> = wishes.iter().map(|wanted| shown(wanted)).collect();
        Err(format!("of {:?}, {wishes:?} were to be run (newest live: {live:?}, room: {free:?}) {wrong}", shown(&due)))
    }

    fn is_live(&self, step: &Move<'_>, era: usize, interval: &Interval) -> Maybe {
        self.watch.is_live(step.by, step.at, &self.flow.eras[era], interval.end)
    }

    /// Whether of those that are wanted the right ones are run: of `due`, so many are `decided`.
    fn is_done_well(&self, step: &Move<'_>, era: usize, due: &[Interval], decided: usize, wanted: &[Interval]) -> bool {
        let definition = &self.flow.eras[era].definition;
        match definition.overlap {
            OnOverlap::Queue => self.waits_well(step, era, due, decided, wanted),
            OnOverlap::Skip => {
                let (least, most) = self.room.free(definition.limit, step.at);
                decided == due.len()
                    && wanted.starts_with(&step.runs)
                    && (least.min(wanted.len())..=most.min(wanted.len())).contains(&step.runs.len())
            }
            OnOverlap::CancelRunning => self.displaces_well(step, era, due, decided, wanted),
        }
    }

    /// Whether what is not run was told, if the scheduler knew it; how much was said.
    fn is_told(&self, step: &Move<'_>, decided: &[Interval], wanted: &[Interval]) -> Result<usize, String> {
        let missed: Vec<Interval> = decided.iter().filter(|it| !wanted.contains(it)).copied().collect();
        let is_left_out = |it: &&Interval| Some(it.end) <= step.last && !step.runs.contains(it);
        let left_out: Vec<Interval> = wanted.iter().filter(is_left_out).copied().collect();
        let news = [(true, missed), (false, left_out)].into_iter().filter_map(|(missed, all)| {
            let (first, last) = (*all.first()?, *all.last()?);
            Some(News { by: step.by, at: step.at, flow: self.flow.name.clone(), missed, first, last })
        });
        let news: Vec<News> = news.filter(|_| step.answered).collect();
        match self.told[step.by].iter().take(news.len()).eq(&news) {
            true => Ok(news.len()),
            false => Err(format!("this was to be said: {news:?}")),
        }
    }

    /// What is wanted is made, at the most so much of it ahead of its turn.
    fn waits_well(&self, step: &Move<'_>, era: usize, due: &[Interval], decided: usize, wanted: &[Interval]) -> bool {
        let limit = self.flow.eras[era].definition.limit;
        if decided == due.len() {
            return step.runs == wanted;
        }
        let (_, open) = self.room.open(step.at);
        step.runs == due[..decided] && wanted.len() == due.len() && open + decided >= limit + AHEAD
    }

    /// What ended while somebody watched takes the place of another, and what was missed waits until there is one.
    fn displaces_well(
        &self,
        step: &Move<'_>,
        era: usize,
        due: &[Interval],
        decided: usize,
        wanted: &[Interval],
    ) -> bool {
        let limit = self.flow.eras[era].definition.limit;
        let (least, most) = self.room.free(limit, step.at);
        let live = |interval: &Interval| self.is_live(step, era, interval);
        let era = &self.flow.eras[era];
        let Some(first) = wanted.first() else { return step.runs.is_empty() && decided == due.len() };
        let as_live = step.runs == [*first];
        let as_missed = match era.definition.catchup {
            Catchup::All => {
                let missed = wanted.iter().take_while(|interval| live(interval) != Maybe::Yes).count();
                let count = step.runs.len();
                wanted.starts_with(&step.runs)
                    && (1..=most.min(missed)).contains(&count)
                    && (count >= least.min(missed) || live(&wanted[count]) != Maybe::No)
            }
            _ if step.runs.is_empty() => least == 0 && decided + 1 == due.len(),
            _ => as_live && decided == due.len() && most > 0,
        };
        let is_whole = era.definition.catchup == Catchup::All || decided == due.len();
        match live(first) {
            Maybe::Yes => as_live && is_whole,
            Maybe::No => as_missed,
            Maybe::Either => (as_live && is_whole) || as_missed,
        }
    }

    /// Nothing is decided later than somebody could.
    fn is_in_time(&self, step: &Move<'_>, era: usize, decided: &[Interval]) -> Verdict {
        let from = self.flow.eras[era].span.from;
        let definition = &self.flow.eras[era].definition;
        for interval in decided {
            let must = self.watch.must_by(interval.end.max(from)).filter(|(by, _)| *by < step.at);
            let Some((by, who)) = must else { continue };
            // One that came later leaves to its turn what another one that was there, and came back, cancels others for.
            let of_who = self.watch.is_live(who, by, &self.flow.eras[era], interval.end);
            let is_live = [self.is_live(step, era, interval), of_who].iter().all(|live| *live == Maybe::Yes);
            let waits = match (definition.overlap, definition.catchup) {
                (OnOverlap::Queue, Catchup::All) => self.room.open(by).1 + 1 >= definition.limit + AHEAD,
                // It may stand behind what was missed, and has its turn when that has.
                (OnOverlap::CancelRunning, Catchup::All) => {
                    self.room.open(by).1 >= definition.limit
                        || self.watch.must_by(self.moved).is_none_or(|(by, _)| step.at <= by)
                }
                (OnOverlap::CancelRunning, _) => !is_live && self.room.open(by).1 >= definition.limit,
                _ => false,
            };
            if !waits {
                return Err(format!("{} was to be decided by {by}", short(*interval)));
            }
        }
        Ok(())
    }

    /// Notes who has to make room for a run.
    fn mind_victims(&mut self, step: &Move<'_>, era: usize) {
        let definition = &self.flow.eras[era].definition;
        let [run] = step.runs[..] else { return };
        if definition.overlap != OnOverlap::CancelRunning {
            return;
        }
        match self.is_live(step, era, &run) {
            Maybe::No => {}
            Maybe::Yes => self.victims.fall(self.room.oldest(definition.limit, step.at), step.at),
            Maybe::Either => self.victims.fall(None, step.at),
        }
    }

    /// With all going well at the end, everything was decided.
    fn nothing_is_left(&self) -> Verdict {
        let era = self.flow.eras.len() - 1;
        match self.pending(era, self.facts.end - TimeDelta::seconds(5)).first() {
            Some(left) => Err(format!("nothing became of {}", short(*left))),
            None => Ok(()),
        }
    }

    /// There are the runs that were decided, and no others.
    fn runs_are(&self, moves: &[Move<'_>]) -> Verdict {
        let made = moves.iter().flat_map(|step| step.ids.iter().zip(&step.runs));
        let made: BTreeMap<RunId, Interval> = made.map(|(id, interval)| (*id, *interval)).collect();
        let scheduled = self.flow.runs.iter().filter(|run| run.origin == Origin::Schedule);
        let there: BTreeMap<RunId, Interval> = scheduled.map(|run| (run.id, run.interval)).collect();
        let mut intervals: Vec<Interval> = there.values().copied().collect();
        intervals.sort_unstable();
        if made != there || intervals.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("there are other runs than were made: {there:?}, and not {made:?}"));
        }
        Ok(())
    }

    /// Nothing is told but what was decided.
    fn nothing_else_is_told(&self) -> Verdict {
        match self.told.iter().flatten().next() {
            Some(news) => Err(format!("this was said for no reason: {news:?}")),
            None => Ok(()),
        }
    }
}

/// What a scheduler said of a flow.
fn told(facts: &Facts, flow: &FlowFacts, by: usize) -> VecDeque<News> {
    facts.news.iter().filter(|news| news.by == by && news.flow == flow.name).cloned().collect()
}

/// A little before or after.
fn is_near(one: Moment, other: Moment) -> bool {
    (one - other).abs() <= SLACK
}
