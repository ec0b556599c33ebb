//! Tables that others read, and tables of others: the same rows on both sides, with the `deltalake` package, Polars and Sail.

use crate::postgres::{bad, good};
use crate::sandbox::Sandbox;
use flumen_testkit::interop::run;

const READERS: [&str; 3] = ["deltalake", "polars", "sail"];

fn lake() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("flumen.yml", "name: p\n");
    sandbox
}

/// Runs statements.
fn sql(sandbox: &Sandbox, statements: &str) {
    sandbox.write("run.sql", statements);
    good(sandbox, "flumen sql -f run.sql");
}

/// All readers see the rows of `table` that we see.
#[track_caller]
fn check_read(sandbox: &Sandbox, table: &str, rows: usize) {
    good(sandbox, &format!("flumen sql -o ours.parquet 'select * from raw.{table}'"));
    for reader in READERS {
        let said = run("read.py", &[reader, &format!("lake/raw/{table}"), "ours.parquet"], &sandbox.path());
        assert_eq!(said, format!("{reader}: {rows} rows\n"), "{table}");
    }
}

/// We see the rows of `table` that its writer says it has.
#[track_caller]
fn check_written(sandbox: &Sandbox, writer: &str, table: &str, rows: usize) {
    good(sandbox, &format!("flumen sql -o ours.parquet 'select * from {writer}.{table}'"));
    let said = run("read.py", &["parquet", "ours.parquet", &format!("{table}.parquet")], &sandbox.path());
    assert_eq!(said, format!("parquet: {rows} rows\n"), "{table}");
}

#[test]
fn others_read_every_type() {
    let sandbox = lake();
    sql(
        &sandbox,
        "create table raw.kinds (id bigint, small smallint, n int, ok boolean, ratio real, dist double, fare decimal(10,2), \
             wide decimal(38,10), zone text, raw bytea, day date, at timestamp, seen timestamptz, tags bigint[]); \
         insert into raw.kinds values \
             (1, 2, 3, true, 1.5, 2.25, 12.34, 1234567890123456789012345678.0123456789, 'Éclair', x'00ff', date '2019-01-31', \
              timestamp '2019-01-31 10:20:30.123456', timestamptz '2019-01-31 10:20:30.123456+02', [1, null, 3]), \
             (2, null, null, null, null, null, null, null, null, null, null, null, null, null), \
             (3, -2, -3, false, -1.5, -2.25, -99999999.99, -0.0000000001, '', x'', date '1900-01-01', \
              timestamp '1969-12-31 23:59:59.999999', timestamptz '2250-12-31 23:59:59+00', []); \
         create table raw.nested as select id, named_struct('x', dist, 'inner', named_struct('label', zone)) as place, \
             [named_struct('a', id)] as list from raw.kinds",
    );
    check_read(&sandbox, "kinds", 3);
    check_read(&sandbox, "nested", 3);
    // What a load makes of a file.
    sandbox.write("a.csv", "id,at,seen,fare\n1,2019-01-01 00:00:00.5,2019-01-01T00:00:00+02:00,1.5\n2,,,\n");
    good(&sandbox, "flumen ingest a.csv --to lake.raw.loaded && flumen ingest a.csv --to lake.raw.loaded --force");
    good(
        &sandbox,
        "flumen sql -o ours.parquet 'select id, at, seen, fare, _flumen_load, _flumen_file, _flumen_row from raw.loaded'",
    );
    let said = run("read.py", &["deltalake", "lake/raw/loaded", "ours.parquet"], &sandbox.path());
    assert_eq!(said, "deltalake: 4 rows\n");
}

#[test]
fn others_read_what_statements_have_changed() {
    let sandbox = lake();
    sql(
        &sandbox,
        "create table raw.parted partitioned by (zone, day) as select * from (values \
             (1, 'a', date '2019-01-01', 1.5, timestamptz '2019-01-01 00:00:00+02'), (2, 'b/c: é%20 d', date '2019-01-02', 2.5, null), \
             (3, null, null, 3.5, null), (4, 'a', date '2019-01-01', 4.5, null)) v(id, zone, day, fare, seen); \
         insert into raw.parted values (5, 'new', date '2020-01-01', 5.5, null); \
         update raw.parted set fare = fare + 1 where id in (1, 3); \
         delete from raw.parted where id = 4; \
         merge into raw.parted t using (values (2, 20.0), (9, 90.0)) s(id, fare) on t.id = s.id \
             when matched then update set fare = s.fare \
             when not matched then insert (id, zone, fare) values (s.id, 'a', s.fare); \
         alter table raw.parted add column note text; \
         alter table raw.parted add constraint positive check (fare > 0); \
         insert into raw.parted (id, zone, fare, note) values (10, 'a', 1.0, 'ok'); \
         create table raw.plain as select value as n, value % 7 as k from range(1000); \
         insert into raw.plain values (-1, -1); delete from raw.plain where k = 3; \
         update raw.plain set k = 100 where n < 10",
    );
    check_read(&sandbox, "parted", 6);
    check_read(&sandbox, "plain", 858);
    for table in ["parted", "plain"] {
        good(&sandbox, &format!("flumen lake optimize lake.raw.{table}"));
        good(&sandbox, &format!("flumen lake vacuum lake.raw.{table} --retain 0d"));
    }
    check_read(&sandbox, "parted", 6);
    check_read(&sandbox, "plain", 858);
}

#[test]
fn others_read_the_change_feed() {
    let sandbox = lake();
    sql(
        &sandbox,
        "create table raw.fed (id bigint, n bigint); \
         alter table raw.fed set tblproperties ('delta.enableChangeDataFeed' = 'true'); \
         insert into raw.fed values (1, 10), (2, 20), (3, 30); update raw.fed set n = 11 where id = 1; \
         delete from raw.fed where id = 2; \
         merge into raw.fed t using (values (3, 33), (4, 44)) s(id, n) on t.id = s.id \
             when matched then update set n = s.n when not matched then insert values (s.id, s.n)",
    );
    check_read(&sandbox, "fed", 3);
    assert_eq!(
        run("feed.py", &["lake/raw/fed", "1", "id", "n"], &sandbox.path()),
        "2,insert,1,10\n2,insert,2,20\n2,insert,3,30\n3,update_postimage,1,11\n3,update_preimage,1,10\n4,delete,2,20\n\
         5,insert,4,44\n5,update_postimage,3,33\n5,update_preimage,3,30\n"
    );
}

#[test]
fn tables_of_others_are_read() {
    let sandbox = lake();
    run("write.py", &["deltalake", "lake"], &sandbox.path());
    for (table, rows) in [("kinds", 20), ("parted", 30), ("checked", 13), ("changed", 17), ("guarded", 5)] {
        check_written(&sandbox, "deltalake", table, rows);
    }
    // Files whose names have percent signs are known as what they are, whoever named them.
    good(&sandbox, "flumen lake check --deep");
    good(&sandbox, "flumen lake vacuum lake.deltalake.parted --retain 0d");
    check_written(&sandbox, "deltalake", "parted", 30);
    good(&sandbox, "flumen lake optimize lake.deltalake.parted");
    good(&sandbox, "flumen lake vacuum lake.deltalake.parted --retain 0d && flumen lake check --deep");
    check_written(&sandbox, "deltalake", "parted", 30);
    run("write.py", &["sail", "lake"], &sandbox.path());
    check_written(&sandbox, "sail", "spark", 22);
    // The condition of another writer holds here too.
    bad(&sandbox, "flumen sql 'insert into deltalake.guarded (id) values (1000)'", 6, "small_id");
    sql(&sandbox, "insert into deltalake.guarded (id) values (50); delete from deltalake.kinds where id < 10");
    good(&sandbox, "flumen sql -o ours.parquet 'select * from deltalake.kinds'");
    for reader in READERS {
        let said = run("read.py", &[reader, "lake/deltalake/kinds", "ours.parquet"], &sandbox.path());
        assert_eq!(said, format!("{reader}: 10 rows\n"));
    }
}

#[test]
fn deletion_vectors_are_refused_clearly() {
    let sandbox = lake();
    sql(&sandbox, "create table raw.t as select 1 as n");
    // As a writer that marks rows as deleted puts it.
    let log = sandbox.path().join("lake/raw/t/_delta_log");
    let first = std::fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
    let add = first.lines().find(|line| line.starts_with("{\"add\"")).unwrap();
    let marked = add.replacen(
        "\"dataChange\"",
        "\"deletionVector\":{\"storageType\":\"u\",\"pathOrInlineDv\":\"ab^-aqEH.-t@S}K{vb[*k^\",\"offset\":4,\
         \"sizeInBytes\":40,\"cardinality\":1},\"dataChange\"",
        1,
    );
    assert_ne!(marked, add);
    let protocol = "{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[\"deletionVectors\"],\
                    \"writerFeatures\":[\"deletionVectors\"]}}";
    std::fs::write(log.join("00000000000000000001.json"), format!("{protocol}\n{marked}\n")).unwrap();
    bad(&sandbox, "flumen sql 'select * from raw.t'", 2, "deletion");
}
