//! The files of `tests/slt`, each in a lake of its own.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use flumen_core::sql::SqlEngine;
use flumen_lake::catalog::{Catalog, PROD};
use flumen_lake::engine::{Engine, EngineSettings};
use flumen_lake::lake::Lake;
use flumen_testkit::slt::{Connections, Database, Reply, run_folder};
use futures::TryStreamExt;

use crate::sql::MemoryFiles;
use crate::support::{TestClock, TestIds};

/// A lake, seen through the engine; each connection is a session.
struct Engines {
    lake: Lake,
    connections: Connections<Engine>,
    _folder: tempfile::TempDir,
}

impl Engines {
    fn open(lake: Lake) -> Engine {
        let (clock, ids) = (Arc::new(TestClock::default()), Arc::new(TestIds::random()));
        let settings = EngineSettings {
            catalog: Some(Catalog::new(lake, clock.clone(), ids.clone())),
            environment: PROD.to_owned(),
            files: Arc::new(MemoryFiles::default()),
            memory_bytes: 256 << 20,
            threads: Some(2),
            clock,
            ids,
            read_only: false,
            files_allowed: false,
            destinations: None,
            databases: None,
            external_tables: true,
        };
        Engine::new(settings).unwrap()
    }
}

impl Database for Engines {
    async fn run(&mut self, connection: &str, sql: &str) -> Result<Reply, String> {
        let lake = self.lake.clone();
        let engine = self.connections.get(connection, || async { Self::open(lake) }).await;
        let told = |error: flumen_core::Error| match error.remedy() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        };
        let answer = engine.query(sql).await.map_err(told)?;
        let count = answer.done.and_then(|done| done.rows);
        let batches: Vec<RecordBatch> = answer.batches.try_collect().await.map_err(told)?;
        Ok(Reply { rows: batches.iter().flat_map(rows).collect(), count })
    }
}

fn rows(batch: &RecordBatch) -> Vec<Vec<Option<String>>> {
    let columns: Vec<Vec<Option<String>>> = batch.columns().iter().map(texts).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

/// The values of a column as Postgres writes them.
fn texts(column: &ArrayRef) -> Vec<Option<String>> {
    let options = FormatOptions::new()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:::z"));
    // Fractions of a second end where they are.
    let column = match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone())).unwrap()
        }
        _ => Arc::clone(column),
    };
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
    let text = |row: usize| match column.data_type() {
        _ if column.is_null(row) => None,
        DataType::Null => None,
        DataType::Boolean => Some(if column.as_boolean().value(row) { "t" } else { "f" }.to_owned()),
        DataType::Float64 => Some(column.as_primitive::<Float64Type>().value(row).to_string()),
        DataType::Float32 => Some(column.as_primitive::<Float32Type>().value(row).to_string()),
        _ => Some(formatter.value(row).to_string()),
    };
    (0..column.len()).map(text).collect()
}

/// Deep statements recurse, and debug builds need several times as much room for that as release ones: as much as the program has.
const THREAD_STACK_BYTES: usize = 8 << 20;

#[test]
fn the_files_say_what_the_engine_answers() {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/slt");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).thread_stack_size(THREAD_STACK_BYTES).enable_all().build().unwrap();
    runtime.block_on(run_folder(&folder, "engine", || {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::local(folder.path().join("lake")).unwrap();
        Engines { lake, connections: Connections::default(), _folder: folder }
    }));
}
