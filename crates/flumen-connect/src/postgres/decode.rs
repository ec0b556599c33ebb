//! From the binary COPY format to Arrow.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int16Builder, Int32Builder, Int64Builder, ListArray, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, TimeUnit};
use flumen_core::{Error, Result};

use super::encode::{EPOCH_DAYS, EPOCH_MICROS};
use super::numeric;

/// The values of one column, as they come.
pub enum ColumnDecoder {
    /// `boolean`
    Bool(BooleanBuilder),
    /// `smallint`
    Int2(Int16Builder),
    /// `integer`
    Int4(Int32Builder),
    /// `bigint`
    Int8(Int64Builder),
    /// `real`
    Float4(Float32Builder),
    /// `double precision`
    Float8(Float64Builder),
    /// `numeric(p,s)`, with its scale.
    Numeric(Decimal128Builder, u8),
    /// `numeric` of any length, written out.
    NumericText(StringBuilder),
    /// `text`
    Text(StringBuilder),
    /// `bytea`
    Bytea(BinaryBuilder),
    /// `date`
    Date(Date32Builder),
    /// `time`
    Time(Time64MicrosecondBuilder),
    /// `timestamp`, `timestamptz`
    Timestamp(TimestampMicrosecondBuilder),
    /// An array of one dimension: its items, where each row's end, which rows are there.
    List {
        /// The items of all rows.
        items: Box<ColumnDecoder>,
        /// Where each row's items begin; one more than rows.
        offsets: Vec<i32>,
        /// Whether the row is not null.
        valid: Vec<bool>,
        /// The list's type.
        data_type: DataType,
    },
}

/// A value that Arrow has no room for, written out.
pub type Unfit = String;

impl ColumnDecoder {
    /// A decoder that makes arrays of `data_type`. `numeric` says that text comes as a number.
    pub fn new(data_type: &DataType, numeric: bool) -> Result<Self> {
        use DataType as D;
        Ok(match data_type {
            D::Boolean => Self::Bool(BooleanBuilder::new()),
            D::Int16 => Self::Int2(Int16Builder::new()),
            D::Int32 => Self::Int4(Int32Builder::new()),
            D::Int64 => Self::Int8(Int64Builder::new()),
            D::Float32 => Self::Float4(Float32Builder::new()),
            D::Float64 => Self::Float8(Float64Builder::new()),
            D::Decimal128(precision, scale) if *scale >= 0 => Self::Numeric(
                Decimal128Builder::new().with_precision_and_scale(*precision, *scale)?,
                scale.unsigned_abs(),
            ),
            D::Utf8 if numeric => Self::NumericText(StringBuilder::new()),
            D::Utf8 => Self::Text(StringBuilder::new()),
            D::Binary => Self::Bytea(BinaryBuilder::new()),
            D::Date32 => Self::Date(Date32Builder::new()),
            D::Time64(TimeUnit::Microsecond) => Self::Time(Time64MicrosecondBuilder::new()),
            D::Timestamp(TimeUnit::Microsecond, zone) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone()))
            }
            D::List(item) => Self::List {
                items: Box::new(Self::new(item.data_type(), numeric)?),
                offsets: vec![0],
                valid: Vec::new(),
                data_type: data_type.clone(),
            },
            other => return Err(Error::internal(format!("no decoder is known for {other}"))),
        })
    }

    /// Appends a null.
    pub fn append_null(&mut self) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int2(b) => b.append_null(),
            Self::Int4(b) => b.append_null(),
            Self::Int8(b) => b.append_null(),
            Self::Float4(b) => b.append_null(),
            Self::Float8(b) => b.append_null(),
            Self::Numeric(b, _) => b.append_null(),
            Self::NumericText(b) | Self::Text(b) => b.append_null(),
            Self::Bytea(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Time(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
            Self::List { offsets, valid, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                valid.push(false);
            }
        }
    }

    /// Appends the value in `bytes`. What does not fit is given back, and a null appended.
    ///
    /// Errors: `Internal` for bytes that are not of the type.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Option<Unfit>> {
        let mut unfit = None;
        match self {
            Self::Bool(b) => b.append_value(fixed::<1>(bytes)?[0] != 0),
            Self::Int2(b) => b.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Self::Int4(b) => b.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Self::Int8(b) => b.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Self::Float4(b) => b.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Self::Float8(b) => b.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Self::Time(b) => b.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Self::Numeric(b, scale) => {
                let value = numeric::to_decimal128(bytes, *scale);
                if value.is_none() {
                    unfit = Some(numeric::to_text(bytes).ok_or_else(broken)?);
                }
                b.append_option(value);
            }
            Self::NumericText(b) => b.append_value(numeric::to_text(bytes).ok_or_else(broken)?),
            Self::Text(b) => b.append_value(std::str::from_utf8(bytes).map_err(|_| broken())?),
            Self::Bytea(b) => b.append_value(bytes),
            Self::Date(b) => {
                let days = i32::from_be_bytes(fixed(bytes)?);
                let since_1970 = days.checked_add(EPOCH_DAYS).filter(|_| days != i32::MIN);
                if since_1970.is_none() {
                    unfit = Some(infinity(days > 0));
                }
                b.append_option(since_1970);
            }
            Self::Timestamp(b) => {
                let micros = i64::from_be_bytes(fixed(bytes)?);
                let since_1970 = micros.checked_add(EPOCH_MICROS).filter(|_| micros != i64::MIN);
                if since_1970.is_none() {
                    unfit = Some(infinity(micros > 0));
                }
                b.append_option(since_1970);
            }
            Self::List { items, offsets, valid, .. } => {
                let begin = offsets.last().copied().unwrap_or(0);
                match append_items(items, bytes)? {
                    Items::All(count) => {
                        offsets.push(begin + count);
                        valid.push(true);
                    }
                    Items::Unfit(what) => {
                        offsets.push(begin);
                        valid.push(false);
                        unfit = Some(what);
                    }
                }
            }
        }
        Ok(unfit)
    }

    /// The array of what was appended since the last call.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int2(b) => Arc::new(b.finish()),
            Self::Int4(b) => Arc::new(b.finish()),
            Self::Int8(b) => Arc::new(b.finish()),
            Self::Float4(b) => Arc::new(b.finish()),
            Self::Float8(b) => Arc::new(b.finish()),
            Self::Numeric(b, _) => Arc::new(b.finish()),
            Self::NumericText(b) | Self::Text(b) => Arc::new(b.finish()),
            Self::Bytea(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
            Self::List { items, offsets, valid, data_type } => {
                let DataType::List(item) = data_type else {
                    return Err(Error::internal("a list decoder has a list's type"));
                };
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                let nulls = NullBuffer::from(std::mem::take(valid));
                Arc::new(ListArray::try_new(Arc::clone(item), offsets, items.finish()?, Some(nulls))?)
            }
        })
    }
}

enum Items {
    All(i32),
    /// Nothing was appended.
    Unfit(String),
}

fn append_items(items: &mut ColumnDecoder, mut bytes: &[u8]) -> Result<Items> {
    let dimensions = take_i32(&mut bytes)?;
    take_i32(&mut bytes)?;
    take_i32(&mut bytes)?;
    if dimensions == 0 {
        return Ok(Items::All(0));
    }
    if dimensions != 1 {
        return Ok(Items::Unfit(format!("an array of {dimensions} dimensions")));
    }
    let count = take_i32(&mut bytes)?;
    take_i32(&mut bytes)?;
    for _ in 0..count {
        match usize::try_from(take_i32(&mut bytes)?) {
            Ok(length) => {
                // An item that does not fit is null within its list: the list itself stays.
                items.append(bytes.get(..length).ok_or_else(broken)?)?;
                bytes = &bytes[length..];
            }
            Err(_) => items.append_null(),
        }
    }
    Ok(Items::All(count))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| broken())
}

/// Takes a number off the front of `bytes`.
pub fn take_i32(bytes: &mut &[u8]) -> Result<i32> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
    *bytes = rest;
    Ok(i32::from_be_bytes(*head))
}

fn infinity(positive: bool) -> String {
    if positive { "infinity".to_owned() } else { "-infinity".to_owned() }
}

/// The server sent something else than the type that it announced.
pub fn broken() -> Error {
    Error::internal("the server sent a value that is not of its type")
        .hint("this is a defect in Flumen, or the server is not Postgres; please report it with the table's definition")
}
