//! How Arrow's types are kept in Delta, and Delta's description of a schema.
//!
//! | Arrow | Delta |
//! | --- | --- |
//! | timestamp without zone | `timestamp_ntz`, microseconds |
//! | timestamp with zone | `timestamp`, UTC, microseconds |
//! | unsigned integers | the next wider signed; 64 bits: `decimal(20,0)` |
//! | decimals | `decimal` up to 38 digits |
//! | time of day | `string`, `HH:MM:SS.ffffff` |
//! | list, struct, map | as they are |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use flumen_core::{Error, Result};
use serde_json::{Value, json};

/// The type as which the lake keeps a column of `data_type`.
///
/// Errors: `Invalid` for one that Delta cannot keep without loss.
pub fn stored_type(data_type: &DataType) -> Result<DataType> {
    use DataType as T;
    Ok(match data_type {
        T::Null | T::Boolean | T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 | T::Date32 => {
            data_type.clone()
        }
        T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        T::UInt32 => T::Int64,
        T::UInt64 => T::Decimal128(20, 0),
        T::Float16 => T::Float32,
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Time32(_) | T::Time64(_) => T::Utf8,
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Date64 => T::Date32,
        T::Timestamp(_, None) => T::Timestamp(TimeUnit::Microsecond, None),
        T::Timestamp(_, Some(_)) => utc_timestamp(),
        T::Decimal32(precision, scale)
        | T::Decimal64(precision, scale)
        | T::Decimal128(precision, scale)
        | T::Decimal256(precision, scale) => decimal(*precision, *scale)?,
        T::Dictionary(_, values) => stored_type(values)?,
        T::RunEndEncoded(_, values) => stored_type(values.data_type())?,
        T::List(item) | T::LargeList(item) | T::ListView(item) | T::LargeListView(item) | T::FixedSizeList(item, _) => {
            T::List(Arc::new(Field::new("element", stored_type(item.data_type())?, true)))
        }
        T::Struct(fields) => T::Struct(stored_fields(fields)?),
        T::Map(entries, _) => map(entries)?,
        T::Duration(_) | T::Interval(_) | T::Union(..) => {
            return Err(Error::invalid(format!("the lake cannot keep a column of the type {data_type}"))
                .hint("give it another type with --types, for example text or bigint"));
        }
    })
}

/// `timestamp` of Delta.
pub fn utc_timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn decimal(precision: u8, scale: i8) -> Result<DataType> {
    // A negative scale means trailing zeros: Delta writes them out.
    let (digits, places) = if scale < 0 {
        (i32::from(precision) - i32::from(scale), 0)
    } else {
        (i32::from(precision).max(i32::from(scale)), scale)
    };
    match u8::try_from(digits) {
        Ok(digits) if digits <= 38 => Ok(DataType::Decimal128(digits, places)),
        _ => {
            Err(Error::invalid(format!("a decimal of {digits} digits is wider than the 38 that a lake table can keep"))
                .hint("give the column another type with --types, for example decimal(38,10), double or text"))
        }
    }
}

fn stored_fields(fields: &Fields) -> Result<Fields> {
    fields.iter().map(|field| Ok(Arc::new(Field::new(field.name(), stored_type(field.data_type())?, true)))).collect()
}

fn map(entries: &Field) -> Result<DataType> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(Error::internal("a map's entries are not structs"));
    };
    let (Some(key), Some(value)) = (fields.first(), fields.get(1)) else {
        return Err(Error::internal("a map's entries lack a key or a value"));
    };
    let fields = Fields::from(vec![
        Field::new("key", stored_type(key.data_type())?, false),
        Field::new("value", stored_type(value.data_type())?, true),
    ]);
    Ok(DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(fields), false)), false))
}

/// The columns of `schema` as the lake keeps them: nullable all, so that files without a column stay readable; columns of
/// type Null left out.
///
/// Errors: `Invalid` for a type that cannot be kept, and for two names that differ in case only: Delta takes them for one.
pub fn stored_schema(schema: &Schema) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    let mut seen = std::collections::HashMap::new();
    for field in schema.fields() {
        if let Some(other) = seen.insert(field.name().to_lowercase(), field.name()) {
            return Err(Error::invalid(format!(
                "the columns '{other}' and '{}' have the same name to a lake table",
                field.name()
            ))
            .hint("rename one of them with --rename"));
        }
        let data_type =
            stored_type(field.data_type()).map_err(|error| error.within(format!("column '{}'", field.name())))?;
        if data_type != DataType::Null {
            fields.push(Field::new(field.name(), data_type, true));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Whether two types are the same but for the names and the nullability of what is within lists, maps and structs.
pub fn same_type(left: &DataType, right: &DataType) -> bool {
    use DataType as T;
    match (left, right) {
        (T::List(left), T::List(right)) => same_type(left.data_type(), right.data_type()),
        (T::Map(left, _), T::Map(right, _)) => match (left.data_type(), right.data_type()) {
            (T::Struct(left), T::Struct(right)) => {
                left.iter().zip(right.iter()).all(|(left, right)| same_type(left.data_type(), right.data_type()))
            }
            _ => false,
        },
        (T::Struct(left), T::Struct(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right.iter())
                    .all(|(left, right)| left.name() == right.name() && same_type(left.data_type(), right.data_type()))
        }
        (T::Timestamp(TimeUnit::Microsecond, left), T::Timestamp(TimeUnit::Microsecond, right)) => {
            left.is_some() == right.is_some()
        }
        _ => left == right,
    }
}

/// Delta's description of a column.
///
/// Errors: `Internal` for a type that did not come from [`stored_type`].
pub(crate) fn delta_field(field: &Field) -> Result<Value> {
    Ok(json!({
        "name": field.name(),
        "type": delta_type(field.data_type())?,
        "nullable": field.is_nullable(),
        "metadata": {},
    }))
}

/// Delta's description of a schema (`schemaString`).
pub(crate) fn delta_schema(schema: &Schema) -> Result<Value> {
    let fields = schema.fields().iter().map(|field| delta_field(field)).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "type": "struct", "fields": fields }))
}

fn delta_type(data_type: &DataType) -> Result<Value> {
    use DataType as T;
    let name = match data_type {
        T::Boolean => "boolean",
        T::Int8 => "byte",
        T::Int16 => "short",
        T::Int32 => "integer",
        T::Int64 => "long",
        T::Float32 => "float",
        T::Float64 => "double",
        T::Utf8 | T::LargeUtf8 | T::Utf8View => "string",
        T::Binary | T::LargeBinary | T::BinaryView => "binary",
        T::Date32 => "date",
        T::Timestamp(_, None) => "timestamp_ntz",
        T::Timestamp(_, Some(_)) => "timestamp",
        T::Decimal128(precision, scale) => return Ok(json!(format!("decimal({precision},{scale})"))),
        T::List(item) => {
            return Ok(json!({
                "type": "array", "elementType": delta_type(item.data_type())?, "containsNull": true,
            }));
        }
        T::Struct(fields) => {
            let fields = fields.iter().map(|field| delta_field(field)).collect::<Result<Vec<_>>>()?;
            return Ok(json!({ "type": "struct", "fields": fields }));
        }
        T::Map(entries, _) => {
            let T::Struct(fields) = entries.data_type() else {
                return Err(Error::internal("a map's entries are not structs"));
            };
            let (Some(key), Some(value)) = (fields.first(), fields.get(1)) else {
                return Err(Error::internal("a map's entries lack a key or a value"));
            };
            return Ok(json!({
                "type": "map",
                "keyType": delta_type(key.data_type())?,
                "valueType": delta_type(value.data_type())?,
                "valueContainsNull": true,
            }));
        }
        other => return Err(Error::internal(format!("Delta has no type for {other}"))),
    };
    Ok(json!(name))
}

/// Whether the table feature `timestampNtz` is needed for `data_type`.
pub(crate) fn has_timestamp_ntz(data_type: &DataType) -> bool {
    use DataType as T;
    match data_type {
        T::Timestamp(_, None) => true,
        T::List(item) | T::Map(item, _) => has_timestamp_ntz(item.data_type()),
        T::Struct(fields) => fields.iter().any(|field| has_timestamp_ntz(field.data_type())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data_type: DataType, expect: &str) {
        let got = match stored_type(&data_type) {
            Ok(kept) => delta_type(&kept).unwrap().to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{data_type}");
    }

    #[test]
    fn every_type_has_its_place() {
        use DataType as T;
        check(T::UInt8, r#""short""#);
        check(T::UInt64, r#""decimal(20,0)""#);
        check(T::Timestamp(TimeUnit::Nanosecond, None), r#""timestamp_ntz""#);
        check(T::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())), r#""timestamp""#);
        check(T::Time64(TimeUnit::Microsecond), r#""string""#);
        check(T::Decimal256(38, 2), r#""decimal(38,2)""#);
        check(T::Decimal128(5, -2), r#""decimal(7,0)""#);
        check(T::Decimal256(40, 2), "a decimal of 40 digits is wider than the 38 that a lake table can keep");
        check(
            T::List(Arc::new(Field::new("x", T::UInt16, true))),
            r#"{"containsNull":true,"elementType":"integer","type":"array"}"#,
        );
        check(T::Duration(TimeUnit::Second), "the lake cannot keep a column of the type Duration(s)");
    }

    #[test]
    fn names_that_differ_in_case_only_are_refused() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int8, true), Field::new("A", DataType::Int8, true)]);
        assert!(stored_schema(&schema).unwrap_err().to_string().contains("'a' and 'A'"));
    }
}
