//! Schedulers and workers over real stores: runs go from their start to their end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::clock::Clock;
use flumen_core::flow::store::{Claim, MetaStore, NewRun, Wake};
use flumen_core::flow::{
    Answer, Ask, Failure, FlowVersion, Interval, Origin, Outcome, RunId, RunRecord, RunState, Signal, TaskKey,
    TaskState, TriggerRule,
};
use flumen_core::{Error, Result};
use flumen_flow::machine::{Graph, Map, Node, Retry, Run};
use flumen_scheduler::{Flows, Scheduler, Watcher};
use flumen_store::memory::MemoryStore;
use flumen_store::sqlite::SqliteStore;
use futures::StreamExt as _;
use serde_json::{Map as Object, Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The time of Tokio, which tests can let pass.
#[derive(Clone, Copy)]
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::from_std(self.0.elapsed()).unwrap()
    }
}

/// One flow; conditions hold, and lists are those of the output before.
struct OneFlow(Arc<Graph>);

#[async_trait]
impl Flows for OneFlow {
    async fn graph(&self, record: &RunRecord) -> Result<Arc<Graph>> {
        match record.flow == self.0.flow {
            true => Ok(Arc::clone(&self.0)),
            false => Err(Error::not_found(format!("there is no flow '{}'", record.flow))),
        }
    }

    async fn answer(&self, _: &Run, _: &Graph, _: &TaskKey, ask: Ask) -> Option<Answer> {
        Some(match ask {
            Ask::Items => Answer::Items { items: vec![json!(1), json!(2), json!(3)] },
            _ => Answer::When { holds: false },
        })
    }
}

struct Silent;

impl Watcher for Silent {
    fn store_fails(&self, error: &Error) {
        panic!("{error}");
    }
    fn run_fails(&self, _: RunId, _: &Error) {}
    fn refused(&self, _: RunId, _: Option<&TaskKey>, cause: &str) {
        panic!("{cause}");
    }
}

/// A worker whose tasks end as `outcome` says of their names and attempts.
async fn work(store: Arc<dyn MetaStore>, clock: Arc<dyn Clock>, outcome: fn(&str, u32) -> Outcome) {
    let mut wakes = store.wakes();
    loop {
        let now = clock.now();
        let claim = Claim {
            worker: "w1".into(),
            pools: vec!["default".to_owned()],
            only: Vec::new(),
            limit: 16,
            now,
            expires: now + TimeDelta::seconds(30),
        };
        let claimed = store.claim(&claim).await.unwrap();
        let ended = claimed.work.iter().map(|work| async {
            let outcome = outcome(&work.queued.key.to_string(), work.queued.attempt);
            store.finish(&work.held(), &outcome, clock.now()).await.unwrap();
        });
        let count = futures::future::join_all(ended).await.len();
        if count == 0 && wakes.next().await.is_none() {
            return;
        }
    }
}

fn new_run(flow: &str, number: u128) -> NewRun {
    NewRun {
        id: RunId::new(Uuid::from_u128(number)),
        flow: flow.into(),
        version: FlowVersion::of(flow.as_bytes()),
        deployment: None,
        interval: Interval::at(DateTime::UNIX_EPOCH + TimeDelta::hours(number as i64)),
        params: Object::new(),
        origin: Origin::Person { name: "ann".to_owned() },
        unique: None,
        start: true,
    }
}

/// Runs runs of a flow to their end, with `schedulers` schedulers and a worker; gives their states.
async fn play(
    store: Arc<dyn MetaStore>,
    nodes: Vec<Node>,
    runs: &[NewRun],
    schedulers: usize,
    outcome: fn(&str, u32) -> Outcome,
) -> Vec<RunState> {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock(tokio::time::Instant::now()));
    let flows = Arc::new(OneFlow(Arc::new(Graph::new("flow", nodes).unwrap())));
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..schedulers {
        let scheduler =
            Scheduler::new(Arc::clone(&store), Arc::clone(&flows) as _, Arc::clone(&clock), Arc::new(Silent));
        let stop = stop.clone();
        tasks.spawn(async move { scheduler.run(&stop).await });
    }
    tasks.spawn(work(Arc::clone(&store), Arc::clone(&clock), outcome));
    let mut wakes = store.wakes();
    store.create_runs(runs, clock.now()).await.unwrap();
    let states = loop {
        let mut states = Vec::new();
        for run in runs {
            states.push(store.run(run.id).await.unwrap().state);
        }
        if states.iter().all(|state| state.is_terminal()) {
            break states;
        }
        while !matches!(wakes.next().await.unwrap(), Wake::Run) {}
    };
    stop.cancel();
    tasks.abort_all();
    states
}

fn succeed(_: &str, _: u32) -> Outcome {
    Outcome::success(Value::Null)
}

/// A task, twenty that need it, and one that needs those.
fn wide() -> Vec<Node> {
    let mut nodes = vec![Node::new("first", [])];
    nodes.extend((1..=20).map(|number| Node::new(format!("middle{number}"), [0])));
    nodes.push(Node::new("last", (1..=20).collect::<Vec<_>>()));
    nodes
}

async fn many_runs_end(store: Arc<dyn MetaStore>) {
    let runs: Vec<NewRun> = (1..=10).map(|number| new_run("flow", number)).collect();
    let states = play(Arc::clone(&store), wide(), &runs, 2, succeed).await;
    assert_eq!(states, [RunState::Success; 10]);
    for run in &runs {
        let tasks = store.tasks(run.id).await.unwrap();
        assert_eq!(tasks.len(), 22);
        assert!(tasks.iter().all(|task| task.state == TaskState::Success && task.attempt == 1));
        assert_eq!(store.leases(run.id).await.unwrap(), []);
        assert_eq!(store.inbox(run.id).await.unwrap().1, []);
    }
}

#[tokio::test]
async fn two_schedulers_share_the_runs_in_memory() {
    many_runs_end(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn two_schedulers_share_the_runs_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("flumen.db")).await.unwrap();
    many_runs_end(Arc::new(store)).await;
}

#[tokio::test(start_paused = true)]
async fn retries_wait_for_their_timers_and_lists_for_their_answers() {
    let mut flaky = Node::new("flaky", []);
    flaky.retry = Retry { retries: 2, delays: vec![std::time::Duration::from_secs(600)], ..Retry::default() };
    let mut each = Node::new("each", [0]);
    each.map = Some(Map { by_worker: false, at_once: None, limit: None });
    let mut never = Node::new("never", [0]);
    never.when = true;
    let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let run = new_run("flow", 1);
    let begun = tokio::time::Instant::now();
    let outcome = |name: &str, attempt| match (name, attempt) {
        ("flaky", 1 | 2) => Outcome::Failure(Failure::new("exit", "it broke")),
        _ => succeed(name, attempt),
    };
    let nodes = vec![flaky, each, never];
    assert_eq!(play(Arc::clone(&store), nodes, std::slice::from_ref(&run), 1, outcome).await, [RunState::Success]);
    assert_eq!(begun.elapsed().as_secs() / 60, 20, "two delays of ten minutes");
    let tasks = store.tasks(run.id).await.unwrap();
    let said: Vec<String> = tasks.iter().map(|task| format!("{} {} {}", task.key, task.state, task.attempt)).collect();
    assert_eq!(
        said,
        [
            "each success 0",
            "each[0] success 1",
            "each[1] success 1",
            "each[2] success 1",
            "flaky success 3",
            "never skipped 0"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_stepped_stops_no_other() {
    let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let strange = new_run("gone", 1);
    store.create_runs(std::slice::from_ref(&strange), DateTime::UNIX_EPOCH).await.unwrap();
    let run = new_run("flow", 2);
    let states = play(Arc::clone(&store), vec![Node::new("only", [])], &[run], 1, succeed).await;
    assert_eq!(states, [RunState::Success]);
    assert_eq!(store.run(strange.id).await.unwrap().state, RunState::Queued);
}

/// Takes a task of a pool, as a worker that is never heard of again.
async fn take_and_be_lost(store: Arc<dyn MetaStore>, clock: TokioClock, pool: &str, lease: TimeDelta) {
    let mut wakes = store.wakes();
    loop {
        let now = clock.now();
        let claim = Claim {
            worker: "lost".into(),
            pools: vec![pool.to_owned()],
            only: Vec::new(),
            limit: 1,
            now,
            expires: now + lease,
        };
        if !store.claim(&claim).await.unwrap().work.is_empty() {
            return;
        }
        wakes.next().await;
    }
}

/// A task of a pool of its own that is not tried again.
fn lonely(pool: &str) -> Node {
    let mut node = Node::new(pool, []);
    node.pool = pool.to_owned();
    node.retry = Retry { infra: Some(0), ..Retry::default() };
    node
}

#[tokio::test(start_paused = true)]
async fn a_lease_may_be_shorter_than_those_before() {
    let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let clock = TokioClock(tokio::time::Instant::now());
    let run = new_run("flow", 1);
    let lost = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            take_and_be_lost(Arc::clone(&store), clock, "long", TimeDelta::hours(1)).await;
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            take_and_be_lost(store, clock, "short", TimeDelta::seconds(5)).await;
        }
    });
    let mut after = lonely("after");
    after.needs = vec![1];
    after.pool = "default".to_owned();
    after.rule = TriggerRule::AllDone;
    let began = clock.now();
    let ends = |name: &str, attempt| {
        assert_eq!(name, "after");
        succeed(name, attempt)
    };
    let nodes = vec![lonely("long"), lonely("short"), after];
    assert_eq!(play(Arc::clone(&store), nodes, std::slice::from_ref(&run), 1, ends).await, [RunState::Failed]);
    lost.await.unwrap();
    let tasks = store.tasks(run.id).await.unwrap();
    let ended =
        |name: &str| (tasks.iter().find(|task| task.key.to_string() == name).unwrap().since - began).num_seconds();
    assert_eq!(["short", "after", "long"].map(ended), [15, 15, 3600], "{tasks:?}");
}

#[tokio::test(start_paused = true)]
async fn leases_that_end_are_seen_without_a_wake() {
    let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let clock = TokioClock(tokio::time::Instant::now());
    let run = new_run("flow", 1);
    let lost = tokio::spawn(take_and_be_lost(Arc::clone(&store), clock, "lonely", TimeDelta::seconds(30)));
    let nodes = vec![lonely("lonely")];
    assert_eq!(play(Arc::clone(&store), nodes, std::slice::from_ref(&run), 1, succeed).await, [RunState::Failed]);
    lost.await.unwrap();
    let task = store.tasks(run.id).await.unwrap().remove(0);
    assert!(task.cause.contains("expired"), "{}", task.cause);
    let told = store.send(run.id, &Signal::Pause { by: "ann".to_owned() }).await;
    assert!(told.is_ok());
}
