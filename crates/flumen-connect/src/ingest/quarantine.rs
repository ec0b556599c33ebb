//! What was refused, as rows of the quarantine table.
//!
//! A few rows wait in memory for the end of the load. Where there are more, they wait in the spool: however many rows a file
//! has that do not fit, memory stays bounded.

use std::io::{self, BufReader, BufWriter, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use chrono::{DateTime, Utc};
use flumen_core::contract::Quarantined;
use flumen_core::error::Result;
use flumen_core::limits::{QUARANTINE_BATCH_BYTES, QUARANTINE_BATCH_ROWS, QUARANTINE_MEMORY_BYTES};
use flumen_core::load::LoadId;
use flumen_core::write::{RefusedRows, quarantine_schema};

use crate::blob;
use crate::spool::{Spool, SpoolFile, SpoolReader};

/// How the spooled rows are known in messages.
const ADDRESS: &str = "the refused rows";

/// Collects entries and makes batches of [`quarantine_schema`] of them.
pub struct Collector {
    load: String,
    at: i64,
    waiting: Vec<(Arc<str>, Quarantined)>,
    waiting_bytes: usize,
    batches: Vec<RecordBatch>,
    bytes: usize,
    spool: Arc<Spool>,
    spilled: Option<Spilled>,
}

/// Rows in the spool.
struct Spilled {
    file: Arc<SpoolFile>,
    writer: StreamWriter<BufWriter<Appending>>,
}

impl Collector {
    /// For the load `load`, as of `at`. What does not fit in memory goes to `spool`.
    pub fn new(load: &LoadId, at: DateTime<Utc>, spool: Arc<Spool>) -> Self {
        Self {
            load: load.to_string(),
            at: at.timestamp_micros(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            batches: Vec::new(),
            bytes: 0,
            spool,
            spilled: None,
        }
    }

    /// Adds an entry from `file`.
    pub fn add(&mut self, file: &Arc<str>, entry: Quarantined) -> Result<()> {
        let row = &entry.row;
        self.waiting_bytes += row.record.len() + row.reason.len() + row.value.as_ref().map_or(0, String::len);
        self.waiting.push((Arc::clone(file), entry));
        if self.waiting.len() >= QUARANTINE_BATCH_ROWS || self.waiting_bytes >= QUARANTINE_BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// All that was added.
    pub fn finish(mut self) -> Result<Refused> {
        self.flush()?;
        let spilled = match self.spilled {
            Some(Spilled { file, mut writer }) => {
                writer.finish()?;
                writer.get_mut().flush().map_err(|error| blob::error(ADDRESS, error))?;
                file.finish();
                Some(file)
            }
            None => None,
        };
        Ok(Refused { batches: self.batches, spilled })
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batch = self.batch()?;
        let bytes = batch.get_array_memory_size();
        if self.spilled.is_none() && self.bytes + bytes <= QUARANTINE_MEMORY_BYTES {
            self.bytes += bytes;
            self.batches.push(batch);
            return Ok(());
        }
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            None => self.spilled.insert(Spilled::begin(&self.spool)?),
        };
        // The error of a full disk is inside that of the writer.
        spilled.writer.write(&batch).map_err(|error| match error {
            arrow::error::ArrowError::IoError(_, cause) => blob::error(ADDRESS, cause),
            other => other.into(),
        })
    }

    /// The entries that wait, as a batch.
    fn batch(&mut self) -> Result<RecordBatch> {
        self.waiting_bytes = 0;
        let mut text: [StringBuilder; 7] = std::array::from_fn(|_| StringBuilder::new());
        let (mut rows, mut lines) = (Int64Builder::new(), Int64Builder::new());
        let mut at = TimestampMicrosecondBuilder::new().with_timezone("UTC");
        for (file, entry) in self.waiting.drain(..) {
            let row = entry.row;
            text[0].append_value(&self.load);
            text[1].append_value(&*file);
            rows.append_value(row.row as i64);
            lines.append_option(row.line.map(|line| line as i64));
            text[2].append_option(row.column);
            text[3].append_option(row.value);
            text[4].append_value(row.reason);
            text[5].append_value(entry.verdict.name());
            text[6].append_value(row.record);
            at.append_value(self.at);
        }
        let [load, file, column, value, reason, action, record] =
            text.map(|mut builder| Arc::new(builder.finish()) as ArrayRef);
        let columns: Vec<ArrayRef> = vec![
            load,
            file,
            Arc::new(rows.finish()),
            Arc::new(lines.finish()),
            column,
            value,
            reason,
            action,
            record,
            Arc::new(at.finish()),
        ];
        Ok(RecordBatch::try_new(quarantine_schema(), columns)?)
    }
}

impl Spilled {
    fn begin(spool: &Arc<Spool>) -> Result<Self> {
        let file = spool.file(ADDRESS)?;
        // Load, file and reason repeat in every row: packed, they are next to nothing.
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let to = BufWriter::new(Appending(Arc::clone(&file)));
        let writer = StreamWriter::try_new_with_options(to, &quarantine_schema(), options)?;
        Ok(Self { file, writer })
    }
}

/// Writes to a spool file.
struct Appending(Arc<SpoolFile>);

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The rows that a load refused.
#[derive(Default)]
pub struct Refused {
    batches: Vec<RecordBatch>,
    spilled: Option<Arc<SpoolFile>>,
}

impl Refused {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.spilled.is_none()
    }

    /// The rows, a batch at a time.
    pub fn into_rows(self) -> Result<RefusedRows> {
        let in_memory = self.batches.into_iter().map(Ok);
        let Some(file) = self.spilled else { return Ok(Box::new(in_memory)) };
        let spilled: StreamReader<BufReader<SpoolReader>> = StreamReader::try_new_buffered(file.reader(), None)?;
        Ok(Box::new(in_memory.chain(spilled.map(|batch| Ok(batch?)))))
    }
}

#[cfg(test)]
mod tests {
    use flumen_core::contract::Verdict;
    use flumen_core::read::BadRow;

    use super::*;

    #[test]
    fn rows_beyond_the_limit_wait_on_the_disk_and_all_arrive_once() {
        let dir = tempfile::tempdir().unwrap();
        let load = LoadId::derive(["x"]);
        let mut collector = Collector::new(&load, DateTime::UNIX_EPOCH, Spool::within(dir.path()));
        let file: Arc<str> = "a.csv".into();
        // Three times as much as memory may hold, one of the rows more than a batch by itself.
        let long = "x".repeat(1000);
        let rows = 3 * QUARANTINE_MEMORY_BYTES / long.len();
        for row in 0..rows as u64 {
            let record = if row == 7 { long.repeat(2 * QUARANTINE_BATCH_BYTES / long.len()) } else { long.clone() };
            let row = BadRow { row, line: None, column: None, reason: "odd".into(), value: None, record };
            collector.add(&file, Quarantined { row, verdict: Verdict::Bad }).unwrap();
            assert!(collector.bytes <= QUARANTINE_MEMORY_BYTES);
            assert!(collector.waiting_bytes < QUARANTINE_BATCH_BYTES);
        }
        assert!(collector.spilled.is_some());
        let refused = collector.finish().unwrap();
        assert!(!refused.is_empty());
        let mut numbers = Vec::new();
        for batch in refused.into_rows().unwrap() {
            let batch = batch.unwrap();
            assert_eq!(batch.schema(), quarantine_schema());
            use arrow::array::AsArray;
            numbers.extend_from_slice(batch["row"].as_primitive::<arrow::datatypes::Int64Type>().values());
        }
        assert_eq!(numbers, (0..rows as i64).collect::<Vec<_>>());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "what was spooled is removed");
    }

    #[test]
    fn a_load_without_refused_rows_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector::new(&LoadId::derive(["x"]), DateTime::UNIX_EPOCH, Spool::within(dir.path()));
        let refused = collector.finish().unwrap();
        assert!(refused.is_empty());
        assert_eq!(refused.into_rows().unwrap().count(), 0);
    }
}
