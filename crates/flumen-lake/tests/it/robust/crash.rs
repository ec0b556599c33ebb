//! Walks the points at which a process can be killed: before the first change to the store, between any two, and after the
//! last. After each, the next command finds a lake that is whole, in the state of before or of after; it can do the same work
//! again; and vacuum leaves nothing of the dead behind.

use flumen_lake::catalog::{Located, PROD};
use flumen_lake::ops::check::{CheckOptions, check};
use flumen_lake::ops::vacuum::{VacuumOptions, vacuum};
use flumen_testkit::bucket::Bucket;

use super::place::Place;
use super::work::{name, run, wait};
use crate::support::{Load, TestLake};

/// A lake with a table of three loads, of which one was replaced, a dropped table, and an environment with a copy of its own.
async fn fixture(root: &Place) -> TestLake {
    let lake = TestLake::on(root.lake(), 1, 0);
    let catalog = lake.catalog();
    for (load, rows) in [("a", &["1", "2"]), ("b", &["3", "4"]), ("c", &["5", "6"])] {
        lake.load(&Load::new(load, &["n"], rows)).await.unwrap();
    }
    let gone = lake.lake.table(&name("gone")).unwrap();
    lake.append(&gone, "gone", &["1"]).await;
    catalog.drop_entries(PROD, &[name("gone")]).await.unwrap();
    catalog.create_environment("dev", PROD, &[]).await.unwrap();
    let other = catalog.writable("dev", &name("other")).await.unwrap();
    lake.append(&other.table, "other", &["7"]).await;
    lake
}

/// What readers see: the tables of `prod` and of `dev`, with their rows.
async fn seen(root: &Place) -> Vec<String> {
    let lake = TestLake::on(root.lake(), 1, 0);
    let catalog = lake.catalog();
    let state = catalog.read().await.unwrap();
    let mut seen = Vec::new();
    for environment in [PROD, "dev"] {
        for listed in catalog.list(&state, environment).await.unwrap() {
            let Some(Located::Table { table, version, .. }) =
                catalog.locate(&state, environment, &listed.name).unwrap()
            else {
                panic!("{listed:?}")
            };
            let Some(snapshot) = table.snapshot_at(version).await.unwrap() else { continue };
            let rows = lake.rows_of(&snapshot).await;
            seen.push(format!("{environment} {}: {}", listed.name, rows.join(" ")));
        }
    }
    seen
}

async fn walk(task: &str) {
    let folder = tempfile::tempdir().unwrap();
    walk_at(task, &Place::Folder(folder.path().join("pattern"))).await;
}

async fn walk_in_bucket(task: &str) {
    let bucket = Bucket::s3();
    walk_at(task, &Place::Bucket(bucket.endpoint.clone(), "pattern".to_owned())).await;
}

async fn walk_at(task: &str, pattern: &Place) {
    fixture(pattern).await;
    let before = seen(pattern).await;
    let whole = pattern.beside("whole");
    pattern.copy(&whole).await;
    let (status, said) = wait(run(task, &whole, u64::MAX));
    assert!(status.success(), "{task}: {said}");
    let after = seen(&whole).await;
    let mut points = 0;
    for changes in 0.. {
        let root = pattern.beside(&format!("killed-{changes}"));
        pattern.copy(&root).await;
        let (status, said) = wait(run(task, &root, changes));
        let survived = status.success();
        let at = format!("{task}, killed after {changes} changes: {said}");
        check_whole(&root, &at).await;
        let left = seen(&root).await;
        assert!(left == before || left == after, "{at}\n{left:?}\nis neither\n{before:?}\nnor\n{after:?}");
        if !survived {
            points += 1;
            again(task, &root, &after, &at).await;
        }
        clean(&root, &at).await;
        if survived {
            break;
        }
    }
    assert!(points > 0, "{task}: no point at which to kill it");
}

/// Nothing is broken, though something may be left over.
async fn check_whole(root: &Place, at: &str) {
    let lake = TestLake::on(root.lake(), 1, 0);
    let report = check(&lake.catalog(), &CheckOptions { only: Vec::new(), deep: true }).await.unwrap();
    assert!(!report.is_broken(), "{at}\n{report:?}");
}

/// The same work once more leads to where it should have led; where it was done already, it may say so.
async fn again(task: &str, root: &Place, after: &[String], at: &str) {
    let (status, said) = wait(run(task, root, u64::MAX));
    let left = seen(root).await;
    assert!(status.success() || left == after, "{at}\nthe second time: {said}");
    assert_eq!(left, after, "{at}");
}

/// Years later, vacuum leaves nothing that is not of the lake, and takes nothing that is.
async fn clean(root: &Place, at: &str) {
    let before = seen(root).await;
    let lake = TestLake::on(root.lake(), 9_000_000, 9_000);
    vacuum(&lake.catalog(), &VacuumOptions::default()).await.unwrap();
    assert_eq!(seen(root).await, before, "{at}: vacuum took what it should not");
    let report = check(&lake.catalog(), &CheckOptions { only: Vec::new(), deep: true }).await.unwrap();
    assert!(report.findings.is_empty(), "{at}\n{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn append() {
    walk("append").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replace() {
    walk("replace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merge() {
    walk("merge").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn optimize() {
    walk("optimize").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_itself() {
    walk("vacuum").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore() {
    walk("restore").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rename() {
    walk("rename").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_table() {
    walk("drop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_write_in_an_environment() {
    walk("copy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publish() {
    walk("publish").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn append_in_a_bucket() {
    walk_in_bucket("append").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn optimize_in_a_bucket() {
    walk_in_bucket("optimize").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_write_in_an_environment_in_a_bucket() {
    walk_in_bucket("copy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_in_a_bucket() {
    walk_in_bucket("publish").await;
}
