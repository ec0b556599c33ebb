//! Cheap conditions before dear ones.
//!
//! Conditions that are joined by `and` are evaluated from left to right, the later ones only where the earlier ones leave few
//! rows. Comparisons of plain values come first, then those of text, then everything else in the order in which it was
//! written: what is moved forward can neither fail nor guard anything.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule.
#[derive(Debug)]
pub(super) struct CheapFirst;

impl OptimizerRule for CheapFirst {
    fn name(&self) -> &str {
        "flumen_cheap_first"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let schema = filter.input.schema();
        let effort = |condition: &Expr| effort(condition, schema);
        if split_conjunction(&filter.predicate).into_iter().map(effort).is_sorted() {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let mut conditions = split_conjunction_owned(filter.predicate.clone());
        conditions.sort_by_key(effort);
        match conjunction(conditions) {
            Some(predicate) => Ok(Transformed::yes(LogicalPlan::Filter(Filter::new(predicate, filter.input)))),
            None => Ok(Transformed::no(LogicalPlan::Filter(filter))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effort {
    /// Plain values and a constant.
    Constant,
    /// Plain values of two columns.
    Columns,
    /// Text and a constant.
    Text,
    /// Whatever else.
    Other,
}

fn effort(condition: &Expr, schema: &DFSchema) -> Effort {
    let of_column = |column: &Expr| match column.get_type(schema) {
        Ok(data_type) if data_type.is_primitive() || data_type == DataType::Boolean => Effort::Constant,
        Ok(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => Effort::Text,
        _ => Effort::Other,
    };
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => match (left.as_ref(), right.as_ref()) {
            (column @ Expr::Column(_), Expr::Literal(..)) | (Expr::Literal(..), column @ Expr::Column(_)) => {
                of_column(column)
            }
            (column @ Expr::Column(_), Expr::Column(_)) if of_column(column) == Effort::Constant => Effort::Columns,
            _ => Effort::Other,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            effort(left, schema).max(effort(right, schema))
        }
        Expr::InList(InList { expr, list, .. })
            if matches!(expr.as_ref(), Expr::Column(_))
                && list.iter().all(|value| matches!(value, Expr::Literal(..))) =>
        {
            of_column(expr).max(Effort::Columns)
        }
        _ => Effort::Other,
    }
}

fn compares(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq)
}
