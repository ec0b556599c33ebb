//! What is due at a moment, and what of it is run: the policy for intervals that were missed.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Intervals, Mode, Timetable};
use crate::interval::Interval;

/// What becomes of intervals that ended while nobody could run them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Catchup {
    /// All of them are run.
    All,
    /// Only the last of them is run.
    #[default]
    Last,
    /// None of them is run; an interval that ends while somebody watches is.
    None,
}

/// What is known about a flow when it is asked what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// The last interval that was decided: run by the schedule, or missed. Runs that somebody asked for do not count.
    pub last: Option<Interval>,
    /// Since when the flow is known. Where its schedule has no start, nothing that ended before was missed.
    pub known_since: DateTime<Utc>,
    /// Since when it is watched without a pause: the start of the scheduler, or the moment at which it woke up or the flow was
    /// resumed.
    pub watched_since: DateTime<Utc>,
}

/// What is due. Both parts are in order and may be long: they are made as they are read.
#[derive(Debug, Clone)]
pub struct Due<'a> {
    /// What is to be recorded as missed: all of it is before what is to be run.
    pub missed: Intervals<'a>,
    /// What is to be run.
    pub run: Intervals<'a>,
}

impl Timetable {
    /// What is due at `now`. An interval that is in the answer has to be in `watch.last` the next time, whether it was run or
    /// missed.
    ///
    /// A flow that always runs is due whenever it is asked for: ask only when none of its runs is active.
    pub fn due(&self, policy: Catchup, watch: &Watch, now: DateTime<Utc>) -> Due<'_> {
        let nothing = || Intervals::only(self, None);
        if self.mode != Mode::Fixed {
            return Due { missed: nothing(), run: Intervals::only(self, self.next_of_special(watch, now)) };
        }
        let pending = self.pending(watch).ended_by(now);
        let newest = match policy {
            Catchup::All => return Due { missed: nothing(), run: pending },
            Catchup::Last => pending.clone().next_back(),
            Catchup::None => pending.clone().next_back().filter(|newest| newest.end >= watch.watched_since),
        };
        match newest {
            Some(newest) => Due { missed: pending.before(&newest), run: Intervals::only(self, Some(newest)) },
            None => Due { missed: pending, run: nothing() },
        }
    }

    /// The intervals that are still to be decided, due or not. The first is what a scheduler waits for.
    pub fn pending(&self, watch: &Watch) -> Intervals<'_> {
        match (watch.last, self.from) {
            _ if self.mode != Mode::Fixed => Intervals::only(self, self.next_of_special(watch, watch.known_since)),
            (Some(last), _) => self.upcoming(last.end),
            (None, Some(_)) => self.all(),
            (None, None) => self.upcoming(watch.known_since),
        }
    }

    /// The first moment from `now` on at which something is due, as far as is known now.
    pub fn next_due(&self, watch: &Watch, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.mode == Mode::Fixed {
            return Some(self.pending(watch).next()?.end.max(now));
        }
        let from = if self.mode == Mode::Continuous { self.from.map_or(now, |from| from.max(now)) } else { now };
        self.next_of_special(watch, from).map(|_| from)
    }

    /// The next interval of a timetable without firings.
    fn next_of_special(&self, watch: &Watch, now: DateTime<Utc>) -> Option<Interval> {
        let end = watch.last.map_or(now, |last| last.end.max(now));
        let next = match (self.mode, watch.last) {
            (Mode::Once, None) => Some(Interval::at(now)),
            (Mode::Continuous, Some(last)) => Some(Interval { start: last.end, end }),
            (Mode::Continuous, None) => {
                let start = self.from.unwrap_or(now);
                (start <= now).then_some(Interval { start, end })
            }
            _ => None,
        };
        next.filter(|next| self.until.is_none_or(|until| next.start < until))
    }
}
