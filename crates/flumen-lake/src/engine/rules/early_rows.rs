//! Rows that a join will not want are left out before they are grouped.
//!
//! A join tells the scan of its other side which keys it has, once it knows them. As a rule that only serves to leave out
//! whole row groups: looking at every row costs as much as joining it. But where the rows are grouped on their way to the
//! join, it saves the grouping, and the other columns of those rows are not even decoded.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;

/// The rule.
#[derive(Debug)]
pub(super) struct EarlyRows;

impl PhysicalOptimizerRule for EarlyRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(node)) };
            match looking_at_rows(aggregate.input())? {
                Some(scan) => replace_children_if_necessary(node, vec![scan]).map(Transformed::yes),
                None => Ok(Transformed::no(node)),
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "flumen_early_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The scan at `node` with its conditions held against every row, if a join adds to them.
fn looking_at_rows(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(exec) = node.downcast_ref::<DataSourceExec>() else { return Ok(None) };
    let Some((config, source)) = exec.downcast_to_file_source::<ParquetSource>() else { return Ok(None) };
    let options = source.table_parquet_options();
    if options.global.pushdown_filters || !source.filter().map_or(Ok(false), |filter| is_dynamic(&filter))? {
        return Ok(None);
    }
    let source: Arc<dyn FileSource> = Arc::new(source.clone().with_pushdown_filters(true));
    let config: FileScanConfig = FileScanConfigBuilder::from(config.clone()).with_source(source).build();
    Ok(Some(Arc::new(exec.clone().with_data_source(Arc::new(config)))))
}

fn is_dynamic(filter: &Arc<dyn PhysicalExpr>) -> Result<bool> {
    let mut found = false;
    filter.apply(|expr| {
        found |= expr.downcast_ref::<DynamicFilterPhysicalExpr>().is_some();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
