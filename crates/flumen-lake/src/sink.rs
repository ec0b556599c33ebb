//! The lake's [`Sink`]: a load writes Parquet files that nobody sees, then one Delta commit names them all.
//!
//! What always holds:
//!
//! - The commit carries the rows, the ledger's entries and the fencing number together, or none of them.
//! - Each try of the commit checks against the version directly before it that no file of the load was loaded by somebody
//!   else since this load looked, that the load was not done by another attempt, and that its claim is still ours. So a
//!   file is never loaded twice, however many processes try.
//! - The files of a load are in the folder `load-<id>` of the table. Those that an attempt left behind are swept by the
//!   next attempt at the same load: before it writes, where it is certain that the other is dead (nobody else holds a
//!   lock of the load, on a local disk) or cannot commit (it has a newer claim), and after its commit, when the other cannot commit any more.

mod convert;
mod files;
mod lock;
mod output;
mod quarantine;
mod schema;
mod stats;
mod takeover;

use std::collections::{HashMap, HashSet};
use std::path::Path as FsPath;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use deltalake_core::kernel::{Add, Remove, Transaction};
use flumen_core::clock::{Clock, Ids};
use flumen_core::dataset::TableName;
use flumen_core::load::{Committed, Fence, LoadId, LoadRecord, LoadRequest, Mode};
use flumen_core::write::{BatchWriter, LedgerEntry, LoadSession, RefusedRows, Sink, TableState};
use flumen_core::{Error, ErrorKind, Result};
use futures::TryStreamExt;
use object_store::path::Path;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

pub(crate) use convert::Conversion;
pub(crate) use files::load_folder;
pub(crate) use files::{LoadFiles, NewFile};
pub(crate) use lock::LoadLock;
use schema::Evolution;
pub(crate) use schema::{protocol_for, table_metadata};
pub(crate) use stats::delta_stats;

use crate::catalog::{self, Catalog, Copied};
use crate::commit::{Change, Current, Note, commit, line};
use crate::constraints::Constraints;
use crate::lake::{DataFile, Snapshot, Table, delete_files, file_path};
use crate::ledger::{self, Ledger, RECORD_KEY, UNDOES_KEY, claim_key, done_key, file_key};
use crate::ops::merge::Merge;
use crate::ops::replace_where::ReplaceWhere;
use crate::ops::rewrite::{Operation, Rewriting};
use crate::ops::scd2::Scd2;
use crate::ops::take_out::TakeOut;
use crate::ops::undo::{self, Undo};
use crate::types;

/// A lake table as the destination of loads.
pub struct LakeSink {
    /// Where the table is; in a catalog, as it was found when somebody asked last.
    table: Mutex<Located>,
    named: Option<Named>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    /// What [`Sink::known`] answered: a load commits only if that is still so.
    seen: Mutex<HashMap<String, i64>>,
}

/// A place, and the version that is to be read there.
#[derive(Debug, Clone)]
struct Located {
    table: Table,
    version: Option<u64>,
}

/// A table by its name: where it is may change until a load begins, and what is written may need a place of its own.
#[derive(Clone)]
struct Named {
    catalog: Catalog,
    environment: String,
    name: TableName,
    on_copy: Arc<dyn Fn(&Copied) + Send + Sync>,
}

impl LakeSink {
    /// The sink for `table`.
    pub fn new(table: Table, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self { table: Mutex::new(Located { table, version: None }), named: None, clock, ids, seen: Mutex::default() }
    }

    /// The sink for what `name` means in `environment`. Before it writes to a table that is pinned there, the table is
    /// copied, and `on_copy` is told.
    ///
    /// Errors: `Invalid` if `name` is a view or an external table; those of the catalog.
    pub async fn named(
        catalog: Catalog,
        environment: &str,
        name: &TableName,
        on_copy: Arc<dyn Fn(&Copied) + Send + Sync>,
    ) -> Result<Self> {
        let state = catalog.read().await?;
        let located = match catalog.locate(&state, environment, name)? {
            Some(catalog::Located::Table { table, version, .. }) => Located { table, version },
            Some(catalog::Located::View(_)) => return Err(catalog::not_writable(name, "a view")),
            Some(catalog::Located::External(_)) => return Err(catalog::not_writable(name, "an external table")),
            // A folder that nobody has, or will have: there is nothing to be read until a load makes the table.
            None => Located { table: catalog.lake().table_at(&catalog.made_place(name), name)?, version: None },
        };
        let (clock, ids) = (Arc::clone(catalog.clock()), Arc::clone(catalog.ids()));
        let named = Named { catalog, environment: environment.to_owned(), name: name.clone(), on_copy };
        Ok(Self { table: Mutex::new(located), named: Some(named), clock, ids, seen: Mutex::default() })
    }

    /// The table.
    pub fn table(&self) -> Table {
        self.located().table
    }

    fn located(&self) -> Located {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The table, such that it may be written to.
    async fn writable(&self) -> Result<Table> {
        let Some(named) = &self.named else { return Ok(self.table()) };
        let writable = named.catalog.writable(&named.environment, &named.name).await?;
        if let Some(copied) = &writable.copied {
            (named.on_copy)(copied);
        }
        let located = Located { table: writable.table.clone(), version: None };
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = located;
        Ok(writable.table)
    }

    /// Takes a load over from a holder whose lease lapsed: an empty commit with the new holder's number. From then on no
    /// commit of an older holder succeeds. A table that is not there yet needs no claim: the number is checked as far as
    /// there is one.
    ///
    /// Errors: `Conflict` if the load was claimed with a higher number already, or is done.
    pub async fn claim(&self, load: &LoadId, fence: Fence) -> Result<()> {
        let table = self.writable().await?;
        if table.snapshot().await?.is_none() {
            return Ok(());
        }
        let mut change = Claim { table: &table, load, fence };
        let note = self.note("FLUMEN CLAIM", json!({ "load": load }), Map::new());
        commit(&table, &mut change, &note).await.map(|_| ())
    }

    fn note(&self, operation: &'static str, parameters: Value, entries: Map<String, Value>) -> Note {
        Note { operation, parameters, entries, at: self.clock.now(), id: self.ids.next() }
    }

    fn target(&self, table: &Table, load: &LoadId, columns: SchemaRef, partition_by: Vec<String>) -> RewriteTarget {
        RewriteTarget::new(table, load, Arc::clone(&self.ids), columns, partition_by)
    }

    async fn snapshot(&self) -> Result<Option<Snapshot>> {
        let located = self.located();
        located.table.snapshot_at(located.version).await
    }

    async fn ledger(&self) -> Result<Ledger> {
        match self.snapshot().await? {
            Some(snapshot) => Ledger::read(snapshot.table(), snapshot.version()).await,
            None => Ok(Ledger::default()),
        }
    }

    /// What the ledger said when this load looked: at [`Sink::known`], or now.
    fn expectations(&self, request: &LoadRequest, ledger: &Ledger) -> HashMap<String, i64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = request.files.iter().filter_map(|(_, id)| id.as_ref()).map(file_key);
        keys.chain([done_key(&request.load)])
            .map(|key| {
                let version = seen.get(&key).copied().unwrap_or_else(|| ledger.version_of(&key));
                (key, version)
            })
            .collect()
    }
}

struct Claim<'a> {
    table: &'a Table,
    load: &'a LoadId,
    fence: Fence,
}

#[async_trait]
impl Change for Claim<'_> {
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>> {
        if current.ledger.is_done(self.load) {
            return Err(done_already(self.table, self.load));
        }
        if let Some(newer) = current.ledger.claim(self.load).filter(|there| *there > self.fence) {
            return Err(claimed(self.table, self.load, newer));
        }
        Ok(vec![line(Transaction::new(claim_key(self.load), self.fence.0))?])
    }
}

fn done_already(table: &Table, load: &LoadId) -> Error {
    Error::conflict(format!("{}: the load {load} is committed already", table.address()))
        .hint("nothing is to be done; `flumen load show` tells about it")
}

fn claimed(table: &Table, load: &LoadId, by: Fence) -> Error {
    Error::conflict(format!("{}: attempt {} has taken over the load {load}", table.address(), by.0))
        .hint("this attempt was too slow; the other one finishes the load")
}

#[async_trait]
impl Sink for LakeSink {
    fn address(&self) -> String {
        self.table().address()
    }

    async fn state(&self) -> Result<Option<TableState>> {
        let snapshot = self.snapshot().await?;
        Ok(snapshot.map(|snapshot| TableState {
            schema: snapshot.schema(),
            version: Some(snapshot.version()),
            partition_by: snapshot.partition_by(),
        }))
    }

    async fn known(&self, files: &[LoadId]) -> Result<Vec<bool>> {
        let ledger = self.ledger().await?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for file in files {
            let key = file_key(file);
            let version = ledger.version_of(&key);
            seen.insert(key, version);
        }
        Ok(files.iter().map(|file| ledger.has_file(file)).collect())
    }

    async fn loads(&self, limit: usize) -> Result<Vec<LedgerEntry>> {
        let Some(snapshot) = self.snapshot().await? else { return Ok(Vec::new()) };
        let loads = ledger::loads(snapshot.table(), snapshot.version(), limit).await?;
        Ok(loads.into_iter().map(|load| load.entry).collect())
    }

    async fn undo(&self, load: &LoadId, record: &LoadRecord) -> Result<Committed> {
        let table = self.writable().await?;
        let snapshot = table.snapshot().await?;
        let (commit_of_load, _) = undo::find(&table, snapshot.as_ref(), load).await?;
        let mut entries = entries(record, &[])?;
        entries.insert(UNDOES_KEY.to_owned(), json!(commit_of_load.version));
        let note =
            self.note("RESTORE", json!({ "load": load, "version": commit_of_load.version.to_string() }), entries);
        let columns = snapshot.as_ref().map(Snapshot::schema).unwrap_or_else(|| Arc::new(Schema::empty()));
        let partition_by = snapshot.as_ref().map(Snapshot::partition_by).unwrap_or_default();
        let mut change = Undo {
            table: &table,
            load,
            version: commit_of_load.version,
            target: self.target(&table, &record.load, columns, partition_by),
            rewriting: Undo::rewriting(load),
            now_ms: note.at.timestamp_millis(),
        };
        let version = commit(&table, &mut change, &note).await?;
        Ok(Committed { version: Some(version), bytes_written: 0 })
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn LoadSession>> {
        let table = self.writable().await?;
        let current = Current::read(&table).await?;
        let expected = self.expectations(&request, &current.ledger);
        check_fence(&table, &request, &current.ledger)?;
        let rewrites = request.mode != Mode::Append;
        if let Some(snapshot) = &current.snapshot {
            snapshot.check_writable(rewrites)?;
        }
        let evolution = match (&request.mode, request.evolve) {
            (Mode::Replace, _) => Evolution::Anything,
            (_, true) => Evolution::AddColumns,
            (_, false) => Evolution::Frozen,
        };
        let conversion = schema::conversion(&table, current.snapshot.as_ref(), &request.schema, evolution)?;
        let partition_by = match &current.snapshot {
            Some(snapshot) => snapshot.partition_by(),
            None => spelled(&request.partition_by, &conversion.schema),
        };
        let lock = match table.folder() {
            Some(folder) => {
                let folder = folder.join(load_folder(&request.load));
                Some(LoadLock::take(&folder, request.load.as_str(), request.fence, &table.address())?)
            }
            None => None,
        };
        // Another attempt that could still commit would name files that are gone.
        let claimed = request.fence.0 > 0 && current.ledger.claim(&request.load) == Some(request.fence);
        let is_alone = match &lock {
            Some(lock) => lock.is_alone().map_err(|error| Error::io(table.address(), error))?,
            None => false,
        };
        if is_alone || claimed {
            sweep(&table, &request.load, &HashSet::new()).await?;
        }
        let columns = with_validity(&conversion.schema, &request.mode);
        let operation = operation(&table, &request, &columns, current.snapshot.as_ref())?;
        let target = self.target(&table, &request.load, Arc::clone(&columns), partition_by.clone());
        let files = LoadFiles::new(
            table.clone(),
            folder_of(&request),
            self.ids.next(),
            conversion,
            &partition_by,
            Handle::current(),
        )?
        .with_constraints(constraints(current.snapshot.as_ref(), &columns)?);
        let note = self.note("WRITE", Value::Null, Map::new());
        let table_id = self.ids.next();
        Ok(Box::new(LakeSession {
            table,
            named: self.named.clone(),
            clock: Arc::clone(&self.clock),
            request,
            files: Arc::new(files),
            columns,
            target,
            rewriting: operation.map(Rewriting::new),
            expected,
            evolution,
            partition_by,
            note,
            table_id,
            lock,
            settled: false,
        }))
    }

    fn lineage_by_default(&self) -> bool {
        true
    }

    fn stored_type(&self, data_type: &DataType) -> Result<DataType> {
        types::stored_type(data_type)
    }
}

/// `names` as the columns of `schema` are spelled.
fn spelled(names: &[String], schema: &SchemaRef) -> Vec<String> {
    names
        .iter()
        .map(|name| schema::find(schema, name).map_or_else(|| name.clone(), |field| field.name().clone()))
        .collect()
}

/// Whether the attempt still holds the load. An attempt with number 0 competes with nobody.
fn check_fence(table: &Table, request: &LoadRequest, ledger: &Ledger) -> Result<()> {
    if request.fence.0 == 0 {
        return Ok(());
    }
    if ledger.is_done(&request.load) {
        return Err(done_already(table, &request.load));
    }
    match ledger.claim(&request.load) {
        Some(claim) if claim != request.fence => Err(claimed(table, &request.load, claim)),
        _ => Ok(()),
    }
}

/// Removes what dead attempts at `load` left in its folder: whatever the log does not know, and `keep` does not name.
async fn sweep(table: &Table, load: &LoadId, keep: &HashSet<String>) -> Result<()> {
    let folder = Path::from(load_folder(load));
    let listed: Vec<Path> = table
        .store()
        .list(Some(&folder))
        .map_ok(|file| file.location)
        .try_filter(|path| {
            let data = path.as_ref().ends_with(".parquet") && !keep.contains(path.as_ref());
            std::future::ready(data)
        })
        .try_collect()
        .await
        .map_err(|error| table.store_error(error))?;
    if listed.is_empty() {
        return Ok(());
    }
    let known = match table.snapshot().await? {
        Some(snapshot) => known_files(&snapshot).await?,
        None => HashSet::new(),
    };
    delete_files(table, listed.into_iter().filter(|path| !known.contains(path.as_ref())).collect()).await
}

/// The files that the log names: those of the table, and those that were removed and may be wanted by an undo.
async fn known_files(snapshot: &Snapshot) -> Result<HashSet<String>> {
    let table = snapshot.table();
    let mut known: HashSet<String> = snapshot.files()?.into_iter().map(|file| file.path).collect();
    let state = deltalake_core::table::state::DeltaTableState::new(snapshot.state.clone());
    let mut removed = state.all_tombstones(table.log.as_ref());
    while let Some(removed) = removed.try_next().await.map_err(|error| table.error(error))? {
        known.insert(removed.path().into_owned());
    }
    Ok(known)
}

/// One load on its way into a lake table.
struct LakeSession {
    table: Table,
    named: Option<Named>,
    clock: Arc<dyn Clock>,
    request: LoadRequest,
    files: Arc<LoadFiles>,
    /// The columns that the table will have at least.
    columns: SchemaRef,
    target: RewriteTarget,
    /// What a load does to the rows that are there, where it is more than adding to them or removing them all.
    rewriting: Option<Rewriting>,
    expected: HashMap<String, i64>,
    evolution: Evolution,
    partition_by: Vec<String>,
    note: Note,
    table_id: uuid::Uuid,
    lock: Option<LoadLock>,
    /// Whether the files are committed, or removed.
    settled: bool,
}

#[async_trait]
impl LoadSession for LakeSession {
    fn writer(&self) -> Result<Box<dyn BatchWriter>> {
        Ok(Box::new(self.files.writer()))
    }

    fn takes_over(&self, schema: &SchemaRef) -> bool {
        let whole = matches!(self.request.mode, Mode::Append | Mode::Replace | Mode::ReplaceLoad { .. });
        whole
            && !self.files.is_partitioned()
            && !self.files.has_constraints()
            && takeover::fits(schema, self.files.columns())
    }

    fn take_over(&self, path: &FsPath) -> Result<u64> {
        takeover::take_over(&self.files, path)
    }

    async fn quarantine(&self, rows: RefusedRows) -> Result<()> {
        let table = self.table.quarantine()?;
        let note = Note {
            operation: "WRITE",
            parameters: json!({ "mode": "Append", "load": self.request.load }),
            entries: Map::new(),
            at: self.clock.now(),
            id: self.target.ids.next(),
        };
        quarantine::write(&table, &self.request.load, note.id, rows, &note).await
    }

    async fn commit(mut self: Box<Self>, record: &LoadRecord) -> Result<Committed> {
        match self.try_commit(record).await {
            Ok(committed) => Ok(committed),
            Err(error) => {
                if !self.settled {
                    // Why it failed counts; what cannot be removed now, the next attempt at this load sweeps away.
                    let _ = self.remove_files().await;
                }
                Err(error)
            }
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.remove_files().await
    }
}

impl LakeSession {
    async fn try_commit(&mut self, record: &LoadRecord) -> Result<Committed> {
        let written = self.files.finished().await?;
        let bytes_written = written.iter().map(|file| file.size).sum();
        self.note.at = self.clock.now();
        self.note.parameters = parameters(&self.request, &self.partition_by);
        self.note.entries = entries(record, &written)?;
        let mut change = LoadChange {
            table: &self.table,
            request: &self.request,
            columns: &self.columns,
            partition_by: &self.partition_by,
            target: &self.target,
            rewriting: self.rewriting.as_mut(),
            expected: &self.expected,
            evolution: self.evolution,
            files: &written,
            table_id: self.table_id,
            now_ms: self.note.at.timestamp_millis(),
        };
        if let Some(named) = &self.named {
            named.catalog.check_live(&self.table).await?;
        }
        let committed = commit(&self.table, &mut change, &self.note).await;
        let is_open = |error: &Error| error.kind() == ErrorKind::Unavailable && self.table.folder().is_none();
        // A store that stopped answering may have taken the commit, or may take it yet: then the files are the table's. If
        // it does not, nobody sees them, and the next attempt at this load sweeps them away.
        self.settled = committed.as_ref().err().is_none_or(is_open);
        let version = committed?;
        let superseded: HashSet<Path> =
            self.rewriting.take().map(|of| of.superseded.into_iter().collect()).unwrap_or_default();
        let ours = written.into_iter().filter(|file| !superseded.contains(&file_path(&file.path)));
        let ours = ours.map(|file| file.path).collect();
        // The rows are committed: what a dead attempt left is not worth an error now.
        let _ = sweep(&self.table, &self.request.load, &ours).await;
        self.lock.take();
        Ok(Committed { version: Some(version), bytes_written })
    }

    async fn remove_files(&mut self) -> Result<()> {
        self.settled = true;
        let paths = self.files.discard();
        let rewritten = self.rewriting.take().map(Rewriting::discard).unwrap_or_default();
        let removed = delete_files(&self.table, paths.into_iter().chain(rewritten).collect()).await;
        self.lock.take();
        remove_empty_folders(&self.table);
        removed
    }
}

impl Drop for LakeSession {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let paths = self.files.discard();
        if self.table.folder().is_some() {
            for file in paths.iter().filter_map(|path| output::local_path(&self.table, path)) {
                let _ = std::fs::remove_file(file);
            }
            self.lock.take();
            remove_empty_folders(&self.table);
        } else if let Ok(runtime) = Handle::try_current() {
            let table = self.table.clone();
            runtime.spawn(async move { delete_files(&table, paths).await });
        }
    }
}

/// The folders of a table that never came to be.
fn remove_empty_folders(table: &Table) {
    let Some(folder) = table.folder() else { return };
    let _ = std::fs::remove_dir(folder);
    if let Some(namespace) = folder.parent() {
        let _ = std::fs::remove_dir(namespace);
    }
}

/// Delta's `operationParameters`: all values are text.
fn parameters(request: &LoadRequest, partition_by: &[String]) -> Value {
    let mode = match request.mode {
        Mode::Append => "Append",
        _ => "Overwrite",
    };
    json!({ "mode": mode, "partitionBy": json!(partition_by).to_string(), "load": request.load })
}

fn entries(record: &LoadRecord, files: &[NewFile]) -> Result<Map<String, Value>> {
    let blind = record.mode == Mode::Append && record.undoes.is_none();
    let record = serde_json::to_value(record)
        .map_err(|error| Error::internal(format!("the record of a load cannot be written: {error}")))?;
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    let metrics = json!({
        "numFiles": files.len().to_string(),
        "numOutputRows": rows.to_string(),
        "numOutputBytes": bytes.to_string(),
    });
    let mut entries = Map::from_iter([(RECORD_KEY.to_owned(), record), ("operationMetrics".to_owned(), metrics)]);
    if !blind {
        // A merge may find nothing to remove, but it has looked.
        entries.insert("isBlindAppend".to_owned(), json!(false));
    }
    Ok(entries)
}

/// The commit of a load.
struct LoadChange<'a> {
    table: &'a Table,
    request: &'a LoadRequest,
    columns: &'a SchemaRef,
    partition_by: &'a [String],
    target: &'a RewriteTarget,
    rewriting: Option<&'a mut Rewriting>,
    expected: &'a HashMap<String, i64>,
    evolution: Evolution,
    files: &'a [NewFile],
    table_id: uuid::Uuid,
    now_ms: i64,
}

#[async_trait]
impl Change for LoadChange<'_> {
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>> {
        check_fence(self.table, self.request, &current.ledger)?;
        self.check_expectations(&current.ledger)?;
        let snapshot = current.snapshot.as_ref();
        if let Some(snapshot) = snapshot {
            snapshot.check_writable(self.request.mode != Mode::Append)?;
            if snapshot.partition_by() != self.partition_by {
                return Err(Error::conflict(format!(
                    "{}: another load has made the table meanwhile, with other partitions",
                    self.table.address()
                ))
                .hint("run the same command again"));
            }
        }
        let mut actions = schema::schema_actions(
            self.table,
            snapshot,
            self.columns,
            self.partition_by,
            self.evolution,
            self.table_id,
            self.now_ms,
        )?;
        let (removed, added) = self.outcome(snapshot).await?;
        for file in &removed {
            actions.push(line(remove(file, self.now_ms))?);
        }
        for file in &added {
            actions.push(line(add(file, self.now_ms))?);
        }
        actions.extend(self.transactions(&current.ledger)?);
        Ok(actions)
    }
}

impl LoadChange<'_> {
    /// The files that go and those that come.
    async fn outcome(&mut self, snapshot: Option<&Snapshot>) -> Result<(Vec<DataFile>, Vec<NewFile>)> {
        let mut there = snapshot.map(Snapshot::files).transpose()?.unwrap_or_default();
        let mut added = self.files.to_vec();
        match &self.request.mode {
            Mode::Append => there.clear(),
            Mode::Replace => {}
            Mode::ReplaceLoad { slot } => {
                let mut removed: Vec<DataFile> = Vec::new();
                let folder = format!("/{}/", slot_folder(slot));
                if there.iter().any(|file| is_mixed(&file.path)) {
                    let snapshot_version = snapshot.map_or(0, Snapshot::version);
                    let before = loads_of_slot(self.table, snapshot_version, slot).await?;
                    let mut rewriting = Rewriting::new(Box::new(TakeOut::new(before)));
                    let outcome = rewriting.outcome(snapshot, self.table, self.target, &[]).await?;
                    removed.extend(there.iter().filter(|file| outcome.removed.contains(&file.path)).cloned());
                    added.extend(outcome.added);
                }
                removed.extend(there.into_iter().filter(|file| file.path.contains(&folder) && !is_mixed(&file.path)));
                there = removed;
            }
            Mode::Merge { .. } | Mode::Scd2 { .. } | Mode::ReplaceWhere { .. } => {
                let Some(rewriting) = self.rewriting.as_mut() else {
                    return Err(Error::internal("a mode that rewrites rows has no operation"));
                };
                let outcome = rewriting.outcome(snapshot, self.table, self.target, self.files).await?;
                there.retain(|file| outcome.removed.contains(&file.path));
                added = outcome.added;
            }
        }
        Ok((there, added))
    }

    /// That nobody has loaded the same since this load looked.
    fn check_expectations(&self, ledger: &Ledger) -> Result<()> {
        if ledger.version_of(&done_key(&self.request.load)) != self.expected_of(&done_key(&self.request.load)) {
            return Err(done_already(self.table, &self.request.load));
        }
        for (file, id) in &self.request.files {
            let Some(key) = id.as_ref().map(file_key) else { continue };
            if ledger.version_of(&key) != self.expected_of(&key) {
                return Err(Error::conflict(format!(
                    "{}: another load has loaded {} meanwhile",
                    self.table.address(),
                    file.address
                ))
                .hint("run the same command again: it loads what is missing"));
            }
        }
        Ok(())
    }

    fn expected_of(&self, key: &str) -> i64 {
        self.expected.get(key).copied().unwrap_or(0)
    }

    /// The ledger's entries: every file and the load are done, under our number.
    fn transactions(&self, ledger: &Ledger) -> Result<Vec<Value>> {
        let files = self.request.files.iter().filter_map(|(_, id)| id.as_ref()).map(file_key);
        let mut lines = Vec::new();
        let mut written = HashSet::new();
        for key in files.chain([done_key(&self.request.load)]) {
            if written.insert(key.clone()) {
                let version = ledger.version_of(&key);
                // The next odd number.
                lines.push(self.transaction(key, version + 1 + version % 2)?);
            }
        }
        lines.push(self.transaction(claim_key(&self.request.load), self.request.fence.0)?);
        Ok(lines)
    }

    fn transaction(&self, key: String, version: i64) -> Result<Value> {
        line(Transaction::new_with_last_update(key, version, Some(self.now_ms)))
    }
}

/// The action that makes `file` visible.
pub(crate) fn add(file: &NewFile, now_ms: i64) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: file.partition.iter().cloned().collect(),
        size: file.size.try_into().unwrap_or(i64::MAX),
        modification_time: now_ms,
        data_change: true,
        stats: Some(file.stats.clone()),
        ..Default::default()
    }
}

/// The action that makes `file` go.
pub(crate) fn remove(file: &DataFile, now_ms: i64) -> Remove {
    Remove {
        path: file.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(file.partition.clone().into_iter().collect()),
        size: i64::try_from(file.size).ok(),
        deletion_vector: file.deletion_vector.clone(),
        ..Default::default()
    }
}

/// The names of files that hold rows of several loads begin so.
pub(crate) const MIXED: &str = "mixed";

/// Whether the file at `path` may hold rows of several loads.
pub(crate) fn is_mixed(path: &str) -> bool {
    path.split('/').any(|part| part == MIXED)
}

/// The folder of the files that a SQL statement writes; `mixed` if they may hold rows of several loads.
pub(crate) fn statement_folder(id: &LoadId, mixed: bool) -> String {
    if mixed { format!("{}/{MIXED}", load_folder(id)) } else { load_folder(id) }
}

/// The folder, within that of its load, of files that a later load with the same slot replaces.
fn slot_folder(slot: &str) -> String {
    format!("slot-{}", LoadId::derive(["slot", slot]))
}

/// The folder of the files that `request` writes.
fn folder_of(request: &LoadRequest) -> String {
    let folder = load_folder(&request.load);
    match &request.mode {
        Mode::ReplaceLoad { slot } => format!("{folder}/{}", slot_folder(slot)),
        _ => folder,
    }
}

/// The loads that were written under `slot`.
async fn loads_of_slot(table: &Table, version: u64, slot: &str) -> Result<Vec<LoadId>> {
    let loads = ledger::loads(table, version, usize::MAX).await?;
    let same = loads.into_iter().map(|load| load.entry.record);
    let same = same.filter(|record| matches!(&record.mode, Mode::ReplaceLoad { slot: of } if of == slot));
    Ok(same.map(|record| record.load).collect())
}

/// The columns of a load, and those that its mode adds.
fn with_validity(columns: &SchemaRef, mode: &Mode) -> SchemaRef {
    let Mode::Scd2 { valid_from, valid_to, .. } = mode else { return Arc::clone(columns) };
    let mut fields: Vec<Arc<Field>> = columns.fields().iter().cloned().collect();
    for name in [valid_from, valid_to] {
        if schema::find(columns, name).is_none() {
            fields.push(Arc::new(Field::new(name, types::utc_timestamp(), true)));
        }
    }
    Arc::new(Schema::new(fields))
}

/// What `request` does to the rows that are there, if that is more than adding to them or removing them all.
fn operation(
    table: &Table,
    request: &LoadRequest,
    columns: &SchemaRef,
    current: Option<&Snapshot>,
) -> Result<Option<Box<dyn Operation>>> {
    let all = all_columns(columns, current);
    let spell = |name: &String| -> Result<String> {
        match schema::find(&all, name) {
            Some(field) => Ok(field.name().clone()),
            None => Err(Error::invalid(format!("{}: the load has no column '{name}'", table.address()))
                .did_you_mean(name, columns.fields().iter().map(|field| field.name().as_str()))),
        }
    };
    let keys = |keys: &[String]| -> Result<Vec<String>> {
        if keys.is_empty() {
            return Err(Error::invalid(format!("{}: the mode {} needs keys", table.address(), request.mode.name()))
                .hint("name the columns that identify a row with --key"));
        }
        keys.iter().map(spell).collect()
    };
    Ok(match &request.mode {
        Mode::Append | Mode::Replace | Mode::ReplaceLoad { .. } => None,
        Mode::Merge { keys: by, delete_flag } => {
            Some(Box::new(Merge::new(keys(by)?, delete_flag.as_ref().map(spell).transpose()?)))
        }
        Mode::Scd2 { keys: by, valid_from, valid_to } => Some(Box::new(Scd2::new(
            keys(by)?,
            columns,
            spell(valid_from)?,
            spell(valid_to)?,
            request.started.timestamp_micros(),
        ))),
        Mode::ReplaceWhere { predicate } => {
            let made = ReplaceWhere::new(predicate, &all).map_err(|error| error.within(table.address()))?;
            Some(Box::new(made))
        }
    })
}

/// What the rows of a load with `columns` must meet.
fn constraints(current: Option<&Snapshot>, columns: &SchemaRef) -> Result<Option<Arc<Constraints>>> {
    let Some(current) = current else { return Ok(None) };
    let made = Constraints::of(&current.properties(), &all_columns(columns, Some(current)));
    made.map_err(|error| error.within(current.table().address()))
}

/// The columns of the table after a load with `columns`.
fn all_columns(columns: &SchemaRef, current: Option<&Snapshot>) -> SchemaRef {
    let Some(current) = current else { return Arc::clone(columns) };
    let there = current.schema();
    let new = columns.fields().iter().filter(|field| schema::find(&there, field.name()).is_none());
    Arc::new(Schema::new(there.fields().iter().chain(new).cloned().collect::<Vec<_>>()))
}

/// Where rewritten rows of a table go.
pub(crate) struct RewriteTarget {
    table: Table,
    load: LoadId,
    ids: Arc<dyn Ids>,
    columns: SchemaRef,
    partition_by: Vec<String>,
    runtime: Handle,
}

impl RewriteTarget {
    /// For rows of `table` that `load` rewrites. Must be called within the runtime.
    pub(crate) fn new(
        table: &Table,
        load: &LoadId,
        ids: Arc<dyn Ids>,
        columns: SchemaRef,
        partition_by: Vec<String>,
    ) -> Self {
        Self { table: table.clone(), load: load.clone(), ids, columns, partition_by, runtime: Handle::current() }
    }

    /// The columns of rewritten rows: all that the table has, then.
    pub(crate) fn schema(&self, snapshot: Option<&Snapshot>) -> SchemaRef {
        all_columns(&self.columns, snapshot)
    }

    /// Files for rewritten rows.
    pub(crate) fn files(&self, snapshot: Option<&Snapshot>) -> Result<Arc<LoadFiles>> {
        let schema = self.schema(snapshot);
        let conversion = Conversion { from: (0..schema.fields().len()).collect(), schema };
        let folder = format!("{}/{MIXED}", load_folder(&self.load));
        let runtime = self.runtime.clone();
        let files =
            LoadFiles::new(self.table.clone(), folder, self.ids.next(), conversion, &self.partition_by, runtime)?;
        Ok(Arc::new(files.with_constraints(constraints(snapshot, &self.schema(snapshot))?)))
    }
}
