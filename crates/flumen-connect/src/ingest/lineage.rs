//! The columns that say where a row comes from: `_flumen_load`, `_flumen_file`, `_flumen_row`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_core::error::Result;
use flumen_core::load::{FILE_COLUMN, LOAD_COLUMN, ROW_COLUMN};
use flumen_core::read::RowNumbers;

/// `schema` with the three columns after its own.
pub fn with_columns(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(LOAD_COLUMN, DataType::Utf8, true));
    fields.push(Field::new(FILE_COLUMN, DataType::Utf8, true));
    fields.push(Field::new(ROW_COLUMN, DataType::Int64, true));
    Arc::new(Schema::new(fields))
}

/// Adds the columns to the batches of one input. Arrays of one repeated value are made once and cut to length.
pub struct Lineage {
    schema: SchemaRef,
    load: String,
    file: String,
    loads: ArrayRef,
    files: ArrayRef,
}

impl Lineage {
    /// For the rows of `file`, as part of `load`. `schema` is that of [`with_columns`].
    pub fn new(schema: SchemaRef, load: &str, file: &str) -> Self {
        let none: ArrayRef = Arc::new(StringArray::from(Vec::<&str>::new()));
        Self { schema, load: load.to_owned(), file: file.to_owned(), loads: Arc::clone(&none), files: none }
    }

    /// `batch` with the three columns.
    pub fn add(&mut self, batch: &RecordBatch, rows: &RowNumbers) -> Result<RecordBatch> {
        let count = batch.num_rows();
        if self.loads.len() < count {
            self.loads = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.load, count)));
            self.files = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.file, count)));
        }
        let numbers: Int64Array = match rows {
            RowNumbers::From(first) => (*first as i64..*first as i64 + count as i64).collect::<Vec<_>>().into(),
            RowNumbers::List(rows) => rows.iter().map(|row| *row as i64).collect::<Vec<_>>().into(),
        };
        let mut columns = batch.columns().to_vec();
        columns.push(self.loads.slice(0, count));
        columns.push(self.files.slice(0, count));
        columns.push(Arc::new(numbers));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}
