//! `flumen sample taxi`: into folders and pipes, and over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn taxi(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flumen"));
    command.current_dir(dir).env("NO_COLOR", "1").args(["sample", "taxi"]).args(arguments.split_whitespace());
    command
}

fn run(dir: &Path, arguments: &str) -> Output {
    taxi(dir, arguments).output().unwrap()
}

fn check_error(arguments: &str, code: i32, expect: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let output = run(dir.path(), arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(code), true), "{arguments}: {stderr}");
    assert!(stderr.contains(expect), "{arguments}: {stderr}");
}

#[test]
fn bad_requests_end_with_a_remedy() {
    check_error("--out d --months 2019-13", 2, "--months: '2019-13' is not a month");
    check_error("--out d --months 2019-06..2019-01", 2, "hint: write 2019-01..2019-06");
    check_error("--out d --rows-per-month many", 2, "--rows-per-month: 'many' is not a number of rows");
    check_error("--out d --kinds yelow", 2, "hint: did you mean 'yellow'?");
    check_error("--out d --format xml", 2, "hint: the formats are parquet, csv and csv.gz");
    check_error("--out d --bad-rows 5", 2, "a Parquet file cannot hold bad rows");
    check_error("--out file", 2, "file: this is not a folder");
    check_error("--out file/below", 2, "this is not a folder");
    check_error("--out -", 2, "do not fit into standard output");
    check_error("", 2, "--out");
    check_error("--serve --out -", 2, "--serve cannot write to standard output");
}

#[test]
fn files_are_made_once_and_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = "--months 2019-01..2019-02 --rows-per-month 1_000 --format csv.gz --out d --json";
    let report = |output: Output| -> serde_json::Value {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = report(run(dir.path(), arguments));
    // Two months of yellow and fhv, 8 % of it green, the zones.
    assert_eq!(first["rows"], 2 * (1_000 + 80 + 1_000) + 265);
    assert_eq!(first["files"].as_array().unwrap().len(), 7);
    assert_eq!(first["files"][0]["path"], "d/yellow_tripdata_2019-01.csv.gz");
    let second = report(run(dir.path(), arguments));
    assert!(second["files"].as_array().unwrap().iter().all(|file| file["kept"] == true), "{second}");
    let other = run(dir.path(), "--months 2019-01 --rows-per-month 999 --format csv.gz --out d");
    assert_eq!(other.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&other.stderr).contains("write over it with --force"));
    report(run(dir.path(), "--months 2019-01 --rows-per-month 999 --format csv.gz --out d --json --force"));
}

#[test]
fn one_file_goes_into_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = "--months 2019-01 --kinds yellow --rows-per-month 1k --format csv --bad-rows 4 --out -";
    let output = run(dir.path(), arguments);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1_001);
    assert!(text.starts_with("VendorID,tpep_pickup_datetime,"));
    assert_eq!(text.lines().filter(|line| line.split(',').count() != 19).count(), 4);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A server that is killed when the test ends, however it ends.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(dir: &Path, arguments: &str) -> Self {
        let mut child = taxi(dir, arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        Self { child, address }
    }

    /// The head (in lower case) and the body of the answer to a request.
    fn ask(&self, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&answer[..end]).to_lowercase(), answer[end + 4..].to_vec())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn files_are_served_with_ranges_and_tags() {
    let dir = tempfile::tempdir().unwrap();
    let set = "--months 2019-01 --kinds yellow,zones --rows-per-month 3k";
    assert!(run(dir.path(), &format!("{set} --format csv.gz --out d")).status.success());
    let expect = std::fs::read(dir.path().join("d/yellow_tripdata_2019-01.csv.gz")).unwrap();
    let server = Server::start(dir.path(), &format!("{set} --serve"));
    let path = "/yellow_tripdata_2019-01.csv.gz";

    let (head, body) = server.ask("HEAD", path, "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(body.is_empty());
    assert_eq!(field(&head, "content-length"), Some(expect.len().to_string().as_str()));
    let etag = field(&head, "etag").unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.len() == 66, "{etag}");

    let (head, body) = server.ask("GET", path, "");
    assert!(head.starts_with("http/1.1 200") && body == expect, "{head}");
    assert_eq!(field(&head, "etag"), Some(etag.as_str()));

    let (head, body) = server.ask("GET", path, &format!("Range: bytes=100-199\r\nIf-Range: {etag}\r\n"));
    assert!(head.starts_with("http/1.1 206") && body == expect[100..200], "{head}");
    assert_eq!(field(&head, "content-range"), Some(format!("bytes 100-199/{}", expect.len()).as_str()));

    let (head, body) = server.ask("GET", path, "Range: bytes=100-\r\nIf-Range: \"other\"\r\n");
    assert!(head.starts_with("http/1.1 200") && body == expect, "{head}");
    let (head, _) = server.ask("GET", path, "Range: bytes=99999999-\r\n");
    assert!(head.starts_with("http/1.1 416"), "{head}");
    let (head, _) = server.ask("GET", path, &format!("If-None-Match: {etag}\r\n"));
    assert!(head.starts_with("http/1.1 304"), "{head}");

    let (head, body) = server.ask("GET", "/yellow_tripdata_2019-01.parquet", "");
    assert!(head.starts_with("http/1.1 200") && body.starts_with(b"PAR1") && body.ends_with(b"PAR1"), "{head}");
    let (head, body) = server.ask("GET", "/", "");
    assert!(head.starts_with("http/1.1 200") && String::from_utf8_lossy(&body).contains("taxi_zone_lookup.csv"));
    for (method, path, status) in [
        ("GET", "/yellow_tripdata_2019-02.csv", "404"),
        ("GET", "/green_tripdata_2019-01.csv", "404"),
        ("GET", "/../etc/passwd", "404"),
        ("POST", "/", "405"),
    ] {
        let (head, _) = server.ask(method, path, "");
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{method} {path}: {head}");
    }
}

#[cfg(unix)]
#[test]
fn a_server_ends_cleanly_when_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("address");
    let mut server = Server::start(dir.path(), "--rows-per-month 1k --serve --out d --ready-file address");
    server.ask("GET", "/taxi_zone_lookup.csv", "");
    assert_eq!(std::fs::read_to_string(&ready).unwrap(), format!("http://{}/\n", server.address));
    assert!(dir.path().join("d/taxi_zone_lookup.csv").is_file());
    let killed = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(!ready.exists());
}
