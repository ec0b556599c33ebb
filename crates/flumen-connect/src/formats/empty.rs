//! A file without a single byte: no columns, no rows, and a warning.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use flumen_core::Result;
use flumen_core::read::{ReadRequest, Split, Splits};

use super::input::FileRows;
use crate::blob::Blob;

/// The input that an empty file is.
pub(super) struct Empty {
    blob: Arc<dyn Blob>,
    schema: SchemaRef,
}

impl Empty {
    /// The file `blob`, which is empty.
    pub(super) fn new(blob: Arc<dyn Blob>) -> Self {
        Self { blob, schema: Arc::new(Schema::empty()) }
    }
}

impl FileRows for Empty {
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
        vec![format!("{} is empty", self.blob.address())]
    }

    fn read(&self, _: &ReadRequest) -> Result<Arc<dyn Splits>> {
        Ok(Arc::new(Nothing))
    }
}

struct Nothing;

impl Splits for Nothing {
    fn next(&self) -> Result<Option<Box<dyn Split>>> {
        Ok(None)
    }

    fn bytes_read(&self) -> u64 {
        0
    }
}
