//! Postgres through the program, with a real server: what is loaded, in every mode, and what the program says.

use crate::sandbox::Sandbox;
use flumen_testkit::postgres::{Database, server};

/// A project with a connection `pg` to an empty database. Files beside the project are reached as `../x`.
pub async fn project() -> (Sandbox, Database) {
    let database = server().database().await;
    (project_of(&database), database)
}

/// A project with a connection `pg` to `database`.
pub fn project_of(database: &Database) -> Sandbox {
    let sandbox = Sandbox::new();
    let (port, name) = database.url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).unwrap();
    sandbox.write(
        "flumen.yml",
        format!(
            "name: p\nconnections:\n  pg: {{ kind: postgres, host: 127.0.0.1, port: {port}, user: flumen, database: {name} }}\n"
        ),
    );
    sandbox
}

/// Runs a line that must succeed, and gives what it said.
#[track_caller]
pub fn good(sandbox: &Sandbox, line: &str) -> String {
    let ran = sandbox.sh(line);
    assert_eq!(ran.code, 0, "{line}: {}{}", ran.stdout, ran.stderr);
    ran.stdout + &ran.stderr
}

/// Runs a line that must fail with `code`, in a sentence with `names` and a remedy.
#[track_caller]
pub fn bad(sandbox: &Sandbox, line: &str, code: i32, names: &str) -> String {
    let ran = sandbox.sh(line);
    assert_eq!(ran.code, code, "{line}: {}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains(names), "{line}: {}", ran.stderr);
    assert_eq!(ran.stderr.matches("error: ").count(), 1, "{line}: {}", ran.stderr);
    assert!(ran.stderr.contains("hint: "), "{line}: no remedy: {}", ran.stderr);
    ran.stderr
}

/// The id of the latest load into `table`.
fn latest(sandbox: &Sandbox, table: &str) -> String {
    let listed = good(sandbox, &format!("flumen --json load list {table} --limit 1"));
    let (_, rest) = listed.split_once("\"load\":\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

const PEOPLE: &str = "id,name,at,day,fare,ok\n\
    1,ann,2019-01-01 10:00:00,2019-01-01,1.5,true\n\
    2,bob,2019-01-02 00:00:00.123456,2019-02-03,,false\n";
const MORE: &str = "id,name,at,day,fare,ok\n2,BOB,2019-01-03 00:00:00,2019-02-04,2.5,true\n3,cat,,,3.5,true\n";

#[tokio::test]
async fn connections_say_what_is_wrong() {
    let (sandbox, database) = project().await;
    // A user that must give a password, on a server that lets the others in.
    database
        .run(
            "create role guarded login password 's3cret'; \
             copy (select 'host all guarded 127.0.0.1/32 scram-sha-256') \
                 to program 'cat - pg_hba.conf > hba.new && mv hba.new pg_hba.conf'; \
             select pg_reload_conf()",
        )
        .await;
    let (port, name) = database.url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).unwrap();
    let add = |connection: &str, fields: &str| {
        good(
            &sandbox,
            &format!(
                "flumen connection add {connection} --kind postgres --set host=127.0.0.1 --set port={port} {fields}"
            ),
        )
    };
    let said = add("safe", &format!("--set user=guarded --set password=s3cret --set database={name}"));
    assert!(!said.contains("s3cret"), "{said}");
    let shown = good(&sandbox, "flumen connection show safe; flumen --json connection show safe; cat flumen.yml");
    assert!(shown.contains("password  ***") && !shown.contains("s3cret"), "{shown}");
    // The server reads its file of logins when it gets to it.
    let shown = loop {
        let ran = sandbox.sh("SAFE_PASSWORD=wrong flumen connection test safe");
        if ran.code != 0 {
            break ran;
        }
    };
    assert_eq!(shown.code, 2, "{}", shown.stderr);
    assert!(shown.stderr.contains("password authentication failed for user \"guarded\""), "{}", shown.stderr);
    assert!(shown.stderr.contains("hint: check the password"), "{}", shown.stderr);
    let said = good(&sandbox, "flumen connection test safe");
    assert!(said.contains("ok  connect to guarded@127.0.0.1:[PORT]/") && !said.contains("s3cret"), "{said}");

    add("nodb", "--set user=flumen --set database=nowhere");
    bad(&sandbox, "flumen connection test nodb", 3, "database \"nowhere\" does not exist");
    add("nouser", "--set user=nobody_here --set database=postgres");
    bad(&sandbox, "flumen connection test nouser", 2, "role \"nobody_here\" does not exist");
    good(&sandbox, "flumen connection add off --kind postgres --set host=127.0.0.1 --set port=1 --set user=me");
    bad(&sandbox, "flumen connection test off", 5, "nothing listens on 127.0.0.1, port 1");

    // A load says the same.
    sandbox.write("a.csv", PEOPLE);
    bad(&sandbox, "SAFE_PASSWORD=wrong flumen ingest a.csv --to safe.public.t", 2, "password authentication failed");
    bad(&sandbox, "flumen ingest a.csv --to nodb.public.t", 3, "database \"nowhere\" does not exist");
    bad(&sandbox, "flumen ingest a.csv --to off.public.t", 5, "nothing listens on 127.0.0.1, port 1");
    bad(&sandbox, "flumen ingest a.csv --to pgg.public.t", 3, "there is no connection 'pgg'");
    bad(&sandbox, "flumen ingest a.csv --to pg.nowhere.t", 3, "nowhere");
    // Without the right to make the ledger: what to grant, and the way without it.
    let said = bad(&sandbox, "flumen ingest a.csv --to safe.public.t", 2, "no right to use the ledger");
    assert!(said.contains("grant create on database") && said.contains("--no-ledger"), "{said}");
}

#[tokio::test]
async fn csv_gzip_and_parquet_append_once_and_replace() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", PEOPLE);
    good(&sandbox, "gzip -kc a.csv > b.csv.gz && flumen ingest a.csv --to c.parquet");
    for (number, file) in ["a.csv", "b.csv.gz", "c.parquet"].iter().enumerate() {
        let table = format!("t{number}");
        let load = format!("flumen ingest {file} --to pg.public.{table}");
        let rows = format!("select id, name, at, day, fare, ok from {table} order by id");
        good(&sandbox, &load);
        let people = "1 | ann | 2019-01-01 10:00:00 | 2019-01-01 | 1.5 | t\n\
                      2 | bob | 2019-01-02 00:00:00.123456 | 2019-02-03 | - | f";
        assert_eq!(database.show(&rows).await, people, "{file}");
        let again = good(&sandbox, &load);
        assert!(again.contains("nothing to load"), "{again}");
        assert_eq!(database.show(&rows).await, people, "{file}");
        good(&sandbox, &format!("{load} --force"));
        assert_eq!(database.show(&format!("select count(*) from {table}")).await, "4", "{file}");
        good(&sandbox, &format!("{load} --mode replace"));
        assert_eq!(database.show(&rows).await, people, "{file}");
    }
    let types = "select string_agg(format_type(atttypid, atttypmod), ', ' order by attnum) \
                 from pg_attribute where attrelid = 't0'::regclass and attnum > 0";
    let expected = "bigint, text, timestamp without time zone, date, double precision, boolean";
    assert_eq!(database.show(types).await, expected);
    assert_eq!(database.show(&types.replace("'t0'", "'t2'")).await, expected);

    // A table that was dropped holds nothing: its files come again, whichever comes first.
    database.run("drop table t0").await;
    sandbox.write("more.csv", MORE);
    good(&sandbox, "flumen ingest more.csv --to pg.public.t0 && flumen ingest a.csv --to pg.public.t0");
    assert_eq!(database.show("select count(*) from t0").await, "4");
}

#[tokio::test]
async fn merge_scd2_and_replace_where() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", PEOPLE);
    sandbox.write("more.csv", MORE);
    for file in ["a.csv", "more.csv", "more.csv"] {
        good(&sandbox, &format!("flumen ingest {file} --to pg.public.m --mode merge --key id"));
        good(&sandbox, &format!("flumen ingest {file} --to pg.public.s --mode scd2 --key id"));
    }
    assert_eq!(
        database.show("select id, name, fare from m order by id").await,
        "1 | ann | 1.5\n2 | BOB | 2.5\n3 | cat | 3.5"
    );
    assert_eq!(
        database.show("select id, name, valid_from is not null, valid_to is null from s order by id, valid_from").await,
        "1 | ann | t | t\n2 | bob | t | f\n2 | BOB | t | t\n3 | cat | t | t"
    );
    sandbox.write("twice.csv", "id,name\n7,a\n7,b\n");
    bad(&sandbox, "flumen ingest twice.csv --to pg.public.m --mode merge --key id", 6, "7");
    bad(&sandbox, "flumen ingest twice.csv --to pg.public.m --mode merge", 2, "needs the columns");
    assert_eq!(database.show("select count(*) from m").await, "3");

    sandbox.write("w.csv", "id,name\n2,two\n4,four\n");
    good(&sandbox, "flumen ingest w.csv --to pg.public.m --mode replace-where --where 'id >= 2'");
    assert_eq!(
        database.show("select id, name, fare from m order by id").await,
        "1 | ann | 1.5\n2 | two | -\n4 | four | -"
    );
    bad(&sandbox, "flumen ingest w.csv --to pg.public.m --mode replace-where --where 'id > 2' --force", 6, "outside");
    bad(&sandbox, "flumen ingest w.csv --to pg.public.m --mode replace-where --where 'idd > 2' --force", 3, "idd");
    assert_eq!(database.show("select id from m order by id").await, "1\n2\n4");

    // What the same slot wrote before is replaced, and nothing else.
    let slot = |file: &str, slot: &str| {
        let line = format!("flumen ingest {file} --to pg.public.by --mode replace-where --slot {slot} --lineage");
        good(&sandbox, &line);
    };
    slot("a.csv", "january");
    slot("more.csv", "february");
    slot("w.csv", "january");
    assert_eq!(database.show("select id, name from by order by id, name").await, "2 | BOB\n2 | two\n3 | cat\n4 | four");
}

#[tokio::test]
async fn the_flags_of_the_classic_script_replace_a_table() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", PEOPLE);
    sandbox.write("more.csv", MORE);
    let (port, name) = database.url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).unwrap();
    let load = |file: &str| {
        let place = "--host_name=127.0.0.1 --user=flumen --password=s3cret";
        good(
            &sandbox,
            &format!(
                "cd / && flumen ingest {place} --file_location={file} --port={port} --table_name=trips --database_name={name}"
            ),
        )
    };
    let path = sandbox.path().display().to_string();
    let said = load(&format!("file://{path}/a.csv"));
    assert!(said.contains("warning: a password among the arguments") && said.contains("PGPASSWORD"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
    assert_eq!(database.show("select id from trips order by id").await, "1\n2");
    load(&format!("{path}/more.csv"));
    assert_eq!(database.show("select id from trips order by id").await, "2\n3");
    let said = good(
        &sandbox,
        &format!(
            "PGPASSWORD=x flumen ingest --user flumen --host_name 127.0.0.1 --file_location a.csv --port {port} --table_name public.trips --database_name {name}"
        ),
    );
    assert!(!said.contains("warning"), "{said}");
    assert_eq!(database.show("select id from trips order by id").await, "1\n2");
    let kept = database.show("select record from _flumen.loads").await;
    assert!(!kept.contains("s3cret"), "the ledger keeps a password: {kept}");
    bad(&sandbox, "flumen ingest --user=x --table_name=t --file_location=a.csv", 2, "--database_name is missing");
}

#[tokio::test]
async fn keys_and_indexes() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", PEOPLE);
    sandbox.write("more.csv", MORE);
    let indexes =
        "select pg_get_indexdef(indexrelid), indisprimary from pg_index where indrelid = 't'::regclass order by 1";
    let expected = "CREATE INDEX t_at_day_idx ON public.t USING btree (at, day) | f\n\
                    CREATE INDEX t_name_idx ON public.t USING btree (name) | f\n\
                    CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id) | t";
    let flags = "--index name --index at,day --primary-key id";
    good(&sandbox, &format!("flumen ingest a.csv --to pg.public.t {flags}"));
    assert_eq!(database.show(indexes).await, expected);
    let said = bad(&sandbox, "flumen ingest more.csv --to pg.public.t", 6, "a key is there twice");
    assert!(said.contains("--mode merge"), "{said}");
    assert_eq!(database.show("select id from t order by id").await, "1\n2");
    good(&sandbox, &format!("flumen ingest more.csv --to pg.public.t --mode replace {flags}"));
    assert_eq!(database.show(indexes).await, expected);
    assert_eq!(database.show("select id from t order by id").await, "2\n3");
    bad(&sandbox, "flumen ingest a.csv --to pg.public.t --index nmae", 2, "nmae");
    bad(&sandbox, "flumen ingest a.csv --to pg.public.t --primary-key name", 2, "another primary key");
}

#[tokio::test]
async fn a_table_keeps_its_defaults_and_its_types() {
    let (sandbox, database) = project().await;
    database
        .run(
            "create table t (id serial primary key, gid int generated always as identity, name text not null, \
             made timestamptz not null default '2020-01-01', n int default 7)",
        )
        .await;
    sandbox.write("a.csv", "name\nann\n");
    sandbox.write("b.csv", "name,extra\nbob,9\n");
    good(&sandbox, "flumen ingest a.csv --to pg.public.t && flumen ingest b.csv --to pg.public.t");
    let rows = "select id, gid, name, made is not null, n, extra from t order by id";
    let two = "1 | 1 | ann | t | 7 | -\n2 | 2 | bob | t | 7 | 9";
    assert_eq!(database.show(rows).await, two);
    // Text in a column of integers: the line, the column, and the table as it was.
    sandbox.write("c.csv", "n,name\n1,cat\nmany,dan\n");
    let said = bad(&sandbox, "flumen ingest c.csv --to pg.public.t", 6, "c.csv, line 3: column 'n': 'many' is not");
    assert!(said.contains("--max-bad"), "{said}");
    assert_eq!(database.show(rows).await, two);
    // A number that does not fit the narrower column of the table.
    sandbox.write("d.csv", "n,name\n3000000000,eve\n");
    bad(&sandbox, "flumen ingest d.csv --to pg.public.t", 6, "3000000000");
    assert_eq!(database.show(rows).await, two);
    sandbox.write("f.csv", "n\n5\n");
    bad(&sandbox, "flumen ingest f.csv --to pg.public.t", 6, "'name'");
    assert_eq!(database.show(rows).await, two);
}

#[tokio::test]
async fn refused_rows_go_into_quarantine() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", "id,name\n1,a\n");
    sandbox.write("b.csv", "id,name\n2,b\nx,y\n3,c\n");
    good(&sandbox, "flumen ingest a.csv --to pg.public.t");
    let load = "flumen ingest b.csv --to pg.public.t";
    let refused = "select file, line, \"column\", value, \"row\" from t__quarantine";
    for _ in 0..2 {
        bad(&sandbox, load, 6, "b.csv, line 3: column 'id': 'x' is not of type bigint");
        assert_eq!(database.show(refused).await, "b.csv | 3 | id | x | 2", "the same load keeps them once");
    }
    assert_eq!(database.show("select id from t order by id").await, "1");
    let said = good(&sandbox, &format!("{load} --max-bad 1"));
    assert!(said.contains("quarantined 1"), "{said}");
    assert_eq!(database.show("select id from t order by id").await, "1\n2\n3");
    assert_eq!(database.show(refused).await, "b.csv | 3 | id | x | 2");
}

#[tokio::test]
async fn nested_values_become_jsonb_now_and_later() {
    let (sandbox, database) = project().await;
    sandbox.write(
        "a.json",
        "{\"id\":1,\"tags\":[\"a\",\"b\"],\"o\":{\"x\":1,\"y\":[1,2]}}\n{\"id\":2,\"tags\":[],\"o\":null}\n",
    );
    sandbox.write(
        "b.json",
        "{\"id\":3,\"tags\":[\"c\"],\"o\":{\"x\":2,\"y\":[3]}}\n{\"id\":4,\"o\":{\"x\":3,\"z\":\"new\"}}\n",
    );
    good(&sandbox, "flumen ingest a.json --to pg.public.j");
    good(&sandbox, "flumen ingest b.json --to pg.public.j");
    let types = "select string_agg(format_type(atttypid, atttypmod), ', ' order by attnum) \
                 from pg_attribute where attrelid = 'j'::regclass and attnum > 0";
    assert_eq!(database.show(types).await, "bigint, text[], jsonb");
    assert_eq!(
        database.show("select id, tags, o->'x', o->'y', o->>'z' from j order by id").await,
        "1 | {a,b} | 1 | [1, 2] | -\n2 | {} | - | - | -\n3 | {c} | 2 | [3] | -\n4 | - | 3 | - | new"
    );
}

#[tokio::test]
async fn loads_are_listed_shown_and_undone() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", PEOPLE);
    sandbox.write("more.csv", MORE);
    good(&sandbox, "flumen ingest a.csv --to pg.public.t");
    let plain = latest(&sandbox, "pg.public.t");
    // Rows that do not say where they come from cannot be taken back.
    let said = bad(&sandbox, &format!("flumen load undo {plain} --of pg.public.t"), 2, "cannot be undone");
    assert!(said.contains("--lineage"), "{said}");
    good(&sandbox, "flumen ingest more.csv --to pg.public.t --lineage");
    let marked = latest(&sandbox, "pg.public.t");
    assert_eq!(
        database.show("select id, _flumen_load, _flumen_file, _flumen_row from t order by id, name desc").await,
        format!("1 | - | - | -\n2 | - | - | -\n2 | {marked} | more.csv | 1\n3 | {marked} | more.csv | 2")
    );
    let shown = good(&sandbox, &format!("flumen load show {} --of pg.public.t", &marked[..12]));
    assert!(shown.contains("2 read, 2 written") && shown.contains("more.csv"), "{shown}");
    let listed = good(&sandbox, "flumen load list pg.public.t");
    assert_eq!(listed.matches("loaded").count(), 2, "{listed}");

    // Also not when a later load brought the column.
    bad(&sandbox, &format!("flumen load undo {plain} --of pg.public.t"), 2, "cannot be undone");
    assert_eq!(database.show("select count(*) from t").await, "4");
    good(&sandbox, &format!("flumen load undo {marked} --of pg.public.t"));
    assert_eq!(database.show("select id, name from t order by id").await, "1 | ann\n2 | bob");
    let said = good(&sandbox, &format!("flumen load undo {marked} --of pg.public.t"));
    assert!(said.contains("taken back already"), "{said}");
    // What was taken back may come again.
    good(&sandbox, "flumen ingest more.csv --to pg.public.t --lineage");
    assert_eq!(database.show("select count(*) from t").await, "4");
    // What removed rows cannot be taken back: Postgres keeps no earlier version.
    good(&sandbox, "flumen ingest a.csv --to pg.public.t --mode replace --lineage");
    let replaced = latest(&sandbox, "pg.public.t");
    bad(&sandbox, &format!("flumen load undo {replaced} --of pg.public.t"), 2, "cannot be undone");
    bad(&sandbox, "flumen load show 0123456789ab --of pg.public.t", 3, "there is no load '0123456789ab'");
}

#[tokio::test]
async fn tables_and_queries_come_into_the_lake() {
    let (sandbox, database) = project().await;
    database
        .run(
            "create table t (id int primary key, name text, at timestamp, price numeric(8,2), o jsonb); \
             insert into t values (1, 'ann', '2019-01-01 10:00', 1.50, '{\"x\": 1}'), (2, null, null, null, null)",
        )
        .await;
    let rows = |sql: &str| good(&sandbox, &format!("flumen --json sql \"{sql}\""));
    good(&sandbox, "flumen ingest pg.public.t --to lake.raw.t");
    assert_eq!(
        rows("select id, name, at, price, o from lake.raw.t order by id").trim(),
        r#"[{"id":1,"name":"ann","at":"2019-01-01T10:00:00","price":1.50,"o":"{\"x\": 1}"},{"id":2,"name":null,"at":null,"price":null,"o":null}]"#
    );
    // Only what is newer than the last load.
    for loaded in [2, 2, 3] {
        if loaded == 3 {
            database.run("insert into t values (3, 'cat', '2019-01-03', 3, null)").await;
        }
        good(&sandbox, "flumen ingest pg.public.t --cursor id --to lake.raw.c");
        assert_eq!(rows("select count(*) as n from lake.raw.c").trim(), format!(r#"[{{"n":{loaded}}}]"#));
    }
    good(&sandbox, "flumen ingest pg --query 'select name, count(*) as n from t group by 1' --to lake.raw.q");
    assert_eq!(rows("select count(*) as n from lake.raw.q").trim(), r#"[{"n":3}]"#);
    // From one database table to another.
    good(&sandbox, "flumen ingest pg.public.t --to pg.public.copy");
    assert_eq!(database.show("select count(*), sum(id) from copy").await, "3 | 6");
    bad(&sandbox, "flumen ingest pg.public.tt --to lake.raw.x", 3, "there is no table public.tt");
    bad(&sandbox, "flumen ingest pg --query 'selec 1' --to lake.raw.x", 2, "syntax error");
    bad(&sandbox, "flumen ingest pg.public.t --cursor idd --to lake.raw.x", 2, "no column 'idd'");
}

#[tokio::test]
async fn a_load_with_an_id_of_its_own_loads_once() {
    let (sandbox, database) = project().await;
    let count = || good(&sandbox, "flumen --json sql 'select count(*) as n from lake.raw.t'");
    for to in ["pg.public.t", "lake.raw.t"] {
        let load = format!("printf 'a\\n1\\n' | flumen ingest - --to {to} --lineage --load-id");
        good(&sandbox, &format!("{load} monday"));
        let said = good(&sandbox, &format!("{load} monday"));
        assert!(said.contains("nothing to load"), "{said}");
        good(&sandbox, &format!("{load} tuesday"));
        // What was taken back may come again.
        let undo = latest(&sandbox, to);
        good(&sandbox, &format!("flumen load undo {undo} --of {to} && {load} tuesday && {load} tuesday"));
    }
    assert_eq!(database.show("select count(*) from t").await, "2");
    assert_eq!(count().trim(), r#"[{"n":2}]"#);
}

#[tokio::test]
async fn what_postgres_cannot_keep_is_refused() {
    let (sandbox, database) = project().await;
    let many = |n: usize| (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>().join(",");
    sandbox.write("wide.csv", format!("{}\n{}\n", many(1700), vec!["1"; 1700].join(",")));
    sandbox.write("long.csv", format!("{}\n1\n", "c".repeat(70)));
    sandbox.write("system.csv", "ctid\n1\n");
    let said = bad(&sandbox, "flumen ingest wide.csv --to pg.public.t", 2, "at most 1600 columns");
    assert!(said.contains("--select"), "{said}");
    let said = bad(&sandbox, "flumen ingest long.csv --to pg.public.t", 2, "a name of 70 bytes");
    assert!(said.contains("--rename"), "{said}");
    bad(&sandbox, "flumen ingest system.csv --to pg.public.t", 2, "\"ctid\"");
    assert_eq!(
        database
            .show("select count(*) from pg_class where relname like 't%' and relnamespace = 'public'::regnamespace")
            .await,
        "0"
    );
    // Names that need quotes are kept as they are.
    sandbox.write("odd.csv", "Select,\"a \"\"q\"\"\",c d\n1,2,3\n");
    good(&sandbox, "flumen ingest odd.csv --to pg.public.Odd --index 'c d' --primary-key Select");
    assert_eq!(database.show("select \"Select\", \"a \"\"q\"\"\", \"c d\" from \"Odd\"").await, "1 | 2 | 3");
    // A rehearsal leaves nothing, not even a ledger.
    let (dry, other) = project().await;
    dry.write("a.csv", PEOPLE);
    good(&dry, "flumen ingest a.csv --to pg.public.t --dry-run");
    assert_eq!(other.show("select count(*) from pg_namespace where nspname = '_flumen'").await, "0");
}
