//! What names mean: folders, entries, renamed, dropped and brought back.

use flumen_core::ErrorKind;
use flumen_core::dataset::TableName;
use flumen_lake::catalog::{Catalog, Entry, Located};
use flumen_lake::lake::Table;

use crate::support::{TestLake, told};

pub fn name(text: &str) -> TableName {
    let (namespace, table) = text.split_once('.').unwrap();
    TableName::new(namespace, table).unwrap()
}

/// The names in `environment`.
pub async fn names(catalog: &Catalog, environment: &str) -> Vec<String> {
    let state = catalog.read().await.unwrap();
    catalog.list(&state, environment).await.unwrap().into_iter().map(|listed| listed.name.to_string()).collect()
}

/// The table that `text` means, and its pin.
pub async fn locate(catalog: &Catalog, environment: &str, text: &str) -> Option<(Table, Option<u64>)> {
    let state = catalog.read().await.unwrap();
    match catalog.locate(&state, environment, &name(text)).unwrap()? {
        Located::Table { table, version, .. } => Some((table, version)),
        other => panic!("{other:?}"),
    }
}

/// Rows that readers of `text` in `environment` see; `None` where there is no table.
pub async fn rows(catalog: &Catalog, environment: &str, text: &str) -> Option<u64> {
    let (table, version) = locate(catalog, environment, text).await?;
    let snapshot = table.snapshot_at(version).await.unwrap()?;
    Some(snapshot.files().unwrap().iter().map(|file| file.stats.as_ref().unwrap().num_records.unwrap()).sum())
}

/// Appends `count` rows to `text` in `environment`, as a load does.
pub async fn append(lake: &TestLake, environment: &str, text: &str, load: &str, count: usize) {
    let writable = lake.catalog().writable(environment, &name(text)).await.unwrap();
    let rows: Vec<String> = (0..count).map(|row| row.to_string()).collect();
    lake.append(&writable.table, load, &rows.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_keeps_its_folder_and_takes_loads_under_its_new_name() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let catalog = lake.catalog();
        append(&lake, "prod", "raw.t", "a", 2).await;
        catalog.rename("prod", &[(name("raw.t"), name("clean.u"))]).await.unwrap();
        assert_eq!(names(&catalog, "prod").await, ["clean.u"]);
        assert!(locate(&catalog, "prod", "raw.t").await.is_none());
        append(&lake, "prod", "clean.u", "b", 3).await;
        assert_eq!(rows(&lake.catalog(), "prod", "clean.u").await, Some(5));
        assert_eq!(locate(&catalog, "prod", "clean.u").await.unwrap().0.location(), "raw/t");

        append(&lake, "prod", "raw.t", "c", 1).await;
        assert_eq!(names(&catalog, "prod").await, ["clean.u", "raw.t"]);
        assert_eq!(rows(&catalog, "prod", "raw.t").await, Some(1), "a new table, in a folder of its own");
        assert_eq!(rows(&catalog, "prod", "clean.u").await, Some(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_goes_with_its_table() {
    let lake = TestLake::local();
    let catalog = lake.catalog();
    append(&lake, "prod", "raw.t", "a", 2).await;
    let quarantine = lake.table().quarantine().unwrap();
    lake.append(&quarantine, "q", &["7"]).await;
    assert_eq!(names(&catalog, "prod").await, ["raw.t", "raw.t__quarantine"]);
    catalog.rename("prod", &[(name("raw.t"), name("raw.u"))]).await.unwrap();
    assert_eq!(names(&catalog, "prod").await, ["raw.u", "raw.u__quarantine"]);
    assert_eq!(rows(&catalog, "prod", "raw.u__quarantine").await, Some(1));
    assert!(locate(&catalog, "prod", "raw.t__quarantine").await.is_none());
    catalog.drop_entries("prod", &[name("raw.u")]).await.unwrap();
    assert!(names(&catalog, "prod").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_names_move_in_one_commit_or_not_at_all() {
    let lake = TestLake::memory();
    let catalog = lake.catalog();
    for (table, count) in [("raw.a", 1), ("raw.b", 2), ("raw.c", 3)] {
        append(&lake, "prod", table, table, count).await;
    }
    let before = catalog.read().await.unwrap().version;
    catalog.rename("prod", &[(name("raw.c"), name("raw.d")), (name("raw.b"), name("raw.c"))]).await.unwrap();
    assert_eq!(catalog.read().await.unwrap().version, before + 1);
    assert_eq!(names(&catalog, "prod").await, ["raw.a", "raw.c", "raw.d"]);
    assert_eq!(rows(&catalog, "prod", "raw.c").await, Some(2));
    let pairs = [(name("raw.a"), name("raw.x")), (name("raw.nothing"), name("raw.y"))];
    assert_eq!(catalog.rename("prod", &pairs).await.unwrap_err().kind(), ErrorKind::NotFound);
    let pairs = [(name("raw.a"), name("raw.x")), (name("raw.c"), name("raw.d"))];
    assert_eq!(catalog.rename("prod", &pairs).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(names(&catalog, "prod").await, ["raw.a", "raw.c", "raw.d"]);
    catalog.drop_entries("prod", &[name("raw.a"), name("raw.c"), name("raw.d")]).await.unwrap();
    assert!(names(&catalog, "prod").await.is_empty());
    assert_eq!(catalog.read().await.unwrap().version, before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_comes_back() {
    let lake = TestLake::memory();
    let catalog = lake.catalog();
    append(&lake, "prod", "raw.t", "a", 2).await;
    catalog.drop_entries("prod", &[name("raw.t")]).await.unwrap();
    assert_eq!(rows(&catalog, "prod", "raw.t").await, None);
    append(&lake, "prod", "raw.t", "b", 5).await;
    let taken = catalog.undrop(&name("raw.t"), &name("raw.t")).await.unwrap_err();
    assert_eq!(told(&taken), "conflict: there is a 'raw.t' already (choose another name, or drop that one first)");
    catalog.undrop(&name("raw.t"), &name("raw.old")).await.unwrap();
    assert_eq!(rows(&catalog, "prod", "raw.old").await, Some(2));
    assert_eq!(rows(&catalog, "prod", "raw.t").await, Some(5));
    assert_eq!(catalog.undrop(&name("raw.t"), &name("raw.x")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_about_a_table_stays_with_it() {
    let lake = TestLake::memory();
    let catalog = lake.catalog();
    append(&lake, "prod", "raw.t", "a", 1).await;
    let describe = |entry: &mut Entry| {
        entry.about_mut().description = Some("trips".to_owned());
        Ok(())
    };
    catalog.edit("prod", &name("raw.t"), "describe", describe).await.unwrap();
    let version = catalog.read().await.unwrap().version;
    catalog.edit("prod", &name("raw.t"), "describe", describe).await.unwrap();
    assert_eq!(catalog.read().await.unwrap().version, version, "nothing new, nothing written");
    catalog.rename("prod", &[(name("raw.t"), name("raw.u"))]).await.unwrap();
    let state = lake.catalog().read().await.unwrap();
    let entry = state.entry("prod", &name("raw.u")).unwrap().unwrap();
    assert_eq!(entry.about().description.as_deref(), Some("trips"));
    assert_eq!(catalog.edit("prod", &name("raw.t"), "", describe).await.unwrap_err().kind(), ErrorKind::NotFound);
}
