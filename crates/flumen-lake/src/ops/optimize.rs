//! Optimize: small files become few large ones; with clustering, rows that are alike come to stand together. The rows stay
//! what they are, and say which load they are of: so every load can still be taken back.
//!
//! The work is done bin by bin, each a commit of its own that changes no data. A writer that commits meanwhile is never in
//! the way: what it added stays, and a bin of which it removed a file is given up.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use flumen_core::boxed;
use flumen_core::limits::{LAKE_FILE_BYTES, OPTIMIZE_BIN_BYTES, OPTIMIZE_MEMORY_BYTES};
use flumen_core::load::{Fence, LOAD_COLUMN, LoadId};
use flumen_core::words::counted;
use flumen_core::write::BatchWriter;
use flumen_core::{Error, Result};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::read::{FileRows, StoredFile};
use crate::catalog::Catalog;
use crate::commit::{Change, Current, Note, commit, line};
use crate::lake::{DataFile, LOAD_FOLDER, Table, delete_files};
use crate::sink::{Conversion, LoadFiles, LoadLock, MIXED, NewFile, add, is_mixed, load_folder, remove};

/// How a table is to be optimized.
#[derive(Debug, Clone, Default)]
pub struct OptimizeOptions {
    /// Sort the rows of each new file by these columns; all files are rewritten then.
    pub cluster_by: Vec<String>,
    /// Bytes to read at most; the rest is for another time.
    pub budget_bytes: Option<u64>,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// What was done to a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Optimized {
    /// Files that went.
    pub files_before: u64,
    /// Files that came.
    pub files_after: u64,
    /// Bytes of the files that went.
    pub bytes_before: u64,
    /// Bytes of the files that came.
    pub bytes_after: u64,
    /// The version of the last commit.
    pub version: Option<u64>,
    /// Bins that others were faster with.
    pub given_up: u64,
}

/// Optimizes `table`.
///
/// Errors: `NotFound` if there is no table; `Invalid` if it cannot be written to, or has no such column.
#[boxed]
pub async fn optimize(catalog: &Catalog, table: &Table, options: &OptimizeOptions) -> Result<Optimized> {
    let snapshot = table.snapshot().await?;
    let snapshot = snapshot.ok_or_else(|| Error::not_found(format!("there is no table '{}'", table.address())))?;
    snapshot.check_writable(true)?;
    let schema = snapshot.schema();
    for column in &options.cluster_by {
        if schema.index_of(column).is_err() {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::invalid(format!("{}: there is no column '{column}'", table.address()))
                .did_you_mean(column, names));
        }
    }
    let mut done = Optimized::default();
    let mut budget = options.budget_bytes.unwrap_or(u64::MAX);
    for bin in bins(snapshot.files()?, !options.cluster_by.is_empty()) {
        let size: u64 = bin.iter().map(|file| file.size).sum();
        if size > budget {
            break;
        }
        budget -= size;
        if options.dry_run {
            done.files_before += bin.len() as u64;
            done.bytes_before += size;
            done.files_after += size.div_ceil(LAKE_FILE_BYTES as u64);
            continue;
        }
        let work = Bin { catalog, table, schema: &schema, partition_by: snapshot.partition_by(), files: &bin };
        match work.rewrite(&options.cluster_by).await? {
            Some((files, version)) => {
                done.files_before += bin.len() as u64;
                done.bytes_before += size;
                done.files_after += files.len() as u64;
                done.bytes_after += files.iter().map(|file| file.size).sum::<u64>();
                done.version = Some(version);
            }
            None => done.given_up += 1,
        }
    }
    Ok(done)
}

/// Whether a file is so small that it is worth being part of a larger one.
pub(super) fn is_small(file: &DataFile) -> bool {
    file.size < (LAKE_FILE_BYTES / 4 * 3) as u64
}

/// The files that are worth being made one, a list for each rewrite. Files keep their order, and partitions stay apart.
fn bins(files: Vec<DataFile>, all: bool) -> Vec<Vec<DataFile>> {
    let mut partitions: BTreeMap<BTreeMap<String, Option<String>>, Vec<DataFile>> = BTreeMap::new();
    for file in files {
        // Rows that another tool has deleted in place cannot be left out here, and a foreign file is not ours to remove.
        if file.deletion_vector.is_none() && !file.path.contains("://") && (all || is_small(&file)) {
            partitions.entry(file.partition.clone()).or_default().push(file);
        }
    }
    let mut bins = Vec::new();
    for mut files in partitions.into_values() {
        files.sort_by(|a, b| (a.modified_ms, &a.path).cmp(&(b.modified_ms, &b.path)));
        let mut bin: Vec<DataFile> = Vec::new();
        let mut bytes = 0;
        for file in files {
            if bytes + file.size > OPTIMIZE_BIN_BYTES && !bin.is_empty() {
                bins.push(std::mem::take(&mut bin));
                bytes = 0;
            }
            bytes += file.size;
            bin.push(file);
        }
        bins.push(bin);
    }
    bins.retain(|bin| bin.len() > 1 || all && !bin.is_empty());
    bins
}

/// Files that are to be made one.
struct Bin<'a> {
    catalog: &'a Catalog,
    table: &'a Table,
    schema: &'a SchemaRef,
    partition_by: Vec<String>,
    files: &'a [DataFile],
}

impl Bin<'_> {
    /// Writes the rows anew and commits. `None`: another writer has removed one of the files.
    async fn rewrite(&self, cluster_by: &[String]) -> Result<Option<(Vec<NewFile>, u64)>> {
        let id = LoadId::from_uuid(self.catalog.ids().next());
        let folder = load_folder(&id);
        let lock = match self.table.folder() {
            Some(root) => Some(LoadLock::take(&root.join(&folder), id.as_str(), Fence(0), &self.table.address())?),
            None => None,
        };
        let conversion =
            Conversion { from: (0..self.schema.fields().len()).collect(), schema: Arc::clone(self.schema) };
        let target = LoadFiles::new(
            self.table.clone(),
            format!("{folder}/{MIXED}"),
            self.catalog.ids().next(),
            conversion,
            &self.partition_by,
            Handle::current(),
        )?;
        let target = Arc::new(target);
        let written = match self.write(&target, cluster_by).await {
            Ok(()) => target.finished().await,
            Err(error) => Err(error),
        };
        let committed = match written {
            Ok(files) => self.commit(files, cluster_by).await,
            Err(error) => Err(error),
        };
        if !matches!(committed, Ok(Some(_))) {
            delete_files(self.table, target.discard()).await?;
        }
        drop(lock);
        committed
    }

    async fn write(&self, target: &Arc<LoadFiles>, cluster_by: &[String]) -> Result<()> {
        let source = Source { table: self.table.clone(), schema: Arc::clone(self.schema), files: self.files.to_vec() };
        if cluster_by.is_empty() {
            let target = Arc::clone(target);
            let work = tokio::task::spawn_blocking(move || {
                let mut writer = Box::new(target.writer());
                source.rows(&Handle::current(), |batch| writer.write(&batch))?;
                writer.finish()
            });
            return work.await.map_err(|error| Error::internal("rewriting files broke off").caused_by(error))?;
        }
        let mut sorted = source.sorted(cluster_by).await?;
        let (send, mut receive) = tokio::sync::mpsc::channel::<RecordBatch>(2);
        let writing = Arc::clone(target);
        let work = tokio::task::spawn_blocking(move || {
            let mut writer = Box::new(writing.writer());
            while let Some(batch) = receive.blocking_recv() {
                writer.write(&batch)?;
            }
            writer.finish()
        });
        let mut broken = None;
        while let Some(batch) = sorted.next().await {
            match batch {
                Ok(batch) => {
                    if send.send(batch).await.is_err() {
                        // The writer has ended with an error of its own.
                        break;
                    }
                }
                Err(error) => {
                    broken = Some(sorting_failed(self.table, error));
                    break;
                }
            }
        }
        drop(send);
        work.await.map_err(|error| Error::internal("rewriting files broke off").caused_by(error))??;
        broken.map_or(Ok(()), Err)
    }

    async fn commit(&self, files: Vec<NewFile>, cluster_by: &[String]) -> Result<Option<(Vec<NewFile>, u64)>> {
        let at = self.catalog.clock().now();
        let metrics = json!({
            "numRemovedFiles": self.files.len().to_string(),
            "numAddedFiles": files.len().to_string(),
        });
        let entries =
            Map::from_iter([("operationMetrics".to_owned(), metrics), ("isBlindAppend".to_owned(), json!(false))]);
        let parameters = json!({ "predicate": "[]", "zOrderBy": json!(cluster_by).to_string() });
        let note = Note { operation: "OPTIMIZE", parameters, entries, at, id: self.catalog.ids().next() };
        let mut change = Compaction { removed: self.files, added: &files, now_ms: at.timestamp_millis(), lost: false };
        match commit(self.table, &mut change, &note).await {
            Ok(version) => Ok(Some((files, version))),
            Err(_) if change.lost => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn sorting_failed(table: &Table, error: datafusion::error::DataFusionError) -> Error {
    match error.find_root() {
        datafusion::error::DataFusionError::External(inner) => Error::data(format!("{}: {inner}", table.address())),
        other => Error::unavailable(format!("{}: the rows could not be sorted: {other}", table.address()))
            .hint("free some space on the disk, or cluster by fewer columns"),
    }
}

/// The rows of some files.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) table: Table,
    pub(super) schema: SchemaRef,
    pub(super) files: Vec<DataFile>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", counted(self.files.len() as u64, "file"), self.table.address())
    }
}

impl Source {
    /// Gives all rows, in order. Blocking.
    fn rows(&self, runtime: &Handle, mut give: impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        for file in &self.files {
            let load = load_of(&file.path);
            for batch in FileRows::open(&self.table, &StoredFile::from(file), Arc::clone(&self.schema), runtime)? {
                give(with_load(batch?, load)?)?;
            }
        }
        Ok(())
    }

    /// Gives all rows sorted by `columns`; what does not fit in memory goes to disk.
    async fn sorted(self, columns: &[String]) -> Result<SendableRecordBatchStream> {
        let table = self.table.clone();
        let failed = |error| sorting_failed(&table, error);
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(OPTIMIZE_MEMORY_BYTES, 1.0).build_arc();
        let config = SessionConfig::new().with_target_partitions(1);
        let session = SessionContext::new_with_config_rt(config, runtime.map_err(failed)?);
        let by: Vec<_> = columns.iter().map(|name| Expr::Column(name.as_str().into()).sort(true, false)).collect();
        let rows = StreamingTable::try_new(Arc::clone(&self.schema), vec![Arc::new(self)]).map_err(failed)?;
        let rows = session.read_table(Arc::new(rows)).and_then(|rows| rows.sort(by)).map_err(failed)?;
        rows.execute_stream().await.map_err(failed)
    }
}

impl PartitionStream for Source {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let (send, source) = (builder.tx(), self.clone());
        builder.spawn_blocking(move || {
            let give = |batch| {
                // Nobody wants more rows: the query was given up.
                let _ = send.blocking_send(Ok(batch));
                Ok(())
            };
            source
                .rows(&Handle::current(), give)
                .map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))
        });
        builder.build()
    }
}

/// The load of which all rows of a file are, by its path.
fn load_of(path: &str) -> Option<&str> {
    let folder = path.split('/').next()?.strip_prefix(LOAD_FOLDER)?;
    (!is_mixed(path) && folder.len() == 32).then_some(folder)
}

/// A file that was taken over as it is does not say in its rows which load they are of: its place does.
fn with_load(batch: RecordBatch, load: Option<&str>) -> Result<RecordBatch> {
    let Some(load) = load else { return Ok(batch) };
    let Ok(place) = batch.schema().index_of(LOAD_COLUMN) else { return Ok(batch) };
    let Some(known) = batch.column(place).as_string_opt::<i32>().filter(|known| known.null_count() > 0) else {
        return Ok(batch);
    };
    let filled: StringArray = known.iter().map(|known| Some(known.unwrap_or(load))).collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    if let Some(column) = columns.get_mut(place) {
        *column = Arc::new(filled);
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// The commit of one bin.
struct Compaction<'a> {
    removed: &'a [DataFile],
    added: &'a [NewFile],
    now_ms: i64,
    lost: bool,
}

#[async_trait]
impl Change for Compaction<'_> {
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>> {
        let there = current.snapshot.as_ref().map(|snapshot| snapshot.files()).transpose()?.unwrap_or_default();
        let there: HashSet<&str> = there.iter().map(|file| file.path.as_str()).collect();
        if self.removed.iter().any(|file| !there.contains(file.path.as_str())) {
            self.lost = true;
            return Err(Error::conflict("another writer has rewritten these files"));
        }
        let mut actions = Vec::new();
        for file in self.removed {
            let mut action = remove(file, self.now_ms);
            action.data_change = false;
            actions.push(line(action)?);
        }
        for file in self.added {
            let mut action = add(file, self.now_ms);
            action.data_change = false;
            actions.push(line(action)?);
        }
        Ok(actions)
    }
}
