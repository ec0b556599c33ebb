//! Runs in memory, and everything around them: plain data behind one lock, changed by one call at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::{
    Backfill, Claim, Claimed, Commit, Created, Held, Letter, Loaded, NewRun, Rung, Taken, Wake, Work, WorkerRecord,
    no_run, not_held, run_changed,
};
use flumen_core::flow::{
    Event, FlowName, FlowVersion, Lease, Notice, Outcome, RunId, RunRecord, Signal, TaskKey, TaskRun, Timer, Touched,
    Wait, WorkerId,
};
use flumen_core::{Error, Result};

use super::queue::{Queue, TakenRow};
use crate::wakes::Wakes;

/// Runs of one flow and deployment, by the start of their intervals and then by age.
type Line = (FlowName, Option<String>);

#[derive(Debug, Default)]
pub(super) struct Runs {
    pub(super) runs: HashMap<RunId, Kept>,
    /// By age.
    pub(super) order: BTreeMap<u64, RunId>,
    unique: HashMap<(Line, String), RunId>,
    lines: HashMap<Line, BTreeMap<(DateTime<Utc>, u64), RunId>>,
    /// All letters, by age.
    letters: BTreeMap<u64, RunId>,
    pub(super) queue: Queue,
    leases: HashMap<(RunId, TaskKey), Leased>,
    expiries: BTreeSet<(DateTime<Utc>, RunId, TaskKey)>,
    timers: HashMap<(RunId, Timer), DateTime<Utc>>,
    ringing: BTreeSet<(DateTime<Utc>, RunId, Timer)>,
    pub(super) waits: BTreeMap<u64, (RunId, TaskKey, u64, Wait)>,
    wait_ids: HashMap<(RunId, TaskKey), u64>,
    pub(super) notices: BTreeMap<u64, (Notice, Option<DateTime<Utc>>)>,
    pub(super) touched: BTreeMap<u64, (RunId, Touched)>,
    pub(super) cursors: HashMap<String, String>,
    pub(super) backfills: BTreeMap<String, Backfill>,
    pub(super) versions: HashMap<FlowVersion, (Bytes, DateTime<Utc>)>,
    pub(super) paused: BTreeSet<FlowName>,
    pub(super) workers: BTreeMap<WorkerId, WorkerRecord>,
    pub(super) variables: BTreeMap<String, String>,
    /// Runs whose tasks are given to one worker only.
    pub(super) kept_for: HashMap<RunId, WorkerId>,
    pub(super) wakes: Wakes,
    /// The last id of anything.
    last: u64,
    /// The number of the last lease.
    number: u64,
}

/// A run.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) record: RunRecord,
    pub(super) version: u64,
    age: u64,
    /// Whether it was told to begin.
    begun: bool,
    unique: Option<String>,
    pub(super) tasks: BTreeMap<TaskKey, TaskRun>,
    pub(super) events: BTreeMap<u64, Event>,
    inbox: BTreeMap<u64, Signal>,
    taken: Option<DateTime<Utc>>,
}

impl Kept {
    fn letters(&self) -> Vec<Letter> {
        self.inbox.iter().map(|(id, signal)| Letter { id: *id, signal: signal.clone() }).collect()
    }
}

#[derive(Debug)]
struct Leased {
    lease: Lease,
    pool: String,
    slots: u32,
    stop: Option<String>,
}

impl Runs {
    fn id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn kept(&self, run: RunId) -> Result<&Kept> {
        self.runs.get(&run).ok_or_else(|| no_run(run))
    }

    fn kept_mut(&mut self, run: RunId) -> Result<&mut Kept> {
        self.runs.get_mut(&run).ok_or_else(|| no_run(run))
    }

    pub(super) fn create(&mut self, new: &NewRun, now: DateTime<Utc>) -> Created {
        let line = (new.flow.clone(), new.deployment.clone());
        let unique = new.unique.as_ref().map(|text| (line.clone(), text.clone()));
        let there = unique.as_ref().and_then(|unique| self.unique.get(unique)).copied();
        if let Some(id) = there.or_else(|| self.runs.contains_key(&new.id).then_some(new.id)) {
            return Created { id, new: false };
        }
        let age = self.id();
        let record = crate::first_record(new, now);
        let kept = Kept {
            record,
            version: 0,
            age,
            begun: new.start,
            unique: new.unique.clone(),
            tasks: BTreeMap::new(),
            events: BTreeMap::new(),
            inbox: BTreeMap::new(),
            taken: None,
        };
        self.runs.insert(new.id, kept);
        self.order.insert(age, new.id);
        self.unique.extend(unique.map(|unique| (unique, new.id)));
        self.lines.entry(line).or_default().insert((new.interval.start, age), new.id);
        if new.start {
            self.post(new.id, Signal::Start);
        }
        self.wakes.wake(Wake::Run);
        Created { id: new.id, new: true }
    }

    /// Begins runs of a flow that wait for their turn.
    pub(super) fn start(&mut self, flow: &FlowName, limit: u32) -> Vec<RunId> {
        let of_flow = self.order.values().filter(|run| {
            self.runs.get(run).is_some_and(|kept| kept.record.flow == *flow && !kept.record.state.is_terminal())
        });
        let (begun, waiting): (Vec<RunId>, Vec<RunId>) =
            of_flow.partition(|run| self.runs.get(run).is_some_and(|kept| kept.begun));
        let started: Vec<RunId> = waiting.into_iter().take((limit as usize).saturating_sub(begun.len())).collect();
        for run in &started {
            if let Some(kept) = self.runs.get_mut(run) {
                kept.begun = true;
            }
            self.post(*run, Signal::Start);
        }
        started
    }

    /// Puts a letter into an inbox; a run that is not there gets none.
    pub(super) fn post(&mut self, run: RunId, signal: Signal) {
        let id = self.id();
        if let Some(kept) = self.runs.get_mut(&run) {
            kept.inbox.insert(id, signal);
            self.letters.insert(id, run);
            self.wakes.wake(Wake::Inbox);
        }
    }

    pub(super) fn take_runs(&mut self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Vec<Taken> {
        let mut taken = Vec::new();
        for run in self.letters.values() {
            if taken.len() == limit {
                break;
            }
            if let Some(kept) = self.runs.get_mut(run)
                && kept.taken.is_none_or(|held| held <= now)
            {
                kept.taken = Some(until);
                taken.push(Taken { run: *run, inbox: Some((kept.version, kept.letters())) });
            }
        }
        taken
    }

    pub(super) fn inbox(&self, run: RunId) -> Result<(u64, Vec<Letter>)> {
        let kept = self.kept(run)?;
        Ok((kept.version, kept.letters()))
    }

    pub(super) fn load(&self, run: RunId) -> Result<Loaded> {
        let kept = self.kept(run)?;
        let (version, inbox) = self.inbox(run)?;
        let tasks = kept.tasks.values().cloned().collect();
        Ok(Loaded { version, record: kept.record.clone(), tasks, inbox })
    }

    pub(super) fn note(&mut self, event: &Event) -> Result<()> {
        let id = self.id();
        self.kept_mut(event.run)?.events.insert(id, event.clone());
        self.wakes.wake(Wake::Run);
        Ok(())
    }

    pub(super) fn commit(&mut self, commit: &Commit) -> Result<u64> {
        let run = commit.run;
        if self.kept(run)?.version != commit.version || commit.dequeue.iter().any(|key| !self.queue.holds(run, key)) {
            return Err(run_changed(run));
        }
        for queued in &commit.enqueue {
            let key = &queued.key;
            let is_queued = self.queue.holds(run, key) && !commit.dequeue.contains(key);
            if is_queued || self.leases.contains_key(&(run, key.clone())) {
                return Err(Error::internal(format!("run {run}: task '{key}' was to be queued a second time")));
            }
        }
        let events: Vec<(u64, Event)> = commit.events.iter().map(|event| (self.id(), event.clone())).collect();
        let kept = self.kept_mut(run)?;
        kept.version += 1;
        kept.taken = None;
        kept.record.clone_from(&commit.record);
        kept.tasks.extend(commit.tasks.iter().map(|task| (task.key.clone(), task.clone())));
        kept.events.extend(events);
        for letter in &commit.read {
            kept.inbox.remove(letter);
        }
        let (version, is_left) = (kept.version, !kept.inbox.is_empty());
        for letter in &commit.read {
            self.letters.remove(letter);
        }
        self.commit_around(commit);
        if is_left {
            self.wakes.wake(Wake::Inbox);
        }
        self.wakes.wake(Wake::Run);
        Ok(version)
    }

    /// The part of a commit that lies outside the run.
    fn commit_around(&mut self, commit: &Commit) {
        let run = commit.run;
        for key in &commit.dequeue {
            self.queue.remove(run, key);
        }
        for queued in &commit.enqueue {
            self.queue.put(run, queued.clone());
            self.wakes.wake(Wake::Queue);
        }
        for (timer, at) in &commit.timers {
            self.set_timer(run, timer, *at);
        }
        for (key, number, cause) in &commit.stops {
            if let Some(leased) = self.leases.get_mut(&(run, key.clone()))
                && leased.lease.number == *number
            {
                leased.stop = Some(cause.clone());
                self.wakes.wake(Wake::Stop);
            }
        }
        for (key, wait) in &commit.waits {
            if let Some(id) = self.wait_ids.remove(&(run, key.clone())) {
                self.waits.remove(&id);
            }
            if let Some((number, wait)) = wait {
                let id = self.id();
                self.waits.insert(id, (run, key.clone(), *number, wait.clone()));
                self.wait_ids.insert((run, key.clone()), id);
                self.wakes.wake(Wake::Wait);
            }
        }
        for notice in &commit.notices {
            let id = self.id();
            self.notices.insert(id, (notice.clone(), None));
            self.wakes.wake(Wake::Notice);
        }
        for touched in &commit.touched {
            let id = self.id();
            self.touched.insert(id, (run, touched.clone()));
            self.wakes.wake(Wake::Wait);
        }
        if let Some(next) = self.next(run) {
            for signal in &commit.to_next {
                self.post(next, signal.clone());
            }
        }
    }

    fn set_timer(&mut self, run: RunId, timer: &Timer, at: Option<DateTime<Utc>>) {
        if let Some(before) = self.timers.remove(&(run, timer.clone())) {
            self.ringing.remove(&(before, run, timer.clone()));
        }
        if let Some(at) = at {
            self.timers.insert((run, timer.clone()), at);
            self.ringing.insert((at, run, timer.clone()));
            if self.ringing.first().is_some_and(|(first, ..)| *first == at) {
                self.wakes.wake(Wake::Timer);
            }
        }
    }

    /// The first run after this one.
    fn next(&self, run: RunId) -> Option<RunId> {
        let kept = self.runs.get(&run)?;
        let line = self.lines.get(&(kept.record.flow.clone(), kept.record.deployment.clone()))?;
        let start = kept.record.interval.start;
        line.range((start, u64::MAX)..).next().map(|(_, next)| *next)
    }

    /// The runs before this one, the last first.
    pub(super) fn runs_before(&self, run: RunId) -> Result<impl Iterator<Item = &RunRecord>> {
        let record = &self.kept(run)?.record;
        let line = self.lines.get(&(record.flow.clone(), record.deployment.clone()));
        let start = (record.interval.start, 0);
        let before = line.into_iter().flat_map(move |line| line.range(..start).rev());
        Ok(before.filter_map(|(_, run)| Some(&self.runs.get(run)?.record)))
    }

    pub(super) fn claim(&mut self, claim: &Claim) -> Claimed {
        let (taken, again) = self.queue.take(claim, &self.kept_for);
        let mut work = Vec::new();
        for TakenRow { run, queued, slots } in taken {
            let Some(record) = self.runs.get(&run).map(|kept| kept.record.clone()) else { continue };
            // Time is the floor, so that a store that was lost and made anew still gives greater numbers.
            let floor = u64::try_from(claim.now.timestamp_micros()).unwrap_or_default();
            self.number = floor.max(self.number + 1);
            let (number, worker, key) = (self.number, claim.worker.clone(), queued.key.clone());
            let lease = Lease { run, key: key.clone(), number, worker: worker.clone(), expires: claim.expires };
            self.expiries.insert((claim.expires, run, key.clone()));
            let leased = Leased { lease: lease.clone(), pool: queued.pool.clone(), slots, stop: None };
            self.leases.insert((run, key.clone()), leased);
            self.post(run, Signal::Claimed { key, number, worker, at: claim.now });
            work.push(Work { lease, queued, run: record });
        }
        Claimed { work, again }
    }

    /// Moves the end of a lease; `None` where it is not held. Otherwise the cause to stop, if there is one.
    pub(super) fn renew(&mut self, worker: &WorkerId, held: &Held, expires: DateTime<Utc>) -> Option<Option<String>> {
        let place = (held.run, held.key.clone());
        let leased = self.leases.get_mut(&place)?;
        if leased.lease.number != held.number || leased.lease.worker != *worker {
            return None;
        }
        self.expiries.remove(&(leased.lease.expires, held.run, held.key.clone()));
        leased.lease.expires = expires;
        self.expiries.insert((expires, held.run, held.key.clone()));
        Some(leased.stop.clone())
    }

    pub(super) fn finish(&mut self, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
        let Held { run, key, number } = held.clone();
        let place = (run, key.clone());
        match self.leases.get(&place) {
            Some(leased) if leased.lease.number == number => {}
            _ => return Err(not_held(held)),
        }
        if let Some(leased) = self.leases.remove(&place) {
            self.expiries.remove(&(leased.lease.expires, run, key.clone()));
            self.queue.give_back(&leased.pool, leased.slots);
            self.wakes.wake(Wake::Queue);
        }
        self.post(run, Signal::Ended { key, number, outcome: outcome.clone(), at: now });
        Ok(())
    }

    pub(super) fn lose_worker(&mut self, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize> {
        let lost = self.leases.values().filter(|leased| leased.lease.worker == *worker).map(|leased| &leased.lease);
        let mut lost: Vec<Held> =
            lost.map(|lease| Held { run: lease.run, key: lease.key.clone(), number: lease.number }).collect();
        lost.sort();
        for held in &lost {
            self.finish(held, &Outcome::Lost { worker: worker.clone(), cause: cause.to_owned() }, now)?;
        }
        let count = self.kept_for.len();
        self.kept_for.retain(|_, owner| owner != worker);
        if self.kept_for.len() < count {
            self.wakes.wake(Wake::Queue);
        }
        Ok(lost.len())
    }

    pub(super) fn expire(&mut self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        let due = self.expiries.iter().take_while(|(at, ..)| *at <= now).take(limit).cloned();
        let due: Vec<(DateTime<Utc>, RunId, TaskKey)> = due.collect();
        for (at, run, key) in &due {
            let Some(lease) = self.leases.get(&(*run, key.clone())).map(|leased| leased.lease.clone()) else {
                continue;
            };
            let late = (now - *at).num_seconds();
            let cause = format!("the lease of worker {} expired {late} s ago", lease.worker);
            let held = Held { run: *run, key: key.clone(), number: lease.number };
            self.finish(&held, &Outcome::Lost { worker: lease.worker, cause }, now)?;
        }
        Ok(Rung { count: due.len(), next: self.expiries.first().map(|(at, ..)| *at) })
    }

    pub(super) fn ring(&mut self, now: DateTime<Utc>, limit: usize) -> Rung {
        let due: Vec<(DateTime<Utc>, RunId, Timer)> =
            self.ringing.iter().take_while(|(at, ..)| *at <= now).take(limit).cloned().collect();
        for (at, run, timer) in &due {
            self.set_timer(*run, timer, None);
            self.post(*run, Signal::Due { timer: timer.clone(), at: *at });
        }
        Rung { count: due.len(), next: self.ringing.first().map(|(at, ..)| *at) }
    }

    pub(super) fn leases(&self, run: RunId) -> Vec<Lease> {
        let of_run = self.leases.values().filter(|leased| leased.lease.run == run);
        let mut leases: Vec<Lease> = of_run.map(|leased| leased.lease.clone()).collect();
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        leases
    }

    pub(super) fn ended_before(&self, before: DateTime<Utc>) -> Vec<RunId> {
        let ended = self.runs.iter().filter(|(_, kept)| kept.record.state.is_terminal());
        let mut ended: Vec<_> = ended.filter_map(|(run, kept)| Some((kept.record.ended?, kept.age, *run))).collect();
        ended.retain(|(at, ..)| *at < before);
        ended.sort_unstable();
        ended.into_iter().map(|(.., run)| run).collect()
    }

    pub(super) fn prune(&mut self, before: DateTime<Utc>, limit: usize) -> usize {
        let mut old = self.ended_before(before);
        old.truncate(limit);
        for run in &old {
            self.forget(*run);
        }
        let used: BTreeSet<FlowVersion> = self.runs.values().map(|kept| kept.record.version.clone()).collect();
        self.versions.retain(|version, (_, saved)| used.contains(version) || *saved >= before);
        old.len()
    }

    fn forget(&mut self, run: RunId) {
        let Some(kept) = self.runs.remove(&run) else { return };
        self.kept_for.remove(&run);
        let line = (kept.record.flow.clone(), kept.record.deployment.clone());
        self.order.remove(&kept.age);
        if let Some(line) = self.lines.get_mut(&line) {
            line.remove(&(kept.record.interval.start, kept.age));
        }
        if let Some(unique) = kept.unique {
            self.unique.remove(&(line, unique));
        }
        for letter in kept.inbox.keys() {
            self.letters.remove(letter);
        }
        let timers: Vec<Timer> =
            self.timers.keys().filter(|(of, _)| *of == run).map(|(_, timer)| timer.clone()).collect();
        for timer in timers {
            self.set_timer(run, &timer, None);
        }
        self.notices.retain(|_, (notice, _)| notice.run != run);
        self.touched.retain(|_, (of, _)| *of != run);
    }
}
