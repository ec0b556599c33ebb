//! Parquet: read by row groups, and big row groups in parts, by all workers at once.
//!
//! Memory is bounded by the pages in hand, not by the row group. The footer stands at the end, so that a file from elsewhere
//! is fetched whole before its columns are known.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use flumen_core::read::{Input, RawBatch, ReadOptions, ReadRequest, Split, Splits};
use flumen_core::{Error, Result, limits};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;

use super::input::{FileInput, FileRows};
use super::{Format, plain};
use crate::blob::Blob;

/// The bytes at the beginning and at the end of a file.
const MAGIC: &[u8] = b"PAR1";
/// How pandas calls an index that it writes as a column.
const PANDAS_INDEX: &str = "__index_level_";

/// The format.
pub struct Parquet;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["parquet", "parq", "pq"]
    }

    fn recognizes(&self, head: &[u8]) -> bool {
        head.starts_with(MAGIC)
    }

    fn is_binary(&self) -> bool {
        true
    }

    fn streams(&self) -> bool {
        false
    }

    fn open(&self, blob: Arc<dyn Blob>, _: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        Ok(FileInput::only(ParquetInput::open(blob)?))
    }
}

/// One Parquet file.
struct ParquetInput {
    blob: Arc<dyn Blob>,
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    /// For each column of `schema`, its place among the file's own.
    roots: Vec<usize>,
    /// The columns of the file that are left out.
    dropped: Vec<String>,
}

impl ParquetInput {
    fn open(blob: Arc<dyn Blob>) -> Result<Self> {
        let path = blob.local_file()?;
        let broken = |error| broken(blob.address(), error);
        let file = File::open(&path).map_err(|error| Error::io(blob.address(), error))?;
        let loaded = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(broken)?;
        let options = ArrowReaderOptions::new().with_schema(wanted_schema(&loaded));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(loaded.metadata()), options).map_err(broken)?;
        let all = metadata.schema().fields();
        let (roots, gone): (Vec<usize>, Vec<usize>) =
            (0..all.len()).partition(|&column| !all[column].name().starts_with(PANDAS_INDEX));
        let schema = plain::plain_schema(&metadata.schema().project(&roots)?);
        let dropped = gone.iter().map(|&column| all[column].name().clone()).collect();
        Ok(Self { blob, path, metadata, schema, roots, dropped })
    }
}

/// The file's columns in plain types; timestamps of the old kind (Int96) in microseconds, which hold every year.
fn wanted_schema(loaded: &ArrowReaderMetadata) -> SchemaRef {
    let roots = loaded.parquet_schema().root_schema().get_fields();
    let fields = loaded.schema().fields().iter().enumerate().map(|(column, field)| {
        let old = roots
            .get(column)
            .is_some_and(|root| root.is_primitive() && root.get_physical_type() == PhysicalType::INT96);
        let data_type =
            if old { DataType::Timestamp(TimeUnit::Microsecond, None) } else { plain::plain(field.data_type()) };
        Field::new(field.name(), data_type, field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn broken(address: &str, error: ParquetError) -> Error {
    let text = error.to_string();
    let text = text.strip_prefix("Parquet error: ").unwrap_or(&text);
    let why = match &error {
        ParquetError::EOF(_) | ParquetError::NeedMoreData(_) => "its end is missing".to_owned(),
        _ if text.contains("Corrupt footer") || text.contains("Invalid Parquet file") => {
            "its footer is missing or damaged".to_owned()
        }
        _ => text.to_owned(),
    };
    Error::data(format!("{address} is no whole Parquet file: {why}"))
        .hint("download or copy the file again")
        .caused_by(error)
}

impl FileRows for ParquetInput {
    fn blob(&self) -> &Arc<dyn Blob> {
        &self.blob
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn warnings(&self) -> Vec<String> {
        let dropped = |name: &String| format!("{}: the pandas index {name} is left out", self.blob.address());
        self.dropped.iter().map(dropped).collect()
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        let wanted: Vec<usize> = request.columns.iter().map(|column| self.roots[column.index]).collect();
        // The reader gives the columns in the file's order.
        let mut in_file = wanted.clone();
        in_file.sort_unstable();
        in_file.dedup();
        let order = wanted.iter().filter_map(|root| in_file.binary_search(root).ok()).collect();
        Ok(Arc::new(ParquetSplits {
            address: self.blob.address().to_owned(),
            path: self.path.clone(),
            mask: ProjectionMask::roots(self.metadata.parquet_schema(), in_file),
            order,
            metadata: self.metadata.clone(),
            parts: parts(&self.metadata),
            stored: self.blob.size(),
            next: AtomicUsize::new(0),
            rows_given: AtomicU64::new(0),
        }))
    }

    fn parquet_file(&self) -> Option<PathBuf> {
        self.dropped.is_empty().then(|| self.path.clone())
    }
}

/// Some rows of one row group.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    row_group: usize,
    skip: usize,
    rows: usize,
    /// The number of the first of them in the file, from 1.
    first_row: u64,
}

/// Big row groups are read in parts: a file of one row group would keep one core busy and the others idle.
fn parts(metadata: &ArrowReaderMetadata) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut first_row = 1;
    for (row_group, about) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = usize::try_from(about.num_rows()).unwrap_or(0);
        let pieces = rows.div_ceil(limits::PARQUET_SPLIT_ROWS).max(1);
        let each = rows.div_ceil(pieces).next_multiple_of(limits::BATCH_ROWS);
        let mut skip = 0;
        while skip < rows {
            let taken = each.min(rows - skip);
            parts.push(Part { row_group, skip, rows: taken, first_row });
            skip += taken;
            first_row += taken as u64;
        }
    }
    parts
}

struct ParquetSplits {
    address: String,
    path: PathBuf,
    mask: ProjectionMask,
    order: Vec<usize>,
    metadata: ArrowReaderMetadata,
    parts: Vec<Part>,
    stored: Option<u64>,
    next: AtomicUsize,
    rows_given: AtomicU64,
}

impl Splits for ParquetSplits {
    fn next(&self) -> Result<Option<Box<dyn Split>>> {
        let Some(part) = self.parts.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return Ok(None) };
        let file = File::open(&self.path).map_err(|error| Error::io(&self.address, error))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(self.mask.clone())
            .with_row_groups(vec![part.row_group])
            .with_batch_size(limits::BATCH_ROWS);
        let whole = self.metadata.metadata().row_group(part.row_group).num_rows();
        let builder = if usize::try_from(whole).is_ok_and(|rows| rows == part.rows) {
            builder
        } else {
            builder.with_row_selection(RowSelection::from(vec![
                RowSelector::skip(part.skip),
                RowSelector::select(part.rows),
            ]))
        };
        let reader = builder.build().map_err(|error| broken(&self.address, error))?;
        let schema = plain::plain_schema(&reader.schema().project(&self.order)?);
        self.rows_given.fetch_add(part.rows as u64, Ordering::Relaxed);
        Ok(Some(Box::new(ParquetSplit {
            address: self.address.clone(),
            reader,
            order: self.order.clone(),
            schema,
            next_row: part.first_row,
        })))
    }

    fn bytes_read(&self) -> u64 {
        // Columns lie apart in the file, so bytes are reckoned from rows.
        let all = self.metadata.metadata().file_metadata().num_rows().max(1) as f64;
        let given = self.rows_given.load(Ordering::Relaxed) as f64;
        (self.stored.unwrap_or(0) as f64 * (given / all)) as u64
    }
}

struct ParquetSplit {
    address: String,
    reader: ParquetRecordBatchReader,
    order: Vec<usize>,
    schema: SchemaRef,
    next_row: u64,
}

impl Split for ParquetSplit {
    fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let damaged = |error: arrow::error::ArrowError| {
            Error::data(format!("{} is damaged after row {}: {error}", self.address, self.next_row - 1))
                .hint("download or copy the file again")
                .caused_by(error)
        };
        let batch: RecordBatch = batch.and_then(|batch| batch.project(&self.order)).map_err(damaged)?;
        let batch = plain::to_plain(&batch, &self.schema)?;
        let first = self.next_row;
        self.next_row += batch.num_rows() as u64;
        Ok(Some(RawBatch::good(batch, first)))
    }
}
