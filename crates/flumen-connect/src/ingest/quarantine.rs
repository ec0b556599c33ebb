//! What was refused, as rows of the quarantine table.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use chrono::{DateTime, Utc};
use flumen_core::contract::Quarantined;
use flumen_core::error::Result;
use flumen_core::limits::QUARANTINE_BATCH_ROWS;
use flumen_core::load::LoadId;
use flumen_core::write::quarantine_schema;

/// Collects entries and makes batches of [`quarantine_schema`] of them.
pub struct Collector {
    load: String,
    at: i64,
    waiting: Vec<(Arc<str>, Quarantined)>,
    batches: Vec<RecordBatch>,
}

impl Collector {
    /// For the load `load`, as of `at`.
    pub fn new(load: &LoadId, at: DateTime<Utc>) -> Self {
        Self { load: load.to_string(), at: at.timestamp_micros(), waiting: Vec::new(), batches: Vec::new() }
    }

    /// Adds an entry from `file`.
    pub fn add(&mut self, file: &Arc<str>, entry: Quarantined) -> Result<()> {
        self.waiting.push((Arc::clone(file), entry));
        if self.waiting.len() >= QUARANTINE_BATCH_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    /// The batches.
    pub fn finish(mut self) -> Result<Vec<RecordBatch>> {
        self.flush()?;
        Ok(self.batches)
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
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
        self.batches.push(RecordBatch::try_new(quarantine_schema(), columns)?);
        Ok(())
    }
}
