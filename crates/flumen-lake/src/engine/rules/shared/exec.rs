//! The operator: whoever comes first does the work, and keeps what comes of it for the others.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Mutex as AsyncMutex;

/// One of several places in a plan that want the same rows.
#[derive(Debug)]
pub(super) struct SharedExec {
    input: Arc<dyn ExecutionPlan>,
    shared: Arc<Shared>,
    places: usize,
    metrics: ExecutionPlanMetricsSet,
}

impl SharedExec {
    /// One of so many `places` with the same `shared`, whose inputs do the same.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, shared: Arc<Shared>, places: usize) -> Self {
        Self { input, shared, places, metrics: ExecutionPlanMetricsSet::new() }
    }
}

/// What several places of a plan share, for each time that it runs.
#[derive(Debug, Default)]
pub(super) struct Shared {
    runs: Mutex<Vec<(Weak<TaskContext>, Arc<Run>)>>,
}

impl Shared {
    /// That of the run with `context`; `plan` is one more plan for its rows.
    fn run(&self, context: &Arc<TaskContext>, plan: &Arc<dyn ExecutionPlan>) -> Arc<Run> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|(of, _)| of.strong_count() > 0);
        let found = runs.iter().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(context)));
        let run = match found {
            Some((_, run)) => Arc::clone(run),
            None => {
                let partitions = plan.output_partitioning().partition_count();
                let parts = (0..partitions).map(|_| AsyncMutex::new(Part::Unkept(0))).collect();
                let run = Arc::new(Run { plans: Mutex::default(), parts });
                runs.push((Arc::downgrade(context), Arc::clone(&run)));
                run
            }
        };
        run.add(plan);
        run
    }
}

/// One run of a plan.
#[derive(Debug)]
struct Run {
    /// The plans of the places that have shown up. All do the same, and each can be run once for each partition.
    plans: Mutex<Vec<Arc<dyn ExecutionPlan>>>,
    parts: Vec<AsyncMutex<Part>>,
}

/// One partition of the rows.
#[derive(Debug)]
enum Part {
    /// They are here, for so many places more.
    Kept(Vec<RecordBatch>, usize, Arc<MemoryReservation>),
    /// They are not here: who wants them makes them, with the next plan. So many were run.
    Unkept(usize),
}

type Batches = BoxStream<'static, Result<RecordBatch>>;

impl Run {
    fn add(&self, plan: &Arc<dyn ExecutionPlan>) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if !plans.iter().any(|known| Arc::ptr_eq(known, plan)) {
            plans.push(Arc::clone(plan));
        }
    }

    /// The rows of a partition, for one of the places; `others` is how many there are beside it.
    async fn rows(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
        others: usize,
        taken_over: Count,
    ) -> Result<Batches> {
        let Some(part) = self.parts.get(partition) else { return internal_err!("there is no partition {partition}") };
        let mut part = part.lock().await;
        match &mut *part {
            Part::Kept(batches, left, reservation) => {
                taken_over.add(1);
                *left -= 1;
                let (left, given) = (*left, given(batches.clone(), Arc::clone(reservation)));
                if left == 0 {
                    *part = Part::Unkept(1);
                }
                Ok(given)
            }
            Part::Unkept(run) => {
                // Each place asks once, and its plan is there by then: one is left.
                let plan = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(*run).cloned();
                let Some(plan) = plan else { return internal_err!("shared rows were asked for too often") };
                *run += 1;
                let rows = plan.execute(partition, Arc::clone(&context))?;
                if *run > 1 { Ok(rows.boxed()) } else { kept(rows, &context, others, &mut part).await }
            }
        }
    }
}

/// Reads all rows, and keeps them in `part` if they fit. Who wants them meanwhile waits; who comes after this one was given up
/// makes its own.
async fn kept(
    mut rows: SendableRecordBatchStream,
    context: &TaskContext,
    others: usize,
    part: &mut Part,
) -> Result<Batches> {
    let reservation = MemoryConsumer::new("SharedExec").register(context.memory_pool());
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        let fits = reservation.try_grow(batch.get_array_memory_size()).is_ok();
        batches.push(batch);
        if !fits {
            reservation.free();
            return Ok(futures::stream::iter(batches.into_iter().map(Ok)).chain(rows).boxed());
        }
    }
    let reservation = Arc::new(reservation);
    *part = Part::Kept(batches.clone(), others, Arc::clone(&reservation));
    Ok(given(batches, reservation))
}

/// The batches, which count as memory in use for as long as they are not all given out.
fn given(batches: Vec<RecordBatch>, reservation: Arc<MemoryReservation>) -> Batches {
    let batches = batches.into_iter().map(move |batch| {
        let _held = &reservation;
        Ok(batch)
    });
    futures::stream::iter(batches).boxed()
}

impl DisplayAs for SharedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SharedExec: places={}", self.places)
    }
}

impl ExecutionPlan for SharedExec {
    fn name(&self) -> &str {
        "SharedExec"
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
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, Arc::clone(&self.shared), self.places))),
            None => internal_err!("SharedExec has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, Arc::clone(&self.shared), self.places))),
            None => internal_err!("SharedExec has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let run = self.shared.run(&context, &self.input);
        let taken_over = MetricBuilder::new(&self.metrics).counter("taken_over", partition);
        let others = self.places - 1;
        let rows = async move { run.rows(partition, context, others, taken_over).await };
        let rows = futures::stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
