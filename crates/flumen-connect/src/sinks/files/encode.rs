//! Rows as the bytes of a file: Parquet, CSV, NDJSON and Arrow, packed or not.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use flumen_core::write::WriteOptions;
use flumen_core::{Error, Result, limits};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::codec::{self, Codec};

/// How rows become bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoding {
    format: Format,
    codec: Codec,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    Parquet,
    Csv(Csv),
    Ndjson,
    Arrow,
}

/// How text in columns is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Csv {
    delimiter: u8,
    quote: u8,
    header: bool,
    null: String,
}

impl Csv {
    fn of(options: &WriteOptions, delimiter: u8) -> Self {
        Self {
            delimiter: options.delimiter.unwrap_or(delimiter),
            quote: options.quote.unwrap_or(b'"'),
            header: options.header.unwrap_or(true),
            null: options.null.clone().unwrap_or_default(),
        }
    }
}

/// The formats, and what stands at the ends of names for them.
const FORMATS: &str = "use .parquet, .csv, .tsv, .ndjson or .arrow, perhaps with .gz or .zst after it";

impl Encoding {
    /// The encoding that a file's name asks for.
    ///
    /// Errors: as [`Encoding::new`].
    pub(super) fn of_name(name: &str) -> Result<Self> {
        Self::new(name, &WriteOptions::default())
    }

    /// The encoding that `options` ask for, or else the file's name.
    ///
    /// Errors: `Invalid` where neither names a format that can be written, and for an option that the format does not have.
    pub(super) fn new(name: &str, options: &WriteOptions) -> Result<Self> {
        let (stem, codec) = codec::split_name(name);
        let codec = options.compression.as_deref().map_or(Ok(codec), Codec::parse)?;
        let ending = stem.rsplit_once('.').map_or("", |(_, ending)| ending);
        let wanted = options.format.as_deref().unwrap_or(ending).to_ascii_lowercase();
        let (format, shown) = match wanted.as_str() {
            "parquet" | "parq" | "pq" => (Format::Parquet, "a Parquet"),
            "csv" => (Format::Csv(Csv::of(options, b',')), "a CSV"),
            "tsv" | "tab" => (Format::Csv(Csv::of(options, b'\t')), "a TSV"),
            "ndjson" | "jsonl" => (Format::Ndjson, "an NDJSON"),
            "json" if options.format.is_some() => (Format::Ndjson, "an NDJSON"),
            "arrow" | "ipc" | "feather" => (Format::Arrow, "an Arrow"),
            _ => {
                return Err(match &options.format {
                    Some(format) => Error::invalid(format!("'{format}' is not a format that can be written"))
                        .hint("there are: parquet, csv, tsv, ndjson and arrow"),
                    None => {
                        Error::invalid(format!("'{name}' does not end with a format that can be written")).hint(FORMATS)
                    }
                });
            }
        };
        let of_text = [
            ("delimiter", options.delimiter.is_some()),
            ("quote", options.quote.is_some()),
            ("header", options.header.is_some()),
            ("word for null", options.null.is_some()),
        ];
        match of_text.iter().find(|(_, given)| *given) {
            Some((option, _)) if !matches!(format, Format::Csv(_)) => {
                Err(Error::invalid(format!("{shown} file has no {option}")).hint("leave the option out, or write CSV"))
            }
            _ => Ok(Self { format, codec }),
        }
    }

    /// The type as which the format keeps a column.
    pub(super) fn stored_type(&self, data_type: &DataType) -> Result<DataType> {
        if matches!(self.format, Format::Csv(_)) && data_type.is_nested() {
            return Err(Error::invalid(format!("a column of type {data_type} cannot be written to CSV"))
                .hint("write Parquet or NDJSON, read JSON with --flatten, or leave the column out with --select"));
        }
        if matches!(data_type, DataType::Interval(_)) && self.format != Format::Arrow {
            return Err(Error::invalid(format!("a column of type {data_type} cannot be written to this format"))
                .hint("cast it to text with --types"));
        }
        Ok(data_type.clone())
    }
}

/// The file. Writers of text say of its errors only what they say in words, so it remembers them itself.
pub(super) struct Disk {
    file: File,
    trouble: Arc<OnceLock<i32>>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|error| {
            if let Some(code) = error.raw_os_error() {
                self.trouble.get_or_init(|| code);
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file's bytes on their way to the disk.
pub(super) enum Packer {
    Plain(BufWriter<Disk>),
    Gzip(flate2::write::GzEncoder<BufWriter<Disk>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<Disk>>),
    Bzip2(bzip2::write::BzEncoder<BufWriter<Disk>>),
    Xz(liblzma::write::XzEncoder<BufWriter<Disk>>),
}

impl Packer {
    fn new(file: Disk, codec: Codec) -> io::Result<Self> {
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(match codec {
            Codec::None => Packer::Plain(file),
            Codec::Gzip => Packer::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
            Codec::Zstd => Packer::Zstd(zstd::stream::write::Encoder::new(file, 3)?),
            Codec::Bzip2 => Packer::Bzip2(bzip2::write::BzEncoder::new(file, bzip2::Compression::default())),
            Codec::Xz => Packer::Xz(liblzma::write::XzEncoder::new(file, 6)),
        })
    }

    /// Ends the stream, and waits until the disk has it.
    fn finish(self) -> io::Result<()> {
        let file = match self {
            Packer::Plain(file) => file,
            Packer::Gzip(packer) => packer.finish()?,
            Packer::Zstd(packer) => packer.finish()?,
            Packer::Bzip2(packer) => packer.finish()?,
            Packer::Xz(packer) => packer.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.file.sync_all()
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packer::Plain(file) => file.write(bytes),
            Packer::Gzip(packer) => packer.write(bytes),
            Packer::Zstd(packer) => packer.write(bytes),
            Packer::Bzip2(packer) => packer.write(bytes),
            Packer::Xz(packer) => packer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Encoders flush after each batch, which would ruin the packing; all is written at the end.
        Ok(())
    }
}

/// Writes rows to one file. Errors name the address of the file.
pub(super) struct Encoder {
    writer: Writer,
    address: String,
    /// The code of the disk's first error.
    trouble: Arc<OnceLock<i32>>,
}

enum Writer {
    Parquet(Box<ArrowWriter<Packer>>),
    Csv(Box<arrow_csv::Writer<Packer>>, SchemaRef, bool),
    Ndjson(Box<arrow_json::LineDelimitedWriter<Packer>>),
    Arrow(Box<arrow_ipc::writer::FileWriter<Packer>>),
}

impl Encoder {
    /// Begins the file at `path`, known as `address`, for rows with the columns of `schema`.
    pub(super) fn begin(path: &Path, address: &str, schema: &SchemaRef, encoding: &Encoding) -> Result<Self> {
        let failed = |error| Error::io(address, error);
        let trouble = Arc::new(OnceLock::new());
        let file = Disk { file: File::create(path).map_err(failed)?, trouble: Arc::clone(&trouble) };
        let packer = Packer::new(file, encoding.codec).map_err(failed)?;
        let writer = Writer::begin(packer, schema, &encoding.format).map_err(|error| error.within(address))?;
        Ok(Self { writer, address: address.to_owned(), trouble })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|error| named(error, &self.address, &self.trouble))
    }

    /// Bytes of encoded rows that wait in memory for their row group to end.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.writer {
            Writer::Parquet(writer) => writer.memory_size(),
            Writer::Csv(..) | Writer::Ndjson(_) | Writer::Arrow(_) => 0,
        }
    }

    /// Ends the row group, in formats that have such.
    pub(super) fn end_row_group(&mut self) -> Result<()> {
        let Writer::Parquet(writer) = &mut self.writer else { return Ok(()) };
        writer.flush().map_err(|error| named(parquet_error(error), &self.address, &self.trouble))
    }

    /// Ends the file.
    pub(super) fn finish(self) -> Result<()> {
        let Self { writer, address, trouble } = self;
        let packer = writer.finish().map_err(|error| named(error, &address, &trouble))?;
        packer.finish().map_err(|error| Error::io(address, error))
    }
}

/// The error of the disk, if it had one; else `error`, with the file's address.
fn named(error: Error, address: &str, trouble: &OnceLock<i32>) -> Error {
    match trouble.get() {
        Some(code) => Error::io(address, io::Error::from_raw_os_error(*code)),
        None => error.within(address),
    }
}

impl Writer {
    fn begin(packer: Packer, schema: &SchemaRef, format: &Format) -> Result<Self> {
        Ok(match format {
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(limits::ROW_GROUP_ROWS))
                    .build();
                let writer = ArrowWriter::try_new(packer, schema.clone(), Some(properties)).map_err(parquet_error)?;
                Writer::Parquet(Box::new(writer))
            }
            Format::Csv(csv) => {
                let writer = arrow_csv::WriterBuilder::new()
                    .with_delimiter(csv.delimiter)
                    .with_quote(csv.quote)
                    .with_header(csv.header)
                    .with_null(csv.null.clone())
                    .with_timestamp_format("%Y-%m-%d %H:%M:%S%.f".to_owned())
                    .with_timestamp_tz_format("%Y-%m-%d %H:%M:%S%.f%:z".to_owned())
                    .build(packer);
                Writer::Csv(Box::new(writer), schema.clone(), false)
            }
            Format::Ndjson => Writer::Ndjson(Box::new(arrow_json::LineDelimitedWriter::new(packer))),
            Format::Arrow => Writer::Arrow(Box::new(arrow_ipc::writer::FileWriter::try_new(packer, schema)?)),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Writer::Parquet(writer) => writer.write(batch).map_err(parquet_error),
            Writer::Csv(writer, _, begun) => {
                *begun = true;
                Ok(writer.write(batch)?)
            }
            Writer::Ndjson(writer) => Ok(writer.write(batch)?),
            Writer::Arrow(writer) => Ok(writer.write(batch)?),
        }
    }

    /// Ends the rows.
    fn finish(self) -> Result<Packer> {
        Ok(match self {
            Writer::Parquet(writer) => writer.into_inner().map_err(parquet_error)?,
            Writer::Csv(mut writer, schema, begun) => {
                if !begun {
                    // A file without rows has its header all the same.
                    writer.write(&RecordBatch::new_empty(schema))?;
                }
                writer.into_inner()
            }
            Writer::Ndjson(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
            Writer::Arrow(mut writer) => {
                writer.finish()?;
                writer.into_inner()?
            }
        })
    }
}

fn parquet_error(error: parquet::errors::ParquetError) -> Error {
    Error::data(format!("the rows cannot be written as Parquet: {error}")).caused_by(error)
}
