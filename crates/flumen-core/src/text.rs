//! What text means: the one place where a piece of a CSV or JSON file becomes a number, a date or nothing.
//!
//! [`classify`] says which types a value could have, [`TextColumn`] turns values into an array of one type. They agree:
//! a value that is classified as a type parses as that type. No digit is ever lost in silence: a number too large for its type
//! does not fit it.

use arrow::array::{ArrayRef, BooleanBuilder, NullArray, StringBuilder};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, validate_decimal_precision_and_scale,
};
use std::sync::Arc;

use crate::error::{Error, Result};

use numbers::Numbers;

mod numbers;
pub mod parse;
mod types;
mod word;

pub use types::{TypeSet, join};
pub use word::Piece;

/// How text is to be understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextOptions {
    /// Values that mean null, besides the empty one.
    pub nulls: Vec<String>,
    /// Dates and timestamps in this `strftime` format, tried before ISO 8601.
    pub date_format: Option<String>,
    /// `1.234,56` rather than `1,234.56`.
    pub decimal_comma: bool,
    /// Whether white space round text is cut off. (Round numbers and dates it always is.)
    pub trim: bool,
}

impl TextOptions {
    /// Whether `value` means null.
    #[inline]
    pub fn is_null(&self, value: &[u8]) -> bool {
        value.is_empty() || !self.nulls.is_empty() && self.nulls.iter().any(|null| null.as_bytes() == value)
    }
}

/// The types that `value` (which is not null) could have.
pub fn classify(value: &[u8], options: &TextOptions) -> TypeSet {
    let value = value.trim_ascii();
    let Some(&first) = value.first() else { return TypeSet::TEXT };
    if let Some(format) = &options.date_format
        && let Some((_, has_time)) = parse::formatted(value, format)
    {
        return if has_time { TypeSet::TIMESTAMP } else { TypeSet::DATE.or(TypeSet::TIMESTAMP) };
    }
    let mut commas = Vec::new();
    let number = if options.decimal_comma { parse::from_decimal_comma(value, &mut commas) } else { value };
    match first {
        b'0'..=b'9' | b'-' | b'+' | b'.' => {
            if parse::has_leading_zero(number) {
                // 007 is a code, not a number; 2019-01-01 and 00:15:00 are looked at below.
            } else if parse::int64(number).is_some() {
                return TypeSet::INT.or(TypeSet::FLOAT);
            } else if !parse::is_digits(number) && parse::float64(number).is_some() {
                return TypeSet::FLOAT;
            }
            if parse::date32(value).is_some() {
                TypeSet::DATE.or(TypeSet::TIMESTAMP)
            } else if let Some((_, zone)) = parse::timestamp(value) {
                if zone.is_some() { TypeSet::TIMESTAMP_TZ } else { TypeSet::TIMESTAMP }
            } else if parse::time64(value).is_some() {
                TypeSet::TIME
            } else {
                TypeSet::TEXT
            }
        }
        b't' | b'T' | b'f' | b'F' if value.eq_ignore_ascii_case(b"true") || value.eq_ignore_ascii_case(b"false") => {
            TypeSet::BOOL
        }
        b'n' | b'N' | b'i' | b'I' if parse::float64(value).is_some() => TypeSet::FLOAT,
        _ => TypeSet::TEXT,
    }
}

/// Builds one column of one type from text.
pub struct TextColumn {
    builder: Builder,
    nulls: Vec<String>,
    decimal_comma: bool,
    date_format: Option<String>,
    trim: bool,
}

enum Builder {
    Null(usize),
    Boolean(BooleanBuilder),
    Int8(Numbers<Int8Type>),
    Int16(Numbers<Int16Type>),
    Int32(Numbers<Int32Type>),
    Int64(Numbers<Int64Type>),
    Float32(Numbers<Float32Type>),
    Float64(Numbers<Float64Type>),
    Decimal(Numbers<Decimal128Type>, u8, i8),
    Date(Numbers<Date32Type>),
    Time(Numbers<Time64MicrosecondType>),
    Timestamp(Numbers<TimestampMicrosecondType>),
    TimestampTz(Numbers<TimestampMicrosecondType>),
    Text(StringBuilder),
}

impl TextColumn {
    /// A builder for `data_type`. Null takes nulls alone: any value is a misfit.
    ///
    /// Errors: `Invalid` for a type that text cannot be read as (a list, say).
    pub fn new(data_type: &DataType, rows: usize, options: &TextOptions) -> Result<Self> {
        let builder = match data_type {
            DataType::Null => Builder::Null(0),
            DataType::Boolean => Builder::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int8 => Builder::Int8(Numbers::new(data_type, rows)),
            DataType::Int16 => Builder::Int16(Numbers::new(data_type, rows)),
            DataType::Int32 => Builder::Int32(Numbers::new(data_type, rows)),
            DataType::Int64 => Builder::Int64(Numbers::new(data_type, rows)),
            DataType::Float32 => Builder::Float32(Numbers::new(data_type, rows)),
            DataType::Float64 => Builder::Float64(Numbers::new(data_type, rows)),
            DataType::Decimal128(precision, scale) => {
                validate_decimal_precision_and_scale::<Decimal128Type>(*precision, *scale)?;
                Builder::Decimal(Numbers::new(data_type, rows), *precision, *scale)
            }
            DataType::Date32 => Builder::Date(Numbers::new(data_type, rows)),
            DataType::Time64(TimeUnit::Microsecond) => Builder::Time(Numbers::new(data_type, rows)),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Builder::Timestamp(Numbers::new(data_type, rows)),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Builder::TimestampTz(Numbers::new(data_type, rows)),
            DataType::Utf8 => Builder::Text(StringBuilder::with_capacity(rows, rows * 8)),
            other => return Err(Error::invalid(format!("text cannot be read as {other}"))),
        };
        Ok(Self {
            builder,
            nulls: options.nulls.clone(),
            decimal_comma: options.decimal_comma,
            date_format: options.date_format.clone(),
            trim: options.trim,
        })
    }

    /// Whether [`TextColumn::new`] takes `data_type`.
    pub fn supports(data_type: &DataType) -> bool {
        Self::new(data_type, 0, &TextOptions::default()).is_ok()
    }

    /// Appends a null.
    #[inline]
    pub fn append_null(&mut self) {
        match &mut self.builder {
            Builder::Null(rows) => *rows += 1,
            Builder::Boolean(b) => b.append_null(),
            Builder::Int8(b) => b.push(None),
            Builder::Int16(b) => b.push(None),
            Builder::Int32(b) => b.push(None),
            Builder::Int64(b) => b.push(None),
            Builder::Float32(b) => b.push(None),
            Builder::Float64(b) => b.push(None),
            Builder::Decimal(b, ..) => b.push(None),
            Builder::Date(b) => b.push(None),
            Builder::Time(b) => b.push(None),
            Builder::Timestamp(b) | Builder::TimestampTz(b) => b.push(None),
            Builder::Text(b) => b.append_null(),
        }
    }

    /// Appends `value`, which is not null. False: it does not fit, and a null was appended in its place.
    #[inline]
    pub fn append(&mut self, value: &[u8]) -> bool {
        if let Builder::Text(builder) = &mut self.builder {
            let value = if self.trim { value.trim_ascii() } else { value };
            return match std::str::from_utf8(value) {
                Ok(text) => {
                    builder.append_value(text);
                    true
                }
                Err(_) => {
                    builder.append_null();
                    false
                }
            };
        }
        let value = value.trim_ascii();
        if value.is_empty() {
            self.append_null();
            return true;
        }
        let mut plain = Vec::new();
        let number = if self.decimal_comma { parse::from_decimal_comma(value, &mut plain) } else { value };
        macro_rules! put {
            ($builder:expr, $parsed:expr) => {{
                let parsed = $parsed;
                $builder.push(parsed);
                parsed.is_some()
            }};
        }
        let format = self.date_format.as_deref();
        match &mut self.builder {
            Builder::Null(rows) => {
                *rows += 1;
                false
            }
            Builder::Boolean(b) => {
                let parsed = parse::boolean(value);
                b.append_option(parsed);
                parsed.is_some()
            }
            Builder::Int8(b) => put!(b, parse::integral(number).and_then(|n| i8::try_from(n).ok())),
            Builder::Int16(b) => put!(b, parse::integral(number).and_then(|n| i16::try_from(n).ok())),
            Builder::Int32(b) => put!(b, parse::integral(number).and_then(|n| i32::try_from(n).ok())),
            Builder::Int64(b) => put!(b, parse::integral(number)),
            Builder::Float32(b) => put!(b, parse::float64(number).map(|n| n as f32)),
            Builder::Float64(b) => put!(b, parse::float64(number)),
            Builder::Decimal(b, precision, scale) => put!(b, parse::decimal(number, *precision, *scale)),
            Builder::Date(b) => put!(b, parse::date_in(value, format)),
            Builder::Time(b) => put!(b, parse::time64(value)),
            Builder::Timestamp(b) => put!(b, parse::timestamp_in(value, format, false)),
            Builder::TimestampTz(b) => put!(b, parse::timestamp_in(value, format, true)),
            Builder::Text(_) => false,
        }
    }

    /// Appends many values. An empty one, and the null tokens, are null. `misfit` is called with the place (in `values`) and
    /// the bytes of each value that does not fit, and a null is appended in its stead.
    pub fn extend<'a>(
        &mut self,
        values: impl ExactSizeIterator<Item = Piece<'a>>,
        mut misfit: impl FnMut(usize, &'a [u8]),
    ) {
        // A null token may look like a number, and a date in a format of its own like another date.
        let plain = self.nulls.is_empty() && self.date_format.is_none() && !self.decimal_comma;
        macro_rules! fast {
            ($numbers:expr, $short:expr, $full:expr) => {
                $numbers.extend(values, $short, |place, value| {
                    let trimmed = value.trim_ascii();
                    let parsed = $full(trimmed);
                    if parsed.is_none() && !trimmed.is_empty() {
                        misfit(place, value);
                    }
                    parsed
                })
            };
        }
        #[allow(clippy::redundant_closure, reason = "a function passed by name is called, not inlined")]
        match &mut self.builder {
            Builder::Int64(b) if plain => fast!(b, |value| word::int64(value), parse::integral),
            Builder::Float64(b) if plain => fast!(b, |value| word::float64(value), parse::float64),
            Builder::Timestamp(b) if plain => {
                fast!(b, |value| word::timestamp(value), |value| parse::timestamp_in(value, None, false))
            }
            Builder::Date(b) if plain => fast!(b, |value| word::date32(value), |value| parse::date_in(value, None)),
            Builder::Int32(b) if plain => {
                let narrow = |number: i64| i32::try_from(number).ok();
                fast!(b, |value| word::int64(value).and_then(narrow), |value| parse::integral(value).and_then(narrow))
            }
            Builder::Int16(b) if plain => {
                let narrow = |number: i64| i16::try_from(number).ok();
                fast!(b, |value| word::int64(value).and_then(narrow), |value| parse::integral(value).and_then(narrow))
            }
            _ => {
                for (place, value) in values.enumerate() {
                    let value = value.bytes();
                    if self.is_null(value) {
                        self.append_null();
                    } else if !self.append(value) {
                        misfit(place, value);
                    }
                }
            }
        }
    }

    #[inline]
    fn is_null(&self, value: &[u8]) -> bool {
        let value = if self.trim { value.trim_ascii() } else { value };
        value.is_empty() || !self.nulls.is_empty() && self.nulls.iter().any(|null| null.as_bytes() == value)
    }

    /// The array of what was appended since the last call.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
            Builder::Boolean(b) => Arc::new(b.finish()),
            Builder::Int8(b) => b.finish(),
            Builder::Int16(b) => b.finish(),
            Builder::Int32(b) => b.finish(),
            Builder::Int64(b) => b.finish(),
            Builder::Float32(b) => b.finish(),
            Builder::Float64(b) => b.finish(),
            Builder::Decimal(b, ..) => b.finish(),
            Builder::Date(b) => b.finish(),
            Builder::Time(b) => b.finish(),
            Builder::Timestamp(b) | Builder::TimestampTz(b) => b.finish(),
            Builder::Text(b) => Arc::new(b.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::display::array_value_to_string;

    fn kind(text: &str) -> DataType {
        classify(text.as_bytes(), &TextOptions::default()).data_type()
    }

    #[test]
    fn values_have_the_narrowest_type_that_loses_nothing() {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (text, expect) in [
            ("1", DataType::Int64),
            ("-0", DataType::Int64),
            ("+17", DataType::Int64),
            ("9223372036854775807", DataType::Int64),
            ("9223372036854775808", DataType::Utf8),
            ("007", DataType::Utf8),
            ("00.5", DataType::Utf8),
            (".70", DataType::Float64),
            ("1.0", DataType::Float64),
            ("-73.992767999999998", DataType::Float64),
            ("1e5", DataType::Float64),
            ("NaN", DataType::Float64),
            ("nanny", DataType::Utf8),
            ("true", DataType::Boolean),
            ("Tree", DataType::Utf8),
            ("2019-01-31", DataType::Date32),
            ("2019-02-30", DataType::Utf8),
            ("2019-01-31 23:59:59", timestamp.clone()),
            ("2019-01-31T23:59:59.123456", timestamp),
            ("2019-01-31T23:59:59Z", zoned.clone()),
            ("2019-01-31 23:59:59+02:00", zoned),
            ("00:15:00", DataType::Time64(TimeUnit::Microsecond)),
            ("24:15:00", DataType::Utf8),
            ("-", DataType::Utf8),
            ("1,234", DataType::Utf8),
            ("CSH", DataType::Utf8),
        ] {
            assert_eq!(kind(text), expect, "{text}");
        }
    }

    fn check(data_type: DataType, options: &TextOptions, values: &[&str]) -> String {
        let mut column = TextColumn::new(&data_type, 4, options).unwrap();
        let fits: Vec<bool> = values.iter().map(|value| column.append(value.as_bytes())).collect();
        let array = column.finish();
        let show = |i: usize| if fits[i] { array_value_to_string(&array, i).unwrap() } else { "MISFIT".into() };
        (0..values.len()).map(show).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn columns_parse() {
        let plain = TextOptions::default();
        assert_eq!(check(DataType::Int64, &plain, &["1", " 2 ", "3.0", "3.5", "x"]), "1 | 2 | 3 | MISFIT | MISFIT");
        assert_eq!(check(DataType::Int8, &plain, &["127", "128"]), "127 | MISFIT");
        assert_eq!(
            check(DataType::Float64, &plain, &["1", ".5", "6.9000000000000004", "1e400"]),
            "1.0 | 0.5 | 6.9 | inf"
        );
        assert_eq!(
            check(DataType::Decimal128(5, 2), &plain, &["1.5", "-123.45", "1234.5", "1.234", "1.230"]),
            "1.50 | -123.45 | MISFIT | MISFIT | 1.23"
        );
        assert_eq!(
            check(DataType::Boolean, &plain, &["true", "F", "1", "no", "2"]),
            "true | false | true | false | MISFIT"
        );
        assert_eq!(check(DataType::Null, &plain, &["1"]), "MISFIT");
        let german = TextOptions { decimal_comma: true, date_format: Some("%d.%m.%Y".into()), ..plain.clone() };
        assert_eq!(check(DataType::Float64, &german, &["1.234,56", "-7,5"]), "1234.56 | -7.5");
        assert_eq!(check(DataType::Date32, &german, &["31.01.2019", "2019-01-31"]), "2019-01-31 | 2019-01-31");
    }

    #[test]
    fn floats_are_the_nearest_ones() {
        for text in [
            "0.1",
            "123456789012345",
            "1234567890123456789.5",
            "4.35",
            "0.000001",
            "-73.992767999999998",
            "9007199254740993",
        ] {
            assert_eq!(parse::float64(text.as_bytes()), text.parse::<f64>().ok(), "{text}");
        }
    }
}
