//! Queries over lake tables. The tables are written by hand, log and files, so that nothing depends on our own sink.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use flumen_core::sql::SqlEngine;
use flumen_lake::engine::Engine;
use flumen_lake::lake::Lake;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::files::MemoryFiles;
use super::{check, engine, run, text};

/// One file of a table: its rows, its partition values, and what the log says of it.
struct DataFile {
    name: &'static str,
    batch: RecordBatch,
    partition: Value,
    stats: Option<Value>,
    extra: Value,
}

fn file(name: &'static str, batch: RecordBatch, stats: Value) -> DataFile {
    DataFile { name, batch, partition: json!({}), stats: Some(stats), extra: json!({}) }
}

fn delta_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Int32 => "integer",
        DataType::Int64 => "long",
        DataType::Float64 => "double",
        DataType::Utf8 => "string",
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp_ntz",
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamp",
        other => panic!("{other}"),
    }
}

/// Writes a Delta table of one version.
fn table(
    root: &Path,
    name: &str,
    schema: &SchemaRef,
    partition_by: &[&str],
    configuration: Value,
    files: Vec<DataFile>,
) {
    let folder = root.join(name);
    std::fs::create_dir_all(folder.join("_delta_log")).unwrap();
    let column = |field: &arrow::datatypes::FieldRef| json!({"name": field.name(), "type": delta_type(field.data_type()), "nullable": true, "metadata": {}});
    let columns: Vec<Value> = schema.fields().iter().map(column).collect();
    let mut log = vec![
        json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": ["timestampNtz", "deletionVectors", "columnMapping"],
            "writerFeatures": ["timestampNtz", "deletionVectors", "columnMapping"]}}),
        json!({"metaData": {"id": "00000000-0000-0000-0000-000000000000", "format": {"provider": "parquet", "options": {}},
            "schemaString": json!({"type": "struct", "fields": columns}).to_string(),
            "partitionColumns": partition_by, "configuration": configuration, "createdTime": 0}}),
    ];
    for file in files {
        let path = folder.join(file.name);
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), file.batch.schema(), None).unwrap();
        writer.write(&file.batch).unwrap();
        writer.close().unwrap();
        let mut add = json!({"path": file.name, "partitionValues": file.partition, "dataChange": true,
            "size": std::fs::metadata(&path).unwrap().len(), "modificationTime": 0});
        if let Some(stats) = file.stats {
            add["stats"] = stats.to_string().into();
        }
        for (key, value) in file.extra.as_object().unwrap() {
            add[key] = value.clone();
        }
        log.push(json!({"add": add}));
    }
    let lines: Vec<String> = log.iter().map(Value::to_string).collect();
    std::fs::write(folder.join("_delta_log/00000000000000000000.json"), lines.join("\n")).unwrap();
}

fn trips(ids: &[i64], fares: &[Option<f64>], zones: &[Option<&str>]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([
        ("VendorID", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef, true),
        ("fare", Arc::new(Float64Array::from(fares.to_vec())) as ArrayRef, true),
        ("zone", Arc::new(StringArray::from(zones.to_vec())) as ArrayRef, true),
    ])
    .unwrap()
}

fn bounds(rows: usize, low: i64, high: i64) -> Value {
    json!({"numRecords": rows, "minValues": {"VendorID": low}, "maxValues": {"VendorID": high}, "nullCount": {"VendorID": 0}})
}

fn two_files() -> [RecordBatch; 2] {
    [
        trips(&[1, 2, 3], &[Some(1.5), None, Some(2.25)], &[Some("Soho"), None, Some("")]),
        trips(&[10, 11], &[Some(4.0), Some(-1.0)], &[Some("Soho"), Some("Bronx")]),
    ]
}

/// A lake with `raw.trips` in two files.
fn lake() -> (TempDir, Engine) {
    let root = tempfile::tempdir().unwrap();
    let [first, second] = two_files();
    let schema = first.schema();
    let files = vec![file("a.parquet", first, bounds(3, 1, 3)), file("b.parquet", second, bounds(2, 10, 11))];
    table(root.path(), "raw/trips", &schema, &[], json!({}), files);
    let engine = engine(Some(Lake::local(root.path()).unwrap()), MemoryFiles::default());
    (root, engine)
}

#[tokio::test]
async fn tables_are_found_by_each_of_their_names() {
    let (_root, engine) = lake();
    for name in ["lake.raw.trips", "raw.trips", "trips", "RAW.TRIPS", "\"raw\".\"trips\""] {
        check(&engine, &format!("select count(*) from {name}"), "5").await;
    }
}

#[tokio::test]
async fn counts_and_bounds_come_from_the_log_alone() {
    let (root, engine) = lake();
    for name in ["a.parquet", "b.parquet"] {
        std::fs::remove_file(root.path().join("raw/trips").join(name)).unwrap();
    }
    check(&engine, "select count(*), count(1), min(\"VendorID\"), max(\"VendorID\") from raw.trips", "5|5|1|11").await;
    let gone = text(&engine, "select sum(fare) from raw.trips").await;
    assert!(gone.starts_with("not_found: "), "{gone}");
}

#[tokio::test]
async fn sums_are_those_of_a_plain_computation() {
    let (_root, engine) = lake();
    let all = two_files();
    let fares: f64 = all
        .iter()
        .map(|batch| arrow::compute::sum(batch.column(1).as_any().downcast_ref::<Float64Array>().unwrap()).unwrap())
        .sum();
    let present: usize = all.iter().map(|batch| batch.num_rows() - batch.column(1).null_count()).sum();
    check(&engine, "select sum(fare), count(fare) from raw.trips", &format!("{fares}|{present}")).await;
    check(
        &engine,
        "select zone, count(*) from raw.trips group by zone order by zone nulls first",
        "NULL|1\n|1\nBronx|1\nSoho|2",
    )
    .await;
    check(
        &engine,
        "select * from raw.trips order by 1",
        "1|1.5|Soho\n2|NULL|NULL\n3|2.25|\n10|4.0|Soho\n11|-1.0|Bronx",
    )
    .await;
}

#[tokio::test]
async fn files_that_cannot_match_are_not_in_the_plan() {
    let (_root, engine) = lake();
    let plan = text(&engine, "explain select fare from raw.trips where vendorid >= 10").await;
    assert!(plan.contains("b.parquet") && !plan.contains("a.parquet"), "{plan}");
    check(&engine, "select sum(fare) from raw.trips where vendorid >= 10", "3.0").await;
    check(&engine, "select fare from raw.trips where vendorid > 100", "").await;
    check(&engine, "select count(*) from raw.trips where vendorid in (2, 3)", "2").await;
    check(&engine, "select count(*) from raw.trips where vendorid is null", "0").await;
}

#[tokio::test]
async fn a_column_that_an_old_file_lacks_is_null() {
    let root = tempfile::tempdir().unwrap();
    let old =
        RecordBatch::try_from_iter_with_nullable([("id", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef, true)])
            .unwrap();
    let new = RecordBatch::try_from_iter_with_nullable([
        ("tip", Arc::new(Float64Array::from(vec![Some(0.5), None])) as ArrayRef, true),
        ("id", Arc::new(Int64Array::from(vec![3, 4])) as ArrayRef, true),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_546_300_800_000_001])) as ArrayRef, true),
    ])
    .unwrap();
    let schema: SchemaRef = Arc::new(arrow::datatypes::Schema::new(vec![
        new.schema().field(1).clone(),
        new.schema().field(0).clone(),
        new.schema().field(2).clone(),
    ]));
    let stats = |low: i64, high: i64| json!({"numRecords": 2, "minValues": {"id": low}, "maxValues": {"id": high}, "nullCount": {"id": 0}});
    let files = vec![file("old.parquet", old, stats(1, 2)), file("new.parquet", new, stats(3, 4))];
    table(root.path(), "raw/t", &schema, &[], json!({}), files);
    let engine = engine(Some(Lake::local(root.path()).unwrap()), MemoryFiles::default());
    check(
        &engine,
        "select * from raw.t order by id",
        "1|NULL|NULL\n2|NULL|NULL\n3|0.5|1970-01-01T00:00:00\n4|NULL|2019-01-01T00:00:00.000001",
    )
    .await;
    check(&engine, "select count(*) from raw.t where at = timestamp '2019-01-01 00:00:00.000001'", "1").await;
    check(&engine, "select count(*), count(tip) from t where id > 1", "3|1").await;
}

#[tokio::test]
async fn partition_columns_stand_where_the_table_has_them() {
    let root = tempfile::tempdir().unwrap();
    let schema: SchemaRef = Arc::new(arrow::datatypes::Schema::new(vec![
        arrow::datatypes::Field::new("year", DataType::Int32, true),
        arrow::datatypes::Field::new("fare", DataType::Float64, true),
        arrow::datatypes::Field::new("colour", DataType::Utf8, true),
    ]));
    let part = |name, fare: f64, partition: Value| DataFile {
        name,
        batch: RecordBatch::try_from_iter([("fare", Arc::new(Float64Array::from(vec![fare])) as ArrayRef)]).unwrap(),
        partition,
        stats: Some(json!({"numRecords": 1, "nullCount": {"fare": 0}})),
        extra: json!({}),
    };
    let files = vec![
        part("a.parquet", 1.0, json!({"year": "2019", "colour": "green"})),
        part("b.parquet", 2.0, json!({"year": "2020", "colour": null})),
    ];
    table(root.path(), "raw/t", &schema, &["colour", "year"], json!({}), files);
    let engine = engine(Some(Lake::local(root.path()).unwrap()), MemoryFiles::default());
    check(&engine, "select * from raw.t order by fare", "2019|1.0|green\n2020|2.0|NULL").await;
    check(&engine, "select year, colour from raw.t order by year desc", "2020|NULL\n2019|green").await;
    check(&engine, "select fare from raw.t where colour is null and year = 2020", "2.0").await;
    check(&engine, "select count(*), count(colour), max(year) from raw.t", "2|1|2020").await;
    let plan = text(&engine, "explain select fare from raw.t where year = 2019").await;
    assert!(plan.contains("a.parquet") && !plan.contains("b.parquet"), "{plan}");
}

#[tokio::test]
async fn what_would_be_read_wrongly_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let [batch, _] = two_files();
    let schema = batch.schema();
    let mut deleted = file("a.parquet", batch.clone(), bounds(3, 1, 3));
    deleted.extra = json!({"deletionVector": {"storageType": "u", "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA", "offset": 1, "sizeInBytes": 36, "cardinality": 2}});
    table(root.path(), "raw/deleted", &schema, &[], json!({}), vec![deleted]);
    let engine = engine(Some(Lake::local(root.path()).unwrap()), MemoryFiles::default());
    let refused = text(&engine, "select count(*) from raw.deleted").await;
    assert!(refused.starts_with("invalid: ") && refused.contains("deletion vector"), "{refused}");
}

#[tokio::test]
async fn a_table_without_statistics_is_read_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let [batch, _] = two_files();
    let schema = batch.schema();
    let mut bare = file("a.parquet", batch, json!({}));
    bare.stats = None;
    table(root.path(), "raw/t", &schema, &[], json!({}), vec![bare]);
    table(root.path(), "raw/empty", &schema, &[], json!({}), vec![]);
    let engine = engine(Some(Lake::local(root.path()).unwrap()), MemoryFiles::default());
    check(&engine, "select count(*), max(vendorid) from raw.t where fare > 1", "2|3").await;
    check(&engine, "select count(*), max(vendorid) from raw.empty", "0|NULL").await;
    check(&engine, "select * from raw.empty", "").await;
}

#[tokio::test]
async fn errors_point_at_the_place_and_name_the_nearest() {
    let (_root, engine) = lake();
    for (sql, expect) in [
        (
            "select farre from raw.trips",
            "not_found: line 1, column 8: there is no column 'farre'\n  select farre from raw.trips\n         ^^^^^\nhint: did you mean 'fare'?",
        ),
        (
            "select 1\nfrom raw.trps",
            "not_found: line 2, column 10: there is no table 'raw.trps'\n  from raw.trps\n           ^^^^\nhint: did you mean 'raw.trips'?",
        ),
        (
            "select * from trps",
            "not_found: line 1, column 15: there is no table 'trps'\n  select * from trps\n                ^^^^\nhint: did you mean 'raw.trips'?",
        ),
        ("selct 1", "invalid: line 1, column 1: there should be an SQL statement, not 'selct'\n  selct 1\n  ^^^^^"),
        (
            "select 1 +",
            "invalid: line 1, column 11: the query ends where an expression should be\n  select 1 +\n            ^",
        ),
        (
            "select contcat('a') ",
            "not_found: line 1, column 8: there is no function 'contcat'\n  select contcat('a') \n         ^^^^^^^\nhint: did you mean 'concat'?",
        ),
        (
            "select cast('x' as int)",
            "data: cannot cast string 'x' to value of Int32 type\nhint: use try_cast(… as …), which gives null for a value that does not fit",
        ),
        ("select 1 / 0", "data: divide by zero error\nhint: use nullif(x, 0) as the divisor, which gives null instead"),
        (
            "select * from pg.public.trips",
            "not_found: line 1, column 25: 'pg' is no catalog of tables that SQL can read\n  select * from pg.public.trips\n                          ^^^^^\nhint: SQL reads lake.<namespace>.<table>, tables of Postgres connections, and files; bring other data in with 'flumen ingest'",
        ),
        (
            "select * from trips.csv",
            "invalid: line 1, column 21: 'trips.csv' looks like a file, and is not quoted\n  select * from trips.csv\n                      ^^^\nhint: write it in quotes: select * from 'trips.csv'",
        ),
    ] {
        check(&engine, sql, expect).await;
    }
}

#[tokio::test]
async fn sessions_have_tables_of_their_own() {
    let (_root, engine) = lake();
    check(&engine, "create temporary table t as select zone, fare from raw.trips", "").await;
    let inserted = engine.query("insert into t values ('Harlem', 1)").await.unwrap().done.unwrap();
    assert_eq!((inserted.command, inserted.rows), ("INSERT", Some(1)));
    check(&engine, "create temporary view v as select count(*) as n from t", "").await;
    check(&engine, "select n from v", "6").await;
    assert_eq!(engine.session_tables(), ["t", "v"]);
    check(&engine, "drop table t", "").await;
    check(&engine, "set datafusion.execution.target_partitions = 1", "").await;
    check(
        &engine,
        "select value from information_schema.df_settings where name = 'datafusion.execution.target_partitions'",
        "1",
    )
    .await;
    check(
        &engine,
        "select table_schema, table_name from information_schema.tables where table_schema = 'raw'",
        "raw|trips",
    )
    .await;
    let missing = text(&engine, "create temporary table u as select * from missing").await;
    assert!(missing.starts_with("not_found: ") && missing.contains("there is no table 'missing'"), "{missing}");
}

#[tokio::test]
async fn each_query_sees_the_latest_version() {
    let (root, engine) = lake();
    check(&engine, "select count(*) from trips", "5").await;
    let log = root.path().join("raw/trips/_delta_log/00000000000000000001.json");
    std::fs::write(
        log,
        json!({"remove": {"path": "a.parquet", "dataChange": true, "deletionTimestamp": 0}}).to_string(),
    )
    .unwrap();
    check(&engine, "select count(*), sum(fare) from trips", "2|3.0").await;
}

#[tokio::test]
async fn a_name_in_two_namespaces_is_ambiguous() {
    let (root, engine) = lake();
    let [batch, _] = two_files();
    table(root.path(), "mart/trips", &batch.schema(), &[], json!({}), vec![]);
    check(
        &engine,
        "select * from trips",
        "invalid: line 1, column 15: 'trips' is a table in several namespaces\n  select * from trips\n                ^^^^^\nhint: write one of: mart.trips, raw.trips",
    )
    .await;
}

#[tokio::test]
async fn without_a_lake_its_tables_say_what_to_do() {
    let engine = engine(None, MemoryFiles::default());
    let error = text(&engine, "select * from lake.raw.trips").await;
    assert!(error.starts_with("not_found: ") && error.contains("flumen init"), "{error}");
    check(&engine, "select 1 + 1", "2").await;
}

#[tokio::test]
async fn text_comes_out_plain() {
    let (_root, engine) = lake();
    let batches = run(&engine, "select zone from raw.trips limit 1").await.unwrap();
    assert_eq!(batches[0].column(0).data_type(), &DataType::Utf8);
}
