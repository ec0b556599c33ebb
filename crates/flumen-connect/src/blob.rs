//! The bytes of one file, wherever they are: on the local disk, on their way from a server, in memory.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flumen_core::load::FileIdentity;
use flumen_core::{Error, Result};

/// The bytes of one file. They can be read more than once, and by several threads. Everything blocks.
pub trait Blob: Send + Sync {
    /// The path or URL, without credentials: for messages, `_flumen_file` and the ledger.
    fn address(&self) -> &str;

    /// The name by whose endings format and packing are found: the last part of the address.
    fn name(&self) -> &str {
        let address = self.address();
        let path = address.split(['?', '#']).next().unwrap_or(address);
        path.rsplit(['/', '\\']).next().unwrap_or(path)
    }

    /// The size in bytes as stored (packed, if the file is), if it is known before the end.
    fn size(&self) -> Option<u64>;

    /// Begins to read at the first byte. Where the bytes are still on their way, reads wait for them.
    ///
    /// Errors while reading are `std::io::Error`s that carry a [`flumen_core::Error`] where the cause is not the local disk.
    fn open(&self) -> Result<Box<dyn Read + Send>>;

    /// The path of the whole file on the local disk, once it is all there: for formats that need to seek.
    fn local_file(&self) -> Result<PathBuf>;

    /// How this file is told from another version of itself: the server's checksum or strong ETag, else a hash of the
    /// content.
    fn identity(&self) -> Result<FileIdentity>;

    /// That it has not changed since it was opened: what was read of it is of one version then.
    ///
    /// Errors: `Conflict` if it has.
    fn check_unchanged(&self) -> Result<()>;
}

/// The first `bytes` bytes of `reader`, or all of them if there are fewer.
pub fn read_head(reader: &mut dyn Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(bytes);
    reader.take(bytes as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// What a failed read of the file at `address` means: the [`Error`] that it carries, or else what the local disk said.
pub fn error(address: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(io) => Error::io(address, io),
    }
}

/// The validator of `content` where its server gives none.
pub fn content_hash(hash: &blake3::Hash) -> String {
    format!("blake3:{}", hash.to_hex())
}

/// A file in memory: for tests, and for what was read already.
pub struct Memory {
    address: String,
    content: bytes::Bytes,
}

impl Memory {
    /// A file with `content`, to be known as `address`.
    pub fn new(address: impl Into<String>, content: impl Into<bytes::Bytes>) -> Self {
        Self { address: address.into(), content: content.into() }
    }
}

impl Blob for Memory {
    fn address(&self) -> &str {
        &self.address
    }

    fn size(&self) -> Option<u64> {
        Some(self.content.len() as u64)
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.content.clone())))
    }

    fn local_file(&self) -> Result<PathBuf> {
        Err(Error::invalid(format!("{} is not on a disk", self.address)).hint("save it to a file first"))
    }

    fn identity(&self) -> Result<FileIdentity> {
        Ok(FileIdentity { address: self.address.clone(), validator: Some(content_hash(&blake3::hash(&self.content))) })
    }

    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
}

/// A file whose bytes are counted as they are read: for progress.
pub struct Counted {
    blob: Arc<dyn Blob>,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    /// `blob`, with the bytes that are read of it added to `bytes`.
    pub fn new(blob: Arc<dyn Blob>, bytes: Arc<AtomicU64>) -> Self {
        Self { blob, bytes }
    }
}

impl Blob for Counted {
    fn address(&self) -> &str {
        self.blob.address()
    }

    fn name(&self) -> &str {
        self.blob.name()
    }

    fn size(&self) -> Option<u64> {
        self.blob.size()
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(CountedRead { reader: self.blob.open()?, bytes: Arc::clone(&self.bytes) }))
    }

    fn local_file(&self) -> Result<PathBuf> {
        self.blob.local_file()
    }

    fn identity(&self) -> Result<FileIdentity> {
        self.blob.identity()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.blob.check_unchanged()
    }
}

struct CountedRead {
    reader: Box<dyn Read + Send>,
    bytes: Arc<AtomicU64>,
}

impl Read for CountedRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
