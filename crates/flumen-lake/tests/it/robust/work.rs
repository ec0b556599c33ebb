//! What a process of its own does to a lake: this very test program, started again for one piece of work.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use flumen_core::dataset::TableName;
use flumen_core::load::Mode;
use flumen_lake::catalog::{Action, PROD};
use flumen_lake::ops::optimize::{OptimizeOptions, optimize};
use flumen_lake::ops::restore::restore;
use flumen_lake::ops::vacuum::{VacuumOptions, vacuum};
use flumen_lake::sink::LakeSink;

use super::place::Place;
use super::store::CrashStore;
use crate::support::{Load, TestLake};

/// Where the process is told what to do.
const TASK: &str = "FLUMEN_TEST_TASK";

pub fn name(table: &str) -> TableName {
    TableName::new("raw", table).unwrap()
}

/// Runs `task` on the lake at `place` in a process of its own, which may make so many `changes`.
pub fn run(task: &str, place: &Place, changes: u64) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["robust::work::process", "--exact", "--ignored", "--nocapture"])
        .env(TASK, format!("{task}\n{changes}\n{}", place.text()))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the end of `child`: how it ended, and what it said.
pub fn wait(child: std::process::Child) -> (ExitStatus, String) {
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other tests run it, as a process of its own"]
async fn process() {
    let Ok(text) = std::env::var(TASK) else { return };
    let mut lines = text.splitn(3, '\n');
    let (task, changes) = (lines.next().unwrap(), lines.next().unwrap().parse().unwrap());
    let lake = Place::parse(lines.next().unwrap()).lake();
    let lake = lake.wrapped(|inner| Arc::new(CrashStore::new(inner, changes)));
    let (task, writer) = task.split_once(' ').unwrap_or((task, "0"));
    let writer: u64 = writer.parse().unwrap();
    // Ids of no other process.
    let lake = TestLake::on(lake, u64::from(std::process::id()) << 32, if task == "vacuum" { 4_000 } else { 0 });
    let catalog = lake.catalog();
    match task {
        "append" => load(&lake, &Load::new("crash", &["n"], &["100", "101"])).await,
        "replace" => load(&lake, &Load::new("crash", &["n"], &["100", "101"]).mode(Mode::Replace)).await,
        "merge" => {
            let mode = Mode::Merge { keys: vec!["n".to_owned()], delete_flag: None };
            load(&lake, &Load::new("crash", &["n"], &["1", "101"]).mode(mode)).await;
        }
        "optimize" => {
            let table = lake.lake.table(&name("t")).unwrap();
            optimize(&catalog, &table, &OptimizeOptions::default()).await.unwrap();
        }
        "vacuum" => {
            vacuum(&catalog, &VacuumOptions::default()).await.unwrap();
        }
        "restore" => {
            restore(&catalog, &lake.lake.table(&name("t")).unwrap(), 1).await.unwrap();
        }
        "rename" => catalog.rename(PROD, &[(name("t"), name("renamed"))]).await.unwrap(),
        "drop" => catalog.drop_entries(PROD, &[name("t")]).await.unwrap(),
        "copy" => {
            catalog.writable("dev", &name("t")).await.unwrap();
        }
        "publish" => {
            catalog.publish("dev", false).await.unwrap();
        }
        "many" => many(&lake, writer).await,
        other => panic!("{other}"),
    }
}

async fn load(lake: &TestLake, load: &Load) {
    let sink = LakeSink::named(lake.catalog(), PROD, &name("t"), Arc::new(|_| {})).await.unwrap();
    let (session, record) = lake.write_by(&sink, load).await.unwrap();
    session.commit(&record).await.unwrap();
}

/// How many loads, and how many commits of the catalog, each of many writers makes.
pub const ROUNDS: u64 = 6;

/// Appends to the one table, and changes the catalog, again and again.
async fn many(lake: &TestLake, writer: u64) {
    for round in 0..ROUNDS {
        let number = (writer * ROUNDS + round).to_string();
        load(lake, &Load::new(&format!("w{writer}r{round}"), &["n"], &[&number])).await;
        let namespace = flumen_lake::catalog::Namespace {
            about: Default::default(),
            created: chrono::DateTime::from_timestamp(0, 0).unwrap(),
        };
        let put = Action::PutNamespace { name: format!("w{writer}r{round}"), namespace };
        lake.catalog().change("many", |_| Ok(vec![put.clone()])).await.unwrap();
    }
}
