//! The ledger: which loads and which files a table has had. It lives in the table's own log, nowhere else.
//!
//! Each commit of a load carries, beside its rows, `txn` actions (application transactions of the Delta protocol), which
//! survive checkpoints and the clean-up of the log:
//!
//! | application id | version |
//! | --- | --- |
//! | `flumen-file-<ledger id>` | odd: the file is loaded; even: it was taken back. One more with each change. |
//! | `flumen-done-<load id>` | odd: the load is committed; even: it was undone. One more with each change. |
//! | `flumen-load-<load id>` | the fencing number of whoever claimed the load last |
//!
//! The whole [`LoadRecord`] stands in the commit's `commitInfo`, under `flumen.load`: for people, for undo and for replay.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deltalake_core::kernel::{Action, Add, Remove, Transaction};
use deltalake_core::logstore::get_actions;
use flumen_core::load::{Fence, LoadId, LoadRecord};
use flumen_core::write::LedgerEntry;
use flumen_core::{Error, Result};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::lake::Table;

/// Commits of the log that are read at once.
const COMMITS_AT_ONCE: usize = 8;
/// Where a commit's `commitInfo` has the record of its load.
pub(crate) const RECORD_KEY: &str = "flumen.load";
/// Where the `commitInfo` of an undo has the version that it takes back.
pub(crate) const UNDOES_KEY: &str = "flumen.undoes_version";

/// Where the `commitInfo` of a restore has the version that the table is as from then on.
pub(crate) const RESTORES_KEY: &str = "flumen.restores_version";

/// The application id under which a file is known.
pub(crate) fn file_key(file: &LoadId) -> String {
    format!("flumen-file-{file}")
}

/// The application id that says whether a load is done.
pub(crate) fn done_key(load: &LoadId) -> String {
    format!("flumen-done-{load}")
}

/// The application id that holds a load's fencing number.
pub(crate) fn claim_key(load: &LoadId) -> String {
    format!("flumen-load-{load}")
}

/// The application transactions of a table at one version.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    versions: HashMap<String, i64>,
}

impl Ledger {
    /// Reads the transactions of `table` as of `version`.
    ///
    /// Errors: `Data` if the log cannot be understood.
    pub async fn read(table: &Table, version: u64) -> Result<Self> {
        let mut ledger = Self::default();
        let checkpoint = Checkpoint::latest(table, version).await?;
        if let Some(checkpoint) = &checkpoint {
            for file in &checkpoint.files {
                ledger.read_checkpoint(table, file).await?;
            }
        }
        let first = checkpoint.map_or(0, |checkpoint| checkpoint.version + 1);
        let commits: Vec<Vec<Action>> = futures::stream::iter(first..=version)
            .map(|version| async move { Ok::<_, Error>(read_commit(table, version).await?.unwrap_or_default()) })
            .buffered(COMMITS_AT_ONCE)
            .try_collect()
            .await?;
        for action in commits.into_iter().flatten() {
            if let Action::Txn(Transaction { app_id, version, .. }) = action {
                ledger.versions.insert(app_id, version);
            }
        }
        Ok(ledger)
    }

    async fn read_checkpoint(&mut self, table: &Table, file: &Path) -> Result<()> {
        let bytes = table.store().get(file).await.map_err(|error| table.store_error(error))?;
        let bytes = bytes.bytes().await.map_err(|error| table.store_error(error))?;
        let broken = |error: &dyn std::fmt::Display| {
            Error::data(format!("{}: the checkpoint {file} cannot be read: {error}", table.address()))
        };
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| broken(&error))?;
        let Some(column) = reader.schema().index_of("txn").ok() else { return Ok(()) };
        let mask = ProjectionMask::roots(reader.parquet_schema(), [column]);
        for batch in reader.with_projection(mask).build().map_err(|error| broken(&error))? {
            let batch = batch.map_err(|error| broken(&error))?;
            self.read_transactions(&batch).ok_or_else(|| broken(&"its column txn has another shape"))?;
        }
        Ok(())
    }

    fn read_transactions(&mut self, batch: &arrow::array::RecordBatch) -> Option<()> {
        use arrow::array::{Array, AsArray};
        let txn = batch.column(0).as_struct_opt()?;
        let ids = arrow::compute::cast(txn.column_by_name("appId")?, &arrow::datatypes::DataType::Utf8).ok()?;
        let ids = ids.as_string_opt::<i32>()?;
        let versions = txn.column_by_name("version")?.as_primitive_opt::<arrow::datatypes::Int64Type>()?;
        for row in (0..txn.len()).filter(|row| txn.is_valid(*row) && ids.is_valid(*row)) {
            self.versions.insert(ids.value(row).to_owned(), versions.value(row));
        }
        Some(())
    }

    /// The version of an application id; 0 if it was never used.
    pub(crate) fn version_of(&self, key: &str) -> i64 {
        self.versions.get(key).copied().unwrap_or(0)
    }

    /// The application ids whose parity tells whether something is loaded, with their versions.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (&str, i64)> {
        let marks =
            self.versions.iter().filter(|(key, _)| key.starts_with("flumen-file-") || key.starts_with("flumen-done-"));
        marks.map(|(key, version)| (key.as_str(), *version))
    }

    /// Whether a file is loaded (and was not taken back).
    pub fn has_file(&self, file: &LoadId) -> bool {
        self.version_of(&file_key(file)) % 2 == 1
    }

    /// Whether a load is committed (and was not undone).
    pub fn is_done(&self, load: &LoadId) -> bool {
        self.version_of(&done_key(load)) % 2 == 1
    }

    /// The number of whoever claimed the load last.
    pub fn claim(&self, load: &LoadId) -> Option<Fence> {
        self.versions.get(&claim_key(load)).copied().map(Fence)
    }
}

/// The files of a checkpoint.
struct Checkpoint {
    version: u64,
    files: Vec<Path>,
}

impl Checkpoint {
    /// The latest checkpoint of `table` that is not newer than `version`.
    async fn latest(table: &Table, version: u64) -> Result<Option<Self>> {
        let log = Path::from("_delta_log");
        let hint =
            match table.store().get(&log.clone().join("_last_checkpoint")).await {
                Ok(found) => found.bytes().await.ok().and_then(|bytes| {
                    serde_json::from_slice::<serde_json::Value>(&bytes).ok()?.get("version")?.as_u64()
                }),
                Err(_) => None,
            };
        let hint = hint.filter(|hint| *hint <= version).unwrap_or(0);
        let from = log.clone().join(format!("{hint:020}"));
        let listed: Vec<_> = table
            .store()
            .list_with_offset(Some(&log), &from)
            .try_collect()
            .await
            .map_err(|error| table.store_error(error))?;
        let mut found: HashMap<u64, Vec<(Path, usize)>> = HashMap::new();
        for file in listed {
            if let Some((of, parts)) = file.location.filename().and_then(checkpoint_name)
                && of <= version
            {
                found.entry(of).or_default().push((file.location, parts));
            }
        }
        let complete = found.into_iter().filter(|(_, files)| files.iter().any(|(_, parts)| files.len() >= *parts));
        Ok(complete
            .max_by_key(|(version, _)| *version)
            .map(|(version, files)| Self { version, files: files.into_iter().map(|(path, _)| path).collect() }))
    }
}

/// The version that a file of a log is of, by its name.
pub(crate) fn version_in(name: &str) -> Option<u64> {
    name.split('.').next().filter(|digits| digits.len() == 20)?.parse().ok()
}

/// The version of a checkpoint file, and of how many files the checkpoint consists.
fn checkpoint_name(name: &str) -> Option<(u64, usize)> {
    let parts: Vec<&str> = name.split('.').collect();
    let version = parts.first().filter(|digits| digits.len() == 20)?.parse().ok()?;
    match parts.as_slice() {
        [_, "checkpoint", "parquet"] => Some((version, 1)),
        [_, "checkpoint", _, total, "parquet"] => Some((version, total.parse().ok()?)),
        [_, "checkpoint", id, "parquet"] if id.len() == 36 => Some((version, 1)),
        _ => None,
    }
}

/// The actions of one version, or `None` if the log no longer has it.
pub(crate) async fn read_commit(table: &Table, version: u64) -> Result<Option<Vec<Action>>> {
    let bytes = table.log.read_commit_entry(version).await.map_err(|error| table.error(error))?;
    bytes.map(|bytes| get_actions(version, &bytes).map_err(|error| table.error(error))).transpose()
}

/// One commit of a load.
#[derive(Debug, Clone)]
pub(crate) struct LoadCommit {
    pub(crate) entry: LedgerEntry,
    pub(crate) version: u64,
    pub(crate) adds: Vec<Add>,
    pub(crate) removes: Vec<Remove>,
}

/// The loads in the log of `table` up to `latest`, the latest first, no more than `limit`.
pub(crate) async fn loads(table: &Table, latest: u64, limit: usize) -> Result<Vec<LoadCommit>> {
    let mut found = Vec::new();
    let mut undone = Undone::default();
    let mut commits = futures::stream::iter((0..=latest).rev())
        .map(|version| async move { Ok::<_, Error>((version, read_commit(table, version).await?)) })
        .buffered(COMMITS_AT_ONCE);
    while found.len() < limit
        && let Some((version, actions)) = commits.try_next().await?
    {
        // Older versions than this one were cleaned up.
        let Some(actions) = actions else { break };
        if let Some(commit) = load_commit(table, version, actions, &mut undone)? {
            found.push(commit);
        }
    }
    Ok(found)
}

/// Which versions were taken back, as far as later ones tell.
#[derive(Default)]
struct Undone {
    one: std::collections::HashSet<u64>,
    /// All after this one, up to the restore that said so.
    after: Option<u64>,
}

impl Undone {
    fn has(&self, version: u64) -> bool {
        self.one.contains(&version) || self.after.is_some_and(|after| version > after)
    }
}

fn load_commit(table: &Table, version: u64, actions: Vec<Action>, undone: &mut Undone) -> Result<Option<LoadCommit>> {
    let (mut record, mut committed) = (None, DateTime::<Utc>::default());
    let (mut adds, mut removes) = (Vec::new(), Vec::new());
    for action in actions {
        match action {
            Action::Add(add) => adds.push(add),
            Action::Remove(remove) => removes.push(remove),
            Action::CommitInfo(info) => {
                committed = info.timestamp.and_then(DateTime::from_timestamp_millis).unwrap_or_default();
                let number = |key| info.info.get(key).and_then(serde_json::Value::as_u64);
                // What was itself taken back, takes nothing back.
                if !undone.has(version) {
                    undone.one.extend(number(UNDOES_KEY));
                    undone.after = number(RESTORES_KEY).or(undone.after);
                }
                if let Some(found) = info.info.get(RECORD_KEY) {
                    let parsed: LoadRecord = serde_json::from_value(found.clone()).map_err(|error| {
                        Error::data(format!(
                            "{}: version {version} has a record of its load that cannot be read: {error}",
                            table.address()
                        ))
                        .hint("a newer flumen may have written it")
                    })?;
                    record = Some(parsed);
                }
            }
            _ => {}
        }
    }
    let Some(record) = record else { return Ok(None) };
    let entry = LedgerEntry { record, committed, version: Some(version), undone: undone.has(version) };
    Ok(Some(LoadCommit { entry, version, adds, removes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_known_by_name() {
        assert_eq!(checkpoint_name("00000000000000000010.checkpoint.parquet"), Some((10, 1)));
        assert_eq!(checkpoint_name("00000000000000000010.checkpoint.0000000001.0000000003.parquet"), Some((10, 3)));
        assert_eq!(checkpoint_name("00000000000000000010.json"), None);
        assert_eq!(checkpoint_name("_last_checkpoint"), None);
    }
}
