//! Workers: they do work, fail at it, vanish, and come back too late.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::ErrorKind;
use flumen_core::flow::store::{Claim, MetaStore, Renewal, Work};
use flumen_core::flow::{Failure, Outcome, Wait, WaitFor, WorkerId};
use serde_json::{Value, json};

use crate::flows::POOLS;
use crate::world::{LEASE, World, at_once};

/// How many things a worker does at once.
const ROOM: usize = 3;

pub struct Worker {
    number: usize,
    lives: usize,
    jobs: Vec<Job>,
}

struct Job {
    work: Work,
    ends: DateTime<Utc>,
    outcome: Outcome,
}

impl Worker {
    pub fn new(number: usize) -> Self {
        Self { number, lives: 1, jobs: Vec::new() }
    }

    fn id(&self) -> WorkerId {
        WorkerId::from(format!("w{}.{}", self.number, self.lives))
    }
}

impl World {
    /// A worker does its next thing.
    pub fn work(&mut self, number: usize) -> Result<(), String> {
        match self.random.below(10) {
            0..4 => self.claim(number),
            4..7 => self.finish(number),
            7 if self.faults && self.random.percent(30) => self.crash(number),
            _ => self.renew(number),
        }
    }

    fn claim(&mut self, number: usize) -> Result<(), String> {
        let worker = self.workers[number].id();
        let limit = ROOM - self.workers[number].jobs.len().min(ROOM);
        let pools = POOLS.iter().map(|name| (*name).to_owned()).collect();
        let claim =
            Claim { worker: worker.clone(), pools, only: Vec::new(), limit, now: self.now, expires: self.now + LEASE };
        let claimed = Self::must(at_once(self.store.claim(&claim)))?;
        for work in claimed.work {
            self.say(format!("{worker} claims {} of {}, number {}", work.lease.key, work.lease.run, work.lease.number));
            self.model.check_claim(&work)?;
            // The answer may be lost; then nobody knows of the lease but the store.
            if self.faults && self.random.percent(4) {
                self.say(format!("{worker} never hears of it"));
                continue;
            }
            let ends = self.now + TimeDelta::milliseconds(self.random.between(0, 20_000));
            let outcome = self.outcome(&work);
            self.workers[number].jobs.push(Job { work, ends, outcome });
        }
        Ok(())
    }

    /// How an attempt will end.
    fn outcome(&mut self, work: &Work) -> Outcome {
        let number = self.random.below(100);
        match number {
            0..15 => {
                let kind = *self.random.pick(&["exit", "timeout", "unavailable"]);
                let exit_code = (kind == "exit").then(|| self.random.between(1, 3) as i32);
                let retryable = self.random.percent(80);
                Outcome::Failure(Failure {
                    kind: kind.to_owned(),
                    exit_code,
                    message: "it broke".to_owned(),
                    retryable,
                })
            }
            15..20 => Outcome::Skipped { cause: "there was nothing to do".to_owned() },
            20..26 if self.faults => {
                Outcome::Rescheduled { until: self.now + TimeDelta::seconds(self.random.between(0, 60)) }
            }
            26..34 if self.faults => {
                let on = match self.random.below(3) {
                    0 => WaitFor::Time { at: self.now + TimeDelta::seconds(self.random.between(0, 60)) },
                    1 => WaitFor::Check { every_seconds: 5, what: Value::Null },
                    _ => WaitFor::Person { question: "now?".to_owned() },
                };
                let until = self.random.percent(50).then(|| self.now + TimeDelta::seconds(50));
                Outcome::Deferred { wait: Wait { on, until } }
            }
            34 if self.faults => Outcome::Cancelled,
            _ => Outcome::Success { output: self.output(work), reads: vec![], writes: vec!["lake.raw.x".to_owned()] },
        }
    }

    fn output(&mut self, work: &Work) -> Value {
        let graph = Arc::clone(&self.flows[&work.run.flow]);
        let number = graph.number(work.lease.key.task.as_str()).unwrap();
        if work.queued.lists {
            return if self.random.percent(95) { Value::Array(self.items()) } else { json!({ "not": "a list" }) };
        }
        if !graph.node(number).branch {
            return json!({ "rows": 1 });
        }
        let after = graph.after(number);
        let chosen: Vec<&str> =
            after.iter().filter(|_| self.random.percent(50)).map(|later| graph.node(*later).id.as_str()).collect();
        match (chosen.as_slice(), self.random.below(10)) {
            (_, 0) => json!("no such task"),
            ([], 1..5) => Value::Null,
            ([one], 1..5) => json!(one),
            (_, 5) => json!({ "branch": chosen }),
            _ => json!(chosen),
        }
    }

    fn renew(&mut self, number: usize) -> Result<(), String> {
        if self.faults && self.random.percent(15) {
            self.say(format!("a heartbeat of {} is lost", self.workers[number].id()));
            return Ok(());
        }
        let worker = self.workers[number].id();
        let held: Vec<_> = self.workers[number].jobs.iter().map(|job| job.work.held()).collect();
        let renewals = Self::must(at_once(self.store.renew(&worker, &held, self.now + LEASE)))?;
        let jobs = std::mem::take(&mut self.workers[number].jobs);
        for (mut job, renewal) in jobs.into_iter().zip(renewals) {
            match renewal {
                Renewal::Held => {}
                Renewal::Stop { cause } => {
                    self.say(format!("{worker} stops {}: {cause}", job.work.lease.key));
                    job.ends = self.now;
                    // It may have been done already.
                    if self.random.percent(80) {
                        job.outcome = Outcome::Cancelled;
                    }
                }
                Renewal::Gone => {
                    self.say(format!("{worker} has lost {}", job.work.lease.key));
                    // One that does not listen goes on, and is refused in the end.
                    if self.random.percent(60) {
                        continue;
                    }
                }
            }
            self.workers[number].jobs.push(job);
        }
        Ok(())
    }

    fn finish(&mut self, number: usize) -> Result<(), String> {
        let Some(place) = self.workers[number].jobs.iter().position(|job| job.ends <= self.now) else { return Ok(()) };
        let job = self.workers[number].jobs.remove(place);
        let (worker, held) = (self.workers[number].id(), job.work.held());
        let leases = Self::must(at_once(self.store.leases(held.run)))?;
        let is_held = leases.iter().any(|lease| lease.key == held.key && lease.number == held.number);
        let answer = at_once(self.store.finish(&held, &job.outcome, self.now));
        match (is_held, answer) {
            (true, Ok(())) => {
                self.say(format!("{worker} ends {} of {}: {:?}", held.key, held.run, job.outcome));
                self.model.check_end(&held)?;
            }
            (false, Err(error)) if error.kind() == ErrorKind::Conflict => {
                self.say(format!("{worker} is refused: {error}"));
            }
            (_, answer) => return Err(format!("{worker} ends {held:?}, held: {is_held}, and hears {answer:?}")),
        }
        // The answer may be lost; then it tries again.
        if self.random.percent(10) && at_once(self.store.finish(&held, &job.outcome, self.now)).is_ok() {
            return Err(format!("{held:?} was ended twice"));
        }
        Ok(())
    }

    fn crash(&mut self, number: usize) -> Result<(), String> {
        let worker = self.workers[number].id();
        self.say(format!("{worker} crashes"));
        self.workers[number].jobs.clear();
        self.workers[number].lives += 1;
        // Somebody on the same machine may see it.
        if self.random.percent(40) {
            let lost = Self::must(at_once(self.store.lose_worker(&worker, "its process is gone", self.now)))?;
            self.say(format!("{worker}: its process is gone, with {lost} leases"));
        }
        Ok(())
    }
}
