//! Restore: an earlier version comes back, and the ledger with it.

use flumen_core::ErrorKind;
use flumen_core::load::{LoadId, Mode};
use flumen_core::write::Sink;
use flumen_lake::ops::restore::restore;
use flumen_lake::ops::vacuum::{VacuumOptions, vacuum};

use crate::support::{Load, TestLake, load_id};

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_what_it_was_and_what_came_after_can_be_loaded_again() {
    let lake = TestLake::memory();
    lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap();
    lake.load(&Load::new("b", &["n", "m"], &["2|2"])).await.unwrap();
    lake.load(&Load::new("c", &["n"], &["9"]).mode(Mode::Replace)).await.unwrap();
    assert_eq!(lake.rows().await, ["9|"]);
    let restored = restore(&lake.catalog(), &lake.table(), 0).await.unwrap();
    assert_eq!((restored.version, restored.files_added, restored.files_removed), (3, 1, 1));
    assert_eq!(lake.rows().await, ["1"]);
    let file = |name: &str| LoadId::derive(["file", name]);
    let known = lake.sink().known(&[file("a"), file("b"), file("c")]).await.unwrap();
    assert_eq!(known, [true, false, false]);
    let loads = lake.sink().loads(10).await.unwrap();
    let undone: Vec<_> = loads.iter().map(|load| (load.record.load == load_id("a"), load.undone)).collect();
    assert_eq!(undone, [(false, true), (false, true), (true, false)]);

    lake.load(&Load::new("b", &["n", "m"], &["2|2"])).await.unwrap();
    assert_eq!(lake.rows().await, ["1|", "2|2"]);
    restore(&lake.catalog(), &lake.table(), 2).await.unwrap();
    assert_eq!(lake.rows().await, ["9|"], "forward again");
    let known = lake.sink().known(&[file("a"), file("b"), file("c")]).await.unwrap();
    assert_eq!(known, [true, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_cannot_be_restored() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap();
    lake.load(&Load::new("c", &["n"], &["9"]).mode(Mode::Replace)).await.unwrap();
    let error = restore(&lake.catalog(), &lake.table(), 7).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "lake.raw.t has no version 7"));
    let later = TestLake::on(lake.lake.clone(), 1 << 40, 4_000);
    vacuum(&later.catalog(), &VacuumOptions::default()).await.unwrap();
    let error = restore(&lake.catalog(), &lake.table(), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("was vacuumed"), "{error}");
    assert_eq!(lake.rows().await, ["9"]);
}
