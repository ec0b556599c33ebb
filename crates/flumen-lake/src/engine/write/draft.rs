//! What statements make of one table before it is committed: columns and properties, files that go, files that come.
//!
//! A draft begins with a version of its table, or with nothing. What is in it can be read (as [`Contents`]) and added to by
//! the next statement, which is how a block between BEGIN and COMMIT sees its own writes. Nothing of it is visible to
//! others before [`Draft::commit`]; dropped without, its files are removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use deltalake_core::kernel::Action;
use flumen_core::load::LoadId;
use flumen_core::{Error, ErrorKind, Result};
use object_store::path::Path;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::super::lake_table::Contents;
use super::super::write::Writers;
use crate::commit::{Change, Current, Note, commit, line};
use crate::constraints::Constraints;
use crate::lake::{DataFile, FileStats, Snapshot, Table, delete_files, file_path};
use crate::ledger::read_commit;
use crate::sink::{NewFile, add, protocol_for, remove, table_metadata};

/// The property that switches the change feed on.
pub(super) const CHANGE_FEED: &str = "delta.enableChangeDataFeed";
/// The folder of change feeds, as the Delta protocol has it.
pub(super) const CHANGES_FOLDER: &str = "_change_data";

/// What is to become of one table.
pub(in crate::engine) struct Draft {
    table: Table,
    base: Option<Snapshot>,
    schema: SchemaRef,
    partition_by: Vec<String>,
    properties: BTreeMap<String, String>,
    /// Whether columns, partitions or properties are not those of the base.
    redefined: bool,
    removed: BTreeMap<String, DataFile>,
    added: Vec<NewFile>,
    changes: Vec<NewFile>,
    /// Whether the rows that were there were looked at: others must not have added any meanwhile.
    looked: bool,
    operation: &'static str,
    id: LoadId,
    settled: bool,
}

/// A draft as it was at one moment.
#[derive(Clone)]
pub(in crate::engine) struct Mark {
    schema: SchemaRef,
    partition_by: Vec<String>,
    properties: BTreeMap<String, String>,
    redefined: bool,
    removed: BTreeMap<String, DataFile>,
    added: Vec<NewFile>,
    changes: Vec<NewFile>,
    operation: &'static str,
}

/// Why a draft was not committed.
pub(in crate::engine) enum Refusal {
    /// The table has changed since the draft began: what was decided must be decided anew.
    Stale,
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Failed(error)
    }
}

impl Draft {
    /// A draft that begins with `snapshot` of `table`, or with a table that is not there.
    ///
    /// Errors: `Invalid` if the table cannot be written to.
    pub fn new(table: Table, snapshot: Option<Snapshot>, id: LoadId) -> Result<Self> {
        let (schema, partition_by, properties) = match &snapshot {
            Some(snapshot) => {
                snapshot.check_writable(false)?;
                (snapshot.schema(), snapshot.partition_by(), snapshot.properties())
            }
            None => (SchemaRef::new(arrow::datatypes::Schema::empty()), Vec::new(), BTreeMap::new()),
        };
        Ok(Self {
            table,
            base: snapshot,
            schema,
            partition_by,
            properties,
            redefined: false,
            removed: BTreeMap::new(),
            added: Vec::new(),
            changes: Vec::new(),
            looked: false,
            operation: "WRITE",
            id,
            settled: false,
        })
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Whether the table would be there.
    pub fn exists(&self) -> bool {
        self.base.is_some() || self.redefined
    }

    /// Whether there was no table when the draft began.
    pub fn is_new(&self) -> bool {
        self.base.is_none()
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns by which it is partitioned.
    pub fn partition_by(&self) -> &[String] {
        &self.partition_by
    }

    /// The table's properties.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// Whether the table records a change feed.
    pub fn has_change_feed(&self) -> bool {
        self.base.is_some() && self.properties.get(CHANGE_FEED).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// What is in it, to be read.
    ///
    /// Errors: `Data` for a log that makes no sense.
    pub fn contents(&self) -> Result<Contents> {
        Ok(Contents {
            table: self.table.clone(),
            version: self.base.as_ref().map(Snapshot::version),
            schema: Arc::clone(&self.schema),
            partition_by: self.partition_by.clone(),
            properties: self.properties.clone(),
            files: self.files()?,
        })
    }

    /// The files with its rows.
    pub fn files(&self) -> Result<Vec<DataFile>> {
        let base = self.base.as_ref().map(Snapshot::files).transpose()?.unwrap_or_default();
        let mut files: Vec<DataFile> = base.into_iter().filter(|file| !self.removed.contains_key(&file.path)).collect();
        for file in &self.added {
            files.push(data_file(file)?);
        }
        Ok(files)
    }

    /// Says what is done to the table, in Delta's words; the last word counts.
    pub fn describe(&mut self, operation: &'static str) {
        self.operation = operation;
    }

    /// Gives the table other columns, partitions or properties.
    pub fn define(&mut self, schema: SchemaRef, partition_by: Vec<String>, properties: BTreeMap<String, String>) {
        (self.schema, self.partition_by, self.properties) = (schema, partition_by, properties);
        self.redefined = true;
    }

    /// Notes that the decision rests on the rows that are there.
    pub fn look(&mut self) {
        self.looked = true;
    }

    /// Takes the files at `paths` out.
    ///
    /// Errors: `Invalid` if the table is append-only.
    pub fn remove(&mut self, files: impl IntoIterator<Item = DataFile>) -> Result<()> {
        let mut files = files.into_iter().peekable();
        if files.peek().is_some()
            && let Some(base) = &self.base
        {
            base.check_rewritable()?;
        }
        for file in files {
            match self.added.iter().position(|added| added.path == file.path) {
                // Nobody has seen it; it goes when the draft is settled.
                Some(place) => drop(self.added.remove(place)),
                None => drop(self.removed.insert(file.path.clone(), file)),
            }
        }
        Ok(())
    }

    /// Adds files with rows.
    pub fn add(&mut self, files: Vec<NewFile>) {
        self.added.extend(files);
    }

    /// Adds files of the change feed.
    pub fn add_changes(&mut self, files: Vec<NewFile>) {
        self.changes.extend(files);
    }

    /// How it is now.
    pub fn mark(&self) -> Mark {
        Mark {
            schema: Arc::clone(&self.schema),
            partition_by: self.partition_by.clone(),
            properties: self.properties.clone(),
            redefined: self.redefined,
            removed: self.removed.clone(),
            added: self.added.clone(),
            changes: self.changes.clone(),
            operation: self.operation,
        }
    }

    /// Makes it again what it was at `mark`, and removes the files that were written since. What was looked at since then
    /// was looked at all the same.
    pub async fn return_to(&mut self, mark: Mark) -> Result<()> {
        let kept: Vec<&str> = mark.added.iter().chain(&mark.changes).map(|file| file.path.as_str()).collect();
        let gone: Vec<Path> = self.written().into_iter().filter(|path| !kept.contains(&path.as_ref())).collect();
        let Mark { schema, partition_by, properties, redefined, removed, added, changes, operation } = mark;
        (self.schema, self.partition_by, self.properties) = (schema, partition_by, properties);
        (self.redefined, self.removed, self.operation) = (redefined, removed, operation);
        (self.added, self.changes) = (added, changes);
        delete_files(&self.table, gone).await
    }

    /// The constraints that rows must meet.
    ///
    /// Errors: `Invalid` if one cannot be understood.
    pub fn constraints(&self) -> Result<Option<Arc<Constraints>>> {
        Constraints::of(&self.properties, &self.schema).map_err(|error| error.within(self.table.address()))
    }

    /// The folder within the table for files that this draft writes; `mixed` if they may hold rows of several loads.
    pub fn folder(&self, mixed: bool) -> String {
        crate::sink::statement_folder(&self.id, mixed)
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        !self.redefined && self.removed.is_empty() && self.added.is_empty()
    }

    /// Commits it; gives the version, or none if there was nothing to commit. `writers` says when and under which id.
    pub async fn commit(&mut self, writers: &Writers) -> Result<Option<u64>, Refusal> {
        if self.is_empty() {
            self.settled = true;
            return Ok(self.base.as_ref().map(Snapshot::version));
        }
        let rows: u64 = self.added.iter().map(|file| file.rows).sum();
        let bytes: u64 = self.added.iter().map(|file| file.size).sum();
        let metrics = json!({
            "numFiles": self.added.len().to_string(),
            "numRemovedFiles": self.removed.len().to_string(),
            "numOutputRows": rows.to_string(),
            "numOutputBytes": bytes.to_string(),
        });
        let mut entries = Map::from_iter([("operationMetrics".to_owned(), metrics)]);
        if self.looked {
            entries.insert("isBlindAppend".to_owned(), json!(false));
        }
        let mode = if self.removed.is_empty() { "Append" } else { "Overwrite" };
        let parameters = json!({ "mode": mode, "partitionBy": json!(self.partition_by).to_string() });
        let note =
            Note { operation: self.operation, parameters, entries, at: writers.clock.now(), id: writers.ids.next() };
        let mut stale = false;
        let mut change = DraftChange {
            draft: self,
            now_ms: note.at.timestamp_millis(),
            new_id: writers.ids.next(),
            stale: &mut stale,
        };
        let table = change.draft.table.clone();
        match commit(&table, &mut change, &note).await {
            Ok(version) => {
                self.settled = true;
                Ok(Some(version))
            }
            Err(_) if stale => Err(Refusal::Stale),
            Err(error) => {
                // A store that stopped answering may have taken the commit: then the files are the table's.
                self.settled = error.kind() == ErrorKind::Unavailable && table.folder().is_none();
                Err(Refusal::Failed(error))
            }
        }
    }

    /// Removes what was written, unless it may have been committed.
    pub async fn discard(mut self) -> Result<()> {
        if std::mem::replace(&mut self.settled, true) {
            return Ok(());
        }
        delete_files(&self.table, self.written()).await
    }

    fn written(&self) -> Vec<Path> {
        self.added.iter().chain(&self.changes).map(|file| file_path(&file.path)).collect()
    }

    fn actions(&self, current: &Current, now_ms: i64, new_id: uuid::Uuid) -> Result<Vec<Value>> {
        let mut actions = Vec::new();
        if self.redefined {
            let base = current.snapshot.as_ref();
            actions.extend(
                protocol_for(base, &self.schema, &self.properties)?.map(|protocol| json!({ "protocol": protocol })),
            );
            let metadata = table_metadata(base, &self.schema, &self.partition_by, &self.properties, new_id, now_ms)?;
            actions.push(json!({ "metaData": metadata }));
        }
        for file in self.removed.values() {
            actions.push(line(remove(file, now_ms))?);
        }
        for file in &self.added {
            actions.push(line(add(file, now_ms))?);
        }
        for file in &self.changes {
            let partition: Map<String, Value> =
                file.partition.iter().map(|(column, value)| (column.clone(), json!(value))).collect();
            actions.push(json!({ "cdc": {
                "path": file.path, "partitionValues": partition, "size": file.size, "dataChange": false,
            }}));
        }
        Ok(actions)
    }

    /// Whether what was decided upon `base` still holds upon the latest version.
    async fn still_holds(&self, current: &Current) -> Result<bool> {
        let (base, now) = match (&self.base, &current.snapshot) {
            (None, None) => return Ok(true),
            (Some(base), Some(now)) if base.version() == now.version() => return Ok(true),
            (Some(base), Some(now)) => (base, now),
            _ => return Ok(false),
        };
        if self.redefined || self.looked {
            return Ok(false);
        }
        // Others have added rows, and nothing else: as if they had come after us.
        for version in base.version() + 1..=now.version() {
            let Some(actions) = read_commit(&self.table, version).await? else { return Ok(false) };
            let harmless = |action: &Action| match action {
                Action::Add(add) => add.data_change,
                Action::Txn(_) | Action::CommitInfo(_) => true,
                _ => false,
            };
            if !actions.iter().all(harmless) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let paths = self.written();
        if self.settled || paths.is_empty() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let table = self.table.clone();
            runtime.spawn(async move { delete_files(&table, paths).await });
        }
    }
}

struct DraftChange<'a> {
    draft: &'a Draft,
    now_ms: i64,
    new_id: uuid::Uuid,
    stale: &'a mut bool,
}

#[async_trait]
impl Change for DraftChange<'_> {
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>> {
        if !self.draft.still_holds(current).await? {
            *self.stale = true;
            let table = self.draft.table.address();
            return Err(Error::conflict(format!("{table}: the table has changed meanwhile")).hint("run it again"));
        }
        self.draft.actions(current, self.now_ms, self.new_id)
    }
}

fn data_file(file: &NewFile) -> Result<DataFile> {
    let stats: FileStats = serde_json::from_str(&file.stats)
        .map_err(|error| Error::internal(format!("the statistics of a new file cannot be read: {error}")))?;
    Ok(DataFile {
        path: file.path.clone(),
        size: file.size,
        modified_ms: 0,
        partition: file.partition.iter().cloned().collect(),
        deletion_vector: None,
        stats: Some(stats),
    })
}
