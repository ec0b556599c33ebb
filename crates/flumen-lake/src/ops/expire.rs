//! Expire: rows that are older than the table's retention go, as one commit. Files without such rows are left alone.

use std::sync::Arc;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::boxed;
use flumen_core::load::{Fence, LoadId};
use flumen_core::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::replace_where::ReplaceWhere;
use super::rewrite::Rewriting;
use crate::catalog::Catalog;
use crate::commit::{Change, Current, Note, commit, line};
use crate::lake::{Snapshot, Table, delete_files};
use crate::sink::{LoadLock, RewriteTarget, add, load_folder, remove};

/// What expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Files that went, or were written anew.
    pub files: u64,
    /// The version that was made, if one was.
    pub version: Option<u64>,
}

/// Deletes the rows of `table` whose `column` is more than `keep_s` seconds ago.
///
/// Errors: `Invalid` if there is no such column, or it holds no dates or times.
#[boxed]
pub async fn expire(catalog: &Catalog, table: &Table, column: &str, keep_s: u64) -> Result<Expired> {
    let snapshot = table.snapshot().await?;
    let Some(snapshot) = snapshot else { return Ok(Expired::default()) };
    let now = catalog.clock().now();
    let keep = i64::try_from(keep_s).ok().and_then(TimeDelta::try_seconds);
    let Some(before) = keep.and_then(|keep| now.checked_sub_signed(keep)) else { return Ok(Expired::default()) };
    let condition = condition(&snapshot, column, before)?;
    if !may_hold(&snapshot, column, before)? {
        return Ok(Expired::default());
    }
    let load = LoadId::from_uuid(catalog.ids().next());
    let lock = match table.folder() {
        Some(root) => Some(LoadLock::take(&root.join(load_folder(&load)), load.as_str(), Fence(0), &table.address())?),
        None => None,
    };
    let operation = ReplaceWhere::new(&condition, &snapshot.schema())?;
    let target =
        RewriteTarget::new(table, &load, Arc::clone(catalog.ids()), snapshot.schema(), snapshot.partition_by());
    let note = Note {
        operation: "DELETE",
        parameters: json!({ "predicate": json!([condition]).to_string() }),
        entries: Map::from_iter([("isBlindAppend".to_owned(), json!(false))]),
        at: now,
        id: catalog.ids().next(),
    };
    let mut change = Expiry {
        table,
        target: &target,
        rewriting: Rewriting::new(Box::new(operation)),
        now_ms: now.timestamp_millis(),
        files: 0,
    };
    let done = commit(table, &mut change, &note).await;
    let files = change.files;
    let done = match done {
        Ok(version) => Ok(Expired { files, version: Some(version) }),
        Err(error) => {
            delete_files(table, change.rewriting.discard()).await?;
            // Nothing was that old after all.
            if files == 0 && error.kind() == flumen_core::ErrorKind::NotFound {
                Ok(Expired::default())
            } else {
                Err(error)
            }
        }
    };
    drop(lock);
    done
}

/// The SQL condition of rows that are too old.
fn condition(snapshot: &Snapshot, column: &str, before: DateTime<Utc>) -> Result<String> {
    let schema = snapshot.schema();
    let place = snapshot.table().address();
    let field = schema.field_with_name(column).map_err(|_| {
        Error::invalid(format!("{place}: the retention goes by the column '{column}', which is not there"))
            .hint("name another with 'flumen lake tag TABLE --retention SPAN --by COLUMN'")
    })?;
    let quoted = format!("\"{}\"", column.replace('"', "\"\""));
    match field.data_type() {
        DataType::Date32 => Ok(format!("{quoted} < DATE '{}'", before.format("%Y-%m-%d"))),
        DataType::Timestamp(_, _) => Ok(format!("{quoted} < TIMESTAMP '{}'", before.format("%Y-%m-%d %H:%M:%S"))),
        other => Err(Error::invalid(format!(
            "{place}: the retention goes by the column '{column}', which is {other}, and no date or time"
        ))
        .hint("name another with 'flumen lake tag TABLE --retention SPAN --by COLUMN'")),
    }
}

/// Whether the statistics leave room for rows that are too old.
fn may_hold(snapshot: &Snapshot, column: &str, before: DateTime<Utc>) -> Result<bool> {
    let day = before.format("%Y-%m-%dT%H:%M:%S").to_string();
    Ok(snapshot.files()?.iter().any(|file| {
        let partition = file.partition.get(column).map(|value| value.clone().unwrap_or_else(|| day.clone()));
        let low = file.stats.as_ref().and_then(|stats| stats.min_values.get(column));
        let low = partition.or_else(|| low.and_then(Value::as_str).map(str::to_owned));
        // Dates and times in ISO 8601 are in order as text.
        low.is_none_or(|low| low.replace(' ', "T") < day)
    }))
}

struct Expiry<'a> {
    table: &'a Table,
    target: &'a RewriteTarget,
    rewriting: Rewriting,
    now_ms: i64,
    files: u64,
}

#[async_trait]
impl Change for Expiry<'_> {
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>> {
        let snapshot = current.snapshot.as_ref();
        let Some(there) = snapshot else { return Err(Error::not_found("nothing is too old")) };
        there.check_writable(true)?;
        let outcome = self.rewriting.outcome(snapshot, self.table, self.target, &[]).await?;
        self.files = outcome.removed.len() as u64;
        if outcome.removed.is_empty() {
            return Err(Error::not_found("nothing is too old"));
        }
        let mut actions = Vec::new();
        for file in there.files()?.iter().filter(|file| outcome.removed.contains(&file.path)) {
            actions.push(line(remove(file, self.now_ms))?);
        }
        for file in &outcome.added {
            actions.push(line(add(file, self.now_ms))?);
        }
        Ok(actions)
    }
}
