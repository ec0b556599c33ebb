//! CSV: any delimiter, quotes, header or none, and all the dirt that is found in the wild.
//!
//! [`Csv::open`] looks at the beginning of a file to find out how it is written (`dialect`), and at samples of it for its
//! types (`sample`). Reading then goes in blocks of whole records: `read` cuts them from the file in order, under a lock and
//! quickly; `block` parses each in the thread that took it, over what `scan` finds. No row is lost: what does not fit comes
//! back as a bad row or a misfit, with its line.

mod ahead;
mod block;
mod dialect;
mod read;
mod sample;
mod scan;
#[cfg(test)]
mod tests;

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::datatypes::{Field, Schema, SchemaRef};
use flumen_core::read::{Input, ReadOptions, ReadRequest, Splits};
use flumen_core::text::TypeSet;
use flumen_core::{Error, Result, limits};

use super::Format;
use super::input::{FileInput, FileRows};
use crate::blob::{self, Blob, Counted};
use crate::codec::{self, Codec};
use crate::encoding::Encoding;

use block::Layout;
use dialect::Dialect;

/// The format CSV, and its relatives with other delimiters.
pub struct Csv;

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["csv", "tsv", "tab", "psv", "txt"]
    }

    fn recognizes(&self, _head: &[u8]) -> bool {
        false
    }

    fn streams(&self) -> bool {
        true
    }

    fn open(&self, blob: Arc<dyn Blob>, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        Ok(FileInput::only(CsvInput::open(blob, options)?))
    }
}

/// How the bytes of a file become text with `\n` at the ends of lines.
#[derive(Debug, Clone, Copy)]
struct Decoding {
    codec: Codec,
    encoding: Encoding,
    mark: usize,
    /// Whether lines end with `\r` alone, as those of old Macs did.
    lone_returns: bool,
}

/// One CSV file.
struct CsvInput {
    blob: Arc<dyn Blob>,
    options: ReadOptions,
    decoding: Decoding,
    dialect: Dialect,
    schema: SchemaRef,
    warnings: Vec<String>,
    block_bytes: usize,
}

impl CsvInput {
    fn open(blob: Arc<dyn Blob>, options: &ReadOptions) -> Result<Self> {
        let address = blob.address();
        let failed = |error| blob::error(address, error);
        let stored = blob::read_head(blob.open()?.as_mut(), 64).map_err(failed)?;
        let codec = codec::find(address, blob.name(), &stored, options)?;

        let mut reader = codec::open(&*blob, options)?;
        let raw = blob::read_head(reader.as_mut(), limits::SNIFF_BYTES).map_err(failed)?;
        let (encoding, mark) = Encoding::find(&raw, options.encoding.as_deref())?;
        let mut decoding = Decoding { codec, encoding, mark, lone_returns: false };
        let mut reader = encoding.decode(mark, address, Box::new(Cursor::new(raw).chain(reader)))?;
        let mut head = blob::read_head(reader.as_mut(), limits::SNIFF_BYTES).map_err(failed)?;
        let mut ended = head.len() < limits::SNIFF_BYTES;
        if memchr::memchr(b'\n', &head).is_none() && memchr::memchr(b'\r', &head).is_some_and(|at| at + 1 < head.len())
        {
            decoding.lone_returns = true;
            reader = Box::new(LoneReturns(reader));
            returns_to_newlines(&mut head);
        }
        let dialect = loop {
            if let Some(dialect) = Dialect::find(address, blob.name(), &head, ended, options)? {
                break dialect;
            }
            // The first record is longer than what was read.
            if head.len() > limits::CSV_RECORD_BYTES {
                let (line, limit) = (options.skip_lines + 1, limits::CSV_RECORD_BYTES >> 20);
                return Err(Error::data(format!("{address}: the record on line {line} is longer than {limit} MiB"))
                    .hint("is this a CSV file? A quote that is never closed does this too: --quote none"));
            }
            let more = head.len();
            let read = reader.as_mut().take(more as u64).read_to_end(&mut head).map_err(failed)?;
            ended = read < more;
        };

        let mut types = vec![TypeSet::ANY; dialect.names.len()];
        let seekable = codec == Codec::None && encoding == Encoding::Utf8 && !decoding.lone_returns;
        let enough = ended || seekable && sample::add_places(&*blob, &dialect, &options.text, &mut types);
        if !enough {
            // Where one cannot seek, as much as those places hold is taken from the beginning.
            let more = limits::SAMPLE_PLACES * limits::SAMPLE_BYTES;
            let read = reader.as_mut().take(more as u64).read_to_end(&mut head).map_err(failed)?;
            ended = read < more;
        }
        sample::add(&head[dialect.data_from.min(head.len())..], ended, &dialect, &options.text, &mut types);
        let field = |(name, types): (&String, &TypeSet)| Field::new(name, types.data_type(), true);
        let schema = Arc::new(Schema::new(dialect.names.iter().zip(&types).map(field).collect::<Vec<_>>()));
        let warnings = dialect.renamed.iter().map(|renamed| format!("{address}: {renamed}")).collect();
        let block_bytes = limits::TEXT_BLOCK_BYTES;
        Ok(Self { options: options.clone(), decoding, dialect, schema, warnings, block_bytes, blob })
    }

    /// The text from its first byte on; the bytes that it takes from storage are counted in `taken`.
    fn text(&self, taken: &Arc<AtomicU64>) -> Result<Box<dyn Read + Send>> {
        let Decoding { codec, encoding, mark, lone_returns } = self.decoding;
        let address = self.blob.address();
        let counted = Counted::new(Arc::clone(&self.blob), Arc::clone(taken));
        let reader = codec::open(&counted, &self.options)?;
        let mut reader = encoding.decode(mark, address, reader)?;
        if lone_returns {
            reader = Box::new(LoneReturns(reader));
        }
        // Reading a local file costs nothing; everything else goes on while blocks are parsed.
        if codec != Codec::None || encoding != Encoding::Utf8 || address.contains("://") {
            reader = Box::new(ahead::ReadAhead::new(reader)?);
        }
        Ok(reader)
    }
}

impl FileRows for CsvInput {
    fn blob(&self) -> &Arc<dyn Blob> {
        &self.blob
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn is_text(&self) -> bool {
        true
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        let taken = Arc::new(AtomicU64::new(0));
        let mut reader = self.text(&taken)?;
        let (address, dialect) = (self.blob.address(), &self.dialect);
        let skip = dialect.data_from as u64;
        let skipped =
            io::copy(&mut reader.as_mut().take(skip), &mut io::sink()).map_err(|error| blob::error(address, error))?;
        if skipped < skip {
            return Err(Error::data(format!("{address} became shorter while it was read")).hint("run it again"));
        }
        let names = dialect.names.clone();
        let layout = Layout::new(dialect.marks, names, request, self.options.text.clone(), dialect.header);
        let address = address.to_owned();
        Ok(Arc::new(read::CsvSplits::new(address, layout, reader, dialect.data_line, self.block_bytes, taken)))
    }
}

fn returns_to_newlines(text: &mut [u8]) {
    for byte in text {
        if *byte == b'\r' {
            *byte = b'\n';
        }
    }
}

/// Makes `\r` into `\n`.
struct LoneReturns(Box<dyn Read + Send>);

impl Read for LoneReturns {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        returns_to_newlines(&mut buffer[..read]);
        Ok(read)
    }
}
