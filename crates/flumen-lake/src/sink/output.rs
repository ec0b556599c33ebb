//! Where the bytes of a data file go: straight to the local disk, or to an object store part by part.
//!
//! Files that no commit names are invisible, so nothing is written under a temporary name.

use std::io::{self, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use flumen_core::limits::UPLOAD_PART_BYTES;
use flumen_core::{Error, Result};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::lake::Table;
use flumen_project::durable::create_folders;

/// A file on its way from memory to the disk.
pub(crate) type Syncing = JoinHandle<io::Result<()>>;

/// A file in the making. Blocking: an upload must not be written from within the async runtime.
pub(crate) enum Output {
    /// A local file.
    Local(std::fs::File),
    /// An upload.
    Upload(Box<Upload>),
}

impl Output {
    /// Creates the file `path` of `table`.
    pub(crate) fn create(table: &Table, path: &Path, runtime: &Handle) -> Result<Self> {
        let Some(file) = local_path(table, path) else {
            return Ok(Self::Upload(Box::new(Upload::new(table.clone(), path.clone(), runtime.clone()))));
        };
        let failed = |error| Error::io(format!("{}: {}", table.address(), file.display()), error);
        if let Some(folder) = file.parent() {
            create_folders(folder).map_err(failed)?;
        }
        Ok(Self::Local(std::fs::File::create_new(&file).map_err(failed)?))
    }

    /// Ends the file: all its bytes are where they belong, or will be when the task that is returned has ended. (A disk may
    /// take its time, in which other files are written.)
    pub(crate) fn finish(&mut self, runtime: &Handle) -> io::Result<Option<Syncing>> {
        match self {
            Self::Local(file) => {
                let file = file.try_clone()?;
                Ok(Some(runtime.spawn_blocking(move || file.sync_data())))
            }
            Self::Upload(upload) => upload.finish().map(|()| None),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Local(file) => file.write(bytes),
            Self::Upload(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Local(file) => file.flush(),
            Self::Upload(_) => Ok(()),
        }
    }
}

/// The place of `path` on the local disk, if the table is there.
pub(crate) fn local_path(table: &Table, path: &Path) -> Option<PathBuf> {
    let mut file = table.folder()?.to_owned();
    file.extend(path.parts().map(|part| part.as_ref().to_owned()));
    Some(file)
}

/// An upload in parts: one part is filled while the one before is on its way, so memory holds two.
pub(crate) struct Upload {
    table: Table,
    path: Path,
    runtime: Handle,
    part: BytesMut,
    multipart: Option<Box<dyn MultipartUpload>>,
    on_its_way: Option<JoinHandle<object_store::Result<()>>>,
}

impl Upload {
    fn new(table: Table, path: Path, runtime: Handle) -> Self {
        Self { table, path, runtime, part: BytesMut::new(), multipart: None, on_its_way: None }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(UPLOAD_PART_BYTES - self.part.len());
        self.part.extend_from_slice(bytes.get(..taken).unwrap_or(bytes));
        if self.part.len() == UPLOAD_PART_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn send(&mut self) -> io::Result<()> {
        self.wait()?;
        let part: Bytes = self.part.split().freeze();
        if self.multipart.is_none() {
            let begun = self.runtime.block_on(self.table.store().put_multipart(&self.path));
            self.multipart = Some(begun.map_err(|error| self.failed(error))?);
        }
        if let Some(multipart) = &mut self.multipart {
            self.on_its_way = Some(self.runtime.spawn(multipart.put_part(part.into())));
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let Some(sent) = self.on_its_way.take() else { return Ok(()) };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.wait()?;
        if self.multipart.is_none() {
            // Small enough for one request.
            let whole = PutPayload::from(self.part.split().freeze());
            let put = self.runtime.block_on(self.table.store().put(&self.path, whole));
            return put.map(|_| ()).map_err(|error| self.failed(error));
        }
        if !self.part.is_empty() {
            self.send()?;
            self.wait()?;
        }
        if let Some(mut multipart) = self.multipart.take() {
            self.runtime.block_on(multipart.complete()).map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn failed(&self, error: object_store::Error) -> io::Error {
        io::Error::other(self.table.store_error(error))
    }
}

impl Drop for Upload {
    /// Parts of an upload that was not completed cost money until somebody removes them.
    fn drop(&mut self) {
        if let Some(mut multipart) = self.multipart.take() {
            self.runtime.spawn(async move { multipart.abort().await });
        }
    }
}
