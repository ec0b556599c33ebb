//! Columns that folders give: the files of `trips/year=2024/month=03/` have a column `year` and a column `month`, as Hive laid
//! tables out and Spark, Athena and DuckDB do.
//!
//! Inputs that are opened together get them if all of their addresses name the same columns, and none of the files has one of
//! that name. Values that are whole numbers everywhere are numbers, dates everywhere are dates, others text.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_core::load::{Cursor, FileIdentity};
use flumen_core::read::{Input, RawBatch, ReadRequest, Split, Splits, WantedColumn};
use flumen_core::{Error, Result};
use percent_encoding::percent_decode_str;

/// What stands for null in the name of a folder.
/// Source: Hive, `hive.exec.default.partition.name`.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// `inputs`, each with the columns that its folders give.
pub(crate) fn with_columns(inputs: Vec<Arc<dyn Input>>) -> Vec<Arc<dyn Input>> {
    let said: Vec<Vec<(String, Option<String>)>> = inputs.iter().map(|input| said_by(input.address())).collect();
    let Some(first) = said.first().filter(|first| !first.is_empty()) else { return inputs };
    let names: Vec<String> = first.iter().map(|(name, _)| name.clone()).collect();
    if said.iter().any(|of_input| of_input.iter().map(|(name, _)| name).ne(&names)) {
        return inputs;
    }
    let has = |name: &String| {
        let mut fields = inputs.iter().flat_map(|input| input.schema().fields());
        fields.any(|field| field.name().trim().eq_ignore_ascii_case(name))
    };
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (place, name) in names.into_iter().enumerate() {
        if !has(&name) {
            let values = said.iter().map(|of_input| of_input[place].1.as_deref());
            columns.push((name, typed(values.collect())));
        }
    }
    if columns.is_empty() {
        return inputs;
    }
    let with = |(row, inner): (usize, Arc<dyn Input>)| {
        let of_folders =
            columns.iter().map(|(name, values)| Arc::new(Field::new(name, values.data_type().clone(), true)));
        let fields = inner.schema().fields().iter().cloned().chain(of_folders);
        let schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), inner.schema().metadata().clone()));
        let values = columns.iter().map(|(_, values)| values.slice(row, 1)).collect();
        Arc::new(InFolders { inner, schema, values }) as Arc<dyn Input>
    };
    inputs.into_iter().enumerate().map(with).collect()
}

/// The columns and values that the folders of `address` name; null for a folder that says so.
fn said_by(address: &str) -> Vec<(String, Option<String>)> {
    // What follows a question mark is for a web server.
    let path = if address.contains("://") { address.split('?').next().unwrap_or(address) } else { address };
    let Some((folders, _)) = path.rsplit_once('/') else { return Vec::new() };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let mut said: Vec<(String, Option<String>)> = Vec::new();
    for folder in folders.split('/') {
        let Some((name, value)) = folder.split_once('=') else { continue };
        let (Some(name), Some(value)) = (decoded(name), decoded(value)) else { continue };
        let is_new = said.iter().all(|(known, _)| !known.eq_ignore_ascii_case(&name));
        if !name.is_empty() && is_new {
            said.push((name, (value != NULL).then_some(value)));
        }
    }
    said
}

/// `values` in the narrowest of the types that a folder's values have.
fn typed(values: Vec<Option<&str>>) -> ArrayRef {
    let text: ArrayRef = Arc::new(StringArray::from(values.clone()));
    let given = || values.iter().flatten();
    let is_number = |value: &&&str| value.parse::<i64>().is_ok();
    let is_date = |value: &&&str| chrono::NaiveDate::parse_from_str(value, "%Y-%m-%d").is_ok();
    let narrow = if given().next().is_none() {
        return text;
    } else if given().all(|value| is_number(&value)) {
        DataType::Int64
    } else if given().all(|value| is_date(&value)) {
        DataType::Date32
    } else {
        return text;
    };
    cast(&text, &narrow).unwrap_or(text)
}

fn cast(values: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(values, wanted, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// A file with the columns of its folders behind its own.
struct InFolders {
    inner: Arc<dyn Input>,
    schema: SchemaRef,
    /// One row each.
    values: Vec<ArrayRef>,
}

impl InFolders {
    fn own(&self) -> usize {
        self.schema.fields().len() - self.values.len()
    }
}

impl Input for InFolders {
    fn address(&self) -> &str {
        self.inner.address()
    }

    fn identity(&self) -> Result<FileIdentity> {
        self.inner.identity()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.inner.check_unchanged()
    }

    fn bytes(&self) -> Option<u64> {
        self.inner.bytes()
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn is_text(&self) -> bool {
        self.inner.is_text()
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        let mut of_file = ReadRequest { columns: Vec::new() };
        let mut places = Vec::with_capacity(request.columns.len());
        for wanted in &request.columns {
            places.push(match wanted.index.checked_sub(self.own()) {
                None => {
                    of_file.columns.push(wanted.clone());
                    Place::OfFile(of_file.columns.len() - 1)
                }
                Some(folder) => {
                    let value = &self.values[folder];
                    // As a format of text, it gives what is wanted; as another one, what it has.
                    let as_wanted = self.is_text() && wanted.data_type != DataType::Null;
                    Place::OfFolder(if as_wanted { cast(value, &wanted.data_type)? } else { Arc::clone(value) })
                }
            });
        }
        if of_file.columns.is_empty()
            && let Some(first) = self.inner.schema().fields().first()
        {
            // Somebody has to count the rows.
            let data_type = if self.is_text() { DataType::Utf8 } else { first.data_type().clone() };
            of_file.columns.push(WantedColumn { index: 0, data_type });
        }
        let names = request.columns.iter().map(|wanted| self.schema.field(wanted.index).name().clone());
        let shape = Arc::new(Shape { places, names: names.collect(), address: self.address().to_owned() });
        Ok(Arc::new(FolderSplits { inner: self.inner.read(&of_file)?, shape }))
    }

    fn parquet_file(&self) -> Option<PathBuf> {
        self.inner.parquet_file()
    }

    fn folder_values(&self) -> &[ArrayRef] {
        &self.values
    }

    fn cursor(&self) -> Option<Cursor> {
        self.inner.cursor()
    }
}

/// Where a wanted column comes from.
enum Place {
    /// The column of the file's batches at this place.
    OfFile(usize),
    /// A value that all rows have.
    OfFolder(ArrayRef),
}

/// How batches of a file become such with columns of folders.
struct Shape {
    places: Vec<Place>,
    names: Vec<String>,
    address: String,
}

impl Shape {
    fn apply(&self, raw: RawBatch) -> Result<RawBatch> {
        let rows = raw.batch.num_rows();
        let same = UInt32Array::from(vec![0; rows]);
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (place, name) in self.places.iter().zip(&self.names) {
            let column = match place {
                Place::OfFile(at) => {
                    fields.push(Arc::clone(&raw.batch.schema_ref().fields()[*at]));
                    Arc::clone(raw.batch.column(*at))
                }
                Place::OfFolder(value) => {
                    fields.push(Arc::new(Field::new(name, value.data_type().clone(), true)));
                    take(value, &same, None)?
                }
            };
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options);
        let batch = batch.map_err(|error| Error::from(error).within(&self.address))?;
        let moved =
            |of_file: usize| self.places.iter().position(|place| matches!(place, Place::OfFile(at) if *at == of_file));
        let misfits = raw.misfits.into_iter().filter_map(|mut misfit| {
            misfit.column = moved(misfit.column)?;
            Some(misfit)
        });
        Ok(RawBatch { batch, rows: raw.rows, misfits: misfits.collect(), bad: raw.bad })
    }
}

struct FolderSplits {
    inner: Arc<dyn Splits>,
    shape: Arc<Shape>,
}

impl Splits for FolderSplits {
    fn next(&self) -> Result<Option<Box<dyn Split>>> {
        let inner = self.inner.next()?;
        Ok(inner.map(|inner| Box::new(FolderSplit { inner, shape: Arc::clone(&self.shape) }) as Box<dyn Split>))
    }

    fn bytes_read(&self) -> u64 {
        self.inner.bytes_read()
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }
}

struct FolderSplit {
    inner: Box<dyn Split>,
    shape: Arc<Shape>,
}

impl Split for FolderSplit {
    fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        self.inner.next_batch()?.map(|raw| self.shape.apply(raw)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use flumen_core::read::{FileReader, ReadOptions};

    use super::*;
    use crate::sources::Files;

    #[test]
    fn folders_say_columns() {
        let said = |address: &str| {
            let shown = said_by(address).into_iter().map(|(name, value)| match value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(said("a/year=2024/month=03/x.csv"), "year:2024 month:03");
        assert_eq!(said("s3://b/at=10%3A30/k=__HIVE_DEFAULT_PARTITION__/x.parquet"), "at:10:30 k");
        assert_eq!(said("https://h/year=2024/x.csv?month=3"), "year:2024");
        assert_eq!(said("year=2024.csv"), "");
        assert_eq!(said("a/=3/Year=1/year=2/x.csv"), "Year:1");
    }

    #[test]
    fn values_are_numbers_or_dates_or_text() {
        let kind = |values: &[&str]| typed(values.iter().map(|value| Some(*value)).collect()).data_type().clone();
        assert_eq!(kind(&["01", "12"]), DataType::Int64);
        assert_eq!(kind(&["2024-01-01", "2024-02-29"]), DataType::Date32);
        assert_eq!(kind(&["2024-01-01", "2024-02-30"]), DataType::Utf8);
        assert_eq!(kind(&["1", "x"]), DataType::Utf8);
        assert_eq!(typed(vec![None, Some("7")]).data_type(), &DataType::Int64);
        assert_eq!(typed(vec![None]).data_type(), &DataType::Utf8);
    }

    async fn read(pattern: &str, wanted: &[&str]) -> Vec<String> {
        let inputs = FileReader::open(&Files::new(), pattern, &ReadOptions::default()).await.unwrap();
        let mut rows = Vec::new();
        for input in inputs {
            let columns = wanted.iter().map(|name| {
                let index = input.schema().index_of(name).unwrap();
                WantedColumn { index, data_type: input.schema().field(index).data_type().clone() }
            });
            let splits = input.read(&ReadRequest { columns: columns.collect() }).unwrap();
            while let Some(mut split) = splits.next().unwrap() {
                while let Some(raw) = split.next_batch().unwrap() {
                    for row in 0..raw.batch.num_rows() {
                        let values = raw.batch.columns().iter();
                        let shown =
                            values.map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
                        rows.push(shown.collect::<Vec<_>>().join(","));
                    }
                    rows.extend(raw.misfits.iter().map(|misfit| format!("column {}: {}", misfit.column, misfit.value)));
                }
            }
        }
        rows
    }

    #[tokio::test]
    async fn files_have_the_columns_of_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for (path, content) in [
            ("t/year=2023/month=12/a.csv", "k,n\na,1\nb,2\n"),
            ("t/year=2024/month=01/b.csv", "k,n\nc,3\n"),
            ("u/k=1/a.csv", "k,n\nown,1\n"),
            ("v/k=1/a.csv", "n\n1\n"),
            ("v/j=1/a.csv", "n\n2\n"),
        ] {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), content).unwrap();
        }
        let pattern = |path: &str| at(path).display().to_string();
        assert_eq!(read(&pattern("t/**/*.csv"), &["month", "k", "year"]).await, ["12,a,2023", "12,b,2023", "1,c,2024"]);
        // A column of the file comes before one of a folder, and rows are counted without any of the file.
        assert_eq!(read(&pattern("u/*/*.csv"), &["k", "n"]).await, ["own,1"]);
        assert_eq!(read(&pattern("t/*/*/*.csv"), &["year"]).await, ["2023", "2023", "2024"]);
        // Folders that do not say the same are only folders.
        assert_eq!(read(&pattern("v/*/*.csv"), &["n"]).await, ["2", "1"]);
        let inputs = FileReader::open(&Files::new(), &pattern("v/*/*.csv"), &ReadOptions::default()).await.unwrap();
        assert_eq!(inputs[0].schema().fields().len(), 1);
    }
}
