//! Rows that are grouped by what lies together already.
//!
//! Tables are often written in the order of a key: lines by their order, events by their day. A hash table of millions of such keys
//! is work and memory for nothing: the rows of a group follow each other. Whether they do is seen when they come ([`exec`] looks);
//! nothing depends on it but the speed, since what is grouped here is put together once more above.

mod exec;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};

use exec::AdjacentGroupsExec;

/// The rule.
#[derive(Debug)]
pub(super) struct AdjacentGroups;

impl PhysicalOptimizerRule for AdjacentGroups {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match node.downcast_ref::<AggregateExec>().is_some_and(fits) {
            true => Ok(Transformed::yes(Arc::new(AdjacentGroupsExec::new(node)))),
            false => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &str {
        "flumen_adjacent_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether `aggregate` makes parts of groups, of which nobody asks in which order they come.
fn fits(aggregate: &AggregateExec) -> bool {
    let groups = aggregate.group_expr();
    *aggregate.mode() == AggregateMode::Partial
        && groups.is_single()
        && !groups.is_empty()
        && aggregate.limit_options().is_none()
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.dynamic_expressions_produced().is_empty()
        && aggregate
            .aggr_expr()
            .iter()
            .all(|function| function.order_bys().is_empty() && function.groups_accumulator_supported())
}
