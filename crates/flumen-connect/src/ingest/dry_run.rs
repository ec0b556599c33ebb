//! A destination that looks like another, and keeps nothing: `--dry-run`.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use flumen_core::error::Result;
use flumen_core::load::{Committed, LoadId, LoadRecord, LoadRequest};
use flumen_core::write::{BatchWriter, LedgerEntry, LoadSession, RefusedRows, Sink, TableState};

/// Answers for another sink, and writes nothing.
pub struct DryRun(pub Arc<dyn Sink>);

#[async_trait]
impl Sink for DryRun {
    fn address(&self) -> String {
        self.0.address()
    }

    async fn state(&self) -> Result<Option<TableState>> {
        self.0.state().await
    }

    async fn known(&self, files: &[LoadId]) -> Result<Vec<bool>> {
        self.0.known(files).await
    }

    async fn loads(&self, limit: usize) -> Result<Vec<LedgerEntry>> {
        self.0.loads(limit).await
    }

    async fn undo(&self, _: &LoadId, _: &LoadRecord) -> Result<Committed> {
        Ok(NOTHING)
    }

    async fn begin(&self, _: LoadRequest) -> Result<Box<dyn LoadSession>> {
        Ok(Box::new(Nowhere))
    }

    fn lineage_by_default(&self) -> bool {
        false
    }

    fn stored_type(&self, data_type: &DataType) -> Result<DataType> {
        self.0.stored_type(data_type)
    }
}

const NOTHING: Committed = Committed { version: None, bytes_written: 0 };

struct Nowhere;

#[async_trait]
impl LoadSession for Nowhere {
    fn writer(&self) -> Result<Box<dyn BatchWriter>> {
        Ok(Box::new(Nowhere))
    }

    async fn quarantine(&self, _: RefusedRows) -> Result<()> {
        Ok(())
    }

    async fn commit(self: Box<Self>, _: &LoadRecord) -> Result<Committed> {
        Ok(NOTHING)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl BatchWriter for Nowhere {
    fn write(&mut self, _: &RecordBatch) -> Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
