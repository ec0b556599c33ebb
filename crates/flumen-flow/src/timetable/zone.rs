//! Wall clocks and instants: what a time of day means where clocks are changed.
//!
//! A time that a change skips means the first instant after it; a time that comes twice means the first one. This is the
//! only place that knows of it.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use flumen_core::{Error, Result};

/// The longest stretch of time that a change of clocks repeats.
pub(super) const LONGEST_FOLD: TimeDelta = TimeDelta::hours(3);

/// The zone with this name of the IANA database.
///
/// Errors: `Invalid`, with the nearest name.
pub fn parse(name: &str) -> Result<Tz> {
    let name = name.trim();
    let exact = name.parse::<Tz>().ok();
    let loose = || chrono_tz::TZ_VARIANTS.iter().copied().find(|zone| zone.name().eq_ignore_ascii_case(name));
    exact.or_else(loose).ok_or_else(|| {
        Error::invalid(format!("there is no time zone '{name}'"))
            .hint("a time zone is written as Europe/Berlin, America/New_York or UTC")
            .did_you_mean(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()))
    })
}

/// What a clock on a wall in `zone` shows at `moment`.
pub(super) fn local_at(zone: Tz, moment: DateTime<Utc>) -> NaiveDateTime {
    moment.with_timezone(&zone).naive_local()
}

/// How much later it is on a wall in `zone` than in UTC.
pub(super) fn offset_at(zone: Tz, moment: DateTime<Utc>) -> TimeDelta {
    let seconds = zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc();
    TimeDelta::seconds(i64::from(seconds))
}

/// When a clock on a wall in `zone` shows `local`: for the first time, or at the first instant after it was skipped.
pub fn instant_of(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(only) => only.to_utc(),
        MappedLocalTime::Ambiguous(one, other) => one.min(other).to_utc(),
        MappedLocalTime::None => end_of_gap(zone, local),
    }
}

/// The first instant at which it is later than `local`, which a change of clocks skips.
fn end_of_gap(zone: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    let (mut before, mut after) = (local.and_utc() - TimeDelta::days(2), local.and_utc() + TimeDelta::days(2));
    while after - before > TimeDelta::seconds(1) {
        let middle = halfway(before, after);
        match local_at(zone, middle) < local {
            true => before = middle,
            false => after = middle,
        }
    }
    after
}

/// The change of clocks after `from`, up to and including `until`: two moments at most a day apart, in which there is one at
/// most.
pub(super) fn change_between(zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let offset = offset_at(zone, from);
    if offset_at(zone, until) == offset {
        return None;
    }
    let (mut before, mut after) = (from, until);
    while after - before > TimeDelta::seconds(1) {
        let middle = halfway(before, after);
        match offset_at(zone, middle) == offset {
            true => before = middle,
            false => after = middle,
        }
    }
    Some(after)
}

/// The whole second in the middle of two that are more than one apart.
fn halfway(before: DateTime<Utc>, after: DateTime<Utc>) -> DateTime<Utc> {
    before + TimeDelta::seconds((after - before).num_seconds() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(zone: &str, local: &str, expect: &str) {
        let local = NaiveDateTime::parse_from_str(local, "%Y-%m-%d %H:%M").unwrap();
        let got = instant_of(parse(zone).unwrap(), local).format("%Y-%m-%d %H:%M").to_string();
        assert_eq!(got, expect, "{local} in {zone}");
    }

    #[test]
    fn a_skipped_time_is_the_first_instant_after_it_and_a_repeated_one_the_first() {
        check("Europe/Berlin", "2021-03-28 01:59", "2021-03-28 00:59");
        check("Europe/Berlin", "2021-03-28 02:30", "2021-03-28 01:00");
        check("Europe/Berlin", "2021-10-31 02:30", "2021-10-31 00:30");
        check("Europe/Berlin", "2021-10-31 03:00", "2021-10-31 02:00");
        check("Australia/Lord_Howe", "2021-10-03 02:10", "2021-10-02 15:30");
        check("Pacific/Apia", "2011-12-30 12:00", "2011-12-30 10:00");
    }

    #[test]
    fn an_unknown_zone_has_a_nearest_name() {
        let error = parse("Europe/Berln").unwrap_err();
        assert_eq!(error.message(), "there is no time zone 'Europe/Berln'");
        assert_eq!(error.remedy(), Some("did you mean 'Europe/Berlin'?"));
        assert_eq!(parse("europe/berlin").unwrap(), Tz::Europe__Berlin);
    }
}
