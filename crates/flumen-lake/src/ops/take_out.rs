//! Takes the rows of certain loads out of files that hold rows of others, too. The files that a load wrote by itself need
//! no reading: they go whole.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use flumen_core::Result;
use flumen_core::load::{LOAD_COLUMN, LoadId};

use super::rewrite::Operation;
use crate::sink::is_mixed;

/// The removal of the rows of some loads.
pub(crate) struct TakeOut {
    loads: HashSet<String>,
}

impl TakeOut {
    /// Takes out the rows whose load is among `loads`.
    pub(crate) fn new(loads: impl IntoIterator<Item = LoadId>) -> Self {
        Self { loads: loads.into_iter().map(|load| load.to_string()).collect() }
    }

    fn stays(&self, batch: &RecordBatch) -> BooleanArray {
        let column = batch.column_by_name(LOAD_COLUMN).and_then(|column| column.as_string_opt::<i32>());
        let Some(column) = column else { return BooleanArray::from(vec![true; batch.num_rows()]) };
        (0..column.len()).map(|row| Some(column.is_null(row) || !self.loads.contains(column.value(row)))).collect()
    }
}

impl Operation for TakeOut {
    fn learn(&mut self, _: &RecordBatch) -> Result<()> {
        Ok(())
    }

    fn concerns(&self, path: &str) -> bool {
        is_mixed(path)
    }

    fn probe_columns(&self) -> Vec<String> {
        vec![LOAD_COLUMN.to_owned()]
    }

    fn touched(&mut self, batch: &RecordBatch) -> Result<usize> {
        Ok(batch.num_rows() - self.stays(batch).true_count())
    }

    fn removes_touched(&self) -> bool {
        true
    }

    fn rewrite(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(filter_record_batch(batch, &self.stays(batch))?)
    }
}
