//! History: what happened to a table, from its log.

use chrono::{DateTime, Utc};
use deltalake_core::kernel::Action;
use flumen_core::Result;
use flumen_core::boxed;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::Value;

use crate::lake::Table;
use crate::ledger::{RECORD_KEY, read_commit};

/// Commits that are read at once.
const COMMITS_AT_ONCE: usize = 8;

/// One version of a table, and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Happened {
    /// The version.
    pub version: u64,
    /// When.
    pub at: Option<DateTime<Utc>>,
    /// What was done, in Delta's words.
    pub operation: String,
    /// Its parameters.
    pub parameters: Value,
    /// The program that did it.
    pub by: Option<String>,
    /// The load, if it was one.
    pub load: Option<String>,
    /// Files that came.
    pub files_added: u64,
    /// Files that went.
    pub files_removed: u64,
    /// Rows in the files that came, where the log tells.
    pub rows_added: Option<u64>,
}

/// The versions of `table` that its log still has, the latest first, no more than `limit`.
///
/// Errors: those of the log.
#[boxed]
pub async fn history(table: &Table, limit: usize) -> Result<Vec<Happened>> {
    let Some(latest) = table.latest_version().await? else { return Ok(Vec::new()) };
    let table = table.clone();
    let mut commits = futures::stream::iter((0..=latest).rev().take(limit))
        .map(move |version| {
            let table = table.clone();
            async move { Ok::<_, flumen_core::Error>((version, read_commit(&table, version).await?)) }
        })
        .buffered(COMMITS_AT_ONCE);
    let mut happened = Vec::new();
    while let Some((version, Some(actions))) = commits.try_next().await? {
        happened.push(one(version, actions));
    }
    Ok(happened)
}

fn one(version: u64, actions: Vec<Action>) -> Happened {
    let mut happened = Happened {
        version,
        at: None,
        operation: String::new(),
        parameters: Value::Null,
        by: None,
        load: None,
        files_added: 0,
        files_removed: 0,
        rows_added: Some(0),
    };
    for action in actions {
        match action {
            Action::Add(add) => {
                happened.files_added += 1;
                let stats = add.stats.as_deref().and_then(|stats| serde_json::from_str::<Value>(stats).ok());
                let rows = stats.and_then(|stats| stats.get("numRecords")?.as_u64());
                happened.rows_added = happened.rows_added.zip(rows).map(|(sum, rows)| sum + rows);
            }
            Action::Remove(_) => happened.files_removed += 1,
            Action::CommitInfo(info) => {
                happened.at = info.timestamp.and_then(DateTime::from_timestamp_millis);
                happened.operation = info.operation.unwrap_or_default();
                happened.by = info.engine_info;
                happened.parameters = info
                    .operation_parameters
                    .map(|parameters| Value::Object(parameters.into_iter().collect()))
                    .unwrap_or(Value::Null);
                let load = info.info.get(RECORD_KEY).and_then(|record| record.get("load"));
                happened.load = load.and_then(Value::as_str).map(str::to_owned);
            }
            _ => {}
        }
    }
    happened
}
