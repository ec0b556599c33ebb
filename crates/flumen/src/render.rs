//! How the result of a query is written: as a table for people, or in a format for programs.
//!
//! Formats for programs are written batch by batch and never held. A table is held, since its columns are as wide as their
//! widest cell; on a terminal only the rows that are shown are.

mod chart;
mod csv;
mod table;

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::FormatOptions;
use flumen_core::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use table::{Cells, Layout};

/// The formats of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, for people
    Table,
    /// Comma-separated values with a header; null is empty, an empty text is ""
    Csv,
    /// One array of objects
    Json,
    /// One object a line
    Ndjson,
    /// A Markdown table
    Markdown,
    /// A bar chart: the first column names the bars, the last number is their length
    Chart,
    /// A Parquet file (with -o, or where standard output is not a terminal)
    Parquet,
}

impl Format {
    /// Whether nothing is written before the whole result is there.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Table | Self::Markdown | Self::Chart)
    }

    /// The format that the name of a file asks for.
    pub fn of_file(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        Some(match ending.to_ascii_lowercase().as_str() {
            "csv" => Self::Csv,
            "json" => Self::Json,
            "ndjson" | "jsonl" => Self::Ndjson,
            "md" => Self::Markdown,
            "parquet" => Self::Parquet,
            "txt" => Self::Table,
            _ => return None,
        })
    }
}

/// How a table is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Whether colours are on.
    pub colors: bool,
    /// On a terminal: its width. Cells are cut short and rows are left out there.
    pub terminal_width: Option<usize>,
    /// Tables: the most rows that are shown; none for all.
    pub max_rows: Option<usize>,
    /// Tables: one line a value, instead of one line a row.
    pub expanded: bool,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Whether there are more, which were left out.
    pub more: bool,
}

type Out = Box<dyn Write + Send>;

/// Writes one result.
pub struct Renderer {
    kind: Kind,
    written: Written,
    max_rows: Option<u64>,
}

enum Kind {
    Held { cells: Cells, layout: Layout, out: Out },
    Chart(chart::Chart, Out),
    Csv(csv::CsvWriter<Out>),
    Json(Box<arrow_json::ArrayWriter<Out>>),
    Ndjson(Box<arrow_json::LineDelimitedWriter<Out>>),
    Parquet(Box<ArrowWriter<Out>>),
}

impl Renderer {
    /// Begins a result with the columns of `schema`.
    pub fn new(style: &Style, schema: &SchemaRef, out: Out) -> Result<Self> {
        let mut max_rows = None;
        let kind = match style.format {
            Format::Table | Format::Markdown => {
                max_rows = style.max_rows.map(|rows| rows as u64);
                let layout = match style.format {
                    Format::Markdown => Layout::Markdown,
                    _ if style.expanded => Layout::Expanded,
                    _ => Layout::Aligned,
                };
                Kind::Held { cells: Cells::new(schema, style), layout, out }
            }
            Format::Chart => Kind::Chart(chart::Chart::new(schema, style.terminal_width)?, out),
            Format::Csv => Kind::Csv(csv::CsvWriter::new(out, schema)?),
            Format::Json => Kind::Json(Box::new(json_writer().build(out))),
            Format::Ndjson => Kind::Ndjson(Box::new(json_writer().build(out))),
            Format::Parquet => {
                let zstd = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(zstd).build();
                let writer = ArrowWriter::try_new(out, SchemaRef::clone(schema), Some(properties));
                Kind::Parquet(Box::new(writer.map_err(parquet_error)?))
            }
        };
        Ok(Self { kind, written: Written::default(), max_rows })
    }

    /// Writes a batch. False: it was the last that is wanted.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        let mut batch = batch.clone();
        if let Some(most) = self.max_rows {
            let room = usize::try_from(most - self.written.rows).unwrap_or(usize::MAX);
            if batch.num_rows() > room {
                self.written.more = true;
                batch = batch.slice(0, room);
            }
        }
        self.written.rows += batch.num_rows() as u64;
        match &mut self.kind {
            Kind::Held { cells, .. } => cells.add(&batch)?,
            Kind::Chart(chart, _) => chart.add(&batch)?,
            Kind::Csv(writer) => writer.write(&batch)?,
            Kind::Json(writer) => writer.write(&batch).map_err(json_error)?,
            Kind::Ndjson(writer) => writer.write(&batch).map_err(json_error)?,
            Kind::Parquet(writer) => writer.write(&batch).map_err(parquet_error)?,
        }
        Ok(!self.written.more)
    }

    /// Ends the result.
    pub fn finish(self) -> Result<Written> {
        let mut out = match self.kind {
            Kind::Held { cells, layout, mut out } => {
                out.write_all(cells.render(layout).as_bytes()).map_err(write_error)?;
                out
            }
            Kind::Chart(chart, mut out) => {
                out.write_all(chart.render().as_bytes()).map_err(write_error)?;
                out
            }
            Kind::Csv(writer) => writer.into_inner(),
            Kind::Json(mut writer) => {
                writer.finish().map_err(json_error)?;
                let mut out = writer.into_inner();
                out.write_all(b"\n").map_err(write_error)?;
                out
            }
            Kind::Ndjson(mut writer) => {
                writer.finish().map_err(json_error)?;
                writer.into_inner()
            }
            Kind::Parquet(writer) => writer.into_inner().map_err(parquet_error)?,
        };
        out.flush().map_err(write_error)?;
        Ok(self.written)
    }
}

fn json_writer() -> arrow_json::WriterBuilder {
    arrow_json::WriterBuilder::new().with_explicit_nulls(true)
}

fn parquet_error(error: parquet::errors::ParquetError) -> Error {
    match error {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(io) => write_error(*io),
            Err(other) => Error::data(format!("the result cannot be written as Parquet: {other}")).caused_by(other),
        },
        other => Error::data(format!("the result cannot be written as Parquet: {other}")).caused_by(other),
    }
}

/// An error on writing the result.
fn write_error(error: std::io::Error) -> Error {
    crate::output::stdout_error(error)
}

/// The same, where the JSON writer has wrapped it.
fn json_error(error: arrow::error::ArrowError) -> Error {
    match error {
        arrow::error::ArrowError::IoError(_, io) => write_error(io),
        other => other.into(),
    }
}

/// How values are written as text.
fn text_format<'a>() -> FormatOptions<'a> {
    FormatOptions::new()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
        .with_datetime_format(Some("%Y-%m-%d %H:%M:%S%.f"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("zone", Arc::new(StringArray::from(vec![Some("Soho"), None, Some("a \"b\", c|d"), Some("")])) as ArrayRef),
            ("trips", Arc::new(Int64Array::from(vec![Some(12), Some(3456), None, Some(0)])) as ArrayRef),
            ("fare", Arc::new(Float64Array::from(vec![1.5, 22.25, 0.0, -1.0])) as ArrayRef),
        ])
        .unwrap()
    }

    fn check(format: Format, change: impl Fn(&mut Style), expect: &str) {
        let mut style = Style { format, colors: false, terminal_width: None, max_rows: None, expanded: false };
        change(&mut style);
        let shared = Shared::default();
        let mut renderer = Renderer::new(&style, &batch().schema(), Box::new(shared.clone())).unwrap();
        renderer.write(&batch()).unwrap();
        renderer.finish().unwrap();
        assert_eq!(String::from_utf8(shared.0.lock().unwrap().clone()).unwrap(), expect);
    }

    #[test]
    fn tables_are_aligned() {
        check(
            Format::Table,
            |_| {},
            " zone       | trips |  fare \n\
             ------------+-------+-------\n\
             \u{20}Soho       |    12 |   1.5 \n\
             \u{20}NULL       |  3456 | 22.25 \n\
             \u{20}a \"b\", c|d |  NULL |   0.0 \n\
             \u{20}           |     0 |  -1.0 \n",
        );
        check(
            Format::Table,
            |style| style.max_rows = Some(1),
            " zone | trips | fare \n\
             ------+-------+------\n\
             \u{20}Soho |    12 |  1.5 \n",
        );
        check(
            Format::Table,
            |style| (style.expanded, style.max_rows) = (true, Some(2)),
            "-[ row 1 ]-\nzone  | Soho\ntrips | 12\nfare  | 1.5\n-[ row 2 ]-\nzone  | NULL\ntrips | 3456\nfare  | 22.25\n",
        );
    }

    #[test]
    fn formats_for_programs() {
        check(
            Format::Csv,
            |_| {},
            "zone,trips,fare\nSoho,12,1.5\n,3456,22.25\n\"a \"\"b\"\", c|d\",,0.0\n\"\",0,-1.0\n",
        );
        check(
            Format::Ndjson,
            |_| {},
            "{\"zone\":\"Soho\",\"trips\":12,\"fare\":1.5}\n{\"zone\":null,\"trips\":3456,\"fare\":22.25}\n\
             {\"zone\":\"a \\\"b\\\", c|d\",\"trips\":null,\"fare\":0.0}\n{\"zone\":\"\",\"trips\":0,\"fare\":-1.0}\n",
        );
        check(
            Format::Markdown,
            |_| {},
            "| zone        | trips |  fare |\n\
             | ----------- | ----: | ----: |\n\
             | Soho        |    12 |   1.5 |\n\
             | NULL        |  3456 | 22.25 |\n\
             | a \"b\", c\\|d |  NULL |   0.0 |\n\
             |             |     0 |  -1.0 |\n",
        );
    }

    #[test]
    fn the_name_of_a_file_tells_its_format() {
        assert_eq!(Format::of_file("out/x.PARQUET"), Some(Format::Parquet));
        assert_eq!(Format::of_file("x.md"), Some(Format::Markdown));
        assert_eq!(Format::of_file("x"), None);
    }
}
