//! Rates of tasks: kept over flows, runs and workers.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::clock::Clock;
use flumen_core::flow::store::{Claim, Letter, MetaStore as _, Pool, Rate};
use flumen_core::flow::{RunId, Signal};
use flumen_flow::machine::{Batch, Run};
use flumen_worker::worker::{LEASE, Settings, Worker};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, start};

const FIRST: &str = "\
flow: first
tasks:
  a: { rate: { limit: 2, per: 1m, key: api }, shell: \"true\" }
  b: { rate: { limit: 2, per: 1m, key: api }, shell: \"true\" }
  free: { shell: \"true\" }
";
const SECOND: &str = "\
flow: second
tasks:
  c: { rate: { limit: 2, per: 1m, key: api }, shell: \"true\" }
  own: { rate: 1/h, shell: \"true\" }
";

/// Begins a run of a flow: what can go on is put into the queue.
async fn begin(fixture: &Fixture, flow: &str) -> RunId {
    let id = fixture.make_run(flow, start()).await;
    let loaded = fixture.store.load(id).await.unwrap();
    let version = fixture.host.library.version(&loaded.record.version, &*fixture.store).await.unwrap();
    let mut run = Run::restore(&version.graph, loaded.record, loaded.tasks).unwrap();
    let mut batch = Batch::new(&mut run, &version.graph, fixture.clock.now());
    batch.read(loaded.inbox);
    fixture.store.commit(&batch.finish(loaded.version)).await.unwrap();
    id
}

/// What a worker gets, and when it may ask again.
async fn claim(fixture: &Fixture, worker: &str) -> (Vec<String>, Option<DateTime<Utc>>) {
    let now = fixture.clock.now();
    let (pools, only) = (Vec::new(), Vec::new());
    let claim = Claim { worker: worker.into(), pools, only, limit: 10, now, expires: now + TimeDelta::hours(1) };
    let claimed = fixture.store.claim(&claim).await.unwrap();
    let mut keys: Vec<String> = claimed.work.iter().map(|work| work.queued.key.to_string()).collect();
    keys.sort();
    (keys, claimed.again)
}

#[tokio::test]
async fn a_rate_holds_over_flows_and_workers() {
    let fixture = Fixture::new(&[("flows/first.yml", FIRST), ("flows/second.yml", SECOND)], &[]);
    begin(&fixture, "first").await;
    begin(&fixture, "second").await;
    let now = fixture.clock.now();
    let (got, again) = claim(&fixture, "w1").await;
    assert_eq!(got.len(), 4, "two of the rate, one of its own, and the free one: {got:?}");
    assert_eq!(again, Some(now + TimeDelta::seconds(30)));
    assert_eq!(claim(&fixture, "w2").await, (Vec::new(), again), "also for another worker");
    begin(&fixture, "second").await;
    fixture.clock.advance(30);
    let (got, again) = claim(&fixture, "w2").await;
    assert_eq!((got.len(), again), (1, Some(now + TimeDelta::seconds(60))));
}

#[tokio::test]
async fn the_pools_of_rates_are_made_with_their_flows() {
    let fixture = Fixture::new(&[("flows/first.yml", FIRST), ("flows/second.yml", SECOND)], &[]);
    let limits = |name: &str, slots, count, seconds| {
        let rate = Some(Rate { count, per: std::time::Duration::from_secs(seconds) });
        Pool { name: name.to_owned(), slots, rate }
    };
    let pools =
        async || -> Vec<Pool> { fixture.store.pools().await.unwrap().into_iter().map(|known| known.pool).collect() };
    fixture.make_run("first", start()).await;
    fixture.make_run("second", start()).await;
    let own = limits("rate:second/own", None, 1, 3_600);
    assert_eq!(pools().await, [limits("rate:api", None, 2, 60), own.clone()]);
    // What a newer version says holds, and slots that somebody has given stay.
    fixture.store.save_pool(&limits("rate:api", Some(4), 2, 60)).await.unwrap();
    fixture.write("flows/first.yml", &FIRST.replace("limit: 2", "limit: 5"));
    fixture.make_run("first", start()).await;
    assert_eq!(pools().await, [limits("rate:api", Some(4), 5, 60), own]);
}

/// A worker that takes from this pool.
fn worker(fixture: &Fixture, pool: &str) -> Worker {
    let settings = Settings {
        schedules: false,
        commanded: false,
        announced: true,
        id: pool.into(),
        host: "here".to_owned(),
        pools: vec![pool.to_owned()],
        only: Arc::default(),
        slots: 4,
        lease: LEASE,
        drain: LEASE,
    };
    Worker::new(Arc::clone(&fixture.host), settings)
}

#[tokio::test]
async fn a_worker_of_the_default_pool_takes_what_has_a_rate() {
    let fixture = Fixture::new(&[("flows/second.yml", SECOND)], &[]);
    let mut wakes = fixture.store.wakes();
    let run = begin(&fixture, "second").await;
    let stop = CancellationToken::new();
    let ended = async {
        loop {
            let (_, letters) = fixture.store.inbox(run).await.unwrap();
            let ends = letters.iter().filter(|letter| matches!(letter.signal, Signal::Ended { .. }));
            if ends.count() == 2 {
                break stop.cancel();
            }
            wakes.next().await.unwrap();
        }
    };
    let (other, default) = (worker(&fixture, "heavy"), worker(&fixture, "default"));
    tokio::join!(other.run(&stop), default.run(&stop), ended);
    let (_, letters) = fixture.store.inbox(run).await.unwrap();
    for letter in letters {
        if let Signal::Claimed { worker, .. } = letter.signal {
            assert_eq!(worker.as_str(), "default");
        }
    }
}

/// A clock that goes with the time of the test, which nobody waits for.
struct Virtual {
    start: DateTime<Utc>,
    began: tokio::time::Instant,
}

impl Clock for Virtual {
    fn now(&self) -> DateTime<Utc> {
        self.start + TimeDelta::from_std(self.began.elapsed()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_takes_the_next_one_when_the_rate_allows_it() {
    let mut fixture = Fixture::new(
        &[(
            "flows/slow.yml",
            "flow: slow\ndefaults: { rate: { limit: 1, per: 1m, key: k } }\ntasks: { a: { empty: 1 }, b: { empty: 1 }, c: { empty: 1 } }\n",
        )],
        &[],
    );
    let began = fixture.clock.now();
    let clock = Virtual { start: began, began: tokio::time::Instant::now() };
    Arc::get_mut(&mut fixture.host).unwrap().clock = Arc::new(clock);
    let run = begin(&fixture, "slow").await;
    let worker = worker(&fixture, "default");
    let stop = CancellationToken::new();
    let mut wakes = fixture.store.wakes();
    let claims = async || -> Vec<i64> {
        let (_, letters) = fixture.store.inbox(run).await.unwrap();
        let claim = |letter: &Letter| match &letter.signal {
            Signal::Claimed { at, .. } => Some((*at - began).num_seconds()),
            _ => None,
        };
        letters.iter().filter_map(claim).collect()
    };
    let ended = async {
        while claims().await.len() < 3 {
            wakes.next().await.unwrap();
        }
        stop.cancel();
    };
    // Its heartbeats come in between.
    tokio::join!(worker.run(&stop), ended);
    assert_eq!(claims().await, [0, 60, 120]);
}
