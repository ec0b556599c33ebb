//! Tables and queries of a Postgres database.
//!
//! What always holds: all rows of one reading belong to one snapshot, whatever others write meanwhile; a big table is
//! read over several connections at once, each a range of its pages; memory holds a batch a worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use flumen_core::dataset::TableName;
use flumen_core::load::{Cursor, FileIdentity};
use flumen_core::read::{Input, Misfit, RawBatch, ReadOptions, ReadRequest, RowNumbers, Source, Split, Splits};
use flumen_core::{Error, Result, limits};
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio_postgres::{Client, CopyOutStream};

use crate::postgres::catalog::{Column, Table, qualified, read_table};
use crate::postgres::connect::{Connect, connect_patiently};
use crate::postgres::decode::{ColumnDecoder, broken, take_i32};
use crate::postgres::encode::HEADER;
use crate::postgres::error::{at, explain};
use crate::postgres::types::{PgType, oid};
use crate::postgres::{literal, quote};

/// Pages of a table that one connection reads at a time: 32 MB.
const SPLIT_PAGES: i64 = 4096;
/// Bytes of rows after which a batch ends, however few they are.
pub(crate) const BATCH_BYTES: usize = 8 << 20;

/// One Postgres database, as a source.
pub struct PostgresSource {
    connector: Arc<dyn Connect>,
}

impl PostgresSource {
    /// The database that `connector` reaches.
    pub fn new(connector: Arc<dyn Connect>) -> Self {
        Self { connector }
    }
}

#[async_trait]
impl Source for PostgresSource {
    /// The table at `address`, whose last two parts are schema and table (`pg.public.trips`); or, where the options have
    /// a query, its rows under that address.
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        let client = connect(self.connector.as_ref(), address).await?;
        let mut input = match &options.query {
            Some(query) => from_query(&client, address, query).await?,
            None => from_table(&client, address).await?,
        };
        if let Some(cursor) = &options.cursor {
            (input.condition, input.cursor) = above(&client, &input, cursor, options.lag.as_deref()).await?;
        }
        Ok(vec![Arc::new(PostgresInput {
            connector: Arc::clone(&self.connector),
            runtime: Handle::current(),
            schema: input.schema(),
            what: input,
        })])
    }
}

/// A session in which values are written as they are read here.
pub(crate) async fn connect(connector: &dyn Connect, address: &str) -> Result<Client> {
    let client = connect_patiently(connector, limits::RETRY_DELAY_MAX).await?;
    let settings = "set application_name = 'flumen'; set timezone = 'UTC'; set datestyle = 'ISO'; \
                    set intervalstyle = 'postgres'; set extra_float_digits = 3; set statement_timeout = 0; \
                    set idle_in_transaction_session_timeout = 0";
    client.batch_execute(settings).await.map_err(at(address))?;
    Ok(client)
}

/// What is read.
struct What {
    address: String,
    /// What stands behind `from`.
    from: String,
    columns: Vec<Column>,
    /// The size of a plain table, in pages and bytes: it can be read in ranges of pages.
    size: Option<(i64, u64)>,
    /// `where …`, or nothing.
    condition: String,
    cursor: Option<Cursor>,
}

impl What {
    fn schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name, arrow_type(&column.pg_type), !column.not_null);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }
}

/// The Arrow type of a column. Decimals of more than 38 digits come as text.
pub(crate) fn arrow_type(pg_type: &PgType) -> DataType {
    match pg_type.arrow() {
        DataType::Decimal256(..) => DataType::Utf8,
        DataType::List(item) if matches!(item.data_type(), DataType::Decimal256(..)) => {
            DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)))
        }
        other => other,
    }
}

/// Whether values of the type come in the binary form that its decoder takes. All others come as text.
fn is_native(number: u32) -> bool {
    matches!(
        number,
        oid::BOOL
            | oid::INT2
            | oid::INT4
            | oid::INT8
            | oid::FLOAT4
            | oid::FLOAT8
            | oid::NUMERIC
            | oid::TEXT
            | oid::VARCHAR
            | oid::BPCHAR
            | oid::NAME
            | oid::BYTEA
            | oid::DATE
            | oid::TIME
            | oid::TIMESTAMP
            | oid::TIMESTAMPTZ
    )
}

fn is_numeric(pg_type: &PgType) -> bool {
    pg_type.oid == oid::NUMERIC || pg_type.element == oid::NUMERIC
}

/// The column in the list of a select.
fn selected(column: &Column) -> String {
    format!("{}{}", quote(&column.name), conversion(&column.pg_type))
}

/// What stands behind a column of the type so that its values come in a form that is read here.
pub(crate) fn conversion(pg_type: &PgType) -> &'static str {
    match pg_type.element {
        0 if pg_type.oid == oid::OID => "::bigint",
        0 if is_native(pg_type.oid) => "",
        0 => "::text",
        element if is_native(element) => "",
        oid::OID => "::bigint[]",
        _ => "::text[]",
    }
}

async fn from_table(client: &Client, address: &str) -> Result<What> {
    let mut parts = address.rsplitn(3, '.');
    let table = parts.next().unwrap_or_default();
    let name = TableName { namespace: parts.next().unwrap_or("public").to_owned(), table: table.to_owned() };
    let table = table_of(client, address, &name).await?;
    let mut size = None;
    if matches!(table.kind, 'r' | 'm') {
        let row = client
            .query_one(
                "select pg_catalog.pg_relation_size($1::oid) / current_setting('block_size')::bigint, \
                        pg_catalog.pg_table_size($1::oid), current_setting('server_version_num')::int >= 140000",
                &[&table.oid],
            )
            .await
            .map_err(at(address))?;
        // Older servers read the whole table for every range of pages.
        let (pages, bytes, ranges): (i64, i64, bool) = (row.get(0), row.get(1), row.get(2));
        size = Some((if ranges { pages } else { 0 }, bytes.unsigned_abs()));
    }
    let columns = all_columns(client, address, &table.columns, &qualified(&name)).await?;
    Ok(What {
        address: address.to_owned(),
        from: qualified(&name),
        columns,
        size,
        condition: String::new(),
        cursor: None,
    })
}

/// What the catalog says about a table.
///
/// Errors: `NotFound`, with the nearest name.
pub(crate) async fn table_of(client: &Client, address: &str, name: &TableName) -> Result<Table> {
    if let Some(table) = read_table(client, name).await? {
        return Ok(table);
    }
    let near = list_tables(client, address).await?;
    let near: Vec<String> = near.iter().map(ToString::to_string).collect();
    Err(Error::not_found(format!("{address}: there is no table {name}"))
        .hint("check the names, and the connection")
        .did_you_mean(&name.to_string(), near.iter().map(String::as_str)))
}

/// The tables and views of the database, sorted, without those about itself.
pub(crate) async fn list_tables(client: &Client, address: &str) -> Result<Vec<TableName>> {
    let rows = client
        .query(
            "select n.nspname, c.relname from pg_catalog.pg_class c \
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname not in ('pg_catalog', 'information_schema') \
               and n.nspname not like 'pg\\_temp\\_%' and n.nspname not like 'pg\\_toast%' \
             order by 1, 2 limit 10000",
            &[],
        )
        .await
        .map_err(at(address))?;
    Ok(rows.iter().map(|row| TableName { namespace: row.get(0), table: row.get(1) }).collect())
}

/// The columns of `known`, and those that the server computes: they are read like the others.
pub(crate) async fn all_columns(client: &Client, address: &str, known: &[Column], from: &str) -> Result<Vec<Column>> {
    let statement = client.prepare(&format!("select * from {from}")).await.map_err(at(address))?;
    let found = statement.columns().iter().map(|column| {
        known.iter().find(|one| one.name == column.name()).cloned().unwrap_or_else(|| from_statement(column))
    });
    Ok(found.collect())
}

fn from_statement(column: &tokio_postgres::Column) -> Column {
    use tokio_postgres::types::Kind;
    let mut kind = column.type_();
    while let Kind::Domain(base) = kind.kind() {
        kind = base;
    }
    let element = match kind.kind() {
        Kind::Array(item) => item.oid(),
        _ => 0,
    };
    let is_text = matches!(kind.kind(), Kind::Enum(_));
    Column {
        name: column.name().to_owned(),
        pg_type: PgType { oid: kind.oid(), modifier: column.type_modifier(), element, is_text },
        sql_type: column.type_().name().to_owned(),
        not_null: false,
        identity: false,
    }
}

async fn from_query(client: &Client, address: &str, query: &str) -> Result<What> {
    let query = query.trim().trim_end_matches(';');
    let from = format!("(\n{query}\n) as q");
    let wrong = |error| explain(format!("{address}: the query"), error);
    let statement = client.prepare(&format!("select * from {from}")).await.map_err(wrong)?;
    let columns: Vec<Column> = statement.columns().iter().map(from_statement).collect();
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = columns.iter().find(|column| !seen.insert(&column.name)) {
        return Err(Error::invalid(format!("{address}: the query has two columns called '{}'", twice.name))
            .hint("give one of them another name: select … as …"));
    }
    Ok(What { address: address.to_owned(), from, columns, size: None, condition: String::new(), cursor: None })
}

/// The condition that leaves only what is newer than the cursor, and the cursor after it.
async fn above(client: &Client, what: &What, cursor: &Cursor, lag: Option<&str>) -> Result<(String, Option<Cursor>)> {
    let address = &what.address;
    let column = what.columns.iter().find(|column| column.name == cursor.column).ok_or_else(|| {
        Error::invalid(format!("{address}: there is no column '{}' for the cursor", cursor.column))
            .did_you_mean(&cursor.column, what.columns.iter().map(|column| column.name.as_str()))
    })?;
    let (name, sql_type) = (quote(&column.name), &column.sql_type);
    let last = format!("{}::{sql_type}", literal(&cursor.value));
    let newer = match lag {
        _ if cursor.value.is_empty() => "true".to_owned(),
        None => format!("{name} > {last}"),
        Some(lag) => {
            let kind = match column.pg_type.oid {
                oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::DATE | oid::TIME => "interval",
                _ => sql_type,
            };
            format!("{name} >= {last} - {}::{kind}", literal(lag))
        }
    };
    let highest = client
        .query_one(&format!("select max({name})::text from {} where {newer}", what.from), &[])
        .await
        .map_err(|error| explain(format!("{address}: the cursor '{}'", cursor.column), error))?
        .get::<_, Option<String>>(0);
    Ok(match highest {
        // What arrives above this while rows are read belongs to the next load.
        Some(highest) => (
            format!("where {newer} and {name} <= {}::{sql_type}", literal(&highest)),
            Some(Cursor { column: cursor.column.clone(), value: highest }),
        ),
        None => ("where false".to_owned(), Some(cursor.clone()).filter(|cursor| !cursor.value.is_empty())),
    })
}

/// A table or a query.
struct PostgresInput {
    connector: Arc<dyn Connect>,
    runtime: Handle,
    schema: SchemaRef,
    what: What,
}

impl Input for PostgresInput {
    fn address(&self) -> &str {
        &self.what.address
    }

    fn identity(&self) -> Result<FileIdentity> {
        Ok(FileIdentity { address: self.what.address.clone(), validator: None })
    }

    fn bytes(&self) -> Option<u64> {
        self.what.size.map(|(_, bytes)| bytes).filter(|_| self.what.condition.is_empty())
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn is_text(&self) -> bool {
        false
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        let what = &self.what;
        let fields: Vec<_> = request.columns.iter().map(|wanted| self.schema.field(wanted.index).clone()).collect();
        let columns: Vec<&Column> = request.columns.iter().map(|wanted| &what.columns[wanted.index]).collect();
        let list = match columns.iter().map(|column| selected(column)).collect::<Vec<_>>().join(", ") {
            // A count of rows needs no column, but the server sends none without one.
            none if none.is_empty() => "true".to_owned(),
            some => some,
        };
        let pages = what.size.map_or(0, |(pages, _)| pages);
        let pieces = (pages / SPLIT_PAGES).max(1);
        let ranges = (0..pieces)
            .map(|piece| {
                if pieces == 1 {
                    return what.condition.clone();
                }
                let mut range = format!("ctid >= '({},0)'::tid", piece * SPLIT_PAGES);
                if piece + 1 < pieces {
                    range.push_str(&format!(" and ctid < '({},0)'::tid", (piece + 1) * SPLIT_PAGES));
                }
                match what.condition.strip_prefix("where ") {
                    Some(condition) => format!("where {range} and ({condition})"),
                    None => format!("where {range}"),
                }
            })
            .map(|condition| format!("copy (select {list} from {} {condition}) to stdout (format binary)", what.from))
            .rev()
            .collect::<Vec<_>>();
        let reading = Reading {
            connector: Arc::clone(&self.connector),
            runtime: self.runtime.clone(),
            address: what.address.clone(),
            schema: Arc::new(Schema::new(fields)),
            numeric: columns.iter().map(|column| is_numeric(&column.pg_type)).collect(),
            snapshot: if ranges.len() > 1 { Some(self.export_snapshot()?) } else { None },
            todo: Mutex::new(ranges),
            idle: Mutex::new(Vec::new()),
            bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        };
        Ok(Arc::new(SharedReading(Arc::new(reading))))
    }

    fn cursor(&self) -> Option<Cursor> {
        self.what.cursor.clone()
    }
}

impl PostgresInput {
    /// A connection that holds a snapshot, and the name under which others can share it.
    fn export_snapshot(&self) -> Result<(Client, String)> {
        let address = &self.what.address;
        self.runtime.block_on(async {
            let client = connect(self.connector.as_ref(), address).await?;
            client.batch_execute("begin isolation level repeatable read read only").await.map_err(at(address))?;
            let row = client.query_one("select pg_catalog.pg_export_snapshot()", &[]).await.map_err(at(address))?;
            let name = row.get(0);
            Ok((client, name))
        })
    }
}

/// One reading, shared by the workers.
struct Reading {
    connector: Arc<dyn Connect>,
    runtime: Handle,
    address: String,
    schema: SchemaRef,
    numeric: Vec<bool>,
    /// Kept open until the end: the snapshot lives as long as its transaction.
    snapshot: Option<(Client, String)>,
    todo: Mutex<Vec<String>>,
    /// Connections that wait for the next range.
    idle: Mutex<Vec<Client>>,
    bytes: AtomicU64,
    rows: AtomicU64,
    failed: AtomicBool,
}

struct SharedReading(Arc<Reading>);

impl Splits for SharedReading {
    fn next(&self) -> Result<Option<Box<dyn Split>>> {
        let reading = &self.0;
        if reading.failed.load(Ordering::Acquire) {
            return Ok(None);
        }
        let Some(copy) = reading.todo.lock().unwrap_or_else(PoisonError::into_inner).pop() else { return Ok(None) };
        let decoders = reading
            .schema
            .fields()
            .iter()
            .zip(&reading.numeric)
            .map(|(field, numeric)| ColumnDecoder::new(field.data_type(), *numeric))
            .collect::<Result<_>>()?;
        Ok(Some(Box::new(Range { reading: Arc::clone(reading), copy: Some(copy), rows: None, client: None, decoders })))
    }

    fn bytes_read(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

/// A range of pages, or all of a query.
struct Range {
    reading: Arc<Reading>,
    copy: Option<String>,
    rows: Option<std::pin::Pin<Box<CopyOutStream>>>,
    client: Option<Client>,
    decoders: Vec<ColumnDecoder>,
}

impl Split for Range {
    fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        let reading = Arc::clone(&self.reading);
        let batch = reading.runtime.block_on(self.read_batch());
        if batch.is_err() {
            reading.failed.store(true, Ordering::Release);
        }
        batch
    }
}

impl Range {
    async fn begin(&mut self, copy: &str) -> Result<()> {
        let reading = &self.reading;
        let waiting = reading.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let client = match waiting {
            Some(client) => client,
            None => {
                let client = connect(reading.connector.as_ref(), &reading.address).await?;
                let mut begin = "begin isolation level repeatable read read only".to_owned();
                if let Some((_, name)) = &reading.snapshot {
                    begin.push_str(&format!("; set transaction snapshot {}", literal(name)));
                }
                client.batch_execute(&begin).await.map_err(at(&reading.address))?;
                client
            }
        };
        let stream = client.copy_out(copy).await.map_err(at(&reading.address))?;
        self.rows = Some(Box::pin(stream));
        self.client = Some(client);
        Ok(())
    }

    async fn read_batch(&mut self) -> Result<Option<RawBatch>> {
        let mut is_first = false;
        if let Some(copy) = self.copy.take() {
            self.begin(&copy).await?;
            is_first = true;
        }
        let Some(stream) = &mut self.rows else { return Ok(None) };
        let (mut rows, mut bytes, mut misfits) = (0, 0, Vec::new());
        let mut ended = false;
        while rows < limits::BATCH_ROWS && bytes < BATCH_BYTES {
            let Some(message) = stream.next().await else {
                ended = true;
                break;
            };
            let message: Bytes = message.map_err(at(&self.reading.address))?;
            bytes += message.len();
            let mut rest: &[u8] = &message;
            if is_first {
                rest = rest.strip_prefix(HEADER).ok_or_else(broken)?;
                is_first = false;
            }
            while !rest.is_empty() && decode_row(&mut self.decoders, &mut rest, rows, &mut misfits)? {
                rows += 1;
            }
        }
        if ended {
            self.rows = None;
            if let Some(client) = self.client.take() {
                self.reading.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
            }
        }
        self.reading.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if rows == 0 {
            return Ok(None);
        }
        let columns = self.decoders.iter_mut().map(ColumnDecoder::finish).collect::<Result<_>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.reading.schema), columns, &options)?;
        // A table has no order: the numbers tell rows apart, no more.
        let first = self.reading.rows.fetch_add(rows as u64, Ordering::Relaxed) + 1;
        Ok(Some(RawBatch { batch, rows: RowNumbers::From(first), misfits, bad: Vec::new() }))
    }
}

/// Decodes one row off the front of `bytes`. False: this was the end mark.
pub(crate) fn decode_row(
    decoders: &mut [ColumnDecoder],
    bytes: &mut &[u8],
    row: usize,
    misfits: &mut Vec<Misfit>,
) -> Result<bool> {
    let (count, rest) = bytes.split_first_chunk::<2>().ok_or_else(broken)?;
    *bytes = rest;
    let count = i16::from_be_bytes(*count);
    if count < 0 {
        return Ok(false);
    }
    if decoders.is_empty() {
        *bytes = &[];
        return Ok(true);
    }
    for (column, decoder) in decoders.iter_mut().enumerate() {
        match usize::try_from(take_i32(bytes)?) {
            Ok(length) => {
                if let Some(value) = decoder.append(bytes.get(..length).ok_or_else(broken)?)? {
                    misfits.push(Misfit { row, column, line: None, value });
                }
                *bytes = &bytes[length..];
            }
            Err(_) => decoder.append_null(),
        }
    }
    Ok(true)
}
