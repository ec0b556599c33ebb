//! The Postgres sink against a real server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flumen_connect::postgres::PlainConnector;
use flumen_connect::sinks::postgres::{PostgresOptions, PostgresSink};
use flumen_core::Result;
use flumen_core::dataset::TableName;
use flumen_core::load::{Fence, FileIdentity, FileRecord, LoadId, LoadRecord, LoadRequest, Mode};
use flumen_core::write::{LoadSession, Sink};

use crate::postgres_server::{Database, server};

fn options() -> PostgresOptions {
    PostgresOptions {
        lock_timeout: Duration::from_millis(200),
        patience: Duration::from_secs(5),
        ..PostgresOptions::default()
    }
}

fn sink_of(url: &str, table: &str, options: PostgresOptions) -> PostgresSink {
    let connector = Arc::new(PlainConnector::from_url(url).unwrap());
    let table = TableName { namespace: "public".into(), table: table.into() };
    PostgresSink::new(connector, format!("pg.{table}"), table, options).unwrap()
}

fn sink(database: &Database, table: &str) -> PostgresSink {
    sink_of(&database.url, table, options())
}

fn request(name: &str, mode: Mode, schema: SchemaRef) -> LoadRequest {
    LoadRequest {
        load: LoadId::derive([name]),
        mode,
        schema,
        evolve: true,
        files: Vec::new(),
        fence: Fence(0),
        started: "2026-01-02T03:04:05Z".parse().unwrap(),
        writers: 2,
        partition_by: Vec::new(),
        indexes: Vec::new(),
        primary_key: Vec::new(),
    }
}

fn record(request: &LoadRequest) -> LoadRecord {
    let file = FileIdentity { address: format!("{}.csv", request.load.short()), validator: Some("x".into()) };
    LoadRecord {
        load: request.load.clone(),
        dataset: "pg.public.t".into(),
        mode: request.mode.clone(),
        started: request.started,
        files: vec![FileRecord {
            identity: file,
            ledger_id: Some(LoadId::derive(["file", request.load.as_str()])),
            rows: 0,
        }],
        rows_read: 0,
        rows_written: 0,
        rows_quarantined: 0,
        rows_skipped: 0,
        bytes_read: 0,
        drift: Vec::new(),
        cursor: None,
        options: Default::default(),
        undoes: None,
    }
}

/// Writes each batch by a thread of its own.
fn write(session: &dyn LoadSession, batches: Vec<RecordBatch>) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = batches
            .into_iter()
            .map(|batch| {
                scope.spawn(move || {
                    let mut writer = session.writer()?;
                    writer.write(&batch)?;
                    writer.finish()
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })
}

async fn load_request(sink: &PostgresSink, request: LoadRequest, batches: Vec<RecordBatch>) -> Result<()> {
    let record = record(&request);
    let session = sink.begin(request).await?;
    match tokio::task::block_in_place(|| write(session.as_ref(), batches)) {
        Ok(()) => session.commit(&record).await.map(|_| ()),
        Err(error) => {
            session.abort().await.unwrap();
            Err(error)
        }
    }
}

async fn load(sink: &PostgresSink, name: &str, mode: Mode, batches: Vec<RecordBatch>) -> Result<()> {
    load_request(sink, request(name, mode, batches[0].schema()), batches).await
}

/// Rows of (id, name).
fn people(rows: &[(i64, &str)]) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]);
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let names: StringArray = rows.iter().map(|row| Some(row.1).filter(|name| !name.is_empty())).collect();
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

const LEFT: &str = "select count(*) from pg_class where relname like '\\_flumen\\_stage%'";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_then_more_rows_then_others() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    assert!(sink.state().await.unwrap().is_none());
    load(&sink, "a", Mode::Append, vec![people(&[(1, "one"), (2, "")]), people(&[(3, "three")])]).await.unwrap();
    assert_eq!(db.show("select * from t order by id").await, "1 | one\n2 | -\n3 | three");
    load(&sink, "b", Mode::Append, vec![people(&[(4, "four")]), people(&[(5, "five")])]).await.unwrap();
    assert_eq!(db.show("select count(*), sum(id) from t").await, "5 | 15");
    load(&sink, "c", Mode::Replace, vec![people(&[(9, "nine")])]).await.unwrap();
    assert_eq!(db.show("select * from t").await, "9 | nine");
    assert_eq!(db.show(LEFT).await, "0");
    let loads = sink.loads(10).await.unwrap();
    assert_eq!(loads.iter().map(|entry| entry.record.mode.name()).collect::<Vec<_>>(), ["replace", "append", "append"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_dependents_is_refilled() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    load(&sink, "a", Mode::Append, vec![people(&[(1, "one")])]).await.unwrap();
    db.run("create view names as select name from t").await;
    load(&sink, "b", Mode::Replace, vec![people(&[(2, "two")])]).await.unwrap();
    assert_eq!(db.show("select * from names").await, "two");
    assert_eq!(db.show(LEFT).await, "0");
}
