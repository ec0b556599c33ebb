//! COPY … TO STDOUT: rows in the form in which COPY writes them, one message a row.

use bytes::{BufMut as _, BytesMut};

use super::connection::{Connection, Running};
use super::encode::{self, Cells};
use super::messages::Output;
use super::rows::Rows;
use super::run::Started;
use super::types::Column;
use super::wire::Broken;
use crate::copy::{Copy, ForceQuote, Format, What};
use crate::failure::{Failure, code};
use crate::statement::{self, Kind};

/// What a binary COPY begins with: a signature, no flags, no extension.
pub(super) const BINARY_HEAD: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

impl Connection {
    /// Begins the COPY that is written as `sql`.
    pub(super) async fn copy(&mut self, copy: &Copy, sql: &str, running: &mut Running) -> Result<Started, Failure> {
        if copy.program {
            return Err(Failure::new(code::INSUFFICIENT_PRIVILEGE, "clients may run no programs of the server")
                .hint("use STDIN or STDOUT: psql's \\copy does"));
        }
        if copy.file.is_some() {
            // Whether it may be used is known to those who read and write files.
            return self.run_by_engine(sql, running, "COPY").await;
        }
        if copy.incoming {
            return Ok(Started::CopyIn(copy.clone()));
        }
        let query = match &copy.what {
            What::Query(query) => query.clone(),
            What::Table { name, columns } if columns.is_empty() => format!("select * from {name}"),
            What::Table { name, columns } => {
                let columns: Vec<String> = columns.iter().map(|column| quoted_name(column)).collect();
                format!("select {} from {name}", columns.join(", "))
            }
        };
        let statement = statement::understand(&query)?;
        if !matches!(statement.kind, Kind::Query(_) | Kind::Other { rows: true, .. }) {
            return Err(Failure::new(code::SYNTAX_ERROR, "COPY takes a table or a query"));
        }
        match Box::pin(self.start(&statement, running)).await? {
            Started::Rows { rows, .. } => Ok(Started::CopyOut { copy: copy.clone(), rows }),
            _ => Err(Failure::new(code::SYNTAX_ERROR, "COPY takes a table or a query")),
        }
    }

    /// Sends all rows.
    pub(super) async fn copy_out(
        &mut self,
        copy: &Copy,
        mut rows: Rows,
        running: &mut Running,
    ) -> Result<Result<(), Failure>, Broken> {
        let writer = match Writer::new(&copy.format, &rows.columns) {
            Ok(writer) => writer,
            Err(failure) => return Ok(Err(failure)),
        };
        let binary = copy.format == Format::Binary;
        self.wire.out.copy_begins(b'H', binary, rows.columns.len());
        // The head of the binary form comes with what is first after it, that of the others by itself.
        let mut head = writer.head(&rows.columns);
        if let Some(head) = head.take_if(|_| !binary) {
            self.wire.out.message(b'd', |out| out.put_slice(&head));
        }
        let mut value = BytesMut::new();
        loop {
            match running.run(rows.wait()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                Ok(Err(error)) => return Ok(Err(error.into())),
                Err(failure) => return Ok(Err(failure)),
            }
            rows.write_with(usize::MAX, &mut self.wire.out, |cells, row, out: &mut Output| {
                let start = out.begin(b'd');
                if let Some(head) = head.take() {
                    out.0.put_slice(&head);
                }
                writer.row(cells, row, &mut value, &mut out.0);
                out.end(start);
            });
            match running.run(self.wire.flush_if_full()).await {
                Ok(flushed) => flushed?,
                Err(failure) => return Ok(Err(failure)),
            }
        }
        if binary {
            self.wire.out.message(b'd', |out| {
                out.put_slice(&head.take().unwrap_or_default());
                out.put_i16(-1);
            });
        }
        self.wire.out.bare(b'c');
        self.wire.out.complete(&format!("COPY {}", rows.sent));
        Ok(Ok(()))
    }
}

/// A name in double quotes.
pub(crate) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes rows in a format.
struct Writer {
    format: Format,
    forced: Vec<bool>,
}

impl Writer {
    fn new(format: &Format, columns: &[Column]) -> Result<Self, Failure> {
        let forced = match format {
            Format::Csv { force_quote: ForceQuote::All, .. } => vec![true; columns.len()],
            Format::Csv { force_quote: ForceQuote::Columns(names), .. } => {
                let known = |name: &&String| !columns.iter().any(|column| column.name == **name);
                if let Some(name) = names.iter().find(known) {
                    return Err(Failure::new(code::UNDEFINED_COLUMN, format!("there is no column '{name}'")));
                }
                columns.iter().map(|column| names.contains(&column.name)).collect()
            }
            _ => Vec::new(),
        };
        Ok(Self { format: format.clone(), forced })
    }

    /// What comes before the rows.
    fn head(&self, columns: &[Column]) -> Option<BytesMut> {
        let mut out = BytesMut::new();
        match &self.format {
            Format::Binary => out.put_slice(BINARY_HEAD),
            Format::Text { delimiter, header: true, .. } => {
                for (index, column) in columns.iter().enumerate() {
                    if index > 0 {
                        out.put_u8(*delimiter);
                    }
                    escaped(column.name.as_bytes(), *delimiter, &mut out);
                }
                out.put_u8(b'\n');
            }
            Format::Csv { delimiter, header: true, quote, escape, null, .. } => {
                for (index, column) in columns.iter().enumerate() {
                    if index > 0 {
                        out.put_u8(*delimiter);
                    }
                    let csv = Csv { delimiter: *delimiter, quote: *quote, escape: *escape, null };
                    csv.write(column.name.as_bytes(), false, &mut out);
                }
                out.put_u8(b'\n');
            }
            _ => return None,
        }
        Some(out)
    }

    fn row(&self, cells: &[Box<dyn Cells>], row: usize, value: &mut BytesMut, out: &mut BytesMut) {
        match &self.format {
            Format::Binary => {
                out.put_u16(cells.len() as u16);
                cells.iter().for_each(|cells| encode::field(cells.as_ref(), row, 1, out));
            }
            Format::Text { delimiter, null, .. } => {
                for (index, cells) in cells.iter().enumerate() {
                    if index > 0 {
                        out.put_u8(*delimiter);
                    }
                    if cells.is_null(row) {
                        out.put_slice(null.as_bytes());
                        continue;
                    }
                    let start = out.len();
                    cells.text(row, out);
                    if cells.is_plain() && is_usual(*delimiter) {
                        continue;
                    }
                    if out[start..].iter().any(|byte| must_escape(*byte, *delimiter)) {
                        value.clear();
                        value.put_slice(&out[start..]);
                        out.truncate(start);
                        escaped(value, *delimiter, out);
                    }
                }
                out.put_u8(b'\n');
            }
            Format::Csv { delimiter, null, quote, escape, .. } => {
                let csv = Csv { delimiter: *delimiter, quote: *quote, escape: *escape, null };
                for (index, cells) in cells.iter().enumerate() {
                    if index > 0 {
                        out.put_u8(*delimiter);
                    }
                    if cells.is_null(row) {
                        out.put_slice(null.as_bytes());
                        continue;
                    }
                    let forced = self.forced.get(index) == Some(&true);
                    if cells.is_plain() && is_usual(*delimiter) && null.is_empty() && !forced {
                        cells.text(row, out);
                        continue;
                    }
                    value.clear();
                    cells.text(row, value);
                    csv.write(value, forced, out);
                }
                out.put_u8(b'\n');
            }
        }
    }
}

/// Whether a delimiter is one that no number and no time has in its text.
fn is_usual(delimiter: u8) -> bool {
    matches!(delimiter, b'\t' | b',' | b'|' | b';')
}

fn must_escape(byte: u8, delimiter: u8) -> bool {
    byte == delimiter || byte == b'\\' || (8..=13).contains(&byte)
}

/// Writes `value` as COPY's text has it.
fn escaped(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    for byte in value {
        let letter = match byte {
            8 => b'b',
            9 => b't',
            10 => b'n',
            11 => b'v',
            12 => b'f',
            13 => b'r',
            b'\\' => b'\\',
            byte if *byte == delimiter => *byte,
            _ => {
                out.put_u8(*byte);
                continue;
            }
        };
        out.put_slice(&[b'\\', letter]);
    }
}

struct Csv<'a> {
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: &'a str,
}

impl Csv<'_> {
    fn write(&self, value: &[u8], forced: bool, out: &mut BytesMut) {
        let special = |byte: &u8| *byte == self.delimiter || *byte == self.quote || matches!(byte, b'\n' | b'\r');
        let quote = forced || value == self.null.as_bytes() || value == b"\\." || value.iter().any(special);
        if !quote {
            out.put_slice(value);
            return;
        }
        out.put_u8(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.put_u8(self.escape);
            }
            out.put_u8(*byte);
        }
        out.put_u8(self.quote);
    }
}
