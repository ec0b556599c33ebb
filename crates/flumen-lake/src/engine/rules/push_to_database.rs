//! Joins, aggregates and first rows of tables of one database are left to the database.
//!
//! The largest part of a plan whose tables are all of one connection, and that means the same to the database, becomes one
//! query to it. What has to be in order is ordered here once more: the few rows that come do not cost anything, and
//! operators above might mix them.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{LogicalPlan, Sort};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::engine::database::{Pushed, pushed};

/// The rule.
#[derive(Debug)]
pub(super) struct PushToDatabase;

impl OptimizerRule for PushToDatabase {
    fn name(&self) -> &str {
        "flumen_push_to_database"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        Ok(match (pushed(&plan)?, plan) {
            (Some(Pushed::Whole(made)), _) => Transformed::yes(made),
            (Some(Pushed::Ordered(made)), LogicalPlan::Sort(sort)) => {
                Transformed::yes(LogicalPlan::Sort(Sort { input: made.into(), ..sort }))
            }
            // The order is made further down.
            (_, plan) => Transformed::no(plan),
        })
    }
}
