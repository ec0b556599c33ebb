//! Statements about names: views, external tables, namespaces, comments, keys, renames, drops; and environments through SQL.

use flumen_core::dataset::TableName;
use flumen_lake::catalog::{Catalog, Entry};
use flumen_lake::engine::Engine;
use tempfile::TempDir;

use super::files::MemoryFiles;
use super::{check, does, done, engine, lake_in_folder, settings, text};

async fn with_table() -> (TempDir, Catalog, Engine) {
    let (folder, lake) = lake_in_folder();
    let settings = settings(Some(lake), MemoryFiles::default());
    let catalog = settings.catalog.clone().unwrap();
    let engine = Engine::new(settings).unwrap();
    done(&engine, "create table raw.t as select * from (values (1, 'one'), (2, 'two'), (3, null)) as v(id, name)")
        .await;
    (folder, catalog, engine)
}

async fn entry(catalog: &Catalog, namespace: &str, table: &str) -> Option<Entry> {
    let name = TableName::new(namespace, table).unwrap();
    catalog.read().await.unwrap().entry("prod", &name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_kept_and_planned_when_they_are_read() {
    let (_folder, catalog, engine) = with_table().await;
    does(&engine, "create view mart.named as select id, name, id * 2 from t where name is not null", "CREATE VIEW")
        .await;
    check(&engine, "select * from mart.named order by id", "1|one|2\n2|two|4").await;
    done(&engine, "insert into raw.t values (4, 'four')").await;
    check(&engine, "select max(\"id * 2\") from named", "8").await;
    check(
        &engine,
        "select column_name, data_type from information_schema.columns where table_name = 'named'",
        "id|Int64\nname|Utf8\nid * 2|Int64",
    )
    .await;
    does(
        &engine,
        "create view mart.named as select 1 as x",
        "conflict: there is a view 'mart.named' already\nhint: write create or replace",
    )
    .await;
    does(&engine, "create or replace view mart.twice(a) as select id from mart.named", "CREATE VIEW").await;
    check(&engine, "select sum(a) from mart.twice", "7").await;
    does(&engine, "create or replace view mart.named as select a as id from mart.twice", "CREATE VIEW").await;
    let error = text(&engine, "select * from mart.named").await;
    assert!(error.contains("reads itself"), "{error}");
    does(&engine, "insert into mart.twice values (1)", "invalid: 'mart.twice' is a view: no rows can be written to it\nhint: write to a table, or drop it first and make a table of that name").await;
    assert!(
        matches!(entry(&catalog, "mart", "twice").await, Some(Entry::View(view)) if view.sql.contains("\"mart\".\"named\"") || view.sql.contains("mart.named"))
    );
    does(&engine, "drop table mart.twice", "invalid: 'mart.twice' is a view\nhint: write drop view mart.twice").await;
    does(&engine, "drop view mart.twice", "DROP VIEW").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_a_change_has_broken_is_named() {
    let (_folder, _catalog, engine) = with_table().await;
    done(&engine, "create view mart.v as select name from raw.t").await;
    done(&engine, "alter table raw.t drop column name").await;
    let error = text(&engine, "select * from mart.v").await;
    assert!(error.starts_with("not_found: the view 'mart.v' is broken: "), "{error}");
    assert!(error.contains("write it anew (create or replace view mart.v as …)"), "{error}");
    check(
        &engine,
        "select table_name, table_type from information_schema.tables where table_schema in ('raw', 'mart') order by 1",
        "t|BASE TABLE\nv|VIEW",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_dropped_renamed_and_made_again() {
    let (folder, _catalog, engine) = with_table().await;
    does(&engine, "alter table raw.t rename to u", "ALTER TABLE").await;
    check(&engine, "select count(*) from raw.u", "3").await;
    assert!(folder.path().join("lake/raw/t/_delta_log").is_dir());
    does(&engine, "create table raw.t as select 9 as nine", "CREATE TABLE AS 1").await;
    check(&engine, "select * from raw.t", "9").await;
    does(&engine, "insert into raw.u values (4, 'four')", "INSERT 1").await;
    check(&engine, "select count(*) from raw.u", "4").await;
    does(
        &engine,
        "alter table raw.u rename to t",
        "conflict: there is a 'raw.t' already\nhint: choose another name, or drop that one first",
    )
    .await;
    does(&engine, "drop table raw.t", "DROP TABLE").await;
    let error = text(&engine, "select * from raw.t").await;
    assert!(error.contains("there is no table 'raw.t'"), "{error}");
    does(&engine, "drop table if exists raw.t", "DROP TABLE").await;
    does(&engine, "create table raw.t (x int)", "CREATE TABLE").await;
    check(&engine, "select count(*) from raw.t", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_made_and_dropped() {
    let (_folder, _catalog, engine) = with_table().await;
    does(&engine, "create schema mart", "CREATE SCHEMA").await;
    does(
        &engine,
        "create schema mart",
        "conflict: there is a schema 'mart' already\nhint: write create schema if not exists",
    )
    .await;
    does(&engine, "create schema if not exists mart", "CREATE SCHEMA").await;
    does(&engine, "set search_path = mart", "SET").await;
    does(&engine, "create table made as select 1 as x", "CREATE TABLE AS 1").await;
    check(&engine, "select * from mart.made", "1").await;
    does(&engine, "drop schema mart", "conflict: the schema 'mart' is not empty: it has made\nhint: write drop schema … cascade to drop what is in it, too").await;
    does(&engine, "drop schema mart cascade", "DROP SCHEMA").await;
    does(&engine, "drop schema if exists mart", "DROP SCHEMA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_keys_and_clustering_are_kept() {
    let (_folder, catalog, engine) = with_table().await;
    does(&engine, "comment on table raw.t is 'what was counted'", "COMMENT").await;
    does(&engine, "comment on column raw.t.NAME is 'in words'", "COMMENT").await;
    does(&engine, "alter table raw.t add constraint t_key primary key (ID)", "ALTER TABLE").await;
    does(&engine, "create table raw.o (id int primary key, t int references raw.t(id), note varchar comment 'free', unique (t, note)) cluster by (t)", "CREATE TABLE").await;
    let Some(Entry::Table(t)) = entry(&catalog, "raw", "t").await else { panic!() };
    assert_eq!(t.about.description.as_deref(), Some("what was counted"));
    assert_eq!(t.columns["name"].description.as_deref(), Some("in words"));
    assert_eq!(t.primary_key.unwrap().columns, ["id"]);
    let Some(Entry::Table(o)) = entry(&catalog, "raw", "o").await else { panic!() };
    assert_eq!((o.primary_key.unwrap().name.as_str(), o.unique[0].name.as_str()), ("o_pkey", "o_t_note_key"));
    assert_eq!(
        (o.foreign_keys[0].table.to_string().as_str(), o.foreign_keys[0].references.join(",").as_str()),
        ("raw.t", "id")
    );
    assert_eq!((o.clustering.join(","), o.columns["note"].description.as_deref()), ("t".to_owned(), Some("free")));
    does(&engine, "alter table raw.o drop constraint o_pkey", "ALTER TABLE").await;
    let Some(Entry::Table(o)) = entry(&catalog, "raw", "o").await else { panic!() };
    assert_eq!(o.primary_key, None);
    does(&engine, "alter table raw.t add primary key (nothing)", "not_found: raw.t has no column 'nothing'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn external_delta_tables_are_read_in_place() {
    let (folder, _catalog, engine) = with_table().await;
    let place = folder.path().join("lake/raw/t");
    does(
        &engine,
        &format!("create external table ext.t stored as delta location '{}'", place.display()),
        "CREATE TABLE",
    )
    .await;
    check(&engine, "select count(*) from ext.t", "3").await;
    does(
        &engine,
        &format!(
            "create external table ext.u (name varchar, id varchar) stored as delta location '{}'",
            place.display()
        ),
        "CREATE TABLE",
    )
    .await;
    check(&engine, "select * from ext.u order by 2 limit 1", "one|1").await;
    let error = done(&engine, "create external table ext.x stored as delta location '/nowhere/at/all'").await;
    assert!(error.starts_with("not_found: there is no Delta table in /nowhere/at/all"), "{error}");
    let error = done(&engine, "delete from ext.t").await;
    assert!(error.contains("'ext.t' is an external table"), "{error}");
    does(&engine, "drop table ext.t, ext.u", "DROP TABLE").await;
    check(&engine, "select count(*) from raw.t", "3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_changes_the_catalog_as_one() {
    let (_folder, lake) = lake_in_folder();
    let writer = engine(Some(lake.clone()), MemoryFiles::default());
    let other = engine(Some(lake), MemoryFiles::default());
    done(&writer, "create table raw.t as select 1 as id").await;
    done(&writer, "begin").await;
    does(&writer, "drop table raw.t", "DROP TABLE").await;
    does(&writer, "create table raw.t as select 2 as id, 'new' as name", "CREATE TABLE AS 1").await;
    does(&writer, "comment on table raw.t is 'made anew'", "COMMENT").await;
    check(&writer, "select * from raw.t", "2|new").await;
    check(&other, "select * from raw.t", "1").await;
    does(&writer, "commit", "COMMIT").await;
    check(&other, "select * from raw.t", "2|new").await;

    done(&writer, "begin").await;
    done(&writer, "create view raw.v as select id from raw.t").await;
    done(&writer, "create schema mart").await;
    check(&writer, "select * from raw.v", "2").await;
    does(&writer, "rollback", "ROLLBACK").await;
    let error = text(&writer, "select * from raw.v").await;
    assert!(error.starts_with("not_found: "), "{error}");

    done(&writer, "begin").await;
    done(&writer, "insert into raw.t values (3, 'x')").await;
    let error = done(&writer, "create view raw.v as select id from raw.t").await;
    assert!(
        error.starts_with("invalid: this block changes rows of lake.raw.t; it cannot change the catalog too"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_are_written_without_others_seeing_it() {
    let (_folder, catalog, engine) = with_table().await;
    catalog.create_environment("dev", "prod", &[]).await.unwrap();
    does(&engine, "set flumen.env = 'dev'", "SET").await;
    does(&engine, "update raw.t set name = 'dev' where id = 1", "UPDATE 1").await;
    does(&engine, "create view raw.v as select count(*) as n from raw.t", "CREATE VIEW").await;
    check(&engine, "select name from raw.t where id = 1", "dev").await;
    does(&engine, "set flumen.env = 'prod'", "SET").await;
    check(&engine, "select name from raw.t where id = 1", "one").await;
    let error = text(&engine, "select * from raw.v").await;
    assert!(error.starts_with("not_found: "), "{error}");
    let error = done(&engine, "set flumen.env = 'test'").await;
    assert!(error.starts_with("not_found: there is no environment 'test'"), "{error}");
}
