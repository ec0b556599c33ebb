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

use flumen_testkit::postgres::{Database, server};

pub fn options() -> PostgresOptions {
    PostgresOptions {
        lock_timeout: Duration::from_millis(200),
        patience: Duration::from_secs(5),
        ..PostgresOptions::default()
    }
}

pub fn sink_of(url: &str, table: &str, options: PostgresOptions) -> PostgresSink {
    let connector = Arc::new(PlainConnector::from_url(url).unwrap());
    let table = TableName { namespace: "public".into(), table: table.into() };
    PostgresSink::new(connector, format!("pg.{table}"), table, options).unwrap()
}

pub fn sink(database: &Database, table: &str) -> PostgresSink {
    sink_of(&database.url, table, options())
}

pub fn request(name: &str, mode: Mode, schema: SchemaRef) -> LoadRequest {
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

pub fn record(request: &LoadRequest) -> LoadRecord {
    let file = FileIdentity { address: format!("{}.csv", request.load.short()), validator: Some("x".into()) };
    LoadRecord {
        files: vec![FileRecord {
            identity: file,
            ledger_id: Some(LoadId::derive(["file", request.load.as_str()])),
            rows: 0,
        }],
        ..LoadRecord::new(request.load.clone(), "pg.public.t", request.mode.clone(), request.started)
    }
}

/// Writes each batch by a thread of its own.
pub fn write(session: &dyn LoadSession, batches: Vec<RecordBatch>) -> Result<()> {
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

pub async fn load_request(sink: &PostgresSink, request: LoadRequest, batches: Vec<RecordBatch>) -> Result<()> {
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

pub async fn load(sink: &PostgresSink, name: &str, mode: Mode, batches: Vec<RecordBatch>) -> Result<()> {
    load_request(sink, request(name, mode, batches[0].schema()), batches).await
}

/// Rows of (id, name).
pub fn people(rows: &[(i64, &str)]) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]);
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let names: StringArray = rows.iter().map(|row| Some(row.1).filter(|name| !name.is_empty())).collect();
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

pub const LEFT: &str = "select count(*) from pg_class where relname like '\\_flumen\\_stage%'";

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

#[tokio::test(flavor = "multi_thread")]
async fn types_survive() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    let list = |values: Vec<Option<Vec<Option<i32>>>>| {
        ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(values)
    };
    let structs = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Int64, true)), Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        (
            Arc::new(Field::new("b", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec!["x\"", "y", "z"])) as ArrayRef,
        ),
    ]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("i16", Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(7), None]))),
        ("i32", Arc::new(Int32Array::from(vec![Some(i32::MAX), Some(-1), None]))),
        ("i64", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(0), None]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(1.5), Some(f32::NAN), None]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NEG_INFINITY), None]))),
        (
            "dec",
            Arc::new(
                Decimal128Array::from(vec![Some(-1_234_567), Some(5), None]).with_precision_and_scale(38, 10).unwrap(),
            ),
        ),
        (
            "big",
            Arc::new(
                Decimal256Array::from(vec![Some(arrow::datatypes::i256::from_i128(i128::MAX)), None, None])
                    .with_precision_and_scale(50, 5)
                    .unwrap(),
            ),
        ),
        ("text", Arc::new(StringArray::from(vec![Some("ä\t\n\\N"), Some(""), None]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b""), None]))),
        ("date", Arc::new(Date32Array::from(vec![Some(17_897), Some(-719_162), None]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(86_399_999_999), Some(0), None]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_546_300_799_123_456), Some(-1), None]))),
        (
            "tz",
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(1_546_300_799_000_000), Some(0), None]).with_timezone("UTC"),
            ),
        ),
        ("span", Arc::new(DurationMicrosecondArray::from(vec![Some(90_061_000_001), Some(0), None]))),
        ("list", Arc::new(list(vec![Some(vec![Some(1), None, Some(3)]), Some(vec![]), None]))),
        ("nested", Arc::new(structs)),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    load(&sink, "a", Mode::Append, vec![batch.unwrap()]).await.unwrap();
    db.run("set timezone = 'UTC'").await;
    let got = db.show("select * from t").await;
    let expect = [
        "t | -32768 | 2147483647 | -9223372036854775808 | 1.5 | 0.1 | -0.0001234567 \
         | 1701411834604692317316873037158841.05727 | \u{e4}\t\n\\N | \\x00ff | 2019-01-01 | 23:59:59.999999 \
         | 2018-12-31 23:59:59.123456 | 2018-12-31 23:59:59+00 | 25:01:01.000001 | {1,NULL,3} | {\"a\": 1, \"b\": \"x\\\"\"}",
        "f | 7 | -1 | 0 | NaN | -Infinity | 0.0000000005 | - |  | \\x | 0001-01-01 | 00:00:00 \
         | 1969-12-31 23:59:59.999999 | 1970-01-01 00:00:00+00 | 00:00:00 | {} | {\"a\": 2, \"b\": \"y\"}",
        "- | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | {\"a\": 3, \"b\": \"z\"}",
    ];
    assert_eq!(got, expect.join("\n"));
    let types = "select string_agg(format_type(atttypid, atttypmod), ', ' order by attnum) from pg_attribute \
                 where attrelid = 't'::regclass and attnum > 0";
    assert_eq!(
        db.show(types).await,
        "boolean, smallint, integer, bigint, real, double precision, numeric(38,10), numeric(50,5), text, bytea, date, \
         time without time zone, timestamp without time zone, timestamp with time zone, interval, integer[], jsonb"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn text_goes_into_whatever_the_table_has() {
    let db = server().database().await;
    db.run(
        "create type mood as enum ('glad', 'sad'); create domain short as varchar(5); \
         create table t (id serial primary key, u uuid, m mood, j jsonb, n numeric, s short, ip inet, iv interval, d text[])",
    )
    .await;
    let sink = sink(&db, "t");
    let text = |name: &str, value: &str| (name.to_owned(), Arc::new(StringArray::from(vec![value])) as ArrayRef);
    let direct = || {
        vec![
            text("u", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            text("m", "sad"),
            text("j", "{\"a\": [1]}"),
            text("n", "123456789012345678901234567890.0100"),
            text("s", "abcde"),
        ]
    };
    load(&sink, "a", Mode::Append, vec![RecordBatch::try_from_iter(direct()).unwrap()]).await.unwrap();
    let mut cast = direct();
    cast.extend([text("ip", "10.0.0.1"), text("iv", "P1D")]);
    load(&sink, "b", Mode::Append, vec![RecordBatch::try_from_iter(cast).unwrap()]).await.unwrap();
    let row = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | sad | {\"a\": [1]} | 123456789012345678901234567890.0100 | abcde";
    assert_eq!(
        db.show("select id, u, m, j, n, s, ip, iv from t order by id").await,
        format!("1 | {row} | - | -\n2 | {row} | 10.0.0.1 | 1 day")
    );
    for (column, value, expect) in [
        ("u", "x", "postgres table public.t: column 'u': \"x\" is not a UUID"),
        ("n", "1x", "postgres table public.t: column 'n': \"1x\" is not a number"),
        ("s", "abcdef", "value too long for type character varying(5) [COPY t, line 1, column s]"),
        ("m", "angry", "invalid input value for enum mood: \"angry\" [COPY t, line 1, column m]"),
        ("s", "a\0b", "column 's': \"a\\0b\" has a NUL byte, which no text in Postgres can hold"),
        ("ip", "10.0.0.999", "invalid input syntax for type inet: \"10.0.0.999\""),
    ] {
        let batch = RecordBatch::try_from_iter(vec![text(column, value)]).unwrap();
        let error = load(&sink, &format!("{column}{value}"), Mode::Append, vec![batch]).await.unwrap_err();
        assert!(error.message().replace("the value ", "").ends_with(expect), "{error}");
        assert_eq!(error.kind(), flumen_core::ErrorKind::Data, "{error}");
        assert!(error.remedy().is_some());
    }
    assert_eq!(db.show("select count(*) from t").await, "2");
    assert_eq!(db.show(LEFT).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_keeps_what_hangs_on_the_table() {
    let db = server().database().await;
    db.run(
        "create role reader; create role writer; \
         create table t (id bigint generated always as identity primary key, name text not null default 'x' check (name <> ''), \
                         serial_no serial, extra int default 7) with (fillfactor = 80); \
         create unique index by_name on t (lower(name)) where id > 0; create index on t (extra); \
         alter table t add constraint id_name unique (id, name) deferrable; \
         comment on table t is 'it''s a table'; comment on column t.name is 'the name'; comment on index by_name is 'by name'; \
         grant select on t to reader; grant insert, update on t to writer with grant option; \
         insert into t (name) values ('old'), ('older')",
    )
    .await;
    let before = db.show("select oid from pg_class where relname = 't'").await;
    let shape = "select (select string_agg(pg_get_indexdef(indexrelid), '; ' order by indexrelid::regclass::text) from pg_index where indrelid = 't'::regclass), \
                 (select string_agg(conname || ' ' || pg_get_constraintdef(oid), '; ' order by conname) from pg_constraint where conrelid = 't'::regclass), \
                 (select string_agg(a::text, ' ' order by a::text) from unnest((select relacl from pg_class where oid = 't'::regclass)) a), \
                 obj_description('t'::regclass), col_description('t'::regclass, 2), obj_description('by_name'::regclass), \
                 (select reloptions from pg_class where oid = 't'::regclass), pg_get_serial_sequence('t', 'id'), pg_get_serial_sequence('t', 'serial_no'), \
                 (select string_agg(column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '-'), ', ' order by ordinal_position) \
                  from information_schema.columns where table_name = 't')";
    let expect = db.show(shape).await;
    let sink = sink(&db, "t");
    let batch =
        RecordBatch::try_from_iter(vec![("name", Arc::new(StringArray::from(vec!["new", "newer"])) as ArrayRef)]);
    load(&sink, "a", Mode::Replace, vec![batch.unwrap()]).await.unwrap();
    assert_ne!(db.show("select oid from pg_class where relname = 't'").await, before, "it was swapped");
    assert_eq!(db.show(shape).await, expect);
    db.run("insert into t (name) values ('newest')").await;
    assert_eq!(db.show("select name, extra from t order by name").await, "new | 7\nnewer | 7\nnewest | 7");
    assert_eq!(db.show("select count(distinct id), count(distinct serial_no) from t").await, "3 | 3");
    assert_eq!(db.show(LEFT).await, "0");
    let two = RecordBatch::try_from_iter(vec![("name", Arc::new(StringArray::from(vec!["x", "X"])) as ArrayRef)]);
    let error = load(&sink, "b", Mode::Replace, vec![two.unwrap()]).await.unwrap_err();
    assert!(error.message().contains("a key is there twice (Key (lower(name))=(x) is duplicated)"), "{error}");
    assert_eq!(db.show("select count(*) from t").await, "3");
    assert_eq!(db.show(LEFT).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_columns_take_the_new_type_unless_something_depends_on_them() {
    let db = server().database().await;
    db.run("create table t (id int, name varchar(10)); insert into t values (1, 'a')").await;
    let sink = sink(&db, "t");
    let batch = |values: Vec<f64>| {
        vec![RecordBatch::try_from_iter(vec![("id", Arc::new(Float64Array::from(values)) as ArrayRef)]).unwrap()]
    };
    load(&sink, "a", Mode::Replace, batch(vec![1.5])).await.unwrap();
    assert_eq!(db.show("select id, name, pg_typeof(id) from t").await, "1.5 | - | double precision");
    db.run("alter table t alter id type int using 3; create view v as select id from t").await;
    let error = load(&sink, "b", Mode::Replace, batch(vec![2.5])).await.unwrap_err();
    assert_eq!(
        error.message(),
        "postgres table public.t: the column 'id' is integer, and the rows to load have double precision"
    );
    assert_eq!(db.show("select * from v").await, "3");
}
