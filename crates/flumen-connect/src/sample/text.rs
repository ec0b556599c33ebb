//! Trips as CSV, plain or in one gzip member. Numbers look like their type in Parquet (a double has a decimal point), so
//! that a reader infers the same columns from either.

use std::io::Write;

use arrow::datatypes::DataType;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use flumen_core::Error;

use super::month::civil_from_days;
use super::ordered::in_order;
use super::trips::{Cell, Model};
use super::{Failure, Trips, Watch, layout};

/// Rows that one thread writes at a time. Packed files depend on it.
const BLOCK_ROWS: u64 = 32_768;
/// Bytes of a row that are reserved; the longest ones take about as many.
const ROW_BYTES: usize = 128;
/// How hard gzip tries: packing takes far longer than making the rows.
const GZIP_LEVEL: u32 = 3;
/// The head of a gzip member: deflate, no name, no time, unknown system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// A deflate stream's last block, empty.
const GZIP_LAST: [u8; 2] = [3, 0];

/// Writes a month of trips to `out`.
pub(super) fn write(
    trips: &Trips,
    gzip: bool,
    out: &mut (impl Write + Send),
    workers: usize,
    watch: &Watch,
) -> Result<(), Failure> {
    write_blocks(trips, BLOCK_ROWS, gzip, out, workers, watch)
}

/// [`write`], in blocks of `block_rows`.
pub(super) fn write_blocks(
    trips: &Trips,
    block_rows: u64,
    gzip: bool,
    out: &mut (impl Write + Send),
    workers: usize,
    watch: &Watch,
) -> Result<(), Failure> {
    let lines = Lines::new(trips, block_rows);
    let mut crc = Crc::new();
    if gzip {
        out.write_all(&GZIP_HEAD).map_err(Failure::Io)?;
    }
    let make = |block| {
        let text = lines.block(block);
        let rows = lines.rows(block).count() as u64;
        if gzip { pack(&text).map(|(bytes, crc)| (bytes, crc, rows)) } else { Ok((text, Crc::new(), rows)) }
    };
    let take = |(bytes, block_crc, rows): (Vec<u8>, Crc, u64)| {
        out.write_all(&bytes).map_err(Failure::Io)?;
        crc.combine(&block_crc);
        watch.add_rows(rows);
        Ok(())
    };
    in_order(trips.rows.div_ceil(block_rows).max(1), workers, watch, make, take)?;
    if gzip {
        out.write_all(&GZIP_LAST).map_err(Failure::Io)?;
        out.write_all(&crc.sum().to_le_bytes()).map_err(Failure::Io)?;
        out.write_all(&crc.amount().to_le_bytes()).map_err(Failure::Io)?;
    }
    Ok(())
}

/// Packs one block so that it can be joined to others: ended at a byte, and not the last.
fn pack(text: &[u8]) -> Result<(Vec<u8>, Crc), Failure> {
    // Room for text that cannot be packed at all, so that one call is enough.
    let mut packed = Vec::with_capacity(text.len() + text.len() / 8 + 1_024);
    let mut deflate = Compress::new(Compression::new(GZIP_LEVEL), false);
    let status = deflate.compress_vec(text, &mut packed, FlushCompress::Sync);
    if !matches!(status, Ok(Status::Ok)) || deflate.total_in() != text.len() as u64 {
        return Err(Failure::Ours(Error::internal("a block of sample rows could not be packed with gzip")));
    }
    let mut crc = Crc::new();
    crc.update(text);
    Ok((packed, crc))
}

/// The lines of a file.
struct Lines {
    model: Model,
    header: String,
    /// Whether each column is a double.
    doubles: Vec<bool>,
    block_rows: u64,
    total: u64,
}

impl Lines {
    fn new(trips: &Trips, block_rows: u64) -> Self {
        let schema = layout::schema(trips.kind, trips.month);
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Self {
            model: Model::new(trips),
            header: names.join(","),
            doubles: schema.fields().iter().map(|field| *field.data_type() == DataType::Float64).collect(),
            block_rows,
            total: trips.rows,
        }
    }

    fn rows(&self, block: u64) -> std::ops::Range<u64> {
        let first = block * self.block_rows;
        first..(first + self.block_rows).min(self.total)
    }

    /// The text of a block, the header before the first one.
    fn block(&self, block: u64) -> Vec<u8> {
        let rows = self.rows(block);
        let mut text = Vec::with_capacity(self.header.len() + 1 + rows.clone().count() * ROW_BYTES);
        if block == 0 {
            text.extend_from_slice(self.header.as_bytes());
            text.push(b'\n');
        }
        let mut cells = Vec::with_capacity(self.doubles.len());
        let mut dates = Dates::default();
        for row in rows {
            self.model.row(row, &mut cells);
            let bad = self.model.bad(row);
            // Every other bad row is cut short, as by a full disk; the others have a field too many.
            let shown = if bad.is_some_and(|bad| bad % 2 == 0) { cells.len() / 2 } else { cells.len() };
            for (cell, double) in cells[..shown].iter().zip(&self.doubles) {
                push_cell(&mut text, *cell, *double, &mut dates);
                text.push(b',');
            }
            if bad.is_some_and(|bad| bad % 2 == 1) {
                text.extend_from_slice(b"surplus,");
            }
            text.pop();
            text.push(b'\n');
        }
        text
    }
}

fn push_cell(text: &mut Vec<u8>, cell: Cell, double: bool, dates: &mut Dates) {
    match cell {
        Cell::Null => {}
        Cell::Int(value) => {
            push_int(text, value);
            if double {
                text.extend_from_slice(b".0");
            }
        }
        Cell::Hundredths(value) => push_hundredths(text, value),
        Cell::Time(seconds) => dates.push(text, seconds),
        Cell::Flag(flag) => text.push(if flag { b'Y' } else { b'N' }),
        Cell::Base(number) => text.extend_from_slice(&base(number)),
    }
}

/// The name of a for-hire base, such as `B01234`.
pub(super) fn base(number: u32) -> [u8; 6] {
    let digit = |power| b'0' + (number / power % 10) as u8;
    [b'B', digit(10_000), digit(1_000), digit(100), digit(10), digit(1)]
}

fn push_int(text: &mut Vec<u8>, value: i64) {
    if value < 0 {
        text.push(b'-');
    }
    let (mut digits, mut at, mut left) = ([0; 20], 20, value.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[at..]);
}

/// `1234` as `12.34`, `1230` as `12.3`, `1200` as `12.0`.
fn push_hundredths(text: &mut Vec<u8>, value: i64) {
    if value < 0 {
        text.push(b'-');
    }
    let value = value.unsigned_abs();
    push_int(text, (value / 100) as i64);
    let (tenths, rest) = ((value % 100 / 10) as u8, (value % 10) as u8);
    text.extend_from_slice(&[b'.', b'0' + tenths]);
    if rest > 0 {
        text.push(b'0' + rest);
    }
}

/// Writes dates, and remembers the last one: neighbours are mostly of the same day.
#[derive(Default)]
struct Dates {
    day: Option<i64>,
    date: [u8; 11],
}

impl Dates {
    fn push(&mut self, text: &mut Vec<u8>, seconds: i64) {
        let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        if self.day != Some(day) {
            let (year, month, number) = civil_from_days(day);
            let digits = [year / 1_000, year / 100, year / 10, year, month / 10, month, number / 10, number];
            let [y0, y1, y2, y3, m0, m1, d0, d1] = digits.map(|digit| b'0' + (digit % 10) as u8);
            self.date = [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b' '];
            self.day = Some(day);
        }
        text.extend_from_slice(&self.date);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let [h0, h1, m0, m1, s0, s1] =
            [hour / 10, hour % 10, minute / 10, minute % 10, second / 10, second % 10].map(|digit| b'0' + digit as u8);
        text.extend_from_slice(&[h0, h1, b':', m0, m1, b':', s0, s1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cell: Cell, double: bool, expect: &str) {
        let mut text = Vec::new();
        push_cell(&mut text, cell, double, &mut Dates::default());
        assert_eq!(String::from_utf8(text).unwrap(), expect);
    }

    #[test]
    fn cells_look_like_their_types() {
        check(Cell::Null, true, "");
        check(Cell::Int(0), false, "0");
        check(Cell::Int(-120), true, "-120.0");
        check(Cell::Hundredths(1_234), true, "12.34");
        check(Cell::Hundredths(-50), true, "-0.5");
        check(Cell::Hundredths(5), true, "0.05");
        check(Cell::Hundredths(1_200), true, "12.0");
        check(Cell::Time(1_546_300_800 + 3_661), false, "2019-01-01 01:01:01");
        check(Cell::Time(-1), false, "1969-12-31 23:59:59");
        check(Cell::Flag(true), false, "Y");
        check(Cell::Base(256), false, "B00256");
    }
}
