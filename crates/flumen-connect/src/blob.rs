//! The bytes of one file, wherever they are: on the local disk, on their way from a server, in memory.

use std::io::Read;
use std::path::PathBuf;

use flumen_core::Result;
use flumen_core::load::FileIdentity;

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
}
