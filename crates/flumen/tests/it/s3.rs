//! Buckets, through the binary: as source, as destination, as the lake itself; also those that answer late, twice or not.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use flumen_testkit::bucket::{Bucket, Dialect, Fault, KEY, NAME};

use crate::sandbox::{Ran, Sandbox};

/// A project with a connection to the bucket; its lake is at `lake`.
fn project(bucket: &Bucket, lake: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let settings = format!(
        "name: p\nlake:\n  root: {lake}\nconnections:\n  store:\n    kind: s3\n    bucket: {NAME}\n    endpoint: {}\n    \
         allow_http: true\n    access_key_id: {KEY}\n    secret_access_key: \"{{{{ secret_env('SECRET') }}}}\"\n",
        bucket.endpoint
    );
    sandbox.write("flumen.yml", settings);
    sandbox.env("SECRET", "abc")
}

#[track_caller]
fn ok(ran: &Ran) -> &str {
    assert_eq!(ran.code, 0, "{}\n{}", ran.stderr, ran.stdout);
    ran.stdout.trim()
}

/// What a query over the lake gives.
#[track_caller]
fn query(sandbox: &Sandbox, query: &str) -> String {
    ok(&sandbox.sh(&format!("flumen --json sql \"{query}\""))).to_owned()
}

#[test]
fn a_connection_to_a_bucket_is_tested() {
    let bucket = Bucket::s3();
    let sandbox = project(&bucket, "lake");
    assert_eq!(ok(&sandbox.sh("flumen connection test store")), format!("ok  list s3://{NAME}/: it is empty"));
    for n in 0..7 {
        bucket.put(&format!("in/{n}.csv"), "a\n1\n");
    }
    assert_eq!(ok(&sandbox.sh("flumen connection test store")), format!("ok  list s3://{NAME}/: 7 objects"));
    let settings = std::fs::read_to_string(sandbox.path().join("flumen.yml")).unwrap();
    let wrong = |from: &str, to: &str| {
        sandbox.write("flumen.yml", settings.replace(from, to));
        let ran = sandbox.sh("flumen connection test store");
        assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
        (ran.code, ran.stderr)
    };
    let (code, said) = wrong(KEY, "other");
    assert!(code == 2 && said.contains("access denied (403)"), "{code}: {said}");
    let (code, said) = wrong("bucket: data", "bucket: dota");
    assert!(code == 3 && said.contains("there is no such bucket"), "{code}: {said}");
    let (code, said) = wrong("allow_http: true", "allow_http: false");
    assert!(code == 2 && said.contains("allow_http"), "{code}: {said}");
}

#[test]
fn objects_are_loaded_once() {
    let bucket = Bucket::s3();
    let sandbox = project(&bucket, "lake");
    for n in 0..7 {
        bucket.put(&format!("in/{n}.csv"), format!("id,name\n{n},n{n}\n"));
    }
    bucket.put("in/readme.txt", "not this one");
    bucket.put("in/deep/8.csv", "id,name\n8,x\n");
    let load = "flumen ingest 's3://data/in/*.csv' --to lake.raw.t";
    ok(&sandbox.sh(load));
    assert_eq!(query(&sandbox, "select count(*) as n, sum(id) as s from lake.raw.t"), r#"[{"n":7,"s":21}]"#);
    let again = sandbox.sh(load);
    ok(&again);
    assert!(again.stderr.contains("nothing to load"), "{}", again.stderr);
    // One is new, one has changed.
    bucket.put("in/7.csv", "id,name\n7,n7\n");
    bucket.put("in/0.csv", "id,name\n100,n100\n");
    ok(&sandbox.sh(load));
    assert_eq!(query(&sandbox, "select count(*) as n, sum(id) as s from lake.raw.t"), r#"[{"n":9,"s":128}]"#);
    assert_eq!(query(&sandbox, "select count(*) as n from 's3://data/in/**/*.csv'"), r#"[{"n":9}]"#);
    let gone = sandbox.sh("flumen ingest s3://data/in/gone.csv --to lake.raw.t");
    assert_eq!(gone.code, 3, "{}", gone.stderr);
    assert!(gone.stderr.contains("s3://data/in/gone.csv") && gone.stderr.contains("hint: "), "{}", gone.stderr);
    let none = sandbox.sh("flumen ingest 's3://data/in/*.parquet' --to lake.raw.t");
    assert_eq!(none.code, 3, "{}", none.stderr);
    assert!(none.stderr.contains("no object matches 's3://data/in/*.parquet'"), "{}", none.stderr);
}

#[test]
fn files_are_written_to_a_bucket() {
    let bucket = Bucket::s3();
    let sandbox = project(&bucket, "lake");
    sandbox.sh(
        "(echo id,text; seq 1 200000 | sed 's/.*/&,a text that makes the row longer than it would be: &/') > in.csv",
    );
    for (to, from) in [
        ("s3://data/out/x.parquet", "s3://data/out/x.parquet"),
        ("store://out/y.csv", "s3://data/out/y.csv"),
        ("s3://data/many/*.parquet", "s3://data/many/*.parquet"),
    ] {
        ok(&sandbox.sh(&format!("flumen ingest in.csv --to '{to}'")));
        let rows = query(&sandbox, &format!("select count(*) as n, sum(id) as s from '{from}'"));
        assert_eq!(rows, r#"[{"n":200000,"s":20000100000}]"#, "{to}");
    }
    // More than one part.
    assert!(bucket.get("out/y.csv").is_some_and(|content| content.len() > 9 << 20));
    assert_eq!(bucket.open_uploads(), 0);
    assert!(bucket.get("many/_manifest.json").is_some());
    // Replaced by fewer: what belonged to the load before is gone.
    ok(&sandbox.sh("flumen ingest in.csv --limit 10 --to 's3://data/many/*.parquet'"));
    assert_eq!(bucket.keys("many/"), ["many/_manifest.json", "many/part-00000.parquet"]);
}

#[test]
fn a_lake_in_a_bucket() {
    let bucket = Bucket::s3();
    let sandbox = project(&bucket, "s3://data/lake");
    sandbox.write("a.csv", "id,name\n1,a\n2,b\n");
    sandbox.write("b.csv", "id,name,more\n3,c,x\n");
    for file in ["a.csv", "b.csv", "a.csv"] {
        ok(&sandbox.sh(&format!("flumen ingest {file} --to lake.raw.t")));
    }
    let all = "select count(*) as n, sum(id) as s, count(more) as m from lake.raw.t";
    assert_eq!(query(&sandbox, all), r#"[{"n":3,"s":6,"m":1}]"#);
    assert_eq!(query(&sandbox, "select count(*) as n from raw.t where id > 1"), r#"[{"n":2}]"#);
    let list = ok(&sandbox.sh("flumen --json load list")).to_owned();
    let id = list.split("\"load\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    ok(&sandbox.sh(&format!("flumen load undo {id}")));
    assert_eq!(query(&sandbox, all), r#"[{"n":2,"s":3,"m":0}]"#);
    // Replaced and merged.
    ok(&sandbox.sh("flumen ingest a.csv --to lake.raw.t --mode merge --key id --force"));
    assert_eq!(query(&sandbox, all), r#"[{"n":2,"s":3,"m":0}]"#);
    ok(&sandbox.sh("flumen ingest b.csv --to lake.raw.t --mode replace"));
    assert_eq!(query(&sandbox, all), r#"[{"n":1,"s":3,"m":1}]"#);
    // A bad row: the load fails, the row is in quarantine.
    sandbox.write("bad.csv", "id,name\n5,e\nx,f\n");
    assert_eq!(sandbox.sh("flumen ingest bad.csv --to lake.raw.t").code, 6);
    assert_eq!(query(&sandbox, all), r#"[{"n":1,"s":3,"m":1}]"#);
    assert_eq!(query(&sandbox, "select value from lake.raw.t__quarantine"), r#"[{"value":"x"}]"#);
    assert!(!sandbox.path().join("s3:").exists() && !sandbox.path().join("lake").exists());
}

/// Several loads at once.
fn at_once(sandbox: &Sandbox, files: &[&str]) -> Vec<(i32, String)> {
    let start = |file: &&str| {
        let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
        command.args(["ingest", file, "--to", "lake.raw.t"]).stderr(Stdio::piped()).spawn().unwrap()
    };
    let loads: Vec<Child> = files.iter().map(start).collect();
    let end = |load: Child| {
        let ended = load.wait_with_output().unwrap();
        (ended.status.code().unwrap_or(-1), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    loads.into_iter().map(end).collect()
}

#[test]
fn loads_into_a_lake_in_a_bucket_at_once() {
    let bucket = Bucket::s3();
    let sandbox = project(&bucket, "s3://data/lake");
    for n in 0..4 {
        sandbox.write(&format!("{n}.csv"), format!("id,name\n{n},x\n"));
    }
    for (code, said) in at_once(&sandbox, &["0.csv", "1.csv", "2.csv", "3.csv"]) {
        assert_eq!(code, 0, "{said}");
    }
    let all = "select count(*) as n, sum(id) as s from lake.raw.t";
    assert_eq!(query(&sandbox, all), r#"[{"n":4,"s":6}]"#);
    // The same file: one of them loads it, and the others say so.
    sandbox.write("4.csv", "id,name\n4,x\n");
    let ended = at_once(&sandbox, &["4.csv", "4.csv", "4.csv"]);
    assert!(ended.iter().any(|(code, _)| *code == 0), "{ended:?}");
    assert!(ended.iter().all(|(code, said)| *code == 0 || *code == 4 && said.contains("hint: ")), "{ended:?}");
    assert_eq!(query(&sandbox, all), r#"[{"n":5,"s":10}]"#);
    // Nothing lies about that no version names: one file for each load, each version once.
    let data = bucket.keys("lake/raw/t/load-");
    assert_eq!(data.len(), 5, "{data:?}");
}

#[test]
fn a_commit_whose_answer_is_lost_is_made_once() {
    let lost = AtomicUsize::new(0);
    let bucket = Bucket::with_faults(Dialect::S3, move |request| {
        let is_commit = request.method == "PUT" && request.key.contains("/_delta_log/");
        (is_commit && lost.fetch_add(1, Ordering::SeqCst) == 0).then_some(Fault::LoseAnswer)
    });
    let sandbox = project(&bucket, "s3://data/lake");
    sandbox.write("a.csv", "id,name\n1,a\n2,b\n");
    ok(&sandbox.sh("flumen ingest a.csv --to lake.raw.t"));
    assert_eq!(query(&sandbox, "select count(*) as n from lake.raw.t"), r#"[{"n":2}]"#);
    assert_eq!(bucket.keys("lake/raw/t/_delta_log/").len(), 1);
    assert_eq!(bucket.keys("lake/raw/t/load-").len(), 1);
}

#[test]
fn a_bucket_that_is_busy_is_asked_again() {
    let count = AtomicUsize::new(0);
    let bucket = Bucket::with_faults(Dialect::S3, move |_| {
        count.fetch_add(1, Ordering::SeqCst).is_multiple_of(3).then_some(Fault::Refuse(503))
    });
    let sandbox = project(&bucket, "s3://data/lake");
    bucket.put("in/a.csv", "id,name\n1,a\n2,b\n");
    ok(&sandbox.sh("flumen ingest s3://data/in/a.csv --to lake.raw.t"));
    assert_eq!(query(&sandbox, "select count(*) as n from lake.raw.t"), r#"[{"n":2}]"#);
}

#[test]
fn a_bucket_that_may_not_be_written_leaves_nothing() {
    let bucket = Bucket::with_faults(Dialect::S3, |request| {
        (request.method == "PUT" && request.key.contains("/_delta_log/")).then_some(Fault::Refuse(403))
    });
    let sandbox = project(&bucket, "s3://data/lake");
    sandbox.write("a.csv", "id,name\n1,a\n2,b\n");
    let ran = sandbox.sh("flumen ingest a.csv --to lake.raw.t");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("lake.raw.t") && ran.stderr.contains("hint: "), "{}", ran.stderr);
    assert_eq!(bucket.keys(""), Vec::<String>::new());
}

#[test]
fn why_a_load_failed_is_said_also_when_it_cannot_be_cleaned_up_after() {
    let bucket = Bucket::with_faults(Dialect::S3, |request| {
        let is_commit = request.method == "PUT" && request.key.contains("/_delta_log/");
        (is_commit || request.method == "POST" && request.key.is_empty()).then_some(Fault::Refuse(403))
    });
    let sandbox = project(&bucket, "s3://data/lake");
    sandbox.write("a.csv", "id,name\n1,a\n2,b\n");
    let ran = sandbox.sh("flumen ingest a.csv --to lake.raw.t");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("_delta_log"), "{}", ran.stderr);
    // What is left is invisible.
    let rows = sandbox.sh("flumen --json sql 'select * from lake.raw.t'");
    assert_eq!(rows.code, 3, "{}{}", rows.stdout, rows.stderr);
}
