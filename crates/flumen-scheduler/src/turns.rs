//! Whose turn it is: runs that were made without being begun are begun as soon as their flow has room for them.
//!
//! The store counts and begins in one transaction, so that `max_active_runs` holds whoever asks. Runs of a flow that is not in
//! the roster wait until it is. While a run waits, its deadline passes: that timer is set here, since the machine only sees runs
//! that have begun.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use flumen_core::clock::Clock;
use flumen_core::flow::store::{Commit, MetaStore, RunFilter, Wake};
use flumen_core::flow::{FlowName, RunId, RunRecord, RunState, Signal, Timer};
use flumen_core::{ErrorKind, Result};

use crate::alarm::{Pace, Rung, Service};
use crate::roster::Roster;

/// Runs that are read at once.
const PAGE: usize = 500;
/// The shortest time between two looks for new runs.
const NEW: Duration = Duration::from_millis(10);
/// The shortest time between two looks whether runs that others step have made room.
const ROOM: Duration = Duration::from_secs(1);

/// Begins runs.
pub(crate) struct Turns {
    store: Arc<dyn MetaStore>,
    roster: Arc<dyn Roster>,
    clock: Arc<dyn Clock>,
    /// Flows with runs that wait for their turn.
    waiting: Mutex<BTreeSet<FlowName>>,
}

impl Turns {
    pub(crate) fn new(store: Arc<dyn MetaStore>, roster: Arc<dyn Roster>, clock: Arc<dyn Clock>) -> Self {
        Self { store, roster, clock, waiting: Mutex::default() }
    }

    /// Begins the runs of a flow whose turn it is.
    pub(crate) async fn begin(&self, flow: &FlowName) -> Result<()> {
        let Some(limit) = self.limit(flow) else {
            self.waiting().insert(flow.clone());
            return Ok(());
        };
        let begun = self.store.start_runs(flow, limit).await?;
        let filter = RunFilter {
            flow: Some(flow.clone()),
            states: vec![RunState::Queued],
            limit: Some(begun.len() + 1),
            ..RunFilter::default()
        };
        let queued = self.store.runs(&filter).await?;
        if queued.iter().any(|run| !begun.contains(&run.id)) {
            self.waiting().insert(flow.clone());
        } else {
            self.waiting().remove(flow);
        }
        Ok(())
    }

    /// From when on a run is late, if its flow says so.
    fn late_at(&self, run: &RunRecord) -> Option<DateTime<Utc>> {
        self.roster.find(&run.flow, run.deployment.as_deref())?.flow.graph.late_at(run)
    }

    /// Sets the timer of a run that waits, unless it has one.
    async fn set_late(&self, run: RunId, at: DateTime<Utc>) -> Result<()> {
        let loaded = match self.store.load(run).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            loaded => loaded?,
        };
        let begins = loaded.inbox.iter().any(|letter| letter.signal == Signal::Start);
        if loaded.version > 0 || begins || loaded.record.state != RunState::Queued {
            return Ok(());
        }
        let mut commit = Commit::new(loaded.record, loaded.version, self.clock.now());
        commit.timers.push((Timer::Late, Some(at)));
        match self.store.commit(&commit).await {
            // It has begun, or somebody else set it.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            set => set.map(drop),
        }
    }

    fn limit(&self, flow: &FlowName) -> Option<u32> {
        Some(self.roster.find(flow, None)?.flow.flow.max_active_runs)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<FlowName>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees when it is somebody's turn.
pub(crate) struct TurnService {
    turns: Arc<Turns>,
    /// The newest run that was seen.
    newest: Option<RunId>,
    everything: bool,
    new: Pace,
    room: Pace,
    ended: BTreeSet<FlowName>,
}

impl TurnService {
    pub(crate) fn new(turns: Arc<Turns>) -> Self {
        let (new, room) = (Pace::new(NEW), Pace::new(ROOM));
        Self { turns, newest: None, everything: true, new, room, ended: BTreeSet::new() }
    }

    /// Begins runs of the flows of all runs that were made since the last look.
    async fn look_at_new(&mut self) -> Result<()> {
        let mut after = self.newest;
        let (mut flows, mut late) = (BTreeSet::new(), Vec::new());
        loop {
            let filter = RunFilter {
                states: vec![RunState::Queued],
                oldest_first: true,
                after,
                limit: Some(PAGE),
                ..RunFilter::default()
            };
            let runs = self.turns.store.runs(&filter).await?;
            after = runs.last().map(|run| run.id).or(after);
            let is_last = runs.len() < PAGE;
            for run in runs {
                late.extend(self.turns.late_at(&run).map(|at| (run.id, at)));
                flows.insert(run.flow);
            }
            if is_last {
                break;
            }
        }
        if flows.is_empty() && self.is_forgotten().await? {
            self.everything = true;
        }
        for flow in flows {
            self.turns.begin(&flow).await?;
        }
        for (run, at) in late {
            self.turns.set_late(run, at).await?;
        }
        self.newest = after;
        Ok(())
    }

    /// Whether nothing can be said to be newer than the newest run, since it was forgotten.
    async fn is_forgotten(&self) -> Result<bool> {
        let Some(newest) = self.newest else { return Ok(false) };
        match self.turns.store.run(newest).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            found => found.map(|_| false),
        }
    }

    async fn look(&mut self) -> Result<()> {
        let everything = std::mem::take(&mut self.everything);
        if everything {
            self.newest = None;
        }
        if self.new.take() || everything {
            self.look_at_new().await?;
        }
        for flow in std::mem::take(&mut self.ended) {
            let is_waiting = self.turns.waiting().contains(&flow);
            if is_waiting {
                self.turns.begin(&flow).await?;
            }
        }
        if self.room.take() {
            self.look_for_room().await?;
        }
        Ok(())
    }

    async fn look_for_room(&mut self) -> Result<()> {
        let waiting: Vec<FlowName> = self.turns.waiting().iter().cloned().collect();
        for flow in waiting {
            let Some(limit) = self.turns.limit(&flow) else { continue };
            if self.turns.store.active_runs(&flow).await? < u64::from(limit) {
                self.turns.begin(&flow).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Service for TurnService {
    fn hear(&mut self, rung: Rung) -> bool {
        match rung {
            Rung::Wake(Wake::Run) => return self.new.want() | self.room.want(),
            Rung::Ended(run) => drop(self.ended.insert(run.flow.clone())),
            Rung::Roster | Rung::Sweep => self.everything = true,
            Rung::Wake(_) | Rung::Due | Rung::Knock => return false,
        }
        true
    }

    async fn work(&mut self) -> Result<Option<Duration>> {
        let worked = self.look().await;
        // What was not done is found by a look at everything.
        self.everything |= worked.is_err();
        worked?;
        if self.everything {
            return Ok(Some(Duration::ZERO));
        }
        let has_waiting = !self.turns.waiting().is_empty();
        let room = self.room.left().filter(|_| has_waiting);
        Ok([self.new.left(), room].into_iter().flatten().min())
    }
}
