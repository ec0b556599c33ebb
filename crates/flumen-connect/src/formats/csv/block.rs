//! Turns one block of text into a batch: rows first, a chunk at a time, then each wanted column of the chunk.
//!
//! Every record of the block ends up in exactly one place: in the batch, or among the bad rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_core::Result;
use flumen_core::read::{BadRow, Misfit, RawBatch, ReadRequest, RowNumbers, WantedColumn};
use flumen_core::text::{Piece, TextColumn, TextOptions};
use memchr::{memchr, memchr_iter};

use super::scan::{Marks, Scanner, Survey};

/// What all blocks of one reading have in common.
pub(super) struct Layout {
    pub marks: Marks,
    /// The names of all columns in the file.
    pub names: Vec<String>,
    pub wanted: Vec<WantedColumn>,
    /// The wanted columns, as they come.
    pub schema: SchemaRef,
    pub text: TextOptions,
    /// Where the number of columns comes from, for messages: `the header` or `the first row`.
    pub width_from: &'static str,
}

impl Layout {
    pub fn new(marks: Marks, names: Vec<String>, request: &ReadRequest, text: TextOptions, header: bool) -> Self {
        let field = |wanted: &WantedColumn| Field::new(&names[wanted.index], wanted.data_type.clone(), true);
        let schema = Arc::new(Schema::new(request.columns.iter().map(field).collect::<Vec<_>>()));
        let width_from = if header { "the header" } else { "the first row" };
        Self { marks, names, wanted: request.columns.clone(), schema, text, width_from }
    }
}

/// Whole records, with their place in the file.
pub(super) struct Block {
    /// Ends with a newline.
    pub text: Vec<u8>,
    pub survey: Survey,
    /// The line, from 1, on which it begins.
    pub line: u64,
    /// The number, from 1, of its first record.
    pub row: u64,
}

/// Rows that had more fields than there are columns, all of them empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Surplus {
    pub rows: u64,
    pub fewest: usize,
    pub most: usize,
}

impl Surplus {
    pub fn add(&mut self, other: Surplus) {
        if other.rows > 0 {
            self.fewest = if self.rows == 0 { other.fewest } else { self.fewest.min(other.fewest) };
            self.most = self.most.max(other.most);
            self.rows += other.rows;
        }
    }
}

/// A field's bytes, from and to. Those beyond the text are in the place for unescaped values.
type Span = (u32, u32);

/// Reads `block`.
pub(super) fn parse(layout: &Layout, block: &Block) -> Result<(RawBatch, Surplus)> {
    let text = &block.text[..];
    let mut rows = Rows::new(layout, block);
    let mut columns = layout
        .wanted
        .iter()
        .map(|wanted| TextColumn::new(&wanted.data_type, block.survey.records as usize, &layout.text))
        .collect::<Result<Vec<_>>>()?;
    let mut misfits = Vec::new();
    let mut scanner = Scanner::new(text, layout.marks, &block.survey);
    while let Some((ends, records)) = scanner.next_chunk() {
        rows.take(ends, records);
        for (place, (wanted, column)) in layout.wanted.iter().zip(&mut columns).enumerate() {
            let mut misfit = |row: usize, value: &[u8]| {
                misfits.push(Misfit {
                    row: rows.before + row,
                    column: place,
                    line: None,
                    value: String::from_utf8_lossy(value).into_owned(),
                });
            };
            if block.survey.quoted {
                column
                    .extend(rows.spans.chunks_exact(rows.width).map(|row| rows.value(row[wanted.index])), &mut misfit);
            } else {
                let fields = rows.ends.chunks_exact(rows.width + 1);
                let value = |row: &[u32]| {
                    Piece::new(text, row[wanted.index].wrapping_add(1) as usize, row[wanted.index + 1] as usize)
                };
                column.extend(fields.map(value), &mut misfit);
            }
        }
        rows.end_chunk();
        scanner.consume();
    }
    let arrays: Vec<ArrayRef> = columns.iter_mut().map(TextColumn::finish).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.before));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&layout.schema), arrays, &options)?;
    put_in_order(&mut misfits, text, &rows.starts, block.line);
    let numbers = if rows.bad.is_empty() { RowNumbers::From(block.row) } else { RowNumbers::List(rows.numbers) };
    Ok((RawBatch { batch, rows: numbers, misfits, bad: rows.bad }, rows.surplus))
}

/// Sorts misfits by row, and finds their lines.
fn put_in_order(misfits: &mut [Misfit], text: &[u8], starts: &[u32], line: u64) {
    misfits.sort_by_key(|misfit| (misfit.row, misfit.column));
    let mut lines = Lines { line, at: 0 };
    for misfit in misfits {
        misfit.line = Some(lines.of(text, starts[misfit.row] as usize));
    }
}

/// Counts lines, on and on.
struct Lines {
    line: u64,
    at: usize,
}

impl Lines {
    /// The line of the byte at `place`, which is not before the last one asked for.
    fn of(&mut self, text: &[u8], place: usize) -> u64 {
        self.line += memchr_iter(b'\n', &text[self.at..place]).count() as u64;
        self.at = place;
        self.line
    }
}

/// Tells good rows from bad ones.
struct Rows<'a> {
    layout: &'a Layout,
    text: &'a [u8],
    /// How many fields a row shall have.
    width: usize,
    quote: Option<u8>,
    /// Whether the block has bytes that text may not have.
    suspicious: bool,
    lines: Lines,
    first: u64,
    /// The number of the next record, and where it begins.
    number: u64,
    next: usize,

    /// Of the chunk, without quotes: for each row, the byte before its first field, then the end of each field. (The
    /// byte before the block is the one before 0; hence the text begins one later than these numbers say.)
    ends: Vec<u32>,
    /// Of the chunk, with quotes: the fields.
    spans: Vec<Span>,
    /// Values whose doubled quotes were undoubled.
    unescaped: Vec<u8>,

    /// Good rows before this chunk, and with it.
    before: usize,
    /// Where each good row of the block begins.
    starts: Vec<u32>,
    /// Their numbers; filled from the first bad row on.
    numbers: Vec<u64>,
    bad: Vec<BadRow>,
    surplus: Surplus,
}

/// What is wrong with a row.
struct Fault {
    column: Option<usize>,
    reason: String,
}

impl<'a> Rows<'a> {
    fn new(layout: &'a Layout, block: &'a Block) -> Self {
        let text = &block.text[..];
        let has_text = layout.wanted.iter().any(|wanted| wanted.data_type == DataType::Utf8);
        let suspicious = has_text && (simdutf8::basic::from_utf8(text).is_err() || memchr(0, text).is_some());
        Self {
            layout,
            text,
            width: layout.names.len(),
            quote: layout.marks.quote.filter(|_| block.survey.quoted),
            suspicious,
            lines: Lines { line: block.line, at: 0 },
            first: block.row,
            number: block.row,
            next: 0,
            ends: Vec::new(),
            spans: Vec::new(),
            unescaped: Vec::new(),
            before: 0,
            starts: Vec::with_capacity(block.survey.records as usize),
            numbers: Vec::new(),
            bad: Vec::new(),
            surplus: Surplus::default(),
        }
    }

    /// Sorts the records of a chunk: `records` says how many of `ends` lie up to the end of each.
    fn take(&mut self, ends: &[u32], records: &[u32]) {
        let mut from = 0;
        for &to in records {
            self.record(&ends[from..to as usize]);
            from = to as usize;
        }
    }

    #[inline]
    fn record(&mut self, fields: &[u32]) {
        let start = self.next;
        let newline = fields[fields.len() - 1] as usize;
        self.next = newline + 1;
        let end = if newline > start && self.text[newline - 1] == b'\r' { newline - 1 } else { newline };
        if fields.len() == 1 && end == start {
            return;
        }
        let number = self.number;
        self.number += 1;
        let fault = if fields.len() < self.width {
            let (has, header) = (fields.len(), self.layout.width_from);
            let s = if has == 1 { "" } else { "s" };
            Some(Fault { column: None, reason: format!("has {has} field{s}, {header} has {}", self.width) })
        } else {
            self.fields(start, end, fields)
        };
        match fault {
            None => {
                self.starts.push(start as u32);
                if !self.bad.is_empty() {
                    self.numbers.push(number);
                }
            }
            Some(fault) => self.reject(number, start, end, fault),
        }
    }

    /// Takes the fields of a row that has enough of them, unless something is wrong with it.
    #[inline]
    fn fields(&mut self, start: usize, end: usize, fields: &[u32]) -> Option<Fault> {
        let mut last = end;
        if fields.len() > self.width {
            last = fields[self.width - 1] as usize;
            let delimiter = self.layout.marks.delimiter;
            let empty = |field: &[u8]| match field.trim_ascii_end() {
                [first, inner @ .., last] if self.quote == Some(*first) && first == last => {
                    inner.trim_ascii().is_empty()
                }
                field => field.trim_ascii().is_empty(),
            };
            if !self.text[last + 1..end].split(|byte| *byte == delimiter).all(empty) {
                let (has, header) = (fields.len(), self.layout.width_from);
                return Some(Fault { column: None, reason: format!("has {has} fields, {header} has {}", self.width) });
            }
        }
        let inner = &fields[..self.width - 1];
        if self.suspicious
            && let Some(fault) = self.unfit_for_text(start, inner, last)
        {
            return Some(fault);
        }
        match self.quote {
            None => {
                self.ends.push((start as u32).wrapping_sub(1));
                self.ends.extend_from_slice(inner);
                self.ends.push(last as u32);
            }
            Some(quote) => {
                let kept = self.spans.len();
                let mut from = start;
                for (column, to) in inner.iter().map(|&to| to as usize).chain([last]).enumerate() {
                    match self.unquote(from, to, quote) {
                        Ok(span) => self.spans.push(span),
                        Err(reason) => {
                            self.spans.truncate(kept);
                            let reason = format!("{reason} of column '{}'", self.layout.names[column]);
                            return Some(Fault { column: Some(column), reason });
                        }
                    }
                    from = to + 1;
                }
            }
        }
        if fields.len() > self.width {
            let more = fields.len() - self.width;
            self.surplus.add(Surplus { rows: 1, fewest: more, most: more });
        }
        None
    }

    /// The value of a field without its quotes.
    #[inline]
    fn unquote(&mut self, from: usize, mut to: usize, quote: u8) -> Result<Span, &'static str> {
        if from == to || self.text[from] != quote {
            return Ok((from as u32, to as u32));
        }
        while to > from + 1 && matches!(self.text[to - 1], b' ' | b'\t') {
            to -= 1;
        }
        if to < from + 2 || self.text[to - 1] != quote {
            let closed = memchr_iter(quote, &self.text[from..to]).count().is_multiple_of(2);
            return Err(if closed { "text follows the closing quote" } else { "there is no closing quote at the end" });
        }
        let inner = &self.text[from + 1..to - 1];
        let Some(first) = memchr(quote, inner) else { return Ok((from as u32 + 1, to as u32 - 1)) };
        let begin = self.text.len() + self.unescaped.len();
        let (mut rest, mut next) = (inner, Some(first));
        while let Some(at) = next {
            if rest.get(at + 1) != Some(&quote) {
                return Err("a quote that is not doubled stands in the middle");
            }
            self.unescaped.extend_from_slice(&rest[..=at]);
            rest = &rest[at + 2..];
            next = memchr(quote, rest);
        }
        self.unescaped.extend_from_slice(rest);
        Ok((begin as u32, (self.text.len() + self.unescaped.len()) as u32))
    }

    /// Looks for bytes that a wanted text column cannot hold.
    #[cold]
    fn unfit_for_text(&self, start: usize, inner: &[u32], last: usize) -> Option<Fault> {
        let mut wanted: Vec<usize> =
            self.layout.wanted.iter().filter(|w| w.data_type == DataType::Utf8).map(|w| w.index).collect();
        wanted.sort_unstable();
        for column in wanted {
            let from = if column == 0 { start } else { inner[column - 1] as usize + 1 };
            let to = inner.get(column).map_or(last, |&to| to as usize);
            let (value, name) = (&self.text[from..to], &self.layout.names[column]);
            let reason = if std::str::from_utf8(value).is_err() {
                format!("column '{name}' is not valid UTF-8; if the file is in Latin-1, add --encoding latin-1")
            } else if memchr(0, value).is_some() {
                format!("column '{name}' holds a NUL byte, which is no text")
            } else {
                continue;
            };
            return Some(Fault { column: Some(column), reason });
        }
        None
    }

    #[cold]
    fn reject(&mut self, number: u64, start: usize, end: usize, fault: Fault) {
        if self.bad.is_empty() {
            self.numbers = (self.first..number).collect();
        }
        self.bad.push(BadRow {
            row: number,
            line: Some(self.lines.of(self.text, start)),
            column: fault.column.map(|column| self.layout.names[column].clone()),
            reason: fault.reason,
            value: None,
            record: String::from_utf8_lossy(&self.text[start..end]).into_owned(),
        });
    }

    #[inline]
    fn value(&self, (from, to): Span) -> Piece<'_> {
        let (from, to, length) = (from as usize, to as usize, self.text.len());
        if from < length {
            Piece::new(self.text, from, to)
        } else {
            Piece::new(&self.unescaped, from - length, to - length)
        }
    }

    fn end_chunk(&mut self) {
        self.before = self.starts.len();
        self.ends.clear();
        self.spans.clear();
        self.unescaped.clear();
    }
}
