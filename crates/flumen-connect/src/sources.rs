//! Where files come from: a registry of the sources, and how an address finds its own.

use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::read::{FileReader, Input, ReadOptions, Source};
use flumen_core::{Error, Result};

use crate::address;
use crate::blob::Blob;
use crate::formats;
use crate::spool::Spool;

pub mod local;
pub mod stdin;

use local::LocalFile;

/// All files that can be read, wherever they are: paths, patterns, URLs, standard input.
pub struct Files {
    spool: Arc<Spool>,
}

impl Files {
    /// Files, with what comes from elsewhere kept in the system's folder for temporary files while it is needed.
    pub fn new() -> Self {
        Self::with_spool(Spool::new())
    }

    /// The same, with what comes from elsewhere kept in `spool`.
    pub fn with_spool(spool: Arc<Spool>) -> Self {
        Self { spool }
    }

    /// The files at `address`, in order.
    async fn find(&self, address: &str) -> Result<Vec<Arc<dyn Blob>>> {
        if address == "-" {
            return Ok(vec![stdin::open(&self.spool)?]);
        }
        let mut blobs = Vec::new();
        for one in expand_local(address)? {
            blobs.extend(self.find_local(&one)?);
        }
        Ok(blobs)
    }

    /// The files on the local disk at `address`.
    fn find_local(&self, address: &str) -> Result<Vec<Arc<dyn Blob>>> {
        let mut blobs: Vec<Arc<dyn Blob>> = Vec::new();
        for path in address::local_files(address)? {
            let file = LocalFile::open(path)?;
            // A pipe is empty once it has been read: it is kept while it is.
            blobs.push(if file.is_regular() { Arc::new(file) } else { stdin::keep(file, &self.spool)? });
        }
        Ok(blobs)
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

/// The addresses that `address` stands for; a file with braces in its name stands for itself.
fn expand_local(address: &str) -> Result<Vec<String>> {
    if std::path::Path::new(address).exists() { Ok(vec![address.to_owned()]) } else { address::expand(address) }
}

#[async_trait]
impl FileReader for Files {
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        let blobs = self.find(address).await?;
        let (options, spool) = (options.clone(), Arc::clone(&self.spool));
        // Formats read from disk, and wait for what is on its way.
        let opened = tokio::task::spawn_blocking(move || {
            let mut inputs = Vec::new();
            for blob in blobs {
                inputs.extend(formats::open(blob, &options, &spool)?);
            }
            Ok(inputs)
        });
        opened.await.map_err(|error| Error::internal("reading a file broke off").caused_by(error))?
    }
}

#[async_trait]
impl Source for Files {
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        FileReader::open(self, address, options).await
    }
}
