//! File formats: a registry of those we read, and how a file's format is found.
//!
//! A format is found from the name and checked against the bytes. Each has its own file below, and one line here.

pub mod csv;

use std::sync::Arc;

use flumen_core::Result;
use flumen_core::read::{Input, ReadOptions};

use crate::blob::Blob;

/// A file format that can be read.
pub trait Format: Send + Sync {
    /// Its name: `csv`, `parquet`.
    fn name(&self) -> &'static str;

    /// The endings of its files' names, in lower case, without the dot.
    fn endings(&self) -> &'static [&'static str];

    /// Whether a file that begins with `head` (unpacked) is certainly of this format. Text formats are never certain.
    fn recognizes(&self, head: &[u8]) -> bool;

    /// Whether packed files of this format are read through a decompressor (`x.csv.gz`). The others are unpacked to a
    /// temporary file first.
    fn streams(&self) -> bool;

    /// Opens a file: finds its columns from its beginning (and, for text, from samples of it).
    ///
    /// Errors: `Data` when the bytes are not of this format; the message names the file and the place.
    fn open(&self, blob: Arc<dyn Blob>, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>>;
}
