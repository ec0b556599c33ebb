//! The Postgres store, over a real server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::{Claim, Commit, MetaStore, NewRun, Pool, RunFilter, Wake};
use flumen_core::flow::{
    FlowName, FlowVersion, Interval, Origin, Outcome, Queued, RunId, RunState, Signal, TaskKey, Touched,
};
use flumen_core::user::UserStore as _;
use flumen_core::{ErrorKind, testkit};
use flumen_store::postgres::{Address, PostgresStore, SCHEMA};
use flumen_testkit::postgres::{Database, Server, server};
use futures::StreamExt as _;
use futures::future::{join_all, try_join_all};
use sqlx::types::Uuid;
use tokio::sync::Notify;

/// All kinds of wakes.
const WAKES: [Wake; 7] = [Wake::Inbox, Wake::Queue, Wake::Stop, Wake::Timer, Wake::Wait, Wake::Notice, Wake::Run];

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

/// What a newer version adds to a schema: tables, columns of all others, a function.
const EXPAND: &str = "
    set search_path = flumen;
    create table extra (more text);
    do $$ declare name text; begin
        for name in select tablename from pg_tables where schemaname = 'flumen' and tablename <> '_sqlx_migrations' loop
            execute format('alter table %I add column more_of_it text default 1', name);
        end loop;
    end $$;
    create function more() returns text language sql as 'select current_user';
    insert into _sqlx_migrations (version, description, success, checksum, execution_time)
        values (99, 'expand more', true, '', 0)";

#[tokio::test]
async fn a_version_goes_on_beside_a_newer_one_that_only_adds_to_the_schema() {
    let database = server().database().await;
    let store = open(&database).await;
    // Its sessions have planned statements for the tables as they were.
    store.create_runs(&[new_run(1)], at(0)).await.unwrap();
    assert_eq!(store.start_runs(&new_run(1).flow, 1).await.unwrap(), [new_run(1).id]);
    assert_eq!(take(&store).await, [new_run(1).id]);
    store.load(new_run(1).id).await.unwrap();
    database.run(EXPAND).await;
    let again = open(&database).await;
    store.load(new_run(1).id).await.unwrap();
    assert_eq!(again.runs(&RunFilter::default()).await.unwrap().len(), 1);
    let commit = commit_of(&store, new_run(1).id).await;
    store.commit(&commit).await.unwrap();
    // And whatever else a store does, in a schema of their own, expanded before anything is in it.
    let database = server().database().await;
    let store = open(&database).await;
    store.list().await.unwrap();
    database.run(EXPAND).await;
    let again = open(&database).await;
    testkit::user_store(&store, &again).await;
    testkit::meta_store(&store, &again).await;
    database.run("set search_path = flumen; update _sqlx_migrations set description = 'less' where version = 99").await;
    let error = PostgresStore::open(&database.url, SCHEMA).await.unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[tokio::test]
async fn stores_that_start_at_once_make_one_schema() {
    let database = server().database().await;
    let stores = (0..4).map(|_| PostgresStore::open(&database.url, "shared"));
    let stores = try_join_all(stores).await.unwrap();
    let made = stores[0].create_runs(&[new_run(1)], at(0)).await.unwrap();
    assert!(made[0].new);
    assert_eq!(stores[3].run(new_run(1).id).await.unwrap().id, new_run(1).id);
    // Another schema is another store.
    let other = PostgresStore::open(&database.url, "other").await.unwrap();
    assert_eq!(other.run(new_run(1).id).await.unwrap_err().kind(), ErrorKind::NotFound);

    let newer = "insert into shared._sqlx_migrations (version, description, success, checksum, execution_time)
        values (99, 'x', true, '\\x00', 0)";
    database.run(newer).await;
    let error = PostgresStore::open(&database.url, "shared").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("a newer version of flumen has changed this schema"), "{error}");
    // Those that are at work go on.
    stores[0].run(new_run(1).id).await.unwrap();
}

#[tokio::test]
async fn what_is_no_address_is_said_without_the_password() {
    let database = server().database().await;
    for schema in ["", "Flumen", "a-b", "1a", "pg_x", &"x".repeat(51), "a\"; drop schema public; --"] {
        let error = PostgresStore::open(&database.url, schema).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{schema}");
    }
    let nobody = "postgresql://ann:s3cret@127.0.0.1:1/x";
    let port = server().port;
    let nowhere = format!("postgresql://flumen:s3cret@127.0.0.1:{port}/nowhere");
    for (url, kind) in [
        (nobody, ErrorKind::Unavailable),
        (nowhere.as_str(), ErrorKind::Invalid),
        ("s3cret", ErrorKind::Invalid),
        ("postgresql://ann:s3cret@h:x/y", ErrorKind::Invalid),
    ] {
        let error = PostgresStore::open(url, SCHEMA).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
    let url = database.url.replace("flumen@", "flumen:s3cret@");
    let store = PostgresStore::open(&url, SCHEMA).await.unwrap();
    assert!(!format!("{store:?}").contains("s3cret"), "{store:?}");
}

#[tokio::test]
async fn a_user_with_a_schema_needs_no_other_right() {
    let database = server().database().await;
    database.run("create role clerk login; create schema work authorization clerk").await;
    let mut address = Address {
        host: "127.0.0.1".to_owned(),
        port: server().port,
        user: "clerk".to_owned(),
        password: None,
        database: database.url.rsplit('/').next().unwrap().to_owned(),
        sslmode: "prefer".to_owned(),
        sslrootcert: None,
        options: Some("-c work_mem=8MB -c application_name=a\\ b".to_owned()),
        application_name: "flumen of clerk".to_owned(),
    };
    let refused = PostgresStore::connect(&address, "elsewhere").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    assert!(refused.remedy().unwrap().contains("let the user create the schema"), "{refused}");
    let store = PostgresStore::connect(&address, "work").await.unwrap();
    store.create_runs(&[new_run(1)], at(0)).await.unwrap();
    assert_eq!(store.list().await.unwrap(), []);
    address.sslmode = "sometimes".to_owned();
    assert_eq!(PostgresStore::connect(&address, "work").await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_server_with_little_room_is_waited_for() {
    let database = server().database().await;
    let role = format!("narrow_{}", database.url.rsplit('/').next().unwrap());
    database
        .run(&format!("create role {role} login connection limit 1; create schema work authorization {role}"))
        .await;
    let url = database.url.replace("flumen@", &format!("{role}@"));
    let in_the_way = flumen_testkit::postgres::connect(&url).await;
    let opening = tokio::spawn(async move { PostgresStore::open(&url, "work").await });
    // It was told that there is no room, once at least: that answer comes at once.
    let looks = flumen_testkit::postgres::connect(&database.url).await;
    for _ in 0..20 {
        looks.query("select pg_sleep(0.01)", &[]).await.unwrap();
    }
    assert!(!opening.is_finished());
    drop(in_the_way);
    let store = opening.await.unwrap().unwrap();
    // More statements at once than connections.
    let looks = join_all((0..8).map(|_| store.list())).await;
    assert!(looks.into_iter().all(|seen| seen.is_ok_and(|users| users.is_empty())));
}

#[tokio::test]
async fn the_way_to_the_server_is_encrypted() {
    let server = Server::start().unwrap();
    let database = server.database().await.url.rsplit('/').next().unwrap().to_owned();
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (of_server, other) = (made("localhost"), made("localhost"));
    let folder = tempfile::tempdir().unwrap();
    let address = |sslmode: &str, trusted: &rcgen::Certificate| {
        let path = folder.path().join("trusted.crt");
        std::fs::write(&path, trusted.pem()).unwrap();
        Address {
            host: "localhost".to_owned(),
            port: server.port,
            user: "flumen".to_owned(),
            password: None,
            database: database.clone(),
            sslmode: sslmode.to_owned(),
            sslrootcert: Some(path),
            options: None,
            application_name: "flumen in secret".to_owned(),
        }
    };
    let verified = address("verify-full", &of_server.cert);
    let refused = PostgresStore::connect(&verified, SCHEMA).await.unwrap_err();
    assert!(refused.message().contains("TLS"), "{refused}");
    server.use_tls(&of_server.cert.pem(), &of_server.signing_key.serialize_pem()).await;
    let store = PostgresStore::connect(&verified, SCHEMA).await.unwrap();
    let mut wakes = store.wakes();
    store.create_runs(&[NewRun { start: true, ..new_run(1) }], at(0)).await.unwrap();
    wakes.next().await.unwrap();
    assert_eq!(take(&store).await, [new_run(1).id]);
    let looks =
        flumen_testkit::postgres::connect(&format!("postgresql://flumen@127.0.0.1:{}/{database}", server.port)).await;
    let sessions = "select bool_and(ssl), count(*) > 1 from pg_stat_ssl join pg_stat_activity using (pid)
        where application_name = 'flumen in secret'";
    let row = looks.query_one(sessions, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1), "all of them");
    let refused = PostgresStore::connect(&address("verify-full", &other.cert), SCHEMA).await.unwrap_err();
    assert!(refused.message().contains("certificate"), "{refused}");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_and_so_are_wakes() {
    let server = Server::start().unwrap();
    let database = server.database().await;
    let store = open(&database).await;
    let mut wakes = store.wakes();
    let mut missing: HashSet<Wake> = WAKES.into();
    while !missing.is_empty() {
        missing.remove(&wakes.next().await.unwrap());
    }
    let run = new_run(1).id;
    store.create_runs(&[new_run(1)], at(0)).await.unwrap();
    let letter = |number: usize| Signal::Pause { by: number.to_string() };
    for number in 0..50 {
        store.send(run, &letter(number)).await.unwrap();
    }
    server.stop();
    for error in [
        store.run(run).await.unwrap_err(),
        store.send(run, &letter(0)).await.unwrap_err(),
        store.claim(&claim("w", "p", 1)).await.unwrap_err(),
        PostgresStore::open(&database.url, SCHEMA).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(&format!("Postgres at 127.0.0.1:{}", server.port)), "{error}");
    }
    server.restart();
    let (_, letters) = store.inbox(run).await.unwrap();
    let said: Vec<Signal> = letters.into_iter().map(|letter| letter.signal).collect();
    assert_eq!(said, (0..50).map(letter).collect::<Vec<_>>());
    // Something may have been missed: everybody looks at everything.
    let mut missing: HashSet<Wake> = WAKES.into();
    while !missing.is_empty() {
        missing.remove(&wakes.next().await.unwrap());
    }
    // And others are heard again.
    let other = open(&database).await;
    other.send(run, &letter(50)).await.unwrap();
    while wakes.next().await.unwrap() != Wake::Inbox {}
    drop((store, other));
    // The stream ends with the store, after what it had to tell.
    while wakes.next().await.is_some() {}
}

#[tokio::test]
async fn a_letter_that_comes_in_the_middle_of_a_step_is_not_forgotten() {
    let database = server().database().await;
    let store = open(&database).await;
    let run = new_run(1).id;
    store.create_runs(&[NewRun { start: true, ..new_run(1) }], at(0)).await.unwrap();
    assert_eq!(take(&store).await, [run]);
    let commit = commit_of(&store, run).await;
    // Somebody has written a letter, and does not come to an end.
    let slow = "set search_path = flumen; begin; select post(array[seq], array['{\"signal\":\"start\"}']) from runs";
    database.run(slow).await;
    let step = {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&commit).await })
    };
    let looks = flumen_testkit::postgres::connect(&database.url).await;
    let waits = "select from pg_locks where not granted";
    while !step.is_finished() && looks.query(waits, &[]).await.unwrap().is_empty() {}
    database.run("commit").await;
    step.await.unwrap().unwrap();
    assert_eq!(take(&store).await, [run], "the step lets go of the run, which has a letter");
    assert_eq!(store.inbox(run).await.unwrap().1.len(), 1);
}

/// The runs that are to be stepped.
async fn take(store: &PostgresStore) -> Vec<RunId> {
    store.take_runs(at(0), at(60), 10).await.unwrap().into_iter().map(|taken| taken.run).collect()
}

/// Steps runs whenever there are letters, and puts rows of the queue in again. It never ends.
async fn schedule(store: &PostgresStore, heard: impl Fn(Vec<u64>)) {
    let mut wakes = store.wakes();
    let mut turn = 0;
    loop {
        let taken = take(store).await;
        if taken.is_empty() {
            wakes.next().await.unwrap();
            continue;
        }
        for run in taken {
            loop {
                let mut commit = commit_of(store, run).await;
                turn += 7;
                let key = format!("t{}", turn % 500);
                let again = Queued { priority: turn % 3, ..queued(&key, "narrow") };
                (commit.dequeue, commit.enqueue) = (vec![again.key.clone()], vec![again]);
                commit.timers = vec![(flumen_core::flow::Timer::Late, Some(at(1_000)))];
                let error = match store.commit(&commit).await {
                    Ok(_) => None,
                    Err(_) => {
                        // The row was claimed: without it.
                        (commit.dequeue, commit.enqueue) = (Vec::new(), Vec::new());
                        store.commit(&commit).await.err()
                    }
                };
                match error {
                    None => {
                        heard(commit.read);
                        break;
                    }
                    Some(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_schedulers_of_many_processes_get_everything_once() {
    let database = server().database().await;
    let stores = join_all((0..4).map(|_| open(&database))).await;
    let (run, rows) = (new_run(1).id, 500);
    stores[0].create_runs(&[new_run(1)], at(0)).await.unwrap();
    stores[0].save_pool(&Pool { name: "narrow".to_owned(), slots: Some(7), rate: None }).await.unwrap();
    let mut commit = commit_of(&stores[0], run).await;
    commit.enqueue = (0..rows).map(|row| queued(&format!("t{row}"), "narrow")).collect();
    stores[0].commit(&commit).await.unwrap();

    let done = Arc::new(AtomicUsize::new(0));
    let (keys, numbers) = (Mutex::new(HashSet::new()), Mutex::new(Vec::new()));
    let work = |store: PostgresStore, name: String| {
        let (done, keys, numbers) = (Arc::clone(&done), &keys, &numbers);
        async move {
            let mut wakes = store.wakes();
            while done.load(Ordering::SeqCst) < rows {
                let work = store.claim(&claim(&name, "narrow", 3)).await.unwrap().work;
                if work.is_empty() {
                    wakes.next().await.unwrap();
                    continue;
                }
                let held = store.leases(run).await.unwrap().len();
                assert!(held <= 7, "{held} leases at once");
                for work in work {
                    assert!(keys.lock().unwrap().insert(work.lease.key.clone()), "{} twice", work.lease.key);
                    numbers.lock().unwrap().push(work.lease.number);
                    done.fetch_add(1, Ordering::SeqCst);
                    store.finish(&work.held(), &Outcome::Cancelled, at(1)).await.unwrap();
                }
            }
        }
    };
    let (letters, all) = (Mutex::new(HashSet::new()), Notify::new());
    let heard = |read: Vec<u64>| {
        let mut letters = letters.lock().unwrap();
        letters.extend(read);
        if letters.len() == 2 * rows {
            all.notify_one();
        }
    };
    let workers = join_all((0..8).map(|number| work(stores[number % 4].clone(), format!("w{number}"))));
    let schedulers = join_all(stores[..2].iter().map(|store| schedule(store, heard)));
    tokio::select! {
        _ = schedulers => unreachable!("they never end"),
        _ = async { futures::join!(workers, all.notified()) } => {}
    }
    let mut numbers = numbers.into_inner().unwrap();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), rows);
    assert_eq!(database.show("select count(*) from flumen.queue").await, "0");
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(database.show(deadlocks).await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_on_by_ids_misses_nothing() {
    let database = server().database().await;
    let (writers, each) = (8, 25);
    let stores = join_all((0..4).map(|_| open(&database))).await;
    let runs: Vec<NewRun> = (0..writers).map(new_run).collect();
    stores[0].create_runs(&runs, at(0)).await.unwrap();
    let write = |store: PostgresStore, run: RunId| async move {
        for number in 0..each {
            let mut commit = commit_of(&store, run).await;
            let writes = vec![format!("{run} {number}")];
            commit.touched = vec![Touched { task: "t".into(), at: at(0), reads: vec![], writes }];
            commit.record.state = RunState::Running;
            store.commit(&commit).await.unwrap();
        }
    };
    let read = async {
        let mut wakes = stores[0].wakes();
        let (mut seen, mut after) = (HashSet::new(), 0);
        while seen.len() < writers as usize * each {
            let page = stores[0].touched(after, 3).await.unwrap();
            if page.is_empty() {
                while wakes.next().await.unwrap() != Wake::Wait {}
            }
            for (id, _, touched) in page {
                after = id;
                assert!(seen.insert(touched.writes));
            }
        }
    };
    let write = join_all(runs.iter().enumerate().map(|(place, new)| write(stores[place % 4].clone(), new.id)));
    futures::join!(write, read);
}
