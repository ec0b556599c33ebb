//! Environments: pins, copies on the first write, publishing many tables at once.

use flumen_core::ErrorKind;
use flumen_lake::catalog::{Change, PROD};

use super::names::{append, locate, name, names, rows};
use crate::support::{TestLake, told};

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_stands_still_while_prod_goes_on() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let catalog = lake.catalog();
        append(&lake, PROD, "raw.t", "a", 2).await;
        assert_eq!(catalog.create_environment("dev", PROD, &[]).await.unwrap(), 1);
        append(&lake, PROD, "raw.t", "b", 3).await;
        append(&lake, PROD, "raw.later", "c", 3).await;
        assert_eq!(rows(&catalog, "dev", "raw.t").await, Some(2));
        assert_eq!(rows(&catalog, PROD, "raw.t").await, Some(5));
        assert_eq!(names(&catalog, "dev").await, ["raw.t"]);
        assert!(locate(&catalog, "dev", "raw.later").await.is_none());
        let diff = catalog.diff_environments(PROD, "dev").await.unwrap();
        let shown: Vec<_> = diff.into_iter().map(|one| (one.table, one.change)).collect();
        assert_eq!(
            shown,
            [("later".to_owned(), Change::Missing), ("t".to_owned(), Change::Version { from: 1, to: 0 })]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_write_makes_a_copy_and_publishing_moves_it() {
    for lake in [TestLake::local(), TestLake::memory()] {
        let catalog = lake.catalog();
        append(&lake, PROD, "raw.t", "a", 2).await;
        append(&lake, PROD, "raw.same", "s", 1).await;
        append(&lake, PROD, "raw.goes", "g", 1).await;
        catalog.create_environment("dev", PROD, &[]).await.unwrap();

        let writable = catalog.writable("dev", &name("raw.t")).await.unwrap();
        let copied = writable.copied.unwrap();
        assert_eq!((copied.files, copied.linked), (1, lake.lake.folder().is_some()));
        assert!(catalog.writable("dev", &name("raw.t")).await.unwrap().copied.is_none(), "once is enough");
        append(&lake, "dev", "raw.t", "b", 3).await;
        append(&lake, "dev", "raw.new", "n", 4).await;
        catalog.drop_entries("dev", &[name("raw.goes")]).await.unwrap();
        assert_eq!(rows(&catalog, "dev", "raw.t").await, Some(5));
        assert_eq!(rows(&catalog, PROD, "raw.t").await, Some(2));
        assert_eq!(names(&catalog, PROD).await, ["raw.goes", "raw.same", "raw.t"], "copies are nobody's tables");

        let before = catalog.read().await.unwrap().version;
        let published = catalog.publish("dev", false).await.unwrap();
        assert_eq!(catalog.read().await.unwrap().version, before + 1, "one commit");
        let what: Vec<_> = published.iter().map(|one| (one.table.as_str(), one.what)).collect();
        assert_eq!(what, [("goes", "dropped"), ("new", "added"), ("t", "replaced")]);
        assert_eq!(names(&catalog, PROD).await, ["raw.new", "raw.same", "raw.t"]);
        assert_eq!(rows(&catalog, PROD, "raw.t").await, Some(5));
        assert!(catalog.diff_environments(PROD, "dev").await.unwrap().is_empty());
        assert!(catalog.publish("dev", false).await.unwrap().is_empty(), "nothing is left to publish");

        append(&lake, PROD, "raw.t", "c", 1).await;
        assert_eq!((rows(&catalog, PROD, "raw.t").await, rows(&catalog, "dev", "raw.t").await), (Some(6), Some(5)));
        catalog.undrop(&name("raw.t"), &name("raw.before")).await.unwrap();
        assert_eq!(rows(&catalog, PROD, "raw.before").await, Some(2), "what was published over comes back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_refuses_to_lose_what_prod_has_got_since() {
    let lake = TestLake::memory();
    let catalog = lake.catalog();
    append(&lake, PROD, "raw.t", "a", 2).await;
    append(&lake, PROD, "raw.u", "u", 2).await;
    catalog.create_environment("dev", PROD, &[]).await.unwrap();
    append(&lake, "dev", "raw.t", "b", 1).await;
    append(&lake, "dev", "raw.u", "v", 1).await;
    append(&lake, PROD, "raw.t", "c", 1).await;
    let error = catalog.publish("dev", false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.message(), "a table has changed in 'prod' since 'dev' was made from it: raw.t");
    assert_eq!(rows(&catalog, PROD, "raw.u").await, Some(2), "nothing is published");
    catalog.publish("dev", true).await.unwrap();
    assert_eq!((rows(&catalog, PROD, "raw.t").await, rows(&catalog, PROD, "raw.u").await), (Some(3), Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_one_namespace() {
    let lake = TestLake::memory();
    let catalog = lake.catalog();
    for bad in ["prod", "lake", "flumen", "pg", "information_schema"] {
        let error = catalog.create_environment(bad, PROD, &["pg".to_owned()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{bad}");
    }
    for bad in ["", "../x", "a b", "a.b", "1st"] {
        let error = catalog.create_environment(bad, PROD, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
    }
    catalog.create_environment("dev", PROD, &[]).await.unwrap();
    assert_eq!(catalog.create_environment("dev", PROD, &[]).await.unwrap_err().kind(), ErrorKind::Conflict);
    let state = catalog.read().await.unwrap();
    let error = catalog.locate(&state, "def", &name("raw.t")).unwrap_err();
    assert_eq!(told(&error), "not_found: there is no environment 'def' (did you mean 'dev'?)");
    catalog.drop_environment("dev").await.unwrap();
    assert_eq!(catalog.drop_environment("dev").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(catalog.drop_environment(PROD).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_holds_readers_and_refuses_writers() {
    let lake = TestLake::memory();
    let catalog = lake.catalog();
    append(&lake, PROD, "raw.t", "a", 2).await;
    append(&lake, PROD, "raw.t", "b", 1).await;
    assert_eq!(catalog.pin(PROD, &name("raw.t"), Some(0)).await.unwrap(), 0);
    assert_eq!(rows(&catalog, PROD, "raw.t").await, Some(2));
    let error = catalog.writable(PROD, &name("raw.t")).await.unwrap_err();
    assert_eq!(told(&error), "invalid: 'raw.t' is pinned to version 0 ('flumen env unpin raw.t' lets it float again)");
    catalog.unpin(&name("raw.t")).await.unwrap();
    assert_eq!(rows(&catalog, PROD, "raw.t").await, Some(3));
    let error = catalog.pin(PROD, &name("raw.t"), Some(9)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_has_another_name_only_is_published_as_such() {
    let lake = TestLake::memory();
    let catalog = lake.catalog();
    append(&lake, PROD, "raw.t", "a", 2).await;
    catalog.create_environment("dev", PROD, &[]).await.unwrap();
    catalog.rename("dev", &[(name("raw.t"), name("raw.u"))]).await.unwrap();
    assert_eq!(names(&catalog, "dev").await, ["raw.u"]);
    catalog.publish("dev", false).await.unwrap();
    assert_eq!(names(&catalog, PROD).await, ["raw.u"]);
    assert_eq!(rows(&catalog, PROD, "raw.u").await, Some(2));
    assert!(catalog.read().await.unwrap().dropped.is_empty(), "what stays is not dropped");
    append(&lake, PROD, "raw.u", "b", 1).await;
    assert_eq!(rows(&catalog, PROD, "raw.u").await, Some(3));
}
