//! Append and replace: what is committed, what is visible, and who wins.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, RecordBatch, Time64MicrosecondArray, TimestampMicrosecondArray, UInt64Array,
};
use flumen_core::load::{Fence, LoadId, Mode};
use flumen_core::write::Sink;

use crate::support::{Load, TestLake, load_id, told};

async fn appends(lake: TestLake) {
    let first = lake.load(&Load::new("a", &["n", "s:text"], &["1|x", "2|", "3|z"])).await.unwrap();
    assert_eq!(first.version, Some(0));
    let mut second = Load::new("b", &["s:text", "n", "extra"], &["y|4|7", "|5|8"]);
    second.writers = 2;
    assert_eq!(lake.load(&second).await.unwrap().version, Some(1));
    assert_eq!(lake.rows().await, ["1|x|", "2||", "3|z|", "4|y|7", "5||8"]);
    assert_eq!(lake.data_files().await.len(), 2, "two writers make one small file");

    let ids: Vec<LoadId> = ["a", "b", "c"].iter().map(|name| LoadId::derive(["file", name])).collect();
    assert_eq!(lake.sink().known(&ids).await.unwrap(), [true, true, false]);
    let loads = lake.sink().loads(10).await.unwrap();
    let told: Vec<_> = loads.iter().map(|entry| (entry.record.load.clone(), entry.version, entry.undone)).collect();
    assert_eq!(told, [(load_id("b"), Some(1), false), (load_id("a"), Some(0), false)]);
    assert_eq!(lake.lake.namespaces().await.unwrap(), ["raw"]);
    assert_eq!(lake.lake.tables("raw").await.unwrap().first().unwrap().to_string(), "raw.t");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_appended_in_a_folder() {
    appends(TestLake::local()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_appended_in_an_object_store() {
    appends(TestLake::memory()).await;
}

#[tokio::test]
async fn a_runtime_of_one_thread_will_do() {
    appends(TestLake::local()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_leaves_the_new_rows_only_and_may_change_types() {
    let lake = TestLake::local();
    let replace = |name: &str, columns: &[&str], rows: &[&str]| Load::new(name, columns, rows).mode(Mode::Replace);
    lake.load(&replace("a", &["n"], &["1", "2"])).await.unwrap();
    lake.load(&replace("b", &["n:text"], &["x"])).await.unwrap();
    assert_eq!(lake.rows().await, ["x"]);
    // The same load again: A, B, A ends with A, and the files of the first A are still there for an undo.
    lake.load(&replace("a", &["n"], &["1", "2"])).await.unwrap();
    assert_eq!(lake.rows().await, ["1", "2"]);
    assert_eq!(lake.data_files().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_dropped_or_aborted_leaves_nothing() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let load = Load::new("a", &["n"], &["1", "2"]);
        let (session, _) = lake.write(&load).await.unwrap();
        session.abort().await.unwrap();
        assert!(lake.data_files().await.is_empty());
        assert!(lake.table().snapshot().await.unwrap().is_none());
    }
    let lake = TestLake::local();
    let (session, _) = lake.write(&Load::new("a", &["n"], &["1", "2"])).await.unwrap();
    drop(session);
    assert!(!lake.root().join("raw").exists(), "not even empty folders stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_attempt_left_is_swept_by_the_next() {
    let lake = TestLake::local();
    let load = Load::new("a", &["n"], &["1", "2"]);
    lake.load(&Load::new("other", &["n"], &["9"])).await.unwrap();
    let folder = lake.root().join(format!("raw/t/load-{}", load_id("a")));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("00000000-left.parquet"), "half a file").unwrap();
    assert_eq!(lake.rows().await, ["9"]);
    lake.load(&load).await.unwrap();
    assert_eq!(lake.rows().await, ["1", "2", "9"]);
    assert_eq!(lake.data_files().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_load_cannot_run_twice_at_once() {
    let lake = TestLake::local();
    let load = Load::new("a", &["n"], &["1"]);
    let (session, record) = lake.write(&load).await.unwrap();
    let refused = lake.write(&load).await.err().unwrap();
    assert_eq!(
        told(&refused),
        format!(
            "conflict: lake.raw.t: the load {} is running already (wait until it ends; `flumen load list` shows the result)",
            load_id("a")
        )
    );
    session.commit(&record).await.unwrap();
    assert_eq!(lake.rows().await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_never_loaded_twice() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let one = Load::new("one", &["n"], &["1"]).of_file("same");
        let two = Load::new("two", &["n"], &["1"]).of_file("same");
        let (first, first_record) = lake.write(&one).await.unwrap();
        let (second, second_record) = lake.write(&two).await.unwrap();
        second.commit(&second_record).await.unwrap();
        let refused = first.commit(&first_record).await.unwrap_err();
        assert_eq!(
            told(&refused),
            "conflict: lake.raw.t: another load has loaded same.csv meanwhile \
             (run the same command again: it loads what is missing)"
        );
        assert_eq!(lake.rows().await, ["1"]);
        assert_eq!(lake.data_files().await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_known_answered_still_counts_at_the_commit() {
    let lake = TestLake::local();
    let sink = lake.sink();
    let id = LoadId::derive(["file", "same"]);
    assert_eq!(sink.known(std::slice::from_ref(&id)).await.unwrap(), [false]);
    lake.load(&Load::new("one", &["n"], &["1"]).of_file("same")).await.unwrap();
    let (session, record) = lake.write_by(&sink, &Load::new("two", &["n"], &["1"]).of_file("same")).await.unwrap();
    assert!(session.commit(&record).await.is_err());
    // Who knows that it is there, and wants it nevertheless, gets it.
    assert_eq!(sink.known(&[id]).await.unwrap(), [true]);
    let (session, record) = lake.write_by(&sink, &Load::new("two", &["n"], &["1"]).of_file("same")).await.unwrap();
    session.commit(&record).await.unwrap();
    assert_eq!(lake.rows().await, ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_loads_make_and_fill_the_same_table_at_once() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let mut sessions = Vec::new();
        for number in 0..8 {
            let row = number.to_string();
            sessions.push(lake.write(&Load::new(&format!("l{number}"), &["n"], &[&row])).await.unwrap());
        }
        let commits = sessions.into_iter().map(|(session, record)| async move { session.commit(&record).await });
        for committed in futures::future::join_all(commits).await {
            committed.unwrap();
        }
        assert_eq!(lake.rows().await, ["0", "1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(lake.table().snapshot().await.unwrap().unwrap().version(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_holder_can_commit_neither_before_nor_after_the_new_one() {
    let lake = TestLake::memory();
    lake.load(&Load::new("first", &["n"], &["0"])).await.unwrap();
    let slow = Load { fence: 1, ..Load::new("a", &["n"], &["1"]) };
    let fast = Load { fence: 2, ..slow.clone() };
    lake.sink().claim(&load_id("a"), Fence(1)).await.unwrap();
    let (old, old_record) = lake.write(&slow).await.unwrap();
    let (old_too, old_too_record) = lake.write(&slow).await.unwrap();
    lake.sink().claim(&load_id("a"), Fence(2)).await.unwrap();
    let refused = old.commit(&old_record).await.unwrap_err();
    assert!(refused.to_string().contains("attempt 2 has taken over"), "{refused}");
    lake.load(&fast).await.unwrap();
    let refused = old_too.commit(&old_too_record).await.unwrap_err();
    assert!(refused.to_string().contains("is committed already"), "{refused}");
    assert!(lake.sink().claim(&load_id("a"), Fence(3)).await.is_err());
    assert_eq!(lake.rows().await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_waits_for_no_older_one() {
    // Also where there is no table yet, and so no claim.
    for first in [false, true] {
        let lake = TestLake::local();
        if first {
            lake.load(&Load::new("first", &["n"], &["0"])).await.unwrap();
        }
        let slow = Load { fence: 1, ..Load::new("a", &["n"], &["1"]) };
        let fast = Load { fence: 2, ..slow.clone() };
        let (hangs, record) = lake.write(&slow).await.unwrap();
        let (session, fast_record) = lake.write(&fast).await.unwrap();
        // What the older one has written is there as long as it may commit.
        let third = lake.write(&Load { fence: 3, ..slow.clone() }).await.unwrap();
        third.0.abort().await.unwrap();
        session.commit(&fast_record).await.unwrap();
        let refused = hangs.commit(&record).await.unwrap_err();
        assert_eq!(refused.kind(), flumen_core::ErrorKind::Conflict, "{refused}");
        let rows: &[&str] = if first { &["0", "1"] } else { &["1"] };
        assert_eq!(lake.rows().await, rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_have_folders_and_values() {
    let lake = TestLake::local();
    let mut load = Load::new("a", &["day:date", "n"], &["2019-01-01|1", "2019-01-02|2", "|3", "2019-01-01|4"]);
    load.partition_by = vec!["DAY".to_owned()];
    load.writers = 2;
    lake.load(&load).await.unwrap();
    assert_eq!(lake.rows().await, ["2019-01-01|1", "2019-01-01|4", "2019-01-02|2", "|3"]);
    let files = lake.data_files().await;
    assert_eq!(files.len(), 3);
    assert!(files.iter().any(|path| path.contains("/day=2019-01-01/")), "{files:?}");
    lake.load(&Load::new("b", &["day:date", "n"], &["2019-01-02|5"])).await.unwrap();
    assert_eq!(lake.sink().state().await.unwrap().unwrap().partition_by, ["day"]);
    assert_eq!(lake.rows().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_do_not_fit_are_refused_by_name() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["Number", "s:text"], &["1|x"])).await.unwrap();
    let refused = lake.load(&Load::new("b", &["number:text"], &["x"])).await.unwrap_err();
    assert_eq!(
        told(&refused),
        "invalid: lake.raw.t: the column 'Number' is Int64 in the table, but Utf8 in the load \
         (give it the table's type with --types Number=…, or load into another table)"
    );
    let frozen = Load { evolve: false, ..Load::new("c", &["other"], &["1"]) };
    assert!(lake.load(&frozen).await.unwrap_err().to_string().contains("no column 'other'"));
    lake.load(&Load::new("d", &["number"], &["2"])).await.unwrap();
    assert_eq!(lake.rows().await, ["1|x", "2|"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_kept_as_documented() {
    let lake = TestLake::local();
    let batch = RecordBatch::try_from_iter([
        ("ntz", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000])) as ArrayRef),
        ("tz", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("+02:00"))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![3_661_000_001]))),
        ("big", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        (
            "d",
            Arc::new(
                Decimal128Array::from(vec![-1_234_567_890_123_456_789_012_i128])
                    .with_precision_and_scale(38, 3)
                    .unwrap(),
            ),
        ),
    ])
    .unwrap();
    lake.load(&Load::of_batch("a", batch)).await.unwrap();
    assert_eq!(
        lake.rows().await,
        [
            "1970-01-01T00:00:01.500|1970-01-01T00:00:01.500Z|01:01:01.000001|18446744073709551615|-1234567890123456789.012"
        ]
    );
    let file = lake.table().snapshot().await.unwrap().unwrap().files().unwrap().remove(0);
    let log = std::fs::read_to_string(lake.root().join("raw/t/_delta_log/00000000000000000000.json")).unwrap();
    assert!(log.contains(r#"\"d\":-1234567890123456789.012"#), "{log}");
    assert!(log.contains("timestampNtz"));
    assert_eq!(file.stats.unwrap().min_values.get("ntz").unwrap(), "1970-01-01T00:00:01.500000");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_outlives_checkpoints_and_the_log() {
    let lake = TestLake::local();
    for number in 0..=52 {
        lake.load(&Load::new(&format!("l{number}"), &["n"], &["1"])).await.unwrap();
    }
    let log = lake.root().join("raw/t/_delta_log");
    assert!(log.join("00000000000000000050.checkpoint.parquet").exists());
    for version in 0..50 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let ids: Vec<LoadId> = ["l0", "l50", "l52", "l53"].iter().map(|name| LoadId::derive(["file", name])).collect();
    assert_eq!(lake.sink().known(&ids).await.unwrap(), [true, true, true, false]);
    assert_eq!(lake.rows().await.len(), 53);
    assert_eq!(lake.sink().loads(100).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_no_table_is_left_alone() {
    let lake = TestLake::local();
    std::fs::create_dir_all(lake.root().join("raw/t")).unwrap();
    std::fs::write(lake.root().join("raw/t/mine.parquet"), "x").unwrap();
    let refused = lake.sink().state().await.err().unwrap();
    assert!(refused.to_string().contains("mine.parquet) but is no Delta table"), "{refused}");
    assert!(lake.load(&Load::new("a", &["n"], &["1"])).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_to_is_named() {
    let lake = TestLake::local();
    std::fs::create_dir_all(lake.root()).unwrap();
    std::fs::write(lake.root().join("raw"), "a file where a folder should be").unwrap();
    let refused = lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap_err();
    assert!(refused.to_string().starts_with("lake.raw.t: "), "{refused}");
    assert!(std::fs::metadata(lake.root().join("raw")).unwrap().is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_deletes_the_files_of_an_attempt_that_can_still_commit() {
    let lake = TestLake::memory();
    let slow = Load { fence: 1, ..Load::new("a", &["n"], &["1"]) };
    let fast = Load { fence: 2, ..slow.clone() };
    // There is no table yet in which the second attempt could claim the load.
    let (old, old_record) = lake.write(&slow).await.unwrap();
    lake.sink().claim(&load_id("a"), Fence(2)).await.unwrap();
    let (new, new_record) = lake.write(&fast).await.unwrap();
    old.commit(&old_record).await.unwrap();
    let refused = new.commit(&new_record).await.unwrap_err();
    assert!(refused.to_string().contains("is committed already"), "{refused}");
    assert_eq!(lake.rows().await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dictionaries_and_runs_are_text_like_any_other() {
    use arrow::array::{DictionaryArray, Int32Array, RunArray, StringArray, types::Int32Type};
    let lake = TestLake::local();
    let words: DictionaryArray<Int32Type> = ["x", "x", "y", "x"].into_iter().collect();
    let runs = RunArray::try_new(&Int32Array::from(vec![3, 4]), &StringArray::from(vec!["one", "two"])).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![("word", Arc::new(words)), ("run", Arc::new(runs))];
    let load = Load::of_batch("a", RecordBatch::try_from_iter(columns).unwrap());
    lake.load(&load).await.unwrap();
    assert_eq!(lake.rows().await, ["x|one", "x|one", "x|two", "y|one"]);
    let mut parted = Load { name: "b".to_owned(), ..load };
    parted.partition_by = vec!["word".to_owned()];
    let lake = TestLake::memory();
    lake.load(&parted).await.unwrap();
    assert_eq!(lake.rows().await, ["x|one", "x|one", "x|two", "y|one"]);
}
