//! The doors, with the real server and real clients.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::postgres::{bad, good};
use crate::sandbox::Sandbox;
use crate::server::Server;

const PEOPLE: &str = "id,name,fare,day,at,ok\n\
    1,ann,1.5,2019-01-01,2019-01-01 10:00:00,true\n\
    2,bob,2.25,2019-01-02,2019-01-02 11:30:00.5,false\n\
    3,,,,,\n";

/// A project with two tables.
pub fn project() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("flumen.yml", "name: p\n");
    sandbox.write("a.csv", PEOPLE);
    good(
        &sandbox,
        "flumen ingest a.csv --to lake.raw.people --lineage=false && flumen ingest a.csv --to lake.mart.others",
    );
    sandbox
}

/// A server of it.
pub fn server() -> Server {
    Server::start(project(), &[])
}

fn with_users() -> Server {
    let sandbox = project();
    good(&sandbox, "echo s3cret | flumen user add ann && echo p4ss | flumen user add reader --read-only");
    Server::start(sandbox, &[])
}

/// The folder of the clients in other languages.
fn clients() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/clients").canonicalize().unwrap()
}

/// The Python with the clients, which `scripts/setup.sh test` has made.
fn python() -> PathBuf {
    python_in("FLUMEN_CLIENTS", "clients")
}

/// The Python of one of the folders that `scripts/setup.sh test` has made.
fn python_in(variable: &str, name: &str) -> PathBuf {
    let home = std::env::var("HOME").unwrap_or_default();
    let folder = std::env::var(variable).unwrap_or_else(|_| format!("{home}/.cache/flumen/{name}"));
    PathBuf::from(folder).join("bin/python")
}

#[track_caller]
fn check_client(command: &mut Command, server: &Server) {
    command.env("FLUMEN_PG", server.pg_as("me")).env("FLUMEN_FLIGHT", &server.flight);
    command.env("FLUMEN_JDBC", format!("jdbc:postgresql:{}?user=me", server.pg.trim_start_matches("postgres:")));
    let output = command.current_dir(clients()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.ends_with("ok\n"), "{command:?}: {said}");
}

#[test]
fn python_clients() {
    let server = server();
    for client in ["psycopg", "sqlalchemy", "asyncpg", "frames", "adbc"] {
        check_client(Command::new(python()).arg(format!("{client}_client.py")), &server);
    }
}

#[test]
fn psql_completes_names() {
    check_client(Command::new("python3").arg("psql_completion.py"), &server());
}

#[test]
fn jdbc() {
    let server = server();
    check_client(Command::new("java").args(["-cp", "/usr/share/java/postgresql.jar", "JdbcClient.java"]), &server);
}

#[test]
fn pgadmin() {
    let server = server();
    check_client(Command::new(python_in("FLUMEN_PGADMIN", "pgadmin")).arg("pgadmin_client.py"), &server);
}

#[test]
fn psql() {
    let server = server();
    let said =
        server.psql("me", "\\dn\n\\dt\n\\d raw.people\n\\dv\n\\l\nselect id, name from raw.people order by id;\n");
    for line in [
        " raw    | people     | table | me\n",
        " id     | bigint                      |           |          | \n",
        " at     | timestamp without time zone |           |          | \n",
        "  1 | ann\n  2 | bob\n  3 | \n(3 rows)\n",
        " lake | me    | UTF8 ",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    // Everything that psql can list is listed, if only to say that there is nothing.
    let commands = [
        "\\dt+",
        "\\d+ raw.people",
        "\\di",
        "\\ds",
        "\\dm",
        "\\dE",
        "\\df abs",
        "\\da count",
        "\\dp",
        "\\db",
        "\\dT",
        "\\do",
        "\\dC",
        "\\dx",
        "\\du+",
        "\\drds",
        "\\dd",
        "\\dO",
        "\\dL",
        "\\dA",
        "\\dRp",
        "\\ddp",
        "\\dX",
        "\\l+",
        "\\dn+",
        "\\dconfig *timeout*",
    ];
    let said = server.psql("me", &commands.join("\n"));
    assert!(!said.contains("ERROR"), "{said}");
    assert!(said.contains("statement_timeout"), "{said}");
    // Functions have their arguments and results.
    let said = server.psql("me", "\\df abs\n\\df sqrt\n\\df starts_with\n\\da sum\n\\df row_number\n");
    for (name, result, arguments) in [
        ("abs", "double precision", "double precision"),
        ("abs", "bigint", "bigint"),
        ("sqrt", "double precision", "double precision"),
        ("starts_with", "boolean", "text, text"),
        ("sum", "double precision", "double precision"),
        ("row_number", "numeric", ""),
    ] {
        let is = |line: &str| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            matches!(cells[..], [_, of, gives, takes, ..] if (of, gives, takes) == (name, result, arguments))
        };
        assert!(said.lines().any(is), "{name}({arguments}) is not in {said}");
    }
    // An error points at its place.
    let said = server.psql("me", "select nope from raw.people;");
    assert!(
        said.contains("LINE 1: select nope from raw.people;\n               ^\n") && said.contains("HINT:"),
        "{said}"
    );
}

#[test]
fn psql_writes_and_is_told_what_was_done() {
    let server = server();
    let mut command = Command::new("psql");
    command.args(["-X", &server.pg_as("me"), "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let script = "create table t (a bigint, b text);\n\
        insert into t values (1, 'x'), (2, 'y');\n\
        create table c as select * from t;\n\
        update t set b = 'z';\n\
        begin;\n\
        delete from t where a = 1;\n\
        savepoint s;\n\
        delete from t;\n\
        rollback to s;\n\
        commit;\n\
        begin;\n\
        truncate t;\n\
        rollback;\n\
        \\copy t from stdin csv\n3,w\n\\.\n\
        merge into t using (values (2), (3)) as s(a) on t.a = s.a when matched then delete;\n\
        create view v as select 1 as one;\n\
        drop view v;\n\
        drop table c;\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let tags: Vec<&str> = said.lines().collect();
    let expected = [
        "CREATE TABLE",
        "INSERT 0 2",
        "SELECT 2",
        "UPDATE 2",
        "BEGIN",
        "DELETE 1",
        "SAVEPOINT",
        "DELETE 1",
        "ROLLBACK",
        "COMMIT",
        "BEGIN",
        "TRUNCATE TABLE",
        "ROLLBACK",
        "COPY 1",
        "MERGE 2",
        "CREATE VIEW",
        "DROP VIEW",
        "DROP TABLE",
    ];
    assert_eq!(tags, expected, "{}", String::from_utf8_lossy(&output.stderr));
    let left = good(&server.sandbox, "flumen sql 'select count(*) as n from public.t' --format csv");
    assert_eq!(left, "n\n0\n");
}

#[test]
fn psql_shows_keys_checks_comments_and_views() {
    let server = server();
    let made = "create table shop.customers (id bigint primary key, name text not null unique);\n\
        create table shop.sales (id bigint primary key, customer bigint references shop.customers (id), \
        amount double check (amount > 0));\n\
        comment on table shop.sales is 'what was sold';\n\
        comment on column shop.sales.amount is 'in euros';\n\
        create view shop.large as select id from shop.sales where amount > 100;\n";
    assert_eq!(server.psql("me", made), "");
    let said = server.psql("me", "\\d+ shop.sales\n\\dv shop.*\n\\d+ shop.large\n\\di shop.*\n\\dt+ shop.*\n");
    for part in [
        "PRIMARY KEY, btree (id)",
        "\"check_1\" CHECK ((amount > 0))",
        "FOREIGN KEY (customer) REFERENCES shop.customers(id)",
        "REFERENCES shop.customers(id)",
        " | in euros",
        " shop   | large | view | me",
        "View \"shop.large\"",
        "View definition:\n SELECT id FROM shop.sales WHERE amount > 100;",
        "what was sold",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let query = "select table_name, constraint_type from information_schema.table_constraints \
        where table_schema = 'shop' order by 1, 2;";
    let said = server.psql("me", query);
    for part in
        [" customers  | PRIMARY KEY", " customers  | UNIQUE", " sales      | CHECK", " sales      | FOREIGN KEY"]
    {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[tokio::test]
async fn a_database_is_an_environment() {
    let sandbox = project();
    good(&sandbox, "flumen env create dev");
    let server = Server::start(sandbox, &[]);
    let databases = server.psql("me", "\\l\n");
    assert!(databases.contains(" lake | ") && databases.contains(" dev  | "), "{databases}");
    let dev = server.pg_as("me").replace("/lake", "/dev");
    let (client, connection) = tokio_postgres::connect(&dev, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("delete from raw.people where id = 1").await.unwrap();
    assert_eq!(client.query_one("select current_database()", &[]).await.unwrap().get::<_, String>(0), "dev");
    let count = "select count(*) from raw.people";
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 2);
    let lake = server.connect("me").await.unwrap();
    assert_eq!(lake.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 3);
    let error = tokio_postgres::connect(&dev.replace("/dev", "/nowhere"), NoTls).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "3D000", "{error:?}");
}

#[tokio::test]
async fn a_server_looks_after_its_lake() {
    let sandbox = project();
    good(&sandbox, "flumen lake tag raw.people --retention 365d --by day");
    // With the switch nothing happens, however long it runs; the first round would have begun before the ready file.
    let count = "select count(*) from raw.people where id < 3";
    let mut server = Server::start(sandbox, &["--no-maintenance"]);
    let client = server.connect("me").await.unwrap();
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 2);
    assert_eq!(server.stop(), 0);
    let sandbox = server.into_sandbox();
    let server = Server::start(sandbox, &[]);
    let client = server.connect("me").await.unwrap();
    while client.query_one(count, &[]).await.unwrap().get::<_, i64>(0) != 0 {}
}

#[tokio::test]
async fn users_log_in_with_their_passwords_and_readers_only_read() {
    let server = with_users();
    for wrong in ["ann", "ann:wrong", "nobody:s3cret", "reader:s3cret"] {
        let error = server.connect(wrong).await.err().unwrap();
        let said = format!("{error:?}");
        assert!(said.contains("28P01") || said.contains("password missing"), "{wrong}: {said}");
    }
    let writer = server.connect("ann:s3cret").await.unwrap();
    writer.batch_execute("create table t as select 1 as a; insert into t values (2)").await.unwrap();
    let reader = server.connect("reader:p4ss").await.unwrap();
    assert_eq!(reader.query_one("select count(*) from raw.people", &[]).await.unwrap().get::<_, i64>(0), 3);
    for sql in [
        "create table t as select 1 as a",
        "insert into raw.people (id) values (4)",
        "drop table raw.people",
        "create view raw.v as select 1 as a",
        "comment on table raw.people is 'x'",
    ] {
        let error = reader.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("25006"), "{sql}: {error:?}");
    }
    for sql in ["explain analyze delete from raw.people", "with d as (delete from raw.people) select 1"] {
        assert!(reader.batch_execute(sql).await.is_err(), "{sql}");
    }
    assert_eq!(reader.query_one("select count(*) from raw.people", &[]).await.unwrap().get::<_, i64>(0), 3);
    let said = server.psql("reader:p4ss", "copy raw.people (id) from stdin;\n9\n\\.\n");
    assert!(said.contains("may only read"), "{said}");
    writer.batch_execute("create temporary table own as select 1 as a").await.unwrap();
    // Sessions do not see each other's tables of the session.
    assert_eq!(reader.batch_execute("select * from own").await.unwrap_err().code().unwrap().code(), "42P01");
    let mut adbc = Command::new(python());
    adbc.arg("adbc_client.py").env("FLUMEN_USER", "reader").env("FLUMEN_PASSWORD", "p4ss");
    check_client(&mut adbc, &server);
    // A password that is changed is changed for the next login; a user who is dropped is out.
    good(&server.sandbox, "echo new | flumen user passwd ann && flumen user drop reader");
    assert!(server.connect("ann:s3cret").await.is_err() && server.connect("reader:p4ss").await.is_err());
    server.connect("ann:new").await.unwrap();
}

#[tokio::test]
async fn statements_are_cancelled_timed_out_and_seen() {
    let server = server();
    let client = std::sync::Arc::new(server.connect("me").await.unwrap());
    let other = server.connect("me").await.unwrap();
    const LONG: &str = "select count(*) from generate_series(1, 100000000000) a(x) where x % 7 = 3";
    let running = async |statement: &'static str| {
        loop {
            let rows = other
                .query("select pid, state, query from pg_stat_activity where state = 'active'", &[])
                .await
                .unwrap();
            if let Some(row) = rows.iter().find(|row| row.get::<_, String>(2) == statement) {
                return row.get::<_, i32>(0);
            }
        }
    };
    // By a request of the client.
    let long = tokio::spawn({
        let client = std::sync::Arc::clone(&client);
        async move { client.batch_execute(LONG).await }
    });
    running(LONG).await;
    client.cancel_token().cancel_query(NoTls).await.unwrap();
    assert_eq!(long.await.unwrap().unwrap_err().code().unwrap().code(), "57014");
    // By another session.
    let long = tokio::spawn({
        let client = std::sync::Arc::clone(&client);
        async move { client.batch_execute(LONG).await }
    });
    let pid = running(LONG).await;
    assert!(other.query_one("select pg_cancel_backend($1)", &[&pid]).await.unwrap().get::<_, bool>(0));
    assert_eq!(long.await.unwrap().unwrap_err().code().unwrap().code(), "57014");
    // By time.
    client.batch_execute("set statement_timeout = '50ms'").await.unwrap();
    let error = client.batch_execute(LONG).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("statement timeout"), "{error:?}");
    client.batch_execute("set statement_timeout = 0; select 1").await.unwrap();
    // And the whole session.
    assert!(other.query_one("select pg_terminate_backend($1)", &[&pid]).await.unwrap().get::<_, bool>(0));
    let error = client.batch_execute("select 1").await.unwrap_err();
    assert!(error.is_closed() || error.code().is_some_and(|code| code.code() == "57P01"), "{error:?}");
}

#[tokio::test]
async fn portals_give_rows_a_few_at_a_time_and_types_are_told() {
    let server = server();
    let mut client = server.connect("me").await.unwrap();
    let statement =
        client.prepare("select id, name from raw.people where fare > $1 and day = $2 limit $3").await.unwrap();
    let types: Vec<&str> = statement.params().iter().map(|kind| kind.name()).collect();
    assert_eq!(types, ["float8", "date", "int8"]);
    let columns: Vec<(&str, &str)> =
        statement.columns().iter().map(|column| (column.name(), column.type_().name())).collect();
    assert_eq!(columns, [("id", "int8"), ("name", "text")]);
    let block = client.transaction().await.unwrap();
    let portal = block.bind("select id from raw.people order by id", &[]).await.unwrap();
    let first: Vec<i64> = block.query_portal(&portal, 2).await.unwrap().iter().map(|row| row.get(0)).collect();
    let rest: Vec<i64> = block.query_portal(&portal, 2).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!((first, rest), (vec![1, 2], vec![3]));
    block.batch_execute("declare c cursor for select id from raw.people order by id; move 1 from c").await.unwrap();
    let messages = block.simple_query("fetch 1 from c; fetch all from c; close c").await.unwrap();
    let rows: Vec<&str> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    assert_eq!(rows, ["2", "3"]);
    block.rollback().await.unwrap();
    assert_eq!(client.batch_execute("fetch 1 from c").await.unwrap_err().code().unwrap().code(), "34000");
}

#[tokio::test]
async fn functions_about_the_session_are_there_for_every_statement() {
    let server = server();
    let client = server.connect("me").await.unwrap();
    let about = "current_user, session_user, current_catalog, current_database(), version(), pg_backend_pid(), \
        current_setting('application_name'), has_table_privilege('raw.people', 'insert'), \
        pg_is_in_recovery(), pg_size_pretty(2048), to_regclass('raw.people')::text";
    client.batch_execute("set application_name = 'here'").await.unwrap();
    // From no table, from the catalog, and from the lake: whoever answers, the answer is the same.
    let mut answers = Vec::new();
    for from in ["", " from pg_class where relname = 'people'", " from raw.people where id = 1"] {
        let row = client.query_one(&format!("select {about}{from}"), &[]).await.unwrap();
        let texts = [0, 1, 2, 3, 4, 6, 9, 10].map(|column| row.get::<_, String>(column));
        answers.push((texts, row.get::<_, i32>(5), row.get::<_, bool>(7), row.get::<_, bool>(8)));
    }
    let (texts, pid, may, recovery) = &answers[0];
    assert_eq!(texts[..4], ["me", "me", "lake", "lake"]);
    assert!(texts[4].starts_with("PostgreSQL 15.0 (Flumen "), "{texts:?}");
    assert_eq!(texts[5..], ["here", "2048 bytes", "people"]);
    assert!(*pid > 0 && *may && !*recovery);
    assert_eq!(answers[1], answers[0]);
    assert_eq!(answers[2], answers[0]);
    // Their arguments may be columns, their values may be written.
    client.batch_execute("create table public.seen as select id, current_user as who from raw.people").await.unwrap();
    client
        .batch_execute("insert into public.seen select 9, pg_size_pretty(id * 10240) from raw.people where id = 2")
        .await
        .unwrap();
    client
        .batch_execute("update public.seen set who = current_database() where who = current_user and id = 2")
        .await
        .unwrap();
    let rows = client.query("select who from public.seen where who <> $1 order by id", &[&"you"]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["me", "lake", "me", "20 kB"]);
    let error = client.batch_execute("select current_setting('nothing') from raw.people").await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("unrecognized configuration parameter"), "{error:?}");
    // The settings as a function have the columns of the view.
    let settings = "select name, setting, context from pg_show_all_settings() where context in ('user') \
        except select name, setting, context from pg_settings";
    assert!(client.query(settings, &[]).await.unwrap().is_empty());
    assert_eq!(
        client.query("select context from pg_show_all_settings() where name = 'jit'", &[]).await.unwrap().len(),
        1
    );
    // A call without its arguments is no end of the session.
    for from in ["", " from raw.people"] {
        let _ =
            client.batch_execute(&format!("select current_schemas(), pg_relation_size(), pg_get_expr(){from}")).await;
    }
    client.batch_execute("select 1").await.unwrap();
}

#[tokio::test]
async fn who_needs_too_much_memory_is_told_what_would_help() {
    let server = Server::start(project(), &["--session-memory", "16MB", "--memory", "64MB"]);
    let client = server.connect("me").await.unwrap();
    let sql = "select count(distinct cast(value as varchar) || repeat('x', 100)) from generate_series(1, 1000000)";
    let error = client.batch_execute(sql).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "53200", "{error:?}");
    assert!(error.message().contains("needs more memory") && !error.message().ends_with(':'), "{error:?}");
    assert!(error.hint().unwrap().contains("--session-memory"), "{error:?}");
}

#[tokio::test]
async fn files_of_the_server_are_out_of_reach_unless_the_project_allows_a_folder() {
    let server = server();
    let client = server.connect("me").await.unwrap();
    let path = server.sandbox.path().join("a.csv");
    for sql in [
        format!("select * from '{}'", path.display()),
        "select * from 'a.csv'".to_owned(),
        "select * from 'https://127.0.0.1:1/x.csv'".to_owned(),
        format!("copy (select 1) to '{}'", path.with_extension("out").display()),
        format!("copy raw.people from '{}'", path.display()),
        format!("create external table raw.x stored as csv location '{}'", path.display()),
        format!("create external table raw.y stored as delta location '{}'", server.sandbox.path().display()),
        "copy (select 1) to program 'touch x'".to_owned(),
    ] {
        assert!(client.batch_execute(&sql).await.is_err(), "{sql}");
    }
    assert!(!path.with_extension("out").exists());

    let sandbox = project();
    sandbox.write("open/in.csv", "a\n1\n");
    sandbox.write("flumen.yml", "name: p\nserve: { files: open }\n");
    std::os::unix::fs::symlink(sandbox.path().join("a.csv"), sandbox.path().join("open/out.csv")).unwrap();
    let server = Server::start(sandbox, &[]);
    let client = server.connect("me").await.unwrap();
    assert_eq!(client.query_one("select a from 'in.csv'", &[]).await.unwrap().get::<_, i64>(0), 1);
    for name in ["../a.csv", "out.csv", "o*.csv", "/etc/passwd", "http://127.0.0.1:1/in.csv"] {
        assert!(client.batch_execute(&format!("select * from '{name}'")).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_server_ends_when_it_is_asked_to_and_says_so() {
    let mut server = server();
    let client = server.connect("me").await.unwrap();
    client.batch_execute("select 1").await.unwrap();
    assert_eq!(server.stop(), 0);
    assert!(client.batch_execute("select 1").await.is_err());
    assert!(!server.sandbox.path().join("ready").exists());
}

#[tokio::test]
async fn connections_are_counted() {
    let server = Server::start(project(), &["--max-connections", "1"]);
    let first = server.connect("me").await.unwrap();
    assert_eq!(server.connect("me").await.err().unwrap().code().unwrap().code(), "53300");
    drop(first);
}

#[test]
fn a_door_does_not_open_where_it_would_be_open_to_all() {
    let sandbox = project();
    bad(&sandbox, "flumen serve --pg 0.0.0.0:0", 2, "there are no users");
    bad(&sandbox, "flumen serve --pg 127.0.0.1:0 --flight 0.0.0.0:0", 2, "there are no users");
    good(&sandbox, "echo s3cret | flumen user add ann");
    bad(&sandbox, "flumen serve --pg 127.0.0.1:0 --flight 0.0.0.0:0", 2, "in clear");
    bad(&sandbox, "flumen user add 'a b' < /dev/null", 2, "cannot be the name");
    bad(&sandbox, "flumen user add ann < /dev/null", 4, "already");
    bad(&sandbox, "flumen user passwd bob < /dev/null", 3, "no user 'bob'");
    let listed = good(&sandbox, "flumen user list");
    assert!(listed.contains("ann") && !listed.contains("SCRAM"), "{listed}");
}

#[tokio::test]
async fn tls_is_used_by_all_or_the_server_does_not_start() {
    let sandbox = project();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    sandbox.write("server.crt", made.cert.pem());
    sandbox.write("server.key", made.signing_key.serialize_pem());
    sandbox.write("other.key", other.signing_key.serialize_pem());
    sandbox.write("nothing.crt", "nothing");
    let serve = "flumen serve --pg 127.0.0.1:0";
    bad(&sandbox, &format!("{serve} --tls-cert nothing.crt --tls-key server.key"), 2, "no certificate");
    bad(&sandbox, &format!("{serve} --tls-cert server.crt --tls-key nothing.crt"), 2, "no private key");
    bad(&sandbox, &format!("{serve} --tls-cert server.crt --tls-key other.key"), 2, "do not go together");
    bad(&sandbox, &format!("{serve} --tls-cert missing.crt --tls-key server.key"), 3, "missing.crt");

    good(&sandbox, "echo s3cret | flumen user add ann");
    let server = Server::start(sandbox, &["--tls-cert", "server.crt", "--tls-key", "server.key"]);
    // In clear, nobody comes in.
    let error = server.connect("ann:s3cret").await.err().unwrap();
    assert!(format!("{error:?}").contains("must use TLS"), "{error:?}");
    let certificate = server.sandbox.path().join("server.crt");
    let address = server.pg_as("ann:s3cret").replace("127.0.0.1", "localhost");
    let verified = format!("{address}?sslmode=verify-full&sslrootcert={}", certificate.display());
    let output = Command::new("psql").args(["-X", "-At", &verified, "-c", "select 1 + 1"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n", "{}", String::from_utf8_lossy(&output.stderr));
}
