//! Values of record batches in Postgres' two formats, text and binary.
//!
//! A [`Cells`] is one column of a batch with its type known, so that a value costs one call.

pub(in crate::pg) mod numbers;
pub(in crate::pg) mod times;

use std::fmt::Write as _;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, GenericBinaryArray, GenericStringArray, ListArray,
    PrimitiveArray, RecordBatch, StringArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, DurationMicrosecondType, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use bytes::{BufMut as _, BytesMut};
use flumen_core::Result;

use super::types;
use times::Zone;

/// A column of values that can be written in both formats. Rows that are null are not asked for.
pub(super) trait Cells: Send + Sync {
    /// Whether the value of `row` is null.
    fn is_null(&self, row: usize) -> bool;
    /// Writes the value of `row` as text.
    fn text(&self, row: usize, out: &mut BytesMut);
    /// Writes the value of `row` in binary.
    fn binary(&self, row: usize, out: &mut BytesMut);
    /// Whether the text of every value is made of digits and signs alone, so that nothing in it is ever to be escaped.
    fn is_plain(&self) -> bool {
        false
    }
}

/// The columns of `batch`.
///
/// Errors: `Data` for a value that the types of Postgres do not hold.
pub(super) fn columns(batch: &RecordBatch, zone: &Zone) -> Result<Vec<Box<dyn Cells>>> {
    batch.columns().iter().map(|array| cells(array, zone)).collect()
}

/// Writes the value of `row` with its length before it, or that it is null.
pub(super) fn field(cells: &dyn Cells, row: usize, format: i16, out: &mut BytesMut) {
    if cells.is_null(row) {
        out.put_i32(-1);
        return;
    }
    let start = out.len();
    out.put_i32(0);
    match format {
        0 => cells.text(row, out),
        _ => cells.binary(row, out),
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A column, in the narrowest of the forms below.
fn cells(array: &ArrayRef, zone: &Zone) -> Result<Box<dyn Cells>> {
    let cast = |to: &DataType| arrow::compute::cast(array, to);
    Ok(match array.data_type() {
        DataType::Boolean => Box::new(Booleans(array.as_boolean().clone())),
        DataType::Int16 => primitive::<Int16Type>(array),
        DataType::Int32 => primitive::<Int32Type>(array),
        DataType::Int64 => primitive::<Int64Type>(array),
        DataType::Int8 | DataType::UInt8 => primitive::<Int16Type>(&cast(&DataType::Int16)?),
        DataType::UInt16 => primitive::<Int32Type>(&cast(&DataType::Int32)?),
        DataType::UInt32 => primitive::<Int64Type>(&cast(&DataType::Int64)?),
        DataType::UInt64 => Box::new(Decimals(cast(&DataType::Decimal128(20, 0))?.as_primitive().clone(), 0)),
        DataType::Float32 => primitive::<Float32Type>(array),
        DataType::Float16 => primitive::<Float32Type>(&cast(&DataType::Float32)?),
        DataType::Float64 => primitive::<Float64Type>(array),
        DataType::Decimal128(_, scale) => {
            Box::new(Decimals(array.as_primitive::<Decimal128Type>().clone(), i32::from(*scale)))
        }
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            let cast = cast(&DataType::Decimal128(*precision, *scale))?;
            Box::new(Decimals(cast.as_primitive::<Decimal128Type>().clone(), i32::from(*scale)))
        }
        DataType::Decimal256(..) => Box::new(Numerals(cast(&DataType::Utf8)?.as_string().clone())),
        DataType::Date32 => Box::new(Dates(array.as_primitive().clone())),
        DataType::Date64 => Box::new(Dates(cast(&DataType::Date32)?.as_primitive().clone())),
        DataType::Timestamp(_, zoned) => {
            let micros = cast(&DataType::Timestamp(TimeUnit::Microsecond, zoned.clone()))?;
            Box::new(Timestamps { micros: micros.as_primitive().clone(), zone: zoned.as_ref().map(|_| zone.clone()) })
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            Box::new(Times(cast(&DataType::Time64(TimeUnit::Microsecond))?.as_primitive().clone()))
        }
        DataType::Duration(_) => {
            Box::new(Durations(cast(&DataType::Duration(TimeUnit::Microsecond))?.as_primitive().clone()))
        }
        DataType::Interval(_) => {
            Box::new(Intervals(cast(&DataType::Interval(IntervalUnit::MonthDayNano))?.as_primitive().clone()))
        }
        DataType::Utf8 => Box::new(Texts(array.as_string::<i32>().clone())),
        DataType::LargeUtf8 => Box::new(Texts(array.as_string::<i64>().clone())),
        DataType::Binary => Box::new(Blobs(array.as_binary::<i32>().clone())),
        DataType::LargeBinary => Box::new(Blobs(array.as_binary::<i64>().clone())),
        DataType::BinaryView => Box::new(Blobs::<i32>(cast(&DataType::Binary)?.as_binary().clone())),
        DataType::FixedSizeBinary(_) => Box::new(Fixed(array.as_fixed_size_binary().clone())),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => lists(array, zone)?,
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => Box::new(Json(ArrayRef::clone(array))),
        DataType::Null => Box::new(Nulls),
        _ => Box::new(Texts::<i32>(cast(&DataType::Utf8)?.as_string().clone())),
    })
}

fn lists(array: &ArrayRef, zone: &Zone) -> Result<Box<dyn Cells>> {
    let element = match array.data_type() {
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => element,
        _ => return Ok(Box::new(Json(ArrayRef::clone(array)))),
    };
    let kind = types::pg_type(element.data_type());
    if types::array_of(&kind).is_none() {
        return Ok(Box::new(Json(ArrayRef::clone(array))));
    }
    let list = arrow::compute::cast(array, &DataType::List(element.clone()))?;
    let list = list.as_list::<i32>().clone();
    let elements = cells(list.values(), zone)?;
    Ok(Box::new(Lists { list, elements, oid: kind.oid() }))
}

macro_rules! null_of {
    ($place:tt) => {
        fn is_null(&self, row: usize) -> bool {
            self.$place.is_null(row)
        }
    };
}

struct Nulls;

impl Cells for Nulls {
    fn is_null(&self, _row: usize) -> bool {
        true
    }
    fn text(&self, _row: usize, _out: &mut BytesMut) {}
    fn binary(&self, _row: usize, _out: &mut BytesMut) {}
}

struct Booleans(BooleanArray);

impl Cells for Booleans {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        out.put_u8(if self.0.value(row) { b't' } else { b'f' });
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        out.put_u8(u8::from(self.0.value(row)));
    }
}

/// A number as Postgres writes it.
trait Number {
    fn put_text(self, out: &mut BytesMut);
    fn put_binary(self, out: &mut BytesMut);
}

macro_rules! number {
    ($type:ty, $put:ident, $text:path) => {
        impl Number for $type {
            fn put_text(self, out: &mut BytesMut) {
                $text(self.into(), out);
            }
            fn put_binary(self, out: &mut BytesMut) {
                out.$put(self);
            }
        }
    };
}

number!(i16, put_i16, numbers::integer);
number!(i32, put_i32, numbers::integer);
number!(i64, put_i64, numbers::integer);
number!(f64, put_f64, numbers::double);

impl Number for f32 {
    fn put_text(self, out: &mut BytesMut) {
        numbers::real(self, out);
    }
    fn put_binary(self, out: &mut BytesMut) {
        out.put_f32(self);
    }
}

struct Numbers<T: ArrowPrimitiveType>(PrimitiveArray<T>);

fn primitive<T: ArrowPrimitiveType<Native: Number>>(array: &ArrayRef) -> Box<dyn Cells> {
    Box::new(Numbers::<T>(array.as_primitive().clone()))
}

impl<T: ArrowPrimitiveType<Native: Number>> Cells for Numbers<T> {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        self.0.value(row).put_text(out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        self.0.value(row).put_binary(out);
    }
    fn is_plain(&self) -> bool {
        true
    }
}

struct Decimals(PrimitiveArray<Decimal128Type>, i32);

impl Cells for Decimals {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        numbers::decimal(self.0.value(row), self.1, out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        let mut text = BytesMut::with_capacity(48);
        self.text(row, &mut text);
        numbers::numeric_binary(&text, out);
    }
}

/// Numbers that are wider than 128 bits, as text.
struct Numerals(StringArray);

impl Cells for Numerals {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        out.put_slice(self.0.value(row).as_bytes());
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        numbers::numeric_binary(self.0.value(row).as_bytes(), out);
    }
}

struct Texts<O: arrow::array::OffsetSizeTrait>(GenericStringArray<O>);

impl<O: arrow::array::OffsetSizeTrait> Cells for Texts<O> {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        out.put_slice(self.0.value(row).as_bytes());
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        self.text(row, out);
    }
}

struct Blobs<O: arrow::array::OffsetSizeTrait>(GenericBinaryArray<O>);

impl<O: arrow::array::OffsetSizeTrait> Cells for Blobs<O> {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        hex(self.0.value(row), out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        out.put_slice(self.0.value(row));
    }
}

struct Fixed(FixedSizeBinaryArray);

impl Cells for Fixed {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        hex(self.0.value(row), out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        out.put_slice(self.0.value(row));
    }
}

fn hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.put_slice(b"\\x");
    for byte in bytes {
        out.put_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

struct Dates(PrimitiveArray<Date32Type>);

impl Cells for Dates {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        times::date(i64::from(self.0.value(row)), out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        out.put_i32(self.0.value(row).saturating_sub(times::EPOCH_DAYS));
    }
}

struct Timestamps {
    micros: PrimitiveArray<TimestampMicrosecondType>,
    /// The time zone in which they are shown, if they are points in time.
    zone: Option<Zone>,
}

impl Cells for Timestamps {
    null_of!(micros);
    fn text(&self, row: usize, out: &mut BytesMut) {
        times::timestamp(self.micros.value(row), self.zone.as_ref(), out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        out.put_i64(self.micros.value(row).saturating_sub(times::EPOCH_MICROS));
    }
    fn is_plain(&self) -> bool {
        true
    }
}

struct Times(PrimitiveArray<Time64MicrosecondType>);

impl Cells for Times {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        times::time(self.0.value(row), out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        out.put_i64(self.0.value(row));
    }
}

struct Durations(PrimitiveArray<DurationMicrosecondType>);

impl Cells for Durations {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        times::interval(0, 0, self.0.value(row), out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        out.put_i64(self.0.value(row));
        out.put_i64(0);
    }
}

struct Intervals(PrimitiveArray<IntervalMonthDayNanoType>);

impl Cells for Intervals {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        let value = self.0.value(row);
        times::interval(value.months, value.days, value.nanoseconds.div_euclid(1000), out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        let value = self.0.value(row);
        out.put_i64(value.nanoseconds.div_euclid(1000));
        out.put_i32(value.days);
        out.put_i32(value.months);
    }
}

/// Arrays of one dimension.
struct Lists {
    list: ListArray,
    elements: Box<dyn Cells>,
    oid: u32,
}

impl Lists {
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let offsets = self.list.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    }
}

impl Cells for Lists {
    null_of!(list);
    fn text(&self, row: usize, out: &mut BytesMut) {
        let mut value = BytesMut::new();
        out.put_u8(b'{');
        for (index, element) in self.range(row).enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            if self.elements.is_null(element) {
                out.put_slice(b"NULL");
                continue;
            }
            value.clear();
            self.elements.text(element, &mut value);
            array_element(&value, out);
        }
        out.put_u8(b'}');
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        let range = self.range(row);
        let has_null = range.clone().any(|element| self.elements.is_null(element));
        out.put_i32(i32::from(!range.is_empty()));
        out.put_i32(i32::from(has_null));
        out.put_u32(self.oid);
        if !range.is_empty() {
            out.put_i32(range.len() as i32);
            out.put_i32(1);
        }
        range.for_each(|element| field(self.elements.as_ref(), element, 1, out));
    }
}

/// Writes an element of an array as text, quoted where it must be.
pub(crate) fn array_element(value: &[u8], out: &mut BytesMut) {
    let plain = !value.is_empty()
        && !value.eq_ignore_ascii_case(b"null")
        && !value.iter().any(|byte| b"{},\"\\ \t\n\r\x0b\x0c".contains(byte));
    if plain {
        out.put_slice(value);
        return;
    }
    out.put_u8(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

/// What has no type in Postgres, as JSON.
struct Json(ArrayRef);

impl Cells for Json {
    null_of!(0);
    fn text(&self, row: usize, out: &mut BytesMut) {
        json(&self.0, row, out);
    }
    fn binary(&self, row: usize, out: &mut BytesMut) {
        self.text(row, out);
    }
}

fn json(array: &ArrayRef, row: usize, out: &mut BytesMut) {
    if array.is_null(row) {
        out.put_slice(b"null");
        return;
    }
    match array.data_type() {
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let members =
                fields.iter().zip(columns.columns()).map(|(field, column)| (field.name().clone(), column, row));
            json_object(members, out);
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let keys = arrow::compute::cast(entries.column(0), &DataType::Utf8).ok();
            let name = |index: usize| keys.as_ref().map(|keys| keys.as_string::<i32>().value(index).to_owned());
            let members = (0..entries.len()).map(|index| (name(index).unwrap_or_default(), entries.column(1), index));
            json_object(members, out);
        }
        DataType::List(_) => json_array(&array.as_list::<i32>().value(row), out),
        DataType::LargeList(_) => json_array(&array.as_list::<i64>().value(row), out),
        DataType::FixedSizeList(..) => json_array(&array.as_fixed_size_list().value(row), out),
        data_type => {
            let Ok(cells) = cells(&array.slice(row, 1), &Zone::default()) else { return out.put_slice(b"null") };
            let mut value = BytesMut::new();
            match (data_type, data_type.is_numeric()) {
                (DataType::Boolean, _) => {
                    out.put_slice(if array.as_boolean().value(row) { b"true" } else { b"false" });
                }
                (_, true) => {
                    cells.text(0, &mut value);
                    // JSON knows neither infinity nor NaN.
                    let finite = value.iter().any(u8::is_ascii_digit);
                    if finite { out.put_slice(&value) } else { json_text(&value, out) }
                }
                _ => {
                    cells.text(0, &mut value);
                    json_text(&value, out);
                }
            }
        }
    }
}

fn json_object<'a>(members: impl Iterator<Item = (String, &'a ArrayRef, usize)>, out: &mut BytesMut) {
    out.put_u8(b'{');
    for (index, (name, column, row)) in members.enumerate() {
        if index > 0 {
            out.put_slice(b", ");
        }
        json_text(name.as_bytes(), out);
        out.put_slice(b": ");
        json(column, row, out);
    }
    out.put_u8(b'}');
}

fn json_array(values: &ArrayRef, out: &mut BytesMut) {
    out.put_u8(b'[');
    for row in 0..values.len() {
        if row > 0 {
            out.put_slice(b", ");
        }
        json(values, row, out);
    }
    out.put_u8(b']');
}

fn json_text(text: &[u8], out: &mut BytesMut) {
    let quoted = serde_json::Value::String(String::from_utf8_lossy(text).into_owned());
    // Writing to memory does not fail.
    let _ = write!(out, "{quoted}");
}

/// A timestamp in UTC, as text.
pub(crate) fn timestamp_text(micros: i64, out: &mut BytesMut) {
    times::timestamp(micros, Some(&Zone::default()), out);
}

/// What `cells` has at `row`, as text: for tests.
#[cfg(test)]
fn shown(array: &ArrayRef, row: usize) -> String {
    let cells = cells(array, &Zone::default()).expect("cells");
    if cells.is_null(row) {
        return "NULL".to_owned();
    }
    let mut out = BytesMut::new();
    cells.text(row, &mut out);
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryArray, Float64Array, Int32Array, StructArray};
    use arrow::datatypes::{Field, Int64Type};
    use postgres_types::FromSql as _;
    use std::sync::Arc;

    fn binary(array: &ArrayRef, row: usize) -> BytesMut {
        let mut out = BytesMut::new();
        cells(array, &Zone::default()).expect("cells").binary(row, &mut out);
        out
    }

    #[test]
    fn arrays_in_both_formats() {
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None, Some(-3)]), None]);
        let list: ArrayRef = Arc::new(list);
        assert_eq!((shown(&list, 0), shown(&list, 1)), ("{1,NULL,-3}".to_owned(), "NULL".to_owned()));
        let read = Vec::<Option<i64>>::from_sql(&postgres_types::Type::INT8_ARRAY, &binary(&list, 0));
        assert_eq!(read.expect("read"), [Some(1), None, Some(-3)]);
        let mut out = BytesMut::new();
        for element in ["a b", "", "NULL", "x", "q\"\\"] {
            array_element(element.as_bytes(), &mut out);
            out.put_u8(b';');
        }
        assert_eq!(&out[..], br#""a b";"";"NULL";x;"q\"\\";"#);
    }

    #[test]
    fn structs_are_json() {
        let of =
            |name: &str, data_type: DataType, array: ArrayRef| (Arc::new(Field::new(name, data_type, true)), array);
        let made: ArrayRef = Arc::new(StructArray::from(vec![
            of("a\"", DataType::Int32, Arc::new(Int32Array::from(vec![1])) as ArrayRef),
            of("b", DataType::Utf8, Arc::new(StringArray::from(vec!["x\ny"])) as ArrayRef),
            of("c", DataType::Float64, Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef),
        ]));
        assert_eq!(shown(&made, 0), r#"{"a\"": 1, "b": "x\ny", "c": "NaN"}"#);
    }

    #[test]
    fn bytes_are_hex() {
        let array: ArrayRef = Arc::new(BinaryArray::from(vec![&b"\x00\xffa"[..]]));
        assert_eq!(shown(&array, 0), "\\x00ff61");
    }
}
