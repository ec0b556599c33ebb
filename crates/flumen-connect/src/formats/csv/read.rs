//! Reads a file from front to back and cuts it into blocks of whole records, which the workers parse.
//!
//! What is done under the lock is little: fill a buffer, find its last record's end, count records and lines, so that
//! each block knows its place in the file.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flumen_core::read::{RawBatch, Split, Splits};
use flumen_core::words::counted;
use flumen_core::{Error, Result, limits};

use super::block::{Block, Layout, Surplus, parse};
use crate::blob;

/// One reading of a CSV file.
pub(super) struct CsvSplits {
    state: Mutex<Reading>,
    shared: Arc<Shared>,
    stored_bytes: Arc<AtomicU64>,
}

struct Reading {
    reader: Box<dyn Read + Send>,
    /// The begin of a record whose end was not read yet.
    rest: Vec<u8>,
    line: u64,
    row: u64,
    done: bool,
}

struct Shared {
    address: String,
    layout: Layout,
    block_bytes: usize,
    surplus: Mutex<Surplus>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// Nothing that these locks guard is left half-done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CsvSplits {
    /// `reader` stands at the first data record, which is on `line`; `stored_bytes` counts what it takes.
    pub fn new(
        address: String,
        layout: Layout,
        reader: Box<dyn Read + Send>,
        line: u64,
        block_bytes: usize,
        stored_bytes: Arc<AtomicU64>,
    ) -> Self {
        let state = Reading { reader, rest: Vec::new(), line, row: 1, done: false };
        let shared = Shared {
            address,
            layout,
            block_bytes,
            surplus: Mutex::new(Surplus::default()),
            buffers: Mutex::new(Vec::new()),
        };
        Self { state: Mutex::new(state), shared: Arc::new(shared), stored_bytes }
    }
}

impl Splits for CsvSplits {
    fn next(&self) -> Result<Option<Box<dyn Split>>> {
        let mut state = lock(&self.state);
        if state.done {
            return Ok(None);
        }
        match state.next_block(&self.shared) {
            Ok(Some(block)) => Ok(Some(Box::new(CsvSplit { block: Some(block), shared: Arc::clone(&self.shared) }))),
            Ok(None) => {
                state.done = true;
                Ok(None)
            }
            Err(error) => {
                state.done = true;
                Err(error)
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    fn warnings(&self) -> Vec<String> {
        let Surplus { rows, fewest, most } = *lock(&self.shared.surplus);
        if rows == 0 {
            return Vec::new();
        }
        let (address, from) = (&self.shared.address, self.shared.layout.width_from);
        let (rows, have) = (counted(rows, "row"), if rows == 1 { "has" } else { "have" });
        let more = match (fewest, most) {
            (a, b) if a == b => counted(a as u64, "more field"),
            (a, b) => format!("{a} to {b} more fields"),
        };
        vec![format!("{address}: {rows} {have} {more} than {from}, all empty: dropped")]
    }
}

impl Reading {
    /// The next block of whole records, or `None` at the end.
    fn next_block(&mut self, shared: &Shared) -> Result<Option<Block>> {
        let mut text = lock(&shared.buffers).pop().unwrap_or_default();
        text.clear();
        text.append(&mut self.rest);
        let mut target = shared.block_bytes;
        loop {
            let ended =
                fill(&mut *self.reader, &mut text, target).map_err(|error| blob::error(&shared.address, error))?;
            if ended {
                return self.last_block(shared, text);
            }
            let survey = shared.layout.marks.survey(&text);
            if survey.whole > 0 {
                self.rest.extend_from_slice(&text[survey.whole..]);
                text.truncate(survey.whole);
                let block = Block { text, survey, line: self.line, row: self.row };
                self.line += survey.lines;
                self.row += survey.records;
                return Ok(Some(block));
            }
            if text.len() >= limits::CSV_RECORD_BYTES {
                return Err(self.too_long(shared, &text));
            }
            target = text.len() * 2;
        }
    }

    /// What is left at the end of the file: whole records, and perhaps one that lacks its newline or its closing quote.
    fn last_block(&mut self, shared: &Shared, mut text: Vec<u8>) -> Result<Option<Block>> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.last() != Some(&b'\n') {
            text.push(b'\n');
        }
        let marks = shared.layout.marks;
        let mut survey = marks.survey(&text);
        if survey.whole == 0 {
            // A single record with a quote that is never closed. Within one line it makes a bad row: a file that was cut
            // short ends so. Over several lines, whoever wrote it did not mean it.
            let opened = marks.walk(&text, |_, _| true).unwrap_or(0);
            if memchr::memchr(b'\n', &text[opened..text.len() - 1]).is_some() {
                return Err(self.unclosed(shared, &text));
            }
            survey.whole = text.len();
            survey.lines = memchr::memchr_iter(b'\n', &text).count() as u64;
            survey.records = 1;
            survey.messy = true;
        }
        if survey.whole < text.len() {
            self.rest.extend_from_slice(&text[survey.whole..]);
            text.truncate(survey.whole);
        }
        let block = Block { text, survey, line: self.line, row: self.row };
        self.line += survey.lines;
        self.row += survey.records;
        Ok(Some(block))
    }

    fn too_long(&self, shared: &Shared, text: &[u8]) -> Error {
        if shared.layout.marks.walk(text, |_, _| true).is_some() {
            return self.unclosed(shared, text);
        }
        let (address, line, limit) = (&shared.address, self.line, limits::CSV_RECORD_BYTES >> 20);
        Error::data(format!("{address}: line {line} is longer than {limit} MiB")).hint("is this a CSV file?")
    }

    fn unclosed(&self, shared: &Shared, text: &[u8]) -> Error {
        let opened = shared.layout.marks.walk(text, |_, _| true).unwrap_or(0);
        let line = self.line + memchr::memchr_iter(b'\n', &text[..opened]).count() as u64;
        Error::data(format!("{}: the quote that opens on line {line} is never closed", shared.address))
            .hint("double the quotes inside the value, or read the file without quotes: --quote none, in SQL read_csv(…, quote => 'none')")
    }
}

/// Reads until `text` has `target` bytes. True: the end was reached before.
fn fill(reader: &mut dyn Read, text: &mut Vec<u8>, target: usize) -> std::io::Result<bool> {
    let missing = target.saturating_sub(text.len()) as u64;
    let read = reader.take(missing).read_to_end(text)?;
    Ok((read as u64) < missing)
}

struct CsvSplit {
    block: Option<Block>,
    shared: Arc<Shared>,
}

impl Split for CsvSplit {
    fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        let Some(block) = self.block.take() else { return Ok(None) };
        let (batch, surplus) =
            parse(&self.shared.layout, &block).map_err(|error| error.within(&self.shared.address))?;
        lock(&self.shared.surplus).add(surplus);
        let mut buffers = lock(&self.shared.buffers);
        // A buffer that had to hold a giant record is not worth keeping.
        if block.text.capacity() <= 4 * self.shared.block_bytes {
            buffers.push(block.text);
        }
        Ok(Some(batch))
    }
}
