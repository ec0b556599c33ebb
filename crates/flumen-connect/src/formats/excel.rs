//! Excel and OpenDocument sheets. A workbook is read into memory whole: that is how its cells are stored.
//!
//! The first row that is not empty has the names. A column of whole numbers is one of integers, dates are timestamps, and
//! what mixes kinds is text.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use calamine::{Data, Range, Reader, open_workbook_auto};
use flumen_core::read::{Input, ReadOptions, ReadRequest, Splits};
use flumen_core::text::{TextColumn, TextOptions, TypeSet};
use flumen_core::{Error, Result, limits};

use super::Format;
use super::input::{FileInput, FileRows};
use super::serial::Serial;
use crate::blob::Blob;

/// What an old workbook (and every other old Office file) begins with.
const OLD_MAGIC: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0];
/// What a workbook's first entries are called, in the zip archive that it is.
const ENTRIES: &[&[u8]] =
    &[b"[Content_Types].xml", b"_rels/.rels", b"xl/workbook", b"application/vnd.oasis.opendocument.spreadsheet"];

/// The format.
pub struct Excel;

impl Format for Excel {
    fn name(&self) -> &'static str {
        "excel"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["xlsx", "xlsm", "xlsb", "xls", "ods"]
    }

    fn recognizes(&self, head: &[u8]) -> bool {
        let names = &head[..head.len().min(4096)];
        let holds = |entry: &&[u8]| memchr::memmem::find(names, entry).is_some();
        head.starts_with(OLD_MAGIC) || head.starts_with(b"PK\x03\x04") && ENTRIES.iter().any(holds)
    }

    fn is_binary(&self) -> bool {
        true
    }

    fn streams(&self) -> bool {
        false
    }

    fn open(&self, blob: Arc<dyn Blob>, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        let (sheet, cells) = read_sheet(blob.as_ref(), options)?;
        Ok(FileInput::only(SheetInput::new(blob, &sheet, cells)?))
    }
}

fn read_sheet(blob: &dyn Blob, options: &ReadOptions) -> Result<(String, Range<Data>)> {
    let address = blob.address();
    let broken = |error: calamine::Error| {
        Error::data(format!("{address} cannot be read as a workbook: {error}"))
            .hint("open and save it again with a spreadsheet program, or download it again")
            .caused_by(error)
    };
    // The kind of workbook is found by its name, or by trial.
    let mut book = open_workbook_auto(blob.local_file()?).map_err(broken)?;
    let names = book.sheet_names();
    let name = match &options.sheet {
        Some(wanted) => names.iter().find(|name| *name == wanted).cloned().ok_or_else(|| {
            Error::not_found(format!("{address} has no sheet '{wanted}'"))
                .hint(format!("it has {}", names.join(", ")))
                .did_you_mean(wanted, names.iter().map(String::as_str))
        })?,
        None => names.first().cloned().ok_or_else(|| Error::data(format!("{address} has no sheet")))?,
    };
    let cells = book.worksheet_range(&name).map_err(broken)?;
    Ok((name, cells))
}

/// One sheet.
struct SheetInput {
    blob: Arc<dyn Blob>,
    cells: Arc<Range<Data>>,
    schema: SchemaRef,
    /// The rows of `cells` that hold data.
    rows: Arc<Vec<usize>>,
    warnings: Vec<String>,
}

impl SheetInput {
    fn new(blob: Arc<dyn Blob>, sheet: &str, cells: Range<Data>) -> Result<Self> {
        let address = blob.address();
        let mut warnings = Vec::new();
        let mut filled = cells.rows().enumerate().filter(|(_, row)| row.iter().any(|cell| !is_empty(cell)));
        let names = match filled.next() {
            Some((_, header)) => names(header),
            None => {
                warnings.push(format!("{address} is empty: its sheet '{sheet}' has no cells"));
                Vec::new()
            }
        };
        if names.len() > limits::COLUMNS {
            return Err(Error::data(format!("{address} has {} columns, more than {}", names.len(), limits::COLUMNS)));
        }
        let mut types = vec![TypeSet::ANY; names.len()];
        let (mut errors, mut rows) = (0, Vec::new());
        for (row, values) in filled {
            rows.push(row);
            for (types, value) in types.iter_mut().zip(values) {
                errors += usize::from(matches!(value, Data::Error(_)));
                *types = types.and(kind(value));
            }
        }
        if errors > 0 {
            warnings.push(format!("{address}: {errors} cells hold an error (such as #DIV/0!) and are read as null"));
        }
        let fields = names.into_iter().zip(types).map(|(name, types)| Field::new(name, types.data_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { blob, cells: Arc::new(cells), schema, rows: Arc::new(rows), warnings })
    }
}

fn is_empty(cell: &Data) -> bool {
    match cell {
        Data::Empty => true,
        Data::String(text) => text.is_empty(),
        _ => false,
    }
}

/// The names in the header: trimmed, made up where there is none, numbered where there are two.
fn names(header: &[Data]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (column, cell) in header.iter().enumerate() {
        let wanted = text(cell).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let wanted = wanted.unwrap_or_else(|| format!("column_{}", column + 1));
        let mut name = wanted.clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        names.push(name);
    }
    names
}

/// The types that a cell could have. A cell of text is text, whatever it looks like: the sheet says so.
fn kind(cell: &Data) -> TypeSet {
    match cell {
        Data::Empty | Data::Error(_) => TypeSet::ANY,
        Data::Int(_) => TypeSet::INT.or(TypeSet::FLOAT),
        Data::Float(number) if whole(*number).is_some() => TypeSet::INT.or(TypeSet::FLOAT),
        Data::Float(_) => TypeSet::FLOAT,
        Data::Bool(_) => TypeSet::BOOL,
        Data::DateTime(at) if at.is_datetime() => TypeSet::TIMESTAMP,
        Data::DateTime(_) => TypeSet::TEXT,
        Data::DateTimeIso(text) => flumen_core::text::classify(text.as_bytes(), &TextOptions::default()),
        Data::DurationIso(_) | Data::String(_) => TypeSet::TEXT,
    }
}

/// A whole number that a double holds exactly.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// A cell's value as text that parses as the value.
fn text(cell: &Data) -> Option<String> {
    match cell {
        Data::Empty | Data::Error(_) => None,
        Data::Int(number) => Some(number.to_string()),
        Data::Float(number) => Some(whole(*number).map_or_else(|| number.to_string(), |whole| whole.to_string())),
        Data::Bool(value) => Some(value.to_string()),
        Data::DateTime(at) if at.is_datetime() => {
            at.as_datetime().map(|at| at.format("%Y-%m-%d %H:%M:%S%.f").to_string())
        }
        Data::DateTime(at) => {
            let seconds = at.as_duration()?.num_seconds();
            Some(format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60))
        }
        Data::DateTimeIso(text) | Data::DurationIso(text) | Data::String(text) => Some(text.clone()),
    }
}

impl FileRows for SheetInput {
    fn blob(&self) -> &Arc<dyn Blob> {
        &self.blob
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        let wanted: Vec<usize> = request.columns.iter().map(|column| column.index).collect();
        let schema = Arc::new(self.schema.project(&wanted)?);
        let (cells, rows) = (Arc::clone(&self.cells), Arc::clone(&self.rows));
        let mut next = 0;
        let batches = move || {
            let end = rows.len().min(next + limits::BATCH_ROWS);
            if next == end {
                return Ok(None);
            }
            let batch = batch(&cells, &rows[next..end], &wanted, &schema)?;
            next = end;
            Ok(Some(batch))
        };
        Ok(Serial::splits(Box::new(batches), Arc::new(AtomicU64::new(self.blob.size().unwrap_or(0)))))
    }
}

fn batch(cells: &Range<Data>, rows: &[usize], wanted: &[usize], schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(wanted.len());
    for (column, field) in wanted.iter().zip(schema.fields()) {
        let mut values = TextColumn::new(field.data_type(), rows.len(), &TextOptions::default())?;
        for row in rows {
            match cells.get((*row, *column)).and_then(text) {
                Some(text) => {
                    values.append(text.as_bytes());
                }
                None => values.append_null(),
            }
        }
        columns.push(values.finish());
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
