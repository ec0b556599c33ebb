//! Sums, differences and products of decimals, fast where the numbers are small.
//!
//! A decimal has 128 bits, and arithmetic on it looks for an overflow at every value. Where all values of a batch fit into
//! 64 bits, no overflow can happen, and the processor multiplies in one step. Otherwise Arrow does as it always does.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, Decimal128Array, PrimitiveArray};
use datafusion::arrow::buffer::{NullBuffer, ScalarBuffer};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The most digits that a factor of 64 bits can have behind its one.
const FACTOR_DIGITS: i8 = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
}

/// An operation whose result has the type that SQL gives it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    signature: Signature,
    operation: Operation,
    precision: u8,
    scale: i8,
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "decimal_add",
            Operation::Subtract => "decimal_subtract",
            Operation::Multiply => "decimal_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(self.precision, self.scale))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = arguments.args.as_slice() else { return internal_err!("arithmetic needs two values") };
        let scales = match (left.data_type(), right.data_type()) {
            (DataType::Decimal128(_, left), DataType::Decimal128(_, right)) => (left, right),
            _ => return internal_err!("arithmetic of decimals got something else"),
        };
        let quick = self.quickly((&Side::of(left)?, &Side::of(right)?), scales, arguments.number_rows);
        let result = match quick {
            Some(result) => result,
            None => self.carefully(left, right, arguments.number_rows)?,
        };
        Ok(ColumnarValue::Array(Arc::new(result.with_precision_and_scale(self.precision, self.scale)?)))
    }
}

/// One side of an operation.
enum Side {
    Column(Decimal128Array),
    Constant(Option<i128>),
}

impl Side {
    fn of(value: &ColumnarValue) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Array(array) => Self::Column(array.as_primitive::<Decimal128Type>().clone()),
            ColumnarValue::Scalar(scalar) => {
                let one = scalar.to_array()?;
                let one = one.as_primitive::<Decimal128Type>();
                Self::Constant(one.is_valid(0).then(|| one.value(0)))
            }
        })
    }

    fn is_small(&self) -> bool {
        let lost = |value: &i128| i128::from(*value as i64) ^ *value;
        match self {
            Self::Column(values) => values.values().iter().fold(0, |all, value| all | lost(value)) == 0,
            Self::Constant(value) => value.is_none_or(|value| lost(&value) == 0),
        }
    }

    fn nulls(&self) -> Option<NullBuffer> {
        match self {
            Self::Column(values) => values.nulls().cloned(),
            Self::Constant(_) => None,
        }
    }
}

impl Arithmetic {
    /// The result where no value can overflow.
    fn quickly(&self, (left, right): (&Side, &Side), scales: (i8, i8), rows: usize) -> Option<Decimal128Array> {
        if !left.is_small() || !right.is_small() {
            return None;
        }
        let factor = |scale: i8| {
            let digits = self.scale.checked_sub(scale)?;
            (0..=FACTOR_DIGITS).contains(&digits).then(|| 10_i64.pow(u32::from(digits.unsigned_abs())))
        };
        let product = |left: i64, right: i64| i128::from(left) * i128::from(right);
        let values = match self.operation {
            Operation::Multiply => mapped(left, right, rows, product)?,
            Operation::Add => {
                let (l, r) = (factor(scales.0)?, factor(scales.1)?);
                mapped(left, right, rows, |left, right| product(left, l) + product(right, r))?
            }
            Operation::Subtract => {
                let (l, r) = (factor(scales.0)?, factor(scales.1)?);
                mapped(left, right, rows, |left, right| product(left, l) - product(right, r))?
            }
        };
        let nulls = NullBuffer::union(left.nulls().as_ref(), right.nulls().as_ref());
        Some(PrimitiveArray::new(values, nulls))
    }

    /// The result where values may overflow, which is an error then.
    fn carefully(&self, left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<Decimal128Array> {
        let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
        let result = match self.operation {
            Operation::Add => numeric::add(&left, &right)?,
            Operation::Subtract => numeric::sub(&left, &right)?,
            Operation::Multiply => numeric::mul(&left, &right)?,
        };
        Ok(result.as_primitive::<Decimal128Type>().clone())
    }
}

/// `map` of all pairs of values. None if one side is a null for all rows.
fn mapped(left: &Side, right: &Side, rows: usize, map: impl Fn(i64, i64) -> i128) -> Option<ScalarBuffer<i128>> {
    let values: Vec<i128> = match (left, right) {
        (Side::Column(left), Side::Column(right)) => {
            left.values().iter().zip(right.values()).map(|(left, right)| map(*left as i64, *right as i64)).collect()
        }
        (Side::Column(left), Side::Constant(right)) => {
            let right = (*right)? as i64;
            left.values().iter().map(|left| map(*left as i64, right)).collect()
        }
        (Side::Constant(left), Side::Column(right)) => {
            let left = (*left)? as i64;
            right.values().iter().map(|right| map(left, *right as i64)).collect()
        }
        (Side::Constant(left), Side::Constant(right)) => vec![map((*left)? as i64, (*right)? as i64); rows],
    };
    Some(values.into())
}

/// The rule that puts these operations in place of DataFusion's, where values are computed.
#[derive(Debug)]
pub(super) struct FastDecimals;

impl OptimizerRule for FastDecimals {
    fn name(&self) -> &str {
        "flumen_fast_decimals"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_)) {
            return Ok(Transformed::no(plan));
        }
        let Some(input) = plan.inputs().first().map(|input| Arc::clone(input.schema())) else {
            return Ok(Transformed::no(plan));
        };
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = expr.transform_up(|expr| faster(expr, &input))?;
            Ok(changed.update_data(|expr| name.restore(expr)))
        })
    }
}

fn faster(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else { return Ok(Transformed::no(expr)) };
    let operation = match op {
        Operator::Plus => Operation::Add,
        Operator::Minus => Operation::Subtract,
        Operator::Multiply => Operation::Multiply,
        _ => return Ok(Transformed::no(expr)),
    };
    let types = (left.get_type(schema)?, right.get_type(schema)?, expr.get_type(schema)?);
    let (DataType::Decimal128(..), DataType::Decimal128(..), DataType::Decimal128(precision, scale)) = types else {
        return Ok(Transformed::no(expr));
    };
    let function = Arithmetic { signature: Signature::any(2, Volatility::Immutable), operation, precision, scale };
    let arguments = vec![left.as_ref().clone(), right.as_ref().clone()];
    let function = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), arguments);
    Ok(Transformed::yes(Expr::ScalarFunction(function)))
}
