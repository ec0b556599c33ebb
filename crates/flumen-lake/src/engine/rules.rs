//! What Flumen adds to DataFusion's planning. Every rule leaves the answer as it is; each has a file of its own, and one line
//! here.

mod adjacent_groups;
mod average;
mod cheap_first;
mod conditions;
mod decimals;
mod early_rows;
mod estimate;
mod first_rows;
mod join_order;
mod join_sides;
mod push_to_database;
mod shared;
mod wanted_rows;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

/// DataFusion's rules about what a plan says, with ours among them.
pub(super) fn logical() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    // Conditions are at their joins by then, and columns that nobody needs are still there.
    let place = rules.iter().position(|rule| rule.name() == "common_sub_expression_eliminate").unwrap_or(rules.len());
    rules.insert(place, Arc::new(join_order::JoinOrder));
    rules.insert(place, Arc::new(average::AverageFromSum));
    rules.insert(place, Arc::new(decimals::FastDecimals));
    // Before the others make of joins and aggregates what no database knows.
    rules.insert(place, Arc::new(push_to_database::PushToDatabase));
    rules.push(Arc::new(cheap_first::CheapFirst));
    rules
}

/// Functions in place of DataFusion's.
pub(super) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![average::function()]
}

/// DataFusion's rules about how a plan is carried out, with ours among them.
pub(super) fn physical() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    // Where DataFusion would decide which side of a join is kept without knowing how many rows they have.
    before(&mut rules, "join_selection", Arc::new(join_sides::JoinSides));
    // Before rows are spread over threads and sorted.
    before(&mut rules, "EnsureRequirements", Arc::new(first_rows::FirstRows));
    // When both plans are complete, and before joins tell each of them what they look for.
    before(&mut rules, "EnsureCooperative", Arc::new(shared::SharedGroups));
    // After joins have told scans what they look for.
    before(&mut rules, "SanityCheckPlan", Arc::new(early_rows::EarlyRows));
    before(&mut rules, "SanityCheckPlan", Arc::new(wanted_rows::WantedRows));
    // When nobody asks any more what conditions say, or looks for aggregates.
    rules.push(Arc::new(conditions::Conditions));
    rules.push(Arc::new(adjacent_groups::AdjacentGroups));
    rules
}

fn before(
    rules: &mut Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
    name: &str,
    rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
) {
    let place = rules.iter().position(|rule| rule.name() == name).unwrap_or(rules.len());
    rules.insert(place, rule);
}
