//! Restore: a table becomes what it was at an earlier version, as one commit; what came between stays in the log.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use deltalake_core::kernel::{Add, Transaction};
use flumen_core::boxed;
use flumen_core::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::vacuum::head;
use crate::catalog::Catalog;
use crate::commit::{Change, Current, Note, commit, line};
use crate::lake::{DataFile, Table};
use crate::ledger::{Ledger, RESTORES_KEY};
use crate::sink::remove;

/// What a restore came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The version that the table is as.
    pub to: u64,
    /// The version that was made.
    pub version: u64,
    /// Files that came back.
    pub files_added: u64,
    /// Files that went.
    pub files_removed: u64,
}

/// Makes `table` what it was at version `to`.
///
/// Errors: `NotFound` if there is no such version; `Conflict` if its files were vacuumed.
#[boxed]
pub async fn restore(catalog: &Catalog, table: &Table, to: u64) -> Result<Restored> {
    let at = catalog.clock().now();
    let entries = Map::from_iter([(RESTORES_KEY.to_owned(), json!(to)), ("isBlindAppend".to_owned(), json!(false))]);
    let note = Note {
        operation: "RESTORE",
        parameters: json!({ "version": to.to_string() }),
        entries,
        at,
        id: catalog.ids().next(),
    };
    let now_ms = at.timestamp_millis();
    let mut change = Restore { table, to, now_ms, done: Restored { to, ..Restored::default() } };
    let version = commit(table, &mut change, &note).await?;
    Ok(Restored { version, ..change.done })
}

struct Restore<'a> {
    table: &'a Table,
    to: u64,
    now_ms: i64,
    done: Restored,
}

#[async_trait]
impl Change for Restore<'_> {
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>> {
        let Some(now) = &current.snapshot else {
            return Err(Error::not_found(format!("there is no table '{}'", self.table.address())));
        };
        now.check_writable(true)?;
        let then = self.table.snapshot_at(Some(self.to)).await?;
        let then =
            then.ok_or_else(|| Error::not_found(format!("{} has no version {}", self.table.address(), self.to)))?;
        let before: BTreeMap<String, Add> = then.adds()?.into_iter().map(|add| (add.path.clone(), add)).collect();
        let there: BTreeMap<String, DataFile> =
            now.files()?.into_iter().map(|file| (file.path.clone(), file)).collect();
        let mut actions = Vec::new();
        if then.state.metadata() != now.state.metadata() {
            actions.push(line(then.state.metadata().clone())?);
        }
        let (mut added, mut removed) = (0, 0);
        for (path, add) in before.iter().filter(|(path, _)| !there.contains_key(*path)) {
            if head(self.table, path).await?.is_none() {
                return Err(Error::conflict(format!(
                    "{}: the file {path} of version {} was vacuumed",
                    self.table.address(),
                    self.to
                ))
                .hint("a later version may still be whole: 'flumen lake history' shows them"));
            }
            added += 1;
            actions.push(line(Add { data_change: true, modification_time: self.now_ms, ..add.clone() })?);
        }
        for file in there.iter().filter(|(path, _)| !before.contains_key(*path)).map(|(_, file)| file) {
            removed += 1;
            actions.push(line(remove(file, self.now_ms))?);
        }
        let ledger = Ledger::read(self.table, self.to).await?;
        actions.extend(self.transactions(&current.ledger, &ledger)?);
        (self.done.files_added, self.done.files_removed) = (added, removed);
        Ok(actions)
    }
}

impl Restore<'_> {
    /// What was loaded since then can be loaded again; what was taken back since then counts as loaded.
    fn transactions(&self, now: &Ledger, then: &Ledger) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        let known: HashMap<&str, i64> = now.marks().collect();
        let mut keys: Vec<&str> = known.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            let version = now.version_of(key);
            if version % 2 != then.version_of(key) % 2 {
                let next = Transaction::new_with_last_update(key.to_owned(), version + 1, Some(self.now_ms));
                lines.push(line(next)?);
            }
        }
        Ok(lines)
    }
}
