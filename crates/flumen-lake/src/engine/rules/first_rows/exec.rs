//! The operator: it keeps the first rows of each group, and numbers them.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_expr_common::utils::evaluate_expressions_to_arrays;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};

use super::kept::Kept;
use super::wanted::Wanted;
use crate::engine::once::Once;

/// Rows after which it shows whether keeping the first ones of each group leaves enough out.
const PROBE_ROWS: usize = 100_000;
/// The part of rows that may be kept if it is to be worthwhile before the rows of a group meet.
const WORTHWHILE: f64 = 0.3;
/// Rows kept at which they are passed on, before the rows of a group meet.
const PARTIAL_ROWS: usize = 1 << 18;

/// Keeps the first rows of each group.
#[derive(Debug)]
pub(super) struct FirstRowsExec {
    input: Arc<dyn ExecutionPlan>,
    wanted: Wanted,
    /// The columns with the number of the row behind them; none if the rows of a group have not met yet.
    numbered: Option<SchemaRef>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl FirstRowsExec {
    /// Leaves out rows that cannot be among the first of their group; keeps some that are not.
    pub(super) fn partial(input: Arc<dyn ExecutionPlan>, wanted: Wanted) -> Self {
        Self::new(input, wanted, None)
    }

    /// Gives the first rows of each group, with their numbers as the last column of `schema`.
    pub(super) fn numbered(input: Arc<dyn ExecutionPlan>, wanted: Wanted, schema: SchemaRef) -> Self {
        Self::new(input, wanted, Some(schema))
    }

    fn new(input: Arc<dyn ExecutionPlan>, wanted: Wanted, numbered: Option<SchemaRef>) -> Self {
        let schema = numbered.clone().unwrap_or_else(|| input.schema());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, wanted, numbered, metrics: ExecutionPlanMetricsSet::new(), properties: Arc::new(properties) }
    }
}

impl DisplayAs for FirstRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let keys: Vec<String> = self.wanted.keys.iter().map(ToString::to_string).collect();
        let order: Vec<String> = self.wanted.order.iter().map(ToString::to_string).collect();
        let stage = if self.numbered.is_some() { "numbered" } else { "partial" };
        let rows = self.wanted.rows;
        write!(f, "FirstRowsExec: {stage}, rows={rows}, partition=[{}], order=[{}]", keys.join(", "), order.join(", "))
    }
}

impl ExecutionPlan for FirstRowsExec {
    fn name(&self) -> &str {
        "FirstRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> datafusion::physical_plan::InputDistributionRequirements {
        let needed = match self.numbered {
            Some(_) => Distribution::KeyPartitioned(self.wanted.keys.clone()),
            None => Distribution::UnspecifiedDistribution,
        };
        datafusion::physical_plan::InputDistributionRequirements::new(vec![needed])
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let order = self.wanted.order.iter().map(|of| &of.expr);
        datafusion::physical_plan::apply_expression_roots(self.wanted.keys.iter().chain(order), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, self.wanted.clone(), self.numbered.clone()))),
            None => internal_err!("FirstRowsExec has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, self.wanted.clone(), self.numbered.clone()))),
            None => internal_err!("FirstRowsExec has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let kept = Kept::new(input.schema(), &self.wanted)?;
        let stream = match &self.numbered {
            None => passed_on(input, kept, metrics).boxed(),
            Some(schema) => {
                let reservation =
                    MemoryConsumer::new("FirstRowsExec").with_can_spill(true).register(context.memory_pool());
                let (wanted, schema) = (self.wanted.clone(), Arc::clone(schema));
                let sorted = MetricBuilder::new(&self.metrics).counter("sorted", partition);
                let work = Numbering { wanted, schema, kept, reservation, metrics, sorted, context };
                futures::stream::once(work.run(input)).try_flatten().boxed()
            }
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// What may be among the first of its group.
fn passed_on(
    input: SendableRecordBatchStream,
    kept: Kept,
    metrics: BaselineMetrics,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    enum State {
        Keeping(Box<Kept>),
        PassingOn,
    }
    let start = (input, State::Keeping(Box::new(kept)), 0_usize, Vec::<RecordBatch>::new(), metrics);
    futures::stream::try_unfold(start, |(mut input, mut state, mut seen, mut ready, metrics)| async move {
        loop {
            if let Some(batch) = ready.pop() {
                metrics.record_output(batch.num_rows());
                return Ok(Some((batch, (input, state, seen, ready, metrics))));
            }
            let next = input.next().await.transpose()?;
            let timer = metrics.elapsed_compute().timer();
            state = match (state, next) {
                (State::PassingOn, Some(batch)) => {
                    ready.push(batch);
                    State::PassingOn
                }
                (State::PassingOn, None) => return Ok(None),
                (State::Keeping(mut kept), Some(batch)) => {
                    seen += batch.num_rows();
                    kept.add(batch)?;
                    let useless = seen >= PROBE_ROWS && kept.rows() as f64 > seen as f64 * WORTHWHILE;
                    if useless || kept.rows() >= PARTIAL_ROWS {
                        ready = kept.take_all()?;
                        seen = 0;
                    }
                    if useless { State::PassingOn } else { State::Keeping(kept) }
                }
                (State::Keeping(mut kept), None) => {
                    ready = kept.take_all()?;
                    State::PassingOn
                }
            };
            timer.done();
        }
    })
}

/// The work on one set of whole groups.
struct Numbering {
    wanted: Wanted,
    schema: SchemaRef,
    kept: Kept,
    reservation: MemoryReservation,
    metrics: BaselineMetrics,
    /// Whether the groups had to be sorted.
    sorted: Count,
    context: Arc<TaskContext>,
}

type Batches = futures::stream::BoxStream<'static, Result<RecordBatch>>;

impl Numbering {
    async fn run(mut self, mut input: SendableRecordBatchStream) -> Result<Batches> {
        while let Some(batch) = input.next().await.transpose()? {
            let timer = self.metrics.elapsed_compute().timer();
            self.kept.add(batch)?;
            timer.done();
            if self.reservation.try_resize(self.kept.bytes()).is_err() {
                return self.sort(input);
            }
        }
        let size = self.context.session_config().batch_size();
        let Self { kept, schema, reservation, metrics, .. } = self;
        let numbered = kept.into_numbered(size).map(move |batch| {
            let _held = &reservation;
            let (batch, numbers) = batch?;
            metrics.record_output(batch.num_rows());
            with_numbers(&batch, numbers, &schema)
        });
        Ok(futures::stream::iter(numbered).boxed())
    }

    /// There are more groups than memory: sorts what is left, on disk if need be, and counts.
    fn sort(mut self, input: SendableRecordBatchStream) -> Result<Batches> {
        self.sorted.add(1);
        let input_schema = input.schema();
        let kept = self.kept.take_all()?;
        self.reservation.free();
        let rest = futures::stream::iter(kept.into_iter().rev().map(Ok)).chain(input);
        let rest = Once::plan(Box::pin(RecordBatchStreamAdapter::new(input_schema, rest)))?;
        let Some(sorting) = self.wanted.sorting() else { return internal_err!("groups without keys") };
        let sorted = SortExec::new(sorting, rest).execute(0, Arc::clone(&self.context))?;
        let mut counter = Counter::new(&self.wanted, sorted.schema().as_ref())?;
        let (schema, metrics) = (self.schema, self.metrics);
        let counted = sorted.map(move |batch| {
            let batch = counter.first(&batch?, &schema)?;
            metrics.record_output(batch.num_rows());
            Ok(batch)
        });
        Ok(counted.boxed())
    }
}

fn with_numbers(batch: &RecordBatch, numbers: Vec<u64>, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from(numbers)));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Counts the rows of each group, in rows that are sorted.
struct Counter {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    rows: usize,
    converter: RowConverter,
    last: Option<OwnedRow>,
    count: usize,
}

impl Counter {
    fn new(wanted: &Wanted, schema: &Schema) -> Result<Self> {
        let fields = wanted.keys.iter().map(|key| Ok(SortField::new(key.data_type(schema)?)));
        let converter = RowConverter::new(fields.collect::<Result<_>>()?)?;
        Ok(Self { keys: wanted.keys.clone(), rows: wanted.rows, converter, last: None, count: 0 })
    }

    fn first(&mut self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let keys: Vec<ArrayRef> = evaluate_expressions_to_arrays(&self.keys, batch)?;
        let rows = self.converter.convert_columns(&keys)?;
        let (mut places, mut numbers) = (Vec::new(), Vec::new());
        for (place, row) in rows.iter().enumerate() {
            let before = if place == 0 { self.last.as_ref().map(OwnedRow::row) } else { Some(rows.row(place - 1)) };
            self.count = if before == Some(row) { self.count + 1 } else { 1 };
            if self.count <= self.rows {
                places.push(place as u64);
                numbers.push(self.count as u64);
            }
        }
        if let Some(last) = rows.iter().next_back() {
            self.last = Some(last.owned());
        }
        let kept = take_record_batch(batch, &UInt64Array::from(places))?;
        with_numbers(&kept, numbers, schema)
    }
}
