//! The operator: parts of groups, each of rows that follow each other; or those of a hash table, where they do not.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::{BatchCoalescer, partition, take};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::utils::evaluate_expressions_to_arrays;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{ReplaceChildrenOptions, replace_children_if_necessary};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};

use crate::engine::once::Once;

/// Rows by which it is judged whether equal keys follow each other.
const SAMPLE_ROWS: usize = 32 << 10;
/// So many rows at least must a group have there, on the average.
const ROWS_OF_A_GROUP: usize = 3;
/// Of a hundred groups there, so many at most may come again later.
const AGAIN_OF_100: usize = 5;

/// Makes parts of groups, as the aggregate that it stands for does.
#[derive(Debug)]
pub(super) struct AdjacentGroupsExec {
    /// What it does where equal keys are apart.
    hashed: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
}

impl AdjacentGroupsExec {
    /// Does the work of `hashed`, a partial aggregate by single keys.
    pub(super) fn new(hashed: Arc<dyn ExecutionPlan>) -> Self {
        Self { hashed, metrics: ExecutionPlanMetricsSet::new() }
    }

    fn aggregate(&self) -> Result<&AggregateExec> {
        match self.hashed.downcast_ref::<AggregateExec>() {
            Some(aggregate) => Ok(aggregate),
            None => internal_err!("AdjacentGroupsExec stands for an aggregate"),
        }
    }
}

/// What is computed for each group.
struct Aggregated {
    accumulator: Box<dyn GroupsAccumulator>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

/// The rows of one partition on their way.
struct Grouping {
    schema: SchemaRef,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    aggregated: Vec<Aggregated>,
    together: BatchCoalescer,
    /// There are no more rows: some streams break when they are asked again.
    ended: bool,
    baseline: BaselineMetrics,
    adjacent: Count,
}

impl Grouping {
    /// The keys of the parts of groups in `batch`; none where groups are of too few rows for it to pay.
    fn looked_at(&self, batch: &RecordBatch) -> Result<Option<Vec<Vec<ScalarValue>>>> {
        let keys = evaluate_expressions_to_arrays(&self.keys, batch)?;
        let parts = partition(&keys)?.ranges();
        if parts.len() * ROWS_OF_A_GROUP > batch.num_rows() {
            return Ok(None);
        }
        let key = |at: usize| keys.iter().map(move |key| ScalarValue::try_from_array(key, at)).collect();
        parts.iter().map(|part| key(part.start)).collect::<Result<_>>().map(Some)
    }

    /// Reads batches of `input` into `first`, until it is plain whether the rows of a group follow each other.
    async fn pays(&mut self, input: &mut SendableRecordBatchStream, first: &mut Vec<RecordBatch>) -> Result<bool> {
        let (mut rows, mut parts, mut different) = (0, 0, HashSet::new());
        while rows < SAMPLE_ROWS {
            let Some(batch) = input.next().await.transpose()? else { return Ok(false) };
            first.push(batch.clone());
            if batch.num_rows() == 0 {
                continue;
            }
            let _time = self.baseline.elapsed_compute().timer();
            let Some(keys) = self.looked_at(&batch)? else { return Ok(false) };
            rows += batch.num_rows();
            parts += keys.len();
            different.extend(keys);
            if (parts - different.len()) * 100 > AGAIN_OF_100 * parts {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The parts of groups in `batch`.
    fn grouped(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keys = evaluate_expressions_to_arrays(&self.keys, batch)?;
        let parts = partition(&keys)?.ranges();
        let firsts = UInt32Array::from_iter_values(parts.iter().map(|part| part.start as u32));
        let mut columns = keys.iter().map(|key| take(key, &firsts, None)).collect::<Result<Vec<_>, _>>()?;
        let mut places = Vec::with_capacity(batch.num_rows());
        for (place, part) in parts.iter().enumerate() {
            places.resize(part.end, place);
        }
        for of in &mut self.aggregated {
            let arguments = evaluate_expressions_to_arrays(&of.arguments, batch)?;
            let filter = evaluate_expressions_to_arrays(&of.filter, batch)?;
            let filter = filter.first().map(|filter| as_boolean_array(filter)).transpose()?;
            of.accumulator.update_batch(&arguments, &places, filter, parts.len())?;
            columns.extend(of.accumulator.state(EmitTo::All)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The next parts of groups; none at the end.
    async fn next(&mut self, input: &mut SendableRecordBatchStream) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.together.next_completed_batch() {
                self.adjacent.add(batch.num_rows());
                return Ok(Some(batch.record_output(&self.baseline)));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(batch) = input.next().await.transpose()? else {
                self.ended = true;
                self.together.finish_buffered_batch()?;
                continue;
            };
            let time = self.baseline.elapsed_compute().clone();
            let _time = time.timer();
            if batch.num_rows() > 0 {
                let grouped = self.grouped(&batch)?;
                self.together.push_batch(grouped)?;
            }
        }
    }
}

/// The work of `hashed` over `batches`.
fn hashed(
    hashed: &Arc<dyn ExecutionPlan>,
    batches: SendableRecordBatchStream,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    replace_children_if_necessary(Arc::clone(hashed), vec![Once::plan(batches)?])?.execute(0, context)
}

impl DisplayAs for AdjacentGroupsExec {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let Some(aggregate) = self.hashed.downcast_ref::<AggregateExec>() else { return Ok(()) };
        aggregate.fmt_as(form, f)?;
        match form {
            DisplayFormatType::TreeRender => writeln!(f, "adjacent=as seen"),
            _ => f.write_str(", adjacent=[as seen]"),
        }
    }
}

impl ExecutionPlan for AdjacentGroupsExec {
    fn name(&self) -> &str {
        "AdjacentGroupsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.hashed.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.hashed.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.hashed.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(Arc::clone(&self.hashed).replace_children(children, options)?)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(replace_children_if_necessary(Arc::clone(&self.hashed), children)?)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let aggregate = self.aggregate()?;
        let aggregated = aggregate.aggr_expr().iter().zip(aggregate.filter_expr()).map(|(function, filter)| {
            Ok(Aggregated {
                accumulator: function.create_groups_accumulator()?,
                arguments: function.expressions(),
                filter: filter.clone(),
            })
        });
        let rows = context.session_config().batch_size();
        let mut grouping = Grouping {
            schema: self.schema(),
            keys: aggregate.group_expr().input_exprs(),
            aggregated: aggregated.collect::<Result<_>>()?,
            together: BatchCoalescer::new(self.schema(), rows),
            ended: false,
            baseline: BaselineMetrics::new(&self.metrics, partition),
            adjacent: MetricBuilder::new(&self.metrics).counter("adjacent_groups", partition),
        };
        let input_schema = aggregate.input_schema();
        let mut input = aggregate.input().execute(partition, Arc::clone(&context))?;
        let plan = Arc::clone(&self.hashed);
        let begun = async move {
            let mut first = Vec::new();
            let pays = grouping.pays(&mut input, &mut first).await?;
            let rest = futures::stream::iter(first.into_iter().map(Ok)).chain(input);
            let all: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(input_schema, rest));
            if !pays {
                let batches = hashed(&plan, all, context)?;
                return Ok::<_, DataFusionError>(
                    batches.map_ok(move |batch| batch.record_output(&grouping.baseline)).boxed(),
                );
            }
            Ok(futures::stream::try_unfold((grouping, all), |(mut grouping, mut all)| async move {
                let next = grouping.next(&mut all).await?;
                Ok(next.map(|batch| (batch, (grouping, all))))
            })
            .boxed())
        };
        let batches = futures::stream::once(begun).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
