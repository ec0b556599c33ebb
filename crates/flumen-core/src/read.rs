//! The seam for reading: an [`Input`] is one file, table, query or stream; its [`Splits`] are the pieces in which
//! worker threads read it, all at once.
//!
//! Rows travel as Arrow record batches. What does not fit the wanted columns travels beside them, as [`BadRow`]s and
//! [`Misfit`]s: a reader never decides what becomes of it. That is the contract's work.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::load::{Cursor, FileIdentity};
use crate::text::TextOptions;

/// Where rows come from: a local folder, a web server, a bucket, a database.
///
/// Errors: `NotFound` when the address names nothing, `Unavailable` when the system behind it does not answer.
#[async_trait]
pub trait Source: Send + Sync {
    /// The inputs at `address` (which may be a pattern), in a stable order. Nothing but their beginnings is read.
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>>;
}

/// Reads files for those who know nothing about files: how the SQL engine gets at `'data/*.csv'`.
#[async_trait]
pub trait FileReader: Send + Sync {
    /// The inputs that `address` (a path, pattern or URL) stands for.
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>>;

    /// The inputs of an external table at `address`. Whoever made the table was allowed to read them: a reader that keeps its
    /// callers from addresses need not keep them from this one.
    async fn open_registered(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        self.open(address, options).await
    }

    /// The address that an external table of `format` keeps when it is made over `location`, for readers in other folders.
    ///
    /// Errors: `Invalid` for a location over which none can be made from here.
    fn register(&self, location: &str, _format: &str) -> Result<String> {
        if location.contains("://") || location.starts_with('/') {
            return Ok(location.to_owned());
        }
        Ok(std::path::absolute(location).map_err(|error| Error::io(location, error))?.display().to_string())
    }
}

/// One file, table, query or stream. It can be read more than once.
pub trait Input: Send + Sync {
    /// Its path or URL, for messages and `_flumen_file`, without credentials.
    fn address(&self) -> &str;

    /// How it is told from another version of itself. Blocking: may read the whole file to hash it.
    fn identity(&self) -> Result<FileIdentity>;

    /// That the rows which were read are those of one version of it, the one that was opened and identified. Asked when
    /// everything was read. Blocking.
    ///
    /// Errors: `Conflict` if it has changed since it was opened.
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    /// Its size in bytes as stored, if known: for progress.
    fn bytes(&self) -> Option<u64>;

    /// Its columns, as it names them, in its order, with the types that the file declares or, for text, that a sample
    /// of it suggests. Null means: no opinion.
    fn schema(&self) -> &SchemaRef;

    /// Whether the types in [`Input::schema`] are guesses from a sample of text. They may turn out too narrow.
    fn is_text(&self) -> bool;

    /// What was found odd on opening (a name twice, blank lines), one sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Begins to read.
    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>>;

    /// The Parquet file on the local disk that it is, if it is one. Where folders give it no columns, it may be taken over.
    fn parquet_file(&self) -> Option<std::path::PathBuf> {
        None
    }

    /// The values, one row each, that the folders of its path give to all of its rows (`year=2024/`): those of the last columns
    /// of its schema.
    fn folder_values(&self) -> &[ArrayRef] {
        &[]
    }

    /// For an incremental input: the cursor after everything in it has been read.
    fn cursor(&self) -> Option<Cursor> {
        None
    }
}

/// The wanted columns of one input: index into [`Input::schema`], and the type in which it is wanted.
///
/// A text format parses straight into the type. A typed format gives its own type, whatever is asked: the contract
/// casts it.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The columns, in the order in which they shall come.
    pub columns: Vec<WantedColumn>,
}

impl ReadRequest {
    /// All columns of `schema`, as it has them.
    pub fn all(schema: &SchemaRef) -> Self {
        let wanted = |(index, field): (usize, &Arc<arrow::datatypes::Field>)| WantedColumn {
            index,
            data_type: field.data_type().clone(),
        };
        Self { columns: schema.fields().iter().enumerate().map(wanted).collect() }
    }
}

/// One wanted column.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedColumn {
    /// Its place in [`Input::schema`].
    pub index: usize,
    /// The type that a text format shall parse it into. Null stands for text that nobody has an opinion about yet.
    pub data_type: DataType,
}

/// One reading of an input, in pieces. Shared by the worker threads; everything blocks.
pub trait Splits: Send + Sync {
    /// The next piece, or `None` when all have been handed out. Cheap enough to be called under contention: the work is
    /// in the piece.
    fn next(&self) -> Result<Option<Box<dyn Split>>>;

    /// Bytes of the input (as stored) that have been consumed so far: for progress.
    fn bytes_read(&self) -> u64;

    /// One sentence for each thing that was odd and was put right on the way. Complete when all pieces are read.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A piece of an input: a block of text, a row group. Read by one thread, from its first batch to its last.
pub trait Split: Send {
    /// The next batch, or `None` at the end.
    fn next_batch(&mut self) -> Result<Option<RawBatch>>;
}

/// Rows as they were read, with what did not fit.
#[derive(Debug, Clone)]
pub struct RawBatch {
    /// The rows whose shape is right, with the columns of the request. A value that did not fit its type is null here.
    pub batch: RecordBatch,
    /// The rows' numbers in the file, from 1.
    pub rows: RowNumbers,
    /// The values that did not fit, in order of rows.
    pub misfits: Vec<Misfit>,
    /// The rows whose shape is wrong (too few fields, say). They are not in `batch`.
    pub bad: Vec<BadRow>,
}

impl RawBatch {
    /// A batch from a format that has no bad rows, beginning with row `first`.
    pub fn good(batch: RecordBatch, first: u64) -> Self {
        Self { batch, rows: RowNumbers::From(first), misfits: Vec::new(), bad: Vec::new() }
    }

    /// How many rows were read, bad ones included.
    pub fn rows_read(&self) -> u64 {
        (self.batch.num_rows() + self.bad.len()) as u64
    }
}

/// The numbers of a batch's rows in their file, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowNumbers {
    /// One after the other, from this on.
    From(u64),
    /// These.
    List(Vec<u64>),
}

impl RowNumbers {
    /// The number of the row at `index` of the batch.
    pub fn at(&self, index: usize) -> u64 {
        match self {
            RowNumbers::From(first) => first + index as u64,
            RowNumbers::List(rows) => rows[index],
        }
    }
}

/// A value that did not fit the wanted type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The row's index in the batch.
    pub row: usize,
    /// The column's index in the batch.
    pub column: usize,
    /// The line in the file, from 1, for a text format.
    pub line: Option<u64>,
    /// The value as it stands in the file.
    pub value: String,
}

/// A row that cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Its number in the file, from 1.
    pub row: u64,
    /// Its line in the file, from 1, for a text format.
    pub line: Option<u64>,
    /// The column at fault, if one is.
    pub column: Option<String>,
    /// What is wrong with it: `has 3 fields, the header has 18`.
    pub reason: String,
    /// The value at fault, if one is.
    pub value: Option<String>,
    /// The row as it stands in the file (JSON, where the file is not text).
    pub record: String,
}

/// How files are to be read, where they do not say it themselves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadOptions {
    /// The format's name (`csv`, `ndjson`, `parquet`, …), where the name and the bytes do not tell.
    pub format: Option<String>,
    /// The packing (`gzip`, `zstd`, `bzip2`, `xz`, `none`), likewise.
    pub compression: Option<String>,
    /// The encoding (`utf-8`, `utf-16le`, `utf-16be`, `latin-1`), likewise.
    pub encoding: Option<String>,
    /// CSV: the delimiter.
    pub delimiter: Option<u8>,
    /// CSV: the quote. `Some(None)` means that there is none.
    pub quote: Option<Option<u8>>,
    /// CSV: whether the first row has the names; found out by default.
    pub header: Option<bool>,
    /// CSV: lines to leave out before the header.
    pub skip_lines: usize,
    /// What text means: null tokens, date and number formats.
    pub text: TextOptions,
    /// JSON: nested values become columns of their own, `a.b` as `a_b`.
    pub flatten: bool,
    /// Columns that folders give (`zip=01/`) and that are text, whatever their values look like.
    pub folder_text: Vec<String>,
    /// Excel: the sheet, by name; the first by default.
    pub sheet: Option<String>,
    /// Postgres: an incremental load's column, and the value above which rows are wanted.
    pub cursor: Option<Cursor>,
    /// Postgres: how much before the cursor's value is read again, as a Postgres interval or a number.
    pub lag: Option<String>,
    /// Postgres: a query in place of a table.
    pub query: Option<String>,
}
