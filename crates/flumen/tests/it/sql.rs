//! `flumen sql`: transcripts over files, without a project.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

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
        (["insert into raw.trips values (1)"], "flumen ingest"),
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
