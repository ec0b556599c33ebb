//! `flumen.loads` and `flumen.drift`, over lakes in a folder and in an object store.

use flumen_core::load::Drift;

use super::files::MemoryFiles;
use super::{check, engine, text};
use crate::support::{Load, TestLake, load_id};

async fn check_ledger(lake: TestLake) {
    let engine = engine(Some(lake.lake.clone()), MemoryFiles::default());
    check(&engine, "select count(*) from flumen.loads", "0").await;
    lake.load(&Load::new("one", &["n"], &["1", "2"])).await.unwrap();
    let (session, mut record) = lake.write(&Load::new("two", &["n", "s:text"], &["3|x"])).await.unwrap();
    let drift = |column: &str, from: Option<&str>, to: Option<&str>, action: &str| Drift {
        file: "two.csv".to_owned(),
        column: column.to_owned(),
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
        action: action.to_owned(),
    };
    record.drift = vec![drift("s", None, Some("text"), "added"), drift("m", Some("bigint"), None, "missing: null")];
    session.commit(&record).await.unwrap();
    lake.undo("one").await.unwrap();

    check(&engine, "select sum(n), max(s) from raw.t", "3|x").await;
    check(
        &engine,
        "select l.load, dataset, mode, files, rows_written, undone from lake.flumen.loads l where undoes is null order by version",
        &format!("{}|lake.raw.t|append|1|2|true\n{}|lake.raw.t|append|1|1|false", load_id("one"), load_id("two")),
    )
    .await;
    check(
        &engine,
        "select d.file, d.column, \"from\", d.to, action from flumen.drift d join flumen.loads using (load) order by 2",
        "two.csv|m|bigint|NULL|missing: null\ntwo.csv|s|NULL|text|added",
    )
    .await;
    check(
        &engine,
        "select table_schema, table_name from information_schema.tables where table_schema in ('flumen', 'raw') order by 2",
        "flumen|drift\nflumen|loads\nflumen|quarantine\nraw|t",
    )
    .await;
}

#[tokio::test]
async fn ledgers_are_tables() {
    check_ledger(TestLake::local()).await;
}

#[tokio::test]
async fn a_lake_may_be_in_an_object_store() {
    check_ledger(TestLake::memory()).await;
}

#[tokio::test]
async fn system_tables_need_a_lake_and_a_right_name() {
    let without = engine(None, MemoryFiles::default());
    assert!(text(&without, "select * from flumen.loads").await.starts_with("not_found: "));
    let lake = TestLake::memory();
    let with = engine(Some(lake.lake.clone()), MemoryFiles::default());
    let error = text(&with, "select * from flumen.load").await;
    assert!(error.contains("hint: did you mean 'flumen.loads'?"), "{error}");
}
