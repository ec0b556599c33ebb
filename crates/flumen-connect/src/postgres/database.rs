//! A Postgres database that SQL reads where it is.
//!
//! What always holds: every query runs in a transaction that can only read; a connection is opened when the first table is
//! looked at, and kept for the next query; a query that nobody waits for any more ends with its connection.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use flumen_core::database::{Compares, Database, DatabaseColumn, DatabaseTable, Databases};
use flumen_core::dataset::TableName;
use flumen_core::read::Misfit;
use flumen_core::sql::BatchStream;
use flumen_core::{Error, Result, limits};
use flumen_project::Project;
use futures::StreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyOutStream};

use super::catalog::{Column, qualified};
use super::connect::{Connect, ProjectConnector};
use super::decode::{ColumnDecoder, broken};
use super::encode::HEADER;
use super::error::{at, explain};
use super::quote;
use super::types::oid;
use crate::sources::postgres::{
    BATCH_BYTES, all_columns, arrow_type, connect, conversion, decode_row, list_tables, table_of,
};

/// How often the server looks whether somebody still waits for an answer, in milliseconds.
const CONNECTION_CHECK_MS: &str = "2000";
/// Numbers of collations that tell texts apart byte by byte: the database's own, `C`, `POSIX`.
const PLAIN_COLLATIONS: [u32; 3] = [100, 950, 951];

/// The databases among the connections of a project.
pub struct ProjectDatabases {
    project: Arc<Project>,
    open: Mutex<HashMap<String, Arc<PostgresDatabase>>>,
}

impl ProjectDatabases {
    /// Those of `project`.
    pub fn new(project: Arc<Project>) -> Self {
        Self { project, open: Mutex::default() }
    }
}

impl Databases for ProjectDatabases {
    fn names(&self) -> Vec<String> {
        self.project.connections().map(|connection| connection.name().to_owned()).collect()
    }

    fn database(&self, connection: &str) -> Result<Arc<dyn Database>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = open.get(connection) {
            return Ok(Arc::clone(database) as Arc<dyn Database>);
        }
        let config = self.project.connection(connection)?.postgres()?;
        let database = Arc::new(PostgresDatabase::new(connection, Arc::new(ProjectConnector::new(config))));
        open.insert(connection.to_owned(), Arc::clone(&database));
        Ok(database)
    }
}

/// A Postgres database.
pub struct PostgresDatabase {
    connection: String,
    connector: Arc<dyn Connect>,
    /// Connections between two queries.
    idle: Arc<Mutex<Vec<Client>>>,
}

impl PostgresDatabase {
    /// The database that `connector` reaches, under the name of its connection.
    pub fn new(connection: impl Into<String>, connector: Arc<dyn Connect>) -> Self {
        Self { connection: connection.into(), connector, idle: Arc::default() }
    }

    /// A connection, with a transaction that can only read.
    async fn begin(&self) -> Result<Client> {
        let begin = "begin isolation level repeatable read read only";
        loop {
            let waiting = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(client) = waiting else { break };
            // The server may have ended it meanwhile.
            if client.batch_execute(begin).await.is_ok() {
                return Ok(client);
            }
        }
        let client = connect(self.connector.as_ref(), &self.connection).await?;
        let check = format!(
            "select pg_catalog.set_config(name, '{CONNECTION_CHECK_MS}', false) from pg_catalog.pg_settings \
             where name = 'client_connection_check_interval'"
        );
        // By itself: the end of the transaction would take it back.
        client.batch_execute(&check).await.map_err(at(&self.connection))?;
        client.batch_execute(begin).await.map_err(at(&self.connection))?;
        Ok(client)
    }
}

/// Ends the transaction, and keeps the connection for the next query.
async fn keep(idle: &Mutex<Vec<Client>>, client: Client) {
    if client.batch_execute("rollback").await.is_ok() {
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    }
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn tables(&self) -> Result<Vec<TableName>> {
        let client = self.begin().await?;
        let tables = list_tables(&client, &self.connection).await?;
        keep(&self.idle, client).await;
        Ok(tables)
    }

    async fn table(&self, name: &TableName) -> Result<DatabaseTable> {
        let client = self.begin().await?;
        let address = format!("{}.{name}", self.connection);
        let found = describe(&client, &address, name).await;
        keep(&self.idle, client).await;
        found
    }

    async fn query(&self, sql: &str, schema: &SchemaRef) -> Result<BatchStream> {
        let client = self.begin().await?;
        let copy = format!("copy ({sql}) to stdout (format binary)");
        let rows = client.copy_out(&copy).await.map_err(failed(&self.connection))?;
        let decoders = schema.fields().iter().map(|field| ColumnDecoder::new(field.data_type(), false));
        let answer = Rows {
            connection: self.connection.clone(),
            schema: Arc::clone(schema),
            decoders: decoders.collect::<Result<_>>()?,
            rows: Box::pin(rows),
            client,
            idle: Arc::clone(&self.idle),
            is_first: true,
        };
        Ok(Box::pin(futures::stream::try_unfold(Some(answer), |answer| async {
            match answer {
                Some(answer) => answer.next().await,
                None => Ok(None),
            }
        })))
    }
}

/// What a table looks like.
async fn describe(client: &Client, address: &str, name: &TableName) -> Result<DatabaseTable> {
    let table = table_of(client, address, name).await?;
    let columns = all_columns(client, address, &table.columns, &qualified(name)).await?;
    let about = client
        .query(
            "select a.attname, a.attcollation, c.reltuples::double precision from pg_catalog.pg_class c \
             join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 where c.oid = $1",
            &[&table.oid],
        )
        .await
        .map_err(at(address))?;
    let odd: HashSet<String> = about
        .iter()
        .filter(|row| row.get::<_, u32>(1) != 0 && !PLAIN_COLLATIONS.contains(&row.get(1)))
        .map(|row| row.get(0))
        .collect();
    // A view is never counted, and a new table is not yet.
    let rows = about.first().map(|row| row.get::<_, f64>(2)).filter(|rows| *rows > 0.0).map(|rows| rows as u64);
    let columns = columns.iter().map(|column| described(column, odd.contains(&column.name))).collect();
    Ok(DatabaseTable { sql: qualified(name), columns, rows })
}

fn described(column: &Column, odd_collation: bool) -> DatabaseColumn {
    let pg_type = &column.pg_type;
    let data_type = arrow_type(pg_type);
    let conversion = match pg_type.oid {
        // A number of any length is text here, and has to be that for the server too.
        oid::NUMERIC if data_type == DataType::Utf8 => "::text",
        oid::NAME => "::text",
        _ if pg_type.element == oid::NUMERIC && is_list_of_text(&data_type) => "::text[]",
        _ => conversion(pg_type),
    };
    let compares = match data_type {
        // Blanks at the end of a `char(n)` do not count for the server.
        DataType::Utf8 if odd_collation || pg_type.oid == oid::BPCHAR => Compares::Never,
        DataType::Utf8 => Compares::Equal,
        DataType::List(_) | DataType::Binary => Compares::Never,
        _ => Compares::Ordered,
    };
    let field = Field::new(&column.name, data_type, !column.not_null);
    DatabaseColumn { field, sql: quote(&column.name), conversion, compares }
}

fn is_list_of_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(item) if *item.data_type() == DataType::Utf8)
}

/// What Postgres says about a query, in words.
fn failed(connection: &str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    move |error| {
        let what = format!("the query to '{connection}'");
        if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
            let said = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
            return Error::invalid(format!("{what} would change the database ({said}); SQL only reads there"))
                .hint("a view or function that is used writes something: read the tables behind it")
                .caused_by(error);
        }
        explain(what, error)
    }
}

/// The rows of a query, on their way.
struct Rows {
    connection: String,
    schema: SchemaRef,
    decoders: Vec<ColumnDecoder>,
    rows: Pin<Box<CopyOutStream>>,
    client: Client,
    idle: Arc<Mutex<Vec<Client>>>,
    is_first: bool,
}

impl Rows {
    /// The next batch, and what remains.
    async fn next(mut self) -> Result<Option<(RecordBatch, Option<Self>)>> {
        let (mut rows, mut bytes, mut misfits) = (0, 0, Vec::new());
        let mut ended = false;
        while rows < limits::BATCH_ROWS && bytes < BATCH_BYTES {
            let Some(message) = self.rows.next().await else {
                ended = true;
                break;
            };
            let message: Bytes = message.map_err(failed(&self.connection))?;
            bytes += message.len();
            let mut rest: &[u8] = &message;
            if self.is_first {
                rest = rest.strip_prefix(HEADER).ok_or_else(broken)?;
                self.is_first = false;
            }
            while !rest.is_empty() && decode_row(&mut self.decoders, &mut rest, rows, &mut misfits)? {
                rows += 1;
            }
        }
        if let Some(misfit) = misfits.first() {
            return Err(self.misfit(misfit));
        }
        let columns = self.decoders.iter_mut().map(ColumnDecoder::finish).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        if !ended {
            return Ok(Some((batch, Some(self))));
        }
        let Self { client, idle, rows: stream, .. } = self;
        drop(stream);
        keep(&idle, client).await;
        Ok((rows > 0).then_some((batch, None)))
    }

    /// A null in its place would be another answer.
    fn misfit(&self, misfit: &Misfit) -> Error {
        let column = self.schema.fields().get(misfit.column).map_or("?", |field| field.name().as_str());
        Error::data(format!(
            "the query to '{}': the value '{}' of column '{column}' has no counterpart here",
            self.connection, misfit.value
        ))
        .hint("leave such rows out with a view in the database, or bring the table in with 'flumen ingest'")
    }
}
