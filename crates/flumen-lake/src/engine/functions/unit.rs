//! Units of time, as people of several dialects write them: `day`, `'day'`, `dd`, first or last.

use datafusion::sql::sqlparser::ast::{Expr, Function, Ident, ObjectName, ObjectNamePart, UnaryOperator, Value};
use flumen_core::{Error, Result};

use super::{arguments, literal, set_arguments};

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
}

impl Unit {
    /// The unit that `text` names.
    ///
    /// Errors: `Invalid` for none.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text.trim().to_lowercase().as_str() {
            "year" | "years" | "y" | "yy" | "yyyy" | "yr" | "yrs" => Self::Year,
            "quarter" | "quarters" | "q" | "qq" | "qtr" | "qtrs" => Self::Quarter,
            "month" | "months" | "mm" | "mon" | "mons" => Self::Month,
            "week" | "weeks" | "w" | "wk" | "ww" | "isoweek" => Self::Week,
            "day" | "days" | "d" | "dd" => Self::Day,
            "hour" | "hours" | "h" | "hh" | "hr" | "hrs" => Self::Hour,
            "minute" | "minutes" | "m" | "mi" | "min" | "mins" => Self::Minute,
            "second" | "seconds" | "s" | "ss" | "sec" | "secs" => Self::Second,
            "millisecond" | "milliseconds" | "ms" | "msec" => Self::Millisecond,
            "microsecond" | "microseconds" | "us" | "usec" => Self::Microsecond,
            _ => {
                return Err(Error::invalid(format!("'{text}' is not a unit of time")).hint(
                    "there are: year, quarter, month, week, day, hour, minute, second, millisecond, microsecond",
                ));
            }
        })
    }

    /// Its name, as `date_trunc` and intervals have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Quarter => "quarter",
            Self::Month => "month",
            Self::Week => "week",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
            Self::Millisecond => "millisecond",
            Self::Microsecond => "microsecond",
        }
    }

    /// Whether a whole number of it leads from a date to a date.
    pub fn is_days(self) -> bool {
        matches!(self, Self::Year | Self::Quarter | Self::Month | Self::Week | Self::Day)
    }
}

/// Gives a call with a unit the form `f('unit', …)`.
pub(super) fn spell(name: &str, call: &mut Function) -> Result<()> {
    let Some(given) = arguments(call) else { return Ok(()) };
    let made = match (name, given.as_slice()) {
        ("datediff" | "date_diff", [end, start]) => vec![literal("day"), start.clone(), end.clone()],
        ("datediff" | "date_diff" | "timestampdiff" | "timestamp_diff", [first, second, third]) => {
            let last = name == "date_diff" || name == "timestamp_diff";
            match (word(first), word(third)) {
                _ if is_text(first) => return Ok(()),
                // `date_diff(end, start, unit)`, as BigQuery has it; a column may be called `d`, which is a unit as well.
                (first_word, Some(unit)) if is_unit(&unit) && (last || !first_word.as_deref().is_some_and(is_unit)) => {
                    vec![literal(&unit), second.clone(), first.clone()]
                }
                (Some(unit), _) => vec![literal(&unit), second.clone(), third.clone()],
                _ => return Ok(()),
            }
        }
        ("dateadd" | "date_add" | "timestampadd", [unit, count, time]) => match word(unit) {
            Some(unit) => vec![literal(&unit), count.clone(), time.clone()],
            None => return Ok(()),
        },
        ("date_add" | "dateadd", [time, count]) if !matches!(count, Expr::Interval(_)) => {
            vec![literal("day"), count.clone(), time.clone()]
        }
        ("date_sub", [time, count]) if !matches!(count, Expr::Interval(_)) => {
            let minus =
                Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(Expr::Nested(Box::new(count.clone()))) };
            call.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("date_add"))]);
            vec![literal("day"), minus, time.clone()]
        }
        ("date_trunc" | "date_part" | "datepart", [first, second]) => match (word(first), word(second)) {
            // A column may be called `d`, which is a unit as well: the longer word is the unit.
            (Some(unit), of)
                if is_unit(&unit) && !is_text(second) && !of.as_deref().is_some_and(|of| longer(of, &unit)) =>
            {
                vec![literal(&unit), second.clone()]
            }
            (_, Some(unit)) if is_unit(&unit) && !is_text(first) => vec![literal(&unit), first.clone()],
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    set_arguments(call, made);
    Ok(())
}

/// A word without quotes.
fn word(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) if ident.quote_style.is_none() => Some(ident.value.clone()),
        _ => None,
    }
}

fn is_unit(word: &str) -> bool {
    Unit::parse(word).is_ok()
}

fn longer(word: &str, than: &str) -> bool {
    is_unit(word) && word.len() > than.len()
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}
