//! Files as a destination: `out/x.parquet`, `x.csv.gz`, `s3://bucket/x.ndjson`, or several at once as `out/*.parquet`; these may
//! lie in folders `column=value`, which stand for the columns that rows are partitioned by.
//!
//! A file is written under another name and renamed when it is whole; in an object store it appears when its upload ends. So one
//! file is replaced as one. Several files cannot be: they end with a manifest that says which belong to the load, and says
//! that the change was not atomic. Files have no ledger: a load is done as often as it is asked for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use flumen_core::load::{Committed, LoadId, LoadRecord, LoadRequest, Mode};
use flumen_core::partition::{Partition, Partitioning, folder};
use flumen_core::write::{
    BatchWriter, LedgerEntry, LoadSession, RefusedRows, Sink, TableState, WriteOptions, quarantine_schema,
};
use flumen_core::{Error, Result, limits};
use flumen_project::durable::{create_folders, sync_folder};
use flumen_project::store::{object_store_for, store_error};
use flumen_project::{Environment, Project, StoreAt};
use object_store::path::Path as StorePath;
use object_store::{ObjectStoreExt, PutPayload, WriteMultipart};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::codec;
use crate::spool::Spool;

mod encode;

use encode::{Encoder, Encoding};

/// The file that lists those of a target of several.
const MANIFEST: &str = "_manifest.json";
/// What a target's quarantine is called, after its own name.
const QUARANTINE: &str = "__quarantine.ndjson";
/// Bytes of one part of an upload.
const UPLOAD_BYTES: usize = 8 << 20;
/// Parts of an upload that are on their way at once.
const UPLOADS: usize = 4;

/// One file, or several, to be written.
pub struct FileSink {
    target: Arc<Target>,
}

/// Where files go.
struct Target {
    address: String,
    place: Place,
    /// The file's name; a star in it stands for a number.
    name: String,
    encoding: Encoding,
}

enum Place {
    Folder(PathBuf),
    /// A folder in a store, and where files are until they are uploaded.
    Store(StoreAt, Arc<Spool>),
}

impl FileSink {
    /// The destination `address`: a path, or the URL of an object store. What is to be uploaded is in `spool` until then.
    ///
    /// Errors: `Invalid` if neither its ending nor `options` name a format that can be written, or an option is none of the
    /// format.
    pub fn new(address: &str, options: &WriteOptions, project: Option<&Project>, spool: &Arc<Spool>) -> Result<Self> {
        let (folder, name) = address.rsplit_once('/').unwrap_or(("", address));
        let encoding = Encoding::new(name, options)?;
        if folder.contains('*') || name.matches('*').count() > 1 {
            return Err(Error::invalid(format!("'{address}': only one '*' can be written to, in the file's name"))
                .hint("write out/*.parquet"));
        }
        let place = match address.split_once("://") {
            None => Place::Folder(PathBuf::from(match folder {
                "" if address.starts_with('/') => "/",
                "" => ".",
                folder => folder,
            })),
            Some(("file", path)) => return Self::new(path, options, project, spool),
            Some(("http" | "https", _)) => {
                return Err(Error::invalid(format!("'{address}' is on a web server, which takes no files"))
                    .hint("write to a path or to an object store"));
            }
            Some((scheme, _)) => {
                let store = store_for(folder, scheme, project)?;
                Place::Store(store, Arc::clone(spool))
            }
        };
        Ok(Self::at(address, place, name, encoding))
    }

    fn at(address: &str, place: Place, name: &str, encoding: Encoding) -> Self {
        Self { target: Arc::new(Target { address: address.to_owned(), place, name: name.to_owned(), encoding }) }
    }
}

/// The store of `folder`: that of the connection whose name stands in place of a scheme, else by its URL.
fn store_for(folder: &str, scheme: &str, project: Option<&Project>) -> Result<StoreAt> {
    let connection = project.and_then(|project| project.connections().find(|found| found.name() == scheme));
    if let Some(connection) = connection {
        let mut store = connection.object_store()?;
        let below = folder.split_once("://").map_or("", |(_, below)| below);
        for part in below.split('/').filter(|part| !part.is_empty()) {
            store.path = store.path.clone().join(part);
        }
        return Ok(store);
    }
    let url = Url::parse(folder).map_err(|error| Error::invalid(format!("'{folder}' is not an address: {error}")))?;
    match project {
        Some(project) => project.object_store_for(&url),
        None => object_store_for(&url, &Environment::of_process()),
    }
}

impl Target {
    fn is_several(&self) -> bool {
        self.name.contains('*')
    }

    /// The name of the file with this number, with the folders of its partition.
    fn file_name(&self, partition: &Partition, number: usize) -> String {
        let folders = partition.iter().map(|(column, value)| folder(column, value.as_deref(), usize::MAX) + "/");
        folders.chain([self.name.replace('*', &format!("part-{number:05}"))]).collect()
    }

    /// The path of a file in a store.
    fn stored(&self, store: &StoreAt, name: &str) -> Result<StorePath> {
        let Some((folders, own)) = name.rsplit_once('/') else { return Ok(store.path.clone().join(name)) };
        // The names of folders are escaped already.
        let folder = StorePath::parse(format!("{}/{folders}", store.path));
        let folder = folder.map_err(|error| Error::invalid(format!("{}: {error}", self.address)).caused_by(error))?;
        Ok(folder.join(own))
    }

    /// The name of the quarantine: beside the target, and never taken for a part of it.
    fn quarantine_name(&self) -> String {
        let stem = codec::split_name(&self.name).0;
        let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem).replace('*', "part");
        format!("{stem}{QUARANTINE}")
    }

    /// Begins a file of rows of the load that will be called `name`.
    fn begin(&self, name: String, load: &LoadId, schema: &SchemaRef) -> Result<Part> {
        self.begin_as(name, load, schema, &self.encoding)
    }

    fn begin_as(&self, name: String, load: &LoadId, schema: &SchemaRef, encoding: &Encoding) -> Result<Part> {
        let temporary = match &self.place {
            Place::Folder(folder) => {
                let (below, own) = name.rsplit_once('/').unwrap_or(("", &name));
                let folder = folder.join(below);
                create_folders(&folder).map_err(|error| Error::io(folder.display(), error))?;
                Temporary::Beside(folder.join(format!(".{own}.flumen-{}.tmp", load.short())))
            }
            Place::Store(_, spool) => Temporary::Spooled(spool.file(&self.address)?),
        };
        let encoder = Encoder::begin(temporary.path(), &self.address, schema, encoding)?;
        Ok(Part { name, temporary, encoder, rows: 0 })
    }

    /// Puts a whole file where it belongs. Returns its bytes.
    async fn publish(&self, name: &str, temporary: &Path) -> Result<u64> {
        let failed = |error| Error::io(&self.address, error);
        let bytes = fs::metadata(temporary).map_err(failed)?.len();
        match &self.place {
            Place::Folder(folder) => {
                let to = folder.join(name);
                fs::rename(temporary, &to).map_err(failed)?;
                sync_folder(to.parent().unwrap_or(folder)).map_err(failed)?;
            }
            Place::Store(store, _) => {
                let refused = |error| store_error(&self.address, error);
                let upload = store.store.put_multipart(&self.stored(store, name)?).await.map_err(refused)?;
                let mut upload = WriteMultipart::new_with_chunk_size(upload, UPLOAD_BYTES);
                let mut file = fs::File::open(temporary).map_err(failed)?;
                loop {
                    let mut chunk = Vec::with_capacity(UPLOAD_BYTES);
                    if (&mut file).take(UPLOAD_BYTES as u64).read_to_end(&mut chunk).map_err(failed)? == 0 {
                        break;
                    }
                    upload.wait_for_capacity(UPLOADS).await.map_err(refused)?;
                    upload.put(chunk.into());
                }
                upload.finish().await.map_err(refused)?;
            }
        }
        Ok(bytes)
    }

    /// Writes a small file, whole or not at all.
    async fn write_small(&self, name: &str, content: Vec<u8>) -> Result<()> {
        match &self.place {
            Place::Folder(folder) => {
                let failed = |error| Error::io(folder.join(name).display(), error);
                create_folders(folder).map_err(failed)?;
                let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
                std::io::Write::write_all(&mut file, &content).map_err(failed)?;
                file.as_file().sync_all().map_err(failed)?;
                file.persist(folder.join(name)).map_err(|error| failed(error.error))?;
                sync_folder(folder).map_err(failed)?;
            }
            Place::Store(store, _) => {
                let put = store.store.put(&self.stored(store, name)?, PutPayload::from(content)).await;
                put.map_err(|error| store_error(&self.address, error))?;
            }
        }
        Ok(())
    }

    /// The files of the load before, as its manifest lists them.
    async fn manifest(&self) -> Result<Vec<String>> {
        let content = match &self.place {
            Place::Folder(folder) => match fs::read(folder.join(MANIFEST)) {
                Ok(content) => content,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(Error::io(folder.join(MANIFEST).display(), error)),
            },
            Place::Store(store, _) => match store.store.get(&self.stored(store, MANIFEST)?).await {
                Ok(found) => found.bytes().await.map_err(|error| store_error(&self.address, error))?.to_vec(),
                Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
                Err(error) => return Err(store_error(&self.address, error)),
            },
        };
        let manifest: Manifest = serde_json::from_slice(&content).map_err(|error| {
            Error::conflict(format!("{}: its {MANIFEST} was not written by Flumen", self.address))
                .hint("choose another folder")
                .caused_by(error)
        })?;
        Ok(manifest.files.into_iter().map(|file| file.name).collect())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        match &self.place {
            Place::Folder(folder) => match fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io(folder.join(name).display(), error))
                }
                _ => Ok(()),
            },
            Place::Store(store, _) => match store.store.delete(&self.stored(store, name)?).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(store_error(&self.address, error)),
            },
        }
    }
}

/// What the files of a target of several are.
#[derive(Serialize, Deserialize)]
struct Manifest {
    load: LoadId,
    /// Always false: whoever reads while a load ends may see files of two.
    atomic: bool,
    rows: u64,
    files: Vec<Listed>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    name: String,
    rows: u64,
    bytes: u64,
}

/// Where a file is until it is whole. Removed when dropped, unless it was renamed.
enum Temporary {
    Beside(PathBuf),
    Spooled(Arc<crate::spool::SpoolFile>),
}

impl Temporary {
    fn path(&self) -> &Path {
        match self {
            Temporary::Beside(path) => path,
            Temporary::Spooled(file) => file.path(),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Temporary::Beside(path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// One file that is being written.
struct Part {
    name: String,
    temporary: Temporary,
    encoder: Encoder,
    rows: u64,
}

/// One file that is whole, under its temporary name.
struct Whole {
    name: String,
    temporary: Temporary,
    rows: u64,
}

impl Part {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.encoder.write(batch)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Bytes of rows that are still in memory.
    fn held_bytes(&self) -> usize {
        self.encoder.held_bytes()
    }

    fn end_row_group(&mut self) -> Result<()> {
        self.encoder.end_row_group()
    }

    fn finish(self) -> Result<Whole> {
        self.encoder.finish()?;
        Ok(Whole { name: self.name, temporary: self.temporary, rows: self.rows })
    }
}

#[async_trait]
impl Sink for FileSink {
    fn address(&self) -> String {
        self.target.address.clone()
    }

    async fn state(&self) -> Result<Option<TableState>> {
        // What is there is replaced, whatever it is.
        Ok(None)
    }

    async fn known(&self, files: &[LoadId]) -> Result<Vec<bool>> {
        Ok(vec![false; files.len()])
    }

    async fn loads(&self, _: usize) -> Result<Vec<LedgerEntry>> {
        Ok(Vec::new())
    }

    async fn undo(&self, _: &LoadId, _: &LoadRecord) -> Result<Committed> {
        Err(Error::invalid(format!("{} is a file, which keeps no history to go back to", self.target.address))
            .hint("load into a lake table if you want to undo loads"))
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn LoadSession>> {
        if request.mode != Mode::Replace {
            return Err(Error::invalid(format!(
                "{} is a file: it can be replaced, and not loaded by {}",
                self.target.address,
                request.mode.name()
            ))
            .hint("give --mode replace"));
        }
        let is_several = self.target.is_several();
        if !request.partition_by.is_empty() && !is_several {
            return Err(Error::invalid(format!("{} is one file, which has no partitions", self.target.address))
                .hint("write several: out/*.parquet"));
        }
        let parted = Partitioning::new(&request.schema, &request.partition_by);
        let (partitioning, columns) = parted.map_err(|error| error.within(&self.target.address))?;
        let before = if is_several { self.target.manifest().await? } else { Vec::new() };
        let begin = || self.target.begin(self.target.name.clone(), &request.load, &columns);
        let single = if is_several { None } else { Some(Arc::new(Mutex::new(Some(begin()?)))) };
        Ok(Box::new(FileSession {
            target: Arc::clone(&self.target),
            load: request.load,
            partitioning: Arc::new(partitioning),
            columns,
            single,
            parts: Arc::new(Mutex::new(Vec::new())),
            next: Arc::new(AtomicUsize::new(0)),
            before,
        }))
    }

    fn lineage_by_default(&self) -> bool {
        false
    }

    fn stored_type(&self, data_type: &DataType) -> Result<DataType> {
        self.target.encoding.stored_type(data_type)
    }
}

/// One load into files.
struct FileSession {
    target: Arc<Target>,
    load: LoadId,
    partitioning: Arc<Partitioning>,
    /// The columns that are in the files: those by which rows are partitioned are not.
    columns: SchemaRef,
    /// The one file that all workers write to.
    single: Option<Arc<Mutex<Option<Part>>>>,
    /// The files that workers have finished.
    parts: Arc<Mutex<Vec<Whole>>>,
    next: Arc<AtomicUsize>,
    /// The files of the load before.
    before: Vec<String>,
}

#[async_trait]
impl LoadSession for FileSession {
    fn writer(&self) -> Result<Box<dyn BatchWriter>> {
        Ok(match &self.single {
            Some(single) => Box::new(SharedWriter(Arc::clone(single))),
            None => Box::new(OwnWriter {
                target: Arc::clone(&self.target),
                load: self.load.clone(),
                partitioning: Arc::clone(&self.partitioning),
                columns: Arc::clone(&self.columns),
                parts: Arc::clone(&self.parts),
                next: Arc::clone(&self.next),
                open: HashMap::new(),
            }),
        })
    }

    async fn quarantine(&self, rows: RefusedRows) -> Result<()> {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let (target, load) = (Arc::clone(&self.target), self.load.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let name = target.quarantine_name();
            let encoding = Encoding::of_name(&name)?;
            let mut part = target.begin_as(name, &load, &quarantine_schema(), &encoding)?;
            for batch in rows {
                part.write(&batch?)?;
            }
            part.finish()
        });
        let whole =
            writing.await.map_err(|error| Error::internal("the quarantine was not written").caused_by(error))??;
        self.target.publish(&whole.name, whole.temporary.path()).await.map(|_| ())
    }

    async fn commit(self: Box<Self>, record: &LoadRecord) -> Result<Committed> {
        let mut bytes_written = 0;
        if let Some(single) = &self.single {
            let part = lock(single).take().ok_or_else(ended)?;
            let whole = part.finish()?;
            bytes_written += self.target.publish(&whole.name, whole.temporary.path()).await?;
            return Ok(Committed { version: None, bytes_written });
        }
        let mut parts = std::mem::take(&mut *lock(&self.parts));
        if parts.is_empty() {
            // No rows: one file that has the columns.
            let nowhere: Partition = Arc::from([]);
            parts.push(self.target.begin(self.target.file_name(&nowhere, 0), &self.load, &self.columns)?.finish()?);
        }
        parts.sort_by(|one, other| one.name.cmp(&other.name));
        let mut manifest = Manifest { load: record.load.clone(), atomic: false, rows: 0, files: Vec::new() };
        for part in &parts {
            let bytes = self.target.publish(&part.name, part.temporary.path()).await?;
            manifest.rows += part.rows;
            manifest.files.push(Listed { name: part.name.clone(), rows: part.rows, bytes });
            bytes_written += bytes;
        }
        let content = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::internal("a manifest cannot be written").caused_by(error))?;
        self.target.write_small(MANIFEST, content).await?;
        for gone in self.before.iter().filter(|name| parts.iter().all(|part| part.name != **name)) {
            self.target.remove(gone).await?;
        }
        Ok(Committed { version: None, bytes_written })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        // What was written goes with the parts that hold it.
        Ok(())
    }
}

/// Writes to the one file, in turn with the other workers.
struct SharedWriter(Arc<Mutex<Option<Part>>>);

impl BatchWriter for SharedWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        lock(&self.0).as_mut().ok_or_else(ended)?.write(batch)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Writes files of its own, one at a time for each partition.
struct OwnWriter {
    target: Arc<Target>,
    load: LoadId,
    partitioning: Arc<Partitioning>,
    columns: SchemaRef,
    parts: Arc<Mutex<Vec<Whole>>>,
    next: Arc<AtomicUsize>,
    open: HashMap<Partition, Part>,
}

impl OwnWriter {
    fn write_to(&mut self, partition: Partition, batch: &RecordBatch) -> Result<()> {
        if !self.open.contains_key(&partition) && self.open.len() >= limits::OPEN_PARTITIONS {
            self.close_largest()?;
        }
        let part = match self.open.entry(partition) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(new) => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let name = self.target.file_name(new.key(), number);
                new.insert(self.target.begin(name, &self.load, &self.columns)?)
            }
        };
        part.write(batch)
    }

    fn close_largest(&mut self) -> Result<()> {
        let largest = self.open.iter().max_by_key(|(_, part)| part.rows).map(|(partition, _)| partition.clone());
        let largest = largest.and_then(|partition| self.open.remove(&partition));
        largest.map_or(Ok(()), |part| self.close(part))
    }

    fn close(&self, part: Part) -> Result<()> {
        let whole = part.finish()?;
        lock(&self.parts).push(whole);
        Ok(())
    }
}

impl BatchWriter for OwnWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if !self.partitioning.is_partitioned() {
            return self.write_to(Arc::from([]), batch);
        }
        for (partition, columns) in self.partitioning.split(batch.columns())? {
            self.write_to(partition, &RecordBatch::try_new(Arc::clone(&self.columns), columns)?)?;
        }
        // Rows that are not on the disk yet: those of all partitions together are no more than those of one would be.
        while self.open.len() > 1 && self.open.values().map(Part::held_bytes).sum::<usize>() > limits::ROW_GROUP_BYTES {
            let most = self.open.values_mut().max_by_key(|part| part.held_bytes());
            most.map_or(Ok(()), Part::end_row_group)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        std::mem::take(&mut self.open).into_values().try_for_each(|part| self.close(part))
    }
}

fn ended() -> Error {
    Error::internal("a file was written to after its end")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
