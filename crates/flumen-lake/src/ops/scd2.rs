//! Slowly changing dimension, type 2: a changed row closes the one before and opens a new one.
//!
//! The row that holds now has null in the column `valid_to`. A row of the load whose key is new, or whose values differ from
//! the row that holds now, opens at the time of the load; one that says nothing new is left out. A key that the load does not
//! have stays as it is.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::Schema;
use arrow::row::RowConverter;
use flumen_core::{Error, Result};

use super::merge::{Keys, column, rows_of};
use super::rewrite::Operation;

/// What the load says of one key.
struct Wanted {
    values: Box<[u8]>,
    /// Whether the row that holds now says the same.
    unchanged: bool,
}

/// The scd2 load of one set of rows.
pub(crate) struct Scd2 {
    keys: Keys,
    /// The columns whose change makes a new row.
    values: Vec<String>,
    value_rows: Option<RowConverter>,
    valid_from: String,
    valid_to: String,
    at_micros: i64,
    wanted: HashMap<Box<[u8]>, Wanted>,
}

impl Scd2 {
    /// The load of rows with the columns of `load`, which hold from `at_micros` (microseconds since 1970, UTC) on.
    pub(crate) fn new(keys: Vec<String>, load: &Schema, valid_from: String, valid_to: String, at_micros: i64) -> Self {
        let values = load.fields().iter().map(|field| field.name().clone());
        let values = values
            .filter(|name| {
                !keys.contains(name) && *name != valid_from && *name != valid_to && !name.starts_with("_flumen_")
            })
            .collect();
        let wanted = HashMap::new();
        Self { keys: Keys::new(keys), values, value_rows: None, valid_from, valid_to, at_micros, wanted }
    }

    /// For each row of the table: whether it holds now and the load has another for its key.
    fn closes(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let keys = rows_of(&mut None, batch, &self.keys.columns)?;
        let values = rows_of(&mut None, batch, &self.values)?;
        let until = column(batch, &self.valid_to)?;
        Ok((0..batch.num_rows())
            .map(|row| {
                let wanted = self.wanted.get(keys.row(row).as_ref()).filter(|_| until.is_null(row));
                Some(wanted.is_some_and(|wanted| *wanted.values != *values.row(row).as_ref()))
            })
            .collect())
    }

    fn at(&self, rows: usize) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![self.at_micros; rows]).with_timezone("UTC"))
    }
}

/// `batch` with another column in the place of `name`.
fn with_column(batch: &RecordBatch, name: &str, column: ArrayRef) -> Result<RecordBatch> {
    let place = batch.schema().index_of(name)?;
    let mut columns = batch.columns().to_vec();
    if let Some(there) = columns.get_mut(place) {
        *there = arrow::compute::cast(&column, there.data_type())?;
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

impl Operation for Scd2 {
    fn learn(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.values.is_empty() {
            return Err(Error::invalid("the load has no column beside its keys whose change could be kept")
                .hint("load with --mode merge instead"));
        }
        self.keys.refuse_nulls(batch)?;
        let keys = self.keys.rows(batch)?;
        let values = rows_of(&mut self.value_rows, batch, &self.values)?;
        for row in 0..batch.num_rows() {
            let wanted = Wanted { values: values.row(row).as_ref().into(), unchanged: false };
            if self.wanted.insert(keys.row(row).as_ref().into(), wanted).is_some() {
                return Err(self.keys.duplicate(batch, row));
            }
        }
        Ok(())
    }

    fn probe_columns(&self) -> Vec<String> {
        let validity = std::iter::once(&self.valid_to);
        self.keys.columns.iter().chain(&self.values).chain(validity).cloned().collect()
    }

    fn restart(&mut self) {
        for wanted in self.wanted.values_mut() {
            wanted.unchanged = false;
        }
    }

    fn touched(&mut self, batch: &RecordBatch) -> Result<usize> {
        let closes = self.closes(batch)?;
        let keys = self.keys.rows(batch)?;
        let until = column(batch, &self.valid_to)?;
        for row in (0..batch.num_rows()).filter(|row| until.is_null(*row) && !closes.value(*row)) {
            if let Some(wanted) = self.wanted.get_mut(keys.row(row).as_ref()) {
                wanted.unchanged = true;
            }
        }
        Ok(closes.true_count())
    }

    fn removes_touched(&self) -> bool {
        false
    }

    fn rewrite(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let until = column(batch, &self.valid_to)?;
        let at = arrow::compute::cast(&self.at(batch.num_rows()), until.data_type())?;
        let closed = zip(&self.closes(batch)?, &at, until)?;
        with_column(batch, &self.valid_to, closed)
    }

    fn rewrites_source(&self) -> bool {
        true
    }

    fn rewrite_source(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keys = rows_of(&mut None, batch, &self.keys.columns)?;
        let says_something = |key: &[u8]| self.wanted.get(key).is_none_or(|wanted| !wanted.unchanged);
        let stays: BooleanArray = keys.iter().map(|key| Some(says_something(key.as_ref()))).collect();
        let batch = filter_record_batch(batch, &stays)?;
        let opened = with_column(&batch, &self.valid_from, self.at(batch.num_rows()))?;
        let open = new_null_array(column(&opened, &self.valid_to)?.data_type(), opened.num_rows());
        with_column(&opened, &self.valid_to, open)
    }
}
