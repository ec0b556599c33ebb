//! Which side of a join is kept for looking up, above a join whose condition is no equality.
//!
//! DataFusion gives no number of rows for such a join, nor for what is above it; a side of which it knows that it has less than some
//! millions of rows is then kept whole in place of one that has a handful. Here the join without an equality is guessed, and the joins above
//! it are decided with that. Wherever DataFusion knows the rows, it decides by itself.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result, Statistics};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::StatisticsArgs;

/// The part of all pairs of rows that a condition keeps, other than an equality.
const CONDITION: f64 = 0.3;

/// The rule.
#[derive(Debug)]
pub(super) struct JoinSides;

impl PhysicalOptimizerRule for JoinSides {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !config.optimizer.join_reordering || !has_guesses(&plan)? {
            return Ok(plan);
        }
        Ok(decide(plan, config)?.plan)
    }

    fn name(&self) -> &str {
        "flumen_join_sides"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A plan whose joins are decided.
struct Decided {
    plan: Arc<dyn ExecutionPlan>,
    statistics: Arc<Statistics>,
    /// Whether DataFusion does not know how many rows it has.
    is_guess: bool,
}

/// Whether there is a join without an equality.
fn has_guesses(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= is_without_equality(node.as_ref());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn is_without_equality(node: &dyn ExecutionPlan) -> bool {
    node.downcast_ref::<NestedLoopJoinExec>().is_some() || node.downcast_ref::<CrossJoinExec>().is_some()
}

/// Decides the joins of `plan`, each with what is known, or guessed, of the two below it.
fn decide(plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Decided> {
    let inputs: Vec<Decided> =
        plan.children().into_iter().map(|input| decide(Arc::clone(input), config)).collect::<Result<_>>()?;
    let statistics: Vec<Arc<Statistics>> = inputs.iter().map(|input| Arc::clone(&input.statistics)).collect();
    let is_guess = inputs.iter().any(|input| input.is_guess);
    let plan = replace_children_if_necessary(plan, inputs.into_iter().map(|input| input.plan).collect())?;
    let known = plan.statistics_from_inputs(&statistics, &StatisticsArgs::new())?;
    let plan = match (plan.downcast_ref::<HashJoinExec>(), statistics.as_slice()) {
        (Some(join), [left, right]) if is_guess => {
            keep_the_smaller(join, rows(left), rows(right), config)?.unwrap_or_else(|| Arc::clone(&plan))
        }
        _ => plan,
    };
    Ok(match guess(plan.as_ref(), &statistics).filter(|_| rows(&known).is_none()) {
        Some(rows) => {
            let num_rows = Precision::Inexact(rows.round() as usize);
            let statistics = Arc::new(Statistics { num_rows, ..Statistics::new_unknown(&plan.schema()) });
            Decided { plan, statistics, is_guess: true }
        }
        // What is exact does not depend on guesses: an aggregate of everything is one row.
        None => Decided { plan, is_guess: is_guess && !is_exact(&known), statistics: known },
    })
}

/// The join with its smaller side first, to be kept whole, if that is one that may be: DataFusion leaves it so.
fn keep_the_smaller(
    join: &HashJoinExec,
    left: Option<f64>,
    right: Option<f64>,
    config: &ConfigOptions,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
    let may_be_kept = config.optimizer.hash_join_single_partition_threshold_rows as f64;
    if *join.partition_mode() != PartitionMode::Auto || join.null_aware || left.min(right) >= may_be_kept {
        return Ok(None);
    }
    if left <= right {
        let kept = join.builder().with_partition_mode(PartitionMode::CollectLeft).build()?;
        return Ok(Some(Arc::new(kept)));
    }
    if !join.join_type().supports_swap() {
        return Ok(None);
    }
    join.swap_inputs(PartitionMode::CollectLeft).map(Some)
}

/// How many rows a join may have of which nothing is known but its inputs.
fn guess(plan: &dyn ExecutionPlan, inputs: &[Arc<Statistics>]) -> Option<f64> {
    let [left, right] = inputs else { return None };
    let (left, right) = (rows(left)?, rows(right)?);
    if plan.downcast_ref::<HashJoinExec>().is_some() {
        return Some(left.max(right));
    }
    if !is_without_equality(plan) {
        return None;
    }
    let kind = plan.downcast_ref::<NestedLoopJoinExec>().map_or(JoinType::Inner, |join| *join.join_type());
    let pairs = (left * right * CONDITION).max(1.0);
    Some(match kind {
        JoinType::Inner => pairs,
        JoinType::Left => pairs.max(left),
        JoinType::Right => pairs.max(right),
        JoinType::Full => pairs.max(left).max(right),
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left,
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right,
    })
}

fn rows(statistics: &Arc<Statistics>) -> Option<f64> {
    statistics.num_rows.get_value().map(|rows| *rows as f64)
}

fn is_exact(statistics: &Arc<Statistics>) -> bool {
    matches!(statistics.num_rows, Precision::Exact(_))
}
