//! Check: what is broken is named, what is left over too.

use flumen_core::limits::LAKE_CHECKPOINT_COMMITS;
use flumen_lake::catalog::PROD;
use flumen_lake::ops::check::{CheckOptions, Severity, check};

use crate::catalog::names::{append, name};
use crate::support::{Load, TestLake};

async fn findings(lake: &TestLake, deep: bool) -> Vec<(Severity, String)> {
    let report = check(&lake.catalog(), &CheckOptions { only: Vec::new(), deep }).await.unwrap();
    report
        .findings
        .into_iter()
        .map(|finding| (finding.severity, format!("{}: {}", finding.place, finding.what)))
        .collect()
}

fn data_file(lake: &TestLake, files: &[String]) -> std::path::PathBuf {
    lake.root().join("raw/t").join(files.first().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_lake_has_no_findings() {
    for lake in [TestLake::local(), TestLake::memory()] {
        assert!(findings(&lake, true).await.is_empty());
        for number in 0..LAKE_CHECKPOINT_COMMITS + 2 {
            lake.load(&Load::new(&format!("l{number}"), &["n"], &["1"])).await.unwrap();
        }
        append(&lake, PROD, "raw.u", "u", 1).await;
        lake.catalog().rename(PROD, &[(name("raw.u"), name("clean.u"))]).await.unwrap();
        lake.catalog().create_environment("dev", PROD, &[]).await.unwrap();
        append(&lake, "dev", "raw.t", "d", 1).await;
        assert_eq!(findings(&lake, true).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_short_and_broken_files_are_found() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap();
    let file = data_file(&lake, &lake.data_files().await);
    let bytes = std::fs::read(&file).unwrap();

    let mut wrong = bytes.clone();
    let end = wrong.len();
    wrong[end - 6] ^= 0xff;
    std::fs::write(&file, &wrong).unwrap();
    assert!(findings(&lake, false).await.is_empty(), "a look at the size does not see that");
    let found = findings(&lake, true).await;
    assert!(found.len() == 1 && found[0].0 == Severity::Broken, "{found:?}");

    std::fs::write(&file, &bytes[..10]).unwrap();
    let found = findings(&lake, false).await;
    assert!(found.len() == 1 && found[0].1.contains("has 10 bytes"), "{found:?}");

    std::fs::remove_file(&file).unwrap();
    let found = findings(&lake, false).await;
    assert!(found.len() == 1 && found[0].1.contains("is missing"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_logs_are_found() {
    let lake = TestLake::local();
    for load in ["a", "b", "c"] {
        lake.load(&Load::new(load, &["n"], &["1"])).await.unwrap();
    }
    let log = lake.root().join("raw/t/_delta_log");
    std::fs::remove_file(log.join("00000000000000000001.json")).unwrap();
    let found = findings(&lake, false).await;
    assert!(found.iter().any(|(_, what)| what == "lake.raw.t: the log lacks version 1"), "{found:?}");

    let catalog = lake.catalog();
    catalog.create_environment("dev", PROD, &[]).await.unwrap();
    std::fs::write(lake.root().join("_flumen/catalog/00000000000000000001.json"), "{").unwrap();
    let found = findings(&lake, false).await;
    assert!(found[0].1.starts_with("catalog: "), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_over_is_told_and_is_no_fault() {
    let lake = TestLake::local();
    lake.load(&Load::new("a", &["n"], &["1"])).await.unwrap();
    let (session, _) = lake.write(&Load::new("b", &["n"], &["2"])).await.unwrap();
    std::fs::write(lake.root().join("raw/t/_delta_log/00000000000000000001.json#1"), "half").unwrap();
    let found = findings(&lake, false).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|(severity, _)| *severity == Severity::Leftover));
    session.abort().await.unwrap();
}
