//! What clients of Flight SQL send besides statements: values for the parameters of prepared ones, and rows that become a
//! table or go into one.
//!
//! A value takes the place of its `$n` or `?` as a literal of its type, as it does for clients of Postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use flumen_core::{Error, ErrorKind};
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::Status;

use super::sessions::FlightSession;
use super::{internal, status};
use crate::failure::Failure;
use crate::pg::{count, literals, numbered, quoted_name, substitute};

/// The name of the client's rows in the statement that inserts them.
const ROWS: &str = "_flumen_ingest";

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    sql: String,
    parameters: usize,
    /// The values of its parameters, a row for each time that it shall run.
    rows: Vec<RecordBatch>,
}

/// A statement that was prepared, and what it takes and gives.
pub(super) struct Prepared {
    pub statement: Statement,
    pub parameters: SchemaRef,
    /// None where that shows only when it has its values.
    pub columns: Option<SchemaRef>,
}

fn refused(failure: Failure) -> Status {
    Status::invalid_argument(match failure.hint {
        Some(hint) => format!("{}; {hint}", failure.message),
        None => failure.message,
    })
}

/// Prepares `sql`.
///
/// Errors: what is wrong with it, as far as that shows without values.
pub(super) async fn prepare(session: &FlightSession, sql: &str) -> Result<Prepared, Status> {
    let sql = numbered(sql);
    let parameters = count(&sql);
    let told = session.catalog.tell(&sql).await.map_err(refused)?;
    let described = session.engine.describe(&told.sql).await;
    let (types, columns) = match described {
        Ok(described) => (described.parameters, Some(described.schema)),
        // What the types of its parameters do not tell, their values will.
        Err(_) if parameters > 0 => (Vec::new(), None),
        Err(error) => return Err(status(&error)),
    };
    let field = |number: usize| {
        let known = types.get(number).cloned().flatten().unwrap_or(DataType::Null);
        Field::new(format!("${}", number + 1), known, true)
    };
    let schema = Schema::new((0..parameters).map(field).collect::<Vec<_>>());
    drop(told);
    let statement = Statement { sql, parameters, rows: Vec::new() };
    Ok(Prepared { statement, parameters: Arc::new(schema), columns })
}

impl Statement {
    /// The statement with values for its parameters.
    ///
    /// Errors: they are too few or too many.
    pub fn bound(self, rows: Vec<RecordBatch>) -> Result<Self, Status> {
        for batch in &rows {
            if batch.num_columns() != self.parameters {
                return Err(Status::invalid_argument(format!(
                    "there are {} values for {} parameters",
                    batch.num_columns(),
                    self.parameters
                )));
            }
        }
        Ok(Self { rows, ..self })
    }

    /// Its text with the values that were bound, for a query.
    ///
    /// Errors: there are none, or those of several runs.
    pub fn filled(&self) -> Result<String, Status> {
        let mut filled = self.filled_with(&self.rows)?;
        match (filled.pop(), filled.is_empty()) {
            (Some(sql), true) => Ok(sql),
            (None, _) => Err(Status::invalid_argument("the parameters of this statement have no values")),
            (Some(_), false) => Err(Status::unimplemented("a query takes one row of values")),
        }
    }

    /// Its text, once for each row of values.
    ///
    /// Errors: as [`bound`](Self::bound), and for a value that has no literal.
    pub fn filled_with(&self, rows: &[RecordBatch]) -> Result<Vec<String>, Status> {
        if self.parameters == 0 {
            return Ok(vec![self.sql.clone()]);
        }
        let bound = self.clone().bound(if rows.is_empty() { self.rows.clone() } else { rows.to_vec() })?;
        let mut filled = Vec::new();
        for batch in &bound.rows {
            for values in literals(batch).map_err(refused)? {
                filled.push(substitute(&self.sql, &values).map_err(refused)?);
            }
        }
        Ok(filled)
    }
}

/// The batches that a client sends.
fn batches(stream: PeekableFlightDataStream) -> FlightRecordBatchStream {
    let data = stream.map_err(|status| FlightError::Tonic(Box::new(status)));
    FlightRecordBatchStream::new_from_flight_data(data)
}

/// The values of parameters that a client sends.
///
/// Errors: what it sends are no batches.
pub(super) async fn parameters(stream: PeekableFlightDataStream) -> Result<Vec<RecordBatch>, Status> {
    let sent: Vec<RecordBatch> = batches(stream).try_collect().await.map_err(Status::from)?;
    Ok(sent.into_iter().filter(|batch| batch.num_columns() > 0 && batch.num_rows() > 0).collect())
}

/// Makes a table of the rows of `stream`, or adds them to one, as `command` says. Tells how many there were.
///
/// Errors: the table is there, or not, against what was said; those of the rows and of the table.
pub(super) async fn ingest(
    session: &FlightSession,
    command: CommandStatementIngest,
    stream: PeekableFlightDataStream,
) -> Result<i64, Status> {
    let options = command.table_definition_options.unwrap_or_default();
    let name = match &command.schema {
        Some(schema) if !schema.is_empty() => format!("{}.{}", quoted_name(schema), quoted_name(&command.table)),
        _ => quoted_name(&command.table),
    };
    let there = match session.engine.columns(&name).await {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(status(&error)),
    };
    let mut sent = batches(stream);
    let first = sent.try_next().await.map_err(Status::from)?;
    let schema = sent.schema().cloned().ok_or_else(|| Status::invalid_argument("the rows have no schema"))?;
    let kind = if command.temporary { "temporary table" } else { "table" };
    let columns: Vec<String> = schema.fields().iter().map(|field| quoted_name(field.name())).collect();
    let columns = columns.join(", ");
    let sql = match (there, options.if_exists(), options.if_not_exist()) {
        (true, TableExistsOption::Append, _) => format!("insert into {name} ({columns}) select {columns} from {ROWS}"),
        (true, TableExistsOption::Replace, _) => format!("create or replace {kind} {name} as select * from {ROWS}"),
        (true, ..) => return Err(Status::already_exists(format!("there is a table {name} already"))),
        (false, _, TableNotExistOption::Create) => format!("create {kind} {name} as select * from {ROWS}"),
        (false, ..) => return Err(Status::not_found(format!("there is no table {name}"))),
    };
    let read = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&read);
    let rows = futures::stream::iter(first.map(Ok)).chain(sent).map(move |batch| {
        let batch = batch.map_err(|error| Error::data("the rows of the client break off").caused_by(error))?;
        counted.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        Ok(batch)
    });
    session.guard.session.begin(&sql);
    let done = async {
        let mut answer = session.engine.query_with_rows(&sql, ROWS, schema, rows.boxed()).await?;
        while let Some(batch) = answer.batches.next().await {
            batch?;
        }
        Ok::<_, Error>(())
    };
    let done = done.await;
    session.guard.session.rest("idle");
    done.map_err(|error| status(&error))?;
    i64::try_from(read.load(Ordering::Relaxed)).map_err(internal)
}
