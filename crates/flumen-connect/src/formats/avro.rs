//! Avro object container files, read as a stream.

use std::io::{self, BufReader, Read};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_avro::reader::{Reader, ReaderBuilder};
use flumen_core::read::{Input, ReadOptions, ReadRequest, Splits};
use flumen_core::{Error, Result, limits};

use super::input::{FileInput, FileRows};
use super::serial::Serial;
use super::{Format, plain};
use crate::blob::{self, Blob, Counted};
use crate::codec;

const MAGIC: &[u8] = b"Obj\x01";
/// The length of the mark that ends the header and every block.
const SYNC_BYTES: usize = 16;

/// The format.
pub struct Avro;

impl Format for Avro {
    fn name(&self) -> &'static str {
        "avro"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["avro"]
    }

    fn recognizes(&self, head: &[u8]) -> bool {
        head.starts_with(MAGIC)
    }

    fn is_binary(&self) -> bool {
        true
    }

    fn streams(&self) -> bool {
        true
    }

    fn open(&self, blob: Arc<dyn Blob>, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        let reader = AvroReader::open(blob.as_ref(), options)?;
        let schema = plain::plain_schema(&reader.reader.schema());
        Ok(FileInput::only(AvroInput { blob, options: options.clone(), schema }))
    }
}

fn broken(address: &str, error: ArrowError) -> Error {
    Error::data(format!("{address} cannot be read as Avro: {error}"))
        .hint("download or copy the file again")
        .caused_by(error)
}

/// A reader that knows whether it has seen the whole file.
struct AvroReader {
    reader: Reader<BufReader<Tail>>,
    tail: Arc<Mutex<Last>>,
}

impl AvroReader {
    fn open(blob: &dyn Blob, options: &ReadOptions) -> Result<Self> {
        let tail = Arc::new(Mutex::new(Last { bytes: Vec::new(), failed: None }));
        let bytes = Tail { reader: codec::open(blob, options)?, last: Arc::clone(&tail) };
        let reader = ReaderBuilder::new().with_batch_size(limits::BATCH_ROWS).build(BufReader::new(bytes));
        let reader = reader.map_err(|error| cause(&tail, blob.address(), error))?;
        Ok(Self { reader, tail })
    }

    /// Whether the last bytes that were read are the mark that ends a block.
    fn is_whole(&self) -> bool {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).bytes == self.reader.avro_header().sync()
    }
}

/// The decoder turns errors of the stream below into text; the stream keeps them, so that they can be told as they are.
fn cause(tail: &Mutex<Last>, address: &str, error: ArrowError) -> Error {
    match tail.lock().unwrap_or_else(PoisonError::into_inner).failed.take() {
        Some(io) => blob::error(address, io),
        None => broken(address, error),
    }
}

/// Passes bytes on and remembers the last ones: the decoder takes a file that is cut short for one that has ended.
struct Tail {
    reader: Box<dyn Read + Send>,
    last: Arc<Mutex<Last>>,
}

struct Last {
    bytes: Vec<u8>,
    failed: Option<io::Error>,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(bytes) => {
                last.bytes.extend_from_slice(&buffer[bytes.saturating_sub(SYNC_BYTES)..bytes]);
                let surplus = last.bytes.len().saturating_sub(SYNC_BYTES);
                last.bytes.drain(..surplus);
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                last.failed = Some(error);
                Err(told)
            }
        }
    }
}

/// One file.
struct AvroInput {
    blob: Arc<dyn Blob>,
    options: ReadOptions,
    schema: SchemaRef,
}

impl FileRows for AvroInput {
    fn blob(&self) -> &Arc<dyn Blob> {
        &self.blob
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted::new(Arc::clone(&self.blob), Arc::clone(&bytes));
        let mut reader = AvroReader::open(&counted, &self.options)?;
        let address = self.blob.address().to_owned();
        let wanted: Vec<usize> = request.columns.iter().map(|column| column.index).collect();
        let schema = Arc::new(self.schema.project(&wanted)?);
        let batches = move || match reader.reader.next() {
            Some(Ok(batch)) => plain::to_plain(&batch.project(&wanted)?, &schema).map(Some),
            Some(Err(error)) => Err(cause(&reader.tail, &address, error)),
            None if reader.is_whole() => Ok(None),
            None => Err(Error::data(format!("{address} ends early: its last Avro block is cut short"))
                .hint("download or copy the file again")),
        };
        Ok(Serial::splits(Box::new(batches), bytes))
    }
}
