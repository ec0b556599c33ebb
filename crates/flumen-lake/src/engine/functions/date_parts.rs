//! `year(d)` and its like: `date_part` in one word.

use super::{Text, Written};

const fn part(names: &'static [&'static str], usage: &'static str, sql: &'static str) -> Written {
    Written { names, arguments: 1..=1, usage, sql: Text::Same(sql) }
}

pub(super) const WRITTEN: &[Written] = &[
    part(&["year"], "year(d)", "date_part('year', $1)"),
    part(&["quarter"], "quarter(d)", "date_part('quarter', $1)"),
    part(&["month"], "month(d)", "date_part('month', $1)"),
    part(&["week", "weekofyear", "weekiso"], "week(d)", "date_part('week', $1)"),
    part(&["day", "dayofmonth"], "day(d)", "date_part('day', $1)"),
    part(&["dayofweek"], "dayofweek(d)", "date_part('dow', $1)"),
    part(&["dayofyear"], "dayofyear(d)", "date_part('doy', $1)"),
    part(&["hour"], "hour(t)", "date_part('hour', $1)"),
    part(&["minute"], "minute(t)", "date_part('minute', $1)"),
    part(&["second"], "second(t)", "date_part('second', $1)"),
    part(&["dayname"], "dayname(d)", "to_char($1, '%a')"),
    part(&["monthname"], "monthname(d)", "to_char($1, '%b')"),
];
