//! Optimize: fewer files, the same rows, each load still by itself.

use flumen_lake::ops::history::history;
use flumen_lake::ops::optimize::{OptimizeOptions, optimize};

use crate::support::{Load, TestLake};

async fn loaded(lake: &TestLake, loads: usize) {
    for number in 0..loads {
        let rows = [format!("{}|x{number}", 100 - number), format!("{number}|y{number}")];
        let load = Load::new(&format!("l{number}"), &["n", "s:text"], &[rows[0].as_str(), rows[1].as_str()]);
        lake.load(&load).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_become_one_and_every_load_can_still_be_taken_back() {
    for lake in [TestLake::local(), TestLake::memory()] {
        loaded(&lake, 5).await;
        let rows = lake.rows().await;
        let done = optimize(&lake.catalog(), &lake.table(), &OptimizeOptions::default()).await.unwrap();
        assert_eq!((done.files_before, done.files_after, done.version), (5, 1, Some(5)));
        assert_eq!(lake.rows().await, rows);
        assert_eq!(lake.loads_of_rows(&["l0", "l1"]).await.iter().filter(|load| *load == "l1").count(), 2);
        let last = history(&lake.table(), 1).await.unwrap();
        assert_eq!((last[0].operation.as_str(), last[0].files_removed), ("OPTIMIZE", 5));

        lake.undo("l3").await.unwrap();
        let left: Vec<_> = rows.iter().filter(|row| !row.ends_with('3')).cloned().collect();
        assert_eq!(lake.rows().await, left);
        let done = optimize(&lake.catalog(), &lake.table(), &OptimizeOptions::default()).await.unwrap();
        assert_eq!(done.files_before, 0, "one file is few enough");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clustered_rows_stand_in_order() {
    let lake = TestLake::memory();
    loaded(&lake, 6).await;
    let options = OptimizeOptions { cluster_by: vec!["n".to_owned()], ..OptimizeOptions::default() };
    optimize(&lake.catalog(), &lake.table(), &options).await.unwrap();
    let batches = lake.batches().await;
    let numbers: Vec<i64> = batches
        .iter()
        .flat_map(|batch| {
            let column = batch.column_by_name("n").unwrap().clone();
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(column.as_ref()).values().to_vec()
        })
        .collect();
    assert_eq!(numbers.len(), 12);
    assert!(numbers.is_sorted(), "{numbers:?}");
    let wrong = OptimizeOptions { cluster_by: vec!["m".to_owned()], ..OptimizeOptions::default() };
    let error = optimize(&lake.catalog(), &lake.table(), &wrong).await.unwrap_err();
    assert_eq!(error.message(), "lake.raw.t: there is no column 'm'");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_stay_apart_and_a_rehearsal_changes_nothing() {
    let lake = TestLake::memory();
    for number in 0..3 {
        let mut load = Load::new(&format!("l{number}"), &["n", "p:text"], &["1|a", "2|b"]);
        load.partition_by = vec!["p".to_owned()];
        lake.load(&load).await.unwrap();
    }
    let rows = lake.rows().await;
    let rehearsal = OptimizeOptions { dry_run: true, ..OptimizeOptions::default() };
    let done = optimize(&lake.catalog(), &lake.table(), &rehearsal).await.unwrap();
    assert_eq!((done.files_before, done.version), (6, None));
    let done = optimize(&lake.catalog(), &lake.table(), &OptimizeOptions::default()).await.unwrap();
    assert_eq!((done.files_before, done.files_after), (6, 2));
    assert_eq!(lake.rows().await, rows);
    let snapshot = lake.table().snapshot().await.unwrap().unwrap();
    let partitions: Vec<_> = snapshot.files().unwrap().into_iter().map(|file| file.partition["p"].clone()).collect();
    assert_eq!(partitions.len(), 2);
}
