//! Steps of a run, gathered into one transaction of the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Commit, Letter};
use flumen_core::flow::{Ask, Event, Notice, Queued, Signal, TaskKey, Timer, Touched, Wait};

use super::graph::Graph;
use super::run::Run;
use super::step::{Action, step};

/// Steps that are committed together.
///
/// Tell it letters and signals, answer its questions until there are none, and [`finish`](Self::finish). Where the commit does
/// not succeed, what was stepped is worth nothing: load the run again.
pub struct Batch<'a> {
    run: &'a mut Run,
    graph: &'a Graph,
    now: DateTime<Utc>,
    read: Vec<u64>,
    saves: BTreeSet<TaskKey>,
    events: Vec<Event>,
    dequeue: Vec<TaskKey>,
    enqueue: Vec<Option<Queued>>,
    queued: BTreeMap<TaskKey, usize>,
    timers: BTreeMap<Timer, Option<DateTime<Utc>>>,
    stops: Vec<(TaskKey, u64, String)>,
    waits: BTreeMap<TaskKey, Option<(u64, Wait)>>,
    notices: Vec<Notice>,
    touched: Vec<Touched>,
    to_next: Vec<Signal>,
    asks: VecDeque<(TaskKey, Ask)>,
    refusals: Vec<(Option<TaskKey>, String)>,
}

impl<'a> Batch<'a> {
    /// Nothing yet. Questions that were open before are asked again.
    pub fn new(run: &'a mut Run, graph: &'a Graph, now: DateTime<Utc>) -> Self {
        let asks = run.questions().map(|(key, ask)| (key.clone(), ask)).collect();
        Self {
            run,
            graph,
            now,
            read: Vec::new(),
            saves: BTreeSet::new(),
            events: Vec::new(),
            dequeue: Vec::new(),
            enqueue: Vec::new(),
            queued: BTreeMap::new(),
            timers: BTreeMap::new(),
            stops: Vec::new(),
            waits: BTreeMap::new(),
            notices: Vec::new(),
            touched: Vec::new(),
            to_next: Vec::new(),
            asks,
            refusals: Vec::new(),
        }
    }

    /// Steps the run with its letters. Claims come first: they are true whatever the others ask for, and what they ask for may
    /// depend on them.
    pub fn read(&mut self, letters: Vec<Letter>) {
        let (claims, others): (Vec<Letter>, Vec<Letter>) =
            letters.into_iter().partition(|letter| matches!(letter.signal, Signal::Claimed { .. }));
        for letter in claims.into_iter().chain(others) {
            self.read.push(letter.id);
            self.tell(letter.signal);
        }
    }

    /// Steps the run with one signal.
    pub fn tell(&mut self, signal: Signal) {
        for action in step(self.run, self.graph, self.now, signal) {
            self.add(action);
        }
    }

    /// The next question to answer, with [`Signal::Answered`]. One that cannot be answered yet is left, and asked again next
    /// time.
    pub fn next_question(&mut self) -> Option<(TaskKey, Ask)> {
        loop {
            let (key, ask) = self.asks.pop_front()?;
            if self.run.task(self.graph, &key).is_some_and(|task| task.asked == Some(ask)) {
                return Some((key, ask));
            }
        }
    }

    /// The run as it is now.
    pub fn run(&self) -> &Run {
        self.run
    }

    /// What was refused, and why.
    pub fn refusals(&self) -> &[(Option<TaskKey>, String)] {
        &self.refusals
    }

    /// The transaction, for the run that had `version` when it was loaded.
    pub fn finish(self, version: u64) -> Commit {
        let tasks = self.saves.iter().filter_map(|key| self.run.task(self.graph, key).cloned());
        Commit {
            read: self.read,
            tasks: tasks.collect(),
            events: self.events,
            dequeue: self.dequeue,
            enqueue: self.enqueue.into_iter().flatten().collect(),
            timers: self.timers.into_iter().collect(),
            stops: self.stops,
            waits: self.waits.into_iter().collect(),
            notices: self.notices,
            touched: self.touched,
            to_next: self.to_next,
            ..Commit::new(self.run.record().clone(), version, self.now)
        }
    }

    fn add(&mut self, action: Action) {
        match action {
            Action::Save(key) => drop(self.saves.insert(key)),
            Action::Log(event) => self.events.push(event),
            Action::Enqueue(queued) => {
                self.queued.insert(queued.key.clone(), self.enqueue.len());
                self.enqueue.push(Some(queued));
            }
            Action::Dequeue(key) => match self.queued.remove(&key) {
                // It never came into the queue.
                Some(place) => self.enqueue[place] = None,
                None => self.dequeue.push(key),
            },
            Action::SetTimer(timer, at) => drop(self.timers.insert(timer, Some(at))),
            Action::StopTimer(timer) => drop(self.timers.insert(timer, None)),
            Action::Stop { key, number, cause } => self.stops.push((key, number, cause)),
            Action::Wait { key, number, wait } => drop(self.waits.insert(key, Some((number, wait)))),
            Action::Unwait(key) => drop(self.waits.insert(key, None)),
            Action::Ask { key, ask } => self.asks.push_back((key, ask)),
            Action::Notify(notice) => self.notices.push(notice),
            Action::Touch(touched) => self.touched.push(touched),
            Action::TellNext(signal) => self.to_next.push(signal),
            Action::Refuse { key, cause } => self.refusals.push((key, cause)),
        }
    }
}
