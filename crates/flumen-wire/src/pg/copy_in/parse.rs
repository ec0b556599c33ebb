//! The three forms in which COPY's rows come. Texts are gathered by column and become values of its type a batch at a
//! time; what does not fit names its line.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, BinaryBuilder, ListArray, RecordBatch, StringArray, StringBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use bytes::{Buf as _, BytesMut};
use flumen_core::{Error, Result, limits};
use postgres_types::Type;

use super::super::copy_out::BINARY_HEAD;
use super::super::parameters;
use super::super::types;
use crate::copy::Format;

/// Finds rows in what comes.
pub(in super::super) struct Parser {
    format: Format,
    schema: SchemaRef,
    /// The types as which texts are read: times without an offset are those of the session's zone.
    read_as: Vec<DataType>,
    buffer: BytesMut,
    columns: Vec<StringBuilder>,
    /// Rows that are gathered.
    rows: usize,
    /// Lines (rows, in binary) before those that are gathered.
    before: u64,
    /// The line of each row that is gathered.
    lines: Vec<u64>,
    line: u64,
    head: bool,
    ended: bool,
}

impl Parser {
    /// For rows of `schema` in `format`; times without an offset are those of `zone`.
    pub fn new(format: &Format, schema: &SchemaRef, zone: &str) -> Self {
        Self {
            read_as: schema.fields().iter().map(|field| in_zone(field.data_type(), zone)).collect(),
            head: match format {
                Format::Binary => true,
                Format::Text { header, .. } | Format::Csv { header, .. } => *header,
            },
            format: format.clone(),
            schema: Arc::clone(schema),
            buffer: BytesMut::new(),
            columns: schema.fields().iter().map(|_| StringBuilder::new()).collect(),
            rows: 0,
            before: 0,
            lines: Vec::new(),
            line: 0,
            ended: false,
        }
    }

    /// Rows that are gathered.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes in what has come.
    pub fn feed(&mut self, data: &[u8]) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.buffer.extend_from_slice(data);
        match self.format {
            Format::Binary => self.binary_rows(),
            Format::Text { .. } | Format::Csv { .. } => self.text_rows(false),
        }
    }

    /// Nothing more comes.
    pub fn finish(&mut self) -> Result<()> {
        match self.format {
            Format::Binary if self.ended || (self.buffer.is_empty() && self.head) => Ok(()),
            Format::Binary => Err(Error::data("the binary rows end too early")),
            _ => self.text_rows(true),
        }
    }

    /// The rows that are gathered.
    pub fn take(&mut self) -> Result<RecordBatch> {
        let fields = self.schema.fields().iter().zip(&self.read_as);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for ((field, read_as), column) in fields.zip(&mut self.columns) {
            let read = values(&column.finish(), read_as, field.name(), &self.lines)?;
            columns.push(if read_as == field.data_type() {
                read
            } else {
                arrow::compute::cast(&read, field.data_type())?
            });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.before += self.rows as u64;
        self.rows = 0;
        self.lines.clear();
        Ok(batch)
    }

    /// The rows in the buffer that are whole.
    fn text_rows(&mut self, last: bool) -> Result<()> {
        let mut start = 0;
        let buffer = std::mem::take(&mut self.buffer);
        while start < buffer.len() && !self.ended {
            let rest = &buffer[start..];
            let (end, next) = match self.end_of_row(rest) {
                Some(newline) => (newline, newline + 1),
                None if last => (rest.len(), rest.len()),
                None => break,
            };
            let row = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            self.line += 1;
            let first_line = self.line;
            self.line += row.iter().filter(|byte| **byte == b'\n').count() as u64;
            start += next;
            if std::mem::take(&mut self.head) {
                continue;
            }
            if row == b"\\." {
                self.ended = true;
                break;
            }
            self.lines.push(first_line);
            let text = std::str::from_utf8(row)
                .map_err(|_| Error::data(format!("line {first_line} is not UTF-8 text")))?
                .to_owned();
            match self.format.clone() {
                Format::Csv { delimiter, null, quote, escape, .. } => {
                    self.csv_row(&text, delimiter, &null, quote, escape)?;
                }
                Format::Text { delimiter, null, .. } => self.text_row(&text, delimiter, &null)?,
                Format::Binary => {}
            }
            self.rows += 1;
        }
        self.buffer = buffer;
        self.buffer.advance(start);
        if self.buffer.len() > limits::COPY_ROW_BYTES {
            return Err(Error::data(format!("line {} is longer than {} bytes", self.line + 1, limits::COPY_ROW_BYTES)));
        }
        Ok(())
    }

    /// Where the newline is that ends the first row.
    fn end_of_row(&self, rest: &[u8]) -> Option<usize> {
        let Format::Csv { quote, escape, .. } = self.format else {
            return rest.iter().position(|byte| *byte == b'\n');
        };
        let (mut quoted, mut place) = (false, 0);
        while let Some(byte) = rest.get(place) {
            if quoted && *byte == escape && escape != quote {
                place += 1;
            } else if *byte == quote {
                quoted = !quoted;
            } else if *byte == b'\n' && !quoted {
                return Some(place);
            }
            place += 1;
        }
        None
    }

    fn wrong_number(&self, fields: usize) -> Error {
        Error::data(format!("line {} has {fields} fields, and there are {} columns", self.line, self.columns.len()))
    }

    fn text_row(&mut self, row: &str, delimiter: u8, null: &str) -> Result<()> {
        let mut count = 0;
        let mut field = String::new();
        let mut rest = row;
        loop {
            // A delimiter after a backslash is part of the value.
            let mut end = 0;
            let bytes = rest.as_bytes();
            while end < bytes.len() && bytes[end] != delimiter {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            let end = end.min(bytes.len());
            let raw = &rest[..end];
            let wrong = self.wrong_number(count + 1);
            let column = self.columns.get_mut(count).ok_or(wrong)?;
            if raw == null {
                column.append_null();
            } else {
                field.clear();
                unescape(raw, &mut field);
                column.append_value(&field);
            }
            count += 1;
            if end == bytes.len() {
                break;
            }
            rest = &rest[end + 1..];
        }
        if count == self.columns.len() { Ok(()) } else { Err(self.wrong_number(count)) }
    }

    fn csv_row(&mut self, row: &str, delimiter: u8, null: &str, quote: u8, escape: u8) -> Result<()> {
        let bytes = row.as_bytes();
        let (mut place, mut count) = (0, 0);
        loop {
            let mut value = Vec::new();
            let mut was_quoted = false;
            let mut quoted = false;
            while let Some(byte) = bytes.get(place).copied() {
                let next = bytes.get(place + 1).copied();
                if quoted && byte == escape && next.is_some_and(|next| next == quote || next == escape) {
                    value.extend(next);
                    place += 2;
                } else if byte == quote {
                    (quoted, was_quoted) = (!quoted, true);
                    place += 1;
                } else if byte == delimiter && !quoted {
                    break;
                } else {
                    value.push(byte);
                    place += 1;
                }
            }
            if quoted {
                return Err(Error::data(format!("line {}: a quote is not closed", self.line)));
            }
            let wrong = self.wrong_number(count + 1);
            let column = self.columns.get_mut(count).ok_or(wrong)?;
            // Cut at ASCII only, so it is UTF-8 as it was.
            let value = String::from_utf8_lossy(&value);
            if !was_quoted && value == null {
                column.append_null()
            } else {
                column.append_value(&value)
            }
            count += 1;
            if place >= bytes.len() {
                break;
            }
            place += 1;
        }
        if count == self.columns.len() { Ok(()) } else { Err(self.wrong_number(count)) }
    }

    fn binary_rows(&mut self) -> Result<()> {
        if self.head {
            if self.buffer.len() < BINARY_HEAD.len() {
                return Ok(());
            }
            let signature = &BINARY_HEAD[..11];
            if !self.buffer.starts_with(signature) {
                return Err(Error::data("these are no rows in Postgres' binary form"));
            }
            let extension = i32::from_be_bytes([self.buffer[15], self.buffer[16], self.buffer[17], self.buffer[18]]);
            let whole = BINARY_HEAD.len() + usize::try_from(extension).unwrap_or_default();
            if self.buffer.len() < whole {
                return Ok(());
            }
            self.buffer.advance(whole);
            self.head = false;
        }
        let kinds: Vec<Type> = self.schema.fields().iter().map(|field| types::pg_type(field.data_type())).collect();
        while let Some(length) = self.binary_row()? {
            let mut row = self.buffer.split_to(length).freeze();
            let fields = row.get_i16();
            if fields == -1 {
                self.ended = true;
                return Ok(());
            }
            self.line += 1;
            self.lines.push(self.line);
            if usize::try_from(fields) != Ok(self.columns.len()) {
                return Err(self.wrong_number(usize::try_from(fields).unwrap_or_default()));
            }
            for (column, kind) in self.columns.iter_mut().zip(&kinds) {
                let Ok(bytes) = usize::try_from(row.get_i32()) else {
                    column.append_null();
                    continue;
                };
                let value = row.split_to(bytes);
                let text = parameters::binary_text(kind, value).ok_or_else(|| {
                    Error::data(format!("row {}: a value is no {} in binary", self.line, kind.name()))
                })?;
                column.append_value(text);
            }
            self.rows += 1;
        }
        Ok(())
    }

    /// The bytes of the first row, if it is there as a whole.
    fn binary_row(&self) -> Result<Option<usize>> {
        let bytes = &self.buffer[..];
        let Some(count) = bytes.get(..2) else { return Ok(None) };
        let count = i16::from_be_bytes([count[0], count[1]]);
        let mut place = 2;
        for _ in 0..count.max(0) {
            let Some(length) = bytes.get(place..place + 4) else { return Ok(None) };
            let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            let length = usize::try_from(length).unwrap_or_default();
            if length > limits::COPY_ROW_BYTES {
                return Err(Error::data(format!("row {} has a value of {length} bytes", self.line + 1)));
            }
            place += 4 + length;
        }
        Ok((bytes.len() >= place).then_some(place))
    }
}

/// `a\tb\\` as it is meant.
fn unescape(raw: &str, out: &mut String) {
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
}

/// `data_type`, its points in time in `zone`.
fn in_zone(data_type: &DataType, zone: &str) -> DataType {
    match data_type {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(zone.into())),
        DataType::List(element) => {
            let inner = in_zone(element.data_type(), zone);
            DataType::List(Arc::new(element.as_ref().clone().with_data_type(inner)))
        }
        other => other.clone(),
    }
}

/// Texts as values of `data_type`.
fn values(texts: &StringArray, data_type: &DataType, column: &str, lines: &[u64]) -> Result<ArrayRef> {
    match data_type {
        DataType::Binary => return bytes(texts, column, lines),
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _)
            if types::pg_type(data_type) != Type::JSON =>
        {
            return lists(texts, data_type, element, column, lines);
        }
        _ => {}
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let trimmed: StringArray = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => texts.clone(),
        _ => texts.iter().map(|text| text.map(str::trim)).collect(),
    };
    cast_with_options(&trimmed, data_type, &strict).map_err(|error| {
        // Which one it is, is looked for only now.
        let lenient = cast_with_options(&trimmed, data_type, &CastOptions::default());
        let bad =
            lenient.ok().and_then(|values| (0..texts.len()).find(|row| values.is_null(*row) && !texts.is_null(*row)));
        match bad {
            Some(row) => misfit(texts.value(row), &types::pg_type(data_type), column, lines.get(row)),
            None => Error::from(error),
        }
    })
}

/// Texts as lists of `element`: `{1,NULL,"a b"}`.
fn lists(
    texts: &StringArray,
    data_type: &DataType,
    element: &FieldRef,
    column: &str,
    lines: &[u64],
) -> Result<ArrayRef> {
    let mut elements = StringBuilder::new();
    let mut lengths = Vec::with_capacity(texts.len());
    let mut of_elements = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        let found = match text {
            None => Vec::new(),
            Some(text) => parameters::array_text(text)
                .ok_or_else(|| misfit(text, &types::pg_type(data_type), column, lines.get(row)))?,
        };
        lengths.push(found.len());
        of_elements.extend(lines.get(row).into_iter().flat_map(|line| std::iter::repeat_n(*line, found.len())));
        for value in found {
            elements.append_option(value.as_deref().map(String::from_utf8_lossy));
        }
    }
    let elements = values(&elements.finish(), element.data_type(), column, &of_elements)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    let list = ListArray::try_new(Arc::clone(element), offsets, elements, texts.nulls().cloned())?;
    Ok(arrow::compute::cast(&list, data_type)?)
}

fn bytes(texts: &StringArray, column: &str, lines: &[u64]) -> Result<ArrayRef> {
    let mut builder = BinaryBuilder::new();
    for (row, text) in texts.iter().enumerate() {
        let Some(text) = text else {
            builder.append_null();
            continue;
        };
        let wrong = || misfit(text, &Type::BYTEA, column, lines.get(row));
        match text.strip_prefix("\\x") {
            Some(digits) => {
                let pairs = digits.as_bytes().chunks(2);
                let byte = |pair: &[u8]| {
                    let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
                    u8::from_str_radix(text, 16).ok()
                };
                builder.append_value(pairs.map(byte).collect::<Option<Vec<u8>>>().ok_or_else(wrong)?);
            }
            None => builder.append_value(text.as_bytes()),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn misfit(text: &str, kind: &Type, column: &str, line: Option<&u64>) -> Error {
    let shown: String = text.chars().take(40).collect();
    let place = line.map(|line| format!("line {line}, ")).unwrap_or_default();
    Error::data(format!("COPY {place}column {column}: \"{shown}\" is no {}", kind.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray as _;
    use arrow::datatypes::{Field, Schema};
    use arrow::util::pretty::pretty_format_batches;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]))
    }

    /// The same rows whatever the pieces are in which they come.
    fn check(format: Format, data: &[u8], expect: &str) {
        for size in [1, 3, data.len().max(1)] {
            let mut parser = Parser::new(&format, &schema(), "UTC");
            let fed = data.chunks(size).try_for_each(|piece| parser.feed(piece)).and_then(|()| parser.finish());
            let got = match fed.and_then(|()| parser.take()) {
                Ok(batch) => {
                    let table = pretty_format_batches(&[batch]).expect("shown").to_string();
                    let rows = table.lines().skip(3).filter(|line| line.starts_with('|'));
                    let rows = rows.map(|line| line[1..line.len() - 1].split('|').map(str::trim).collect::<Vec<_>>());
                    rows.map(|cells| cells.join("|")).collect::<Vec<_>>().join(";")
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expect, "in pieces of {size}");
        }
    }

    fn text() -> Format {
        Format::Text { delimiter: b'\t', null: "\\N".to_owned(), header: false }
    }

    fn csv() -> Format {
        let force_quote = crate::copy::ForceQuote::Columns(Vec::new());
        Format::Csv { delimiter: b',', null: String::new(), header: true, quote: b'"', escape: b'"', force_quote }
    }

    #[test]
    fn text_rows() {
        check(text(), b"1\tone\n-2\t\\N\n\\N\ta\\tb\\\\\r\n\\.\nrest", "1|one;-2|;|a\tb\\");
        check(text(), b"1\n", "line 1 has 1 fields, and there are 2 columns");
        check(text(), b"1\tx\nz\ty", "COPY line 2, column a: \"z\" is no int8");
    }

    #[test]
    fn csv_rows() {
        check(csv(), b"a,b\n1,\"x, \"\"y\"\"\"\n2,\n3,\"\"", "1|x, \"y\";2|;3|");
        check(csv(), b"a,b\n1,\"x", "line 2: a quote is not closed");
        check(csv(), b"a,b\n1,\"x\ny\"\nq,z\n", "COPY line 4, column a: \"q\" is no int8");
    }

    #[test]
    fn lists_of_every_form() {
        let list = |data_type: DataType| DataType::List(Arc::new(Field::new("element", data_type, true)));
        let texts = |texts: &[Option<&str>]| texts.iter().copied().collect::<StringArray>();
        let numbers = texts(&[Some("{1, 2,NULL}"), None, Some("{}")]);
        let numbers = values(&numbers, &list(DataType::Int32), "a", &[1, 2, 3]).expect("lists");
        assert_eq!(
            format!("{:?}", numbers.as_list::<i32>().value(0)),
            "PrimitiveArray<Int32>\n[\n  1,\n  2,\n  null,\n]"
        );
        assert!(numbers.is_null(1) && numbers.as_list::<i32>().value(2).is_empty());
        let words = texts(&[Some(r#"{"a,\"b\\",NULL,"NULL",}"#)]);
        let words = values(&words, &list(DataType::Utf8), "a", &[1]).expect("lists");
        let words: Vec<Option<String>> =
            words.as_list::<i32>().value(0).as_string::<i32>().iter().map(|word| word.map(str::to_owned)).collect();
        assert_eq!(words, [Some("a,\"b\\".to_owned()), None, Some("NULL".to_owned()), Some(String::new())]);
        for (text, expect) in [
            ("{1,x}", "COPY line 7, column a: \"x\" is no int4"),
            ("1,2", "COPY line 7, column a: \"1,2\" is no _int4"),
        ] {
            let error = values(&texts(&[Some(text)]), &list(DataType::Int32), "a", &[7]).expect_err(text);
            assert_eq!(error.to_string(), expect);
        }
    }

    #[test]
    fn binary_rows() {
        let mut data = BINARY_HEAD.to_vec();
        data.extend([0, 2, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, b'x']);
        data.extend([0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        check(Format::Binary, &[&data[..], &[0xff, 0xff]].concat(), "7|x;|");
        check(Format::Binary, &data, "the binary rows end too early");
        check(
            Format::Binary,
            &[&BINARY_HEAD[..], &[0, 1, 0, 0, 0, 1, 0]].concat(),
            "line 1 has 1 fields, and there are 2 columns",
        );
    }
}
