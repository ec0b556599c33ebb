//! Writes the rows of a plan into files of a table: each partition of the plan by a thread of its own, nothing collected.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream_partitioned;
use flumen_core::write::BatchWriter;
use flumen_core::{Error, Result};
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::super::errors;
use super::Writers;
use super::draft::Draft;
use crate::lake::{Table, delete_files};
use crate::sink::{Conversion, LoadFiles, NewFile};

/// Batches on their way from a plan to a writer.
const BATCHES_AHEAD: usize = 2;

/// Rows that were written, and their files.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub files: Vec<NewFile>,
    pub rows: u64,
}

/// Where rows go.
pub(super) struct Place {
    /// The folder within the table.
    pub folder: String,
    /// The columns of the rows.
    pub columns: SchemaRef,
    /// Those among them that are not in the files but in the log.
    pub partition_by: Vec<String>,
}

/// Writes the rows of `plan`, whose columns are those of `place`, into new files of `draft`'s table. They are no part of
/// the draft yet.
///
/// Errors: those of the query, in the words of `sql`; `Data` for rows that the table refuses.
pub(super) async fn write(
    draft: &Draft,
    place: Place,
    context: &SessionContext,
    plan: &LogicalPlan,
    sql: &str,
    writers: &Writers,
) -> Result<Written> {
    let explained = |error| errors::explain(error, sql);
    let table = draft.table().clone();
    let checks = if place.columns == *draft.schema() { draft.constraints()? } else { None };
    let conversion =
        Conversion { from: (0..place.columns.fields().len()).collect(), schema: Arc::clone(&place.columns) };
    let attempt = writers.ids.next();
    let files =
        LoadFiles::new(table.clone(), place.folder, attempt, conversion, &place.partition_by, Handle::current())?;
    let files = Arc::new(files.with_constraints(checks));
    let mut unfinished = Unfinished { table, files: Some(Arc::clone(&files)) };
    let plan = context.state().create_physical_plan(plan).await.map_err(explained)?;
    let streams = execute_stream_partitioned(plan, context.task_ctx()).map_err(explained)?;
    let rows = pump(streams, || Ok(Box::new(files.writer())), sql).await?;
    let written = files.finished().await?;
    unfinished.files = None;
    Ok(Written { files: written, rows })
}

/// Writes the rows of each of `streams` by a writer of its own, in threads of their own; gives how many there were.
///
/// Errors: those of the query, in the words of `sql`, and of the writers.
pub(in crate::engine) async fn pump(
    streams: Vec<SendableRecordBatchStream>,
    writer: impl Fn() -> Result<Box<dyn BatchWriter>>,
    sql: &str,
) -> Result<u64> {
    let mut rows = 0;
    // Dropped, it ends the tasks: a statement that is cancelled writes no further.
    let mut tasks = JoinSet::new();
    for stream in streams {
        let (sender, receiver) = channel(BATCHES_AHEAD);
        let writer = writer()?;
        tasks.spawn_blocking(move || drain(receiver, writer));
        tasks.spawn(feed(stream, sender));
    }
    while let Some(task) = tasks.join_next().await {
        match task {
            Ok(Ok(written)) => rows += written,
            Ok(Err(Failed::Query(error))) => return Err(errors::explain(error, sql)),
            Ok(Err(Failed::Write(error))) => return Err(error),
            Err(error) => return Err(Error::internal("writing rows broke off").caused_by(error)),
        }
    }
    Ok(rows)
}

enum Failed {
    Query(DataFusionError),
    Write(Error),
}

enum Message {
    Batch(RecordBatch),
    End,
}

async fn feed(mut stream: SendableRecordBatchStream, sender: Sender<Message>) -> Result<u64, Failed> {
    while let Some(batch) = stream.next().await {
        // A writer that has gone tells by itself why.
        if sender.send(Message::Batch(batch.map_err(Failed::Query)?)).await.is_err() {
            return Ok(0);
        }
    }
    let _ = sender.send(Message::End).await;
    Ok(0)
}

fn drain(mut receiver: Receiver<Message>, mut writer: Box<dyn BatchWriter>) -> Result<u64, Failed> {
    let mut rows = 0;
    while let Some(message) = receiver.blocking_recv() {
        match message {
            Message::Batch(batch) => {
                rows += batch.num_rows() as u64;
                writer.write(&batch).map_err(Failed::Write)?;
            }
            Message::End => {
                writer.finish().map_err(Failed::Write)?;
                return Ok(rows);
            }
        }
    }
    // The query failed, and says so itself.
    Ok(0)
}

/// Files that go again unless they are finished.
struct Unfinished {
    table: Table,
    files: Option<Arc<LoadFiles>>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(files) = self.files.take() else { return };
        let paths = files.discard();
        if let Ok(runtime) = Handle::try_current() {
            let table = self.table.clone();
            runtime.spawn(async move { delete_files(&table, paths).await });
        }
    }
}
