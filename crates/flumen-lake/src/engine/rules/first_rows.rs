//! The first rows of each group, where a query numbers all rows and asks for the first ones.
//!
//! `row_number() over (partition by k order by x)` sorts everything. Where a condition above wants no more than the first
//! few numbers, the rows that can have them are found by hashing instead, first within each thread and then within each
//! group. The condition stays where it is.

mod exec;
mod kept;
mod wanted;

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::window::StandardWindowExpr;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowUDFExpr};

use exec::FirstRowsExec;
use wanted::Wanted;

/// The most rows of a group that are kept in this way.
const MOST_ROWS: usize = 100;

/// The rule.
#[derive(Debug)]
pub(super) struct FirstRows;

impl PhysicalOptimizerRule for FirstRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| match numbered_less(&node)? {
            Some(better) => Ok(Transformed::yes(better)),
            None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "flumen_first_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// `plan` with the first rows of each group in place of a window, if it is a condition on the numbers of rows.
fn numbered_less(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = plan.downcast_ref::<FilterExec>() else { return Ok(None) };
    let mut between = Vec::new();
    let mut node = Arc::clone(filter.input());
    while node.downcast_ref::<ProjectionExec>().is_some() {
        between.push(Arc::clone(&node));
        let Some(next) = node.children().first().map(|child| Arc::clone(child)) else { return Ok(None) };
        node = next;
    }
    let Some(window) = node.downcast_ref::<BoundedWindowAggExec>() else { return Ok(None) };
    let place_of = |column: usize| {
        between.iter().try_fold(column, |column, node| {
            let projection = node.downcast_ref::<ProjectionExec>()?;
            projection.expr().get(column)?.expr.downcast_ref::<Column>().map(Column::index)
        })
    };
    let number = window.input().schema().fields().len();
    let limits = split_conjunction(filter.predicate()).into_iter().filter_map(limit);
    let Some(rows) = limits.filter(|(column, _)| place_of(*column) == Some(number)).map(|(_, rows)| rows).min() else {
        return Ok(None);
    };
    let Some(wanted) = wanted(window, rows) else { return Ok(None) };
    let partial = Arc::new(FirstRowsExec::partial(Arc::clone(window.input()), wanted.clone()));
    let mut result: Arc<dyn ExecutionPlan> = Arc::new(FirstRowsExec::numbered(partial, wanted, window.schema()));
    for node in between.into_iter().rev() {
        result = replace_children_if_necessary(node, vec![result])?;
    }
    replace_children_if_necessary(Arc::clone(plan), vec![result]).map(Some)
}

/// What `window` would have to number: nothing but the rows of each group.
fn wanted(window: &BoundedWindowAggExec, rows: usize) -> Option<Wanted> {
    let [only] = window.window_expr() else { return None };
    let standard = only.as_any().downcast_ref::<StandardWindowExpr>()?;
    let function = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>()?;
    let schema = window.input().schema();
    // Numbers that are equal and look different (0 and -0) would need more care.
    let simple = |key: &Arc<dyn PhysicalExpr>| {
        key.data_type(&schema).is_ok_and(|of| !of.is_floating() && !of.is_nested() && of != DataType::Null)
    };
    let keys = only.partition_by().to_vec();
    let fits = function.fun().name() == "row_number"
        && (1..=MOST_ROWS).contains(&rows)
        && !keys.is_empty()
        && keys.iter().all(simple);
    fits.then(|| Wanted { keys, order: only.order_by().to_vec(), rows })
}

/// The column that `condition` compares with a number, and the greatest number that passes.
fn limit(condition: &Arc<dyn PhysicalExpr>) -> Option<(usize, usize)> {
    let comparison = condition.downcast_ref::<BinaryExpr>()?;
    let column = |side: &Arc<dyn PhysicalExpr>| side.downcast_ref::<Column>().map(Column::index);
    let literal = |side: &Arc<dyn PhysicalExpr>| side.downcast_ref::<Literal>().and_then(|value| whole(value.value()));
    let (left, right) = (comparison.left(), comparison.right());
    let (column, op, value) = match (column(left), literal(right)) {
        (Some(column), Some(value)) => (column, *comparison.op(), value),
        _ => (column(right)?, comparison.op().swap()?, literal(left)?),
    };
    match op {
        Operator::Eq | Operator::LtEq => Some((column, value)),
        Operator::Lt => Some((column, value.checked_sub(1)?)),
        _ => None,
    }
}

fn whole(value: &ScalarValue) -> Option<usize> {
    if !value.data_type().is_integer() {
        return None;
    }
    match value.cast_to(&DataType::UInt64).ok()? {
        ScalarValue::UInt64(Some(value)) => usize::try_from(value).ok(),
        _ => None,
    }
}
