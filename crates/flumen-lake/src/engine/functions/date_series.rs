//! `date_series(first, last [, step])`, a table of days: `generate_series` for who has dates and wants dates, without a step
//! for each day, with the name of a unit or a number of days as a step.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, col, lit};
use flumen_core::{Error, Result};

use super::date_diff::not_a_time;
use super::travelling;
use super::unit::Unit;

/// Its name.
pub(super) const NAME: &str = "date_series";
const USAGE: &str =
    "write date_series(date '2026-01-01', date '2026-12-31', interval '1 month'); the step is a day if there is none";

/// The function.
#[derive(Debug)]
pub(super) struct DateSeries;

impl TableFunctionImpl for DateSeries {
    fn call_with_args(&self, args: TableFunctionArgs) -> DataFusionResult<Arc<dyn TableProvider>> {
        let series = Series::of(args.exprs()).map_err(travelling)?;
        let time = |value: Option<i64>| lit(ScalarValue::TimestampNanosecond(value, series.zone.clone()));
        let exprs = [time(series.first), time(series.last), lit(ScalarValue::IntervalMonthDayNano(series.step))];
        let args = TableFunctionArgs::new(&exprs, args.session());
        let made = datafusion::functions_table::generate_series().create_table_provider_with_args(args)?;
        let scan = LogicalPlanBuilder::scan(NAME, provider_as_source(made), None)?;
        let value = cast(col("value"), series.gives).alias("value");
        Ok(Arc::new(ViewTable::new(scan.project([value])?.build()?, None)))
    }
}

struct Series {
    /// Nanoseconds.
    first: Option<i64>,
    last: Option<i64>,
    step: Option<IntervalMonthDayNano>,
    zone: Option<Arc<str>>,
    gives: DataType,
}

impl Series {
    fn of(exprs: &[Expr]) -> Result<Self> {
        let values = exprs.iter().map(|expr| match expr {
            Expr::Literal(value, _) => Ok(value.clone()),
            other => {
                Err(Error::invalid(format!("'{other}' is no value that is known before the query runs")).hint(USAGE))
            }
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let (first, last, step) = match values.as_slice() {
            [first, last] => (dated(first)?, dated(last)?, None),
            [first, last, step] => (dated(first)?, dated(last)?, Some(step)),
            _ => return Err(Error::invalid("date_series wants the first and the last day").hint(USAGE)),
        };
        let step = match step {
            None => Some(IntervalMonthDayNano::new(0, 1, 0)),
            Some(step) => stepped(step)?,
        };
        let zone = match first.data_type() {
            DataType::Timestamp(_, zone) => zone,
            _ => None,
        };
        let days = first.data_type() == DataType::Date32
            && last.data_type() == DataType::Date32
            && step.is_none_or(|step| step.nanoseconds == 0);
        let gives = if days { DataType::Date32 } else { DataType::Timestamp(TimeUnit::Microsecond, zone.clone()) };
        Ok(Self { first: nanoseconds(&first, &zone)?, last: nanoseconds(&last, &zone)?, step, zone, gives })
    }
}

/// A date or a time; a text is one or the other.
fn dated(value: &ScalarValue) -> Result<ScalarValue> {
    match value {
        ScalarValue::Null => Ok(ScalarValue::Date32(None)),
        ScalarValue::Date32(_) => Ok(value.clone()),
        _ if matches!(value.data_type(), DataType::Timestamp(..)) => Ok(value.clone()),
        _ => {
            let text = value.try_as_str().flatten();
            let text = text.ok_or_else(|| not_a_time(NAME, Some(&value.data_type())).hint(USAGE))?;
            let time = super::super::time_travel::point_in_time(text)?;
            let plain = ScalarValue::TimestampNanosecond(time.timestamp_nanos_opt(), None);
            if text.trim().len() > "2026-01-01".len() { Ok(plain) } else { converted(&plain, &DataType::Date32) }
        }
    }
}

fn stepped(step: &ScalarValue) -> Result<Option<IntervalMonthDayNano>> {
    if let Some(text) = step.try_as_str().flatten()
        && let Ok(unit) = Unit::parse(text)
    {
        return Ok(super::date_add::interval(unit, 1));
    }
    let value = match step {
        ScalarValue::Null => return Ok(None),
        ScalarValue::Int64(days) => {
            let days = days.map(i32::try_from).transpose();
            let days = days.map_err(|_| Error::invalid("a step of date_series is too long"))?;
            ScalarValue::IntervalMonthDayNano(days.map(|days| IntervalMonthDayNano::new(0, days, 0)))
        }
        other => converted(other, &DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano))?,
    };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(step))
            if step.months == 0 && step.days == 0 && step.nanoseconds == 0 =>
        {
            Err(Error::invalid("a step of date_series is nothing").hint(USAGE))
        }
        ScalarValue::IntervalMonthDayNano(step) => Ok(step),
        other => Err(Error::invalid(format!("'{other}' is no step between days")).hint(USAGE)),
    }
}

fn nanoseconds(value: &ScalarValue, zone: &Option<Arc<str>>) -> Result<Option<i64>> {
    match converted(value, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()))? {
        ScalarValue::TimestampNanosecond(value, _) => Ok(value),
        other => Err(Error::internal(format!("'{other}' is no time"))),
    }
}

fn converted(value: &ScalarValue, to: &DataType) -> Result<ScalarValue> {
    value.cast_to(to).map_err(|_| Error::invalid(format!("'{value}' does not fit into date_series")).hint(USAGE))
}
