//! Vacuum: what goes, and what must not.

use flumen_core::load::Mode;
use flumen_lake::catalog::{PROD, Retention};
use flumen_lake::ops::vacuum::{VacuumOptions, vacuum};
use object_store::ObjectStoreExt;

use crate::catalog::names::{append, name, rows};
use crate::support::{Load, TestLake};

/// What vacuum removes so many days after the year 2023 in which the tests' clock begins.
async fn vacuumed(lake: &TestLake, days: u64, options: VacuumOptions) -> Vec<(String, &'static str, u64)> {
    let later = TestLake::on(lake.lake.clone(), 1 << 40, days);
    let done = vacuum(&later.catalog(), &options).await.unwrap();
    done.into_iter().map(|one| (one.place, one.what, one.files)).collect()
}

async fn replaced(lake: &TestLake) {
    lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap();
    lake.load(&Load::new("b", &["n"], &["2"]).mode(Mode::Replace)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_is_kept_for_a_week() {
    for lake in [TestLake::local(), TestLake::memory()] {
        replaced(&lake).await;
        assert!(vacuumed(&lake, 6, VacuumOptions::default()).await.is_empty());
        let rehearsal = VacuumOptions { dry_run: true, ..VacuumOptions::default() };
        let expect = [("lake.raw.t".to_owned(), "removed rows", 1)];
        assert_eq!(vacuumed(&lake, 8, rehearsal).await, expect);
        assert_eq!(lake.data_files().await.len(), 2);
        assert_eq!(vacuumed(&lake, 8, VacuumOptions::default()).await, expect);
        assert_eq!(lake.data_files().await.len(), 1);
        assert_eq!(lake.rows().await, ["2"]);
        assert!(vacuumed(&lake, 8, VacuumOptions::default()).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retention_of_a_table_and_of_the_command_count() {
    let lake = TestLake::memory();
    replaced(&lake).await;
    let keep = Some(Retention { keep_s: 30 * 86_400, column: None });
    lake.catalog()
        .edit(PROD, &name("raw.t"), "retention", |entry| {
            if let flumen_lake::catalog::Entry::Table(table) = entry {
                table.retention.clone_from(&keep);
            }
            Ok(())
        })
        .await
        .unwrap();
    assert!(vacuumed(&lake, 29, VacuumOptions::default()).await.is_empty());
    let now = VacuumOptions { retain_s: Some(0), ..VacuumOptions::default() };
    assert_eq!(vacuumed(&lake, 1, now).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_hold_on_to_what_they_name() {
    for lake in [TestLake::local(), TestLake::memory()] {
        lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap();
        lake.catalog().create_environment("dev", PROD, &[]).await.unwrap();
        lake.load(&Load::new("b", &["n"], &["2"]).mode(Mode::Replace)).await.unwrap();
        assert!(vacuumed(&lake, 4_000, VacuumOptions::default()).await.is_empty());
        lake.catalog().drop_entries(PROD, &[name("raw.t")]).await.unwrap();
        assert!(vacuumed(&lake, 4_000, VacuumOptions::default()).await.is_empty(), "dropped, and still pinned");
        assert_eq!(rows(&lake.catalog(), "dev", "raw.t").await, Some(1));
        lake.catalog().drop_environment("dev").await.unwrap();
        assert_eq!(vacuumed(&lake, 4_000, VacuumOptions::default()).await.len(), 1);
        assert!(lake.data_files().await.is_empty());
        assert!(lake.catalog().read().await.unwrap().dropped.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_runs_is_left_alone_and_what_it_left_is_swept() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap();
    let (session, record) = lake.write(&Load::new("b", &["n"], &["2"])).await.unwrap();
    assert!(vacuumed(&lake, 4_000, VacuumOptions::default()).await.is_empty(), "its lock is held");
    session.commit(&record).await.unwrap();
    assert_eq!(lake.rows().await, ["1", "2"]);
    let (session, _) = lake.write(&Load::new("c", &["n"], &["3"])).await.unwrap();
    // As a killed process would: the files stay, and so does the lock, which nobody holds.
    let copy = tempfile::tempdir().unwrap();
    let folder = lake.root().join("raw").join("t");
    let kept = copy.path().join("kept");
    crate::robust::copy(&folder, &kept);
    session.abort().await.unwrap();
    crate::robust::copy(&kept, &folder);
    let swept = vacuumed(&lake, 0, VacuumOptions::default()).await;
    assert_eq!(swept, [("lake.raw.t".to_owned(), "orphans", 1)]);
    assert_eq!(lake.rows().await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_store_without_locks_age_tells() {
    let lake = TestLake::memory();
    lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap();
    let (session, record) = lake.write(&Load::new("b", &["n"], &["2"])).await.unwrap();
    let now = VacuumOptions { retain_s: Some(0), ..VacuumOptions::default() };
    assert!(vacuumed(&lake, 1, now).await.is_empty(), "it may be running");
    session.commit(&record).await.unwrap();
    // What a killed load has uploaded.
    let left = object_store::path::Path::from(format!("load-{}/1.parquet", crate::support::load_id("c")));
    lake.table().store().put(&left, "half a file".into()).await.unwrap();
    let now = VacuumOptions { retain_s: Some(0), ..VacuumOptions::default() };
    assert!(vacuumed(&lake, 1, now).await.is_empty(), "it may be of a load that runs");
    assert_eq!(vacuumed(&lake, 4_000, VacuumOptions::default()).await, [("lake.raw.t".to_owned(), "orphans", 1)]);
    assert_eq!(lake.rows().await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_goes_in_time_and_its_name_is_free_again() {
    for lake in [TestLake::local(), TestLake::memory()] {
        append(&lake, PROD, "raw.t", "a", 2).await;
        lake.append(&lake.table().quarantine().unwrap(), "q", &["7"]).await;
        lake.catalog().drop_entries(PROD, &[name("raw.t")]).await.unwrap();
        assert!(vacuumed(&lake, 6, VacuumOptions::default()).await.is_empty());
        let gone = vacuumed(&lake, 8, VacuumOptions::default()).await;
        let places: Vec<_> = gone.iter().map(|(place, what, _)| (place.as_str(), *what)).collect();
        assert_eq!(places, [("lake.raw.t", "dropped table"), ("lake.raw.t__quarantine", "dropped table")]);
        assert_eq!(rows(&lake.catalog(), PROD, "raw.t").await, None);
        append(&lake, PROD, "raw.t", "a", 1).await;
        assert_eq!(rows(&lake.catalog(), PROD, "raw.t").await, Some(1));
    }
}
