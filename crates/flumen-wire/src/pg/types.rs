//! Arrow's types as Postgres' types.

use arrow::datatypes::{DataType, Field, Schema};
use postgres_types::Type;

/// A column of an answer, as it is described to a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    /// Its name.
    pub name: String,
    /// The table that it is of; 0 if it is computed.
    pub table: u32,
    /// Its number in that table.
    pub number: i16,
    /// Its type.
    pub kind: Type,
    /// Bytes of a value; -1 if they vary.
    pub size: i16,
    /// What the type's parentheses say; -1 for nothing.
    pub modifier: i32,
}

impl Column {
    /// A computed column.
    pub fn new(name: impl Into<String>, kind: Type) -> Self {
        let size = size(&kind);
        Self { name: name.into(), table: 0, number: 0, kind, size, modifier: -1 }
    }

    /// The number of its type.
    pub fn oid(&self) -> u32 {
        self.kind.oid()
    }
}

/// The columns of `schema`.
pub(crate) fn columns(schema: &Schema) -> Vec<Column> {
    schema.fields().iter().map(|field| column(field)).collect()
}

/// A column of a table.
pub(crate) fn column(field: &Field) -> Column {
    let modifier = modifier(field.data_type());
    Column { modifier, ..Column::new(field.name(), pg_type(field.data_type())) }
}

/// The type of values of `data_type`.
pub(crate) fn pg_type(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 => Type::INT8,
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Duration(_) | DataType::Interval(_) => Type::INTERVAL,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            array_of(&pg_type(element.data_type())).unwrap_or(Type::JSON)
        }
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => Type::JSON,
        DataType::Dictionary(_, values) => pg_type(values),
        DataType::RunEndEncoded(_, values) => pg_type(values.data_type()),
        _ => Type::TEXT,
    }
}

/// The scalars of which there are arrays.
const ARRAYS: &[(Type, Type)] = &[
    (Type::BOOL, Type::BOOL_ARRAY),
    (Type::INT2, Type::INT2_ARRAY),
    (Type::INT4, Type::INT4_ARRAY),
    (Type::INT8, Type::INT8_ARRAY),
    (Type::NUMERIC, Type::NUMERIC_ARRAY),
    (Type::FLOAT4, Type::FLOAT4_ARRAY),
    (Type::FLOAT8, Type::FLOAT8_ARRAY),
    (Type::DATE, Type::DATE_ARRAY),
    (Type::TIMESTAMP, Type::TIMESTAMP_ARRAY),
    (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
    (Type::TIME, Type::TIME_ARRAY),
    (Type::INTERVAL, Type::INTERVAL_ARRAY),
    (Type::BYTEA, Type::BYTEA_ARRAY),
    (Type::TEXT, Type::TEXT_ARRAY),
];

/// The type of arrays of `element`.
pub(crate) fn array_of(element: &Type) -> Option<Type> {
    ARRAYS.iter().find(|(scalar, _)| scalar == element).map(|(_, array)| array.clone())
}

fn modifier(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            ((i32::from(*precision) << 16) | i32::from(*scale)) + 4
        }
        DataType::UInt64 => (20 << 16) + 4,
        _ => -1,
    }
}

/// Bytes of a value of `kind`; -1 if they vary.
pub(crate) fn size(kind: &Type) -> i16 {
    match *kind {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID | Type::REGCLASS | Type::REGTYPE | Type::REGPROC => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => 8,
        Type::INTERVAL | Type::UUID => 16,
        Type::NAME => 64,
        _ => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn types_and_what_their_parentheses_say() {
        let list = |of: DataType| DataType::List(Arc::new(Field::new("item", of, true)));
        assert_eq!(pg_type(&list(DataType::Int64)), Type::INT8_ARRAY);
        assert_eq!(pg_type(&list(list(DataType::Int64))), Type::JSON);
        assert_eq!(pg_type(&DataType::UInt64), Type::NUMERIC);
        assert_eq!(modifier(&DataType::Decimal128(18, 4)), ((18 << 16) | 4) + 4);
        assert_eq!(column(&Field::new("a", DataType::Date32, true)).size, 4);
        for (scalar, array) in ARRAYS {
            assert_eq!(array.kind(), &postgres_types::Kind::Array(scalar.clone()));
        }
    }
}
