//! Files as a stream of batches: reading threads, as many as the query has partitions, take pieces from one queue.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use flumen_core::Result;
use flumen_core::read::{Split, Splits};
use flumen_core::words::counted;

use super::{FileTable, Reading, TooNarrow};

/// Batches that wait between a reading thread and the query.
const BATCHES_IN_FLIGHT: usize = 2;

/// Files that are read while the query runs.
pub(super) struct StreamedFiles {
    table: Arc<FileTable>,
}

impl StreamedFiles {
    pub fn new(table: FileTable) -> Self {
        Self { table: Arc::new(table) }
    }
}

impl fmt::Debug for StreamedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamedFiles({})", counted(self.table.inputs.len() as u64, "file"))
    }
}

#[async_trait]
impl TableProvider for StreamedFiles {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.table.schema.fields().len()).collect());
        let schema: SchemaRef = Arc::new(Schema::clone(&self.table.schema).project(&columns)?);
        let scan = Arc::new(Scan { table: Arc::clone(&self.table), columns, runs: Mutex::default() });
        let partition = |_| {
            let (scan, schema) = (Arc::clone(&scan), Arc::clone(&schema));
            Arc::new(Partition { scan, schema, runs: AtomicUsize::new(0) }) as Arc<dyn PartitionStream>
        };
        let partitions = (0..session.config().target_partitions().max(1)).map(partition).collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema, partitions, None, [], false, limit)?))
    }
}

/// One scan in a plan. A plan may run more than once: each run of all its partitions has a queue of its own.
struct Scan {
    table: Arc<FileTable>,
    columns: Vec<usize>,
    runs: Mutex<Vec<Arc<Queue>>>,
}

impl Scan {
    fn run(&self, number: usize) -> Arc<Queue> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        while runs.len() <= number {
            let (table, columns) = (Arc::clone(&self.table), self.columns.clone());
            runs.push(Arc::new(Queue { table, columns, current: Mutex::new(Current { next_input: 0, open: None }) }));
        }
        Arc::clone(&runs[number])
    }
}

/// The pieces of all inputs, one after the other.
struct Queue {
    table: Arc<FileTable>,
    columns: Vec<usize>,
    current: Mutex<Current>,
}

/// A piece of a file, with what there is to know about the file.
type Piece = (Arc<Reading>, Box<dyn Split>);

struct Current {
    next_input: usize,
    open: Option<(Arc<Reading>, Arc<dyn Splits>)>,
}

impl Queue {
    fn next(&self) -> Result<Option<Piece>> {
        loop {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((reading, splits)) = current.open.clone() {
                // Whoever waits for a piece must not keep the others from the queue.
                drop(current);
                if let Some(split) = splits.next()? {
                    return Ok(Some((reading, split)));
                }
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                if current.open.as_ref().is_some_and(|(_, open)| Arc::ptr_eq(open, &splits)) {
                    current.open = None;
                }
                continue;
            }
            let Some(input) = self.table.inputs.get(current.next_input) else { return Ok(None) };
            let reading = Arc::new(self.table.reading(current.next_input, &self.columns));
            let splits = input.read(&reading.request)?;
            self.table.notes.reading(&splits);
            current.next_input += 1;
            current.open = Some((reading, splits));
        }
    }
}

struct Partition {
    scan: Arc<Scan>,
    schema: SchemaRef,
    runs: AtomicUsize,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(self.scan.table.inputs.len() as u64, "file"))
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let queue = self.scan.run(self.runs.fetch_add(1, Ordering::Relaxed));
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), BATCHES_IN_FLIGHT);
        let sender = builder.tx();
        builder.spawn_blocking(move || {
            let ours = |error| DataFusionError::External(Box::new(error));
            while let Some((reading, mut split)) = queue.next().map_err(ours)? {
                while let Some(raw) = split.next_batch().map_err(ours)? {
                    let narrow = raw.bad.is_empty() && !raw.misfits.is_empty();
                    let batch = reading.batch(&raw).map_err(|error| {
                        ours(if narrow { error.caused_by(TooNarrow(Arc::clone(&queue.table))) } else { error })
                    })?;
                    if batch.num_rows() > 0 && sender.blocking_send(Ok(batch)).is_err() {
                        // The query has all it wants.
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        builder.build()
    }
}
