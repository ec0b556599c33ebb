//! Formats that are read by one thread at a time: each piece that a worker gets is one batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use flumen_core::Result;
use flumen_core::read::{RawBatch, Split, Splits};

/// Gives the next batch, with the columns and types of the request.
pub(super) type Batches = Box<dyn FnMut() -> Result<Option<RecordBatch>> + Send>;

/// The batches of one reader, handed out to the workers one at a time.
pub(super) struct Serial {
    reader: Mutex<Reader>,
    bytes: Arc<AtomicU64>,
}

struct Reader {
    batches: Batches,
    next_row: u64,
    done: bool,
}

impl Serial {
    /// The pieces are what `batches` gives; `bytes` counts what was read for them.
    pub(super) fn splits(batches: Batches, bytes: Arc<AtomicU64>) -> Arc<dyn Splits> {
        Arc::new(Self { reader: Mutex::new(Reader { batches, next_row: 1, done: false }), bytes })
    }
}

impl Splits for Serial {
    fn next(&self) -> Result<Option<Box<dyn Split>>> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.done {
            return Ok(None);
        }
        // After an error the reader's place in the file is not known: nothing more comes out of it.
        reader.done = true;
        let Some(batch) = (reader.batches)()? else { return Ok(None) };
        reader.done = false;
        let first = reader.next_row;
        reader.next_row += batch.num_rows() as u64;
        Ok(Some(Box::new(One(Some(RawBatch::good(batch, first))))))
    }

    fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A piece that is a single batch.
pub(super) struct One(pub(super) Option<RawBatch>);

impl Split for One {
    fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        Ok(self.0.take())
    }
}
