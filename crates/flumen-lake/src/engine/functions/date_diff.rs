//! `datediff(unit, start, end)`: how many borders of years, months, days, … lie between two times.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike};
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use flumen_core::{Error, Result};

use super::travelling;
use super::unit::Unit;

const MICROSECOND_TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
/// The day from which days are counted was a Thursday; weeks begin on Mondays.
const DAYS_SINCE_MONDAY: i64 = 3;

/// The function.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(DateDiff { signature: Signature::user_defined(Volatility::Immutable) }).with_aliases([
        "datediff",
        "timestampdiff",
        "timestamp_diff",
    ])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateDiff {
    signature: Signature,
}

impl ScalarUDFImpl for DateDiff {
    fn name(&self) -> &str {
        "date_diff"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let usage = "write datediff(unit, start, end), such as datediff(day, ordered, shipped)";
        match types {
            [unit, start, end] if is_text(unit) && is_time(start) && is_time(end) => {
                Ok(vec![DataType::Utf8, MICROSECOND_TIME, MICROSECOND_TIME])
            }
            [_, start, end] => {
                let wrong = [start, end].into_iter().find(|of| !is_time(of));
                Err(travelling(not_a_time("datediff", wrong).hint(usage)))
            }
            _ => Err(travelling(Error::invalid("datediff wants a unit and two times").hint(usage))),
        }
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DataFusionResult<arrow::datatypes::FieldRef> {
        if let Some(Some(unit)) = args.scalar_arguments.first().map(|unit| unit.and_then(|unit| unit.try_as_str()?)) {
            Unit::parse(unit).map_err(travelling)?;
        }
        Ok(Arc::new(arrow::datatypes::Field::new(self.name(), DataType::Int64, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [units, starts, ends] = arrays.as_slice() else {
            return Err(travelling(Error::internal("datediff has three arguments")));
        };
        let counted: ArrayRef = Arc::new(differences(units, starts, ends).map_err(travelling)?);
        if one {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&counted, 0)?));
        }
        Ok(ColumnarValue::Array(counted))
    }
}

fn differences(units: &ArrayRef, starts: &ArrayRef, ends: &ArrayRef) -> Result<Int64Array> {
    let units = units.as_string::<i32>();
    let starts = starts.as_primitive::<TimestampMicrosecondType>();
    let ends = ends.as_primitive::<TimestampMicrosecondType>();
    // Most often every row has the same unit.
    let mut known: Option<(&str, Unit)> = None;
    let mut counted = Vec::with_capacity(units.len());
    for row in 0..units.len() {
        if units.is_null(row) || starts.is_null(row) || ends.is_null(row) {
            counted.push(None);
            continue;
        }
        let unit = match known {
            Some((text, unit)) if text == units.value(row) => unit,
            _ => Unit::parse(units.value(row))?,
        };
        known = Some((units.value(row), unit));
        counted.push(Some(place(unit, ends.value(row))? - place(unit, starts.value(row))?));
    }
    Ok(counted.into_iter().collect())
}

/// Which year, month, day, … a time is in, counted from somewhere.
fn place(unit: Unit, time_us: i64) -> Result<i64> {
    let days = time_us.div_euclid(DAY_US);
    Ok(match unit {
        Unit::Year => months(time_us)?.div_euclid(12),
        Unit::Quarter => months(time_us)?.div_euclid(3),
        Unit::Month => months(time_us)?,
        Unit::Week => (days + DAYS_SINCE_MONDAY).div_euclid(7),
        Unit::Day => days,
        Unit::Hour => time_us.div_euclid(3_600 * SECOND_US),
        Unit::Minute => time_us.div_euclid(60 * SECOND_US),
        Unit::Second => time_us.div_euclid(SECOND_US),
        Unit::Millisecond => time_us.div_euclid(1_000),
        Unit::Microsecond => time_us,
    })
}

fn months(time_us: i64) -> Result<i64> {
    let time = DateTime::from_timestamp_micros(time_us)
        .ok_or_else(|| Error::data("a time is too far away for datediff to tell its month"))?;
    Ok(i64::from(time.year()) * 12 + i64::from(time.month0()))
}

pub(super) fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

/// Whether it is a date, a time with its date, or a text that may be one.
pub(super) fn is_time(of: &DataType) -> bool {
    is_text(of) || matches!(of, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
}

pub(super) fn not_a_time(function: &str, of: Option<&DataType>) -> Error {
    match of {
        Some(of) => Error::invalid(format!(
            "{function} is about dates and timestamps, not {}",
            flumen_core::contract::type_name(of)
        )),
        None => Error::invalid(format!("{function} wants the name of a unit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unit: &str, start: &str, end: &str, expect: i64) {
        let us = |text: &str| text.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_micros();
        let unit = Unit::parse(unit).unwrap();
        assert_eq!(place(unit, us(end)).unwrap() - place(unit, us(start)).unwrap(), expect, "{unit:?} {start} {end}");
    }

    #[test]
    fn borders_are_counted() {
        check("month", "2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z", 1);
        check("year", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z", 1);
        check("quarter", "2026-01-01T00:00:00Z", "2026-12-01T00:00:00Z", 3);
        check("day", "2026-01-02T23:00:00Z", "2026-01-01T01:00:00Z", -1);
        // A Sunday and the Monday after it.
        check("week", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z", 1);
        check("week", "1969-12-28T00:00:00Z", "1969-12-29T00:00:00Z", 1);
        check("hour", "1969-12-31T23:59:00Z", "1970-01-01T00:01:00Z", 1);
        check("second", "2026-01-01T00:00:00.900Z", "2026-01-01T00:00:01.100Z", 1);
    }
}
