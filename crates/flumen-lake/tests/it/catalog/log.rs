//! The log of the catalog: versions, writers at once, checkpoints, what a newer Flumen wrote.

use flumen_core::ErrorKind;
use flumen_core::dataset::TableName;
use flumen_core::limits::CATALOG_CHECKPOINT_COMMITS;
use flumen_lake::catalog::{Action, Catalog, Namespace};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::support::{TestLake, told};

fn namespace(catalog_time: i64) -> Namespace {
    let created = chrono::DateTime::from_timestamp(catalog_time, 0).unwrap();
    Namespace { about: Default::default(), created }
}

async fn add(catalog: &Catalog, name: &str) -> u64 {
    let reason = format!("make {name}");
    let put = Action::PutNamespace { name: name.to_owned(), namespace: namespace(0) };
    catalog.change(&reason, |_| Ok(vec![put.clone()])).await.unwrap().version
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_without_a_catalog_has_an_empty_one() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let state = lake.catalog().read().await.unwrap();
        assert_eq!((state.version, state.entries.len()), (0, 0));
        let name = TableName::new("raw", "t").unwrap();
        assert!(lake.catalog().locate(&state, "prod", &name).unwrap().is_some(), "folders need no entry");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_seen_by_others_and_every_version_can_be_read() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let (one, other) = (lake.catalog(), lake.catalog());
        let many = CATALOG_CHECKPOINT_COMMITS * 2 + 3;
        for number in 1..=many {
            let by = if number % 2 == 0 { &one } else { &other };
            assert_eq!(add(by, &format!("n{number}")).await, number);
        }
        for catalog in [one, other, lake.catalog()] {
            assert_eq!(catalog.read().await.unwrap().namespaces.len() as u64, many);
            for version in 1..=many {
                assert_eq!(catalog.read_at(version).await.unwrap().namespaces.len() as u64, version);
            }
            assert_eq!(catalog.read_at(many + 1).await.unwrap_err().kind(), ErrorKind::NotFound);
            let history = catalog.history(3).await.unwrap();
            assert_eq!(history.iter().map(|commit| commit.version).collect::<Vec<_>>(), [many, many - 1, many - 2]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_is_old_broken_or_missing_costs_time_only() {
    let lake = TestLake::memory();
    for number in 1..=CATALOG_CHECKPOINT_COMMITS + 1 {
        add(&lake.catalog(), &format!("n{number}")).await;
    }
    let hint = Path::from("some/where/_flumen/catalog/_latest");
    for text in ["{\"version\":0}", "{\"version\":4000}", "not JSON", ""] {
        lake.lake.store().put(&hint, PutPayload::from(text)).await.unwrap();
        assert_eq!(lake.catalog().read().await.unwrap().version, CATALOG_CHECKPOINT_COMMITS + 1, "{text}");
    }
    lake.lake.store().delete(&hint).await.unwrap();
    assert_eq!(lake.catalog().read().await.unwrap().version, CATALOG_CHECKPOINT_COMMITS + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_at_once_every_commit_is_there_once() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let writers = (0..8).map(|writer| {
            let catalog = lake.catalog();
            tokio::spawn(async move {
                for number in 0..10 {
                    add(&catalog, &format!("w{writer}_{number}")).await;
                }
            })
        });
        futures::future::try_join_all(writers.collect::<Vec<_>>()).await.unwrap();
        let state = lake.catalog().read().await.unwrap();
        assert_eq!((state.version, state.namespaces.len()), (80, 80));
        let mut reasons: Vec<String> =
            lake.catalog().history(100).await.unwrap().into_iter().map(|commit| commit.reason).collect();
        reasons.sort();
        reasons.dedup();
        assert_eq!(reasons.len(), 80, "no commit is there twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_flumen_wrote_is_refused_and_a_broken_file_named() {
    let cases = [
        (r#"{"format":2,"anything":"else"}"#, "was written by a newer flumen"),
        (
            r#"{"format":1,"version":1,"id":"00000000-0000-0000-0000-000000000001","at":"2026-01-01T00:00:00Z",
                "reason":"","by":"","actions":[{"put_quota":{"name":"x"}}]}"#,
            "was written by a newer flumen",
        ),
        ("{\"format\":1,", "version 1 of the catalog cannot be read"),
        (
            r#"{"format":1,"version":1,"id":"00000000-0000-0000-0000-000000000001","at":"2026-01-01T00:00:00Z",
                "reason":"","by":"","actions":[{"remove_entry":{"name":["..","x"]}}]}"#,
            "version 1 of the catalog cannot be read",
        ),
    ];
    for (text, expect) in cases {
        let lake = TestLake::memory();
        let first = Path::from("some/where/_flumen/catalog/00000000000000000001.json");
        lake.lake.store().put(&first, PutPayload::from(text)).await.unwrap();
        let error = lake.catalog().read().await.unwrap_err();
        assert!(error.message().contains(expect), "{}", told(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_copied_elsewhere_works() {
    let lake = TestLake::local();
    lake.append(&lake.table(), "a", &["1"]).await;
    let names = ["t", "u"].map(|table| TableName::new("raw", table).unwrap());
    lake.catalog().rename("prod", &[(names[0].clone(), names[1].clone())]).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("copy");
    crate::robust::copy(&lake.root(), &target);
    let moved = flumen_lake::lake::Lake::local(&target).unwrap();
    let catalog = lake.catalog_of(moved);
    let state = catalog.read().await.unwrap();
    let listed = catalog.list(&state, "prod").await.unwrap();
    assert_eq!(listed.iter().map(|listed| listed.name.to_string()).collect::<Vec<_>>(), ["raw.u"]);
    let Some(flumen_lake::catalog::Located::Table { table, .. }) = catalog.locate(&state, "prod", &names[1]).unwrap()
    else {
        panic!("a table")
    };
    assert!(table.folder().unwrap().starts_with(&target));
    assert_eq!(table.snapshot().await.unwrap().unwrap().files().unwrap().len(), 1);
}
