//! Rows that a join will not want are left out before they are grouped, also where conditions stand between.
//!
//! A join tells the scan below its other side which keys it has. A scan leaves out whole row groups by that; the rows in the
//! others are grouped before the join leaves them out at last. Here they are looked up before that, as long as that leaves out
//! many of them: [`exec`] finds out. Without conditions in between, the scan does it itself: see `early_rows.rs`. Where nothing
//! but joins and exchanges lie between, a look costs more than it saves (measured: TPC-H's queries 7, 9 and 21).

mod exec;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr};
use datafusion::physical_expr::split_conjunction;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;

use exec::WantedRowsExec;

/// The rule.
#[derive(Debug)]
pub(super) struct WantedRows;

impl PhysicalOptimizerRule for WantedRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        below(plan, &[])
    }

    fn name(&self) -> &str {
        "flumen_wanted_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A join above, by what it says of its keys, and whether rows are grouped on their way to it.
type Above = (u64, bool);

/// `node` with what is below it changed.
fn below(node: Arc<dyn ExecutionPlan>, above: &[Above]) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(wanted) = looked_up(&node, above)? {
        return Ok(wanted);
    }
    let join = node.downcast_ref::<HashJoinExec>();
    let own = join.and_then(|join| join.dynamic_expressions_produced().first()?.expression_id());
    let groups = node.downcast_ref::<AggregateExec>().is_some();
    let children = node.children().into_iter().cloned().enumerate().map(|(place, child)| {
        let mut above: Vec<Above> = above.iter().map(|(id, grouped)| (*id, *grouped || groups)).collect();
        // The right side is the one that is told.
        above.extend(own.filter(|_| place == 1).map(|id| (id, false)));
        below(child, &above)
    });
    let children = children.collect::<Result<Vec<_>>>()?;
    replace_children_if_necessary(node, children)
}

/// The scan at `node`, or the conditions on one, with its rows looked up by joins behind groups; none if there are no such.
fn looked_up(node: &Arc<dyn ExecutionPlan>, above: &[Above]) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let scan = match node.downcast_ref::<FilterExec>() {
        Some(filter) if filter.fetch().is_none() => filter.input(),
        Some(_) => return Ok(None),
        None => node,
    };
    let Some(exec) = scan.downcast_ref::<DataSourceExec>() else { return Ok(None) };
    let Some((config, source)) = exec.downcast_to_file_source::<ParquetSource>() else { return Ok(None) };
    use datafusion::datasource::physical_plan::FileSource as _;
    let looks_itself = source.table_parquet_options().global.pushdown_filters;
    let Some(filter) = source.filter().filter(|_| !looks_itself && config.limit.is_none()) else { return Ok(None) };
    let schema = node.schema();
    let mut wanted = Vec::new();
    for part in split_conjunction(&filter) {
        let Some(dynamic) = part.downcast_ref::<DynamicFilterPhysicalExpr>() else { continue };
        if !above.iter().any(|(id, grouped)| *grouped && dynamic.expression_id() == Some(*id)) {
            continue;
        }
        let columns = part.children().into_iter().map(|child| {
            let column = child.downcast_ref::<Column>()?;
            let place = schema.index_of(column.name()).ok()?;
            Some(Arc::new(Column::new(column.name(), place)) as Arc<dyn PhysicalExpr>)
        });
        if let Some(columns) = columns.collect::<Option<Vec<_>>>() {
            wanted.push(Arc::clone(part).with_new_children(columns)?);
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(WantedRowsExec::new(Arc::clone(node), wanted))))
}
