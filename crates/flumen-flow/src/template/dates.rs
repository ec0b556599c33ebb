//! Dates and spans of time as objects of templates, with the names that Python and Pendulum give them.
//!
//! Days, months and years follow the wall clock of a date's zone; hours, minutes and seconds follow elapsed time.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, Timelike};
use chrono_tz::Tz;
use flumen_core::Error as Flumen;
use minijinja::value::{DynObject, Kwargs, Object, ObjectRepr, Rest, Value, from_args};
use minijinja::{Error, ErrorKind, State};

use super::strftime;
use crate::timetable::zone;

/// A moment on a wall clock, or a day.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub at: DateTime<Tz>,
    pub is_day: bool,
}

/// A span of time, or what `relativedelta` makes of a date.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Span {
    months: i64,
    days: i64,
    micros: i64,
    set: Fields,
}

/// Parts of a date that are set to a value.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Fields {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
    microsecond: Option<i64>,
}

const DAY_MICROS: i64 = 86_400_000_000;

/// Units of spans: months, days and microseconds in one of each.
const UNITS: &[(&str, i64, i64, i64)] = &[
    ("years", 12, 0, 0),
    ("months", 1, 0, 0),
    ("weeks", 0, 7, 0),
    ("days", 0, 1, 0),
    ("hours", 0, 0, 3_600_000_000),
    ("minutes", 0, 0, 60_000_000),
    ("seconds", 0, 0, 1_000_000),
    ("milliseconds", 0, 0, 1000),
    ("microseconds", 0, 0, 1),
];

const FIELDS: &[&str] = &["year", "month", "day", "hour", "minute", "second", "microsecond"];

/// What can be asked of a date.
pub(super) const MEMBERS: &[&str] = &[
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "microsecond",
    "day_of_week",
    "day_of_year",
    "week_of_year",
    "quarter",
    "days_in_month",
    "timezone_name",
    "int_timestamp",
    "strftime",
    "isoformat",
    "to_date_string",
    "to_datetime_string",
    "to_iso8601_string",
    "date",
    "timestamp",
    "weekday",
    "isoweekday",
    "add",
    "subtract",
    "replace",
    "in_timezone",
    "in_tz",
    "astimezone",
    "start_of",
    "end_of",
    "diff_for_humans",
];

const SPAN_MEMBERS: &[&str] = &[
    "days",
    "seconds",
    "microseconds",
    "years",
    "months",
    "total_seconds",
    "total_minutes",
    "total_hours",
    "total_days",
    "in_seconds",
    "in_minutes",
    "in_hours",
    "in_days",
];

/// An error that is shown as it is.
pub(super) fn failed(error: Flumen) -> Error {
    Error::new(ErrorKind::InvalidOperation, error.to_string()).with_source(error)
}

pub(super) fn wrong(message: impl Into<String>) -> Error {
    failed(Flumen::invalid(message))
}

/// `X has no 'y'`, with the nearest of what it has.
pub(super) fn unknown_member(of: &str, name: &str, members: &[&str]) -> Error {
    failed(Flumen::invalid(format!("{of} has no '{name}'")).did_you_mean(name, members.iter().copied()))
}

/// The arguments of a call: by place, and by name.
pub(super) fn arguments(args: &[Value]) -> Result<(Vec<Value>, Kwargs), Error> {
    let (by_place, by_name): (Rest<Value>, Kwargs) = from_args(args)?;
    Ok((by_place.to_vec(), by_name))
}

impl Moment {
    pub(super) fn at(at: DateTime<Tz>) -> Self {
        Self { at, is_day: false }
    }

    pub(super) fn day(at: DateTime<Tz>) -> Self {
        Self { at, is_day: true }
    }

    pub(super) fn value(self) -> Value {
        Value::from_object(self)
    }

    /// The same wall clock at another time.
    fn with_local(&self, local: NaiveDateTime) -> Self {
        let zone = self.at.timezone();
        Self { at: zone::instant_of(zone, local).with_timezone(&zone), is_day: self.is_day }
    }

    fn out_of_range() -> Error {
        wrong("the date is out of all reason")
    }

    pub(super) fn plus(&self, span: &Span, sign: i64) -> Result<Self, Error> {
        let local = self.at.naive_local();
        let mut moved = set(local, span.set, true)?;
        let months = span.months.checked_mul(sign).ok_or_else(Self::out_of_range)?;
        let count = Months::new(u32::try_from(months.unsigned_abs()).map_err(|_| Self::out_of_range())?);
        moved = match months < 0 {
            true => moved.checked_sub_months(count),
            false => moved.checked_add_months(count),
        }
        .and_then(|moved| moved.checked_add_signed(TimeDelta::try_days(span.days.checked_mul(sign)?)?))
        .filter(|moved| (1..=9999).contains(&moved.year()))
        .ok_or_else(Self::out_of_range)?;
        let mut result = if moved == local { self.clone() } else { self.with_local(moved) };
        if !self.is_day {
            let micros = TimeDelta::microseconds(span.micros.saturating_mul(sign));
            result.at = result.at.checked_add_signed(micros).ok_or_else(Self::out_of_range)?;
        }
        Ok(result)
    }

    fn minus(&self, other: &Moment) -> Span {
        let micros = (self.at - other.at).num_microseconds().unwrap_or(i64::MAX);
        Span { micros, ..Span::default() }.normalized()
    }

    pub(super) fn isoformat(&self, between: char) -> String {
        if self.is_day {
            return self.text("%Y-%m-%d");
        }
        let fraction = if self.at.nanosecond() % 1_000_000_000 / 1000 == 0 { "" } else { ".%f" };
        self.text(&format!("%Y-%m-%d{between}%H:%M:%S{fraction}%:z"))
    }

    /// It, in a format that is known to be right.
    pub(super) fn text(&self, format: &str) -> String {
        strftime::format(&self.at, format).unwrap_or_default()
    }

    /// The first moment of a year, month, … that it is in.
    fn start_of(&self, unit: &str) -> Result<Self, Error> {
        let local = self.at.naive_local();
        let date = local.date();
        let day = |date: Option<NaiveDate>| date.map(|date| date.and_time(NaiveTime::MIN));
        let start = match unit {
            "year" => day(date.with_ordinal(1)),
            "quarter" => day(NaiveDate::from_ymd_opt(date.year(), date.month0() / 3 * 3 + 1, 1)),
            "month" => day(date.with_day(1)),
            "week" => day(date.checked_sub_signed(TimeDelta::days(date.weekday().num_days_from_monday().into()))),
            "day" => day(Some(date)),
            "hour" => date.and_hms_opt(local.hour(), 0, 0),
            "minute" => date.and_hms_opt(local.hour(), local.minute(), 0),
            _ => {
                let units = ["year", "quarter", "month", "week", "day", "hour", "minute"];
                return Err(failed(
                    Flumen::invalid(format!("a date has no '{unit}' to start")).did_you_mean(unit, units),
                ));
            }
        };
        start.map(|start| self.with_local(start)).ok_or_else(Self::out_of_range)
    }

    fn end_of(&self, unit: &str) -> Result<Self, Error> {
        let (months, days, micros) = match unit {
            "year" => (12, 0, 0),
            "quarter" => (3, 0, 0),
            "month" => (1, 0, 0),
            "week" => (0, 7, 0),
            "day" => (0, 1, 0),
            "hour" => (0, 0, 3_600_000_000),
            _ => (0, 0, 60_000_000),
        };
        let after = self.start_of(unit)?.plus(&Span { months, days, micros, ..Span::default() }, 1)?;
        Ok(Self { at: after.at - TimeDelta::microseconds(1), is_day: self.is_day })
    }

    fn in_zone(&self, args: &[Value]) -> Result<Self, Error> {
        let (name,): (&str,) = from_args(args)?;
        let zone = zone::parse(name).map_err(failed)?;
        Ok(Self { at: self.at.with_timezone(&zone), is_day: self.is_day })
    }

    fn member(&self, name: &str) -> Option<Value> {
        let at = &self.at;
        let clock = !self.is_day;
        Some(match name {
            "year" => Value::from(at.year()),
            "month" => Value::from(at.month()),
            "day" => Value::from(at.day()),
            "hour" if clock => Value::from(at.hour()),
            "minute" if clock => Value::from(at.minute()),
            "second" if clock => Value::from(at.second()),
            "microsecond" if clock => Value::from(at.nanosecond() % 1_000_000_000 / 1000),
            "day_of_week" => Value::from(at.weekday().num_days_from_sunday()),
            "day_of_year" => Value::from(at.ordinal()),
            "week_of_year" => Value::from(at.iso_week().week()),
            "quarter" => Value::from(at.month0() / 3 + 1),
            "days_in_month" => Value::from(at.date_naive().num_days_in_month()),
            "timezone_name" => Value::from(at.timezone().name()),
            "int_timestamp" => Value::from(at.timestamp()),
            _ => return None,
        })
    }
}

impl Object for Moment {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        Some(self.member(name).unwrap_or_else(|| match MEMBERS.contains(&name) {
            true => Value::from(wrong(format!("'{name}' of a date is called: write {name}()"))),
            false => Value::from(unknown_member("a date", name, MEMBERS)),
        }))
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        Ok(match method {
            "strftime" => {
                let (format,): (&str,) = from_args(args)?;
                Value::from(strftime::format(&self.at, format).map_err(wrong)?)
            }
            "isoformat" | "to_iso8601_string" => Value::from(self.isoformat('T')),
            "to_date_string" => Value::from(self.text("%Y-%m-%d")),
            "to_datetime_string" => Value::from(self.text("%Y-%m-%d %H:%M:%S")),
            "date" => Moment::day(self.start_of("day")?.at).value(),
            "timestamp" => Value::from(self.at.timestamp_micros() as f64 / 1e6),
            "weekday" => Value::from(self.at.weekday().num_days_from_monday()),
            "isoweekday" => Value::from(self.at.weekday().number_from_monday()),
            "add" => self.plus(&Span::read(args, &[], false)?, 1)?.value(),
            "subtract" => self.plus(&Span::read(args, &[], false)?, -1)?.value(),
            "replace" => {
                let fields = Span::read(args, FIELDS, true)?.set;
                self.with_local(set(self.at.naive_local(), fields, false)?).value()
            }
            "in_timezone" | "in_tz" | "astimezone" => self.in_zone(args)?.value(),
            "start_of" => self.start_of(from_args::<(&str,)>(args)?.0)?.value(),
            "end_of" => self.end_of(from_args::<(&str,)>(args)?.0)?.value(),
            "diff_for_humans" => {
                let (other,): (&Value,) = from_args(args)?;
                Value::from(super::humans::difference(self, moment_of(other)?, false))
            }
            _ if self.member(method).is_some() => {
                return Err(wrong(format!("'{method}' of a date is not called: leave out the parentheses")));
            }
            _ => return Err(unknown_member("a date", method, MEMBERS)),
        })
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.at.cmp(&other.downcast_ref::<Self>()?.at))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.isoformat(' '))
    }
}

/// `local` with some fields set; with `clamp`, a day that its month does not have is its last.
fn set(local: NaiveDateTime, fields: Fields, clamp: bool) -> Result<NaiveDateTime, Error> {
    let number =
        |field: Option<i64>, default: u32| field.map_or(default, |field| u32::try_from(field).unwrap_or(u32::MAX));
    let year = fields.year.and_then(|year| i32::try_from(year).ok()).unwrap_or(local.year());
    let month = number(fields.month, local.month());
    let mut day = number(fields.day, local.day());
    let first = NaiveDate::from_ymd_opt(year, month, 1).filter(|first| (1..=9999).contains(&first.year()));
    if clamp && let Some(first) = first {
        day = day.min(u32::from(first.num_days_in_month()));
    }
    let micros = number(fields.microsecond, local.nanosecond() / 1000);
    let time = |date: NaiveDate| {
        date.and_hms_micro_opt(
            number(fields.hour, local.hour()),
            number(fields.minute, local.minute()),
            number(fields.second, local.second()),
            micros,
        )
    };
    first
        .and_then(|first| first.with_day(day))
        .and_then(time)
        .ok_or_else(|| wrong("the date or time that 'replace' would make does not exist"))
}

impl Span {
    /// Reads `days=1, hours=2`; by place, arguments have the names `places`; with `fields`, `day=1` is allowed too.
    pub(super) fn read(args: &[Value], places: &[&str], fields: bool) -> Result<Self, Error> {
        let (by_place, by_name) = arguments(args)?;
        if by_place.len() > places.len() {
            return Err(wrong("a span of time is written with names, such as days=1"));
        }
        let placed = by_place.iter().zip(places).map(|(value, name)| ((*name).to_owned(), value.clone()));
        let names: Vec<String> = by_name.args().map(str::to_owned).collect();
        let named = names.into_iter().map(|name| by_name.get::<Value>(&name).map(|value| (name, value)));
        let all = placed.map(Ok).chain(named).collect::<Result<Vec<_>, _>>()?;
        let mut span = Self::default();
        for (name, value) in all {
            span.take(&name, &value, fields)?;
        }
        Ok(span)
    }

    fn take(&mut self, name: &str, value: &Value, fields: bool) -> Result<(), Error> {
        let unit = UNITS.iter().find(|(unit, ..)| *unit == name);
        let field = if fields { self.set.named(name) } else { None };
        match (unit, field, value.as_i64(), f64::try_from(value.clone())) {
            (Some((_, months, days, micros)), _, Some(count), _) => {
                let sum = |sum: i64, one: i64| one.checked_mul(count).and_then(|more| sum.checked_add(more));
                let parts = (sum(self.months, *months), sum(self.days, *days), sum(self.micros, *micros));
                let (Some(months), Some(days), Some(micros)) = parts else { return Err(Moment::out_of_range()) };
                (self.months, self.days, self.micros) = (months, days, micros);
                Ok(())
            }
            (Some((_, 0, days, micros)), _, None, Ok(count)) => {
                self.micros += ((*days * DAY_MICROS + *micros) as f64 * count).round() as i64;
                Ok(())
            }
            (None, Some(field), Some(value), _) => {
                *field = Some(value);
                Ok(())
            }
            (None, None, ..) => {
                let known = UNITS.iter().map(|(unit, ..)| *unit).chain(FIELDS.iter().copied().filter(|_| fields));
                Err(failed(Flumen::invalid(format!("there is no unit '{name}'")).did_you_mean(name, known)))
            }
            _ => Err(wrong(format!("'{name}' is {value}, which is not a whole number"))),
        }
    }

    /// As `timedelta` has it: days, and what is left of a day.
    pub(super) fn normalized(mut self) -> Self {
        self.days += self.micros.div_euclid(DAY_MICROS);
        self.micros = self.micros.rem_euclid(DAY_MICROS);
        self
    }

    pub(super) fn value(self) -> Value {
        Value::from_object(self)
    }

    fn plus(&self, other: &Span, sign: i64) -> Self {
        let set = if self.set == Fields::default() { other.set } else { self.set };
        let sum = |one: i64, other: i64| one.saturating_add(other.saturating_mul(sign));
        let (months, days) = (sum(self.months, other.months), sum(self.days, other.days));
        let plain = Span { months, days, micros: sum(self.micros, other.micros), set };
        if self.months == 0 && other.months == 0 { plain.normalized() } else { plain }
    }

    fn times(&self, factor: &Value) -> Result<Self, Error> {
        match (factor.as_i64(), f64::try_from(factor.clone())) {
            (Some(factor), _) => Ok(Span::default().plus(self, factor)),
            (None, Ok(factor)) if self.months == 0 => {
                let micros = (self.total_micros() as f64 * factor).round() as i64;
                Ok(Span { micros, ..Span::default() }.normalized())
            }
            _ => Err(wrong(format!("a span of time cannot be multiplied by {factor}"))),
        }
    }

    fn total_micros(&self) -> i64 {
        // Like everybody, a year has 365 days here, and a month 30.
        let days = self.days + self.months / 12 * 365 + self.months % 12 * 30;
        days.saturating_mul(DAY_MICROS).saturating_add(self.micros)
    }
}

impl Fields {
    fn named(&mut self, name: &str) -> Option<&mut Option<i64>> {
        Some(match name {
            "year" => &mut self.year,
            "month" => &mut self.month,
            "day" => &mut self.day,
            "hour" => &mut self.hour,
            "minute" => &mut self.minute,
            "second" => &mut self.second,
            "microsecond" => &mut self.microsecond,
            _ => return None,
        })
    }
}

impl Object for Span {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        Some(match name {
            "days" => Value::from(self.days),
            "seconds" => Value::from(self.micros / 1_000_000),
            "microseconds" => Value::from(self.micros % 1_000_000),
            "years" => Value::from(self.months / 12),
            "months" => Value::from(self.months % 12),
            _ if SPAN_MEMBERS.contains(&name) => {
                Value::from(wrong(format!("'{name}' of a span of time is called: write {name}()")))
            }
            _ => Value::from(unknown_member("a span of time", name, SPAN_MEMBERS)),
        })
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        from_args::<()>(args)?;
        let micros = self.total_micros();
        let unit = match method.split_once('_') {
            Some((_, "seconds")) => 1_000_000,
            Some((_, "minutes")) => 60_000_000,
            Some((_, "hours")) => 3_600_000_000,
            _ => DAY_MICROS,
        };
        match method {
            _ if !SPAN_MEMBERS.contains(&method) => Err(unknown_member("a span of time", method, SPAN_MEMBERS)),
            _ if method.starts_with("total_") => Ok(Value::from(micros as f64 / unit as f64)),
            _ if method.starts_with("in_") => Ok(Value::from(micros / unit)),
            _ => Err(wrong(format!("'{method}' of a span of time is not called: leave out the parentheses"))),
        }
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.total_micros().cmp(&other.downcast_ref::<Self>()?.total_micros()))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.total_micros() != 0
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (count, one) in [(self.months / 12, "year"), (self.months % 12, "month"), (self.days, "day")] {
            if count != 0 {
                parts.push(format!("{count} {one}{}", if count.abs() == 1 { "" } else { "s" }));
            }
        }
        let seconds = self.micros.div_euclid(1_000_000);
        let mut clock = format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        if self.micros % 1_000_000 != 0 {
            clock.push_str(&format!(".{:06}", self.micros.rem_euclid(1_000_000)));
        }
        parts.push(clock);
        f.write_str(&parts.join(", "))
    }
}

/// The date that a value is.
pub(super) fn moment_of(value: &Value) -> Result<&Moment, Error> {
    value.downcast_object_ref::<Moment>().ok_or_else(|| wrong(format!("{value} is not a date")))
}

/// A date, or what is written like one.
pub(super) fn moment_or_text(value: &Value, zone: Tz) -> Result<Moment, Error> {
    match (value.downcast_object_ref::<Moment>(), value.as_str()) {
        (Some(moment), _) => Ok(moment.clone()),
        (None, Some(text)) => Ok(Moment::at(strftime::parse_iso(text).map_err(wrong)?.moment(zone))),
        (None, None) => Err(wrong(format!("{value} is not a date"))),
    }
}

/// What an operator makes of two values of which one is a date or a span of time; nothing if none is.
pub(super) fn operate(operator: &str, left: &Value, right: &Value) -> Option<Result<Value, Error>> {
    let moments = (left.downcast_object_ref::<Moment>(), right.downcast_object_ref::<Moment>());
    let spans = (left.downcast_object_ref::<Span>(), right.downcast_object_ref::<Span>());
    if let ((None, None), (None, None)) = (moments, spans) {
        return None;
    }
    Some(match (operator, moments, spans) {
        ("+", (Some(moment), None), (None, Some(span))) | ("+", (None, Some(moment)), (Some(span), None)) => {
            moment.plus(span, 1).map(Moment::value)
        }
        ("-", (Some(moment), None), (None, Some(span))) => moment.plus(span, -1).map(Moment::value),
        ("-", (Some(left), Some(right)), _) => Ok(left.minus(right).value()),
        ("+", _, (Some(left), Some(right))) => Ok(left.plus(right, 1).value()),
        ("-", _, (Some(left), Some(right))) => Ok(left.plus(right, -1).value()),
        ("*", (None, None), (Some(span), None)) => span.times(right).map(Span::value),
        ("*", (None, None), (None, Some(span))) => span.times(left).map(Span::value),
        ("<" | "<=" | ">" | ">=", (Some(left), Some(right)), _) => Ok(compared(operator, left.at.cmp(&right.at))),
        ("<" | "<=" | ">" | ">=", _, (Some(left), Some(right))) => {
            Ok(compared(operator, left.total_micros().cmp(&right.total_micros())))
        }
        _ => {
            let kind = |moment: Option<&Moment>, span: Option<&Span>, value: &Value| match (moment, span) {
                (Some(_), _) => "a date".to_owned(),
                (_, Some(_)) => "a span of time".to_owned(),
                _ => format!("a {}", value.kind()),
            };
            let (one, other) = (kind(moments.0, spans.0, left), kind(moments.1, spans.1, right));
            let error = Flumen::invalid(format!("'{operator}' does not work with {one} and {other}"));
            Err(failed(
                error.hint("add macros.timedelta(days=1) to a date, or compare it with macros.datetime(2021, 1, 31)"),
            ))
        }
    })
}

fn compared(operator: &str, order: Ordering) -> Value {
    Value::from(match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// The offset of a date, as `ts_nodash_with_tz` has it.
pub(super) fn offset_of(moment: &Moment) -> String {
    strftime::offset(moment.at.offset().fix(), false)
}
