//! Standard input and pipes: kept on disk while they are read, so that they can be read again.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use flumen_core::load::FileIdentity;
use flumen_core::{Error, Result};

use super::local::LocalFile;
use crate::blob::Blob;
use crate::spool::{self, Spool, SpoolFile};

/// Standard input.
pub fn open(spool: &Arc<Spool>) -> Result<Arc<dyn Blob>> {
    start("-", Box::new(std::io::stdin()), spool)
}

/// A pipe.
pub(super) fn keep(pipe: LocalFile, spool: &Arc<Spool>) -> Result<Arc<dyn Blob>> {
    start(pipe.address(), pipe.open()?, spool)
}

fn start(address: &str, from: Box<dyn Read + Send>, spool: &Arc<Spool>) -> Result<Arc<dyn Blob>> {
    let file = spool.file(address)?;
    let to = Arc::clone(&file);
    // A thread of its own: a read of a terminal may never return, and must not hold up the end of the process.
    let started = std::thread::Builder::new().name("stdin".into()).spawn(move || spool::fill(&to, from));
    started.map_err(|error| Error::io(address, error))?;
    Ok(Arc::new(Pipe { address: address.to_owned(), file }))
}

/// What has come through a pipe. It has no identity: another run brings other bytes.
struct Pipe {
    address: String,
    file: Arc<SpoolFile>,
}

impl Blob for Pipe {
    fn address(&self) -> &str {
        &self.address
    }

    fn size(&self) -> Option<u64> {
        self.file.is_complete().then(|| self.file.written())
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.file.reader()))
    }

    fn local_file(&self) -> Result<PathBuf> {
        self.file.wait()
    }

    fn identity(&self) -> Result<FileIdentity> {
        Ok(FileIdentity { address: self.address.clone(), validator: None })
    }

    fn check_unchanged(&self) -> Result<()> {
        // What came is kept, and nothing is added to what was read of it.
        Ok(())
    }
}
