//! When a flow runs, and for which data interval.
//!
//! A [`Timetable`] knows the firings of a schedule: cron (`timetable/cron.rs`), fixed intervals (`every.rs`), recurrences of
//! calendars (`rrule.rs`), dates (`dates.rs`), or several of them. What happens when clocks are changed is decided in
//! `zone.rs`.
//!
//! From one firing to the next is a data interval, and a run of it is due at its END. `start` and `end` of a schedule bound
//! the STARTS of intervals. With [`Covers::Trigger`] intervals are empty, at the firing. Before the first firing of a
//! recurrence or a list of dates there is none to cover from: its run covers from `start` of the schedule, and without one
//! only the moment.
//!
//! Nothing here reads a clock. What is due at a moment follows from the last interval that was decided, and from the policy:
//! `timetable/due.rs`.

pub mod cron;
pub mod dates;
pub mod due;
pub mod every;
mod intervals;
pub mod rrule;
pub mod zone;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use chrono_tz::Tz;
use flumen_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::cron::Cron;
use self::dates::{Dates, Stretch};
pub use self::due::{Catchup, Due, Watch};
use self::every::{Every, Span};
pub use self::intervals::Intervals;
use self::rrule::Recurrence;
use crate::interval::Interval;

/// No schedule fires before this year.
const FIRST_YEAR: i32 = 1900;
/// No schedule fires from this year on.
const LAST_YEAR: i32 = 2200;

fn first_local() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(FIRST_YEAR, 1, 1).unwrap_or(NaiveDate::MIN).into()
}

fn last_local() -> NaiveDateTime {
    NaiveDate::from_ymd_opt(LAST_YEAR, 1, 1).unwrap_or(NaiveDate::MAX).into()
}

/// One way to say when a flow runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A cron expression.
    Cron(Cron),
    /// A fixed interval. It counts from `start` of the schedule.
    Every(Span),
    /// A recurrence of RFC 5545.
    Recurrence(Recurrence),
    /// A list of dates.
    Dates(Dates),
    /// Once, at `start`, or as soon as the flow is known.
    Once,
    /// Always: a run begins when the one before it ended, and covers the time since then.
    Continuous,
}

impl Rule {
    /// A cron expression, or a name such as `@daily`, `@once` or `@continuous`.
    pub fn cron(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "@once" => Ok(Rule::Once),
            "@continuous" => Ok(Rule::Continuous),
            _ => Cron::parse(text).map(Rule::Cron),
        }
    }

    /// A fixed interval such as `1h`, `1d` or `1 month`.
    pub fn every(text: &str) -> Result<Self> {
        Span::parse(text).map(Rule::Every)
    }

    /// A recurrence. Without DTSTART it begins at `start`.
    pub fn recurrence(text: &str, zone: Tz, start: Option<&Stretch>) -> Result<Self> {
        Recurrence::parse(text, zone, start.map(|start| start.first)).map(Rule::Recurrence)
    }

    /// A list of dates.
    pub fn dates<'a>(texts: impl IntoIterator<Item = &'a str>, zone: Tz) -> Result<Self> {
        Dates::parse(texts, zone).map(Rule::Dates)
    }
}

/// What a run is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// The time from one firing to the next.
    #[default]
    #[serde(rename = "data")]
    Interval,
    /// Only the moment of its firing.
    Trigger,
}

/// A schedule, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The zone of the wall clock that all times are on.
    pub zone: Tz,
    /// When it fires; none for a flow that only runs when it is told to.
    pub rules: Vec<Rule>,
    /// Intervals that start before it are none of the flow's.
    pub start: Option<Stretch>,
    /// Intervals that start after it are none of the flow's.
    pub end: Option<Stretch>,
    /// What a run is about.
    pub covers: Covers,
}

/// A rule that is ready for searches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Firings {
    Cron(Cron, Tz),
    Every(Every),
    Recurrence(Recurrence),
    Dates(Dates),
}

/// What is special about a timetable that is no list of firings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Unscheduled,
    Fixed,
    /// Once, as soon as the flow is known.
    Once,
    Continuous,
}

/// The firings and intervals of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    zone: Tz,
    mode: Mode,
    firings: Vec<Firings>,
    /// The first start of an interval.
    from: Option<DateTime<Utc>>,
    /// The first moment that is too late for one.
    until: Option<DateTime<Utc>>,
    covers: Covers,
}

impl Timetable {
    /// The timetable of a schedule.
    ///
    /// Errors: `Invalid`, where parts of the schedule contradict each other.
    pub fn new(schedule: Schedule) -> Result<Self> {
        let Schedule { zone, rules, start, end, covers } = schedule;
        if let (Some(start), Some(end)) = (&start, &end)
            && end.after <= start.first
        {
            return Err(Error::invalid(format!("the schedule ends with {end}, before it starts with {start}"))
                .hint("exchange 'start' and 'end'"));
        }
        let from = start.map(|start| start.first);
        let mut timetable =
            Self { zone, mode: Mode::Unscheduled, firings: Vec::new(), from, until: end.map(|end| end.after), covers };
        let alone = rules.len() == 1;
        for rule in rules {
            timetable.mode = Mode::Fixed;
            timetable.firings.push(match (rule, from) {
                (Rule::Cron(cron), _) => Firings::Cron(cron, zone),
                (Rule::Every(span), from) => Firings::Every(Every::new(span, zone, from)),
                (Rule::Recurrence(recurrence), _) => Firings::Recurrence(recurrence),
                (Rule::Dates(dates), _) => Firings::Dates(dates),
                (Rule::Once, Some(from)) => Firings::Dates(Dates::of(vec![from])),
                (rule, _) if alone => {
                    timetable.mode = if rule == Rule::Once { Mode::Once } else { Mode::Continuous };
                    break;
                }
                (Rule::Once, None) => {
                    return Err(Error::invalid("@once beside other schedules does not say when")
                        .hint("give the schedule a 'start', or replace @once by a date"));
                }
                (Rule::Continuous, _) => {
                    return Err(Error::invalid("@continuous cannot be one of several schedules")
                        .hint("a flow that always runs needs no other schedule: leave out the others"));
                }
            });
        }
        Ok(timetable)
    }

    /// Whether it fires by itself at all.
    pub fn is_scheduled(&self) -> bool {
        self.mode != Mode::Unscheduled
    }

    /// Whether a run begins as soon as the one before it ended.
    pub fn is_continuous(&self) -> bool {
        self.mode == Mode::Continuous
    }

    /// The zone of its wall clock.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first firing after `moment`, whatever `start` and `end` are.
    pub fn firing_after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let last = last_local().and_utc();
        if moment >= last {
            return None;
        }
        let moment = moment.max(first_local().and_utc());
        let next = self.firings.iter().filter_map(|firings| match firings {
            Firings::Cron(cron, zone) => cron.after(*zone, moment),
            Firings::Every(every) => every.after(moment),
            Firings::Recurrence(recurrence) => recurrence.after(moment),
            Firings::Dates(dates) => dates.after(moment),
        });
        next.min().filter(|firing| *firing < last)
    }

    /// The last firing before `moment`, whatever `start` and `end` are.
    pub fn firing_before(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let first = first_local().and_utc();
        if moment <= first {
            return None;
        }
        let moment = moment.min(last_local().and_utc());
        let last = self.firings.iter().filter_map(|firings| match firings {
            Firings::Cron(cron, zone) => cron.before(*zone, moment),
            Firings::Every(every) => every.before(moment),
            Firings::Recurrence(recurrence) => recurrence.before(moment),
            Firings::Dates(dates) => dates.before(moment),
        });
        last.max().filter(|firing| *firing > first)
    }

    /// The interval that a run is about which is due at the firing `due`.
    fn interval_due(&self, due: DateTime<Utc>) -> Interval {
        if self.covers == Covers::Trigger {
            return Interval::at(due);
        }
        let start = self.firing_before(due).or(self.from.filter(|from| *from < due));
        Interval { start: start.unwrap_or(due), end: due }
    }

    /// The interval before and the one after `interval`, for the names `prev_…` and `next_…` of templates.
    pub fn neighbours(&self, interval: &Interval) -> (Option<Interval>, Option<Interval>) {
        let before = self.firing_before(interval.end).map(|due| self.interval_due(due));
        let before = before.filter(|before| before.start < interval.start);
        let after = self.firing_after(interval.end).map(|due| self.interval_due(due));
        (before, after)
    }

    /// The last interval that is complete at `now`, within `start` and `end`.
    pub fn last_complete(&self, now: DateTime<Utc>) -> Option<Interval> {
        self.all().ended_by(now).next_back()
    }

    /// What a run is about that somebody starts at `now` without saying more: the last complete interval, or only the moment
    /// where there is none.
    pub fn manual(&self, now: DateTime<Utc>) -> Interval {
        match self.covers {
            Covers::Trigger => Interval::at(now),
            Covers::Interval => self.last_complete(now).unwrap_or(Interval::at(now)),
        }
    }

    /// All intervals, in order; from the back for as long as there are any.
    pub fn all(&self) -> Intervals<'_> {
        Intervals::starting(self, None, None)
    }

    /// The intervals that start in or after `from` and not after `to`.
    pub fn between(&self, from: Option<&Stretch>, to: Option<&Stretch>) -> Intervals<'_> {
        Intervals::starting(self, from.map(|from| from.first), to.map(|to| to.after))
    }

    /// The intervals that start from `from` to `to`, both included.
    pub fn starting(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Intervals<'_> {
        Intervals::starting(self, Some(from), Some(to + chrono::TimeDelta::nanoseconds(1)))
    }

    /// What is still to come after `now`, in order.
    pub fn upcoming(&self, now: DateTime<Utc>) -> Intervals<'_> {
        Intervals::ending_after(self, now)
    }

    /// The interval that `--interval NAME` means: the one that starts in the stretch of that name. Without a schedule it is the
    /// stretch itself.
    ///
    /// Errors: `NotFound`, where none starts in it, with the one that it is in; `Invalid`, where several do.
    pub fn named(&self, name: &Stretch) -> Result<Interval> {
        if self.mode != Mode::Fixed {
            return Ok(name.interval());
        }
        let mut found = self.between(Some(name), Some(name));
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(only),
            (Some(first), Some(second)) => {
                Err(Error::invalid(format!("several intervals of the schedule start in {name}")).hint(format!(
                    "name one of them, such as {} or {}, or backfill all of them",
                    self.shown(first.start),
                    self.shown(second.start)
                )))
            }
            (None, _) => Err(self.none_starts_in(name)),
        }
    }

    fn none_starts_in(&self, name: &Stretch) -> Error {
        let error = Error::not_found(format!("no interval of the schedule starts in {name}"));
        match (self.from, self.until) {
            (Some(from), _) if name.after <= from => {
                error.hint(format!("the schedule starts with {}", self.shown(from)))
            }
            (_, Some(until)) if name.first >= until => {
                error.hint(format!("the schedule ends before {}", self.shown(until)))
            }
            _ => match self.between(None, Some(name)).next_back().or_else(|| self.all().next()) {
                Some(near) => error.hint(format!(
                    "the nearest is from {} to {}: write {0}",
                    self.shown(near.start),
                    self.shown(near.end)
                )),
                None => error.hint("the schedule has no interval at all"),
            },
        }
    }

    /// A moment as it is written for [`Stretch::parse`], on this timetable's wall clock.
    pub fn shown(&self, moment: DateTime<Utc>) -> String {
        let local = moment.with_timezone(&self.zone);
        // What comes twice needs its offset.
        let twice = zone::instant_of(self.zone, local.naive_local()) != moment;
        let text = local.format("%Y-%m-%dT%H:%M:%S").to_string();
        let short = text.strip_suffix(":00").unwrap_or(&text);
        match twice {
            true => format!("{short}{}", local.format("%:z")),
            false => short.to_owned(),
        }
    }
}
