//! Dates and times as Postgres writes them (`DateStyle` is ISO).

use std::fmt::Write as _;

use arrow::array::timezone::Tz;
use bytes::{BufMut as _, BytesMut};
use chrono::{DateTime, Offset as _, TimeZone as _};

use crate::settings::UTC;

/// Days from 1970 to 2000, where Postgres begins to count.
pub(in crate::pg) const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
pub(in crate::pg) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * DAY_MICROS;
/// Microseconds in a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// A date, in days since 1970.
pub(in crate::pg) fn date(days: i64, out: &mut BytesMut) {
    let before_christ = put_date(days, out);
    if before_christ {
        out.put_slice(b" BC");
    }
}

/// Writes the date, and tells whether it is before Christ.
fn put_date(days: i64, out: &mut BytesMut) -> bool {
    // Howard Hinnant's algorithm: years begin in March, so that the leap day is the last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let shown = if year <= 0 { 1 - year } else { year };
    let ([m, n], [d, e]) = (two(month), two(day));
    if (0..10_000).contains(&shown) {
        let ([y, z], [a, b]) = (two(shown / 100), two(shown % 100));
        out.put_slice(&[y, z, a, b, b'-', m, n, b'-', d, e]);
    } else {
        // Writing to memory does not fail.
        let _ = write!(out, "{shown}");
        out.put_slice(&[b'-', m, n, b'-', d, e]);
    }
    year <= 0
}

/// The time zone in which points in time are shown.
#[derive(Debug, Clone, Default)]
pub(in crate::pg) struct Zone(Option<Tz>);

impl Zone {
    /// The one called `name`; UTC, if there is none.
    pub fn named(name: &str) -> Self {
        Self(if name == UTC { None } else { name.parse().ok() })
    }

    /// How many seconds it is ahead at a point in time.
    fn seconds_ahead(&self, micros: i64) -> i64 {
        let at = |zone: &Tz| {
            let time = DateTime::from_timestamp_micros(micros)?.naive_utc();
            Some(zone.offset_from_utc_datetime(&time).fix().local_minus_utc())
        };
        self.0.as_ref().and_then(at).map_or(0, i64::from)
    }
}

/// A timestamp, in microseconds since 1970; with its offset, if it is shown in a time zone.
pub(in crate::pg) fn timestamp(micros: i64, zone: Option<&Zone>, out: &mut BytesMut) {
    let ahead = zone.map(|zone| zone.seconds_ahead(micros));
    let micros = micros.saturating_add(ahead.unwrap_or_default() * 1_000_000);
    let before_christ = put_date(micros.div_euclid(DAY_MICROS), out);
    out.put_u8(b' ');
    time(micros.rem_euclid(DAY_MICROS), out);
    if let Some(ahead) = ahead {
        let [h, i] = two(ahead.abs() / 3600);
        out.put_slice(&[if ahead < 0 { b'-' } else { b'+' }, h, i]);
        // Before there were zones, they differed by minutes and seconds.
        let ([m, n], [s, t]) = (two(ahead.abs() / 60 % 60), two(ahead.abs() % 60));
        if ahead % 3600 != 0 {
            out.put_slice(&[b':', m, n]);
        }
        if ahead % 60 != 0 {
            out.put_slice(&[b':', s, t]);
        }
    }
    if before_christ {
        out.put_slice(b" BC");
    }
}

/// A time of day, in microseconds.
pub(in crate::pg) fn time(micros: i64, out: &mut BytesMut) {
    let seconds = micros.div_euclid(1_000_000);
    clock(seconds, micros.rem_euclid(1_000_000), out);
}

fn clock(seconds: i64, micros: i64, out: &mut BytesMut) {
    let hours = seconds / 3600;
    let ([m, n], [s, t]) = (two(seconds / 60 % 60), two(seconds % 60));
    if hours < 100 {
        let [h, i] = two(hours);
        out.put_slice(&[h, i, b':', m, n, b':', s, t]);
    } else {
        // Writing to memory does not fail.
        let _ = write!(out, "{hours}");
        out.put_slice(&[b':', m, n, b':', s, t]);
    }
    if micros != 0 {
        let digits = format!("{micros:06}");
        out.put_u8(b'.');
        out.put_slice(digits.trim_end_matches('0').as_bytes());
    }
}

/// Two digits.
fn two(value: i64) -> [u8; 2] {
    [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]
}

/// An interval, as `IntervalStyle` postgres has it.
pub(in crate::pg) fn interval(months: i32, days: i32, micros: i64, out: &mut BytesMut) {
    let start = out.len();
    let mut part = |value: i32, one: &str, many: &str| {
        if value != 0 {
            let space = if out.len() > start { " " } else { "" };
            let _ = write!(out, "{space}{value} {}", if value == 1 { one } else { many });
        }
    };
    part(months / 12, "year", "years");
    part(months % 12, "mon", "mons");
    part(days, "day", "days");
    if micros != 0 || out.len() == start {
        if out.len() > start {
            out.put_u8(b' ');
        }
        if micros < 0 {
            out.put_u8(b'-');
        }
        let micros = micros.unsigned_abs();
        clock((micros / 1_000_000) as i64, (micros % 1_000_000) as i64, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).expect("ASCII")
    }

    #[test]
    fn dates_and_times() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (i64::from(EPOCH_DAYS), "2000-01-01"),
            (18_321, "2020-02-29"),
            (-719_528, "0001-01-01 BC"),
            (2_932_897, "10000-01-01"),
        ] {
            assert_eq!(shown(|out| date(days, out)), text);
        }
        assert_eq!(shown(|out| timestamp(1_500_000, None, out)), "1970-01-01 00:00:01.5");
        let in_zone = |micros, name| shown(|out| timestamp(micros, Some(&Zone::named(name)), out));
        assert_eq!(in_zone(-1, "UTC"), "1969-12-31 23:59:59.999999+00");
        assert_eq!(in_zone(-1, "Europe/Berlin"), "1970-01-01 00:59:59.999999+01");
        assert_eq!(in_zone(1_593_561_600_000_000, "Europe/Berlin"), "2020-07-01 02:00:00+02");
        assert_eq!(in_zone(0, "-03:30"), "1969-12-31 20:30:00-03:30");
        assert_eq!(in_zone(-3_000_000_000_000_000, "Europe/Paris"), "1874-12-07 18:49:21+00:09:21");
        assert_eq!(shown(|out| time(86_399_000_000, out)), "23:59:59");
    }

    #[test]
    fn intervals() {
        for (months, days, micros, text) in [
            (14, 3, 14_706_000_000, "1 year 2 mons 3 days 04:05:06"),
            (0, 0, 0, "00:00:00"),
            (0, 1, 0, "1 day"),
            (0, 0, -1_500_000, "-00:00:01.5"),
            (0, 0, 360_000_000_000, "100:00:00"),
        ] {
            assert_eq!(shown(|out| interval(months, days, micros, out)), text);
        }
    }
}
