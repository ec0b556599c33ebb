//! Where rows go that a load refused: the table `<table>__quarantine`, a Delta table of its own.
//!
//! One commit for each load, before the load's own and also when that fails. A load that is tried again replaces what it
//! wrote there before.

use std::sync::Arc;

use async_trait::async_trait;
use deltalake_core::kernel::Transaction;
use flumen_core::load::LoadId;
use flumen_core::write::{BatchWriter, RefusedRows, quarantine_schema};
use flumen_core::{Error, Result};
use serde_json::Value;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::files::{LoadFiles, NewFile, load_folder};
use super::schema::{Evolution, conversion, schema_actions};
use super::{add, remove};
use crate::commit::{Change, Current, Note, commit, line};
use crate::lake::{Table, delete_files};

/// The application id that counts how often a load wrote its quarantine.
fn quarantine_key(load: &LoadId) -> String {
    format!("flumen-quarantine-{load}")
}

/// Writes `rows` of `load` to `table`, in the place of those that it wrote before.
pub(crate) async fn write(table: &Table, load: &LoadId, attempt: Uuid, rows: RefusedRows, note: &Note) -> Result<()> {
    let current = table.snapshot().await?;
    let mut rows = rows.peekable();
    if current.is_none() && rows.peek().is_none() {
        return Ok(());
    }
    let conversion = conversion(table, current.as_ref(), &quarantine_schema(), Evolution::AddColumns)?;
    let files = LoadFiles::new(table.clone(), load_folder(load), attempt, conversion, &[], Handle::current())?;
    let files = Arc::new(files);
    let writing = Arc::clone(&files);
    let written = tokio::task::spawn_blocking(move || {
        let mut writer = Box::new(writing.writer());
        for batch in rows {
            writer.write(&batch?)?;
        }
        writer.finish()?;
        writing.finish()
    })
    .await
    .map_err(|error| Error::internal(format!("the quarantine was not written: {error}")))?;
    let result = match written {
        Ok(written) => {
            let mut change =
                Quarantine { table, load, files: &files, written, now_ms: note.at.timestamp_millis(), id: attempt };
            commit(table, &mut change, note).await.map(|_| ())
        }
        Err(error) => Err(error),
    };
    if result.is_err() {
        // Why it failed counts; files that no version names are invisible.
        let _ = delete_files(table, files.discard()).await;
    }
    result
}

struct Quarantine<'a> {
    table: &'a Table,
    load: &'a LoadId,
    files: &'a LoadFiles,
    written: Vec<NewFile>,
    now_ms: i64,
    id: Uuid,
}

#[async_trait]
impl Change for Quarantine<'_> {
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>> {
        let snapshot = current.snapshot.as_ref();
        let columns = self.files.columns();
        let mut actions =
            schema_actions(self.table, snapshot, columns, &[], Evolution::AddColumns, self.id, self.now_ms)?;
        let folder = format!("{}/", load_folder(self.load));
        if let Some(snapshot) = snapshot {
            for file in snapshot.files()?.iter().filter(|file| file.path.starts_with(&folder)) {
                actions.push(line(remove(file, self.now_ms))?);
            }
        }
        for file in &self.written {
            actions.push(line(add(file, self.now_ms))?);
        }
        let key = quarantine_key(self.load);
        let version = current.ledger.version_of(&key) + 1;
        actions.push(line(Transaction::new_with_last_update(key, version, Some(self.now_ms)))?);
        Ok(actions)
    }
}
