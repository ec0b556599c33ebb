//! Arrow IPC, also called Feather (version 2): the file format and the stream format.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_ipc::reader::{FileReader, StreamReader};
use flumen_core::read::{Input, ReadOptions, ReadRequest, Splits};
use flumen_core::{Error, Result, limits};

use super::input::{FileInput, FileRows};
use super::serial::Serial;
use super::{Format, plain};
use crate::blob::Blob;

/// The bytes that begin a file.
const MAGIC: &[u8] = b"ARROW1";
/// The bytes that begin every message of a stream.
const MESSAGE: &[u8] = &[0xff; 4];

/// The format.
pub struct Ipc;

impl Format for Ipc {
    fn name(&self) -> &'static str {
        "arrow"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["arrow", "ipc", "feather", "arrows"]
    }

    fn recognizes(&self, head: &[u8]) -> bool {
        head.starts_with(MAGIC) || head.starts_with(MESSAGE)
    }

    fn is_binary(&self) -> bool {
        true
    }

    fn streams(&self) -> bool {
        false
    }

    fn open(&self, blob: Arc<dyn Blob>, _: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        let path = blob.local_file()?;
        let reader = IpcReader::open(&path).map_err(|error| broken(blob.address(), error))?;
        let schema = plain::plain_schema(&reader.schema());
        Ok(FileInput::only(IpcInput { blob, path, schema }))
    }
}

fn broken(address: &str, error: ArrowError) -> Error {
    Error::data(format!("{address} is no whole Arrow file: {error}"))
        .hint("download or copy the file again")
        .caused_by(error)
}

/// A reader of either format.
enum IpcReader {
    File(FileReader<BufReader<File>>),
    Stream(StreamReader<BufReader<File>>),
}

impl IpcReader {
    fn open(path: &Path) -> Result<Self, ArrowError> {
        let mut file = File::open(path)?;
        let head = crate::blob::read_head(&mut file, MAGIC.len())?;
        let file = BufReader::new(File::open(path)?);
        Ok(if head == MAGIC {
            Self::File(FileReader::try_new(file, None)?)
        } else {
            Self::Stream(StreamReader::try_new(file, None)?)
        })
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Self::File(reader) => reader.schema(),
            Self::Stream(reader) => reader.schema(),
        }
    }

    fn next(&mut self) -> Option<Result<RecordBatch, ArrowError>> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Stream(reader) => reader.next(),
        }
    }
}

/// One file.
struct IpcInput {
    blob: Arc<dyn Blob>,
    path: PathBuf,
    schema: SchemaRef,
}

impl FileRows for IpcInput {
    fn blob(&self) -> &Arc<dyn Blob> {
        &self.blob
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        let address = self.blob.address().to_owned();
        let mut reader = IpcReader::open(&self.path).map_err(|error| broken(&address, error))?;
        let wanted: Vec<usize> = request.columns.iter().map(|column| column.index).collect();
        let schema = Arc::new(self.schema.project(&wanted)?);
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        // Batches may be as large as a whole file: they go on in slices.
        let mut rest: Option<RecordBatch> = None;
        let batches = move || loop {
            if let Some(batch) = rest.take_if(|batch| batch.num_rows() > 0) {
                let rows = batch.num_rows().min(limits::BATCH_ROWS);
                rest = Some(batch.slice(rows, batch.num_rows() - rows));
                return plain::to_plain(&batch.slice(0, rows), &schema).map(Some);
            }
            match reader.next() {
                None => return Ok(None),
                Some(batch) => {
                    let batch = batch.map_err(|error| broken(&address, error))?;
                    counted.fetch_add(batch.get_array_memory_size() as u64, Ordering::Relaxed);
                    rest = Some(batch.project(&wanted)?);
                }
            }
        };
        Ok(Serial::splits(Box::new(batches), bytes))
    }
}
