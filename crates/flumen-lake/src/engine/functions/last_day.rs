//! `last_day(d [, unit])`: the last day of the month, or of another unit, that a day is in.

use datafusion::sql::sqlparser::ast::{Expr, Value};
use flumen_core::{Error, Result};

use super::unit::Unit;
use super::{Text, Written};

pub(super) const WRITTEN: &[Written] = &[Written {
    names: &["last_day", "eomonth"],
    arguments: 1..=2,
    usage: "last_day(d), or last_day(d, unit)",
    sql: Text::Of(last_day),
}];

fn last_day(given: &[Expr]) -> Result<String> {
    let unit = match given.get(1) {
        None => Unit::Month,
        Some(Expr::Identifier(ident)) => Unit::parse(&ident.value)?,
        Some(Expr::Value(value)) => match &value.value {
            Value::SingleQuotedString(text) => Unit::parse(text)?,
            other => Unit::parse(&other.to_string())?,
        },
        Some(other) => Unit::parse(&other.to_string())?,
    };
    let length = match unit {
        Unit::Year => "1 year",
        Unit::Quarter => "3 months",
        Unit::Month => "1 month",
        Unit::Week => "7 days",
        _ => {
            return Err(Error::invalid(format!("a {} has no last day", unit.name()))
                .hint("last_day knows the units year, quarter, month and week"));
        }
    };
    Ok(format!("CAST(date_trunc('{}', $1) + INTERVAL '{length}' - INTERVAL '1 day' AS DATE)", unit.name()))
}
