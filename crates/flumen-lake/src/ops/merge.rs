//! Merge: a row of the load takes the place of the row with the same key; others are added.
//!
//! The keys of the load are kept in memory (a few dozen bytes each); the rows of the table stream past them.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use flumen_core::{Error, Result};

use super::rewrite::Operation;

/// The columns that identify a row, and how their values become comparable bytes.
pub(crate) struct Keys {
    pub(crate) columns: Vec<String>,
    converter: Option<RowConverter>,
}

impl Keys {
    pub(crate) fn new(columns: Vec<String>) -> Self {
        Self { columns, converter: None }
    }

    /// The keys of `batch`.
    pub(crate) fn rows(&mut self, batch: &RecordBatch) -> Result<Rows> {
        rows_of(&mut self.converter, batch, &self.columns)
    }

    /// Refuses null in a key.
    pub(crate) fn refuse_nulls(&self, batch: &RecordBatch) -> Result<()> {
        for name in &self.columns {
            let column = column(batch, name)?;
            if let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) {
                return Err(Error::data(format!(
                    "the key column '{name}' is null in a row of the load: {}",
                    show(batch, row)
                ))
                .hint("a row without a key cannot be merged; leave such rows out, or choose other keys"));
            }
        }
        Ok(())
    }

    /// The error for a key that comes twice.
    pub(crate) fn duplicate(&self, batch: &RecordBatch, row: usize) -> Error {
        let values = self.columns.iter().map(|name| format!("{name} = {}", value(batch, name, row)));
        Error::data(format!("two rows of the load have the same key: {}", values.collect::<Vec<_>>().join(", ")))
            .hint("leave one of them out, or add a column to the keys")
    }
}

/// The values of `columns` as comparable bytes.
pub(crate) fn rows_of(converter: &mut Option<RowConverter>, batch: &RecordBatch, columns: &[String]) -> Result<Rows> {
    let arrays = columns.iter().map(|name| column(batch, name).cloned()).collect::<Result<Vec<_>>>()?;
    let converter = match converter {
        Some(converter) => converter,
        None => {
            let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
            converter.insert(RowConverter::new(fields)?)
        }
    };
    Ok(converter.convert_columns(&arrays)?)
}

/// The column `name` of `batch`.
pub(crate) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::invalid(format!("the load has no column '{name}'")))
}

fn value(batch: &RecordBatch, name: &str, row: usize) -> String {
    let shown = column(batch, name).ok().map(|column| arrow::util::display::array_value_to_string(column, row));
    shown.and_then(Result::ok).unwrap_or_default()
}

/// A row, for a message.
pub(crate) fn show(batch: &RecordBatch, row: usize) -> String {
    let fields = batch.schema();
    let shown =
        fields.fields().iter().take(8).map(|field| format!("{} = {}", field.name(), value(batch, field.name(), row)));
    shown.collect::<Vec<_>>().join(", ")
}

/// The merge of one load.
pub(crate) struct Merge {
    keys: Keys,
    delete_flag: Option<String>,
    seen: HashSet<Box<[u8]>>,
    deletes: bool,
}

impl Merge {
    /// A merge by `keys`; a row in which `delete_flag` is true deletes the row with its key.
    pub(crate) fn new(keys: Vec<String>, delete_flag: Option<String>) -> Self {
        Self { keys: Keys::new(keys), delete_flag, seen: HashSet::new(), deletes: false }
    }

    fn flags(&self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(name) = &self.delete_flag else { return Ok(None) };
        let column = column(batch, name)?;
        if *column.data_type() != DataType::Boolean {
            return Err(Error::invalid(format!(
                "the delete flag '{name}' is {}, not true or false",
                column.data_type()
            ))
            .hint(format!("give it the type boolean with --types {name}=boolean")));
        }
        Ok(column.as_boolean_opt().cloned())
    }
}

impl Operation for Merge {
    fn learn(&mut self, batch: &RecordBatch) -> Result<()> {
        self.keys.refuse_nulls(batch)?;
        let keys = self.keys.rows(batch)?;
        for (row, key) in keys.iter().enumerate() {
            if !self.seen.insert(key.as_ref().into()) {
                return Err(self.keys.duplicate(batch, row));
            }
        }
        self.deletes |= self.flags(batch)?.is_some_and(|flags| flags.true_count() > 0);
        Ok(())
    }

    fn probe_columns(&self) -> Vec<String> {
        self.keys.columns.clone()
    }

    fn touched(&mut self, batch: &RecordBatch) -> Result<usize> {
        let keys = self.keys.rows(batch)?;
        Ok(keys.iter().filter(|key| self.seen.contains(key.as_ref())).count())
    }

    fn removes_touched(&self) -> bool {
        true
    }

    fn rewrite(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut converter = None;
        let keys = rows_of(&mut converter, batch, &self.keys.columns)?;
        let stays: BooleanArray = keys.iter().map(|key| Some(!self.seen.contains(key.as_ref()))).collect();
        Ok(filter_record_batch(batch, &stays)?)
    }

    fn rewrites_source(&self) -> bool {
        self.deletes
    }

    fn rewrite_source(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let Some(flags) = self.flags(batch)? else { return Ok(batch.clone()) };
        let stays: BooleanArray = flags.iter().map(|flag| Some(flag != Some(true))).collect();
        Ok(filter_record_batch(batch, &stays)?)
    }
}
