//! Which types values could have, and the narrowest type that holds two.

use arrow::datatypes::{DataType, TimeUnit};

/// A set of types: those that every value seen so far could have. Text is always one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeSet(u8);

impl TypeSet {
    /// Text alone.
    pub const TEXT: Self = Self(0);
    /// True or false.
    pub const BOOL: Self = Self(1);
    /// A whole number of 64 bits.
    pub const INT: Self = Self(2);
    /// A floating-point number.
    pub const FLOAT: Self = Self(4);
    /// A date.
    pub const DATE: Self = Self(8);
    /// A timestamp without a zone.
    pub const TIMESTAMP: Self = Self(16);
    /// A timestamp with a zone.
    pub const TIMESTAMP_TZ: Self = Self(32);
    /// A time of day.
    pub const TIME: Self = Self(64);
    /// Any type: nothing was seen yet.
    pub const ANY: Self = Self(127);

    /// The types in either.
    #[inline]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The types in both.
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The narrowest type in the set; Null if nothing was seen yet.
    pub fn data_type(self) -> DataType {
        let has = |set: Self| self.0 & set.0 != 0;
        match self {
            Self::ANY => DataType::Null,
            _ if has(Self::BOOL) => DataType::Boolean,
            _ if has(Self::INT) => DataType::Int64,
            _ if has(Self::FLOAT) => DataType::Float64,
            _ if has(Self::DATE) => DataType::Date32,
            _ if has(Self::TIMESTAMP) => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ if has(Self::TIMESTAMP_TZ) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ if has(Self::TIME) => DataType::Time64(TimeUnit::Microsecond),
            _ => DataType::Utf8,
        }
    }
}

/// The narrowest type that holds the values of both, where the type with all values in it is text.
///
/// Null has no opinion. Whole numbers widen to floating-point ones as the TLC files need it; numbers above 2^53 lose digits
/// then, as they do in every such file.
pub fn join(left: &DataType, right: &DataType) -> DataType {
    use DataType::{
        Date32, Date64, Decimal128, Dictionary, Float16, Float32, Float64, LargeUtf8, Null, Timestamp, Utf8, Utf8View,
    };
    match (left, right) {
        (a, b) if a == b => a.clone(),
        (Null, other) | (other, Null) => other.clone(),
        (Dictionary(_, value), other) | (other, Dictionary(_, value)) => join(value, other),
        (Utf8 | LargeUtf8 | Utf8View, _) | (_, Utf8 | LargeUtf8 | Utf8View) => Utf8,
        (Date32 | Date64, Date32 | Date64) => Date32,
        (Date32 | Date64, Timestamp(unit, zone)) | (Timestamp(unit, zone), Date32 | Date64) => {
            Timestamp(*unit, zone.clone())
        }
        (Timestamp(a, zone), Timestamp(b, other)) if zone == other => Timestamp(*a.max(b), zone.clone()),
        (Timestamp(a, Some(_)), Timestamp(b, Some(_))) => Timestamp(*a.max(b), Some("UTC".into())),
        (Float16 | Float32, Float16 | Float32) => Float32,
        (a, b) if a.is_floating() && (b.is_numeric()) || b.is_floating() && a.is_numeric() => Float64,
        (Decimal128(p1, s1), Decimal128(p2, s2)) => decimal(*p1, *s1, *p2, *s2),
        (Decimal128(p, s), int) | (int, Decimal128(p, s)) if int.is_integer() => decimal(*p, *s, digits(int), 0),
        (a, b) if a.is_integer() && b.is_integer() => integer(a, b),
        _ => Utf8,
    }
}

fn decimal(p1: u8, s1: i8, p2: u8, s2: i8) -> DataType {
    let scale = s1.max(s2);
    let whole = (i16::from(p1) - i16::from(s1)).max(i16::from(p2) - i16::from(s2));
    match u8::try_from(whole + i16::from(scale)) {
        Ok(precision) if precision <= 38 => DataType::Decimal128(precision, scale),
        _ => DataType::Float64,
    }
}

fn digits(int: &DataType) -> u8 {
    match int {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        _ => 20,
    }
}

fn integer(left: &DataType, right: &DataType) -> DataType {
    let rank = |t: &DataType| match t {
        DataType::Int8 => 1,
        DataType::UInt8 | DataType::Int16 => 2,
        DataType::UInt16 | DataType::Int32 => 3,
        DataType::UInt32 | DataType::Int64 => 4,
        _ => 5,
    };
    match rank(left).max(rank(right)) {
        1 => DataType::Int8,
        2 => DataType::Int16,
        3 => DataType::Int32,
        4 => DataType::Int64,
        _ => DataType::Decimal128(20, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_join_is_a_join() {
        let types = [
            DataType::Null,
            DataType::Boolean,
            DataType::Int32,
            DataType::Int64,
            DataType::Float64,
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Utf8,
        ];
        for a in &types {
            assert_eq!(&join(a, a), a);
            for b in &types {
                assert_eq!(join(a, b), join(b, a), "{a} {b}");
                for c in &types {
                    assert_eq!(join(&join(a, b), c), join(a, &join(b, c)), "{a} {b} {c}");
                }
            }
        }
        assert_eq!(join(&DataType::Int64, &DataType::Float64), DataType::Float64);
        assert_eq!(join(&DataType::Null, &DataType::Int32), DataType::Int32);
        assert_eq!(join(&DataType::UInt64, &DataType::Int8), DataType::Decimal128(20, 0));
    }
}
