//! Files in place: `select … from 'data/*.csv'`, read through the seam [`FileReader`], so that they mean what they mean
//! when they are loaded.
//!
//! Several files of one pattern are one table: their columns meet by name, without regard to case, in the narrowest type
//! that holds those of all files; a column that a file lacks is null. Parquet files on the local disk are left to
//! DataFusion's own scan, where that gives the same rows. A small file of text is read whole before the query is planned,
//! so that its types are certain; the types of a large one are what samples of it suggest. A value that does not fit then
//! is an error that carries [`TooNarrow`], never a null: all values are looked at, and the query begins anew.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use flumen_core::read::{BadRow, FileReader, Input, RawBatch, ReadOptions, ReadRequest, WantedColumn};
use flumen_core::text::{TextColumn, TextOptions, classify, join};
use flumen_core::{Error, Result};

use parquet_scan::ParquetFiles;
use stream::StreamedFiles;

pub(super) use function::{of_call, reads_files, register_call};
pub(super) use learn::{Learnt, Notes, TooNarrow};

mod function;
mod learn;
mod parquet_scan;
mod stream;

/// Bytes of text (as stored) up to which all of it is read before a query is planned.
const WHOLE_TEXT_BYTES: u64 = 8 << 20;

/// The table that `address` (a path, a pattern, a URL) stands for.
///
/// Errors: those of `reader`; `NotFound` for a pattern that no file matches; `Data` for a file that is broken.
pub(super) async fn open(
    reader: &dyn FileReader,
    address: &str,
    learnt: &Learnt,
    notes: &Arc<Notes>,
) -> Result<Arc<dyn TableProvider>> {
    open_as(reader, address, &ReadOptions::default(), learnt, notes).await
}

/// The same, read as `options` say.
///
/// Errors: as [`open`].
pub(super) async fn open_as(
    reader: &dyn FileReader,
    address: &str,
    options: &ReadOptions,
    learnt: &Learnt,
    notes: &Arc<Notes>,
) -> Result<Arc<dyn TableProvider>> {
    open_all(reader, &[address.to_owned()], options, learnt, notes).await
}

/// The table that several addresses stand for together.
///
/// Errors: as [`open`].
pub(super) async fn open_all(
    reader: &dyn FileReader,
    addresses: &[String],
    options: &ReadOptions,
    learnt: &Learnt,
    notes: &Arc<Notes>,
) -> Result<Arc<dyn TableProvider>> {
    let mut inputs = Vec::new();
    for address in addresses {
        let opened = reader.open(address, options).await?;
        if opened.is_empty() {
            return Err(Error::not_found(format!("no file matches '{address}'")).hint("check the path and the pattern"));
        }
        inputs.extend(opened);
    }
    notes.opened(&inputs);
    let table = learnt.applied_to(FileTable::new(key(addresses, options), inputs, Arc::clone(notes)));
    if let Some(files) = ParquetFiles::of(&table)? {
        return Ok(Arc::new(files));
    }
    let text = table.inputs.iter().all(|input| input.is_text());
    let bytes = table.inputs.iter().map(|input| input.bytes()).sum::<Option<u64>>();
    if text && bytes.is_some_and(|bytes| bytes <= WHOLE_TEXT_BYTES) {
        let read = tokio::task::spawn_blocking(move || whole(table));
        return read.await.map_err(|error| Error::internal("reading a file broke off").caused_by(error))?;
    }
    Ok(Arc::new(StreamedFiles::new(table)))
}

/// What tells a table of files from others: another delimiter makes other columns of the same file.
fn key(addresses: &[String], options: &ReadOptions) -> String {
    let addresses = addresses.join(", ");
    match *options == ReadOptions::default() {
        true => addresses,
        false => format!("{addresses} {options:?}"),
    }
}

/// Files as one table.
pub(super) struct FileTable {
    /// How the query names them, and how they are read.
    key: String,
    pub inputs: Vec<Arc<dyn Input>>,
    /// The columns of all of them.
    pub schema: SchemaRef,
    /// How many of them, at the end, their folders give.
    of_folders: usize,
    /// For each input, and each column of `schema`, the column of the input.
    places: Vec<Vec<Option<usize>>>,
    /// Where what is odd in them is kept.
    notes: Arc<Notes>,
}

impl std::fmt::Debug for FileTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileTable({})", self.key)
    }
}

impl FileTable {
    fn new(key: String, inputs: Vec<Arc<dyn Input>>, notes: Arc<Notes>) -> Self {
        let mut columns: Vec<(String, DataType)> = Vec::new();
        let mut places: Vec<Vec<Option<usize>>> = vec![Vec::new(); inputs.len()];
        // What folders say comes behind what files say.
        let folders = |input: &Arc<dyn Input>| input.schema().fields().len() - input.folder_values().len();
        for (input, of_input) in inputs.iter().zip(&mut places) {
            meet(&mut columns, of_input, input.as_ref(), 0..folders(input));
        }
        let of_files = columns.len();
        for (input, of_input) in inputs.iter().zip(&mut places) {
            meet(&mut columns, of_input, input.as_ref(), folders(input)..input.schema().fields().len());
        }
        let of_folders = columns.len() - of_files;
        for of_input in &mut places {
            of_input.resize(columns.len(), None);
        }
        let field = |(name, data_type): (String, DataType)| {
            // A column without a value anywhere is text without a value.
            Field::new(name, if data_type == DataType::Null { DataType::Utf8 } else { data_type }, true)
        };
        let schema = Arc::new(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()));
        Self { key, inputs, schema, of_folders, places, notes }
    }

    /// The same files with other types.
    fn with_types(&self, types: &[DataType]) -> Self {
        let retyped = |(field, data_type): (&Arc<Field>, &DataType)| {
            Arc::new(Field::clone(field).with_data_type(data_type.clone()))
        };
        let fields: Vec<Arc<Field>> = self.schema.fields().iter().zip(types).map(retyped).collect();
        Self {
            key: self.key.clone(),
            inputs: self.inputs.clone(),
            schema: Arc::new(Schema::new(fields)),
            of_folders: self.of_folders,
            places: self.places.clone(),
            notes: Arc::clone(&self.notes),
        }
    }

    /// How the input at `index` is read for `columns` of the table.
    fn reading(&self, index: usize, columns: &[usize]) -> Reading {
        let input = &self.inputs[index];
        let mut request = ReadRequest { columns: Vec::new() };
        let mut parts = Vec::with_capacity(columns.len());
        for column in columns {
            let wanted = self.schema.field(*column).data_type();
            parts.push(self.places[index][*column].map(|at| {
                let own = input.schema().field(at).data_type();
                let data_type = if input.is_text() && TextColumn::supports(wanted) { wanted } else { own };
                request.columns.push(WantedColumn { index: at, data_type: data_type.clone() });
                request.columns.len() - 1
            }));
        }
        if request.columns.is_empty()
            && let Some(first) = input.schema().fields().first()
        {
            // Somebody has to count the rows.
            let data_type = if input.is_text() { DataType::Utf8 } else { first.data_type().clone() };
            request.columns.push(WantedColumn { index: 0, data_type });
        }
        let fields: Vec<Arc<Field>> = columns.iter().map(|at| Arc::clone(&self.schema.fields()[*at])).collect();
        Reading { address: input.address().to_owned(), request, parts, schema: Arc::new(Schema::new(fields)) }
    }
}

/// Finds the columns of `input` that are in `which` among `columns`, and adds those that are not there yet.
fn meet(
    columns: &mut Vec<(String, DataType)>,
    places: &mut Vec<Option<usize>>,
    input: &dyn Input,
    which: Range<usize>,
) {
    places.resize(columns.len(), None);
    for index in which {
        let field = input.schema().field(index);
        let free = |at: &usize| places[*at].is_none();
        let same = |at: &usize| columns[*at].0 == *field.name();
        let alike = |at: &usize| columns[*at].0.trim().eq_ignore_ascii_case(field.name().trim());
        let all = 0..columns.len();
        let place = all.clone().filter(free).find(same).or_else(|| all.filter(free).find(alike));
        match place {
            Some(at) => {
                columns[at].1 = join(&columns[at].1, &plain(field.data_type()));
                places[at] = Some(index);
            }
            None => {
                columns.push((field.name().clone(), plain(field.data_type())));
                places.push(Some(index));
            }
        }
    }
}

/// The type as which a query sees a column.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain(values),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// How batches of one input become batches of the table.
struct Reading {
    address: String,
    request: ReadRequest,
    /// For each wanted column of the table, the column of the request; none for one that the input lacks.
    parts: Vec<Option<usize>>,
    schema: SchemaRef,
}

impl Reading {
    /// Errors: `Data` for a row or a value that does not fit, with its place.
    fn batch(&self, raw: &RawBatch) -> Result<RecordBatch> {
        if let Some(bad) = raw.bad.first() {
            return Err(self.bad_row(bad));
        }
        if let Some(misfit) = raw.misfits.iter().find(|misfit| self.parts.contains(&Some(misfit.column))) {
            let field = raw.batch.schema_ref().field(misfit.column);
            let line =
                misfit.line.map_or_else(|| format!("row {}", raw.rows.at(misfit.row)), |line| format!("line {line}"));
            return Err(Error::data(format!(
                "{}: {line}: '{}' in column '{}' is no {}, which samples of the file suggested",
                self.address,
                misfit.value,
                field.name(),
                field.data_type()
            ))
            .hint(
                "rows before it are written already: with -o FILE the query begins anew by itself; 'flumen ingest' looks \
                at all values before it chooses types",
            ));
        }
        self.rows(&raw.batch)
    }

    fn rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.parts.len());
        for (part, field) in self.parts.iter().zip(self.schema.fields()) {
            columns.push(match part {
                None => new_null_array(field.data_type(), batch.num_rows()),
                Some(at) if batch.column(*at).data_type() == field.data_type() => Arc::clone(batch.column(*at)),
                Some(at) => {
                    let cast = cast_with_options(batch.column(*at), field.data_type(), &options);
                    cast.map_err(|error| {
                        Error::data(format!("{}: column '{}': {error}", self.address, field.name())).caused_by(error)
                    })?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    fn bad_row(&self, bad: &BadRow) -> Error {
        let line = bad.line.map_or_else(|| format!("row {}", bad.row), |line| format!("line {line}"));
        Error::data(format!("{}: {line} {}", self.address, bad.reason))
            .hint("mend the file, or load it with 'flumen ingest --max-bad N', which keeps bad rows apart, and query the table")
    }
}

/// A small table of text, read whole: its types hold for every value.
fn whole(mut table: FileTable) -> Result<Arc<dyn TableProvider>> {
    loop {
        let columns: Vec<usize> = (0..table.schema.fields().len()).collect();
        let mut types: Vec<DataType> = table.schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let mut batches = Vec::new();
        let before = types.clone();
        for (index, input) in table.inputs.iter().enumerate() {
            let reading = table.reading(index, &columns);
            let splits = input.read(&reading.request)?;
            table.notes.reading(&splits);
            while let Some(mut split) = splits.next()? {
                while let Some(raw) = split.next_batch()? {
                    widen(&reading, &raw, &mut types)?;
                    if types == before {
                        batches.push(reading.batch(&raw)?);
                    }
                }
            }
        }
        if types == before {
            return in_memory(&table.schema, batches);
        }
        table = table.with_types(&types);
    }
}

/// Widens `types`, of the columns of `reading`, so that they hold the values of `raw` that did not fit.
fn widen(reading: &Reading, raw: &RawBatch, types: &mut [DataType]) -> Result<()> {
    for misfit in &raw.misfits {
        let column = reading.parts.iter().position(|part| *part == Some(misfit.column));
        let Some(column) = column else { continue };
        let read_as = reading.schema.field(column).data_type();
        if *read_as == DataType::Utf8 {
            // Nothing is wider than text: these bytes are not even that.
            return reading.batch(raw).map(drop);
        }
        let seen = classify(misfit.value.trim().as_bytes(), &TextOptions::default()).data_type();
        let joined = join(&types[column], &seen);
        // A value that looks like the type and yet is no value of it.
        types[column] = if joined == *read_as { DataType::Utf8 } else { joined };
    }
    Ok(())
}

fn in_memory(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>> {
    let table = MemTable::try_new(Arc::clone(schema), vec![batches]);
    Ok(Arc::new(table.map_err(|error| Error::internal("a file cannot be kept in memory").caused_by(error))?))
}
