//! Rows of a query, into any destination or as values of JSON.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_core::load::{Fence, LoadId, LoadRecord, LoadRequest, Mode};
use flumen_core::sql::Answer;
use flumen_core::write::{BatchWriter, Sink};
use flumen_core::{Error, Result};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::context::Context;

/// The column that says which load wrote a row.
const LOAD_COLUMN: &str = "_flumen_load";
/// Batches on their way to a writer.
const AHEAD: usize = 4;

/// What is to be written, besides the rows.
pub(super) struct Target {
    pub sink: Arc<dyn Sink>,
    pub mode: Mode,
    pub load: LoadId,
    pub fence: Fence,
    pub partition_by: Vec<String>,
}

/// Writes the rows of an answer as one load; how many, and the version that the commit made. A load that is done already is left
/// alone.
///
/// Errors: those of the query and of the destination; nothing was written then.
pub(super) async fn write(mut answer: Answer, target: Target, context: &Context) -> Result<(u64, Option<u64>)> {
    let Target { sink, mode, load, fence, partition_by } = target;
    if sink.times_loaded(&load).await? > 0 {
        let loads = sink.loads(usize::MAX).await?;
        if let Some(done) = loads.into_iter().find(|entry| entry.record.load == load && !entry.undone) {
            context.output.note(format_args!("{} has this load already", sink.address()));
            return Ok((done.record.rows_written, done.version));
        }
    }
    let with_load = matches!(mode, Mode::ReplaceLoad { .. });
    let schema = stored(&answer.schema, sink.as_ref(), with_load)?;
    let started = context.clock.now();
    let request = LoadRequest {
        load: load.clone(),
        mode: mode.clone(),
        schema: Arc::clone(&schema),
        evolve: true,
        files: Vec::new(),
        fence,
        started,
        writers: 1,
        partition_by,
        indexes: Vec::new(),
        primary_key: Vec::new(),
    };
    let session = sink.begin(request).await?;
    match pump(&mut answer, session.writer()?, &schema, &load, context).await {
        Ok(rows) => {
            let mut record = LoadRecord::new(load, sink.address(), mode, started);
            (record.rows_read, record.rows_written) = (rows, rows);
            let committed = session.commit(&record).await?;
            Ok((rows, committed.version))
        }
        Err(error) => {
            // Why it failed counts more than what could not be tidied up.
            let _ = session.abort().await;
            Err(error)
        }
    }
}

/// Gives the rows to a writer, which has a thread of its own.
async fn pump(
    answer: &mut Answer,
    writer: Box<dyn BatchWriter>,
    schema: &SchemaRef,
    load: &LoadId,
    context: &Context,
) -> Result<u64> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let writing = tokio::task::spawn_blocking(move || write_all(writer, receiver));
    let feeding = async {
        while let Some(batch) = answer.batches.next().await {
            if sender.send(fit(&batch?, schema, load)?).await.is_err() {
                // The writer says why it has ended.
                break;
            }
        }
        Ok(())
    };
    let fed = context.unless_cancelled(feeding).await;
    let whole = fed.is_ok();
    // A writer that is not to finish is told so.
    if whole {
        drop(sender);
    } else {
        let _ = sender.send(None).await;
    }
    let written = writing.await.map_err(|error| Error::internal("a writer stopped").caused_by(error))?;
    fed?;
    written
}

/// Writes batches until there are no more; `None` among them means that the rows are not to be kept.
fn write_all(mut writer: Box<dyn BatchWriter>, mut batches: mpsc::Receiver<Option<RecordBatch>>) -> Result<u64> {
    let mut rows = 0;
    while let Some(batch) = batches.blocking_recv() {
        let Some(batch) = batch else { return Ok(0) };
        rows += batch.num_rows() as u64;
        writer.write(&batch)?;
    }
    writer.finish()?;
    Ok(rows)
}

/// The columns as the destination keeps them.
fn stored(schema: &SchemaRef, sink: &dyn Sink, with_load: bool) -> Result<SchemaRef> {
    let mut fields = Vec::with_capacity(schema.fields().len() + 1);
    for field in schema.fields() {
        if field.data_type() == &DataType::Null {
            return Err(Error::invalid(format!(
                "the column '{}' is nothing but null, so it has no type",
                field.name()
            ))
            .hint("give it one: cast(null as varchar)"));
        }
        fields.push(Field::new(field.name(), sink.stored_type(field.data_type())?, true));
    }
    if with_load {
        fields.push(Field::new(LOAD_COLUMN, DataType::Utf8, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A batch in the types of the destination.
fn fit(batch: &RecordBatch, schema: &SchemaRef, load: &LoadId) -> Result<Option<RecordBatch>> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(arrow::compute::cast(column, field.data_type())?);
    }
    if columns.len() < schema.fields().len() {
        columns.push(Arc::new(StringArray::from(vec![load.as_str(); batch.num_rows()])));
    }
    Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?))
}

/// The first rows of an answer as JSON, and how many there are.
///
/// Errors: those of the query.
pub(super) async fn values(mut answer: Answer, limit: u64, context: &Context) -> Result<(Vec<Value>, u64)> {
    let (mut rows, mut count) = (Vec::new(), 0);
    let reading = async {
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            count += batch.num_rows() as u64;
            let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(rows.len());
            rows.extend(json_of(&batch.slice(0, batch.num_rows().min(left)))?);
        }
        Ok(())
    };
    context.unless_cancelled(reading).await?;
    Ok((rows, count))
}

fn json_of(batch: &RecordBatch) -> Result<Vec<Value>> {
    let mut text = Vec::new();
    let mut writer =
        arrow_json::WriterBuilder::new().with_explicit_nulls(true).build::<_, arrow_json::writer::JsonArray>(&mut text);
    writer.write(batch)?;
    writer.finish()?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&text).map_err(|error| Error::internal("rows cannot be read as JSON").caused_by(error))
}

/// The output of a query: its rows, and the first value for those who want no more.
pub(super) fn output(schema: &SchemaRef, rows: Vec<Value>, count: u64) -> Value {
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let first = columns.first().and_then(|column| rows.first()?.get(*column).cloned());
    json!({ "rows": count, "columns": columns, "data": rows, "value": first })
}
