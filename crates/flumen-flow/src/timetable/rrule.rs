//! Recurrences of RFC 5545: `DTSTART`, `RRULE`, `RDATE`, `EXDATE`. `rrule/parse.rs` reads them.
//!
//! An engine of our own, since the crate for it (`rrule` 0.14) only ever counts from DTSTART on and knows no way back, so that
//! the next firing of an old rule costs all those before it; here a search begins where it is asked for. A rule with COUNT is
//! counted once, when it is read, and ends from then on like one with UNTIL.
//!
//! Frequencies of a day and more describe times on the wall clock, each of which fires once. HOURLY, MINUTELY and SECONDLY
//! follow elapsed time from DTSTART on. A DTSTART that its rule does not describe does not fire.

mod parse;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use flumen_core::Result;

use super::dates::Dates;
use super::{LAST_YEAR, zone};

/// Periods without a firing after which a rule counts as one that has none any more.
const EMPTY_PERIODS: u32 = 1_000_000;

/// Rules and dates together: what a calendar calls an event that recurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurrence {
    rules: Vec<Rule>,
    also: Dates,
    except: Dates,
}

impl Recurrence {
    /// Reads content lines, or only what stands after `RRULE:`. Without DTSTART, the first firing is at or after `start`; times
    /// without a zone of their own are on a wall clock in `zone`.
    ///
    /// Errors: `Invalid`, naming the part of the rule that is wrong.
    pub fn parse(text: &str, zone: Tz, start: Option<DateTime<Utc>>) -> Result<Self> {
        parse::parse(text, zone, start)
    }

    pub(super) fn after(&self, mut moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        loop {
            let rules = self.rules.iter().filter_map(|rule| rule.after(moment));
            let next = rules.chain(self.also.after(moment)).min()?;
            if !self.except.contains(next) {
                return Some(next);
            }
            moment = next;
        }
    }

    pub(super) fn before(&self, mut moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        loop {
            let rules = self.rules.iter().filter_map(|rule| rule.before(moment));
            let last = rules.chain(self.also.before(moment)).max()?;
            if !self.except.contains(last) {
                return Some(last);
            }
            moment = last;
        }
    }
}

/// How often a rule begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Frequency {
    Secondly,
    Minutely,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// One RRULE, with the DTSTART that it counts from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    zone: Tz,
    start: DateTime<Utc>,
    local_start: NaiveDateTime,
    frequency: Frequency,
    interval: i64,
    until: Option<DateTime<Utc>>,
    months: Vec<i32>,
    week_numbers: Vec<i32>,
    year_days: Vec<i32>,
    month_days: Vec<i32>,
    /// Days of the week, each every time (0) or only the n-th.
    weekdays: Vec<(i32, Weekday)>,
    hours: Vec<i32>,
    minutes: Vec<i32>,
    seconds: Vec<i32>,
    positions: Vec<i32>,
    week_start: Weekday,
}

impl Rule {
    fn after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let from = moment.max(self.start - TimeDelta::seconds(1));
        let mut period = (self.period_at(from) - 1).max(0);
        for _ in 0..EMPTY_PERIODS {
            let found = self.firings(period)?.into_iter().find(|firing| *firing > from);
            if let Some(firing) = found {
                return self.until.is_none_or(|until| firing <= until).then_some(firing);
            }
            period = self.next_period(period)?;
        }
        None
    }

    fn before(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let until = self.until.map_or(moment, |until| moment.min(until + TimeDelta::seconds(1)));
        let mut period = self.period_at(until) + 1;
        for _ in 0..EMPTY_PERIODS {
            if period < 0 {
                return None;
            }
            let firings = self.firings(period).unwrap_or_default();
            let found = firings.into_iter().rev().find(|firing| *firing < until);
            if let Some(firing) = found {
                return (firing >= self.start).then_some(firing);
            }
            period = self.previous_period(period);
        }
        None
    }

    /// Ends a rule that may fire only so many times.
    fn limit(&mut self, count: u32) {
        let mut last = self.start - TimeDelta::seconds(1);
        for _ in 0..count {
            match self.after(last) {
                Some(firing) => last = firing,
                None => break,
            }
        }
        self.until = Some(last);
    }

    /// How long a period is, where periods follow elapsed time.
    fn elapsed(&self) -> Option<TimeDelta> {
        let seconds = match self.frequency {
            Frequency::Secondly => 1,
            Frequency::Minutely => 60,
            Frequency::Hourly => 3600,
            _ => return None,
        };
        Some(TimeDelta::seconds(seconds * self.interval))
    }

    /// The number of the period that `moment` is in, from the one of DTSTART on.
    fn period_at(&self, moment: DateTime<Utc>) -> i64 {
        if let Some(length) = self.elapsed() {
            return (moment - self.start).num_seconds().div_euclid(length.num_seconds());
        }
        let (now, start) = (zone::local_at(self.zone, moment).date(), self.local_start.date());
        let units = match self.frequency {
            Frequency::Yearly => i64::from(now.year() - start.year()),
            Frequency::Monthly => {
                i64::from(now.year() - start.year()) * 12 + i64::from(now.month()) - i64::from(start.month())
            }
            Frequency::Weekly => (self.week_of(now) - self.week_of(start)).num_weeks(),
            _ => (now - start).num_days(),
        };
        units.div_euclid(self.interval)
    }

    /// The first day of the week of a day.
    fn week_of(&self, date: NaiveDate) -> NaiveDate {
        date - TimeDelta::days(i64::from(date.weekday().days_since(self.week_start)))
    }

    /// The period after this one that may have a firing: the rest of a day that the rule leaves out is not looked at.
    fn next_period(&self, period: i64) -> Option<i64> {
        let Some(day) = self.left_out(period) else { return Some(period + 1) };
        let tomorrow = zone::instant_of(self.zone, day.succ_opt()?.and_time(NaiveTime::MIN));
        // What fires in a period is in the hour in which it begins, and so on the same day.
        Some(self.period_at(tomorrow).max(period + 1))
    }

    fn previous_period(&self, period: i64) -> i64 {
        let Some(day) = self.left_out(period) else { return period - 1 };
        let today = zone::instant_of(self.zone, day.and_time(NaiveTime::MIN));
        (self.period_at(today) + 1).min(period - 1)
    }

    /// The day on which a period of elapsed time begins, if the rule leaves it out.
    fn left_out(&self, period: i64) -> Option<NaiveDate> {
        let day = zone::local_at(self.zone, self.begin(self.elapsed()?, period)?).date();
        (!self.has_day(day)).then_some(day)
    }

    fn begin(&self, length: TimeDelta, period: i64) -> Option<DateTime<Utc>> {
        let since = TimeDelta::try_seconds(length.num_seconds().checked_mul(period)?)?;
        self.start.checked_add_signed(since).filter(|begin| begin.year() < LAST_YEAR)
    }

    /// The firings of a period, in order; none where the calendar ends.
    fn firings(&self, period: i64) -> Option<Vec<DateTime<Utc>>> {
        let mut firings = match self.elapsed() {
            Some(length) => self.firings_from(self.begin(length, period)?),
            None => {
                let times = self.times();
                let days = self.days(period)?;
                let local = days.iter().flat_map(|day| times.iter().map(|time| day.and_time(*time))).collect();
                let local: Vec<NaiveDateTime> = self.positioned(local);
                local.into_iter().map(|local| zone::instant_of(self.zone, local)).collect()
            }
        };
        firings.dedup();
        Some(firings)
    }

    /// The days of a period that the rule describes.
    fn days(&self, period: i64) -> Option<Vec<NaiveDate>> {
        let units = period.checked_mul(self.interval)?;
        let start = self.local_start.date();
        let (first, after) = match self.frequency {
            Frequency::Yearly => {
                let year = i32::try_from(i64::from(start.year()) + units).ok()?;
                (NaiveDate::from_ymd_opt(year, 1, 1)?, NaiveDate::from_ymd_opt(year + 1, 1, 1)?)
            }
            Frequency::Monthly => {
                let months = i64::from(start.year()) * 12 + i64::from(start.month0()) + units;
                let month = |months: i64| {
                    NaiveDate::from_ymd_opt(
                        i32::try_from(months.div_euclid(12)).ok()?,
                        months.rem_euclid(12) as u32 + 1,
                        1,
                    )
                };
                (month(months)?, month(months + 1)?)
            }
            Frequency::Weekly => {
                let first = self.week_of(start).checked_add_signed(TimeDelta::try_weeks(units)?)?;
                (first, first + TimeDelta::weeks(1))
            }
            _ => {
                let day = start.checked_add_signed(TimeDelta::try_days(units)?)?;
                (day, day.succ_opt()?)
            }
        };
        if first.year() >= LAST_YEAR {
            return None;
        }
        Some(first.iter_days().take_while(|day| *day < after).filter(|day| self.has_day(*day)).collect())
    }

    /// The times of day that the rule describes.
    fn times(&self) -> Vec<NaiveTime> {
        let mut times = Vec::with_capacity(self.hours.len() * self.minutes.len() * self.seconds.len());
        for hour in &self.hours {
            for minute in &self.minutes {
                times.extend(self.seconds.iter().filter_map(|second| time(*hour, *minute, *second)));
            }
        }
        times
    }

    /// The firings in the hour, minute or second of `begin`.
    fn firings_from(&self, begin: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let local = zone::local_at(self.zone, begin);
        let (hour, minute, second) = (local.hour() as i32, local.minute() as i32, local.second() as i32);
        let any = |list: &[i32], value: i32| list.is_empty() || list.contains(&value);
        if !self.has_day(local.date()) || !any(&self.hours, hour) {
            return Vec::new();
        }
        let (minutes, seconds) = match self.frequency {
            Frequency::Hourly => (self.minutes.clone(), self.seconds.clone()),
            _ if !any(&self.minutes, minute) => return Vec::new(),
            Frequency::Minutely => (vec![minute], self.seconds.clone()),
            _ if !any(&self.seconds, second) => return Vec::new(),
            _ => (vec![minute], vec![second]),
        };
        let times = minutes.iter().flat_map(|minute| seconds.iter().filter_map(|second| time(hour, *minute, *second)));
        let firings = times.filter_map(|time| {
            let wanted = local.date().and_time(time);
            let firing = begin + (wanted - local);
            (zone::local_at(self.zone, firing) == wanted).then_some(firing)
        });
        self.positioned(firings.collect())
    }

    /// What BYSETPOS leaves of the firings of a period.
    fn positioned<T: Copy + Ord>(&self, all: Vec<T>) -> Vec<T> {
        if self.positions.is_empty() {
            return all;
        }
        let at = |position: &i32| match *position {
            forward @ 1.. => all.get(forward as usize - 1),
            back => all.len().checked_sub(back.unsigned_abs() as usize).and_then(|place| all.get(place)),
        };
        let mut left: Vec<T> = self.positions.iter().filter_map(at).copied().collect();
        left.sort_unstable();
        left.dedup();
        left
    }

    /// Whether no part of the rule leaves out this day.
    fn has_day(&self, date: NaiveDate) -> bool {
        let days_in_year = if date.leap_year() { 366 } else { 365 };
        let is = |list: &[i32], value: i32, count: i32| {
            list.is_empty() || list.contains(&value) || list.contains(&(value - count - 1))
        };
        (self.months.is_empty() || self.months.contains(&(date.month() as i32)))
            && is(&self.month_days, date.day() as i32, i32::from(date.num_days_in_month()))
            && is(&self.year_days, date.ordinal() as i32, days_in_year)
            && (self.week_numbers.is_empty() || {
                let (number, count) = self.week_number(date);
                is(&self.week_numbers, number, count)
            })
            && (self.weekdays.is_empty() || self.weekdays.iter().any(|wanted| self.has_weekday(*wanted, date)))
    }

    /// The number of the week of a day, and how many its year has. The first week has at least four days in the year.
    fn week_number(&self, date: NaiveDate) -> (i32, i32) {
        let fourth = self.week_of(date) + TimeDelta::days(3);
        let number = fourth.ordinal0() as i32 / 7 + 1;
        let days_left = if fourth.leap_year() { 366 } else { 365 } - fourth.ordinal() as i32;
        (number, number + days_left / 7)
    }

    fn has_weekday(&self, (nth, weekday): (i32, Weekday), date: NaiveDate) -> bool {
        if date.weekday() != weekday {
            return false;
        }
        // The n-th of a month, or of the year where no month is named.
        let (day, count) = match self.frequency {
            Frequency::Yearly if self.months.is_empty() => {
                (date.ordinal0() as i32, if date.leap_year() { 366 } else { 365 })
            }
            _ => (date.day0() as i32, i32::from(date.num_days_in_month())),
        };
        match nth {
            0 => true,
            1.. => day / 7 + 1 == nth,
            _ => (count - 1 - day) / 7 + 1 == -nth,
        }
    }
}

fn time(hour: i32, minute: i32, second: i32) -> Option<NaiveTime> {
    // A leap second, which RFC 5545 allows, is the one before it.
    NaiveTime::from_hms_opt(hour as u32, minute as u32, second.min(59) as u32)
}
