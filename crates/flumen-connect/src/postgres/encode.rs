//! From Arrow to the binary COPY format: rows of length-prefixed, big-endian values.
//!
//! The work goes column by column over a block of rows. A first pass sums up how long each row gets, so that a block
//! is allocated once, at its size; a second pass writes each column's values at their places. No value is allocated by
//! itself.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use flumen_core::{Error, Result};

use super::numeric;
use super::types::Wire;

/// What a binary COPY begins with: the signature, no flags, no extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub const TRAILER: &[u8] = &[0xff, 0xff];
/// The size of the blocks that rows are handed on in. A single longer row makes a longer block.
pub const BLOCK_BYTES: usize = 128 << 10;
/// Rows looked at together.
const BLOCK_ROWS: usize = 1024;
/// Microseconds from 1970 to 2000, where Postgres begins to count.
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Days from 1970 to 2000.
pub const EPOCH_DAYS: i32 = 10_957;
/// The days and microseconds (since 2000) that Postgres can keep: from 4713 BC to 5874897 and 294276 AD.
const DAYS: std::ops::RangeInclusive<i32> = -2_451_545..=2_145_031_948;
const MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// One column: its name for messages, the Arrow type that comes, how it goes.
#[derive(Debug, Clone)]
pub struct ColumnWire {
    /// The column's name.
    pub name: String,
    /// Its field in the batches.
    pub field: FieldRef,
    /// How its values go over the wire.
    pub wire: Wire,
}

/// Encodes batches with fixed columns.
#[derive(Debug, Clone)]
pub struct Encoder {
    columns: Vec<(usize, ColumnWire)>,
}

impl Encoder {
    /// An encoder for these columns, each with its place in the batches.
    pub fn new(columns: Vec<(usize, ColumnWire)>) -> Self {
        Self { columns }
    }

    /// Encodes `batch`, and hands on blocks of whole rows.
    ///
    /// Errors: `Data` for a value that Postgres cannot keep; those of `emit`.
    pub fn encode(&self, batch: &RecordBatch, emit: &mut dyn FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
        let arrays: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|(index, column)| {
                let array = batch.column(*index);
                if array.data_type() == column.field.data_type() {
                    return Ok(std::sync::Arc::clone(array));
                }
                arrow::compute::cast(array, column.field.data_type())
                    .map_err(|error| Error::from(error).within(format!("column '{}'", column.name)))
            })
            .collect::<Result<_>>()?;
        let cells = self
            .columns
            .iter()
            .zip(&arrays)
            .map(|((_, column), array)| {
                Cells::new(&column.wire, &column.field, array).map_err(|bad| bad.explain(&column.name))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut first = 0;
        let mut ends = Vec::with_capacity(BLOCK_ROWS);
        while first < batch.num_rows() {
            let rows = BLOCK_ROWS.min(batch.num_rows() - first);
            measure(&cells, first, rows, &mut ends);
            emit_rows(&cells, first, &ends, emit)?;
            first += rows;
        }
        Ok(())
    }
}

/// Fills `lengths` with the bytes of each of `rows` rows from `first` on.
fn measure(cells: &[Cells<'_>], first: usize, rows: usize, lengths: &mut Vec<usize>) {
    let fixed: usize = 2 + cells.iter().map(Cells::least_bytes).sum::<usize>();
    lengths.clear();
    lengths.resize(rows, fixed);
    for column in cells {
        column.add_lengths(first, lengths);
    }
}

/// Writes the rows whose lengths are given, in blocks of about [`BLOCK_BYTES`].
fn emit_rows(
    cells: &[Cells<'_>],
    first: usize,
    lengths: &[usize],
    emit: &mut dyn FnMut(Vec<u8>) -> Result<()>,
) -> Result<()> {
    let count = u16::try_from(cells.len())
        .map_err(|_| Error::invalid(format!("{} columns are more than Postgres can keep", cells.len())))?;
    let mut places = Vec::with_capacity(lengths.len());
    let mut begin = 0;
    while begin < lengths.len() {
        places.clear();
        let mut total = 0;
        for &length in &lengths[begin..] {
            if total > 0 && total + length > BLOCK_BYTES {
                break;
            }
            places.push(total);
            total += length;
        }
        let rows = places.len();
        let mut block = vec![0; total];
        for place in &mut places {
            block[*place..*place + 2].copy_from_slice(&count.to_be_bytes());
            *place += 2;
        }
        for column in cells {
            column.write(first + begin, &mut places, &mut block);
        }
        emit(block)?;
        begin += rows;
    }
    Ok(())
}

/// A value that Postgres cannot keep.
struct Unfit {
    what: String,
    hint: &'static str,
}

impl Unfit {
    fn new(what: impl Into<String>, hint: &'static str) -> Self {
        Self { what: what.into(), hint }
    }

    fn explain(self, column: &str) -> Error {
        Error::data(format!("column '{column}': {}", self.what)).hint(self.hint)
    }
}

/// The values of one column of one batch, ready to be written.
struct Cells<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Bool(&'a BooleanArray),
    Int2(&'a [i16]),
    Int4(&'a [i32]),
    Int8(&'a [i64]),
    Float4(&'a [f32]),
    Float8(&'a [f64]),
    Date(&'a [i32]),
    Timestamp(&'a [i64]),
    /// Bytes of the array itself.
    Slices {
        data: &'a [u8],
        offsets: &'a [i32],
    },
    /// Bytes made for this batch: of numbers, arrays, JSON.
    Made(Made),
}

impl<'a> Cells<'a> {
    fn new(wire: &Wire, field: &FieldRef, array: &'a ArrayRef) -> Result<Self, Unfit> {
        let values = match wire {
            Wire::Bool => Values::Bool(array.as_boolean()),
            Wire::Int2 => Values::Int2(array.as_primitive::<Int16Type>().values()),
            Wire::Int4 => Values::Int4(array.as_primitive::<Int32Type>().values()),
            Wire::Int8 => Values::Int8(array.as_primitive::<Int64Type>().values()),
            Wire::Time => Values::Int8(array.as_primitive::<Time64MicrosecondType>().values()),
            Wire::Float4 => Values::Float4(array.as_primitive::<Float32Type>().values()),
            Wire::Float8 => Values::Float8(array.as_primitive::<Float64Type>().values()),
            Wire::Date => {
                let values = array.as_primitive::<Date32Type>().values();
                let fits = |day: &i32| day.checked_sub(EPOCH_DAYS).is_some_and(|day| DAYS.contains(&day));
                check_range(array, values, fits, "date")?;
                Values::Date(values)
            }
            Wire::Timestamp => {
                let values = array.as_primitive::<TimestampMicrosecondType>().values();
                let fits = |at: &i64| at.checked_sub(EPOCH_MICROS).is_some_and(|at| MICROS.contains(&at));
                check_range(array, values, fits, "timestamp")?;
                Values::Timestamp(values)
            }
            Wire::Text => {
                let text = array.as_string::<i32>();
                check_nul(array, text.values(), text.value_offsets())?;
                Values::Slices { data: text.values(), offsets: text.value_offsets() }
            }
            Wire::Bytea => {
                let bytes = array.as_binary::<i32>();
                Values::Slices { data: bytes.values(), offsets: bytes.value_offsets() }
            }
            Wire::Numeric
            | Wire::NumericText
            | Wire::JsonbText
            | Wire::Jsonb
            | Wire::Uuid
            | Wire::Interval
            | Wire::Array(..) => make(wire, field, array)?,
        };
        Ok(Self { nulls: array.nulls().filter(|nulls| nulls.null_count() > 0), values })
    }

    /// Bytes of a value, where all have the same.
    fn width(&self) -> Option<usize> {
        match self.values {
            Values::Bool(_) => Some(1),
            Values::Int2(_) => Some(2),
            Values::Int4(_) | Values::Float4(_) | Values::Date(_) => Some(4),
            Values::Int8(_) | Values::Float8(_) | Values::Timestamp(_) => Some(8),
            Values::Slices { .. } | Values::Made(_) => None,
        }
    }

    /// Bytes that this column takes in every row.
    fn least_bytes(&self) -> usize {
        4 + if self.nulls.is_none() { self.width().unwrap_or(0) } else { 0 }
    }

    /// Adds what it takes beyond that to each row's length.
    fn add_lengths(&self, first: usize, lengths: &mut [usize]) {
        let present = |row: usize| self.nulls.is_none_or(|nulls| nulls.is_valid(row));
        match (&self.values, self.width()) {
            (_, Some(width)) => {
                if let Some(nulls) = self.nulls {
                    for (row, length) in lengths.iter_mut().enumerate() {
                        *length += usize::from(nulls.is_valid(first + row)) * width;
                    }
                }
            }
            (Values::Slices { offsets, .. }, None) => {
                for (row, length) in lengths.iter_mut().enumerate() {
                    if present(first + row) {
                        *length += (offsets[first + row + 1] - offsets[first + row]) as usize;
                    }
                }
            }
            (Values::Made(Made { offsets, .. }), None) => {
                for (row, length) in lengths.iter_mut().enumerate() {
                    *length += offsets[first + row + 1] - offsets[first + row];
                }
            }
            _ => {}
        }
    }

    /// Writes the values of the rows from `first` on at `places`, and moves these behind them.
    fn write(&self, first: usize, places: &mut [usize], block: &mut [u8]) {
        let nulls = self.nulls;
        match &self.values {
            Values::Bool(v) => place(nulls, first, places, block, |row| [u8::from(v.value(row))]),
            Values::Int2(v) => place(nulls, first, places, block, |row| v[row].to_be_bytes()),
            Values::Int4(v) => place(nulls, first, places, block, |row| v[row].to_be_bytes()),
            Values::Int8(v) => place(nulls, first, places, block, |row| v[row].to_be_bytes()),
            Values::Float4(v) => place(nulls, first, places, block, |row| v[row].to_be_bytes()),
            Values::Float8(v) => place(nulls, first, places, block, |row| v[row].to_be_bytes()),
            Values::Date(v) => {
                place(nulls, first, places, block, |row| v[row].wrapping_sub(EPOCH_DAYS).to_be_bytes());
            }
            Values::Timestamp(v) => {
                place(nulls, first, places, block, |row| v[row].wrapping_sub(EPOCH_MICROS).to_be_bytes());
            }
            Values::Slices { data, offsets } => {
                place_slices(nulls, first, places, block, |row| {
                    &data[offsets[row] as usize..offsets[row + 1] as usize]
                });
            }
            Values::Made(Made { data, offsets }) => {
                place_slices(nulls, first, places, block, |row| &data[offsets[row]..offsets[row + 1]]);
            }
        }
    }

    /// Appends the value of one row, its length before it: for the items of arrays.
    fn append(&self, row: usize, out: &mut Vec<u8>) {
        let at = out.len();
        let mut length = [self.least_bytes()];
        self.add_lengths(row, &mut length);
        out.resize(at + length[0], 0);
        self.write(row, &mut [0], &mut out[at..]);
    }
}

/// The length of a null.
const NULL: [u8; 4] = (-1i32).to_be_bytes();

#[inline]
fn place<const WIDTH: usize>(
    nulls: Option<&NullBuffer>,
    first: usize,
    places: &mut [usize],
    block: &mut [u8],
    value: impl Fn(usize) -> [u8; WIDTH],
) {
    let length = (WIDTH as u32).to_be_bytes();
    let put = |place: &mut usize, block: &mut [u8], row: usize| {
        let cell = &mut block[*place..*place + 4 + WIDTH];
        cell[..4].copy_from_slice(&length);
        cell[4..].copy_from_slice(&value(row));
        *place += 4 + WIDTH;
    };
    match nulls {
        None => {
            for (row, place) in places.iter_mut().enumerate() {
                put(place, block, first + row);
            }
        }
        Some(nulls) => {
            for (row, place) in places.iter_mut().enumerate() {
                if nulls.is_valid(first + row) {
                    put(place, block, first + row);
                } else {
                    block[*place..*place + 4].copy_from_slice(&NULL);
                    *place += 4;
                }
            }
        }
    }
}

#[inline]
fn place_slices<'a>(
    nulls: Option<&NullBuffer>,
    first: usize,
    places: &mut [usize],
    block: &mut [u8],
    value: impl Fn(usize) -> &'a [u8],
) {
    for (row, place) in places.iter_mut().enumerate() {
        if nulls.is_some_and(|nulls| nulls.is_null(first + row)) {
            block[*place..*place + 4].copy_from_slice(&NULL);
            *place += 4;
            continue;
        }
        let bytes = value(first + row);
        let end = *place + 4 + bytes.len();
        block[*place..*place + 4].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        block[*place + 4..end].copy_from_slice(bytes);
        *place = end;
    }
}

fn check_range<T: Copy + std::fmt::Display>(
    array: &ArrayRef,
    values: &[T],
    fits: impl Fn(&T) -> bool,
    what: &str,
) -> Result<(), Unfit> {
    if values.iter().all(&fits) {
        return Ok(());
    }
    match values.iter().enumerate().find(|(row, value)| array.is_valid(*row) && !fits(value)) {
        Some((row, value)) => {
            let shown = arrow::util::display::array_value_to_string(array, row)
                .unwrap_or_else(|_| format!("{value} (since 1970)"));
            Err(Unfit::new(
                format!("the {what} {shown} is outside of what Postgres can keep"),
                "mend the value, or load the column as text with --types",
            ))
        }
        None => Ok(()),
    }
}

fn check_nul(array: &ArrayRef, data: &[u8], offsets: &[i32]) -> Result<(), Unfit> {
    let (begin, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    if memchr::memchr(0, &data[begin..end]).is_none() {
        return Ok(());
    }
    for row in 0..array.len() {
        let value = &data[offsets[row] as usize..offsets[row + 1] as usize];
        if array.is_valid(row) && value.contains(&0) {
            return Err(Unfit::new(
                format!("the value {} has a NUL byte, which no text in Postgres can hold", shorten(value)),
                "remove the NUL bytes from the file, or load the column as binary with --types",
            ));
        }
    }
    Ok(())
}

/// A value for a message, no longer than is good for it.
fn shorten(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    if text.chars().count() <= 60 {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(60).collect::<String>())
}

/// Values that were made one after the other: that of row `i` from `offsets[i]` to `offsets[i + 1]`.
struct Made {
    data: Vec<u8>,
    offsets: Vec<usize>,
}

impl Made {
    fn for_rows(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { data: Vec::with_capacity(rows * 12), offsets }
    }

    /// Makes the value of each row of `array` that is not null by `put`.
    fn each(
        &mut self,
        array: &ArrayRef,
        mut put: impl FnMut(usize, &mut Vec<u8>) -> Result<(), Unfit>,
    ) -> Result<(), Unfit> {
        for row in 0..array.len() {
            if array.is_valid(row) {
                put(row, &mut self.data)?;
            }
            self.offsets.push(self.data.len());
        }
        Ok(())
    }
}

/// The values that take more than copying: each is made once for the batch.
fn make<'a>(wire: &Wire, field: &FieldRef, array: &'a ArrayRef) -> Result<Values<'a>, Unfit> {
    let mut made = Made::for_rows(array.len());
    match (wire, array.data_type()) {
        (Wire::Numeric, DataType::Decimal128(_, scale)) => {
            let (scale, values) = (*scale as u8, array.as_any().downcast_ref::<Decimal128Array>());
            let values = values.ok_or_else(|| unexpected(wire, array))?.values();
            made.each(array, |row, out| {
                numeric::put_decimal128(out, values[row], scale);
                Ok(())
            })?;
        }
        (Wire::Numeric, DataType::Decimal256(_, scale)) => {
            let (scale, values) = (*scale as u8, array.as_any().downcast_ref::<Decimal256Array>());
            let values = values.ok_or_else(|| unexpected(wire, array))?;
            made.each(array, |row, out| {
                numeric::put_decimal256(out, values.value(row), scale);
                Ok(())
            })?;
        }
        (Wire::NumericText, DataType::Utf8) => {
            let text = array.as_string::<i32>();
            made.each(array, |row, out| {
                let value = text.value(row).as_bytes();
                if numeric::put_text(out, value) {
                    return Ok(());
                }
                Err(Unfit::new(format!("{} is not a number", shorten(value)), "mend the value in the file"))
            })?;
        }
        (Wire::JsonbText, DataType::Utf8) => {
            let text = array.as_string::<i32>();
            check_nul(array, text.values(), text.value_offsets())?;
            made.each(array, |row, out| {
                // The version of the binary form; the text follows.
                out.push(1);
                out.extend_from_slice(text.value(row).as_bytes());
                Ok(())
            })?;
        }
        (Wire::Uuid, DataType::Utf8) => {
            let text = array.as_string::<i32>();
            made.each(array, |row, out| match uuid::Uuid::try_parse(text.value(row).trim()) {
                Ok(id) => {
                    out.extend_from_slice(id.as_bytes());
                    Ok(())
                }
                Err(_) => Err(Unfit::new(
                    format!("{} is not a UUID", shorten(text.value(row).as_bytes())),
                    "mend the value in the file",
                )),
            })?;
        }
        (Wire::Interval, DataType::Duration(_)) => {
            let values = array.as_primitive::<DurationMicrosecondType>();
            made.each(array, |row, out| {
                out.extend_from_slice(&values.value(row).to_be_bytes());
                out.extend_from_slice(&[0; 8]);
                Ok(())
            })?;
        }
        (Wire::Interval, DataType::Interval(_)) => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            made.each(array, |row, out| {
                let value = values.value(row);
                out.extend_from_slice(&(value.nanoseconds / 1000).to_be_bytes());
                out.extend_from_slice(&value.days.to_be_bytes());
                out.extend_from_slice(&value.months.to_be_bytes());
                Ok(())
            })?;
        }
        (Wire::Array(wire, element), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let items = Cells::new(wire, item, list.values())?;
            made.each(array, |row, out| {
                let (begin, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                put_array(&items, *element, begin..end, out);
                Ok(())
            })?;
        }
        (Wire::Jsonb, _) => {
            let options = arrow_json::EncoderOptions::default();
            let unfit = |error: arrow::error::ArrowError| Unfit::new(error.to_string(), "load the column as text");
            let mut encoder = arrow_json::writer::make_encoder(field, array.as_ref(), &options).map_err(unfit)?;
            made.each(array, |row, out| {
                out.push(1);
                encoder.encode(row, out);
                Ok(())
            })?;
            if memchr::memmem::find(&made.data, b"\\u0000").is_some() {
                return Err(Unfit::new(
                    "a nested value has a NUL byte, which jsonb cannot hold",
                    "remove the NUL bytes from the file",
                ));
            }
        }
        _ => return Err(unexpected(wire, array)),
    }
    Ok(Values::Made(made))
}

fn unexpected(wire: &Wire, array: &ArrayRef) -> Unfit {
    Unfit::new(format!("{} cannot be written as {wire:?}", array.data_type()), "give the column another type")
}

/// One dimension, counted from 1, of the items in `range`.
fn put_array(items: &Cells<'_>, element: u32, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
    let dimensions = i32::from(!range.is_empty());
    let has_nulls = i32::from(items.nulls.is_some());
    out.extend_from_slice(&dimensions.to_be_bytes());
    out.extend_from_slice(&has_nulls.to_be_bytes());
    out.extend_from_slice(&element.to_be_bytes());
    if range.is_empty() {
        return;
    }
    out.extend_from_slice(&(range.len() as i32).to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    for row in range {
        items.append(row, out);
    }
}
