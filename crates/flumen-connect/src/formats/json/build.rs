//! Columns out of the values of many records: one column at a time, and what is within it after it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};
use flumen_core::Result;
use flumen_core::text::{TextColumn, TextOptions};

use super::scan;

/// Is told the row and the text of a value that does not fit.
type Miss<'m> = dyn FnMut(usize, &[u8]) + 'm;

/// The array of `values`, each of which belongs to the row at the same place of `rows`. No value means null.
pub(super) fn array(
    data_type: &DataType,
    values: &[Option<&[u8]>],
    rows: &[usize],
    options: &TextOptions,
    miss: &mut Miss<'_>,
) -> Result<ArrayRef> {
    match data_type {
        DataType::Struct(fields) => objects(fields, values, rows, options, miss),
        DataType::List(item) => lists(item, values, rows, options, miss),
        _ => scalars(data_type, values, rows, options, miss),
    }
}

fn is_null(value: &[u8]) -> bool {
    value == b"null"
}

fn scalars(
    data_type: &DataType,
    values: &[Option<&[u8]>],
    rows: &[usize],
    options: &TextOptions,
    miss: &mut Miss<'_>,
) -> Result<ArrayRef> {
    let mut column = TextColumn::new(data_type, values.len(), options)?;
    for (value, row) in values.iter().zip(rows) {
        let Some(value) = value.filter(|value| !is_null(value)) else {
            column.append_null();
            continue;
        };
        let fits = if value.first() == Some(&b'"') {
            let text = scan::text(value);
            if !text.is_empty() && options.is_null(text.as_bytes()) {
                column.append_null();
                true
            } else {
                column.append(text.as_bytes())
            }
        } else {
            column.append(value)
        };
        if !fits {
            miss(*row, value);
        }
    }
    Ok(column.finish())
}

fn objects(
    fields: &Fields,
    values: &[Option<&[u8]>],
    rows: &[usize],
    options: &TextOptions,
    miss: &mut Miss<'_>,
) -> Result<ArrayRef> {
    let places: HashMap<&str, usize> =
        fields.iter().enumerate().map(|(at, field)| (field.name().as_str(), at)).collect();
    let mut columns: Vec<Vec<Option<&[u8]>>> = vec![vec![None; values.len()]; fields.len()];
    let mut valid = vec![false; values.len()];
    for (at, value) in values.iter().enumerate() {
        match value {
            Some(object) if object.first() == Some(&b'{') => {
                valid[at] = true;
                scan::members(object, &mut |key, value| {
                    if let Some(place) = places.get(key.as_ref()) {
                        columns[*place][at] = Some(value);
                    }
                });
            }
            Some(other) if !is_null(other) => miss(rows[at], other),
            _ => {}
        }
    }
    let mut arrays = Vec::with_capacity(fields.len());
    for (field, column) in fields.iter().zip(&columns) {
        arrays.push(array(field.data_type(), column, rows, options, miss)?);
    }
    Ok(Arc::new(StructArray::try_new(fields.clone(), arrays, Some(NullBuffer::from(valid)))?))
}

fn lists(
    item: &FieldRef,
    values: &[Option<&[u8]>],
    rows: &[usize],
    options: &TextOptions,
    miss: &mut Miss<'_>,
) -> Result<ArrayRef> {
    let (mut elements, mut of_rows, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(values.len()));
    let mut valid = vec![false; values.len()];
    for (at, value) in values.iter().enumerate() {
        let before = elements.len();
        match value {
            Some(list) if list.first() == Some(&b'[') => {
                valid[at] = true;
                scan::elements(list, &mut |element| {
                    elements.push(Some(element));
                    of_rows.push(rows[at]);
                });
            }
            Some(other) if !is_null(other) => miss(rows[at], other),
            _ => {}
        }
        lengths.push(elements.len() - before);
    }
    let elements = array(item.data_type(), &elements, &of_rows, options, miss)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, elements, Some(NullBuffer::from(valid)))?))
}
