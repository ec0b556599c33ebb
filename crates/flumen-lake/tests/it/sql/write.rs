//! Statements that change tables of the lake. Each test has a lake of its own in a folder.

use std::sync::Arc;

use flumen_lake::engine::{BlockState, Engine, EngineSettings};
use tempfile::TempDir;

use super::files::MemoryFiles;
use super::{check, does, done, engine, lake_in_folder, settings, text};

/// An engine over a lake with the table `raw.t (id, name)` of three rows.
async fn with_table() -> (TempDir, Engine) {
    let (folder, lake) = lake_in_folder();
    let engine = engine(Some(lake), MemoryFiles::default());
    done(&engine, "create table raw.t as select * from (values (1, 'one'), (2, 'two'), (3, null)) as v(id, name)")
        .await;
    (folder, engine)
}

const ALL: &str = "select * from raw.t order by id";

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_from_queries_and_from_columns() {
    let (_folder, engine) = with_table().await;
    check(&engine, ALL, "1|one\n2|two\n3|NULL").await;
    does(
        &engine,
        "create table raw.t (a int)",
        "conflict: lake.raw.t is there already\nhint: write create or replace table …, or create table if not exists …",
    )
    .await;
    does(&engine, "create table if not exists raw.t (a int)", "CREATE TABLE").await;
    does(
        &engine,
        "create table raw.typed (a int not null, b varchar(5), c timestamp, d numeric(10,2), e date)",
        "CREATE TABLE",
    )
    .await;
    does(&engine, "insert into raw.typed values (1, 'x', '2026-01-02 03:04:05', 1.50, '2026-01-02')", "INSERT 1").await;
    check(&engine, "select * from raw.typed", "1|x|2026-01-02T03:04:05|1.50|2026-01-02").await;
    does(&engine, "create or replace table raw.t as select 7 as seven, null as nothing", "CREATE TABLE AS 1").await;
    check(&engine, "select * from raw.t", "7|NULL").await;
    check(&engine, "select * from raw.t version as of 0 order by 1", "1|one\n2|two\n3|NULL").await;
    does(&engine, "create table made as select 1 as x", "CREATE TABLE AS 1").await;
    check(&engine, "select * from public.made", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_inserted_updated_and_deleted() {
    let (_folder, engine) = with_table().await;
    does(&engine, "insert into raw.t (name, id) values ('four', 4), ('five', 5)", "INSERT 2").await;
    does(&engine, "insert into raw.t select id + 10, name from raw.t where id < 3", "INSERT 2").await;
    does(&engine, "insert into raw.t (id) values (6)", "INSERT 1").await;
    does(&engine, "update raw.t set name = upper(name), id = id * 1.0 where id > 10 or name is null", "UPDATE 4").await;
    check(&engine, ALL, "1|one\n2|two\n3|NULL\n4|four\n5|five\n6|NULL\n11|ONE\n12|TWO").await;
    does(
        &engine,
        "delete from raw.t as x where x.id in (select id from raw.t where name is null) or x.id = 1",
        "DELETE 3",
    )
    .await;
    check(&engine, ALL, "2|two\n4|four\n5|five\n11|ONE\n12|TWO").await;
    does(
        &engine,
        "update raw.t set name = s.n from (values (2, 'zwei'), (99, 'x')) as s(i, n) where t.id = s.i",
        "UPDATE 1",
    )
    .await;
    does(&engine, "delete from raw.t using (values (4), (5), (5)) as s(i) where t.id = s.i", "DELETE 2").await;
    check(&engine, ALL, "2|zwei\n11|ONE\n12|TWO").await;
    does(&engine, "delete from raw.t where id = 77", "DELETE 0").await;
    does(&engine, "insert overwrite raw.t values (8, 'eight')", "INSERT 1").await;
    check(&engine, ALL, "8|eight").await;
    does(&engine, "truncate table raw.t", "TRUNCATE TABLE").await;
    check(&engine, "select count(*) from raw.t", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_statement_is_said() {
    let (_folder, engine) = with_table().await;
    does(&engine, "insert into raw.t values (1)", "invalid: the insert gives 1 value for 2 columns of lake.raw.t\nhint: name the columns: insert into raw.t (…) …; the table has id, name").await;
    does(
        &engine,
        "insert into raw.t (id, nam) values (1, 'x')",
        "not_found: lake.raw.t has no column 'nam'\nhint: did you mean 'name'?",
    )
    .await;
    does(
        &engine,
        "update raw.t set nme = 'x'",
        "not_found: lake.raw.t has no column 'nme'\nhint: did you mean 'name'?",
    )
    .await;
    does(
        &engine,
        "delete from raw.x where id = 1",
        "not_found: there is no table 'raw.x'\nhint: did you mean 'raw.t'?",
    )
    .await;
    let bad = done(&engine, "insert into raw.t values ('x', 'y')").await;
    assert!(bad.starts_with("data: cannot cast string 'x'"), "{bad}");
    let bad = done(&engine, "delete from raw.t where nothing = 1").await;
    assert!(bad.contains("line 1, column 25: there is no column 'nothing'"), "{bad}");
    does(
        &engine,
        "insert or replace into raw.t values (1, 'x')",
        "invalid: 'insert or …, replace into' is not run here\nhint: write insert … on conflict (key) do update set …, or do nothing",
    )
    .await;
    check(&engine, ALL, "1|one\n2|two\n3|NULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merges_update_delete_and_insert() {
    let (_folder, engine) = with_table().await;
    let merge = "merge into raw.t as t using (values (1, 'uno', false), (2, null, true), (9, 'nueve', false)) as s(id, name, gone) \
        on t.id = s.id \
        when matched and s.gone then delete \
        when matched then update set name = s.name || '!' \
        when not matched then insert (id, name) values (s.id, s.name)";
    does(&engine, merge, "MERGE 3").await;
    check(&engine, ALL, "1|uno!\n3|NULL\n9|nueve").await;
    let by_source = "merge into raw.t using (select 9 as k) s on t.id = s.k \
        when not matched by source and t.id > 1 then delete when not matched by source then update set name = 'left'";
    does(&engine, by_source, "MERGE 2").await;
    check(&engine, ALL, "1|left\n9|nueve").await;
    let twice = "merge into raw.t using (values (1, 'a'), (1, 'b')) as s(id, name) on t.id = s.id when matched then update set name = s.name";
    let error = done(&engine, twice).await;
    assert!(
        error.starts_with("data: lake.raw.t: a row of the table is matched by several rows of the source"),
        "{error}"
    );
    let one_of_two = "merge into raw.t using (values (1, 'a', true), (1, 'b', false)) as s(id, name, yes) on t.id = s.id when matched and s.yes then update set name = s.name";
    does(&engine, one_of_two, "MERGE 1").await;
    check(&engine, ALL, "1|a\n9|nueve").await;
    let random =
        done(&engine, "merge into raw.t using (select random() as r) s on t.id = s.r when matched then delete").await;
    assert!(random.starts_with("invalid: the source gives other rows each time"), "{random}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_with_rows_that_change_are_written_anew() {
    let (_folder, engine) = with_table().await;
    done(&engine, "insert into raw.t values (100, 'x')").await;
    done(&engine, "update raw.t set name = 'y' where id = 100").await;
    check(
        &engine,
        "select version, operation, files_added, files_removed, rows_added from history('raw.t') order by version desc limit 2",
        "2|UPDATE|1|1|1\n1|WRITE|1|0|1",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_kept_and_dropped_as_a_whole() {
    let (folder, engine) = with_table().await;
    done(&engine, "create table raw.p partitioned by (day) as select * from (values (1, '2026-01-01'), (2, '2026-01-02'), (3, '2026-01-02')) v(id, day)").await;
    assert!(std::fs::read_dir(folder.path().join("lake/raw/p")).unwrap().count() > 1);
    does(&engine, "delete from raw.p where day = '2026-01-02'", "DELETE 2").await;
    check(&engine, "select * from raw.p", "1|2026-01-01").await;
    let error = done(&engine, "alter table raw.p drop column day").await;
    assert!(error.contains("partitioned by 'day', which cannot be dropped"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_altered() {
    let (_folder, engine) = with_table().await;
    does(&engine, "alter table raw.t add column price double", "ALTER TABLE").await;
    does(&engine, "insert into raw.t values (4, 'four', 1.5)", "INSERT 1").await;
    check(&engine, ALL, "1|one|NULL\n2|two|NULL\n3|NULL|NULL\n4|four|1.5").await;
    does(&engine, "alter table raw.t rename column name to title", "ALTER TABLE").await;
    does(&engine, "alter table raw.t alter column price type varchar", "ALTER TABLE").await;
    check(&engine, "select title, price from raw.t where id = 4", "four|1.5").await;
    does(&engine, "alter table raw.t drop column price", "ALTER TABLE").await;
    check(&engine, "select * from raw.t where id = 1", "1|one").await;
    let error = done(&engine, "alter table raw.t alter column title set not null").await;
    assert!(
        error.starts_with("data: lake.raw.t: rows of the table have no 'title', for example: id = 3, title = null"),
        "{error}"
    );
    done(&engine, "delete from raw.t where title is null").await;
    does(&engine, "alter table raw.t alter column title set not null", "ALTER TABLE").await;
    let error = done(&engine, "insert into raw.t values (5, null)").await;
    assert!(error.contains("column 'title' has a null, which the table does not allow"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_hold_for_every_way_in() {
    let (_folder, engine) = with_table().await;
    let error = done(&engine, "alter table raw.t add constraint small check (id < 3)").await;
    assert!(error.contains("rows of the table break the constraint (id < 3), for example: id = 3"), "{error}");
    does(&engine, "alter table raw.t add constraint small check (id < 10)", "ALTER TABLE").await;
    for sql in ["insert into raw.t values (11, 'x')", "update raw.t set id = id + 10 where id = 2"] {
        let error = done(&engine, sql).await;
        assert!(error.contains("a row breaks the constraint 'small' (id < 10): id = 1"), "{sql}: {error}");
    }
    check(&engine, ALL, "1|one\n2|two\n3|NULL").await;
    does(&engine, "alter table raw.t drop constraint small", "ALTER TABLE").await;
    does(&engine, "insert into raw.t values (11, 'x')", "INSERT 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_committed_as_one_or_not_at_all() {
    let (_folder, lake) = lake_in_folder();
    let writer = engine(Some(lake.clone()), MemoryFiles::default());
    let other = engine(Some(lake), MemoryFiles::default());
    done(&writer, "create table raw.t as select 1 as id, 'one' as name").await;
    does(&writer, "begin", "BEGIN").await;
    does(&writer, "insert into raw.t values (2, 'two')", "INSERT 1").await;
    does(&writer, "update raw.t set name = name || '!'", "UPDATE 2").await;
    check(&writer, ALL, "1|one!\n2|two!").await;
    check(&other, ALL, "1|one").await;
    does(&writer, "rollback", "ROLLBACK").await;
    check(&writer, ALL, "1|one").await;

    does(&writer, "begin", "BEGIN").await;
    done(&writer, "insert into raw.t values (2, 'two')").await;
    let error = done(&writer, "create table raw.u as select 1 as x").await;
    assert!(
        error.starts_with("invalid: this block writes to lake.raw.t; it cannot write to lake.raw.u too"),
        "{error}"
    );
    assert_eq!(writer.block_state().await, BlockState::Failed);
    let error = done(&writer, "select 1").await;
    assert!(error.starts_with("invalid: a statement of this block has failed"), "{error}");
    does(&writer, "commit", "ROLLBACK").await;
    check(&writer, ALL, "1|one").await;

    does(&writer, "start transaction", "BEGIN").await;
    check(&writer, ALL, "1|one").await;
    done(&other, "insert into raw.t values (3, 'three')").await;
    check(&writer, ALL, "1|one").await;
    done(&writer, "insert into raw.t values (2, 'two')").await;
    does(&writer, "commit", "COMMIT").await;
    check(&writer, ALL, "1|one\n2|two\n3|three").await;

    done(&writer, "begin").await;
    done(&writer, "delete from raw.t where id = 1").await;
    done(&other, "delete from raw.t where id = 2").await;
    let error = done(&writer, "commit").await;
    assert!(
        error.starts_with("conflict: lake.raw.t: somebody else has changed the table since this block began"),
        "{error}"
    );
    check(&writer, ALL, "1|one\n3|three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_returns_to_a_savepoint() {
    let (_folder, lake) = lake_in_folder();
    let writer = engine(Some(lake.clone()), MemoryFiles::default());
    let other = engine(Some(lake), MemoryFiles::default());
    done(&writer, "create table raw.t as select 1 as id, 'one' as name").await;
    let error = done(&writer, "savepoint a").await;
    assert!(error.starts_with("invalid: SAVEPOINT can only be used in a block"), "{error}");
    done(&writer, "begin").await;
    done(&writer, "insert into raw.t values (2, 'two')").await;
    does(&writer, "savepoint a", "SAVEPOINT").await;
    done(&writer, "update raw.t set name = upper(name)").await;
    done(&writer, "savepoint b").await;
    done(&writer, "delete from raw.t").await;
    check(&writer, ALL, "").await;
    // A statement that failed is taken back with the others.
    let error = done(&writer, "insert into raw.t values (3)").await;
    assert!(error.starts_with("invalid: "), "{error}");
    does(&writer, "rollback to savepoint b", "ROLLBACK").await;
    check(&writer, ALL, "1|ONE\n2|TWO").await;
    does(&writer, "rollback to a", "ROLLBACK").await;
    check(&writer, ALL, "1|one\n2|two").await;
    does(&writer, "release savepoint a", "RELEASE").await;
    does(&writer, "commit", "COMMIT").await;
    check(&other, ALL, "1|one\n2|two").await;

    done(&writer, "begin").await;
    done(&writer, "savepoint nothing").await;
    done(&writer, "delete from raw.t").await;
    done(&writer, "rollback to nothing").await;
    done(&writer, "create view raw.v as select 1 as one").await;
    done(&writer, "rollback to nothing").await;
    done(&writer, "commit").await;
    check(&other, ALL, "1|one\n2|two").await;
    let error = text(&other, "select * from raw.v").await;
    assert!(error.starts_with("not_found: "), "{error}");

    done(&writer, "begin").await;
    let error = done(&writer, "release b").await;
    assert!(error.starts_with("not_found: savepoint 'b' does not exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_seen_as_they_were() {
    let (_folder, engine) = with_table().await;
    done(&engine, "delete from raw.t where id = 1").await;
    done(&engine, "delete from raw.t where id = 2").await;
    check(&engine, "select count(*) from raw.t version as of 1", "2").await;
    check(
        &engine,
        "select a.id from raw.t version as of 0 as a left join raw.t b on a.id = b.id where b.id is null order by 1",
        "1\n2",
    )
    .await;
    let error = text(&engine, "select * from raw.t version as of 9").await;
    assert!(error.starts_with("not_found: lake.raw.t has no version 9"), "{error}");
    let first = text(&engine, "select timestamp from history('t') where version = 0").await;
    check(&engine, &format!("select count(*) from raw.t timestamp as of '{first}'"), "3").await;
    let error = text(&engine, "select * from raw.t timestamp as of '2001-01-01'").await;
    assert!(error.starts_with("not_found: lake.raw.t was not there at 2001-01-01"), "{error}");
    does(&engine, &format!("set flumen.as_of = '{first}'"), "SET").await;
    check(&engine, "select count(*) from raw.t", "3").await;
    let error = done(&engine, "delete from raw.t").await;
    assert!(error.starts_with("invalid: this session sees the past"), "{error}");
    does(&engine, "reset flumen.as_of", "RESET").await;
    check(&engine, "select count(*) from raw.t", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_recorded_once_they_are_switched_on() {
    let (_folder, engine) = with_table().await;
    let error = text(&engine, "select * from changes('raw.t', 0, 0)").await;
    assert!(error.starts_with("invalid: lake.raw.t did not record its changes at version 0"), "{error}");
    does(&engine, "alter table raw.t set tblproperties ('change_feed' = 'true')", "ALTER TABLE").await;
    does(&engine, "insert into raw.t values (4, 'four')", "INSERT 1").await;
    does(&engine, "update raw.t set name = 'x' where id = 1", "UPDATE 1").await;
    does(&engine, "delete from raw.t where id = 2", "DELETE 1").await;
    let merge = "merge into raw.t using (values (3, 'drei'), (7, 'seven')) s(id, name) on t.id = s.id \
        when matched then update set name = s.name when not matched then insert values (s.id, s.name)";
    does(&engine, merge, "MERGE 2").await;
    check(
        &engine,
        "select id, name, _change_type, _commit_version from changes('raw.t', 2, 5) order by 4, 1, 3 desc",
        "4|four|insert|2\n1|one|update_preimage|3\n1|x|update_postimage|3\n2|two|delete|4\n\
         3|NULL|update_preimage|5\n3|drei|update_postimage|5\n7|seven|insert|5",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_only_read_changes_nothing() {
    let (_folder, lake) = lake_in_folder();
    done(&engine(Some(lake.clone()), MemoryFiles::default()), "create table raw.t as select 1 as id").await;
    let reader =
        Engine::new(EngineSettings { read_only: true, ..settings(Some(lake), MemoryFiles::default()) }).unwrap();
    for sql in [
        "insert into raw.t values (2)",
        "delete from raw.t",
        "create table raw.u as select 1 as x",
        "alter table raw.t add column y int",
    ] {
        does(&reader, sql, "invalid: this session may only read\nhint: ask for a user who may write").await;
    }
    check(&reader, "select * from raw.t", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_writers_lose_nothing() {
    let (_folder, lake) = lake_in_folder();
    let first = engine(Some(lake.clone()), MemoryFiles::default());
    done(&first, "create table raw.t (id int, name varchar)").await;
    let writers = (0..8).map(|number| {
        let engine = Arc::new(engine(Some(lake.clone()), MemoryFiles::default()));
        tokio::spawn(async move {
            for round in 0..4 {
                does(&engine, &format!("insert into raw.t values ({number}, 'r{round}')"), "INSERT 1").await;
            }
            does(&engine, &format!("delete from raw.t where id = {number} and name = 'r0'"), "DELETE 1").await;
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    check(&first, "select count(*), count(distinct id) from raw.t", "24|8").await;
}
