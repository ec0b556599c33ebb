//! A value of any array as JSON: nested values keep their structure, everything that JSON has no type for is text.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};

use crate::error::Result;

/// The value of `array` at `row`.
pub fn value(array: &dyn Array, row: usize) -> Result<Value> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    macro_rules! number {
        ($type:ty) => {
            Value::from(array.as_primitive::<$type>().value(row))
        };
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::from(array.as_boolean().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        // JSON has no NaN and no infinity: there `Value::from` gives null.
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let mut object = Map::new();
            for (field, column) in fields.iter().zip(columns.columns()) {
                object.insert(field.name().clone(), value(column, row)?);
            }
            Value::Object(object)
        }
        DataType::List(_) => elements(&array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => elements(&array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => elements(&array.as_fixed_size_list().value(row))?,
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let mut object = Map::new();
            for at in 0..entries.len() {
                object.insert(array_value_to_string(keys, at)?, value(values, at)?);
            }
            Value::Object(object)
        }
        _ => Value::from(array_value_to_string(array, row)?),
    })
}

fn elements(array: &dyn Array) -> Result<Value> {
    (0..array.len()).map(|row| value(array, row)).collect::<Result<Vec<_>>>().map(Value::Array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::Field;
    use std::sync::Arc;

    #[test]
    fn nested_values_keep_their_structure() {
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        let fields = [
            (
                Arc::new(Field::new("a", DataType::Utf8, true)),
                Arc::new(StringArray::from(vec!["x\"", "y"])) as ArrayRef,
            ),
            (Arc::new(Field::new("b", list.data_type().clone(), true)), Arc::new(list) as ArrayRef),
        ];
        let array = StructArray::from(Vec::from(fields));
        assert_eq!(value(&array, 0).unwrap().to_string(), r#"{"a":"x\"","b":[1,null]}"#);
        assert_eq!(value(&array, 1).unwrap().to_string(), r#"{"a":"y","b":null}"#);
        assert_eq!(value(&Int64Array::from(vec![7]), 0).unwrap().to_string(), "7");
    }
}
