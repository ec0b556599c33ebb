//! JSON: objects one a line (NDJSON), one after the other, or in one array of any size. Each object is a row.
//!
//! Which columns there are is only known when all rows have been seen, so the file is read once on opening, by all cores,
//! and again for its rows: a key that first appears after a million rows is a column like any other. Memory is bounded by
//! blocks of text; one record may have [`limits::JSON_VALUE_BYTES`]. A record that is no JSON object is a bad row, kept as it stands
//! in the file.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_core::read::{
    BadRow, Input, Misfit, RawBatch, ReadOptions, ReadRequest, RowNumbers, Split, Splits, WantedColumn,
};
use flumen_core::text::TextOptions;
use flumen_core::{Error, Result, limits};

use super::Format;
use super::input::{FileInput, FileRows};
use crate::blob::{self, Blob, Counted};
use crate::codec;

mod build;
mod infer;
mod records;
mod scan;

use infer::Fields;
use records::{Block, Layout, Records};

/// The format, in all its layouts.
pub struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["json", "ndjson", "jsonl", "jsonlines", "geojsonl"]
    }

    fn recognizes(&self, _: &[u8]) -> bool {
        false
    }

    fn streams(&self) -> bool {
        true
    }

    fn open(&self, blob: Arc<dyn Blob>, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        Ok(FileInput::only(JsonInput::open(blob, options)?))
    }
}

/// One file.
struct JsonInput {
    blob: Arc<dyn Blob>,
    options: ReadOptions,
    layout: Layout,
    schema: SchemaRef,
}

impl JsonInput {
    fn open(blob: Arc<dyn Blob>, options: &ReadOptions) -> Result<Self> {
        // A number in JSON has a point, whatever the numbers in its texts have.
        let text = TextOptions { decimal_comma: false, ..options.text.clone() };
        let options = ReadOptions { text, ..options.clone() };
        let failed = |error| blob::error(blob.address(), error);
        let head = blob::read_head(codec::open(blob.as_ref(), &options)?.as_mut(), limits::SNIFF_BYTES);
        let head = head.map_err(failed)?;
        if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
            return Err(
                Error::data(format!("{} is UTF-16, which JSON must not be", blob.address())).hint("save it as UTF-8")
            );
        }
        let lines = codec::split_name(blob.name()).0.rsplit_once('.').is_some_and(|(_, ending)| {
            ["ndjson", "jsonl", "jsonlines", "geojsonl"].contains(&ending.to_ascii_lowercase().as_str())
        });
        let layout = Layout::of(&head, lines);
        let records = Records::new(codec::open(blob.as_ref(), &options)?, layout, blob.address());
        let fields = infer_all(records, &options)?;
        let columns = fields.into_columns();
        if columns.len() > limits::COLUMNS {
            return Err(Error::data(format!(
                "{} has {} columns, more than {}",
                blob.address(),
                columns.len(),
                limits::COLUMNS
            ))
            .hint("leave out --flatten, or select what is wanted before"));
        }
        let columns = columns.into_iter().map(|(name, data_type)| Field::new(name, data_type, true));
        let schema = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        Ok(Self { blob, options, layout, schema })
    }
}

/// The keys of all records, with the types of their values.
fn infer_all(records: Records, options: &ReadOptions) -> Result<Fields> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let records = Mutex::new(records);
    let one = || -> Result<Fields> {
        let mut fields = Fields::default();
        loop {
            let block = lock(&records).next();
            let Some(block) = block? else { return Ok(fields) };
            fields.learn(&block, options);
        }
    };
    let learnt: Vec<Result<Fields>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let mut all = vec![one()];
        for worker in workers {
            all.push(worker.join().unwrap_or_else(|_| Err(Error::internal("reading JSON broke off"))));
        }
        all
    });
    let mut fields = Fields::default();
    for more in learnt {
        fields.merge(more?);
    }
    Ok(fields)
}

impl FileRows for JsonInput {
    fn blob(&self) -> &Arc<dyn Blob> {
        &self.blob
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn is_text(&self) -> bool {
        true
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted::new(Arc::clone(&self.blob), Arc::clone(&bytes));
        let text: Box<dyn Read + Send> = codec::open(&counted, &self.options)?;
        let field =
            |column: &WantedColumn| Field::new(self.schema.field(column.index).name(), column.data_type.clone(), true);
        let schema = Arc::new(Schema::new(request.columns.iter().map(field).collect::<Vec<_>>()));
        let places = schema.fields().iter().enumerate().map(|(place, field)| (field.name().clone(), place)).collect();
        Ok(Arc::new(JsonSplits {
            records: Mutex::new(Records::new(text, self.layout, self.blob.address())),
            wanted: Arc::new(Wanted { schema, places, options: self.options.clone() }),
            bytes,
        }))
    }
}

/// The columns that a reading gives.
struct Wanted {
    schema: SchemaRef,
    /// Where each column is, by its name.
    places: HashMap<String, usize>,
    options: ReadOptions,
}

struct JsonSplits {
    records: Mutex<Records>,
    wanted: Arc<Wanted>,
    bytes: Arc<AtomicU64>,
}

impl Splits for JsonSplits {
    fn next(&self) -> Result<Option<Box<dyn Split>>> {
        let block = lock(&self.records).next()?;
        Ok(block.map(|block| {
            Box::new(JsonSplit { block: Some(block), wanted: Arc::clone(&self.wanted) }) as Box<dyn Split>
        }))
    }

    fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// One block of records: one batch.
struct JsonSplit {
    block: Option<Block>,
    wanted: Arc<Wanted>,
}

impl Split for JsonSplit {
    fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        self.block.take().map(|block| read_block(&block, &self.wanted)).transpose()
    }
}

fn read_block(block: &Block, wanted: &Wanted) -> Result<RawBatch> {
    let width = wanted.schema.fields().len();
    let mut columns: Vec<Vec<Option<&[u8]>>> = vec![Vec::with_capacity(block.records.len()); width];
    let (mut rows, mut lines, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    let mut values: Vec<Option<&[u8]>> = vec![None; width];
    for (number, record) in (block.first_row..).zip(&block.records) {
        let text = &block.text[record.start..record.end];
        values.fill(None);
        // What is not wanted is looked at all the same: a record is whole, or it is bad.
        let read = scan::record(text, wanted.options.flatten, &mut |key, value| {
            if let Some(place) = wanted.places.get(key) {
                values[*place] = Some(value);
            }
        });
        match read {
            Ok(()) => {
                rows.push(number);
                lines.push(record.line);
                columns.iter_mut().zip(&values).for_each(|(column, value)| column.push(*value));
            }
            Err(reason) => bad.push(BadRow {
                row: number,
                line: Some(record.line),
                column: None,
                reason,
                value: None,
                record: String::from_utf8_lossy(text).into_owned(),
            }),
        }
    }
    let mut misfits = Vec::new();
    let mut arrays = Vec::with_capacity(width);
    let indices: Vec<usize> = (0..rows.len()).collect();
    for (column, (values, field)) in columns.iter().zip(wanted.schema.fields()).enumerate() {
        let mut miss = |row: usize, value: &[u8]| {
            misfits.push(Misfit {
                row,
                column,
                line: lines.get(row).copied(),
                value: String::from_utf8_lossy(value).into_owned(),
            });
        };
        arrays.push(build::array(field.data_type(), values, &indices, &wanted.options.text, &mut miss)?);
    }
    misfits.sort_by_key(|misfit| (misfit.row, misfit.column));
    // A list may hold many values that do not fit; the row's column is named once.
    misfits.dedup_by_key(|misfit| (misfit.row, misfit.column));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&wanted.schema), arrays, &options)?;
    let rows = if bad.is_empty() { RowNumbers::From(block.first_row) } else { RowNumbers::List(rows) };
    Ok(RawBatch { batch, rows, misfits, bad })
}

/// A type for a place that has held nothing but nulls, within a list or an object.
fn or_text(data_type: DataType) -> DataType {
    if data_type == DataType::Null { DataType::Utf8 } else { data_type }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
