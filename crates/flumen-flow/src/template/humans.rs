//! Differences between dates as people say them: `2 days ago`.

use chrono::{Datelike, TimeDelta};

use super::dates::Moment;

/// How far `moment` is from `other`: `in 2 days` and `2 days ago` where `other` is now, `2 days after` otherwise.
pub(super) fn difference(moment: &Moment, other: &Moment, is_now: bool) -> String {
    let later = moment.at > other.at;
    let amount = amount(moment, other);
    match (is_now, later) {
        (true, true) => format!("in {amount}"),
        (true, false) => format!("{amount} ago"),
        (false, true) => format!("{amount} after"),
        (false, false) => format!("{amount} before"),
    }
}

/// The largest unit of the difference, rounded as Pendulum does.
fn amount(one: &Moment, other: &Moment) -> String {
    let (from, to) = if one.at <= other.at { (one, other) } else { (other, one) };
    let (from, to) = (from.at.naive_utc(), to.at.naive_utc());
    let mut months = (to.year() - from.year()) * 12 + to.month() as i32 - from.month() as i32;
    let passed = |months: i32| from.checked_add_months(chrono::Months::new(months.max(0) as u32)).unwrap_or(from);
    if passed(months) > to {
        months -= 1;
    }
    let rest: TimeDelta = to - passed(months);
    let (years, months, days) = (months / 12, months % 12, rest.num_days() as i32);
    let (hours, minutes, seconds) = (rest.num_hours() % 24, rest.num_minutes() % 60, rest.num_seconds() % 60);
    let (unit, count) = if years > 0 {
        ("year", years + i32::from(months > 6))
    } else if months == 11 && days > 15 {
        ("year", 1)
    } else if months > 0 {
        ("month", months + i32::from(days >= 27))
    } else if days >= 7 {
        ("week", days / 7 + i32::from(days % 7 > 3))
    } else if days > 0 {
        ("day", days + i32::from(hours >= 22))
    } else if hours > 0 {
        ("hour", hours as i32)
    } else if minutes > 0 {
        ("minute", minutes as i32)
    } else if seconds > 10 {
        ("second", seconds as i32)
    } else {
        return "a few seconds".to_owned();
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
