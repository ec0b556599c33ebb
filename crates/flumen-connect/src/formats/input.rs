//! What the inputs of all formats have in common: they are files.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use flumen_core::Result;
use flumen_core::load::FileIdentity;
use flumen_core::read::{Input, ReadRequest, Splits};

use crate::blob::Blob;

/// What a format makes of one file: its columns, and a way to its rows. [`FileInput`] makes an [`Input`] of it.
pub(super) trait FileRows: Send + Sync {
    /// The file.
    fn blob(&self) -> &Arc<dyn Blob>;

    /// As [`Input::schema`].
    fn schema(&self) -> &SchemaRef;

    /// As [`Input::is_text`].
    fn is_text(&self) -> bool {
        false
    }

    /// As [`Input::warnings`].
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// As [`Input::read`].
    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>>;

    /// As [`Input::parquet_file`].
    fn parquet_file(&self) -> Option<PathBuf> {
        None
    }
}

/// One file as an input.
pub(super) struct FileInput<T>(T);

impl<T: FileRows + 'static> FileInput<T> {
    /// The inputs of a format that makes one of each file.
    pub(super) fn only(rows: T) -> Vec<Arc<dyn Input>> {
        vec![Arc::new(Self(rows))]
    }
}

impl<T: FileRows> Input for FileInput<T> {
    fn address(&self) -> &str {
        self.0.blob().address()
    }

    fn identity(&self) -> Result<FileIdentity> {
        self.0.blob().identity()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.0.blob().check_unchanged()
    }

    fn bytes(&self) -> Option<u64> {
        self.0.blob().size()
    }

    fn schema(&self) -> &SchemaRef {
        self.0.schema()
    }

    fn is_text(&self) -> bool {
        self.0.is_text()
    }

    fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        self.0.read(request)
    }

    fn parquet_file(&self) -> Option<PathBuf> {
        self.0.parquet_file()
    }
}
