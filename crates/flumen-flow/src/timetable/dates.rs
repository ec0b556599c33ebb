//! Named stretches of time (`2021`, `2021-01`, `2021-01-05T06:00`), and lists of dates.

use std::fmt;

use chrono::{DateTime, Datelike, FixedOffset, Months, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use flumen_core::{Error, Result};

use super::zone;
use crate::interval::Interval;

/// A stretch of time by its name: a year, a month, a day, an hour, a minute or a second.
///
/// As the start of something it means its first moment, as the end of something all of it: `--from 2021-01 --to 2021-03` are
/// three months.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    name: String,
    /// Its first moment.
    pub first: DateTime<Utc>,
    /// The first moment after it.
    pub after: DateTime<Utc>,
}

const FORMS: &str = "write a date as 2021, 2021-01 or 2021-01-05, and a time of day as in 2021-01-05T06:00, with Z or +01:00 if need be";

impl Stretch {
    /// Reads a name; without an offset of its own it is on a wall clock in `zone`.
    ///
    /// Errors: `Invalid`, saying what forms there are.
    pub fn parse(text: &str, zone: Tz) -> Result<Self> {
        let text = text.trim();
        let (local, offset) = split_offset(text);
        let (first, after) =
            local_stretch(local).ok_or_else(|| Error::invalid(format!("'{text}' is not a date")).hint(FORMS))?;
        let at = |local: NaiveDateTime| match offset {
            Some(offset) => local.and_utc() - TimeDelta::seconds(i64::from(offset.local_minus_utc())),
            None => zone::instant_of(zone, local),
        };
        Ok(Self { name: text.to_owned(), first: at(first), after: at(after) })
    }

    /// It, as the data interval of a run that has no schedule.
    pub fn interval(&self) -> Interval {
        Interval { start: self.first, end: self.after }
    }

    /// Whether `moment` is in it.
    pub fn contains(&self, moment: DateTime<Utc>) -> bool {
        (self.first..self.after).contains(&moment)
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A text without the offset at its end, and the offset.
fn split_offset(text: &str) -> (&str, Option<FixedOffset>) {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return (local, FixedOffset::east_opt(0));
    }
    // The last sign after the time began: before it, signs divide the parts of the date.
    let time = text.find(['T', 't', ' ']).unwrap_or(text.len());
    match text.rfind(['+', '-']).filter(|place| *place > time) {
        Some(place) => match text[place..].parse::<FixedOffset>() {
            Ok(offset) => (&text[..place], Some(offset)),
            Err(_) => (text, None),
        },
        None => (text, None),
    }
}

/// The first moment of a stretch and the first after it, on a wall clock.
fn local_stretch(text: &str) -> Option<(NaiveDateTime, NaiveDateTime)> {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4)?;
    let month = parts.next().map(|part| number(part, 2));
    let day = parts.next().map(|part| number(part, 2));
    if parts.next().is_some() || !(super::FIRST_YEAR..super::LAST_YEAR).contains(&(year as i32)) {
        return None;
    }
    let first = NaiveDate::from_ymd_opt(year as i32, month.unwrap_or(Some(1))?, day.unwrap_or(Some(1))?)?;
    let Some(time) = time else {
        let after = match (month, day) {
            (None, _) => NaiveDate::from_ymd_opt(first.year() + 1, 1, 1)?,
            (_, None) => first.checked_add_months(Months::new(1))?,
            _ => first.succ_opt()?,
        };
        return Some((first.and_hms_opt(0, 0, 0)?, after.and_hms_opt(0, 0, 0)?));
    };
    day?;
    let (time, fraction) = match time.split_once('.') {
        Some((time, digits)) => (time, Some(digits)),
        None => (time, None),
    };
    let mut parts = time.split(':');
    let hour = number(parts.next()?, 2)?;
    let minute = parts.next().map(|part| number(part, 2));
    let second = parts.next().map(|part| number(part, 2));
    if parts.next().is_some() {
        return None;
    }
    let start = first.and_hms_opt(hour, minute.unwrap_or(Some(0))?, second.unwrap_or(Some(0))?)?;
    match (minute, second, fraction) {
        (None, _, None) => Some((start, start + TimeDelta::hours(1))),
        (_, None, None) => Some((start, start + TimeDelta::minutes(1))),
        (_, Some(_), None) => Some((start, start + TimeDelta::seconds(1))),
        (_, Some(_), Some(digits)) => {
            let micros = number(digits.get(..digits.len().min(6))?, digits.len().min(6))?;
            let micros = i64::from(micros) * 10_i64.pow(6_u32.saturating_sub(digits.len() as u32));
            let start = start + TimeDelta::microseconds(micros);
            Some((start, start + TimeDelta::microseconds(1)))
        }
        _ => None,
    }
}

/// A number of just so many digits.
fn number(text: &str, digits: usize) -> Option<u32> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Moments, each once, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dates(Vec<DateTime<Utc>>);

impl Dates {
    /// Reads a list of dates; those without an offset of their own are on a wall clock in `zone`.
    ///
    /// Errors: `Invalid`, naming the first that is wrong.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>, zone: Tz) -> Result<Self> {
        let moments =
            texts.into_iter().map(|text| Ok(Stretch::parse(text, zone)?.first)).collect::<Result<Vec<_>>>()?;
        if moments.is_empty() {
            return Err(Error::invalid("the list of dates is empty").hint(FORMS));
        }
        Ok(Self::of(moments))
    }

    /// These moments.
    pub fn of(mut moments: Vec<DateTime<Utc>>) -> Self {
        moments.sort_unstable();
        moments.dedup();
        Self(moments)
    }

    pub(super) fn contains(&self, moment: DateTime<Utc>) -> bool {
        self.0.binary_search(&moment).is_ok()
    }

    pub(super) fn after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.get(self.0.partition_point(|date| *date <= moment)).copied()
    }

    pub(super) fn before(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.get(self.0.partition_point(|date| *date < moment).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match Stretch::parse(text, Tz::Europe__Berlin) {
            Ok(it) => format!("{} {}", it.first.format("%FT%T%.f"), it.after.format("%FT%T%.f")),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn names_of_stretches() {
        check("2021", "2020-12-31T23:00:00 2021-12-31T23:00:00");
        check("2021-01", "2020-12-31T23:00:00 2021-01-31T23:00:00");
        check("2021-03-28", "2021-03-27T23:00:00 2021-03-28T22:00:00");
        check("2021-01-05T06", "2021-01-05T05:00:00 2021-01-05T06:00:00");
        check("2021-01-05 06:30", "2021-01-05T05:30:00 2021-01-05T05:31:00");
        check("2021-01-05T06:30:15Z", "2021-01-05T06:30:15 2021-01-05T06:30:16");
        check("2021-01-05T06:30:15.25+02:00", "2021-01-05T04:30:15.250 2021-01-05T04:30:15.250001");
    }

    #[test]
    fn what_is_no_date() {
        for text in
            ["", "january", "2021-13", "2021-02-30", "2021-1", "21-01-01", "2021-01T06", "2021-01-01T25", "9999"]
        {
            check(text, &format!("'{text}' is not a date"));
        }
        check("2021-01-01T06:00+99:00", "'2021-01-01T06:00+99:00' is not a date");
    }
}
