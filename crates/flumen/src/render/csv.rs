//! Results as CSV: null is empty, an empty text is `""`, so that the two stay apart.

use std::fmt::Write as _;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::ArrayFormatter;
use flumen_core::Result;

use super::{text_format, write_error};

/// Writes batches as CSV.
pub struct CsvWriter<W> {
    out: W,
    line: String,
}

impl<W: Write> CsvWriter<W> {
    /// Begins with the header.
    pub fn new(mut out: W, schema: &SchemaRef) -> Result<Self> {
        let names: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
        writeln!(out, "{}", names.join(",")).map_err(write_error)?;
        Ok(Self { out, line: String::new() })
    }

    /// Writes the rows of a batch.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let options = text_format();
        let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        self.line.clear();
        for row in 0..batch.num_rows() {
            for (index, (column, formatter)) in batch.columns().iter().zip(&formatters).enumerate() {
                if index > 0 {
                    self.line.push(',');
                }
                if column.is_valid(row) {
                    let start = self.line.len();
                    // Writing to a string fails only where a value cannot be shown, which gives an empty field.
                    let _ = write!(self.line, "{}", formatter.value(row));
                    if needs_quotes(&self.line[start..]) {
                        let field = quoted(&self.line[start..]);
                        self.line.truncate(start);
                        self.line.push_str(&field);
                    }
                }
            }
            self.line.push('\n');
        }
        self.out.write_all(self.line.as_bytes()).map_err(write_error)
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

fn needs_quotes(field: &str) -> bool {
    field.is_empty() || field.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'))
}

fn quoted(field: &str) -> String {
    if needs_quotes(field) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}
