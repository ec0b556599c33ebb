//! Which Postgres type keeps which Arrow type, and the other way round. `docs/types.md` has the same tables in prose.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use flumen_core::{Error, Result};

/// Type numbers of Postgres that are fixed for ever (`pg_type.dat`).
pub mod oid {
    #![allow(missing_docs, reason = "each is the name of a Postgres type")]
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const JSON: u32 = 114;
    pub const XML: u32 = 142;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// How one value goes over the wire in a binary COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, from a decimal.
    Numeric,
    /// `numeric`, from a number written out.
    NumericText,
    /// `text` and all whose binary form is their text.
    Text,
    /// `jsonb`, from JSON text.
    JsonbText,
    /// `jsonb`, from a nested value.
    Jsonb,
    /// `uuid`, from text.
    Uuid,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timestamp` and `timestamptz`
    Timestamp,
    /// `interval`
    Interval,
    /// An array of scalars, with their type.
    Array(Box<Wire>, u32),
}

/// The Arrow type in which rows for Postgres come, for a column of `data_type`.
///
/// Errors: `Invalid` for a type that Postgres cannot keep without loss.
pub fn stored_type(data_type: &DataType) -> Result<DataType> {
    use DataType as D;
    Ok(match data_type {
        D::Null | D::Boolean | D::Int16 | D::Int32 | D::Int64 | D::Float32 | D::Float64 | D::Date32 => {
            data_type.clone()
        }
        D::Int8 | D::UInt8 => D::Int16,
        D::UInt16 => D::Int32,
        D::UInt32 => D::Int64,
        D::UInt64 => D::Decimal128(20, 0),
        D::Float16 => D::Float32,
        D::Date64 => D::Date32,
        D::Decimal32(precision, scale) | D::Decimal64(precision, scale) | D::Decimal128(precision, scale) => {
            plain_decimal(*precision, *scale)?
        }
        D::Decimal256(precision, scale) => match plain_decimal(*precision, *scale)? {
            D::Decimal128(precision, scale) => D::Decimal256(precision, scale),
            other => other,
        },
        D::Utf8 | D::LargeUtf8 | D::Utf8View => D::Utf8,
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => D::Binary,
        D::Time32(_) | D::Time64(_) => D::Time64(TimeUnit::Microsecond),
        D::Timestamp(_, None) => D::Timestamp(TimeUnit::Microsecond, None),
        D::Timestamp(_, Some(_)) => D::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        D::Duration(_) => D::Duration(TimeUnit::Microsecond),
        D::Interval(_) => D::Interval(IntervalUnit::MonthDayNano),
        D::Dictionary(_, values) => stored_type(values)?,
        D::RunEndEncoded(_, values) => stored_type(values.data_type())?,
        D::List(item) | D::LargeList(item) | D::ListView(item) | D::LargeListView(item) | D::FixedSizeList(item, _) => {
            D::List(stored_item(item)?)
        }
        D::Struct(fields) => D::Struct(fields.iter().map(stored_field).collect::<Result<Vec<_>>>()?.into()),
        // A map's entries keep their shape; the JSON writer takes any type within.
        D::Map(entries, sorted) => D::Map(Arc::clone(entries), *sorted),
        D::Union(..) => {
            return Err(Error::invalid("a column of a union type cannot be kept in Postgres")
                .hint("leave the column out with --select, or write the values as text"));
        }
    })
}

fn plain_decimal(precision: u8, scale: i8) -> Result<DataType> {
    if scale >= 0 {
        // A scale above the precision (0.0001 as decimal(1,4)) needs as many digits as places.
        let precision = precision.max(scale.unsigned_abs());
        return Ok(if precision > 38 {
            DataType::Decimal256(precision, scale)
        } else {
            DataType::Decimal128(precision, scale)
        });
    }
    match precision.saturating_add(scale.unsigned_abs()) {
        digits @ ..=38 => Ok(DataType::Decimal128(digits, 0)),
        digits @ 39..=76 => Ok(DataType::Decimal256(digits, 0)),
        digits => Err(Error::invalid(format!("a decimal of {digits} digits is wider than the 76 that can be read"))
            .hint("give the column another type with --types")),
    }
}

fn stored_field(field: &Arc<Field>) -> Result<Arc<Field>> {
    let stored = match stored_type(field.data_type())? {
        // Nobody knows better within a nested value: JSON null.
        DataType::Null => DataType::Utf8,
        // The JSON writer knows zones by their offset alone.
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(unit, Some("+00:00".into())),
        other => other,
    };
    Ok(Arc::new(field.as_ref().clone().with_data_type(stored)))
}

fn stored_item(item: &Arc<Field>) -> Result<Arc<Field>> {
    let stored = match stored_type(item.data_type())? {
        DataType::Null => DataType::Utf8,
        other => other,
    };
    Ok(Arc::new(Field::new("item", stored, true)))
}

/// The Postgres type that a new column gets for a stored type, and how its values go over the wire.
///
/// Errors: `Internal` for a type that [`stored_type`] never gives.
pub fn column_type(stored: &DataType) -> Result<(String, Wire)> {
    use DataType as D;
    Ok(match stored {
        D::Boolean => ("boolean".into(), Wire::Bool),
        D::Int16 => ("smallint".into(), Wire::Int2),
        D::Int32 => ("integer".into(), Wire::Int4),
        D::Int64 => ("bigint".into(), Wire::Int8),
        D::Float32 => ("real".into(), Wire::Float4),
        D::Float64 => ("double precision".into(), Wire::Float8),
        D::Decimal128(precision, scale) | D::Decimal256(precision, scale) => {
            // A key made from uint64 reads better without its zeros.
            let name =
                if *scale == 0 { format!("numeric({precision})") } else { format!("numeric({precision},{scale})") };
            (name, Wire::Numeric)
        }
        D::Utf8 => ("text".into(), Wire::Text),
        D::Binary => ("bytea".into(), Wire::Bytea),
        D::Date32 => ("date".into(), Wire::Date),
        D::Time64(TimeUnit::Microsecond) => ("time".into(), Wire::Time),
        D::Timestamp(TimeUnit::Microsecond, None) => ("timestamp".into(), Wire::Timestamp),
        D::Timestamp(TimeUnit::Microsecond, Some(_)) => ("timestamptz".into(), Wire::Timestamp),
        D::Duration(_) | D::Interval(_) => ("interval".into(), Wire::Interval),
        D::List(item) => match array_item(item.data_type()) {
            Some(element) => {
                let (name, wire) = column_type(item.data_type())?;
                (format!("{name}[]"), Wire::Array(Box::new(wire), element))
            }
            None => ("jsonb".into(), Wire::Jsonb),
        },
        D::Struct(_) | D::Map(..) => ("jsonb".into(), Wire::Jsonb),
        other => return Err(Error::internal(format!("no Postgres type is known for {other}"))),
    })
}

/// The type number of a scalar that may stand in an array.
fn array_item(stored: &DataType) -> Option<u32> {
    use DataType as D;
    Some(match stored {
        D::Boolean => oid::BOOL,
        D::Int16 => oid::INT2,
        D::Int32 => oid::INT4,
        D::Int64 => oid::INT8,
        D::Float32 => oid::FLOAT4,
        D::Float64 => oid::FLOAT8,
        D::Decimal128(..) | D::Decimal256(..) => oid::NUMERIC,
        D::Utf8 => oid::TEXT,
        D::Binary => oid::BYTEA,
        D::Date32 => oid::DATE,
        D::Time64(_) => oid::TIME,
        D::Timestamp(_, None) => oid::TIMESTAMP,
        D::Timestamp(_, Some(_)) => oid::TIMESTAMPTZ,
        D::Duration(_) | D::Interval(_) => oid::INTERVAL,
        _ => return None,
    })
}

/// A column's type as the catalog of Postgres has it, domains resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgType {
    /// Its number.
    pub oid: u32,
    /// Its modifier: precision and scale of a numeric; -1 if there is none.
    pub modifier: i32,
    /// For an array, the number of its items' type; otherwise 0.
    pub element: u32,
    /// Whether its binary form is its text: enums, `citext`.
    pub is_text: bool,
}

impl PgType {
    /// The Arrow type in which a column of this type is read and written. What has no counterpart is text.
    pub fn arrow(&self) -> DataType {
        if self.element != 0 {
            let item = PgType { oid: self.element, modifier: self.modifier, element: 0, is_text: false };
            return DataType::List(Arc::new(Field::new("item", item.arrow(), true)));
        }
        match self.oid {
            oid::BOOL => DataType::Boolean,
            oid::INT2 => DataType::Int16,
            oid::INT4 => DataType::Int32,
            oid::INT8 | oid::OID => DataType::Int64,
            oid::FLOAT4 => DataType::Float32,
            oid::FLOAT8 => DataType::Float64,
            oid::NUMERIC => match self.numeric() {
                Some((precision, scale)) if precision <= 38 => DataType::Decimal128(precision, scale),
                Some((precision, scale)) => DataType::Decimal256(precision, scale),
                // Any number of digits on either side: only text holds them all.
                None => DataType::Utf8,
            },
            oid::BYTEA => DataType::Binary,
            oid::DATE => DataType::Date32,
            oid::TIME => DataType::Time64(TimeUnit::Microsecond),
            oid::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
            oid::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ => DataType::Utf8,
        }
    }

    /// How SQL turns a value of the stored type into one of this type, with nothing lost: what stands behind it, or
    /// `None` if a digit might be lost in silence.
    pub fn conversion(&self, stored: &DataType, sql_type: &str) -> Option<String> {
        use DataType as D;
        let plain = || Some(String::new());
        match (self.oid, stored) {
            // An explicit cast would cut text off at the length of the column; an assignment refuses it.
            (oid::TEXT | oid::VARCHAR | oid::BPCHAR, D::Utf8) => plain(),
            (oid::TEXT, _) => Some("::text".to_owned()),
            (oid::INT4 | oid::INT8, D::Int16 | D::Int32 | D::Int64) => plain(),
            (oid::INT2, D::Int16 | D::Int32 | D::Int64) => plain(),
            (oid::NUMERIC, D::Int16 | D::Int32 | D::Int64) => plain(),
            (oid::FLOAT8, D::Int16 | D::Int32 | D::Float32) => plain(),
            (oid::TIMESTAMP, D::Date32) => plain(),
            // Text is read as the type is, and refused if it is not of it.
            (_, D::Utf8) => Some(format!("::{sql_type}")),
            _ => self.wire(stored).map(|_| format!("::{sql_type}")),
        }
    }

    /// Precision and scale, where Arrow has room for them.
    fn numeric(&self) -> Option<(u8, i8)> {
        let packed = u32::try_from(self.modifier.checked_sub(4)?).ok()?;
        let precision = u8::try_from(packed >> 16).ok().filter(|precision| *precision <= 76)?;
        // Eleven bits with a sign, since Postgres 15.
        let scale = ((packed & 0x7ff) as i32 ^ 1024) - 1024;
        let scale = i8::try_from(scale).ok().filter(|scale| *scale >= 0 && *scale as u8 <= precision)?;
        Some((precision, scale))
    }

    /// How values of the stored type go into a column of this type, or `None` if Postgres must cast them.
    pub fn wire(&self, stored: &DataType) -> Option<Wire> {
        use DataType as D;
        if self.element != 0 {
            let D::List(item) = stored else { return None };
            let element = PgType { oid: self.element, modifier: self.modifier, element: 0, is_text: false };
            let wire = element.wire(item.data_type()).filter(|wire| !matches!(wire, Wire::Array(..)))?;
            return Some(Wire::Array(Box::new(wire), self.element));
        }
        Some(match (self.oid, stored) {
            (oid::BOOL, D::Boolean) => Wire::Bool,
            (oid::INT2, D::Int16) => Wire::Int2,
            (oid::INT4, D::Int32) => Wire::Int4,
            (oid::INT8, D::Int64) => Wire::Int8,
            (oid::FLOAT4, D::Float32) => Wire::Float4,
            (oid::FLOAT8, D::Float64) => Wire::Float8,
            (oid::NUMERIC, D::Decimal128(precision, scale) | D::Decimal256(precision, scale)) => {
                let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
                match self.numeric() {
                    // Postgres would round to a smaller scale in silence.
                    Some((_, there)) if there < *scale => return None,
                    Some((wide, there)) if whole(wide, there) < whole(*precision, *scale) => return None,
                    None if self.modifier != -1 => return None,
                    _ => Wire::Numeric,
                }
            }
            (oid::NUMERIC, D::Utf8) => Wire::NumericText,
            (oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::JSON | oid::XML, D::Utf8) => Wire::Text,
            (oid::JSONB, D::Utf8) => Wire::JsonbText,
            (oid::JSONB, D::Struct(_) | D::Map(..) | D::List(_)) => Wire::Jsonb,
            (oid::UUID, D::Utf8) => Wire::Uuid,
            (oid::BYTEA, D::Binary) => Wire::Bytea,
            (oid::DATE, D::Date32) => Wire::Date,
            (oid::TIME, D::Time64(_)) => Wire::Time,
            (oid::TIMESTAMP, D::Timestamp(_, None)) | (oid::TIMESTAMPTZ, D::Timestamp(_, Some(_))) => Wire::Timestamp,
            (oid::INTERVAL, D::Duration(_) | D::Interval(_)) => Wire::Interval,
            (_, D::Utf8) if self.is_text => Wire::Text,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data_type: DataType, expect: &str) {
        let got = match stored_type(&data_type) {
            Ok(DataType::Null) => "no column".to_owned(),
            Ok(stored) => {
                assert_eq!(stored_type(&stored).unwrap(), stored, "what is stored stays as it is");
                column_type(&stored).unwrap().0
            }
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(got, expect, "{data_type}");
    }

    #[test]
    fn new_columns_get_types_that_lose_nothing() {
        let list = |item: DataType| DataType::List(Arc::new(Field::new("element", item, false)));
        check(DataType::Null, "no column");
        check(DataType::UInt8, "smallint");
        check(DataType::UInt16, "integer");
        check(DataType::UInt32, "bigint");
        check(DataType::UInt64, "numeric(20)");
        check(DataType::Float16, "real");
        check(DataType::Decimal128(10, 2), "numeric(10,2)");
        check(DataType::Decimal64(10, 2), "numeric(10,2)");
        check(DataType::Decimal128(5, -2), "numeric(7)");
        check(DataType::Decimal256(60, 4), "numeric(60,4)");
        check(DataType::Timestamp(TimeUnit::Nanosecond, None), "timestamp");
        check(DataType::Timestamp(TimeUnit::Second, Some("+02:00".into())), "timestamptz");
        check(DataType::Time32(TimeUnit::Second), "time");
        check(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::LargeUtf8)), "text");
        check(DataType::FixedSizeBinary(16), "bytea");
        check(list(DataType::UInt16), "integer[]");
        check(list(list(DataType::Int8)), "jsonb");
        check(DataType::Struct(vec![Field::new("a", DataType::Null, true)].into()), "jsonb");
        check(
            DataType::Union(arrow::datatypes::UnionFields::empty(), arrow::datatypes::UnionMode::Dense),
            "error: a column of a union type cannot be kept in Postgres",
        );
    }

    #[test]
    fn numeric_modifiers_are_read() {
        let numeric = |precision: i32, scale: i32| PgType {
            oid: oid::NUMERIC,
            modifier: (precision << 16 | scale & 0x7ff) + 4,
            element: 0,
            is_text: false,
        };
        assert_eq!(numeric(10, 2).arrow(), DataType::Decimal128(10, 2));
        assert_eq!(numeric(50, 0).arrow(), DataType::Decimal256(50, 0));
        assert_eq!(numeric(5, -2).arrow(), DataType::Utf8);
        assert_eq!(numeric(1000, 2).arrow(), DataType::Utf8);
        assert_eq!(PgType { modifier: -1, ..numeric(1, 1) }.arrow(), DataType::Utf8);
    }
}
