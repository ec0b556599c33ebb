//! What can go wrong in the world round a load: servers, disks, permissions, signals, other loads. After each the
//! destination is as it was, nothing is left behind, and a sentence says what happened and what to do.

use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use crate::sandbox::{Ran, Sandbox};
use crate::web::{hold, reply, reset, send, serve};

/// A CSV of `rows` rows that does not compress well.
fn noise(rows: u64) -> String {
    let mut text = String::from("id,noise\n");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..rows {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{n},{:016x}{:016x}\n", state, state.rotate_left(17) ^ n.wrapping_mul(0x2545_f491)));
    }
    text
}

/// A sandbox with a project, a small file that is loaded and a large one that is not.
fn project() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("good.csv", "id,noise\n1,a\n2,b\n");
    sandbox.write("big.csv", noise(120_000));
    std::fs::create_dir(sandbox.path().join("tmp")).unwrap();
    assert_eq!(sandbox.sh("flumen init p").code, 0);
    sandbox
}

/// That a command failed as it should: the code, what its message holds, a remedy, no crash.
#[track_caller]
fn check_failed(ran: &Ran, code: i32, names: &str) {
    assert_eq!(ran.code, code, "{}\n{}", ran.stderr, ran.stdout);
    assert!(ran.stderr.contains(names), "no '{names}' in: {}", ran.stderr);
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("hint: "), "no remedy: {}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

/// A load over HTTP: how it ends, and how many rows are there then.
fn load(url: &str) -> (Ran, String) {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path().join("tmp")).unwrap();
    assert_eq!(sandbox.sh("flumen init p").code, 0);
    let ran = sandbox.sh(&format!("TMPDIR=$PWD/tmp flumen --project p ingest {url} --to lake.raw.t"));
    let left = sandbox.sh("ls -A tmp; [ -e p/lake/raw/t/_delta_log ] || find p/lake -type f");
    assert_eq!(left.stdout, "", "left behind");
    let count = sandbox.sh("flumen --json --project p sql 'select count(*) as n, sum(id) as s from lake.raw.t'");
    (ran, count.stdout.trim().to_owned())
}

#[test]
fn a_file_that_is_written_to_while_it_is_loaded() {
    let sandbox = project();
    assert_eq!(sandbox.sh("flumen --project p ingest good.csv --to lake.raw.t").code, 0);
    // The local file has been looked at when the one on the server is asked for.
    let file = sandbox.path().join("new.csv");
    std::fs::write(&file, noise(10)).unwrap();
    let url = serve(move |_, stream| {
        std::fs::write(&file, noise(20)).unwrap();
        reply(stream, "200 OK", "", 5, b"id\n7\n");
    });
    let ran = sandbox.sh(&format!("flumen --project p ingest new.csv {url} --to lake.raw.t"));
    check_failed(&ran, 4, "new.csv changed while it was being read");
    let count = sandbox.sh("flumen --json --project p sql 'select count(*) as n from lake.raw.t'");
    assert_eq!(count.stdout.trim(), r#"[{"n":2}]"#);
}

#[test]
fn nothing_there_on_the_server() {
    let url = serve(|_, stream| reply(stream, "404 Not Found", "", 2, b"no"));
    let (ran, rows) = load(&url);
    check_failed(&ran, 3, "there is nothing at http://127.0.0.1:[PORT]/trips.csv (404)");
    assert_eq!(rows, "");
}

#[test]
fn a_server_that_refuses_for_a_while() {
    let body = noise(1_000);
    let url = serve(move |request, stream| match request.number {
        0 => reply(stream, "403 Forbidden", "", 0, b""),
        1 => reply(stream, "429 Too Many Requests", "Retry-After: 0\r\n", 0, b""),
        2 => reply(stream, "503 Service Unavailable", "", 0, b""),
        _ => reply(stream, "200 OK", "", body.len(), body.as_bytes()),
    });
    let (ran, rows) = load(&url);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(rows, r#"[{"n":1000,"s":499500}]"#);
}

#[test]
fn a_body_that_always_ends_early() {
    let body = noise(1_000);
    let half = body.len() / 2;
    let url = serve(move |_, stream| reply(stream, "200 OK", "", body.len(), &body.as_bytes()[..half]));
    let (ran, rows) = load(&url);
    check_failed(&ran, 5, "ends early");
    assert_eq!(rows, "");
}

#[test]
fn a_body_that_is_not_what_its_checksum_says() {
    let body = noise(1_000);
    let url = serve(move |_, stream| {
        reply(stream, "200 OK", "Content-MD5: XrY7u+Ae7tCTyyK7j1rNww==\r\n", body.len(), body.as_bytes());
    });
    let (ran, rows) = load(&url);
    check_failed(&ran, 6, "arrived damaged");
    assert_eq!(rows, "");
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let body = noise(60_000);
    let size = body.len();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let url = serve(move |request, stream| {
        let from = request.from();
        seen.lock().unwrap().push(from);
        let from = from.unwrap_or(0);
        // A third of the file at a time.
        let to = size.min(from + size / 3 + 1);
        let headers = "ETag: \"v1\"\r\nAccept-Ranges: bytes\r\n";
        let part = &body.as_bytes()[from..to];
        match from {
            0 => reply(stream, "200 OK", headers, size, part),
            _ => {
                let range = format!("{headers}Content-Range: bytes {from}-{}/{size}\r\n", size - 1);
                reply(stream, "206 Partial Content", &range, size - from, part);
            }
        }
        reset(stream);
    });
    let (ran, rows) = load(&url);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(rows, r#"[{"n":60000,"s":1799970000}]"#);
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0], None);
    assert!(asked.len() > 2 && asked[1..].iter().all(Option::is_some), "{asked:?}");
    assert!(asked.is_sorted(), "{asked:?}");
}

#[test]
fn a_server_that_ignores_ranges_sends_all_again() {
    let body = noise(60_000);
    let url = serve(move |request, stream| {
        let size = body.len();
        let sent = if request.number == 0 { size / 2 } else { size };
        reply(stream, "200 OK", "ETag: \"v1\"\r\nAccept-Ranges: bytes\r\n", size, &body.as_bytes()[..sent]);
    });
    let (ran, rows) = load(&url);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(rows, r#"[{"n":60000,"s":1799970000}]"#);
}

#[test]
fn a_file_that_changes_on_the_server_meanwhile() {
    let (one, other) = (noise(60_000), noise(60_001));
    let url = serve(move |request, stream| match request.number {
        0 => reply(stream, "200 OK", "ETag: \"v1\"\r\n", one.len(), &one.as_bytes()[..one.len() / 2]),
        _ => reply(stream, "200 OK", "ETag: \"v2\"\r\n", other.len(), other.as_bytes()),
    });
    let (ran, rows) = load(&url);
    // Either nobody had looked at a row yet, and the new version was taken; or the load failed.
    match ran.code {
        0 => assert_eq!(rows, r#"[{"n":60001,"s":1800030000}]"#),
        _ => {
            check_failed(&ran, 4, "changed on the server while it was being read");
            assert_eq!(rows, "");
        }
    }
}

/// Says what cannot be tested here.
#[allow(clippy::print_stdout, reason = "whoever runs the tests should know")]
fn skipped(what: &str) {
    println!("{what}");
}

/// The beginning of a shell line whose commands see an empty disk of `kib` KiB at `folder`; `None` where that is not allowed.
fn disk(sandbox: &Sandbox, kib: usize, folder: &str) -> Option<String> {
    for namespace in ["unshare -m", "unshare -rm"] {
        let line = format!("{namespace} sh -ec 'mount -t tmpfs -o size={kib}k none {folder}; ");
        if sandbox.sh(&format!("{line}true'")).code == 0 {
            return Some(line);
        }
    }
    skipped("no disk can be mounted here, not even in a user namespace: files limited in size stand in for it");
    None
}

/// The beginning of a shell line whose commands cannot write files of more than `kib` KiB.
fn limit(kib: usize) -> String {
    format!("sh -ec 'trap \"\" XFSZ; ulimit -f {}; ", kib * 2)
}

/// Shell lines under which a large file does not fit into `folder`, and what the message says then.
fn cramped(sandbox: &Sandbox, kib: usize, folder: &str) -> Vec<(String, &'static str)> {
    let disk = disk(sandbox, kib, folder).map(|line| (line, "the disk is full"));
    disk.into_iter().chain([(limit(kib), "too large")]).collect()
}

#[test]
fn a_disk_that_is_full_leaves_the_table_as_it_was() {
    let sandbox = project();
    std::fs::create_dir_all(sandbox.path().join("p/lake")).unwrap();
    for (line, says) in cramped(&sandbox, 1024, "p/lake") {
        let ran = sandbox.sh(&format!(
            "{line} rm -rf p/lake/*; flumen --project p ingest good.csv --to lake.raw.t 2>/dev/null; \
             flumen --project p ingest big.csv --to lake.raw.t || code=$?; \
             find p/lake -name \"*.parquet\" | wc -l; find p/lake -name \".*\"; ls p/lake/raw/t/_delta_log; \
             flumen --json --project p sql \"select count(*) as n from lake.raw.t\"; exit $code'"
        ));
        check_failed(&ran, 5, says);
        assert!(ran.stderr.contains("lake.raw.t"), "{}", ran.stderr);
        assert_eq!(ran.stdout, "1\n00000000000000000000.json\n[{\"n\":2}]\n", "{says}");
        // A table that is not there yet does not come to be.
        let ran = sandbox.sh(&format!(
            "{line} rm -rf p/lake/*; flumen --project p ingest big.csv --to lake.raw.t || code=$?; find p/lake; exit $code'"
        ));
        check_failed(&ran, 5, says);
        assert_eq!(ran.stdout, "p/lake\n", "{says}");
    }
}

#[test]
fn a_disk_that_is_full_at_the_commit_leaves_the_table_as_it_was() {
    let sandbox = project();
    std::fs::create_dir_all(sandbox.path().join("p/lake")).unwrap();
    let Some(line) = disk(&sandbox, 1024, "p/lake") else { return };
    // From no page left to so many that the load succeeds.
    let mut codes = Vec::new();
    for pages in 0..6 {
        let ran = sandbox.sh(&format!(
            "{line} flumen --project p ingest good.csv --to lake.raw.t 2>/dev/null; \
             printf \"id,noise\\n3,c\\n\" > more.csv; dd if=/dev/zero of=p/lake/fill bs=4096 2>/dev/null || true; \
             truncate -s -$(({pages} * 4096)) p/lake/fill; flumen --project p ingest more.csv --to lake.raw.t || code=$?; \
             rm p/lake/fill; find p/lake -name \"*.parquet\" | wc -l; find p/lake -type f | grep -v parquet; \
             flumen --json --project p sql \"select count(*) as n from lake.raw.t\"; exit ${{code:-0}}'"
        ));
        codes.push(ran.code);
        if ran.code == 0 {
            assert!(ran.stdout.ends_with("[{\"n\":3}]\n"), "{pages} pages: {}", ran.stdout);
            continue;
        }
        check_failed(&ran, 5, "the disk is full");
        let first = "p/lake/raw/t/_delta_log/00000000000000000000.json";
        assert_eq!(ran.stdout, format!("1\n{first}\n[{{\"n\":2}}]\n"), "{pages} pages");
    }
    assert!(codes.starts_with(&[5, 5]) && codes.ends_with(&[0]), "{codes:?}");
}

#[test]
fn a_disk_that_is_full_leaves_the_file_as_it_was() {
    let sandbox = project();
    std::fs::create_dir_all(sandbox.path().join("out")).unwrap();
    for name in ["x.parquet", "x.csv", "x.ndjson.gz", "x.arrow"] {
        for (line, says) in cramped(&sandbox, 512, "out") {
            let ran = sandbox.sh(&format!(
                "{line} rm -rf out/*; flumen ingest good.csv --to out/{name} 2>/dev/null; \
                 flumen ingest big.csv --to out/{name} || code=$?; ls -A out; \
                 flumen ingest out/{name} --to out/again.csv 2>/dev/null; cat out/again.csv; exit $code'"
            ));
            check_failed(&ran, 5, says);
            assert!(ran.stderr.contains(&format!("out/{name}")), "{}", ran.stderr);
            assert_eq!(ran.stdout, format!("{name}\nid,noise\n1,a\n2,b\n"), "{says}");
        }
    }
}

#[test]
fn a_folder_for_temporary_files_that_is_full() {
    let sandbox = project();
    let body = std::fs::read(sandbox.path().join("big.csv")).unwrap();
    let url = serve(move |_, stream| reply(stream, "200 OK", "", body.len(), &body));
    for (line, says) in cramped(&sandbox, 1024, "tmp") {
        for source in [url.as_str(), "- < big.csv"] {
            let ran = sandbox.sh(&format!(
                "{line} TMPDIR=$PWD/tmp flumen --project p ingest --to lake.raw.t {source} || code=$?; \
                 ls -A tmp; find p/lake -mindepth 1 2>/dev/null || true; exit $code'"
            ));
            check_failed(&ran, 5, says);
            assert!(ran.stderr.contains("/tmp/flumen-spool-"), "{}", ran.stderr);
            assert_eq!(ran.stdout, "", "{says}");
        }
    }
}

#[test]
fn a_disk_that_is_full_while_quarantine_is_written() {
    let sandbox = project();
    std::fs::create_dir_all(sandbox.path().join("p/lake")).unwrap();
    // All but the first row are bad.
    let mut bad = String::from("id,noise\n1,good\n");
    for line in noise(60_000).lines().skip(1) {
        bad.push('x');
        bad.push_str(line);
        bad.push('\n');
    }
    sandbox.write("bad.csv", bad);
    for (line, says) in cramped(&sandbox, 1024, "p/lake") {
        let ran = sandbox.sh(&format!(
            "{line} rm -rf p/lake/*; flumen --project p ingest good.csv --to lake.raw.t 2>/dev/null; \
             flumen --project p ingest bad.csv --to lake.raw.t --max-bad 1000000 || code=$?; \
             find p/lake -type f | grep -v load-; find p/lake -name \"*.parquet\" | wc -l; \
             flumen --json --project p sql \"select count(*) as n from lake.raw.t\"; exit $code'"
        ));
        check_failed(&ran, 5, says);
        assert!(ran.stderr.contains("lake.raw.t__quarantine"), "{}", ran.stderr);
        let first = "p/lake/raw/t/_delta_log/00000000000000000000.json";
        assert_eq!(ran.stdout, format!("{first}\n1\n[{{\"n\":2}}]\n"), "{says}");
    }
    // When the load fails for its bad rows, that is what the message says; that they could not be kept is a hint.
    let Some(line) = disk(&sandbox, 1024, "p/lake") else { return };
    let ran = sandbox.sh(&format!(
        "{line} flumen --project p ingest good.csv --to lake.raw.t 2>/dev/null; \
         dd if=/dev/zero of=p/lake/fill bs=4096 2>/dev/null || true; \
         flumen --project p ingest bad.csv --to lake.raw.t || code=$?; find p/lake -name \"*.parquet\" | wc -l; exit $code'"
    ));
    check_failed(&ran, 6, "bad.csv, line ");
    assert!(ran.stderr.contains("could not be put into quarantine"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "1\n");
}

/// The beginning of a shell line whose commands are held to permissions, also when root runs the tests.
fn without_privileges(sandbox: &Sandbox) -> Option<&'static str> {
    if sandbox.sh("mkdir -p closed && chmod 555 closed && ! touch closed/x").code == 0 {
        return Some("");
    }
    let line = "setpriv --bounding-set=-dac_override,-dac_read_search ";
    if sandbox.sh(&format!("rm -f closed/x; ! {line} touch closed/x")).code == 0 {
        return Some(line);
    }
    skipped("permissions do not bind root, and setpriv cannot make them bind: not tested");
    None
}

#[test]
fn what_may_not_be_written_or_read() {
    let sandbox = project();
    let Some(line) = without_privileges(&sandbox) else { return };
    sandbox.sh("flumen --project p ingest good.csv --to lake.raw.t");
    let before = sandbox.sh("find p/lake | sort").stdout;
    let cases = [
        ("a lake's folder", "p/lake", "--project p ingest big.csv --to lake.new.t", "p/lake"),
        ("a namespace", "p/lake/raw", "--project p ingest big.csv --to lake.raw.u", "lake.raw.u"),
        ("a table", "p/lake/raw/t", "--project p ingest big.csv --to lake.raw.t", "lake.raw.t"),
        ("a log", "p/lake/raw/t/_delta_log", "--project p ingest big.csv --to lake.raw.t", "lake.raw.t"),
        ("a folder for files", "closed", "ingest good.csv --to closed/x.parquet", "closed"),
        ("a folder for temporary files", "tmp", "--project p ingest - --to lake.raw.t < good.csv", "tmp"),
        ("a source", "secret.csv", "--project p ingest secret.csv --to lake.raw.t", "secret.csv"),
        ("a folder of sources", "in", "--project p ingest 'in/*.csv' --to lake.raw.t", "error: in: "),
    ];
    sandbox.sh("cp good.csv secret.csv; mkdir in; cp good.csv in/");
    for (what, closed, arguments, names) in cases {
        let mode = if matches!(closed, "secret.csv" | "in") { "000" } else { "555" };
        let ran = sandbox.sh(&format!(
            "chmod {mode} {closed}; TMPDIR=$PWD/tmp {line} flumen {arguments}; code=$?; chmod 755 {closed}; exit $code"
        ));
        check_failed(&ran, 2, "permission denied");
        assert!(ran.stderr.contains(names), "{what}: {}", ran.stderr);
        assert_eq!(
            sandbox.sh("find p/lake | sort; ls -A tmp closed").stdout,
            format!("{before}closed:\n\ntmp:\n"),
            "{what}"
        );
    }
}

/// Runs a load of a file of which the server sends the first `after` bytes (none: nothing at all), then the signal to the
/// load, then nothing more. How the load ended, and what is left.
fn interrupted(signal: &'static str, after: Option<usize>, to: &str) {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path().join("tmp")).unwrap();
    assert_eq!(sandbox.sh("flumen init p; mkdir out; echo old > out/x.parquet").code, 0);
    let before = sandbox.sh("find p out -type f | sort").stdout;
    let child: Arc<Mutex<Option<u32>>> = Arc::default();
    let victim = Arc::clone(&child);
    let body = noise(100_000);
    let url = serve(move |_, stream| {
        if let Some(after) = after {
            send(stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"v1\"\r\n\r\n", body.len()));
            send(stream, &body.as_bytes()[..after]);
        }
        let pid = victim.lock().unwrap().expect("it was started").to_string();
        let kill = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(kill.is_ok_and(|status| status.success()));
        hold(stream);
    });
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
    command.args(["--project", "p", "ingest", &url, "--to", to]).env("TMPDIR", sandbox.path().join("tmp"));
    let running: Child = {
        // The lock is held while the child starts, so that the server finds it.
        let mut slot = child.lock().unwrap();
        let running = command.stderr(Stdio::piped()).spawn().unwrap();
        *slot = Some(running.id());
        running
    };
    let ended = running.wait_with_output().unwrap();
    let what = format!("{signal} after {after:?} bytes, to {to}");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{what}: {said}");
    assert!(said.contains("cancelled; nothing was changed"), "{what}: {said}");
    assert_eq!(sandbox.sh("find p out -type f | sort; ls -A tmp; ls p/lake 2>/dev/null").stdout, before, "{what}");
    assert_eq!(sandbox.sh("cat out/x.parquet").stdout, "old\n");
}

#[test]
fn a_load_that_is_interrupted_leaves_nothing_behind() {
    for (signal, after) in [("-INT", None), ("-TERM", Some(0)), ("-INT", Some(100)), ("-TERM", Some(2_000_000))] {
        interrupted(signal, after, "lake.raw.t");
    }
    interrupted("-INT", Some(3_000_000), "out/x.parquet");
    interrupted("-TERM", Some(3_000_000), "out/part-*.csv");
}

#[test]
fn a_load_into_a_file_that_is_killed_leaves_the_file_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir out; echo old > out/x.parquet");
    let child: Arc<Mutex<Option<Child>>> = Arc::default();
    let victim = Arc::clone(&child);
    let body = noise(100_000);
    let first = Mutex::new(true);
    let url = serve(move |_, stream| {
        let half = if std::mem::take(&mut *first.lock().unwrap()) { body.len() / 2 } else { body.len() };
        reply(stream, "200 OK", "ETag: \"v1\"\r\n", body.len(), &body.as_bytes()[..half]);
        if let Some(mut child) = victim.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    });
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
    command.args(["ingest", &url, "--to", "out/x.parquet"]).stderr(Stdio::null());
    {
        let mut slot = child.lock().unwrap();
        *slot = Some(command.spawn().unwrap());
    }
    while child.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().unwrap().is_none()) {
        std::thread::yield_now();
    }
    assert_eq!(sandbox.sh("cat out/x.parquet").stdout, "old\n");
    // The next one puts it right, and removes what the dead one left.
    let again = sandbox.sh(&format!("flumen ingest {url} --to out/x.parquet"));
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(sandbox.sh("ls -A out").stdout, "x.parquet\n");
    let rows = sandbox.sh("flumen --json sql \"select count(*) as n from 'out/x.parquet'\"");
    assert_eq!(rows.stdout.trim(), r#"[{"n":100000}]"#);
}

#[test]
fn loads_of_several_files_into_a_new_table_at_once() {
    let sandbox = project();
    let loads: Vec<Child> = (0..4)
        .map(|n| {
            sandbox.write(&format!("{n}.csv"), format!("id,noise\n{n},x\n"));
            let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
            command.args(["--project", "p", "ingest", &format!("{n}.csv"), "--to", "lake.raw.t"]);
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for load in loads {
        let ended = load.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let rows = sandbox.sh("flumen --json --project p sql 'select count(*) as n, sum(id) as s from lake.raw.t'");
    assert_eq!(rows.stdout.trim(), r#"[{"n":4,"s":6}]"#);
}

#[test]
fn loads_of_the_same_file_at_once() {
    let sandbox = project();
    let loads: Vec<Child> = (0..3)
        .map(|_| {
            let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
            command.args(["--project", "p", "ingest", "good.csv", "--to", "lake.raw.t"]);
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut done = 0;
    for load in loads {
        let ended = load.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        match ended.status.code() {
            Some(0) => done += 1,
            Some(4) => assert!(said.contains("hint: "), "{said}"),
            _ => panic!("{said}"),
        }
    }
    assert!(done > 0);
    let rows = sandbox.sh("flumen --json --project p sql 'select count(*) as n, sum(id) as s from lake.raw.t'");
    assert_eq!(rows.stdout.trim(), r#"[{"n":2,"s":3}]"#);
    assert_eq!(sandbox.sh("find p/lake -name '*.parquet' | wc -l").stdout, "1\n");
}

#[test]
fn an_empty_file_among_others_is_a_warning() {
    let sandbox = project();
    sandbox.write("in/a.csv", "id,noise\n1,a\n");
    sandbox.write("in/b.csv", "");
    sandbox.write("in/c.csv", "id,noise\n3,c\n");
    let ran = sandbox.sh("flumen --project p ingest 'in/*.csv' --to lake.raw.t");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("in/b.csv is empty"), "{}", ran.stderr);
    let rows = sandbox.sh("flumen --json --project p sql 'select count(*) as n from lake.raw.t'");
    assert_eq!(rows.stdout.trim(), r#"[{"n":2}]"#);
}
