//! Stores that older versions have left: each is opened, keeps what is in it, and goes on.
//!
//! `older/sqlite/N.sql` and `older/postgres/N.sql` are such stores after migration N, as dumps. In all but the first ones a server was
//! killed while a run of the flow `night` was under way: `load` had succeeded; `slow` and `narrow_1` were at work; `narrow_2` waited for
//! a slot of the pool `narrow`, which has one; `morning` was deferred. A backfill had just been asked for. With a new migration comes a
//! new dump, made the same way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::{Claim, MetaStore, RunFilter};
use flumen_core::flow::{FlowName, Outcome, RunState, Signal};
use flumen_core::user::UserStore;
use flumen_store::postgres::{PostgresStore, SCHEMA};
use flumen_store::sqlite::SqliteStore;
use flumen_testkit::postgres::server;
use rusqlite::Connection;

/// The dumps for a kind of store, by their migrations.
fn dumps(kind: &str) -> BTreeMap<i64, PathBuf> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/older").join(kind);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.file_stem().unwrap().to_str().unwrap().parse().unwrap(), path)).collect()
}

/// All tables and indexes.
fn schema(path: &Path) -> Vec<(String, Option<String>)> {
    let connection = Connection::open(path).unwrap();
    let mut all = connection.prepare("select name, sql from sqlite_master order by name").unwrap();
    all.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn sqlite_stores_of_older_versions_go_on() {
    let dumps = dumps("sqlite");
    for (version, dump) in &dumps {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flumen.db");
        let dump = std::fs::read_to_string(dump).unwrap();
        Connection::open(&path).unwrap().execute_batch(&dump).unwrap();

        let store = SqliteStore::open(&path).await.unwrap();
        let again = SqliteStore::open(&path).await.unwrap();
        ann_is_there(&store).await;
        if *version > 1 {
            the_night_goes_on(&store, &again).await;
        }

        let new = folder.path().join("new.db");
        SqliteStore::open(&new).await.unwrap();
        assert_eq!(schema(&path), schema(&new), "migration {version} and what came after");
        let newest = "select max(version) from _sqlx_migrations";
        let newest: i64 = Connection::open(&path).unwrap().query_row(newest, (), |row| row.get(0)).unwrap();
        assert_eq!(dumps.keys().copied().collect::<Vec<_>>(), (1..=newest).collect::<Vec<_>>(), "a dump is missing");
    }
}

#[tokio::test]
async fn postgres_stores_of_older_versions_go_on() {
    let dumps = dumps("postgres");
    for dump in dumps.values() {
        let database = server().database().await;
        database.run(&std::fs::read_to_string(dump).unwrap()).await;

        let store = PostgresStore::open(&database.url, SCHEMA).await.unwrap();
        let again = PostgresStore::open(&database.url, SCHEMA).await.unwrap();
        ann_is_there(&store).await;
        the_night_goes_on(&store, &again).await;

        let newest: i64 =
            database.show("select max(version) from flumen._sqlx_migrations").await.trim().parse().unwrap();
        assert_eq!(dumps.keys().copied().collect::<Vec<_>>(), (1..=newest).collect::<Vec<_>>(), "a dump is missing");
    }
}

async fn ann_is_there(store: &dyn UserStore) {
    let (ann, verifiers) = store.find("ann").await.unwrap().unwrap();
    assert!(!ann.read_only);
    assert!(flumen_store::password::accepts(&verifiers, "an old password"));
}

/// All of the run can be read, its dead worker's leases are taken back, and another one takes what waits.
async fn the_night_goes_on(store: &dyn MetaStore, again: &dyn MetaStore) {
    let night = FlowName::from("night");
    let runs = store.runs(&RunFilter::default()).await.unwrap();
    let [run] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!((&run.flow, run.state), (&night, RunState::Running));
    assert_eq!(again.active_runs(&night).await.unwrap(), 1);
    let start: DateTime<Utc> = "2019-01-02T06:00:00Z".parse().unwrap();
    assert_eq!(run.interval.start, start);
    assert_eq!(run.params["color"], "yellow");
    assert!(!store.version(&run.version).await.unwrap().is_empty());
    let loaded = store.load(run.id).await.unwrap();
    let states: Vec<String> = loaded.tasks.iter().map(|task| format!("{} {}", task.key, task.state)).collect();
    assert_eq!(states, ["load success", "morning deferred", "narrow_1 running", "narrow_2 queued", "slow running"]);
    assert!(loaded.inbox.is_empty(), "{:?}", loaded.inbox);
    assert!(!store.events(run.id, 0, 100).await.unwrap().is_empty());

    assert_eq!(store.paused().await.unwrap(), std::slice::from_ref(&night));
    let backfills = store.backfills().await.unwrap();
    assert_eq!(backfills.iter().map(|one| (&one.flow, one.total)).collect::<Vec<_>>(), [(&night, 2)]);
    let pools = store.pools().await.unwrap();
    let narrow = pools.iter().find(|known| known.pool.name == "narrow").unwrap();
    assert_eq!((narrow.pool.slots, narrow.used, narrow.queued), (Some(1), 1, 1));

    let leases = store.leases(run.id).await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.key.to_string()).collect::<Vec<_>>(), ["narrow_1", "slow"]);
    let later = leases[0].expires + TimeDelta::seconds(1);
    let claim = Claim {
        worker: "successor".into(),
        pools: vec!["narrow".to_owned()],
        only: Vec::new(),
        limit: 9,
        now: later,
        expires: later + TimeDelta::seconds(30),
    };
    assert!(again.claim(&claim).await.unwrap().work.is_empty(), "the slot is taken");
    assert_eq!(store.expire_leases(later, 9).await.unwrap().count, 2);
    let taken = store.take_runs(later, later + TimeDelta::seconds(2), 9).await.unwrap();
    assert_eq!(taken.iter().map(|taken| taken.run).collect::<Vec<_>>(), [run.id], "the run is told");
    let (_, letters) = store.inbox(run.id).await.unwrap();
    let is_lost = |signal: &Signal| matches!(signal, Signal::Ended { outcome: Outcome::Lost { .. }, .. });
    assert_eq!(letters.iter().filter(|letter| is_lost(&letter.signal)).count(), 2, "{letters:?}");
    let work = again.claim(&claim).await.unwrap().work;
    assert_eq!(work.iter().map(|work| work.lease.key.to_string()).collect::<Vec<_>>(), ["narrow_2"]);
    assert!(work[0].lease.number > leases[1].number.max(leases[0].number), "numbers only grow");
    store.finish(&work[0].held(), &Outcome::Cancelled, later).await.unwrap();
    let rung = store.ring_timers(later + TimeDelta::hours(2), 9).await.unwrap();
    let morning: DateTime<Utc> = "2100-01-01T00:00:00Z".parse().unwrap();
    assert_eq!((rung.count, rung.next), (1, Some(morning)));
    assert_eq!(store.prune(later, 9).await.unwrap(), 0, "a run that has not ended stays");
}
