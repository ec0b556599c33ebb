//! The seam for writing: a [`Sink`] is one destination; a [`LoadSession`] is one load into it, written by several
//! threads and then committed as one, or not at all.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;

use crate::error::Result;
use crate::load::{Committed, LoadId, LoadRecord, LoadRequest};

/// One destination: a lake table, a Postgres table, a file.
///
/// The order is: [`Sink::state`], [`Sink::known`], [`Sink::begin`], writers, quarantine, commit. Nothing that was written
/// is visible before [`LoadSession::commit`] returns, and all of it is then.
#[async_trait]
pub trait Sink: Send + Sync {
    /// The destination's address, as the user knows it.
    fn address(&self) -> String;

    /// What is there now. `None` if nothing is.
    async fn state(&self) -> Result<Option<TableState>>;

    /// For each of `files`: whether the ledger has it.
    async fn known(&self, files: &[LoadId]) -> Result<Vec<bool>>;

    /// The loads in the ledger, the latest first, no more than `limit`.
    async fn loads(&self, limit: usize) -> Result<Vec<LedgerEntry>>;

    /// How often the ledger has seen this load committed, whether it was taken back since or not.
    async fn times_loaded(&self, load: &LoadId) -> Result<usize> {
        let loads = self.loads(usize::MAX).await?;
        Ok(loads.iter().filter(|entry| entry.record.load == *load).count())
    }

    /// Takes a load back, in one commit: the table is as if it had never been. `at` is the undoing's own record.
    async fn undo(&self, load: &LoadId, record: &LoadRecord) -> Result<Committed>;

    /// Begins a load. Leftovers of an earlier attempt at the same load are swept away first.
    ///
    /// Errors: `Conflict` if the same load is running elsewhere, `Invalid` if the mode cannot be done here.
    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn LoadSession>>;

    /// Whether rows carry the `_flumen_*` columns unless it is said otherwise.
    fn lineage_by_default(&self) -> bool;

    /// The type as which the destination keeps a column of `data_type`, as `docs/types.md` lists them: the rows of a load come
    /// in these types. Null stays Null: the pipeline leaves such a column out.
    ///
    /// Errors: `Invalid` for a type that cannot be kept without loss, with the remedy.
    fn stored_type(&self, data_type: &DataType) -> Result<DataType>;
}

/// What a destination holds before a load.
#[derive(Debug, Clone)]
pub struct TableState {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its version, where versions are counted.
    pub version: Option<u64>,
    /// The columns it is partitioned by.
    pub partition_by: Vec<String>,
}

/// A load in a destination's ledger.
#[derive(Debug, Clone)]
pub struct LedgerEntry {
    /// What was loaded.
    pub record: LoadRecord,
    /// When it was committed.
    pub committed: chrono::DateTime<chrono::Utc>,
    /// The version that the commit made, where versions are counted.
    pub version: Option<u64>,
    /// Whether it was taken back since.
    pub undone: bool,
}

/// One load on its way. Dropped without commit or abort, it leaves nothing visible.
#[async_trait]
pub trait LoadSession: Send + Sync {
    /// A writer for one thread. Each worker makes its own.
    fn writer(&self) -> Result<Box<dyn BatchWriter>>;

    /// Whether a Parquet file with `schema` (its physical columns) could be taken over as it is.
    fn takes_over(&self, schema: &SchemaRef) -> bool {
        let _ = schema;
        false
    }

    /// Takes over the Parquet file at `path` without encoding it again. Returns its rows.
    fn take_over(&self, path: &std::path::Path) -> Result<u64> {
        let _ = path;
        Err(crate::error::Error::internal("this destination takes no files over"))
    }

    /// Writes rows of [`quarantine_schema`] to the destination's quarantine, durably, once: a second call for the same
    /// load replaces what the first one wrote. Called before commit, and also before a load fails. They may be more than
    /// fit in memory: each batch is taken when there is room for it.
    async fn quarantine(&self, rows: RefusedRows) -> Result<()>;

    /// Makes everything that the writers finished visible, in one step, together with `record` and the fencing number.
    async fn commit(self: Box<Self>, record: &LoadRecord) -> Result<Committed>;

    /// Removes what was written.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// Rows for a quarantine, a batch at a time. Taking one may read the local disk.
pub type RefusedRows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Writes the batches of one worker. Everything blocks.
pub trait BatchWriter: Send {
    /// Writes a batch with the columns of [`LoadRequest::schema`].
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Ends well: what was written belongs to the load, and waits for its commit.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// The columns of every quarantine table.
pub fn quarantine_schema() -> SchemaRef {
    use arrow::datatypes::{Field, Schema, TimeUnit};
    std::sync::Arc::new(Schema::new(vec![
        Field::new("load", DataType::Utf8, false),
        Field::new("file", DataType::Utf8, false),
        Field::new("row", DataType::Int64, false),
        Field::new("line", DataType::Int64, true),
        Field::new("column", DataType::Utf8, true),
        Field::new("value", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("action", DataType::Utf8, false),
        Field::new("record", DataType::Utf8, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]))
}

/// How a file is to be written, where its name does not tell, or not all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The format's name (`csv`, `ndjson`, `parquet`, …), where the name does not tell.
    pub format: Option<String>,
    /// The packing (`gzip`, `zstd`, `bzip2`, `xz`, `none`), likewise.
    pub compression: Option<String>,
    /// CSV: the delimiter; a comma by default.
    pub delimiter: Option<u8>,
    /// CSV: the quote; `"` by default.
    pub quote: Option<u8>,
    /// CSV: whether the first row has the names; it has by default.
    pub header: Option<bool>,
    /// CSV: what stands for null; nothing by default.
    pub null: Option<String>,
}
