//! `macros`: Airflow's modules of Python, as far as templates use them.
//!
//! The time and everything random come from the context: the same one always renders the same.

use std::sync::Arc;

use chrono::{NaiveDate, TimeDelta};
use flumen_core::Error as Flumen;
use minijinja::Error;
use minijinja::value::{Value, from_args};

use super::dates::{self, Moment, Span, failed, moment_of, moment_or_text, wrong};
use super::scope::{Node, Scope, Thing};
use super::{humans, strftime};
use crate::timetable::zone;

pub(super) const MACROS: &[&str] =
    &["datetime", "timedelta", "dateutil", "time", "uuid", "random", "ds_add", "ds_format", "datetime_diff_for_humans"];
pub(super) const DATETIME: &[&str] =
    &["now", "utcnow", "today", "strptime", "fromisoformat", "fromtimestamp", "datetime", "timedelta"];
pub(super) const DATEUTIL: &[&str] = &["parser", "relativedelta"];
pub(super) const TIME: &[&str] = &["time", "strftime"];
pub(super) const UUID: &[&str] = &["uuid1", "uuid4"];
pub(super) const RANDOM: &[&str] = &["random", "randint", "uniform", "choice"];

/// What is behind a name of a module, if it is no function.
pub(super) fn member(scope: &Arc<Scope>, of: Thing, name: &str) -> Option<Value> {
    let thing = match (of, name) {
        (Thing::Macros | Thing::Datetime, "datetime") => Thing::Datetime,
        (Thing::Macros | Thing::Datetime, "timedelta") => Thing::Timedelta,
        (Thing::Macros, "dateutil") => Thing::Dateutil,
        (Thing::Macros, "time") => Thing::Time,
        (Thing::Macros, "uuid") => Thing::Uuid,
        (Thing::Macros, "random") => Thing::Random,
        (Thing::Dateutil, "parser") => Thing::Parser,
        (Thing::Dateutil, "relativedelta") => Thing::Relativedelta,
        (Thing::Relativedelta, "relativedelta") => Thing::Relativedelta,
        _ => return None,
    };
    Some(Node::value(scope, thing))
}

/// Calls a module that is a function at once.
pub(super) fn call(scope: &Scope, thing: Thing, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match thing {
        Thing::Datetime => datetime(scope, args),
        Thing::Timedelta => {
            const PLACES: &[&str] = &["days", "seconds", "microseconds", "milliseconds", "minutes", "hours", "weeks"];
            Span::read(args, PLACES, false).map(|span| span.normalized().value())
        }
        Thing::Relativedelta => Span::read(args, &[], true).map(Span::value),
        Thing::Random => Ok(Value::from(scope.draw_unit())),
        _ => return None,
    })
}

/// Calls a function of a module.
pub(super) fn call_method(scope: &Scope, thing: Thing, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match (thing, method) {
        (Thing::Macros | Thing::Datetime, "datetime") => datetime(scope, args),
        (Thing::Macros | Thing::Datetime, "timedelta") => return call(scope, Thing::Timedelta, args),
        (Thing::Dateutil | Thing::Relativedelta, "relativedelta") => return call(scope, Thing::Relativedelta, args),
        (Thing::Macros, "random") | (Thing::Random, "random") => Ok(Value::from(scope.draw_unit())),
        (Thing::Macros, "ds_add") => ds_add(args),
        (Thing::Macros, "ds_format") => ds_format(scope, args),
        (Thing::Macros, "datetime_diff_for_humans") => diff_for_humans(scope, args),
        (Thing::Datetime, "now" | "today") => Ok(scope.moment(scope.context.now)),
        (Thing::Datetime, "utcnow") => Ok(Moment::at(scope.context.now.with_timezone(&chrono_tz::Tz::UTC)).value()),
        (Thing::Datetime, "strptime") => from_args::<(&str, &str)>(args).and_then(|(text, format)| {
            Ok(Moment::at(strftime::parse(text, format).map_err(wrong)?.moment(scope.context.zone)).value())
        }),
        (Thing::Datetime, "fromisoformat") | (Thing::Parser, "parse") => {
            from_args::<(&str,)>(args).and_then(|(text,)| {
                Ok(Moment::at(strftime::parse_iso(text).map_err(wrong)?.moment(scope.context.zone)).value())
            })
        }
        (Thing::Datetime, "fromtimestamp") => from_args::<(f64,)>(args).and_then(|(seconds,)| {
            let moment = chrono::DateTime::from_timestamp_micros((seconds * 1e6) as i64);
            moment.map(|moment| scope.moment(moment)).ok_or_else(|| wrong("the date is out of all reason"))
        }),
        (Thing::Time, "time") => Ok(Value::from(scope.context.now.timestamp_micros() as f64 / 1e6)),
        (Thing::Time, "strftime") => from_args::<(&str,)>(args).and_then(|(format,)| {
            let now = scope.context.now.with_timezone(&scope.context.zone);
            strftime::format(&now, format).map(Value::from).map_err(wrong)
        }),
        (Thing::Uuid, "uuid4" | "uuid1") => from_args::<()>(args).map(|()| Value::from(uuid(scope))),
        (Thing::Random, "randint") => from_args::<(i64, i64)>(args).and_then(|(low, high)| match low <= high {
            true => Ok(Value::from(low + (scope.draw() % (high.abs_diff(low).saturating_add(1))) as i64)),
            false => Err(wrong(format!("there is no number from {low} to {high}"))),
        }),
        (Thing::Random, "uniform") => {
            from_args::<(f64, f64)>(args).map(|(low, high)| Value::from(low + (high - low) * scope.draw_unit()))
        }
        (Thing::Random, "choice") => from_args::<(Vec<Value>,)>(args).and_then(|(items,)| match items.is_empty() {
            true => Err(wrong("nothing can be chosen from an empty list")),
            false => Ok(items[(scope.draw() % items.len() as u64) as usize].clone()),
        }),
        _ => return None,
    })
}

/// `datetime(2021, 1, 31, hour=6)`, on the wall clock of the flow.
fn datetime(scope: &Scope, args: &[Value]) -> Result<Value, Error> {
    const PARTS: &[&str] = &["year", "month", "day", "hour", "minute", "second", "microsecond"];
    let (by_place, by_name) = dates::arguments(args)?;
    let mut values = [0_u32; 7];
    for (place, part) in PARTS.iter().enumerate() {
        let value = match by_place.get(place) {
            Some(value) => u32::try_from(value.clone()).ok(),
            None => by_name.get::<Option<u32>>(part)?.or((place > 2).then_some(0)),
        };
        values[place] = value.ok_or_else(|| wrong(format!("datetime needs a whole number as its {part}")))?;
    }
    by_name.assert_all_used()?;
    let [year, month, day, hour, minute, second, micro] = values;
    let date = i32::try_from(year).ok().filter(|year| (1..=9999).contains(year));
    let local = date
        .and_then(|year| NaiveDate::from_ymd_opt(year, month, day))
        .and_then(|date| date.and_hms_micro_opt(hour, minute, second, micro))
        .ok_or_else(|| {
            wrong(format!("there is no date {year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"))
        })?;
    Ok(scope.moment(zone::instant_of(scope.context.zone, local)))
}

fn ds_add(args: &[Value]) -> Result<Value, Error> {
    let (ds, days): (&str, i64) = from_args(args)?;
    let day = strftime::parse(ds, "%Y-%m-%d").map_err(wrong)?.local.date();
    let moved = TimeDelta::try_days(days).and_then(|days| day.checked_add_signed(days));
    moved.map(|day| Value::from(day.to_string())).ok_or_else(|| wrong("the date is out of all reason"))
}

fn ds_format(scope: &Scope, args: &[Value]) -> Result<Value, Error> {
    let (ds, from, to): (&str, &str, &str) = from_args(args)?;
    let moment = strftime::parse(ds, from).map_err(wrong)?.moment(scope.context.zone);
    strftime::format(&moment, to).map(Value::from).map_err(wrong)
}

fn diff_for_humans(scope: &Scope, args: &[Value]) -> Result<Value, Error> {
    let (moment, since): (&Value, Option<&Value>) = from_args(args)?;
    let moment = moment_or_text(moment, scope.context.zone)?;
    Ok(Value::from(match since.filter(|since| !since.is_none()) {
        Some(since) => humans::difference(&moment, moment_of(since)?, false),
        None => {
            let now = Moment::at(scope.context.now.with_timezone(&scope.context.zone));
            humans::difference(&moment, &now, true)
        }
    }))
}

fn uuid(scope: &Scope) -> String {
    let (high, low) = (scope.draw(), scope.draw());
    // Version 4, variant 1.
    let (high, low) = (high & !0xf000 | 0x4000, low & !(0xc << 60) | 0x8 << 60);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// `macros.x` that is not there.
pub(super) fn unknown(of: &str, name: &str, known: &[&str]) -> Error {
    failed(Flumen::invalid(format!("there is no '{name}' in {of}")).did_you_mean(name, known.iter().copied()))
}
