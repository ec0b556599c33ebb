//! Describe, stats and diff.

use flumen_core::clock::Ids;
use flumen_core::load::Mode;
use flumen_lake::catalog::{PROD, ViewEntry};
use flumen_lake::ops::{describe, stats};

use crate::catalog::names::name;
use crate::support::{Load, TestIds, TestLake};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_and_the_catalog_know_is_told() {
    let lake = TestLake::memory();
    lake.load(&Load::new("a", &["n", "s:text"], &["3|x", "1|"])).await.unwrap();
    lake.load(&Load::new("b", &["n", "s:text"], &["10|b", "2|b"])).await.unwrap();
    let catalog = lake.catalog();
    let id = Ids::next(&TestIds::from(77));
    let view = |reads: &str| {
        flumen_lake::catalog::Entry::View(ViewEntry {
            id,
            sql: String::new(),
            columns: Vec::new(),
            reads: vec![name(reads)],
            about: Default::default(),
            column_notes: Default::default(),
            created: chrono::DateTime::from_timestamp(0, 0).unwrap(),
        })
    };
    catalog
        .change("views", |state| {
            let first = state.put(PROD, &name("v.first"), view("raw.t"))?;
            Ok(vec![first, state.put(PROD, &name("v.second"), view("v.first"))?])
        })
        .await
        .unwrap();
    let told = describe::describe(&catalog, PROD, &name("raw.t"), None).await.unwrap();
    assert_eq!((told.rows, told.files, told.version, told.pinned), (Some(4), 2, 1, false));
    assert_eq!(told.views, ["lake.v.first", "lake.v.second"]);
    assert_eq!(told.loads.len(), 2);
    assert_eq!(told.loads[0].from, ["b.csv"]);
    let column = |name: &str| told.columns.iter().find(|column| column.name == name).unwrap();
    let n = column("n");
    assert_eq!((n.nulls, n.min.as_ref(), n.max.as_ref()), (Some(0), Some(&1.into()), Some(&10.into())));
    let s = column("s");
    assert_eq!((s.nulls, s.min.as_ref(), s.distinct), (Some(1), Some(&"b".into()), None));

    let (_, snapshot) = describe::snapshot(&catalog, PROD, &name("raw.t"), None).await.unwrap();
    let counted = stats::distinct(&snapshot).await.unwrap();
    assert_eq!((counted["n"], counted["s"]), (4, 2));
    describe::keep_distinct(&catalog, PROD, &name("raw.t"), 1, counted).await.unwrap();
    let told = describe::describe(&catalog, PROD, &name("raw.t"), None).await.unwrap();
    assert_eq!(told.columns.iter().find(|column| column.name == "s").unwrap().distinct, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_differ_by_their_columns_files_and_loads() {
    let lake = TestLake::memory();
    lake.load(&Load::new("a", &["n"], &["1", "2"])).await.unwrap();
    lake.load(&Load::new("b", &["n", "m:text"], &["3|x"])).await.unwrap();
    lake.load(&Load::new("c", &["n"], &["9"]).mode(Mode::Replace)).await.unwrap();
    let catalog = lake.catalog();
    let at = async |version| describe::snapshot(&catalog, PROD, &name("raw.t"), Some(version)).await.unwrap().1;
    let diff = describe::diff(&at(0).await, &at(2).await).await.unwrap();
    assert_eq!((diff.left.rows, diff.right.rows), (Some(2), Some(1)));
    assert_eq!((diff.only_left.rows, diff.only_right.rows, diff.loads.len()), (2, 1, 2));
    let columns: Vec<_> = diff.columns.iter().map(|column| (column.name.as_str(), column.left.is_some())).collect();
    assert_eq!(columns, [("m", false)]);
}
