//! A worker whose runs take as long as the seed says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use flumen_core::clock::Clock as _;
use flumen_core::flow::store::{Claim, Held, MetaStore, Renewal, Work};
use flumen_core::flow::{Failure, Outcome, RunId};
use flumen_core::testkit::seeds::Random;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::time::Instant;

use crate::world::TokioClock;

/// How long it sleeps, unless it is woken: then it sees that it should hurry.
const IDLE: Duration = Duration::from_secs(60);

/// The worker of a story.
pub struct Worker {
    pub seed: u64,
    pub store: Arc<dyn MetaStore>,
    pub clock: Arc<TokioClock>,
    /// Everything takes no time any more.
    pub hurries: Arc<AtomicBool>,
}

impl Worker {
    pub async fn work(self) {
        let mut wakes = self.store.wakes();
        let mut hand: BTreeMap<RunId, (Instant, Held, Outcome)> = BTreeMap::new();
        loop {
            let now = self.clock.now();
            let expires = now + TimeDelta::days(10_000);
            let claim = Claim { worker: "w1".into(), pools: Vec::new(), only: Vec::new(), limit: 64, now, expires };
            let claimed = self.store.claim(&claim).await.unwrap().work;
            for work in &claimed {
                let (takes, outcome) = self.fate(work);
                hand.insert(work.lease.run, (Instant::now() + takes, work.held(), outcome));
            }
            let held: Vec<Held> = hand.values().map(|(_, held, _)| held.clone()).collect();
            let renewals = self.store.renew(&"w1".into(), &held, expires).await.unwrap();
            let stopped = held.iter().zip(renewals).filter(|(_, renewal)| matches!(renewal, Renewal::Stop { .. }));
            let mut done: Vec<(Held, Outcome)> = stopped.map(|(held, _)| (held.clone(), Outcome::Cancelled)).collect();
            let hurries = self.hurries.load(Ordering::SeqCst);
            let over = hand.values().filter(|(at, ..)| hurries || *at <= Instant::now());
            done.extend(over.map(|(_, held, outcome)| (held.clone(), outcome.clone())));
            for (held, outcome) in done {
                if hand.remove(&held.run).is_some() {
                    self.store.finish(&held, &outcome, self.clock.now()).await.unwrap();
                }
            }
            if claimed.is_empty() {
                let next = hand.values().map(|(at, ..)| *at).min();
                let next = next.map_or_else(|| Instant::now() + IDLE, |next| next.min(Instant::now() + IDLE));
                let woken = tokio::time::timeout_at(next, wakes.next()).await;
                if woken == Ok(None) {
                    return;
                }
            }
        }
    }

    /// How long a run takes, and what comes of it: the same, whenever it begins.
    fn fate(&self, work: &Work) -> (Duration, Outcome) {
        let start = work.run.interval.start.timestamp() as u64;
        let mut random = Random::new(self.seed ^ start.wrapping_mul(31));
        let seconds = match random.below(5) {
            0 => 0,
            1 => random.between(1, 60),
            2 => random.between(60, 1_800),
            _ => random.between(600, 7_200),
        };
        let outcome = match random.percent(25) {
            true => Outcome::Failure(Failure::new("exit", "it broke")),
            false => Outcome::success(Value::Null),
        };
        (Duration::from_millis(seconds as u64 * 1_000 + 137), outcome)
    }
}
