//! `dateadd(unit, count, time)`: so many years, months, days, … later. The end of a month stays one where the day is missing.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Function};
use flumen_core::{Error, Result};

use super::date_diff::{is_text, is_time, not_a_time};
use super::unit::Unit;
use super::{arguments, travelling};

const USAGE: &str = "write dateadd(unit, count, time), such as dateadd(month, 3, ordered)";

/// The function.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(DateAdd { signature: Signature::user_defined(Volatility::Immutable) })
        .with_aliases(["dateadd", "timestampadd"])
}

/// `date_add(time, interval '1 day')` and `date_sub`, as BigQuery and MySQL have them.
pub(super) fn plus_interval(name: &str, call: &Function) -> Option<Expr> {
    let op = match name {
        "date_add" | "dateadd" | "timestamp_add" => BinaryOperator::Plus,
        "date_sub" | "timestamp_sub" => BinaryOperator::Minus,
        _ => return None,
    };
    let [time, interval @ Expr::Interval(_)] = <[Expr; 2]>::try_from(arguments(call)?).ok()? else { return None };
    let sum = Expr::BinaryOp { left: Box::new(time), op, right: Box::new(interval) };
    Some(Expr::Nested(Box::new(sum)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateAdd {
    signature: Signature,
}

impl ScalarUDFImpl for DateAdd {
    fn name(&self) -> &str {
        "date_add"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let [unit, count, time] = types else {
            return Err(travelling(Error::invalid("dateadd wants a unit, a count and a time").hint(USAGE)));
        };
        if !is_text(unit) || !is_time(time) {
            let wrong = (!is_time(time)).then_some(time);
            return Err(travelling(not_a_time("dateadd", wrong).hint(USAGE)));
        }
        if !count.is_integer() && !count.is_null() {
            return Err(travelling(
                Error::invalid(format!("dateadd counts whole units, not {}", flumen_core::contract::type_name(count)))
                    .hint("round the count first: round(x)::bigint"),
            ));
        }
        let time = match time {
            DataType::Date32 | DataType::Date64 => DataType::Date32,
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            _ => DataType::Timestamp(TimeUnit::Microsecond, None),
        };
        Ok(vec![DataType::Utf8, DataType::Int64, time])
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Err(travelling(Error::internal("what dateadd gives depends on its unit")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let unit = unit_of(args.scalar_arguments.first().copied().flatten()).map_err(travelling)?;
        let time = args.arg_fields.last().map_or(DataType::Null, |field| field.data_type().clone());
        let given = match time {
            // A date stays one as long as whole days are added.
            DataType::Date32 if !unit.is_days() => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => other,
        };
        Ok(Arc::new(Field::new(self.name(), given, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let unit = match args.args.first() {
            Some(ColumnarValue::Scalar(unit)) => unit_of(Some(unit)).map_err(travelling)?,
            _ => return Err(travelling(Error::internal("the unit of dateadd is a column"))),
        };
        let wanted = args.return_field.data_type().clone();
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [_, counts, times] = arrays.as_slice() else {
            return Err(travelling(Error::internal("dateadd has three arguments")));
        };
        let times =
            if times.data_type() == &wanted { Arc::clone(times) } else { arrow::compute::cast(times, &wanted)? };
        let counts = counts.as_primitive::<Int64Type>();
        let sums: ArrayRef = match &wanted {
            DataType::Date32 => Arc::new(
                added(unit, counts, times.as_primitive::<Date32Type>(), |date, interval| {
                    let (months, days, _) = IntervalMonthDayNanoType::to_parts(interval);
                    // Beyond the dates there are, arithmetic of dates is no good.
                    let date = Date32Type::to_naive_date_opt(date)?;
                    let moved = match u32::try_from(months) {
                        Ok(months) => date.checked_add_months(chrono::Months::new(months))?,
                        Err(_) => date.checked_sub_months(chrono::Months::new(months.unsigned_abs()))?,
                    };
                    let moved = moved.checked_add_signed(chrono::TimeDelta::try_days(i64::from(days))?)?;
                    Some(Date32Type::from_naive_date(moved))
                })
                .map_err(travelling)?,
            ),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                let tz: Tz = zone.as_deref().unwrap_or("+00:00").parse()?;
                let times = times.as_primitive::<TimestampMicrosecondType>();
                let sums = added(unit, counts, times, |time, interval| {
                    TimestampMicrosecondType::add_month_day_nano(time, interval, tz)
                });
                Arc::new(sums.map_err(travelling)?.with_data_type(wanted.clone()))
            }
            other => return Err(travelling(Error::internal(format!("dateadd gives {other}")))),
        };
        match one {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&sums, 0)?)),
            false => Ok(ColumnarValue::Array(sums)),
        }
    }
}

/// The unit, which stands in the query as it is.
fn unit_of(unit: Option<&ScalarValue>) -> Result<Unit> {
    match unit.and_then(|unit| unit.try_as_str()).flatten() {
        Some(text) => Unit::parse(text),
        None => Err(Error::invalid("the unit of dateadd has to be written out").hint(USAGE)),
    }
}

fn added<T: arrow::datatypes::ArrowPrimitiveType>(
    unit: Unit,
    counts: &PrimitiveArray<Int64Type>,
    times: &PrimitiveArray<T>,
    add: impl Fn(T::Native, IntervalMonthDayNano) -> Option<T::Native>,
) -> Result<PrimitiveArray<T>> {
    let mut sums = Vec::with_capacity(times.len());
    for row in 0..times.len() {
        if counts.is_null(row) || times.is_null(row) {
            sums.push(None);
            continue;
        }
        let count = counts.value(row);
        let sum = interval(unit, count).and_then(|interval| add(times.value(row), interval));
        let sum =
            sum.ok_or_else(|| Error::data(format!("dateadd: {count} {}s lead beyond the time there is", unit.name())))?;
        sums.push(Some(sum));
    }
    Ok(sums.into_iter().collect())
}

pub(super) fn interval(unit: Unit, count: i64) -> Option<IntervalMonthDayNano> {
    let months =
        |each: i64| i32::try_from(count.checked_mul(each)?).ok().map(|months| IntervalMonthDayNano::new(months, 0, 0));
    let days =
        |each: i64| i32::try_from(count.checked_mul(each)?).ok().map(|days| IntervalMonthDayNano::new(0, days, 0));
    let nanos = |each: i64| count.checked_mul(each).map(|nanos| IntervalMonthDayNano::new(0, 0, nanos));
    match unit {
        Unit::Year => months(12),
        Unit::Quarter => months(3),
        Unit::Month => months(1),
        Unit::Week => days(7),
        Unit::Day => days(1),
        Unit::Hour => nanos(3_600_000_000_000),
        Unit::Minute => nanos(60_000_000_000),
        Unit::Second => nanos(1_000_000_000),
        Unit::Millisecond => nanos(1_000_000),
        Unit::Microsecond => nanos(1_000),
    }
}
