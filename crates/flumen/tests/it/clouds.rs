//! Lakes in the stores of three clouds, through the binary and over the wire: what is loaded once, by one load or by several at
//! once, and what a killed load leaves.

use std::process::{Child, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use flumen_testkit::azurite::Container;
use flumen_testkit::bucket::{Bucket, Dialect, Fault};
use flumen_testkit::moto;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::sandbox::{Ran, Sandbox};

/// A project whose lake is in a store, and the store.
struct Cloud {
    sandbox: Sandbox,
    url: String,
    store: Arc<dyn ObjectStore>,
}

const ALL: &str = "select count(*) as n, sum(id) as s from lake.raw.t";

impl Cloud {
    fn new(connection: &str, url: String, store: Arc<dyn ObjectStore>) -> Self {
        let sandbox = Sandbox::new();
        let settings = format!("name: p\nlake:\n  root: {url}/lake\nconnections:\n  store: {connection}\n");
        sandbox.write("flumen.yml", settings);
        Self { sandbox, url, store }
    }

    fn of(bucket: &Bucket) -> Self {
        Self::new(&bucket.connection(), bucket.url(), bucket.store())
    }

    async fn put(&self, key: &str, content: String) {
        self.store.put(&Path::from(key), content.into()).await.unwrap();
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let found: Vec<_> = self.store.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
        let mut keys: Vec<String> = found.into_iter().map(|object| object.location.to_string()).collect();
        keys.sort();
        keys
    }

    /// Runs a line that must succeed.
    #[track_caller]
    fn good(&self, line: &str) -> Ran {
        let ran = self.sandbox.sh(&line.replace("URL", &self.url));
        assert_eq!(ran.code, 0, "{line}: {}{}", ran.stdout, ran.stderr);
        ran
    }

    /// What a query gives.
    #[track_caller]
    fn query(&self, query: &str) -> String {
        self.good(&format!("flumen --json sql \"{query}\"")).stdout.trim().to_owned()
    }

    /// What a line that must succeed gives as JSON.
    #[track_caller]
    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.good(&format!("{line} --json")).stdout).unwrap()
    }

    fn start(&self, file: &str) -> Child {
        let mut command = self.sandbox.command(env!("CARGO_BIN_EXE_flumen"));
        let from = format!("{}/{file}", self.url);
        command
            .args(["ingest", &from, "--to", "lake.raw.t"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// A CSV with the ids of `ids`, whose rows are long and do not pack well.
fn rows(ids: std::ops::Range<u64>) -> String {
    let mut text = String::from("id,noise\n");
    for id in ids {
        let noise = id.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text.push_str(&format!(
            "{id},{noise:016x}{:016x}{:016x}\n",
            noise.rotate_left(29),
            noise.wrapping_mul(noise | 1)
        ));
    }
    text
}

async fn a_file_is_loaded_once(cloud: &Cloud) {
    cloud.put("in/a.csv", rows(0..10)).await;
    assert!(cloud.good("flumen connection test store").stdout.starts_with("ok "));
    cloud.good("flumen ingest URL/in/a.csv --to lake.raw.t");
    assert_eq!(cloud.query(ALL), r#"[{"n":10,"s":45}]"#);
    let again = cloud.good("flumen ingest URL/in/a.csv --to lake.raw.t");
    assert!(again.stderr.contains("nothing to load"), "{}", again.stderr);
    // Another one, larger than one part of an upload.
    cloud.put("in/b.csv", rows(10..500_000)).await;
    cloud.good("flumen ingest 'URL/in/*.csv' --to lake.raw.t");
    assert_eq!(cloud.query(ALL), r#"[{"n":500000,"s":124999750000}]"#);
    assert_eq!(cloud.query("select count(*) as n from 'URL/in/a.csv'"), r#"[{"n":10}]"#);
    // Changed on the server, it is another file.
    cloud.put("in/a.csv", rows(0..3)).await;
    cloud.good("flumen ingest URL/in/a.csv --to lake.raw.t --mode replace");
    assert_eq!(cloud.query(ALL), r#"[{"n":3,"s":3}]"#);
    cloud.good("flumen ingest URL/in/a.csv --to URL/out/x.parquet");
    assert_eq!(cloud.query("select sum(id) as s from 'URL/out/x.parquet'"), r#"[{"s":3}]"#);
}

/// Each version of the table is one load's: of two that want the same, one wins, and the other takes the next.
async fn loads_at_once_all_arrive(cloud: &Cloud) {
    let before = cloud.keys("lake/raw/t/_delta_log").await.len();
    for n in 0..4 {
        cloud.put(&format!("more/{n}.csv"), rows(1000 + n..1001 + n)).await;
    }
    let running: Vec<Child> = (0..4).map(|n| cloud.start(&format!("more/{n}.csv"))).collect();
    for load in running {
        let ended = load.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(cloud.query(&format!("{ALL} where id >= 1000 and id < 1004")), r#"[{"n":4,"s":4006}]"#);
    assert_eq!(cloud.keys("lake/raw/t/_delta_log").await.len(), before + 4);
}

/// A load that is killed when it has begun to write, or a moment later, and done again.
async fn a_killed_load_is_done_again(cloud: &Cloud) {
    cloud.put("in/c.csv", rows(2_000_000..2_300_000)).await;
    let files = cloud.keys("lake/raw/t/load-").await.len();
    let mut load = cloud.start("in/c.csv");
    while cloud.keys("lake/raw/t").await.iter().filter(|key| key.contains("/load-")).count() == files
        && load.try_wait().unwrap().is_none()
    {
        tokio::task::yield_now().await;
    }
    load.kill().unwrap();
    load.wait().unwrap();
    cloud.good("flumen ingest URL/in/c.csv --to lake.raw.t");
    assert_eq!(cloud.query(&format!("{ALL} where id >= 2000000")), r#"[{"n":300000,"s":644999850000}]"#);
}

/// Eight processes load into one table, and change the catalog, at once.
async fn writers_at_once_lose_nothing(cloud: &Cloud) {
    let mut running = Vec::new();
    for writer in 0..8 {
        cloud.sandbox.write(&format!("{writer}.csv"), format!("id\n{writer}\n"));
        let work = format!(
            "flumen -q ingest {writer}.csv --to lake.many.t && flumen -q lake tag lake.many.t w{writer} && \
             flumen -q lake put {writer}.csv lake.files.in/"
        );
        let mut command = cloud.sandbox.command("sh");
        running.push(command.args(["-c", &work]).stderr(Stdio::piped()).spawn().unwrap());
    }
    for writer in running {
        let ended = writer.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(cloud.query("select count(*) as n, sum(id) as s from lake.many.t"), r#"[{"n":8,"s":28}]"#);
    let told = cloud.json("flumen lake describe many.t");
    assert_eq!((told["version"].as_u64(), told["about"]["tags"].as_array().unwrap().len()), (Some(7), 8));
    assert_eq!(cloud.json("flumen lake ls lake.files.in").as_array().unwrap().len(), 8);
    cloud.good("flumen lake check --deep");
}

/// An environment is made, written to and published, and tables get other names, are dropped, and come back.
async fn names_and_environments_move(cloud: &Cloud) {
    cloud.sandbox.write("a.csv", "id\n1\n");
    cloud.sandbox.write("b.csv", "id\n2\n");
    cloud.good("flumen ingest a.csv --to lake.env.t");
    cloud.good("flumen env create dev");
    let said = cloud.good("flumen --env dev ingest b.csv --to lake.env.t").stderr;
    assert!(said.contains("1 file,") && said.contains("within the store"), "{said}");
    assert_eq!(cloud.json("flumen lake describe env.t")["rows"], 1);
    assert_eq!(cloud.json("flumen --env dev lake describe env.t")["rows"], 2);
    cloud.good("flumen env publish dev");
    cloud.good("flumen lake rename env.t env.u");
    assert_eq!(cloud.json("flumen lake describe env.u")["rows"], 2);
    cloud.good("flumen lake optimize env.u");
    cloud.good("flumen lake drop env.u");
    cloud.good("flumen lake undrop env.u");
    cloud.good("flumen lake check --deep");
    // The copy's log is of before, and what it was published over is nobody's now.
    cloud.good("flumen env drop dev");
    cloud.good("flumen lake vacuum --retain 0s");
    assert_eq!(cloud.json("flumen lake describe env.u")["rows"], 2);
    cloud.good("flumen lake check --deep");
}

async fn all(cloud: Cloud) {
    a_file_is_loaded_once(&cloud).await;
    loads_at_once_all_arrive(&cloud).await;
    a_killed_load_is_done_again(&cloud).await;
    writers_at_once_lose_nothing(&cloud).await;
    names_and_environments_move(&cloud).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_in_an_s3_of_our_own() {
    let cloud = Cloud::of(&Bucket::s3());
    writers_at_once_lose_nothing(&cloud).await;
    names_and_environments_move(&cloud).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure() {
    let container = Container::new();
    all(Cloud::new(&container.connection(), container.url(), container.store())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google() {
    all(Cloud::of(&Bucket::gcs())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_s3() {
    let bucket = moto::Bucket::new();
    let cloud = Cloud::new(&bucket.connection(), bucket.url(), bucket.store());
    // Moto looks and writes in two steps, so nothing is proved by writing to it from several sides at once.
    a_file_is_loaded_once(&cloud).await;
    a_killed_load_is_done_again(&cloud).await;
    names_and_environments_move(&cloud).await;
}

/// The load dies at the one moment that counts: its commit is on the way, and either arrives or does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_dies_while_it_commits() {
    for arrives in [false, true] {
        let (asks, asked) = sync_channel::<()>(0);
        let (dies, dead) = sync_channel::<()>(0);
        let dead = Mutex::new(dead);
        let first = Mutex::new(true);
        let bucket = Bucket::with_faults(Dialect::Gcs, move |request| {
            let is_commit = request.method == "PUT" && request.key.contains("/_delta_log/");
            if !is_commit || !std::mem::replace(&mut *first.lock().unwrap(), false) {
                return None;
            }
            asks.send(()).unwrap();
            dead.lock().unwrap().recv().unwrap();
            Some(if arrives { Fault::LoseAnswer } else { Fault::Refuse(503) })
        });
        let cloud = Cloud::of(&bucket);
        cloud.put("in/a.csv", rows(0..10)).await;
        let mut load = cloud.start("in/a.csv");
        asked.recv().unwrap();
        load.kill().unwrap();
        load.wait().unwrap();
        dies.send(()).unwrap();
        let again = cloud.good("flumen ingest URL/in/a.csv --to lake.raw.t");
        assert_eq!(again.stderr.contains("nothing to load"), arrives, "{}", again.stderr);
        assert_eq!(cloud.query(ALL), r#"[{"n":10,"s":45}]"#);
        assert_eq!(bucket.keys("lake/raw/t/_delta_log/").len(), 1);
        assert_eq!(bucket.keys("lake/raw/t/load-").len(), 1, "what the dead one left is swept away");
    }
}

/// A commit that the store takes, and whose answers are all lost: the load is done, and its files stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_never_answered_keeps_its_files() {
    for dialect in [Dialect::S3, Dialect::Gcs] {
        let written = Mutex::new(false);
        let bucket = Bucket::with_faults(dialect, move |request| {
            if request.method != "PUT" || !request.key.contains("/_delta_log/") {
                return None;
            }
            let again = std::mem::replace(&mut *written.lock().unwrap(), true);
            Some(if again { Fault::Refuse(500) } else { Fault::LoseAnswer })
        });
        let cloud = Cloud::of(&bucket);
        cloud.put("in/a.csv", rows(0..10)).await;
        cloud.good("flumen ingest URL/in/a.csv --to lake.raw.t");
        assert_eq!(cloud.query(ALL), r#"[{"n":10,"s":45}]"#);
    }
}
