//! `flumen sql`: transcripts over files, without a project.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::sandbox::Sandbox;
use crate::stores::Server;

const TRIPS: &str = "VendorID,zone,fare\n1,Soho,1.5\n2,,22.25\n1,\"a \"\"b\"\"\",3\n";

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("trips.csv"), TRIPS).unwrap();
    dir
}

/// Runs `flumen sql` with `arguments` and `input`, and gives its exit code, standard output and standard error.
fn sql(dir: &Path, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flumen"));
    command.current_dir(dir).env("NO_COLOR", "1").env_remove("FLUMEN_PROJECT").arg("sql").args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let code = output.status.code().unwrap();
    let code = if code == 0 { String::new() } else { format!("exit {code}\n") };
    format!("{code}{stdout}{stderr}")
}

fn check(arguments: &[&str], input: &str, expect: &str) {
    assert_eq!(sql(folder().path(), arguments, input), expect, "{arguments:?} {input}");
}

#[test]
fn queries_answer_in_each_format() {
    let query = "select vendorid, sum(fare) as fare, max(zone) as zone from 'trips.csv' group by 1 order by 1";
    check(
        &[query],
        "",
        " VendorID |  fare | zone  \n----------+-------+-------\n        1 |   4.5 | a \"b\" \n        2 | 22.25 | NULL  \n",
    );
    check(&[query, "--format", "csv"], "", "VendorID,fare,zone\n1,4.5,\"a \"\"b\"\"\"\n2,22.25,\n");
    check(
        &[query, "--json"],
        "",
        "[{\"VendorID\":1,\"fare\":4.5,\"zone\":\"a \\\"b\\\"\"},{\"VendorID\":2,\"fare\":22.25,\"zone\":null}]\n",
    );
    check(&["select 1 as a", "--format", "ndjson"], "", "{\"a\":1}\n");
    check(&["select 1 as a", "--format", "markdown"], "", "|   a |\n| --: |\n|   1 |\n");
    check(&["select 1 as a where false", "--json"], "", "[]\n");
}

#[test]
fn statements_come_from_pipes_and_files() {
    check(&["--format", "csv"], "select 1 as a;\n\\x\nselect 2 as b", "a\n1\nb\n2\nA line a value.\n");
    check(&["--format", "csv", "-"], "create view v as select 7 as x; select x from v", "x\n7\n");
    check(&[], "\\d 'trips.csv'\n", "column    type\nVendorID  bigint\nzone      text\nfare      double\n");
    let dir = folder();
    std::fs::write(dir.path().join("q.sql"), "select 1 as a;\n\nselect farre from 'trips.csv';\n").unwrap();
    assert_eq!(
        sql(dir.path(), &["-f", "q.sql", "--format", "csv"], ""),
        "exit 3\na\n1\nerror: q.sql: line 3, column 8: there is no column 'farre'\n  select farre from 'trips.csv'\n         \
         ^^^^^\n  hint: did you mean 'fare'?\n"
    );
}

#[test]
fn results_go_to_files() {
    let dir = folder();
    let query = "select * from 'trips.csv'";
    assert_eq!(sql(dir.path(), &["-o", "out.parquet", query], ""), "");
    assert_eq!(
        sql(
            dir.path(),
            &["--format", "csv", "select sum(fare), count(*) as n from 'out.parquet' where vendorid = 1"],
            ""
        ),
        "sum(fare),n\n4.5,2\n"
    );
    let failed = sql(dir.path(), &["-o", "bad.csv", "select cast(zone as int) from 'trips.csv'"], "");
    assert!(failed.starts_with("exit 6\nerror: cannot cast string 'Soho' to value of Int32 type\n"), "{failed}");
    let names: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let nameless = sql(dir.path(), &["-o", "out", query], "");
    assert!(nameless.starts_with("exit 2\nerror: out: the name does not tell the format\n"), "{nameless}");
}

#[test]
fn errors_say_what_to_do() {
    let dir = folder();
    for (arguments, expect) in [
        (["select * from lake.raw.trips"], "flumen init"),
        (["insert into raw.trips values (1)"], "flumen init"),
        (["select * from 'tripps.csv'"], "exit 3"),
        (["select"], "exit 2"),
        (["select * from trips.csv"], "write it in quotes: select * from 'trips.csv'"),
    ] {
        let got = sql(dir.path(), &arguments, "");
        assert!(got.starts_with("exit ") && got.contains(expect), "{arguments:?}: {got}");
    }
    let json = sql(dir.path(), &["--json", "selct 1"], "");
    assert!(json.starts_with("exit 2\n{\"error\":{\"hint\":"), "{json}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flumen"));
    command.current_dir(dir.path()).args(["sql", "--format", "csv", "select * from range(10000000)"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_of_a_web_server_is_a_table() {
    let server = Server::answering("200 OK", TRIPS);
    let query = format!("select count(*), sum(fare) from 'http://{}/trips.csv'", server.address);
    check(&["--format", "csv", &query], "", "count(*),sum(fare)\n3,26.75\n");
    let server = Server::answering("404 Not Found", "");
    let query = format!("select * from 'http://{}/trips.csv'", server.address);
    let said = sql(folder().path(), &[&query], "");
    assert!(said.starts_with("exit 3\nerror: there is nothing at http://127.0.0.1:"), "{said}");
}

#[test]
fn what_is_odd_in_a_file_is_told_beside_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.csv"), "a,b,a\n1,2,3\n4,5,6,\n").unwrap();
    assert_eq!(
        sql(dir.path(), &["--format", "csv", "select * from 'x.csv'"], ""),
        "a,b,a_2\n1,2,3\n4,5,6\nwarning: x.csv: the header has 'a' more than once: this one is called 'a_2'\n\
         warning: x.csv: 1 row has 1 more field than the header, all empty: dropped\n"
    );
}

#[test]
fn types_of_a_large_file_are_mended_while_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "id,code\n".to_owned();
    for id in 0..900_000 {
        text.push_str(&format!("{id},1234\n"));
    }
    // Samples look at the beginning and the end.
    let middle = text.len() / 2 + text[text.len() / 2..].find('\n').unwrap() + 1;
    text.insert_str(middle, "0,x1\n");
    std::fs::write(dir.path().join("big.csv"), text).unwrap();
    let run = |arguments: &[&str]| sql(dir.path(), arguments, "");
    assert_eq!(run(&["--format", "csv", "select max(code) from 'big.csv'"]), "max(code)\nx1\n");
    assert_eq!(run(&["-o", "out.parquet", "select * from 'big.csv'"]), "");
    assert_eq!(
        run(&["--format", "csv", "select count(*), max(code) from 'out.parquet'"]),
        "count(*),max(code)\n900001,x1\n"
    );
}

#[test]
fn joins_that_are_larger_than_memory_go_to_disk() {
    let query = "select count(*) as n, sum(a.v) as s from (select value as k, value * 2 as v from generate_series(1, 1000000)) as a \
                 join (select value as k from generate_series(1, 1000000)) as b using (k)";
    let expect = "n,s\n1000000,1000001000000\n";
    check(&["--format", "csv", query], "", expect);
    check(&["--format", "csv", "--memory", "24MB", query], "", expect);
}

#[test]
fn a_statement_that_takes_too_long_is_given_up() {
    let endless = "select count(*) from generate_series(1, 100000000) as a, generate_series(1, 100000000) as b where a.value * b.value = -1";
    let expect = "exit 5\nerror: the statement took longer than 200 ms, and was given up\n  hint: give it longer with --timeout, or set statement_timeout = 0\n";
    check(&["--timeout", "200ms", endless], "", expect);
    check(&[&format!("set statement_timeout = 200; {endless}")], "", expect);
    check(
        &["--timeout", "soon", "select 1"],
        "",
        "exit 2\nerror: 'soon' is no span of time\n  hint: write for example '30s', '5min', or 0\n",
    );
}

#[test]
fn an_index_is_taken_and_said_not_to_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("flumen.yml"), "name: shop\n").unwrap();
    assert_eq!(sql(dir.path(), &["create table m.t (id int, buyer text)"], ""), "");
    let kept = sql(dir.path(), &["create index on m.t (id)"], "");
    assert!(kept.contains("warning: an index is not kept: files are skipped"), "{kept}");
    let unique = sql(dir.path(), &["create unique index on m.t (id)"], "");
    assert!(unique.contains("nothing keeps its values apart"), "{unique}");
}

#[test]
fn a_null_that_is_not_allowed_is_shown_with_its_row() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("flumen.yml"), "name: shop\n").unwrap();
    assert_eq!(sql(dir.path(), &["create table m.t (id int, buyer text not null)"], ""), "");
    let refused = sql(dir.path(), &["insert into m.t values (1, 'Ada'), (2, null)"], "");
    assert!(
        refused.contains("column 'buyer' has a null, which the table does not allow: id = 2, buyer = null"),
        "{refused}"
    );
}

#[test]
fn loads_and_drift_are_tables() {
    let sandbox = Sandbox::new();
    sandbox.write("flumen.yml", "");
    sandbox.write("a.csv", "n\n1\n2\n");
    sandbox.write("b.csv", "n,s\n3,x\nbad,y\n");
    for file in ["a.csv", "b.csv"] {
        let ran = sandbox.flumen(["ingest", file, "--to", "lake.raw.t", "--max-bad", "1"]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let query = "select dataset, version, rows_read, rows_quarantined from flumen.loads order by version; \
                 select file, drift.column, drift.to from flumen.drift where drift.column = 's'";
    assert_eq!(
        sandbox.flumen(["sql", "--format", "csv", query]).stdout,
        "dataset,version,rows_read,rows_quarantined\nlake.raw.t,0,2,0\nlake.raw.t,1,2,1\nfile,column,to\nb.csv,s,text\n"
    );
    assert_eq!(sandbox.sh("echo '\\dt' | flumen sql").stdout, "namespace  table\nraw        t\n");
    let all = sandbox.sh("echo '\\dt+' | flumen sql").stdout;
    assert!(all.contains("raw        t__quarantine\n") && all.contains("flumen     drift\n"), "{all}");
}

#[test]
fn the_prompt_works_on_a_terminal() {
    let sandbox = Sandbox::new();
    sandbox.write("trips.csv", TRIPS);
    let mut command = sandbox.command("timeout");
    command.args(["60", "script", "-qec", "flumen sql", "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (mut keyboard, mut display) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut screen = String::new();
    for (keys, expect) in [
        ("", "\\q leaves.\n"),
        ("select 40 +\n2 as answer;\n", " answer \n--------\n     42 \n"),
        ("\\d 'trips.csv'\n", "VendorID  bigint\nzone      text\n"),
        ("select * from nowhere;\n", "error: line 1, column 15: there is no table 'nowhere'\n"),
        ("sele\t 'tab';\n", " 'tab' \n-------\n tab   \n"),
    ] {
        keyboard.write_all(keys.as_bytes()).unwrap();
        let mut bytes = [0; 4096];
        while !screen.contains(expect) {
            let read = display.read(&mut bytes).unwrap();
            if read == 0 && child.wait().unwrap().code() == Some(127) {
                // There is no `script` here, which makes the terminal.
                return;
            }
            assert!(read > 0, "{expect}\n---\n{screen}");
            screen.push_str(&String::from_utf8_lossy(&bytes[..read]).replace('\r', ""));
        }
    }
    keyboard.write_all(b"\\q\n").unwrap();
    assert!(child.wait().unwrap().success());
    let history = std::fs::read_to_string(sandbox.path().join("../.local/state/flumen/history")).unwrap();
    assert!(history.contains("select 'tab';\n"), "{history}");
}
