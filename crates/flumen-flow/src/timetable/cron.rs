//! Cron expressions: when one fires, and what it does when clocks are changed. `cron/fields.rs` reads them.
//!
//! An engine of our own, since the best crate for it does not meet what we promise: `croner` (4.0) looks for the end of a gap
//! no further than two hours, and wants the day after it to match again, so that the day that Apia skipped is lost; and its
//! errors do not say which field is wrong.
//!
//! As cron(8) has it: a job with a wildcard for hour or minute fires on every real minute that its fields describe; any other
//! fires once for each time that they describe, at the first instant after it where that time is skipped, at the first one
//! where it comes twice.

mod fields;

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use flumen_core::Result;

use super::{FIRST_YEAR, LAST_YEAR, zone};

/// A cron expression that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u64,
    days: Days,
    weekdays: Weekdays,
    /// Whether hour or minute is a wildcard, so that real time counts and not each time of the wall clock once.
    real_time: bool,
}

/// The field for the day of the month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Days {
    wildcard: bool,
    /// Bit n: the day n.
    set: u64,
    /// Bit n: the day n before the last one (`L`, `L-3`).
    before_last: u64,
    /// Bit n: the working day next to the day n (`15W`).
    nearest: u64,
    /// The last working day (`LW`).
    last_working_day: bool,
}

/// The field for the day of the week; Sunday is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Weekdays {
    wildcard: bool,
    /// Bit d: each such day.
    set: u64,
    /// Bit d: the last such day of the month (`5L`).
    last: u64,
    /// For each d, bit n: the n-th such day of the month (`MON#2`).
    nth: [u8; 7],
}

impl Cron {
    /// Reads an expression of five fields, or six with seconds first, or a name such as `@daily`.
    ///
    /// Errors: `Invalid`, naming the field, with the nearest right form.
    pub fn parse(text: &str) -> Result<Self> {
        fields::parse(text)
    }

    /// The first firing after `moment`.
    pub(super) fn after(&self, zone: Tz, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // Firings are on whole seconds.
        let from = next_second(moment);
        if self.real_time {
            return self.real_from(zone, from);
        }
        let mut local = zone::local_at(zone, from);
        loop {
            local = self.local_from(local)?;
            let firing = zone::instant_of(zone, local);
            if firing > moment {
                return Some(firing);
            }
            // The clock shows this for the second time.
            local += TimeDelta::seconds(1);
        }
    }

    /// The last firing before `moment`.
    pub(super) fn before(&self, zone: Tz, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let until = last_second(moment);
        if self.real_time {
            return self.real_until(zone, until);
        }
        // While the clock shows times again, later ones of the first time may be what is looked for.
        let repeated = zone::offset_at(zone, until - zone::LONGEST_FOLD) - zone::offset_at(zone, until);
        let mut local = zone::local_at(zone, until) + repeated.max(TimeDelta::zero());
        loop {
            local = self.local_until(local)?;
            let firing = zone::instant_of(zone, local);
            if firing < moment {
                return Some(firing);
            }
            local -= TimeDelta::seconds(1);
        }
    }

    /// The first instant from `from` on at which the clock shows a time of the expression.
    fn real_from(&self, zone: Tz, mut from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        loop {
            let offset = zone::offset_at(zone, from);
            let local = self.local_from(from.naive_utc() + offset)?;
            let firing = local.and_utc() - offset;
            let seen = firing.min(from + TimeDelta::days(1));
            match zone::change_between(zone, from, seen) {
                // Before the change nothing fires; from it on, the clock shows something else.
                Some(change) => from = change,
                None if seen == firing => return Some(firing),
                // A change on the way shows nothing earlier than now again: go on a day before the candidate.
                None => from = seen.max(firing - TimeDelta::days(2)),
            }
        }
    }

    /// The last instant up to `until` at which the clock shows a time of the expression.
    fn real_until(&self, zone: Tz, mut until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        loop {
            let offset = zone::offset_at(zone, until);
            let local = self.local_until(until.naive_utc() + offset)?;
            let firing = local.and_utc() - offset;
            let seen = firing.max(until - TimeDelta::days(1));
            match zone::change_between(zone, seen, until) {
                Some(change) => until = change - TimeDelta::seconds(1),
                None if seen == firing => return Some(firing),
                None => until = seen.min(firing + TimeDelta::days(2)),
            }
        }
    }

    /// The first time of the expression from `from` on, on a wall clock that is never changed.
    fn local_from(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        let mut date = from.date();
        if self.has_day(date)
            && let Some(time) = self.time_from(from.time())
        {
            return Some(date.and_time(time));
        }
        let midnight = self.time_from(NaiveTime::MIN)?;
        date = date.succ_opt()?;
        while date.year() < LAST_YEAR {
            if self.months & bit(date.month()) == 0 {
                date = first_of_next_month(date)?;
            } else if self.has_day(date) {
                return Some(date.and_time(midnight));
            } else {
                date = date.succ_opt()?;
            }
        }
        None
    }

    /// The last time of the expression up to `until`, on a wall clock that is never changed.
    fn local_until(&self, until: NaiveDateTime) -> Option<NaiveDateTime> {
        let mut date = until.date();
        if self.has_day(date)
            && let Some(time) = self.time_until(until.time())
        {
            return Some(date.and_time(time));
        }
        let latest = self.time_until(NaiveTime::from_hms_opt(23, 59, 59)?)?;
        date = date.pred_opt()?;
        while date.year() >= FIRST_YEAR {
            if self.months & bit(date.month()) == 0 {
                date = date.with_day(1)?.pred_opt()?;
            } else if self.has_day(date) {
                return Some(date.and_time(latest));
            } else {
                date = date.pred_opt()?;
            }
        }
        None
    }

    fn time_from(&self, time: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        let first = |hour: u32, minute: u32| NaiveTime::from_hms_opt(hour, minute, lowest(self.seconds, 0)?);
        if self.hours & bit(hour) != 0 {
            if self.minutes & bit(minute) != 0
                && let Some(second) = lowest(self.seconds, second)
            {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) = lowest(self.minutes, minute + 1) {
                return first(hour, minute);
            }
        }
        first(lowest(self.hours, hour + 1)?, lowest(self.minutes, 0)?)
    }

    fn time_until(&self, time: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        let last = |hour: u32, minute: u32| NaiveTime::from_hms_opt(hour, minute, highest(self.seconds, 59)?);
        if self.hours & bit(hour) != 0 {
            if self.minutes & bit(minute) != 0
                && let Some(second) = highest(self.seconds, second)
            {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) = minute.checked_sub(1).and_then(|minute| highest(self.minutes, minute)) {
                return last(hour, minute);
            }
        }
        last(highest(self.hours, hour.checked_sub(1)?)?, highest(self.minutes, 59)?)
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        if self.months & bit(date.month()) == 0 {
            return false;
        }
        // crontab(5): where both fields are restricted, one of them is enough.
        match self.days.wildcard || self.weekdays.wildcard {
            true => self.days.has(date) && self.weekdays.has(date),
            false => self.days.has(date) || self.weekdays.has(date),
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Days {
    fn has(&self, date: NaiveDate) -> bool {
        let (day, last) = (date.day(), u32::from(date.num_days_in_month()));
        if self.set & bit(day) != 0 || self.before_last & bit(last - day) != 0 {
            return true;
        }
        (self.nearest != 0 && self.is_nearest(date, last))
            || (self.last_working_day && working_day_next_to(date, last, last) == Some(day))
    }

    fn is_nearest(&self, date: NaiveDate, last: u32) -> bool {
        // The working day next to a day is at most two days away.
        let day = date.day();
        let near = day.saturating_sub(2).max(1)..=(day + 2).min(last);
        near.filter(|wanted| self.nearest & bit(*wanted) != 0)
            .any(|wanted| working_day_next_to(date, wanted, last) == Some(day))
    }
}

/// The day from Monday to Friday, in the month of `date`, that is next to its day `wanted`.
fn working_day_next_to(date: NaiveDate, wanted: u32, last: u32) -> Option<u32> {
    Some(match date.with_day(wanted)?.weekday() {
        Weekday::Sat if wanted == 1 => 3,
        Weekday::Sat => wanted - 1,
        Weekday::Sun if wanted == last => wanted - 2,
        Weekday::Sun => wanted + 1,
        _ => wanted,
    })
}

impl Weekdays {
    fn has(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday().num_days_from_sunday();
        if self.set & bit(weekday) != 0 {
            return true;
        }
        let last = u32::from(date.num_days_in_month());
        let nth = (date.day() - 1) / 7 + 1;
        (self.last & bit(weekday) != 0 && date.day() + 7 > last) || self.nth[weekday as usize] & (1 << nth) != 0
    }
}

fn bit(n: u32) -> u64 {
    1 << n
}

/// The lowest number in a set from `from` on.
fn lowest(set: u64, from: u32) -> Option<u32> {
    let rest = set.checked_shr(from)?;
    (rest != 0).then(|| from + rest.trailing_zeros())
}

/// The highest number in a set up to `until`.
fn highest(set: u64, until: u32) -> Option<u32> {
    let rest = set & (u64::MAX >> (63 - until.min(63)));
    (rest != 0).then(|| 63 - rest.leading_zeros())
}

fn first_of_next_month(date: NaiveDate) -> Option<NaiveDate> {
    match date.month() {
        12 => NaiveDate::from_ymd_opt(date.year() + 1, 1, 1),
        month => NaiveDate::from_ymd_opt(date.year(), month + 1, 1),
    }
}

/// The first whole second after `moment`.
fn next_second(moment: DateTime<Utc>) -> DateTime<Utc> {
    moment - TimeDelta::nanoseconds(i64::from(moment.nanosecond() % 1_000_000_000)) + TimeDelta::seconds(1)
}

/// The last whole second before `moment`.
fn last_second(moment: DateTime<Utc>) -> DateTime<Utc> {
    match moment.nanosecond() % 1_000_000_000 {
        0 => moment - TimeDelta::seconds(1),
        nanos => moment - TimeDelta::nanoseconds(i64::from(nanos)),
    }
}
