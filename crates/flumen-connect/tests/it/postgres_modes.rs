//! What each mode leaves in a real Postgres table, and what a load that fails leaves: nothing.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use flumen_core::ErrorKind;
use flumen_core::load::{Fence, LoadId, LoadRequest, Mode};
use flumen_core::write::{RefusedRows, Sink, quarantine_schema};

use crate::postgres_sink::{LEFT, load, load_request, options, people, record, request, sink, sink_of, write};
use flumen_testkit::postgres::server;

fn merge() -> Mode {
    Mode::Merge { keys: vec!["id".into()], delete_flag: None }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn ids(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_updates_adds_and_deletes() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    load(&sink, "a", merge(), vec![people(&[(1, "one"), (2, "two"), (3, "three")])]).await.unwrap();
    load(&sink, "b", merge(), vec![people(&[(2, "zwei")]), people(&[(4, "vier")])]).await.unwrap();
    assert_eq!(db.show("select * from t order by id").await, "1 | one\n2 | zwei\n3 | three\n4 | vier");
    let flag = Mode::Merge { keys: vec!["id".into()], delete_flag: Some("gone".into()) };
    let rows = batch(vec![
        ("id", ids(&[1, 5, 6])),
        ("name", texts(&["x", "five", "six"])),
        ("gone", Arc::new(BooleanArray::from(vec![Some(true), None, Some(true)]))),
    ]);
    load(&sink, "c", flag, vec![rows]).await.unwrap();
    assert_eq!(db.show("select * from t order by id").await, "2 | zwei\n3 | three\n4 | vier\n5 | five");

    let error = load(&sink, "d", merge(), vec![people(&[(7, "a"), (7, "b")])]).await.unwrap_err();
    assert_eq!(error.message(), "postgres table public.t: the key id = 7 is there 2 times in the rows to load");
    let null = batch(vec![("id", Arc::new(Int64Array::from(vec![None, Some(8)]))), ("name", texts(&["a", "b"]))]);
    let error = load(&sink, "e", merge(), vec![null]).await.unwrap_err();
    assert_eq!(error.message(), "postgres table public.t: no key in 1 row, for example id = null");
    assert_eq!(db.show("select count(*) from t").await, "4");
    assert_eq!(db.show(LEFT).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn scd2_closes_what_changed() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    let mode = || Mode::Scd2 { keys: vec!["id".into()], valid_from: "since".into(), valid_to: "until".into() };
    let at = |name: &str, day: u32, rows: Vec<RecordBatch>| {
        let mut request = request(name, mode(), rows[0].schema());
        request.started = format!("2026-01-{day:02}T00:00:00Z").parse().unwrap();
        (request, rows)
    };
    for (request, rows) in [
        at("a", 1, vec![people(&[(1, "one"), (2, "two")])]),
        at("b", 2, vec![people(&[(1, "one"), (2, "zwei"), (3, "drei")])]),
    ] {
        load_request(&sink, request, rows).await.unwrap();
    }
    let all = "select id, name, since::date, until::date from t order by id, since";
    let expect = "1 | one | 2026-01-01 | -\n2 | two | 2026-01-01 | 2026-01-02\n2 | zwei | 2026-01-02 | -\n3 | drei | 2026-01-02 | -";
    assert_eq!(db.show(all).await, expect);
    let (late, rows) = at("c", 1, vec![people(&[(3, "three")])]);
    let error = load_request(&sink, late, rows).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    assert_eq!(db.show(all).await, expect);
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_where_replaces_just_that() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    load(&sink, "a", Mode::Append, vec![people(&[(1, "jan"), (2, "jan"), (3, "feb")])]).await.unwrap();
    let mode = || Mode::ReplaceWhere { predicate: "name = 'jan'".into() };
    load(&sink, "b", mode(), vec![people(&[(9, "jan")])]).await.unwrap();
    assert_eq!(db.show("select * from t order by id").await, "3 | feb\n9 | jan");
    let error = load(&sink, "c", mode(), vec![people(&[(10, "jan"), (11, "mar")])]).await.unwrap_err();
    assert_eq!(
        error.message(),
        "postgres table public.t: a row lies outside of what is to be replaced (name = 'jan'): {\"id\":11,\"name\":\"mar\"}"
    );
    let evil = Mode::ReplaceWhere { predicate: "true); drop table t; --".into() };
    assert!(load(&sink, "d", evil, vec![people(&[(1, "jan")])]).await.is_err());
    assert_eq!(db.show("select count(*) from t").await, "2");
}

/// Rows that say which load wrote them.
fn marked(name: &str, values: &[i64]) -> RecordBatch {
    let load = LoadId::derive([name]);
    batch(vec![("id", ids(values)), ("_flumen_load", texts(&vec![load.as_str(); values.len()]))])
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_load_replaces_what_the_same_slot_wrote() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    let slot = |slot: &str| Mode::ReplaceLoad { slot: slot.into() };
    load(&sink, "a", slot("jan"), vec![marked("a", &[1, 2])]).await.unwrap();
    load(&sink, "b", slot("feb"), vec![marked("b", &[3])]).await.unwrap();
    load(&sink, "c", slot("jan"), vec![marked("c", &[4])]).await.unwrap();
    assert_eq!(db.show("select id from t order by id").await, "3\n4");
    let error = load(&sink, "d", slot("jan"), vec![people(&[(1, "x")])]).await.unwrap_err();
    assert!(error.remedy().unwrap().contains("--lineage"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_undone_once_and_its_file_may_come_again() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    load(&sink, "a", Mode::Append, vec![marked("a", &[1, 2])]).await.unwrap();
    load(&sink, "b", Mode::Append, vec![marked("b", &[3])]).await.unwrap();
    let (a, file) = (LoadId::derive(["a"]), LoadId::derive(["file", LoadId::derive(["a"]).as_str()]));
    assert_eq!(sink.known(&[file.clone(), LoadId::derive(["x"])]).await.unwrap(), [true, false]);
    let again = load(&sink, "a", Mode::Append, vec![marked("a", &[1, 2])]).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert_eq!(db.show("select count(*) from t").await, "3");

    let mut undoing = record(&request("undo a", Mode::Append, marked("a", &[1]).schema()));
    undoing.undoes = Some(a.clone());
    undoing.files.clear();
    sink.undo(&a, &undoing).await.unwrap();
    assert_eq!(db.show("select id from t").await, "3");
    assert_eq!(sink.known(&[file]).await.unwrap(), [false]);
    let loads = sink.loads(10).await.unwrap();
    assert_eq!(loads.iter().map(|entry| entry.undone).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(sink.undo(&a, &undoing).await.unwrap_err().kind(), ErrorKind::Invalid);
    load(&sink, "a", Mode::Append, vec![marked("a", &[1, 2])]).await.unwrap();
    assert_eq!(db.show("select count(*) from t").await, "3");

    load(&sink, "c", Mode::Replace, vec![marked("c", &[7])]).await.unwrap();
    let error = sink.undo(&LoadId::derive(["c"]), &undoing).await.unwrap_err();
    assert!(error.message().contains("Postgres keeps no earlier version"), "{error}");
    assert_eq!(sink.undo(&LoadId::derive(["?"]), &undoing).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_leaves_the_table_as_it_was() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    load(&sink, "a", Mode::Append, vec![people(&[(1, "one")])]).await.unwrap();
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where application_name = 'flumen' and datname = current_database() and query ilike 'copy%'";
    for mode in [Mode::Append, Mode::Replace, merge()] {
        let request = request(&format!("b{mode:?}"), mode, people(&[]).schema());
        let record = record(&request);
        let session = sink.begin(request.clone()).await.unwrap();
        let mut writer = session.writer().unwrap();
        let rows: Vec<(i64, &str)> = (0..20_000).map(|id| (id, "somebody")).collect();
        let rows = people(&rows);
        writer = tokio::task::block_in_place(|| {
            writer.write(&rows).unwrap();
            writer
        });
        let mut killed = String::from("0");
        for _ in 0..1000 {
            killed = db.show(kill).await;
            if killed != "0" {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_ne!(killed, "0");
        let broken = tokio::task::block_in_place(|| {
            for _ in 0..50 {
                writer.write(&rows)?;
            }
            writer.finish()
        });
        let error = match broken {
            Err(error) => {
                session.abort().await.unwrap();
                error
            }
            Ok(()) => session.commit(&record).await.unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().ends_with("the table is as it was"), "{error}");
        assert_eq!(db.show("select * from t").await, "1 | one");
        assert_eq!(db.show(LEFT).await, "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_step_survives_a_lost_connection() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    let request = request("a", Mode::Append, people(&[]).schema());
    let record = record(&request);
    let session = sink.begin(request).await.unwrap();
    tokio::task::block_in_place(|| write(session.as_ref(), vec![people(&[(1, "one")]), people(&[(2, "two")])]))
        .unwrap();
    db.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'flumen' and datname = current_database()").await;
    session.commit(&record).await.unwrap();
    assert_eq!(db.show("select * from t order by id").await, "1 | one\n2 | two");
    assert_eq!(db.show("select count(*) from _flumen.loads").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_swept_and_a_running_load_is_named() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    // A load that was killed: its session is gone, its staging table is still there.
    let killed = sink.begin(request("a", Mode::Append, people(&[]).schema())).await.unwrap();
    drop(killed);
    db.run("create table _flumen_stage_0123456789ab_0 (x int)").await;
    let running = sink.begin(request("b", Mode::Append, people(&[]).schema())).await.unwrap();
    let error = sink.begin(request("b", Mode::Append, people(&[]).schema())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let short = LoadId::derive(["b"]).short().to_owned();
    let expect = format!("postgres table public.t: load {short} is running already (process ");
    assert!(error.message().starts_with(&expect), "{error}");
    assert_eq!(
        db.show("select relname from pg_class where relkind = 'r' and relname like '\\_flumen\\_stage%'").await,
        format!("_flumen_stage_{short}_0")
    );
    running.abort().await.unwrap();
    assert_eq!(db.show(LEFT).await, "0");
    // A load that is given up may begin again at once.
    load(&sink, "b", Mode::Append, vec![people(&[(1, "one")])]).await.unwrap();
    assert_eq!(db.show("select * from t").await, "1 | one");
    assert_eq!(sink.times_loaded(&LoadId::derive(["b"])).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_attempt_may_not_commit() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    let mut older = request("a", Mode::Append, people(&[]).schema());
    older.fence = Fence(1);
    let record = record(&older);
    let slow = sink.begin(older.clone()).await.unwrap();
    tokio::task::block_in_place(|| write(slow.as_ref(), vec![people(&[(1, "slow")])])).unwrap();
    // The later attempt claims the load, as it does once the lock of the older one is gone.
    db.run("update _flumen.claims set fence = 2").await;
    let error = slow.commit(&record).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(db.show("select to_regclass('t')").await, "-");
    assert_eq!(sink.begin(older).await.err().unwrap().kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_waits_for_no_older_one() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    let attempt = |fence| {
        let mut request = request("a", Mode::Append, people(&[]).schema());
        request.fence = Fence(fence);
        request
    };
    let record = record(&attempt(1));
    // It hangs, with its lock, in the middle of a staging table.
    let hangs = sink.begin(attempt(1)).await.unwrap();
    tokio::task::block_in_place(|| write(hangs.as_ref(), vec![people(&[(1, "slow")])])).unwrap();
    load_request(&sink, attempt(2), vec![people(&[(1, "one")])]).await.unwrap();
    let refused = hangs.commit(&record).await.unwrap_err();
    assert!(refused.message().contains("another attempt took it over"), "{refused}");
    assert_eq!(db.show("select * from t").await, "1 | one");
    // One that is older takes nothing from a later one.
    let later = sink.begin(LoadRequest { load: LoadId::derive(["b"]), ..attempt(4) }).await.unwrap();
    let older = sink.begin(LoadRequest { load: LoadId::derive(["b"]), ..attempt(3) }).await.err().unwrap();
    assert_eq!(older.kind(), ErrorKind::Conflict);
    later.abort().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_names_who_locked_it() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    load(&sink, "a", Mode::Append, vec![people(&[(1, "one")])]).await.unwrap();
    db.run("begin; lock table t in access share mode").await;
    let error = load(&sink, "b", Mode::Replace, vec![people(&[(2, "two")])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("the table is locked by process "), "{error}");
    assert!(error.message().contains("(user flumen, application ?, idle in transaction)"), "{error}");
    db.run("commit").await;
    assert_eq!(db.show("select * from t").await, "1 | one");
    load(&sink, "b", Mode::Replace, vec![people(&[(2, "two")])]).await.unwrap();
    assert_eq!(db.show("select * from t").await, "2 | two");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_named_with_the_grant() {
    let db = server().database().await;
    db.run("create role guest login; create table t (id bigint, name text); create schema closed").await;
    let url = db.url.replace("flumen@", "guest@");
    let ledgered = sink_of(&url, "t", options());
    let error = load(&ledgered, "a", Mode::Append, vec![people(&[(1, "x")])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("no right to use the ledger"), "{error}");
    assert!(error.remedy().unwrap().contains("--no-ledger"));

    let mut without = options();
    without.ledger = false;
    let plain = sink_of(&url, "t", without.clone());
    let error = load(&plain, "a", Mode::Append, vec![people(&[(1, "x")])]).await.unwrap_err();
    assert_eq!(error.message(), "postgres table public.t: permission denied for table t");
    assert!(error.remedy().unwrap().contains("grant select, insert"), "{error}");
    db.run("grant insert on t to guest").await;
    load(&plain, "a", Mode::Append, vec![people(&[(1, "x")])]).await.unwrap();
    assert_eq!(db.show("select * from t").await, "1 | x");
    let error = load(&sink_of(&url, "new", without), "a", Mode::Append, vec![people(&[(1, "x")])]).await.unwrap_err();
    assert!(error.remedy().unwrap().contains("grant usage, create on schema \"public\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn evil_names_and_keys() {
    let db = server().database().await;
    let name = "Robert\"; drop table x; -- \u{e4}'";
    let sink = sink(&db, name);
    let rows = || vec![batch(vec![("a\"b", ids(&[2, 1])), ("select", texts(&["x", "y"])), ("'%s", texts(&["", "z"]))])];
    let mut new = request("a", Mode::Append, rows()[0].schema());
    new.primary_key = vec!["a\"b".into()];
    new.indexes = vec![vec!["select".into(), "'%s".into()], vec!["'%s".into()]];
    load_request(&sink, new.clone(), rows()).await.unwrap();
    new.load = LoadId::derive(["b"]);
    new.mode = Mode::Replace;
    load_request(&sink, new.clone(), rows()).await.unwrap();
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    assert_eq!(db.show(&format!("select * from {quoted} order by 1")).await, "1 | y | z\n2 | x | ");
    let indexes = format!(
        "select count(*), count(*) filter (where indisprimary) from pg_index where indrelid = '{}'::regclass",
        quoted.replace('\'', "''")
    );
    assert_eq!(db.show(&indexes).await, "3 | 1");
    new.load = LoadId::derive(["c"]);
    new.mode = Mode::Merge { keys: vec!["a\"b".into()], delete_flag: None };
    load_request(&sink, new.clone(), rows()).await.unwrap();
    assert_eq!(db.show(&format!("select count(*) from {quoted}")).await, "2");
    new.load = LoadId::derive(["d"]);
    new.mode = Mode::Append;
    let error = load_request(&sink, new, rows()).await.unwrap_err();
    assert!(error.message().contains("a key is there twice"), "{error}");
    let long = batch(vec![("x".repeat(64).as_str(), ids(&[1]))]);
    let error = load(&sink, "e", Mode::Append, vec![long]).await.unwrap_err();
    assert!(error.message().ends_with("has a name of 64 bytes; Postgres keeps 63"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_added_with_the_rows_or_not_at_all() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    load(&sink, "a", Mode::Append, vec![people(&[(1, "one")])]).await.unwrap();
    let wider = || vec![batch(vec![("id", ids(&[2])), ("age", ids(&[30]))])];
    let mut frozen = request("b", Mode::Append, wider()[0].schema());
    frozen.evolve = false;
    let error = load_request(&sink, frozen, wider()).await.unwrap_err();
    assert_eq!(error.message(), "postgres table public.t has no column 'age'");
    load(&sink, "b", Mode::Append, wider()).await.unwrap();
    assert_eq!(db.show("select * from t order by id").await, "1 | one | -\n2 | - | 30");
    let other = || vec![batch(vec![("id", ids(&[3])), ("size", ids(&[1]))])];
    load(&sink, "c", Mode::Replace, other()).await.unwrap();
    assert_eq!(db.show("select id, name, age, size from t").await, "3 | - | - | 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_kept_once() {
    let db = server().database().await;
    let sink = sink(&db, "t");
    let session = sink.begin(request("a", Mode::Append, people(&[]).schema())).await.unwrap();
    let rows = |reason: &str| -> RefusedRows {
        use arrow::array::TimestampMicrosecondArray;
        let null: ArrayRef = arrow::array::new_null_array(&arrow::datatypes::DataType::Utf8, 1);
        let columns: Vec<ArrayRef> = vec![
            texts(&["load"]),
            texts(&["a.csv"]),
            ids(&[7]),
            ids(&[8]),
            Arc::clone(&null),
            null,
            texts(&[reason]),
            texts(&["discarded"]),
            texts(&["1,\0"]),
            Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC")),
        ];
        let columns = columns.into_iter().enumerate().map(|(i, column)| match i {
            0 => texts(&[LoadId::derive(["a"]).as_str()]),
            _ => column,
        });
        let batch = RecordBatch::try_new(quarantine_schema(), columns.collect()).unwrap();
        Box::new(std::iter::once(Ok(batch)))
    };
    session.quarantine(rows("first")).await.unwrap();
    session.quarantine(rows("second")).await.unwrap();
    session.abort().await.unwrap();
    let kept = "select file, row, line, reason, record from t__quarantine";
    assert_eq!(db.show(kept).await, "a.csv | 7 | 8 | second | 1,\\0");
    assert_eq!(db.show("select to_regclass('t')").await, "-");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_and_a_schema_that_is_not_there() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut impatient = options();
    impatient.patience = std::time::Duration::from_millis(300);
    let sink = sink_of(&format!("postgresql://u:secret@127.0.0.1:{port}/d"), "t", impatient);
    let error = sink.state().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.message().contains("secret"), "{error}");
    let db = server().database().await;
    let nothing: ArrayRef = arrow::array::new_null_array(&arrow::datatypes::DataType::Null, 2);
    let error = load(&crate::postgres_sink::sink(&db, "t"), "a", Mode::Append, vec![batch(vec![("x", nothing)])]).await;
    assert!(error.unwrap_err().message().ends_with("no column of the rows has a value, so none has a type"));
    let table = flumen_core::dataset::TableName { namespace: "nowhere".into(), table: "t".into() };
    let connector = Arc::new(flumen_connect::postgres::PlainConnector::from_url(&db.url).unwrap());
    let sink = flumen_connect::sinks::postgres::PostgresSink::new(connector, "pg.nowhere.t", table, options()).unwrap();
    let error = load(&sink, "a", Mode::Append, vec![people(&[(1, "x")])]).await.unwrap_err();
    assert_eq!(error.message(), "postgres table nowhere.t: schema \"nowhere\" does not exist");
    assert!(error.remedy().unwrap().contains("create schema"));
}
