//! `avg` of decimals with all its digits, from the sum and the count.
//!
//! DataFusion keeps four digits more than the values have, and cuts off the rest: of small values little is left. Here an
//! average has [`DIGITS`] digits behind the point (or as many as fit), and is rounded. A rule takes it from `sum` and
//! `count`, which are faster, and which a query that asks for them as well has but once.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Decimal128Array, PrimitiveArray};

use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, Aggregate, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, ExprSchemable, GroupsAccumulator,
    LogicalPlan, Projection, ReversedUDAF, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Digits behind the point that an average has, if the values leave room for them.
const DIGITS: u8 = 16;

/// The type of the average of decimals; none of what is no such decimal.
fn average_type(of: &DataType) -> Option<(u8, i8)> {
    let DataType::Decimal128(precision, scale) = of else { return None };
    let scale_now = u8::try_from(*scale).ok()?;
    let whole = precision.checked_sub(scale_now)?;
    let scale = DIGITS.min(DECIMAL128_MAX_PRECISION - whole).max(scale_now);
    Some((whole + scale, i8::try_from(scale).ok()?))
}

/// `sum / count`, rounded half away from zero, where the sum has `from` digits behind the point and the result has `to`.
fn ratio(sum: i128, count: i128, from: i8, to: i8) -> Option<i128> {
    let (whole, mut rest) = (sum.checked_div(count)?, sum.checked_rem(count)?);
    let mut result = whole;
    // Digit by digit, as on paper: the rest is below the count, so nothing overflows that is not too large itself.
    for _ in from..to {
        rest *= 10;
        result = result.checked_mul(10)?.checked_add(rest / count)?;
        rest %= count;
    }
    let up = rest.unsigned_abs() * 2 >= count.unsigned_abs();
    result.checked_add(if up { if (rest < 0) == (count < 0) { 1 } else { -1 } } else { 0 })
}

/// The aggregate `avg`.
#[derive(Debug, PartialEq, Eq, Hash, Default)]
struct Average {
    others: Avg,
}

/// `avg`, in place of DataFusion's.
pub(super) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Average::default()))
}

impl Average {
    fn is_ours(arguments: &AccumulatorArgs) -> bool {
        arguments.expr_fields.first().is_some_and(|field| average_type(field.data_type()).is_some())
    }

    fn accumulator_of(arguments: &AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let given = arguments.expr_fields.first().map(|field| field.data_type().clone());
        let Some((of, (precision, scale))) = given.and_then(|of| average_type(&of).map(|to| (of, to))) else {
            return internal_err!("avg of what is no decimal");
        };
        let distinct = arguments.is_distinct.then(HashSet::new);
        Ok(Box::new(Averaging { of, precision, scale, sum: 0, count: 0, distinct }))
    }
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        self.others.aliases()
    }

    fn signature(&self) -> &Signature {
        self.others.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first().and_then(average_type) {
            Some((precision, scale)) => Ok(DataType::Decimal128(precision, scale)),
            None => self.others.return_type(types),
        }
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if Self::is_ours(&arguments) { Self::accumulator_of(&arguments) } else { self.others.accumulator(arguments) }
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let Some(input) = arguments.input_fields.first().filter(|field| average_type(field.data_type()).is_some())
        else {
            return self.others.state_fields(arguments);
        };
        let name = |part: &str| format!("{}[{part}]", arguments.name);
        if arguments.is_distinct {
            let values = Field::new_list_field(input.data_type().clone(), true);
            return Ok(vec![Arc::new(Field::new(name("values"), DataType::List(Arc::new(values)), true))]);
        }
        Ok(vec![
            Arc::new(Field::new(name("count"), DataType::Int64, true)),
            Arc::new(Field::new(name("sum"), sum_type(input.data_type()), true)),
        ])
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        !Self::is_ours(&arguments) && self.others.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.others.create_groups_accumulator(arguments)
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if Self::is_ours(&arguments) {
            Self::accumulator_of(&arguments)
        } else {
            self.others.create_sliding_accumulator(arguments)
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.others.coerce_types(types)
    }
}

fn sum_type(of: &DataType) -> DataType {
    match of {
        DataType::Decimal128(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
        other => other.clone(),
    }
}

/// An average in the making.
#[derive(Debug)]
struct Averaging {
    of: DataType,
    precision: u8,
    scale: i8,
    sum: i128,
    count: i64,
    distinct: Option<HashSet<i128>>,
}

impl Averaging {
    fn change(&mut self, values: &Decimal128Array, sign: i64) -> Result<()> {
        for value in values.iter().flatten() {
            match &mut self.distinct {
                Some(distinct) => drop(distinct.insert(value)),
                None => {
                    let Some(sum) = self.sum.checked_add(value * i128::from(sign)) else {
                        return exec_err!("the sum for an average has too many digits");
                    };
                    (self.sum, self.count) = (sum, self.count + sign);
                }
            }
        }
        Ok(())
    }

    fn input_scale(&self) -> i8 {
        if let DataType::Decimal128(_, scale) = self.of { scale } else { 0 }
    }
}

impl Accumulator for Averaging {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values {
            [values, ..] => self.change(values.as_primitive::<Decimal128Type>(), 1),
            [] => Ok(()),
        }
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values {
            [values, ..] => self.change(values.as_primitive::<Decimal128Type>(), -1),
            [] => Ok(()),
        }
    }

    fn supports_retract_batch(&self) -> bool {
        self.distinct.is_none()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let (sum, count) = match &self.distinct {
            None => (self.sum, i128::from(self.count)),
            Some(distinct) => (distinct.iter().sum(), distinct.len() as i128),
        };
        let value = if count == 0 { None } else { ratio(sum, count, self.input_scale(), self.scale) };
        if count > 0 && value.is_none() {
            return exec_err!("the average has too many digits");
        }
        Ok(ScalarValue::Decimal128(value, self.precision, self.scale))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.distinct.as_ref().map_or(0, |distinct| distinct.capacity() * size_of::<i128>())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let DataType::Decimal128(precision, scale) = self.of else { return internal_err!("avg of what is no decimal") };
        if let Some(distinct) = &self.distinct {
            let values: Vec<ScalarValue> =
                distinct.iter().map(|value| ScalarValue::Decimal128(Some(*value), precision, scale)).collect();
            return Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.of))]);
        }
        let sum = (self.count > 0).then_some(self.sum);
        Ok(vec![ScalarValue::Int64(Some(self.count)), ScalarValue::Decimal128(sum, DECIMAL128_MAX_PRECISION, scale)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        match (states, self.distinct.is_some()) {
            ([lists], true) => {
                for values in lists.as_list::<i32>().iter().flatten() {
                    self.change(values.as_primitive::<Decimal128Type>(), 1)?;
                }
                Ok(())
            }
            ([counts, sums], false) => {
                self.count += counts.as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
                for sum in sums.as_primitive::<Decimal128Type>().iter().flatten() {
                    let Some(sum) = self.sum.checked_add(sum) else {
                        return exec_err!("the sum for an average has too many digits");
                    };
                    self.sum = sum;
                }
                Ok(())
            }
            _ => internal_err!("avg was given a state that is not its own"),
        }
    }
}

/// The average from a sum and a count.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Ratio {
    signature: Signature,
    precision: u8,
    scale: i8,
}

impl ScalarUDFImpl for Ratio {
    fn name(&self) -> &str {
        "average_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(self.precision, self.scale))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [sums, counts] = columns.as_slice() else { return internal_err!("an average needs a sum and a count") };
        let DataType::Decimal128(_, from) = *sums.data_type() else { return internal_err!("the sum is no decimal") };
        let (sums, counts) = (sums.as_primitive::<Decimal128Type>(), counts.as_primitive::<Int64Type>());
        let mut averages = Vec::with_capacity(sums.len());
        for (sum, count) in sums.iter().zip(counts.iter()) {
            averages.push(match (sum, count) {
                (Some(sum), Some(count)) if count != 0 => match ratio(sum, count.into(), from, self.scale) {
                    Some(average) => Some(average),
                    None => return exec_err!("the average has too many digits"),
                },
                _ => None,
            });
        }
        let averages: PrimitiveArray<Decimal128Type> = averages.into_iter().collect();
        Ok(ColumnarValue::Array(Arc::new(averages.with_precision_and_scale(self.precision, self.scale)?)))
    }
}

/// The rule that takes averages of decimals from sums and counts.
#[derive(Debug)]
pub(super) struct AverageFromSum;

impl OptimizerRule for AverageFromSum {
    fn name(&self) -> &str {
        "flumen_average_from_sum"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Aggregate(aggregate) => match from_sums(&aggregate)? {
                Some(plan) => Ok(Transformed::yes(plan)),
                None => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
            },
            other => Ok(Transformed::no(other)),
        }
    }
}

fn from_sums(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let averages: Vec<_> = aggregate.aggr_expr.iter().map(|expr| average(expr, aggregate)).collect();
    if averages.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut parts: Vec<Expr> = Vec::new();
    let mut place = |part: Expr| match parts.iter().position(|known| *known == part) {
        Some(place) => place,
        None => {
            parts.push(part);
            parts.len() - 1
        }
    };
    let mut places = Vec::with_capacity(averages.len());
    for (expr, average) in aggregate.aggr_expr.iter().zip(&averages) {
        places.push(match average {
            None => (place(expr.clone()), None),
            Some((function, (precision, scale))) => {
                let with = |func| Expr::AggregateFunction(AggregateFunction { func, params: function.params.clone() });
                (place(with(sum_udaf())), Some((place(with(count_udaf())), *precision, *scale)))
            }
        });
    }
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let inner = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), parts)?;
    let columns = inner.schema.columns();
    let column = |place: usize| Expr::Column(columns[place].clone());
    let mut output: Vec<Expr> = (0..groups).map(column).collect();
    for ((part, average), (qualifier, field)) in places.into_iter().zip(aggregate.schema.iter().skip(groups)) {
        output.push(match average {
            None => column(groups + part),
            Some((count, precision, scale)) => {
                let ratio = Ratio { signature: Signature::any(2, Volatility::Immutable), precision, scale };
                let arguments = vec![column(groups + part), column(groups + count)];
                let ratio = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(ratio)), arguments);
                Expr::ScalarFunction(ratio).alias_qualified(qualifier.cloned(), field.name())
            }
        });
    }
    let inner = Arc::new(LogicalPlan::Aggregate(inner));
    Projection::try_new_with_schema(output, inner, Arc::clone(&aggregate.schema))
        .map(|of| Some(LogicalPlan::Projection(of)))
}

/// The average of decimals that `expr` is.
fn average<'a>(expr: &'a Expr, aggregate: &Aggregate) -> Option<(&'a AggregateFunction, (u8, i8))> {
    let Expr::AggregateFunction(function) = expr else { return None };
    let params = &function.params;
    let [argument] = params.args.as_slice() else { return None };
    let ours = function.func.inner().is::<Average>() && !params.distinct && params.order_by.is_empty();
    let of = argument.get_type(aggregate.input.schema()).ok()?;
    ours.then(|| average_type(&of)).flatten().map(|to| (function, to))
}
