//! The Postgres store, over a real server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::ErrorKind;
use flumen_core::flow::store::{Claim, Commit, MetaStore, NewRun, Pool, Wake};
use flumen_core::flow::{FlowName, FlowVersion, Interval, Origin, Outcome, Queued, RunId, Signal, TaskKey};
use flumen_core::testkit;
use flumen_store::postgres::{Address, PostgresStore, SCHEMA};
use flumen_testkit::postgres::{Database, Server, server};
use futures::StreamExt as _;
use sqlx::types::Uuid;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

fn new_run(id: u128) -> NewRun {
    NewRun {
        id: RunId::new(Uuid::from_u128(id)),
        flow: FlowName::from("trips"),
        version: FlowVersion::of(b"trips"),
        deployment: None,
        interval: Interval::at(at(0)),
        params: serde_json::Map::new(),
        origin: Origin::Schedule,
        unique: None,
        start: false,
    }
}

fn queued(task: &str, pool: &str) -> Queued {
    Queued {
        key: TaskKey::new(task),
        attempt: 1,
        lists: false,
        item: None,
        pool: pool.to_owned(),
        slots: 1,
        priority: 0,
    }
}

async fn commit_of(store: &PostgresStore, run: RunId) -> Commit {
    let loaded = store.load(run).await.unwrap();
    let mut commit = Commit::new(loaded.record, loaded.version, at(1));
    commit.read = loaded.inbox.iter().map(|letter| letter.id).collect();
    commit
}

fn claim(worker: &str, pool: &str, limit: usize) -> Claim {
    let (worker, pools) = (worker.into(), vec![pool.to_owned()]);
    Claim { worker, pools, only: Vec::new(), limit, now: at(0), expires: at(30) }
}

async fn open(database: &Database) -> PostgresStore {
    PostgresStore::open(&database.url, SCHEMA).await.unwrap()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let database = server().database().await;
    let (store, again) = (open(&database).await, open(&database).await);
    testkit::user_store(&store, &again).await;
    testkit::meta_store(&store, &again).await;
}
