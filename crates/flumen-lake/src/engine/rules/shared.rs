//! What a query groups twice is grouped once.
//!
//! A view or a `with` that a query names twice is planned twice. Where both plans are the same to the last expression, read
//! nothing but Parquet files and end in groups, whoever comes first keeps the groups for the others. Where they do not fit
//! into memory, they are made anew.

mod exec;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, displayable};

use exec::{Shared, SharedExec};

/// The rule.
#[derive(Debug)]
pub(super) struct SharedGroups;

impl PhysicalOptimizerRule for SharedGroups {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut kinds: Vec<Kind> = Vec::new();
        plan.apply(|node| {
            if !is_candidate(node)? {
                return Ok(TreeNodeRecursion::Continue);
            }
            for kind in &mut kinds {
                if is_same(&kind.plan, node)? {
                    kind.count += 1;
                    // What is within is within the first one too.
                    return Ok(TreeNodeRecursion::Jump);
                }
            }
            kinds.push(Kind { plan: Arc::clone(node), count: 1, shared: Arc::default() });
            Ok(TreeNodeRecursion::Continue)
        })?;
        kinds.retain(|kind| kind.count > 1);
        if kinds.is_empty() {
            return Ok(plan);
        }
        plan.transform_down(|node| {
            for kind in kinds.iter().filter(|_| node.downcast_ref::<AggregateExec>().is_some()) {
                if is_same(&kind.plan, &node)? {
                    let shared = SharedExec::new(node, Arc::clone(&kind.shared), kind.count);
                    return Ok(Transformed::new(Arc::new(shared), true, TreeNodeRecursion::Jump));
                }
            }
            Ok(Transformed::no(node))
        })
        .data()
    }

    fn name(&self) -> &str {
        "flumen_shared_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Plans that are the same.
struct Kind {
    plan: Arc<dyn ExecutionPlan>,
    count: usize,
    shared: Arc<Shared>,
}

/// Whether `node` gives whole groups, and the same ones whenever it is run.
fn is_candidate(node: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    use AggregateMode as M;
    let whole = |aggregate: &AggregateExec| {
        matches!(aggregate.mode(), M::Final | M::FinalPartitioned | M::Single | M::SinglePartitioned)
    };
    if !node.downcast_ref::<AggregateExec>().is_some_and(whole) {
        return Ok(false);
    }
    let mut repeatable = true;
    node.apply(|node| {
        repeatable &= !node.children().is_empty() || scan_of(node).is_some();
        for expr in expressions(node)? {
            expr.apply(|expr| {
                repeatable &= !expr.is_volatile_node() && expr.downcast_ref::<DynamicFilterPhysicalExpr>().is_none();
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(if repeatable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(repeatable)
}

fn scan_of(node: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    let (config, _) = node.downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()?;
    Some(config)
}

fn expressions(node: &Arc<dyn ExecutionPlan>) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    let mut found = Vec::new();
    node.apply_expressions(&mut |expr| {
        found.push(Arc::clone(expr));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether two plans do the same: what they print, the types of their columns, their expressions, and the files they read.
fn is_same(left: &Arc<dyn ExecutionPlan>, right: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let (ours, theirs) = (left.children(), right.children());
    let line = |node: &Arc<dyn ExecutionPlan>| displayable(node.as_ref()).one_line().to_string();
    if left.name() != right.name()
        || ours.len() != theirs.len()
        || left.schema() != right.schema()
        || line(left) != line(right)
        || files(left) != files(right)
        || expressions(left)? != expressions(right)?
    {
        return Ok(false);
    }
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        if !is_same(ours, theirs)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The files that a scan reads, to the byte.
fn files(node: &Arc<dyn ExecutionPlan>) -> Option<(String, Vec<Vec<String>>)> {
    let config = scan_of(node)?;
    let group = |group: &datafusion::datasource::physical_plan::FileGroup| {
        let files = group.files().iter();
        files.map(|file| format!("{:?} {:?} {:?}", file.object_meta, file.range, file.partition_values)).collect()
    };
    let limit = format!("{} {:?}", config.object_store_url, config.limit);
    Some((limit, config.file_groups.iter().map(group).collect()))
}
