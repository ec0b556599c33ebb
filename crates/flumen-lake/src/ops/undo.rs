//! Undo: exactly one load is taken back, as one commit.
//!
//! - A load that only added rows: its files go; where its rows have got into files with rows of others, they are taken out.
//! - A load that took rows away (replace, merge, …): its files go, and the files that it removed come back. That needs these
//!   files to be there still, and nothing to have been built upon the load's own.

use std::collections::HashMap;

use async_trait::async_trait;
use deltalake_core::kernel::{Add, Remove, Transaction};
use flumen_core::load::LoadId;
use flumen_core::{Error, Result};
use object_store::ObjectStoreExt;
use serde_json::Value;

use super::read::footer;
use super::rewrite::Rewriting;
use super::take_out::TakeOut;
use crate::commit::{Change, Current, line};
use crate::lake::{DataFile, Snapshot, Table, file_path};
use crate::ledger::{self, Ledger, LoadCommit, done_key, file_key};
use crate::sink::{RewriteTarget, add, is_mixed, remove};
use crate::types::same_type;

/// The taking back of one load.
pub(crate) struct Undo<'a> {
    pub(crate) table: &'a Table,
    pub(crate) load: &'a LoadId,
    /// The version that the load made.
    pub(crate) version: u64,
    pub(crate) target: RewriteTarget,
    pub(crate) rewriting: Rewriting,
    pub(crate) now_ms: i64,
}

impl Undo<'_> {
    /// What takes the rows of `load` out of files with rows of others.
    pub(crate) fn rewriting(load: &LoadId) -> Rewriting {
        Rewriting::new(Box::new(TakeOut::new([load.clone()])))
    }
}

/// The latest commit of `load` that was not taken back.
///
/// Errors: `NotFound` if there is none; `Conflict` if it was taken back already.
pub(crate) async fn find(
    table: &Table,
    snapshot: Option<&Snapshot>,
    load: &LoadId,
) -> Result<(LoadCommit, Vec<LoadCommit>)> {
    let nothing = || {
        Error::not_found(format!("{}: the ledger has no load {load}", table.address()))
            .hint("`flumen load list` shows those it has")
    };
    let snapshot = snapshot.ok_or_else(nothing)?;
    let mut later = Vec::new();
    let mut undone = false;
    for commit in ledger::loads(table, snapshot.version(), usize::MAX).await? {
        let record = &commit.entry.record;
        if record.load == *load && record.undoes.is_none() {
            if !commit.entry.undone {
                return Ok((commit, later));
            }
            undone = true;
        }
        later.push(commit);
    }
    if undone {
        return Err(Error::conflict(format!("{}: the load {load} was taken back already", table.address())));
    }
    Err(nothing())
}

#[async_trait]
impl Change for Undo<'_> {
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>> {
        let (commit, later) = find(self.table, current.snapshot.as_ref(), self.load).await?;
        let Some(snapshot) = current.snapshot.as_ref().filter(|_| commit.version == self.version) else {
            return Err(Error::conflict(format!("{}: the load {} changed meanwhile", self.table.address(), self.load))
                .hint("run the same command again"));
        };
        snapshot.check_writable(true)?;
        let active: HashMap<String, DataFile> =
            snapshot.files()?.into_iter().map(|file| (file.path.clone(), file)).collect();
        let mut actions = Vec::new();
        if !commit.removes.is_empty() {
            if let Some(lost) = commit.adds.iter().find(|add| !active.contains_key(&add.path)) {
                return Err(self.built_upon(&lost.path, &later));
            }
            actions.extend(self.earlier_schema(snapshot, &commit, &active).await?);
            for removed in &commit.removes {
                actions.push(line(self.restored(snapshot, removed).await?)?);
            }
        } else if active.keys().any(|path| is_mixed(path)) {
            let outcome = self.rewriting.outcome(Some(snapshot), self.table, &self.target, &[]).await?;
            let gone = outcome.removed.iter().filter(|path| !commit.adds.iter().any(|add| add.path == **path));
            for file in gone.filter_map(|path| active.get(path)) {
                actions.push(line(remove(file, self.now_ms))?);
            }
            for file in &outcome.added {
                actions.push(line(add(file, self.now_ms))?);
            }
        }
        for file in commit.adds.iter().filter_map(|add| active.get(&add.path)) {
            actions.push(line(remove(file, self.now_ms))?);
        }
        actions.extend(self.transactions(&commit, &current.ledger)?);
        Ok(actions)
    }
}

impl Undo<'_> {
    fn built_upon(&self, path: &str, later: &[LoadCommit]) -> Error {
        let by =
            later.iter().find(|commit| !commit.entry.undone && commit.removes.iter().any(|remove| remove.path == path));
        let by =
            by.map_or_else(|| "a later change".to_owned(), |commit| format!("the load {}", commit.entry.record.load));
        Error::conflict(format!("{}: {by} was built upon the load {}", self.table.address(), self.load))
            .hint("take the later one back first, with `flumen load undo`")
    }

    /// The metadata of before the load, if it gave columns other types: the files that come back have the types of before.
    async fn earlier_schema(
        &self,
        snapshot: &Snapshot,
        commit: &LoadCommit,
        active: &HashMap<String, DataFile>,
    ) -> Result<Option<Value>> {
        let Some(before) = commit.version.checked_sub(1) else { return Ok(None) };
        let Some(before) = self.table.snapshot_at(Some(before)).await? else { return Ok(None) };
        let now = snapshot.schema();
        let schema = before.schema();
        let kept = schema.fields().iter().all(|field| {
            now.field_with_name(field.name()).is_ok_and(|there| same_type(there.data_type(), field.data_type()))
        });
        if kept {
            return Ok(None);
        }
        if active.keys().any(|path| !commit.adds.iter().any(|add| add.path == *path)) {
            return Err(Error::conflict(format!(
                "{}: the load {} gave columns other types, and later loads have added rows with these",
                self.table.address(),
                self.load
            ))
            .hint("take the later loads back first, with `flumen load undo`"));
        }
        line(before.state.metadata().clone()).map(Some)
    }

    /// A file that comes back. The log does not keep the statistics of removed files; the footer has them.
    async fn restored(&self, snapshot: &Snapshot, removed: &Remove) -> Result<Add> {
        let place = file_path(&removed.path);
        let there = self.table.store().head(&place).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => Error::conflict(format!(
                "{}: the file {} that the load {} replaced was vacuumed",
                self.table.address(),
                removed.path,
                self.load
            ))
            .hint("the load cannot be taken back any more; load the data of before again with --mode replace"),
            other => self.table.store_error(other),
        })?;
        let (metadata, _) = footer(self.table, &removed.path, there.size).await?;
        Ok(Add {
            path: removed.path.clone(),
            partition_values: removed.partition_values.clone().unwrap_or_default(),
            size: there.size.try_into().unwrap_or(i64::MAX),
            modification_time: self.now_ms,
            data_change: true,
            stats: Some(crate::sink::delta_stats(&snapshot.schema(), metadata.row_groups())),
            deletion_vector: removed.deletion_vector.clone(),
            ..Default::default()
        })
    }

    /// The files and the load are not loaded any more: the next even numbers.
    fn transactions(&self, commit: &LoadCommit, ledger: &Ledger) -> Result<Vec<Value>> {
        let files = commit.entry.record.files.iter().filter_map(|file| file.ledger_id.as_ref()).map(file_key);
        let mut keys: Vec<String> = files.chain([done_key(self.load)]).collect();
        keys.sort();
        keys.dedup();
        let odd = keys.into_iter().map(|key| (ledger.version_of(&key), key)).filter(|(version, _)| version % 2 == 1);
        odd.map(|(version, key)| line(Transaction::new_with_last_update(key, version + 1, Some(self.now_ms)))).collect()
    }
}
