//! Columns that folders give: the files of `trips/year=2024/month=03/` have a column `year` and a column `month`, as Hive laid
//! tables out and Spark, Athena and DuckDB do.
//!
//! Inputs that are opened together have the columns that any of their folders give, without regard to case: where a path lacks
//! one, it is null, and a warning says so. A file that has such a column itself keeps its own. Values that are whole numbers
//! everywhere are numbers, dates everywhere are dates, others text.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_core::load::{Cursor, FileIdentity};
use flumen_core::partition::NULL_FOLDER;
use flumen_core::read::{Input, Misfit, RawBatch, ReadRequest, Split, Splits, WantedColumn};
use flumen_core::{Error, Result};
use percent_encoding::percent_decode_str;

/// `inputs`, each with the columns that its folders give. Those called as in `as_text` are text, as the folders have them.
pub(crate) fn with_columns(inputs: Vec<Arc<dyn Input>>, as_text: &[String]) -> Vec<Arc<dyn Input>> {
    let said: Vec<Vec<(String, Option<String>)>> = inputs.iter().map(|input| said_by(input.address())).collect();
    let mut names: Vec<String> = Vec::new();
    for (name, _) in said.iter().flatten() {
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        return inputs;
    }
    let columns: Vec<FolderColumn> = names.into_iter().map(|name| FolderColumn::of(name, &said, as_text)).collect();
    let with = |(row, inner): (usize, Arc<dyn Input>)| {
        let own =
            |name: &str| inner.schema().fields().iter().any(|field| field.name().trim().eq_ignore_ascii_case(name));
        let given: Vec<&FolderColumn> = columns.iter().filter(|column| !own(&column.name)).collect();
        if given.is_empty() {
            return inner;
        }
        let field = |column: &&FolderColumn| Arc::new(Field::new(&column.name, column.typed.data_type().clone(), true));
        let fields = inner.schema().fields().iter().cloned().chain(given.iter().map(field));
        let schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), inner.schema().metadata().clone()));
        let values = given.iter().map(|column| column.typed.slice(row, 1)).collect();
        let texts = given.iter().map(|column| column.texts[row].clone()).collect();
        let lacking = given.iter().filter(|column| !column.said[row]).map(|column| column.name.clone()).collect();
        Arc::new(InFolders { inner, schema, values, texts, lacking }) as Arc<dyn Input>
    };
    inputs.into_iter().enumerate().map(with).collect()
}

/// One column that folders give, with a value for each input.
struct FolderColumn {
    name: String,
    /// Whether the path of the input names it.
    said: Vec<bool>,
    texts: Vec<Option<String>>,
    typed: ArrayRef,
}

impl FolderColumn {
    fn of(name: String, said: &[Vec<(String, Option<String>)>], as_text: &[String]) -> Self {
        let of_input = |of_input: &Vec<(String, Option<String>)>| {
            of_input.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)).map(|(_, value)| value.clone())
        };
        let found: Vec<Option<Option<String>>> = said.iter().map(of_input).collect();
        let texts: Vec<Option<String>> = found.iter().map(|found| found.clone().flatten()).collect();
        let values: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        let typed = match as_text.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            true => Arc::new(StringArray::from(values)),
            false => typed(values),
        };
        let said = found.iter().map(Option::is_some).collect();
        Self { name, said, texts, typed }
    }
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
            said.push((name, (value != NULL_FOLDER).then_some(value)));
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
    /// The same as the folders have them.
    texts: Vec<Option<String>>,
    /// The columns that other paths name, and this one does not.
    lacking: Vec<String>,
}

impl InFolders {
    /// The value of the folder column at `place` as a format of text gives it.
    fn as_text(&self, place: usize, wanted: &DataType) -> Result<Place> {
        let text = &self.texts[place];
        let value: ArrayRef = Arc::new(StringArray::from(vec![text.clone()]));
        Ok(match (cast(&value, wanted), text) {
            (Ok(value), _) => Place::OfFolder(value),
            (Err(_), Some(text)) => Place::Misfit(text.clone(), new_null_array(wanted, 1)),
            (Err(error), None) => return Err(error),
        })
    }

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
        let lacking = self.lacking.iter().map(|name| {
            format!(
                "{}: no folder in its path is called {name}=…, as for other files: '{name}' is null",
                self.address()
            )
        });
        self.inner.warnings().into_iter().chain(lacking).collect()
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
                // A format of text gives what is wanted; another one, what it has.
                Some(folder) if self.is_text() && wanted.data_type != DataType::Null => {
                    self.as_text(folder, &wanted.data_type)?
                }
                Some(folder) => Place::OfFolder(Arc::clone(&self.values[folder])),
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
    /// A text that is not of the wanted type, and null in it.
    Misfit(String, ArrayRef),
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
                Place::OfFolder(value) | Place::Misfit(_, value) => {
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
        let mut misfits: Vec<Misfit> = misfits.collect();
        for (column, place) in self.places.iter().enumerate() {
            if let Place::Misfit(text, _) = place {
                misfits.extend((0..rows).map(|row| Misfit { row, column, line: None, value: text.clone() }));
            }
        }
        misfits.sort_by_key(|misfit| misfit.row);
        Ok(RawBatch { batch, rows: raw.rows, misfits, bad: raw.bad })
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
        // What one path lacks is null in its rows, and told.
        assert_eq!(read(&pattern("v/*/*.csv"), &["n", "j", "k"]).await, ["2,1,", "1,,1"]);
        let open = |pattern: String, options: ReadOptions| async move {
            FileReader::open(&Files::new(), &pattern, &options).await.unwrap()
        };
        let inputs = open(pattern("v/*/*.csv"), ReadOptions::default()).await;
        let told = inputs[0].warnings();
        assert!(
            told.len() == 1
                && told[0].ends_with("no folder in its path is called k=…, as for other files: 'k' is null")
        );
        // Text keeps its zeros, and what is of no type is handed on as it stands.
        let options = ReadOptions { folder_text: vec!["MONTH".to_owned()], ..ReadOptions::default() };
        let inputs = open(pattern("t/**/*.csv"), options).await;
        assert_eq!(inputs[1].schema().field_with_name("month").unwrap().data_type(), &DataType::Utf8);
        let wanted = WantedColumn { index: 3, data_type: DataType::Date32 };
        let splits = inputs[1].read(&ReadRequest { columns: vec![wanted] }).unwrap();
        let raw = splits.next().unwrap().unwrap().next_batch().unwrap().unwrap();
        assert_eq!(raw.misfits, [Misfit { row: 0, column: 0, line: None, value: "01".to_owned() }]);
    }
}
