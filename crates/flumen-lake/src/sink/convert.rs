//! Brings the columns of a batch into the types and the order in which the table keeps them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, SchemaRef, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
};
use arrow::util::display::FormatOptions;
use flumen_core::{Error, Result};

use crate::constraints::describe_row;
use crate::types::same_type;

/// How the batches of a load become rows of its files.
#[derive(Debug)]
pub(crate) struct Conversion {
    /// For each column of the file: its place in the batch.
    pub(crate) from: Vec<usize>,
    /// The columns of the file.
    pub(crate) schema: SchemaRef,
}

impl Conversion {
    /// The columns of `batch`, as the file has them. Dictionaries of text stay dictionaries: they are cheaper to encode.
    ///
    /// Errors: `Data` for a value that does not fit the column, or a null where the table allows none.
    pub(crate) fn apply(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(self.from.len());
        for (field, from) in self.schema.fields().iter().zip(&self.from) {
            let Some(column) = batch.columns().get(*from) else {
                return Err(Error::internal(format!("a batch lacks the column '{}'", field.name())));
            };
            if !field.is_nullable() && column.logical_null_count() > 0 {
                let row = (0..column.len()).find(|row| column.is_null(*row)).unwrap_or_default();
                return Err(Error::data(format!(
                    "column '{}' has a null, which the table does not allow: {}",
                    field.name(),
                    describe_row(batch, row)
                ))
                .hint("give a value, or allow nulls: alter table … alter column … drop not null"));
            }
            let converted = convert(column, field.data_type());
            columns.push(converted.map_err(|error| error.within(format!("column '{}'", field.name())))?);
        }
        Ok(columns)
    }
}

fn convert(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    match (column.data_type(), wanted) {
        (have, want) if have == want => Ok(Arc::clone(column)),
        (DataType::Dictionary(_, values), DataType::Utf8) if **values == DataType::Utf8 => Ok(Arc::clone(column)),
        (DataType::Time32(_) | DataType::Time64(_), DataType::Utf8) => times(column),
        (have, want) if same_type(have, want) && !have.is_nested() => cast(column, wanted),
        (_, _) => cast(column, wanted),
    }
}

fn cast(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    // Not safe: a value that does not fit is an error, never a null.
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    Ok(cast_with_options(column, wanted, &options)?)
}

/// Times of day as `HH:MM:SS.ffffff`.
fn times(column: &ArrayRef) -> Result<ArrayRef> {
    let micros = |row: usize| -> Option<i64> {
        Some(match column.data_type() {
            DataType::Time32(TimeUnit::Second) => {
                i64::from(column.as_primitive_opt::<Time32SecondType>()?.value(row)) * 1_000_000
            }
            DataType::Time32(_) => i64::from(column.as_primitive_opt::<Time32MillisecondType>()?.value(row)) * 1_000,
            DataType::Time64(TimeUnit::Nanosecond) => {
                column.as_primitive_opt::<Time64NanosecondType>()?.value(row) / 1_000
            }
            _ => column.as_primitive_opt::<Time64MicrosecondType>()?.value(row),
        })
    };
    let mut text = StringBuilder::with_capacity(column.len(), column.len() * 15);
    for row in 0..column.len() {
        if column.is_null(row) {
            text.append_null();
            continue;
        }
        let micros = micros(row).ok_or_else(|| Error::internal("a time of day has an unknown unit"))?;
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        text.append_value(format!("{hour:02}:{minute:02}:{second:02}.{fraction:06}"));
    }
    Ok(Arc::new(text.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Time32SecondArray, Time64NanosecondArray};

    #[test]
    fn times_are_written_out() {
        let check = |column: ArrayRef, expect: &str| {
            let text = convert(&column, &DataType::Utf8).unwrap();
            assert_eq!(text.as_string::<i32>().value(0), expect);
        };
        check(Arc::new(Time32SecondArray::from(vec![3_661])), "01:01:01.000000");
        check(Arc::new(Time64NanosecondArray::from(vec![86_399_999_999_999])), "23:59:59.999999");
    }
}
