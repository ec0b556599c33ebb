//! Loads into Postgres that are killed, meet another, or lose their server: the table is then as it was, or as after one
//! load that nothing disturbed.
//!
//! A load is held at a known moment by a trigger (or another transaction) that waits for the test.

use std::process::{Child, Stdio};

use crate::ingest::{killed_while_reading, trips};
use crate::postgres::{bad, good, project, project_of};
use crate::sandbox::Sandbox;
use flumen_testkit::postgres::{Database, Server, connect};

/// The program while it runs.
struct Running(Child);

impl Running {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
        Self(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Its exit code and what it said.
    fn wait(self) -> (i32, String) {
        let output = self.0.wait_with_output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Waits until the query answers `answer`; fails if the program ends before.
    async fn until(&mut self, database: &Database, query: &str, answer: &str) {
        while database.show(query).await != answer {
            if let Some(status) = self.0.try_wait().unwrap() {
                let mut said = String::new();
                let _ = std::io::Read::read_to_string(self.0.stderr.as_mut().unwrap(), &mut said);
                panic!("it ended before it could be held ({status}): {said}");
            }
            tokio::task::yield_now().await;
        }
    }
}

/// A function that waits as long as the test holds the lock 77.
const GATE: &str = "create or replace function gate() returns trigger language plpgsql as $$ begin \
                    perform pg_advisory_lock_shared(77); perform pg_advisory_unlock_shared(77); return new; end $$;";
const CLOSE: &str = "select pg_advisory_lock(77)";
const OPEN: &str = "select pg_advisory_unlock(77)";
/// How many sessions wait at the gate.
const WAITING: &str = "select count(*) from pg_locks where locktype = 'advisory' and not granted and objid = 77 \
                       and database = (select oid from pg_database where datname = current_database())";
/// Staging tables that were left behind.
const STAGED: &str = "select count(*) from pg_class where relname like '\\_flumen\\_stage%'";

#[tokio::test]
async fn killed_while_it_reads_and_run_again_it_is_as_if_it_had_run_once() {
    let (sandbox, database) = project().await;
    let rows = 20_000;
    let body = trips(rows);
    let size = body.len();
    let modes: [&[&str]; 3] = [&[], &["--mode", "replace"], &["--mode", "merge", "--key", "id"]];
    for (number, after) in [0, size / 3, size - 1, size].into_iter().enumerate() {
        for (which, mode) in modes.iter().enumerate() {
            // Into a new table, and into one that is there.
            let table = format!("t{which}_{number}");
            let to = format!("pg.public.{table}");
            let was_there = number % 2 == 1;
            if was_there {
                database.run(&format!("create table {table} (id bigint, zone text, fare float8, at timestamp)")).await;
            }
            let mut arguments = vec!["ingest", "--to", &to];
            arguments.extend(*mode);
            let url = killed_while_reading(&sandbox, &body, after, &arguments);
            good(&sandbox, &format!("flumen {} {url}", arguments.join(" ")));
            let got = database.show(&format!("select count(*), sum(id) from {table}")).await;
            assert_eq!(got, format!("{rows} | {}", rows * (rows - 1) / 2), "{mode:?} killed after {after} bytes");
            assert_eq!(database.show(STAGED).await, "0", "{mode:?} killed after {after} bytes");
        }
    }
}

/// Where a load is held, and in which modes: while its rows go into the table, and while it commits.
const HELD: [&str; 2] = ["create trigger g before insert on", "create constraint trigger g after insert on"];

/// Makes the table with one row, and a gate that is closed.
async fn closed_table(database: &Database, table: &str, trigger: &str) {
    let deferred = if trigger.contains("constraint") { "deferrable initially deferred" } else { "" };
    database
        .run(&format!(
            "{GATE} create table {table} (id bigint); insert into {table} values (7); \
             {trigger} {table} {deferred} for each row execute function gate(); {CLOSE}"
        ))
        .await;
}

#[tokio::test]
async fn killed_while_it_copies_and_while_it_commits() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", "id\n1\n2\n");
    let modes: [(&[&str], &str); 3] =
        [(&[], "1, 2, 7"), (&["--mode", "merge", "--key", "id"], "1, 2, 7"), (&["--mode", "replace"], "1, 2")];
    for (number, trigger) in HELD.iter().enumerate() {
        for (which, (mode, expected)) in modes.iter().enumerate() {
            let (table, rows) = named(which, number);
            closed_table(&database, &table, trigger).await;
            let to = format!("pg.public.{table}");
            let mut arguments = vec!["ingest", "a.csv", "--to", &to];
            arguments.extend(*mode);
            let mut running = Running::start(&sandbox, &arguments);
            running.until(&database, WAITING, "1").await;
            running.kill();
            assert_eq!(database.show(&rows).await, "7", "{mode:?} {trigger}");
            // What the server does for the killed one, and the same command again, at the same time.
            database.run(OPEN).await;
            good(&sandbox, &format!("flumen {}", arguments.join(" ")));
            assert_eq!(database.show(&rows).await, *expected, "{mode:?} {trigger}");
            let again = good(&sandbox, &format!("flumen {}", arguments.join(" ")));
            assert!(again.contains("nothing to load"), "{again}");
            assert_eq!(database.show(&rows).await, *expected, "{mode:?} {trigger}");
            assert_eq!(database.show(STAGED).await, "0", "{mode:?} {trigger}");
        }
    }
}

/// A table's name, and the query for its rows in one line.
fn named(which: usize, number: usize) -> (String, String) {
    let table = format!("t{which}_{number}");
    let rows = format!("select string_agg(id::text, ', ' order by id) from {table}");
    (table, rows)
}

#[tokio::test]
async fn interrupted_it_leaves_nothing_behind() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", "id\n1\n2\n");
    for (which, mode) in [&[][..], &["--mode", "replace"]].into_iter().enumerate() {
        let (table, rows) = named(which, 0);
        closed_table(&database, &table, HELD[0]).await;
        let to = format!("pg.public.{table}");
        let mut arguments = vec!["ingest", "a.csv", "--to", &to];
        arguments.extend(mode);
        let mut running = Running::start(&sandbox, &arguments);
        running.until(&database, WAITING, "1").await;
        assert_eq!(sandbox.sh(&format!("kill -INT {}", running.0.id())).code, 0);
        database.run(OPEN).await;
        let (code, said) = running.wait();
        // It was interrupted before its commit, or had begun it already.
        let got = database.show(&rows).await;
        match code {
            0 => assert_eq!(got, if which == 0 { "1, 2, 7" } else { "1, 2" }, "{said}"),
            _ => assert_eq!((code, got.as_str()), (130, "7"), "{said}"),
        }
        assert_eq!(database.show(STAGED).await, "0");
    }
}

#[tokio::test]
async fn two_at_once_load_a_file_once() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", "id\n1\n2\n");
    sandbox.write("b.csv", "id\n3\n");
    // The same load twice: the second is told of the first.
    closed_table(&database, "t", HELD[0]).await;
    let load = ["ingest", "a.csv", "--to", "pg.public.t"];
    let mut first = Running::start(&sandbox, &load);
    first.until(&database, WAITING, "1").await;
    bad(&sandbox, "flumen ingest a.csv --to pg.public.t", 4, "is running already");
    database.run(OPEN).await;
    let (code, said) = first.wait();
    assert_eq!(code, 0, "{said}");
    assert_eq!(database.show("select string_agg(id::text, ', ' order by id) from t").await, "1, 2, 7");

    // Two loads that share a file, both under way: one of them gives way.
    closed_table(&database, "u", HELD[0]).await;
    let mut one = Running::start(&sandbox, &["ingest", "a.csv", "--to", "pg.public.u"]);
    one.until(&database, WAITING, "1").await;
    let mut two = Running::start(&sandbox, &["ingest", "a.csv", "b.csv", "--to", "pg.public.u"]);
    two.until(&database, WAITING, "2").await;
    database.run(OPEN).await;
    let (code, said) = one.wait();
    assert_eq!(code, 0, "{said}");
    let (code, said) = two.wait();
    assert!(code == 0 || code == 4 && said.contains("a.csv was loaded meanwhile"), "{code}: {said}");
    good(&sandbox, "flumen ingest a.csv b.csv --to pg.public.u");
    assert_eq!(database.show("select string_agg(id::text, ', ' order by id) from u").await, "1, 2, 3, 7");

    // A table that neither of the two has seen yet.
    let new = ["ingest", "a.csv", "--to", "pg.public.fresh"];
    let both = [Running::start(&sandbox, &new), Running::start(&sandbox, &new)].map(Running::wait);
    assert!(both.iter().all(|(code, _)| [0, 4].contains(code)), "{both:?}");
    assert!(both.iter().any(|(code, _)| *code == 0), "{both:?}");
    assert_eq!(database.show("select count(*) from fresh").await, "2");
    assert_eq!(database.show(STAGED).await, "0");
}

#[tokio::test]
async fn a_server_that_goes_away_leaves_the_table_as_it_was() {
    let server = Server::start().unwrap();
    let database = server.database().await;
    let sandbox = project_of(&database);
    let url = database.url.clone();
    sandbox.write("a.csv", "id\n1\n2\n");

    // In the middle of a COPY: a sentence, and the table as it was.
    closed_table(&database, "t", HELD[0]).await;
    let mut running = Running::start(&sandbox, &["ingest", "a.csv", "--to", "pg.public.t"]);
    running.until(&database, WAITING, "1").await;
    server.stop();
    let (code, said) = running.wait();
    assert_eq!(code, 5, "{said}");
    assert!(said.matches("error: ").count() == 1 && said.contains("as it was") && said.contains("hint: "), "{said}");
    bad(&sandbox, "flumen ingest a.csv --to pg.public.t", 5, "nothing listens");
    server.restart();
    let database = Database { client: connect(&url).await, url: url.clone() };
    assert_eq!(database.show("select id from t").await, "7");
    good(&sandbox, "flumen ingest a.csv --to pg.public.t");
    assert_eq!(database.show("select string_agg(id::text, ', ' order by id) from t").await, "1, 2, 7");

    // Before the last step of a replace, all rows being there: it waits for the server, and goes on.
    database.run("create table u (id bigint); insert into u values (7)").await;
    database.run("begin; lock table u in access share mode").await;
    let mut running = Running::start(&sandbox, &["ingest", "a.csv", "--to", "pg.public.u", "--mode", "replace"]);
    running.until(&database, "select count(*) from pg_locks where not granted and relation = 'u'::regclass", "1").await;
    // What the server wrote last would else not be on its disk: then the load would rightly fail.
    database.run("checkpoint").await;
    server.stop();
    server.restart();
    let (code, said) = running.wait();
    assert_eq!(code, 0, "{said}");
    let database = Database { client: connect(&url).await, url };
    assert_eq!(database.show("select string_agg(id::text, ', ' order by id) from u").await, "1, 2");
    assert_eq!(database.show(STAGED).await, "0");
}

#[tokio::test]
async fn what_the_table_refuses_leaves_it_as_it_was() {
    let (sandbox, database) = project().await;
    sandbox.write("a.csv", "id,name\n1,ann\n-2,bob\n");
    database.run("create table t (id bigint check (id > 0), name varchar(10)); insert into t values (7, 'x')").await;
    sandbox.write("long.csv", "id,name\n1,a name that is too long\n");
    for mode in ["", "--mode merge --key id", "--mode replace"] {
        bad(&sandbox, &format!("flumen ingest a.csv --to pg.public.t {mode}"), 6, "t_id_check");
        bad(&sandbox, &format!("flumen ingest long.csv --to pg.public.t {mode}"), 6, "(10)");
        assert_eq!(database.show("select * from t").await, "7 | x", "{mode}");
        assert_eq!(database.show(STAGED).await, "0", "{mode}");
    }
    database.run("create view v as select * from t").await;
    bad(&sandbox, "flumen ingest a.csv --to pg.public.v --mode replace", 2, "is a view");
    sandbox.write("nul.csv", "id,name\n1,a\0b\n");
    bad(&sandbox, "flumen ingest nul.csv --to pg.public.t", 6, "nul.csv, line 2");
    assert_eq!(database.show("select * from t").await, "7 | x");
}
