//! `sql`.

use flumen_connect::postgres::{Connect as _, ProjectConnector};
use flumen_core::dataset::Dataset;
use flumen_core::sql::SqlEngine as _;
use flumen_core::{Error, Result};
use flumen_lake::engine::Engine;
use flumen_worker::attempt::{Done, Job};
use flumen_worker::kinds::OneOrMore;
use flumen_worker::kinds::sql::Fields;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

use super::rows::{self, Target};
use crate::commands::ingest::{FlowLoad, FormatOptions, IngestCommand};
use crate::commands::sql;
use crate::context::Context;
use crate::destination::{self, DestinationOptions};
use crate::output::counted;

/// Rows of an output, unless the task says otherwise.
const OUTPUT_ROWS: u64 = 1_000;

pub(super) async fn run(job: &Job, context: &Context) -> Result<Done> {
    let fields: Fields = super::fields(job)?;
    let text = fields.query.clone().unwrap_or_default();
    match (&fields.connection, &fields.into) {
        (Some(connection), None) => {
            let output = in_database(connection, &text, fields.limit.unwrap_or(OUTPUT_ROWS), context).await?;
            Ok(Done { output, ..Done::default() })
        }
        (Some(connection), Some(_)) => from_database(job, connection.clone(), text, fields, context).await,
        (None, _) => in_lake(job, &text, fields, context).await,
    }
}

/// Runs statements in the lake. All but the last are only done; the rows of the last one are the output, or go into a table.
async fn in_lake(job: &Job, text: &str, fields: Fields, context: &Context) -> Result<Done> {
    let memory = fields.query_memory.as_deref().map(|text| sql::size(text).map_err(Error::invalid)).transpose()?;
    let engine = sql::engine(context, memory, None)?;
    let statements = Engine::statements(text);
    let Some((last, before)) = statements.split_last() else {
        return Err(Error::invalid("there is no statement in the query").hint("write one, or name a file with one"));
    };
    for statement in before {
        let mut answer = engine.query(statement).await?;
        let draining = async {
            while let Some(batch) = answer.batches.next().await {
                batch?;
            }
            Ok(())
        };
        context.unless_cancelled(draining).await?;
    }
    let answer = context.unless_cancelled(engine.query(last)).await?;
    let result = match fields.into {
        Some(into) => {
            into_table(job, answer, into, fields.mode, fields.predicate, fields.key, fields.partition_by, context).await
        }
        None => {
            let (schema, done) = (answer.schema.clone(), answer.done.clone());
            let (values, count) = rows::values(answer, fields.limit.unwrap_or(OUTPUT_ROWS), context).await?;
            let output = match done {
                Some(done) if schema.fields().is_empty() => json!({ "rows": done.rows, "command": done.command }),
                _ => rows::output(&schema, values, count),
            };
            Ok(Done { output, ..Done::default() })
        }
    };
    for warning in engine.take_warnings() {
        context.output.warning(warning);
    }
    // What is written is no part of the query.
    result.map(|done| Done { reads: engine.used_tables(), ..done })
}

#[allow(clippy::too_many_arguments, reason = "they are the fields of the task that say where rows go")]
async fn into_table(
    job: &Job,
    answer: flumen_core::sql::Answer,
    into: String,
    mode: Option<flumen_worker::kinds::ingest::IngestMode>,
    predicate: Option<String>,
    key: Option<OneOrMore<String>>,
    partition_by: Option<OneOrMore<String>>,
    context: &Context,
) -> Result<Done> {
    if answer.schema.fields().is_empty() {
        return Err(Error::invalid("the last statement gives no rows, and so nothing goes into the table")
            .hint("end with a query, or leave out 'into'"));
    }
    let dataset: Dataset = into.parse()?;
    let target = Target {
        sink: destination::open(&dataset, &DestinationOptions::default(), context).await?,
        mode: super::mode(job, mode, predicate, key)?,
        load: super::load_id(job, &into),
        fence: super::fence(job),
        partition_by: partition_by.map(OneOrMore::names).unwrap_or_default(),
    };
    let (rows, version) = rows::write(answer, target, context).await?;
    context.output.note(format_args!("{into} ← {}", counted(rows, "row")));
    let output = json!({ "rows": rows, "dataset": into, "version": version });
    Ok(Done { output, reads: Vec::new(), writes: vec![into] })
}

/// The rows of a database's query into a table, as `flumen ingest CONNECTION --query` brings them.
async fn from_database(
    job: &Job,
    connection: String,
    query: String,
    fields: Fields,
    context: &Context,
) -> Result<Done> {
    let into = fields.into.unwrap_or_default();
    let by_slot = fields.by.is_some();
    let command = IngestCommand {
        sources: vec![connection],
        to: Some(into.clone()),
        mode: Some(fields.mode.map_or("replace", |mode| mode.name()).to_owned()),
        key: fields.key.map(OneOrMore::names).unwrap_or_default(),
        predicate: fields.predicate,
        slot: by_slot.then(|| job.slot.clone()),
        partition_by: fields.partition_by.map(OneOrMore::names).unwrap_or_default(),
        column_case: "keep".to_owned(),
        format: FormatOptions { query: Some(query), ..FormatOptions::default() },
        flow: Some(FlowLoad { scope: job.scope.clone(), load: super::load_id(job, &into), fence: super::fence(job) }),
        ..IngestCommand::default()
    };
    let receipt = command.load(context).await?;
    let version = receipt.committed.as_ref().and_then(|committed| committed.version);
    let output = json!({ "rows": receipt.record.rows_written, "dataset": into, "version": version });
    Ok(Done { output, reads: Vec::new(), writes: vec![into] })
}

/// Runs statements in a database, as it understands them.
pub(super) async fn in_database(connection: &str, text: &str, limit: u64, context: &Context) -> Result<Value> {
    let connector = ProjectConnector::new(context.project()?.connection(connection)?.postgres()?);
    let client = connector.connect().await?;
    let failed = flumen_connect::postgres::error::at(connector.place());
    let types = match client.prepare(text).await {
        Ok(statement) => statement.columns().iter().map(|column| column.type_().clone()).collect(),
        // Several statements cannot be prepared: their values stay texts.
        Err(_) => Vec::new(),
    };
    let running = async { client.simple_query(text).await.map_err(failed) };
    let messages = match context.unless_cancelled(running).await {
        Err(error) if context.cancel.is_cancelled() => {
            // It may be too late for that, and the session ends anyway.
            let _ = client.cancel_token().cancel_query(tokio_postgres::NoTls).await;
            return Err(error);
        }
        other => other?,
    };
    let (mut columns, mut data, mut count, mut affected) = (Vec::new(), Vec::new(), 0_u64, None);
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(described) => {
                columns = described.iter().map(|column| column.name().to_owned()).collect();
                (data, count) = (Vec::new(), 0);
            }
            SimpleQueryMessage::Row(row) => {
                count += 1;
                if count <= limit {
                    let value =
                        |(index, name): (usize, &String)| (name.clone(), typed(row.get(index), types.get(index)));
                    data.push(Value::Object(columns.iter().enumerate().map(value).collect()));
                }
            }
            SimpleQueryMessage::CommandComplete(rows) => affected = Some(rows),
            _ => {}
        }
    }
    if columns.is_empty() {
        return Ok(json!({ "rows": affected }));
    }
    let first = columns.first().and_then(|column| data.first()?.get(column).cloned());
    Ok(json!({ "rows": count, "columns": columns, "data": data, "value": first }))
}

/// A value that a server wrote as text.
fn typed(text: Option<&str>, data_type: Option<&Type>) -> Value {
    let Some(text) = text else { return Value::Null };
    match data_type {
        Some(&Type::BOOL) => Value::from(text == "t"),
        Some(&(Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 | Type::JSON | Type::JSONB)) => {
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
        }
        _ => Value::from(text),
    }
}
