//! The operator: looks up rows as long as it pays.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{BatchCoalescer, filter_record_batch, prep_null_mask_filter};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{DynamicFilterPhysicalExpr, Literal};
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};

/// Rows by which it is judged whether a look pays.
const SAMPLE_ROWS: usize = 16 << 10;
/// Of so many rows looked up, one at least must be left out for that.
const LEFT_OUT_OF: usize = 3;
/// Where it does not pay, rows that pass before it is tried again: what is read later may be otherwise.
const REST_ROWS: usize = 1 << 20;

/// Leaves out rows that joins further up will not want.
#[derive(Debug)]
pub(super) struct WantedRowsExec {
    input: Arc<dyn ExecutionPlan>,
    /// What the joins say, about the columns of `input`.
    wanted: Vec<Arc<dyn PhysicalExpr>>,
    metrics: ExecutionPlanMetricsSet,
}

impl WantedRowsExec {
    /// The rows of `input` that `wanted` hold for. Each of these is one that may not be known yet, or hold for all.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, wanted: Vec<Arc<dyn PhysicalExpr>>) -> Self {
        Self { input, wanted, metrics: ExecutionPlanMetricsSet::new() }
    }
}

/// One condition, and how it did.
struct Look {
    condition: Arc<dyn PhysicalExpr>,
    seen: usize,
    kept: usize,
    /// Rows that are passed on without a look.
    resting: usize,
}

impl Look {
    fn new(condition: Arc<dyn PhysicalExpr>) -> Self {
        Self { condition, seen: 0, kept: 0, resting: 0 }
    }

    /// Which rows of `batch` are wanted; none if nobody should look.
    fn at(&mut self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        if self.resting > 0 {
            self.resting = self.resting.saturating_sub(batch.num_rows());
            return Ok(None);
        }
        let Some(dynamic) = self.condition.downcast_ref::<DynamicFilterPhysicalExpr>() else { return Ok(None) };
        let current = dynamic.current()?;
        // The join does not know yet.
        if current.downcast_ref::<Literal>().is_some_and(|literal| *literal.value() == ScalarValue::Boolean(Some(true)))
        {
            return Ok(None);
        }
        let wanted = current.evaluate(batch)?.into_array(batch.num_rows())?;
        let Some(wanted) = wanted.as_boolean_opt() else { return internal_err!("a condition is no truth") };
        let wanted = if wanted.null_count() > 0 { prep_null_mask_filter(wanted) } else { wanted.clone() };
        self.seen += wanted.len();
        self.kept += wanted.true_count();
        if self.seen >= SAMPLE_ROWS {
            if self.seen - self.kept < self.seen / LEFT_OUT_OF {
                self.resting = REST_ROWS;
            }
            (self.seen, self.kept) = (0, 0);
        }
        Ok(Some(wanted))
    }
}

/// The rows of one partition on their way.
struct Looking {
    input: SendableRecordBatchStream,
    looks: Vec<Look>,
    /// What is left of batches, until there is enough for one.
    together: BatchCoalescer,
    ended: bool,
    left_out: Count,
    baseline: BaselineMetrics,
}

impl Looking {
    /// The next rows; none at the end.
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.together.next_completed_batch() {
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(mut batch) = self.input.next().await.transpose()? else {
                self.ended = true;
                self.together.finish_buffered_batch()?;
                continue;
            };
            let time = self.baseline.elapsed_compute().timer();
            let before = batch.num_rows();
            for look in &mut self.looks {
                if let Some(wanted) = look.at(&batch)?
                    && wanted.true_count() < batch.num_rows()
                {
                    batch = filter_record_batch(&batch, &wanted)?;
                    if batch.num_rows() == 0 {
                        break;
                    }
                }
            }
            self.left_out.add(before - batch.num_rows());
            time.done();
            if batch.num_rows() == before && self.together.is_empty() {
                return Ok(Some(batch));
            }
            if batch.num_rows() > 0 {
                self.together.push_batch(batch)?;
            }
        }
    }
}

impl DisplayAs for WantedRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let wanted: Vec<String> = self.wanted.iter().map(ToString::to_string).collect();
        write!(f, "WantedRowsExec: {}", wanted.join(" AND "))
    }
}

impl ExecutionPlan for WantedRowsExec {
    fn name(&self) -> &str {
        "WantedRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for wanted in &self.wanted {
            if f(wanted)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, self.wanted.clone()))),
            None => internal_err!("WantedRowsExec has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, self.wanted.clone()))),
            None => internal_err!("WantedRowsExec has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = context.session_config().batch_size();
        let looking = Looking {
            input: self.input.execute(partition, context)?,
            looks: self.wanted.iter().cloned().map(Look::new).collect(),
            together: BatchCoalescer::new(self.schema(), rows).with_biggest_coalesce_batch_size(Some(rows / 2)),
            ended: false,
            left_out: MetricBuilder::new(&self.metrics).counter("left_out", partition),
            baseline: BaselineMetrics::new(&self.metrics, partition),
        };
        let batches = futures::stream::try_unfold(looking, |mut looking| async move {
            let next = looking.next().await?;
            Ok(next.map(|batch| (batch.record_output(&looking.baseline), looking)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches.into_stream())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
