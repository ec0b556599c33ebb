//! Conditions joined by `and`, each looked at only for the rows that those before it leave.
//!
//! DataFusion does so as well, where few rows are left: it copies all columns for it, whether they are needed or not, and puts the
//! answer together row by row. [`all::All`] copies what the rest of the conditions need, when that is less work than looking at the
//! rows that are out already.

mod all;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::split_conjunction;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};

use all::All;

/// The rule. The last one: what others know of a filter (columns that are constant behind it), they know by its conditions.
#[derive(Debug)]
pub(super) struct Conditions;

impl PhysicalOptimizerRule for Conditions {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(Transformed::no(node)) };
            let conditions: Vec<_> = split_conjunction(filter.predicate()).into_iter().map(Arc::clone).collect();
            if conditions.len() < 2 {
                return Ok(Transformed::no(node));
            }
            let all = Arc::new(All::new(conditions, filter.input().schema().as_ref()));
            Ok(Transformed::yes(Arc::new(FilterExecBuilder::from(filter).with_predicate(all).build()?)))
        })
        .data()
    }

    fn name(&self) -> &str {
        "flumen_conditions"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
