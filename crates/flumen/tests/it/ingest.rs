//! `flumen ingest` from outside: what it leaves when it is killed, and what it says about bad input.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use crate::sandbox::Sandbox;

/// A CSV of `rows` rows.
pub fn trips(rows: usize) -> String {
    let mut text = String::from("id,zone,fare,at\n");
    for n in 0..rows {
        text.push_str(&format!("{n},zone {},{}.5,2019-01-{:02} 00:00:00\n", n % 265, n % 90, n % 28 + 1));
    }
    text
}

/// A web server for one file that calls `at` when `after` bytes of it have been sent.
pub fn serve(body: String, after: usize, at: impl Fn() + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/trips.csv", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"v1\"\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let (first, rest) = body.as_bytes().split_at(after.min(body.len()));
            let _ =
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(first)).and_then(|()| stream.flush());
            at();
            let _ = stream.write_all(rest);
        }
    });
    url
}

/// Runs the program on a URL of `body`, and kills it when `after` bytes have been sent. Returns the URL, which stays.
pub fn killed_while_reading(sandbox: &Sandbox, body: &str, after: usize, arguments: &[&str]) -> String {
    let child: Arc<Mutex<Option<std::process::Child>>> = Arc::default();
    let victim = Arc::clone(&child);
    let url = serve(body.to_owned(), after, move || {
        if let Some(mut child) = victim.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    });
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
    command.args(arguments).arg(&url).stderr(Stdio::null());
    {
        // The lock is held while the child starts, so that the server finds it.
        let mut slot = child.lock().unwrap();
        *slot = Some(command.spawn().unwrap());
    }
    // The server takes the child away when it kills it.
    while child.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().unwrap().is_none()) {
        std::thread::yield_now();
    }
    url
}

#[test]
fn killed_at_any_moment_and_run_again_it_is_as_if_it_had_run_once() {
    let rows = 60_000;
    let body = trips(rows);
    let size = body.len();
    let check = "select count(*) as n, sum(id) as s, count(distinct _flumen_load) as loads from lake.raw.trips";
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.sh("flumen init p").code, 0);
    // After how many bytes the load is killed; the last one is that of the whole file, and kills it near its commit.
    for (number, after) in [0, 1, size / 7, size / 3, size / 2, size - 1, size].into_iter().enumerate() {
        let table = format!("lake.raw.trips{number}");
        let url = killed_while_reading(&sandbox, &body, after, &["--project", "p", "ingest", "--to", &table]);
        let again = sandbox.sh(&format!("flumen --project p ingest {url} --to {table}"));
        assert_eq!(again.code, 0, "killed after {after} bytes: {}", again.stderr);
        let got = sandbox.sh(&format!("flumen --json --project p sql \"{}\"", check.replace("lake.raw.trips", &table)));
        let sum = rows * (rows - 1) / 2;
        assert_eq!(
            got.stdout.trim(),
            format!(r#"[{{"n":{rows},"s":{sum},"loads":1}}]"#),
            "killed after {after} bytes: {}",
            got.stderr
        );
    }
}

#[test]
fn a_second_run_loads_nothing_and_an_undone_load_can_be_loaded_again() {
    let sandbox = Sandbox::new();
    sandbox.write("a.csv", "id,name\n1,a\n2,b\n");
    assert_eq!(sandbox.sh("flumen init p").code, 0);
    let load = "flumen --project p ingest a.csv --to lake.raw.a";
    let count = || sandbox.sh("flumen --json --project p sql 'select count(*) as n from lake.raw.a'").stdout;
    assert_eq!(sandbox.sh(load).code, 0);
    let again = sandbox.sh(load);
    assert!(again.stderr.contains("nothing to load"), "{}", again.stderr);
    assert_eq!(count().trim(), r#"[{"n":2}]"#);
    let undone = sandbox.sh("flumen --project p load undo $(flumen --json --project p load list | sed 's/.*\"load\":\"\\([0-9a-f]*\\)\".*/\\1/')");
    assert_eq!(undone.code, 0, "{}", undone.stderr);
    assert_eq!(count().trim(), r#"[{"n":0}]"#);
    let loaded = sandbox.sh(load);
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
    assert_eq!(count().trim(), r#"[{"n":2}]"#);
}

/// Bad input: what it is, the command, and what the message must name.
const BAD: &[(&str, &str, &str, i32)] = &[
    ("a missing file", "flumen --project p ingest nothing.csv --to lake.raw.t", "nothing.csv", 3),
    ("a file of no bytes", ": > e.csv; flumen --project p ingest e.csv --to lake.raw.t", "e.csv is empty", 6),
    (
        "gzip cut short",
        "gzip -c good.csv | head -c 30 > cut.csv.gz; flumen --project p ingest cut.csv.gz --to lake.raw.t",
        "cut.csv.gz",
        6,
    ),
    (
        "text in a column of numbers",
        "printf 'id,name\\nx,y\\n' > w.csv; flumen --project p ingest w.csv --to lake.raw.good",
        "w.csv, line 2",
        6,
    ),
    (
        "too few fields",
        "printf 'a,b\\n1\\n' > s.csv; flumen --project p ingest s.csv --to lake.raw.t",
        "s.csv, line 2: has 1 field",
        6,
    ),
    (
        "a broken Parquet file",
        "printf 'PAR1nonsensePAR1' > b.parquet; flumen --project p ingest b.parquet --to lake.raw.t",
        "b.parquet",
        6,
    ),
    ("no Parquet at all", "cp good.csv c.parquet; flumen --project p ingest c.parquet --to lake.raw.t", "c.parquet", 6),
    (
        "a NUL byte",
        "printf 'a,b\\nx,1\\ny\\0y,2\\n' > n.csv; flumen --project p ingest n.csv --to lake.raw.t",
        "n.csv, line 3",
        6,
    ),
    (
        "a stray quote",
        "(printf 'a,b\\n1,\"2\\n'; seq 1 3) > q.csv; flumen --project p ingest q.csv --to lake.raw.t",
        "q.csv: the quote that opens on line 2",
        6,
    ),
    (
        "a type that is none",
        "flumen --project p ingest good.csv --to lake.raw.t --types id=nubmer",
        "'nubmer' is not a type",
        2,
    ),
    (
        "a mode that is none",
        "flumen --project p ingest good.csv --to lake.raw.t --mode apend",
        "'apend' is not a mode",
        2,
    ),
    (
        "a column that is none",
        "flumen --project p ingest good.csv --to lake.raw.t --select ids",
        "no column is called 'ids'",
        3,
    ),
    ("no namespace", "flumen --project p ingest good.csv --to lake.t", "lacks a namespace", 2),
    ("outside the lake", "flumen --project p ingest good.csv --to lake.raw.../x", "", 2),
    (
        "too many columns",
        "seq -s , 1 20000 > m.csv; seq -s , 1 20000 >> m.csv; flumen --project p ingest m.csv --to lake.raw.t",
        "m.csv",
        6,
    ),
    (
        "a folder that is no table",
        "mkdir -p p/lake/raw/f; cp good.csv p/lake/raw/f/; flumen --project p ingest good.csv --to lake.raw.f",
        "is no Delta table",
        2,
    ),
    (
        "a folder in the place of a file",
        "mkdir -p folder.csv; flumen --project p ingest folder.csv --to lake.raw.t",
        "folder.csv",
        2,
    ),
    ("no project", "flumen ingest good.csv --to lake.raw.t", "flumen init", 3),
    (
        "a web server that is not there",
        "flumen --project p ingest http://127.0.0.1:1/x.csv --to lake.raw.t",
        "127.0.0.1",
        5,
    ),
];

#[test]
fn bad_input_ends_in_a_sentence_and_leaves_the_table_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox.write("good.csv", "id,name\n1,a\n2,b\n");
    assert_eq!(sandbox.sh("flumen init p && flumen --project p ingest good.csv --to lake.raw.good").code, 0);
    for (what, line, names, code) in BAD {
        let ran = sandbox.sh(line);
        assert_eq!(ran.code, *code, "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains(names), "{what}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("error: ") && ran.stderr.contains("hint: "),
            "{what} without error and remedy: {}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.stderr);
        let left = sandbox
            .sh("find p/lake/raw -name '*.parquet' -not -path '*__quarantine*' | wc -l; ls p/lake/raw | grep -c '^t$'");
        assert_eq!(left.stdout, "1\n0\n", "{what} leaves something behind");
    }
    let rows = sandbox.sh("flumen --json --project p sql 'select id, name from lake.raw.good order by id'");
    assert_eq!(rows.stdout.trim(), r#"[{"id":1,"name":"a"},{"id":2,"name":"b"}]"#);
}
