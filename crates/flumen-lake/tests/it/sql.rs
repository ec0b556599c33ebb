//! The SQL engine: lake tables made by hand, file by file, and files that are in memory.

mod ddl;
mod files;
mod known;
mod labels;
mod lake;
mod ledger;
mod write;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use flumen_core::Error;
use flumen_core::sql::{Done, SqlEngine};
use flumen_lake::catalog::{Catalog, PROD};
use flumen_lake::engine::{Engine, EngineSettings};
use flumen_lake::lake::Lake;
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::support::{TestClock, TestIds};
pub use files::MemoryFiles;

/// An engine over `lake` and `files`.
fn engine(lake: Option<Lake>, files: MemoryFiles) -> Engine {
    Engine::new(settings(lake, files)).unwrap()
}

fn settings(lake: Option<Lake>, files: MemoryFiles) -> EngineSettings {
    let (clock, ids) = (Arc::new(TestClock::default()), Arc::new(TestIds::random()));
    EngineSettings {
        catalog: lake.map(|lake| Catalog::new(lake, clock.clone(), ids.clone())),
        environment: PROD.to_owned(),
        files: Arc::new(files),
        memory_bytes: 256 << 20,
        threads: Some(2),
        clock,
        ids,
        read_only: false,
        files_allowed: true,
        external_tables: true,
        destinations: None,
        databases: None,
    }
}

/// Runs a query and gives its batches.
async fn run(engine: &Engine, sql: &str) -> Result<Vec<RecordBatch>, Error> {
    engine.query(sql).await?.batches.try_collect().await
}

/// Runs a query and gives its rows as text, a line each, values separated by `|`; or the error with its hint.
async fn text(engine: &Engine, sql: &str) -> String {
    match run(engine, sql).await {
        Ok(batches) => rows(&batches).join("\n"),
        Err(error) => told(&error),
    }
}

fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(cells.join("|"));
        }
    }
    rows
}

async fn check(engine: &Engine, sql: &str, expect: &str) {
    assert_eq!(text(engine, sql).await, expect, "{sql}");
}

/// Runs a statement that answers nothing; gives what it did: `INSERT 2`, `BEGIN`; or the error with its hint.
async fn done(engine: &Engine, sql: &str) -> String {
    match engine.query(sql).await {
        Ok(answer) => match answer.done {
            Some(Done { command, rows: Some(rows) }) => format!("{command} {rows}"),
            Some(Done { command, rows: None }) => command.to_owned(),
            None => "an answer".to_owned(),
        },
        Err(error) => told(&error),
    }
}

fn told(error: &Error) -> String {
    match error.remedy() {
        Some(hint) => format!("{}: {error}\nhint: {hint}", error.kind().name()),
        None => format!("{}: {error}", error.kind().name()),
    }
}

async fn does(engine: &Engine, sql: &str, expect: &str) {
    assert_eq!(done(engine, sql).await, expect, "{sql}");
}

/// A lake in a folder of its own.
fn lake_in_folder() -> (TempDir, Lake) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::local(folder.path().join("lake")).unwrap();
    (folder, lake)
}
