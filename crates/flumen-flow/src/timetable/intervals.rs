//! The intervals of a timetable, one after the other: nothing is kept but the two ends.

use chrono::{DateTime, Utc};

use super::{Covers, Timetable};
use crate::interval::Interval;

/// Intervals in order. They are made as they are asked for, from either end.
#[derive(Debug, Clone)]
pub struct Intervals<'a> {
    timetable: &'a Timetable,
    front: Front,
    back: Back,
    /// Intervals that start from here on are left out.
    starts_before: Option<DateTime<Utc>>,
    /// Intervals that end later are left out.
    ends_by: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy)]
enum Front {
    /// From the first interval there is.
    First,
    At(Interval),
    Done,
}

#[derive(Debug, Clone, Copy)]
enum Back {
    Last,
    At(Interval),
    Done,
}

impl<'a> Intervals<'a> {
    /// Those that start from `from` on and before `before`, within the bounds of the timetable.
    pub(super) fn starting(
        timetable: &'a Timetable,
        from: Option<DateTime<Utc>>,
        before: Option<DateTime<Utc>>,
    ) -> Self {
        let starts_before = [before, timetable.until].into_iter().flatten().min();
        let front = match [from, timetable.from].into_iter().flatten().max() {
            None => Front::First,
            Some(from) => timetable.first_starting_from(from).map_or(Front::Done, Front::At),
        };
        Self { timetable, front, back: Back::Last, starts_before, ends_by: None }
    }

    /// Those that end after `moment`, within the bounds of the timetable.
    pub(super) fn ending_after(timetable: &'a Timetable, moment: DateTime<Utc>) -> Self {
        let mut all = Self::starting(timetable, None, None);
        if let Some(due) = timetable.firing_after(moment) {
            let first = timetable.interval_due(due);
            match all.front {
                Front::At(bound) if bound.end >= first.end => {}
                Front::Done => {}
                Front::First | Front::At(_) => all.front = Front::At(first),
            }
        } else {
            all.front = Front::Done;
        }
        all
    }

    /// Only this one, of a timetable that has no firings.
    pub(super) fn only(timetable: &'a Timetable, interval: Option<Interval>) -> Self {
        let front = interval.map_or(Front::Done, Front::At);
        let back = interval.map_or(Back::Done, Back::At);
        Self { timetable, front, back, starts_before: None, ends_by: None }
    }

    /// Those of them that are complete at `moment`.
    pub fn ended_by(mut self, moment: DateTime<Utc>) -> Self {
        self.ends_by = Some(self.ends_by.map_or(moment, |ends_by| ends_by.min(moment)));
        self
    }

    /// Those of them that end before `interval` does.
    pub(super) fn before(mut self, interval: &Interval) -> Self {
        self.back = match self.timetable.firing_before(interval.end) {
            Some(due) => Back::At(self.timetable.interval_due(due)),
            None => Back::Done,
        };
        self
    }

    fn is_within(&self, interval: &Interval) -> bool {
        self.starts_before.is_none_or(|before| interval.start < before)
            && self.ends_by.is_none_or(|by| interval.end <= by)
    }

    fn at_front(&self) -> Option<Interval> {
        match self.front {
            Front::First => {
                Some(self.timetable.interval_due(self.timetable.firing_after(super::first_local().and_utc())?))
            }
            Front::At(interval) => Some(interval),
            Front::Done => None,
        }
    }

    fn at_back(&self) -> Option<Interval> {
        match self.back {
            Back::Last => {
                let by_start = match self.starts_before {
                    Some(before) => self.timetable.last_starting_before(before)?,
                    None => self.timetable.interval_due(self.timetable.firing_before(super::last_local().and_utc())?),
                };
                match self.ends_by {
                    Some(by) if by_start.end > by => {
                        let due = self.timetable.firing_before(by + chrono::TimeDelta::nanoseconds(1))?;
                        Some(self.timetable.interval_due(due))
                    }
                    _ => Some(by_start),
                }
            }
            Back::At(interval) => Some(interval),
            Back::Done => None,
        }
    }
}

impl Iterator for Intervals<'_> {
    type Item = Interval;

    fn next(&mut self) -> Option<Interval> {
        let interval = self.at_front()?;
        let passed_back = match self.back {
            Back::Last => false,
            Back::At(back) => interval.end > back.end,
            Back::Done => true,
        };
        if passed_back || !self.is_within(&interval) {
            self.front = Front::Done;
            return None;
        }
        self.front = match self.timetable.firing_after(interval.end) {
            None => Front::Done,
            Some(due) if self.timetable.covers == Covers::Trigger => Front::At(Interval::at(due)),
            Some(due) => Front::At(Interval { start: interval.end, end: due }),
        };
        Some(interval)
    }
}

impl DoubleEndedIterator for Intervals<'_> {
    fn next_back(&mut self) -> Option<Interval> {
        let interval = self.at_back()?;
        let passed_front = match self.front {
            Front::First => false,
            Front::At(front) => interval.end < front.end,
            Front::Done => true,
        };
        if passed_front || !self.is_within(&interval) {
            self.back = Back::Done;
            return None;
        }
        self.back = match self.timetable.firing_before(interval.end) {
            None => Back::Done,
            Some(due) => Back::At(self.timetable.interval_due(due)),
        };
        Some(interval)
    }
}

impl Timetable {
    /// The first interval that starts at `from` or later.
    fn first_starting_from(&self, from: DateTime<Utc>) -> Option<Interval> {
        let firing = self.firing_after(from - chrono::TimeDelta::nanoseconds(1))?;
        let ends_there = self.interval_due(firing);
        if ends_there.start >= from {
            return Some(ends_there);
        }
        Some(Interval { start: firing, end: self.firing_after(firing)? })
    }

    /// The last interval that starts before `before`.
    fn last_starting_before(&self, before: DateTime<Utc>) -> Option<Interval> {
        match (self.covers, self.firing_before(before)) {
            (Covers::Trigger, firing) => firing.map(Interval::at),
            (Covers::Interval, Some(firing)) => match self.firing_after(firing) {
                Some(due) => Some(Interval { start: firing, end: due }),
                None => Some(self.interval_due(firing)),
            },
            // All firings are later: the first one may cover from the start of the schedule on.
            (Covers::Interval, None) => {
                let first = self.interval_due(self.firing_after(super::first_local().and_utc())?);
                (first.start < before).then_some(first)
            }
        }
    }
}
