//! Fixed intervals: `15m`, `1h`, `1d`, `2 weeks`, `1 month`.
//!
//! Those under a day follow elapsed time: six hours are six hours when clocks are changed. Those of days or more follow the
//! wall clock: a day from 6 o'clock ends at 6 o'clock.

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use flumen_core::error::nearest;
use flumen_core::{Error, Result};

use super::zone;

/// How far it is from one firing to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// So much elapsed time.
    Elapsed(TimeDelta),
    /// So many days on the wall clock.
    Days(i64),
    /// So many months on the wall clock. From the 31st it is the last day of a shorter month.
    Months(i64),
}

/// The units, each by all its names, in seconds, days or months.
const UNITS: &[(&[&str], Span)] = &[
    (&["s", "sec", "secs", "second", "seconds"], Span::Elapsed(TimeDelta::seconds(1))),
    (&["m", "min", "mins", "minute", "minutes"], Span::Elapsed(TimeDelta::minutes(1))),
    (&["h", "hour", "hours"], Span::Elapsed(TimeDelta::hours(1))),
    (&["d", "day", "days"], Span::Days(1)),
    (&["w", "week", "weeks"], Span::Days(7)),
    (&["mo", "month", "months"], Span::Months(1)),
    (&["quarter", "quarters"], Span::Months(3)),
    (&["y", "year", "years"], Span::Months(12)),
];

/// The most of a unit that an interval may have.
const MOST: i64 = 1_000_000;

impl Span {
    /// Reads `90m`, `1h 30m`, `1d`, `2 weeks`, `1 month`, `month`.
    ///
    /// Errors: `Invalid`, saying what is wrong with which part.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong =
            |what: String| Error::invalid(format!("the interval '{text}' {what}")).hint("write 1h, 1d or 1 month");
        let mut sum: Option<Span> = None;
        let mut rest = text.trim();
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (count, after) = (&rest[..digits], rest[digits..].trim_start());
            let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            let (unit, after) = (&after[..letters], &after[letters..]);
            let count: i64 = match count {
                "" if !unit.is_empty() && sum.is_none() => 1,
                _ => count.parse().map_err(|_| wrong("is not a number with a unit".to_owned()))?,
            };
            if count > MOST {
                return Err(wrong(format!("has more than {MOST} of a unit")));
            }
            let part = unit_named(unit).ok_or_else(|| unknown_unit(text, count, unit))?.times(count);
            sum = Some(match sum {
                None => part,
                Some(sum) => sum
                    .plus(part)
                    .ok_or_else(|| wrong("mixes hours, days or months, which are not of one length".to_owned()))?,
            });
            rest = after.trim_start_matches([' ', ',']);
        }
        match sum {
            None => Err(wrong("is empty".to_owned())),
            Some(span) if span == span.times(0) => Err(wrong("has no length".to_owned())),
            Some(span) => Ok(span),
        }
    }

    fn times(self, count: i64) -> Self {
        match self {
            Span::Elapsed(time) => Span::Elapsed(TimeDelta::seconds(time.num_seconds() * count)),
            Span::Days(days) => Span::Days(days * count),
            Span::Months(months) => Span::Months(months * count),
        }
    }

    fn plus(self, other: Span) -> Option<Self> {
        match (self, other) {
            (Span::Elapsed(one), Span::Elapsed(other)) => Some(Span::Elapsed(one + other)),
            (Span::Days(one), Span::Days(other)) => Some(Span::Days(one + other)),
            (Span::Months(one), Span::Months(other)) => Some(Span::Months(one + other)),
            _ => None,
        }
    }
}

fn unit_named(name: &str) -> Option<Span> {
    // `M` is a month in other notations and a minute in none: it is no unit here.
    let known = |names: &&[&str]| {
        names.iter().any(|known| *known == name || (name.len() > 1 && known.eq_ignore_ascii_case(name)))
    };
    UNITS.iter().find(|(names, _)| known(names)).map(|(_, span)| *span)
}

fn unknown_unit(text: &str, count: i64, unit: &str) -> Error {
    let names = || UNITS.iter().flat_map(|(names, _)| names.iter().copied()).filter(|name| name.len() > 1);
    match unit {
        "" => Error::invalid(format!("the interval '{text}' has no unit"))
            .hint(format!("write {count}s, {count}m, {count}h, {count}d, {count}w or {count} months")),
        "M" => Error::invalid(format!(
            "the interval '{text}' has the unit 'M', which is minutes to some and months to others"
        ))
        .hint(format!("write {count}m for minutes or {count}mo for months")),
        _ => {
            let error = Error::invalid(format!("the interval '{text}' has no unit that is known: '{unit}'"));
            match nearest(unit, names()) {
                Some(right) => error.hint(format!("did you mean '{count} {right}'?")),
                None => error.hint("the units are s, m, h, d, w, month, quarter and year"),
            }
        }
    }
}

/// Firings one [`Span`] apart, before and after an anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Every {
    span: Span,
    zone: Tz,
    anchor: DateTime<Utc>,
    local_anchor: NaiveDateTime,
}

impl Every {
    /// Firings `span` apart, of which one is at `anchor`. Without an anchor, days begin at midnight, weeks on Mondays, months
    /// on the first.
    pub fn new(span: Span, zone: Tz, anchor: Option<DateTime<Utc>>) -> Self {
        let epoch = match span {
            // A Monday.
            Span::Days(days) if days % 7 == 0 => NaiveDate::from_ymd_opt(1970, 1, 5),
            _ => NaiveDate::from_ymd_opt(1970, 1, 1),
        };
        let epoch = epoch.unwrap_or_default().and_time(NaiveTime::MIN);
        let anchor = anchor.unwrap_or_else(|| zone::instant_of(zone, epoch));
        Self { span, zone, anchor, local_anchor: zone::local_at(zone, anchor) }
    }

    /// The firing number `n` from the anchor.
    fn nth(&self, n: i64) -> Option<DateTime<Utc>> {
        let local = match self.span {
            Span::Elapsed(span) => {
                return Some(self.anchor + TimeDelta::seconds(span.num_seconds() * n));
            }
            Span::Days(days) => self.local_anchor.checked_add_signed(TimeDelta::try_days(days.checked_mul(n)?)?)?,
            Span::Months(months) => {
                let months = months.checked_mul(n)?;
                let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
                match months < 0 {
                    true => self.local_anchor.checked_sub_months(count)?,
                    false => self.local_anchor.checked_add_months(count)?,
                }
            }
        };
        Some(zone::instant_of(self.zone, local))
    }

    /// The number of a firing near `moment`.
    fn near(&self, moment: DateTime<Utc>) -> i64 {
        let local = zone::local_at(self.zone, moment);
        match self.span {
            Span::Elapsed(span) => (moment - self.anchor).num_seconds().div_euclid(span.num_seconds()),
            Span::Days(days) => (local - self.local_anchor).num_days().div_euclid(days),
            Span::Months(months) => {
                let since = i64::from(local.year() - self.local_anchor.year()) * 12 + i64::from(local.month())
                    - i64::from(self.local_anchor.month());
                since.div_euclid(months)
            }
        }
    }

    pub(super) fn after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut n = self.near(moment) - 2;
        loop {
            let firing = self.nth(n)?;
            if firing > moment {
                return Some(firing);
            }
            n += 1;
        }
    }

    pub(super) fn before(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut n = self.near(moment) + 2;
        loop {
            let firing = self.nth(n)?;
            if firing < moment {
                return Some(firing);
            }
            n -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match Span::parse(text) {
            Ok(span) => format!("{span:?}"),
            Err(error) => format!("{error}; {}", error.remedy().unwrap_or("-")),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn spans() {
        check("1d", "Days(1)");
        check("2 weeks", "Days(14)");
        check("1 month", "Months(1)");
        check("month", "Months(1)");
        check("1y 3mo", "Months(15)");
        check("1w 1d", "Days(8)");
        assert_eq!(Span::parse("1h30m").unwrap(), Span::Elapsed(TimeDelta::minutes(90)));
        assert_eq!(Span::parse("90 Minutes").unwrap(), Span::Elapsed(TimeDelta::minutes(90)));
    }

    #[test]
    fn what_is_wrong_with_a_span() {
        check("", "the interval '' is empty; write 1h, 1d or 1 month");
        check("5", "the interval '5' has no unit; write 5s, 5m, 5h, 5d, 5w or 5 months");
        check("0h", "the interval '0h' has no length; write 1h, 1d or 1 month");
        check("-1h", "the interval '-1h' is not a number with a unit; write 1h, 1d or 1 month");
        check("2 wekks", "the interval '2 wekks' has no unit that is known: 'wekks'; did you mean '2 weeks'?");
        check(
            "1M",
            "the interval '1M' has the unit 'M', which is minutes to some and months to others; write 1m for minutes or 1mo for months",
        );
        check(
            "1d 12h",
            "the interval '1d 12h' mixes hours, days or months, which are not of one length; write 1h, 1d or 1 month",
        );
        check(
            "9999999999999h",
            "the interval '9999999999999h' has more than 1000000 of a unit; write 1h, 1d or 1 month",
        );
    }
}
