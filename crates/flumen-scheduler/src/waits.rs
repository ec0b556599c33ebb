//! What deferred tasks wait for: it is watched here, without a worker, and its end is told to the run.
//!
//! Nothing is to be done for a moment and for `until`, which are timers of the run, nor for a person, whose answer is a letter.
//! The end of a run is seen at once where this process stepped it. Looks ([`Looker`]) are taken by one scheduler at a time: it
//! holds a cursor for a while, so that others look only where it is gone. What is told twice changes nothing the second time.

mod looks;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flumen_core::flow::store::{MetaStore, PendingWait, Wake};
use flumen_core::flow::{Failure, Outcome, RunId, RunRecord, RunState, Signal, WaitFor};
use flumen_core::{ErrorKind, Result};
use serde_json::json;

pub use self::looks::Looker;
pub(crate) use self::looks::Looks;
use crate::alarm::{Pace, Rung, Service};
use crate::log;
use crate::services::Shared;

/// Waits that are read at once.
const PAGE: usize = 500;
/// The shortest time between two looks whether runs that others step have ended.
const RUNS: Duration = Duration::from_secs(1);
/// The kind of a failure whose run failed.
const EXIT: &str = "exit";

/// Watches what is waited for.
pub(crate) struct Waits {
    shared: Arc<Shared>,
    /// The last wait that was read.
    last: u64,
    /// Whether all are to be read again.
    everything: bool,
    new: bool,
    runs: Pace,
    ended: Vec<Arc<RunRecord>>,
    /// Those that are watched.
    known: BTreeSet<u64>,
    /// Waits for the ends of runs, by those runs.
    by_run: HashMap<RunId, Vec<PendingWait>>,
    /// Waits for data sets, by their names.
    by_dataset: HashMap<String, Vec<PendingWait>>,
    /// How far the log of updates was read.
    read_to: u64,
}

impl Waits {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            last: 0,
            everything: true,
            new: true,
            runs: Pace::new(RUNS),
            ended: Vec::new(),
            known: BTreeSet::new(),
            by_run: HashMap::new(),
            by_dataset: HashMap::new(),
            read_to: 0,
        }
    }

    fn store(&self) -> &dyn MetaStore {
        self.shared.store.as_ref()
    }

    /// Reads waits that began since the last look; or all, and forgets those that are over.
    async fn read_waits(&mut self) -> Result<()> {
        let everything = std::mem::take(&mut self.everything);
        if everything {
            self.last = 0;
        }
        let mut there = BTreeSet::new();
        loop {
            let page = self.store().waits(self.last, PAGE).await?;
            let is_last = page.len() < PAGE;
            for wait in page {
                let id = wait.id;
                there.insert(id);
                if !self.known.contains(&id) {
                    self.take_up(wait).await?;
                    self.known.insert(id);
                }
                self.last = id;
            }
            if is_last {
                break;
            }
        }
        if everything {
            for waits in self.by_run.values_mut().chain(self.by_dataset.values_mut()) {
                waits.retain(|wait| there.contains(&wait.id));
            }
            self.by_run.retain(|_, waits| !waits.is_empty());
            self.by_dataset.retain(|_, waits| !waits.is_empty());
            self.known = there;
        }
        Ok(())
    }

    /// Watches for one more.
    async fn take_up(&mut self, wait: PendingWait) -> Result<()> {
        match wait.wait.on.clone() {
            WaitFor::Run { run } => {
                let waits = self.by_run.entry(run).or_default();
                waits.retain(|other| other.id != wait.id);
                waits.push(wait);
                self.look_at_run(run).await
            }
            WaitFor::Dataset { dataset, since } => {
                let first = log::before(self.store(), since).await?;
                self.read_to = if self.by_dataset.is_empty() { first } else { self.read_to.min(first) };
                let waits = self.by_dataset.entry(dataset).or_default();
                waits.retain(|other| other.id != wait.id);
                waits.push(wait);
                Ok(())
            }
            WaitFor::Time { .. } | WaitFor::Person { .. } | WaitFor::Check { .. } => Ok(()),
        }
    }

    /// Whether a run that is waited for has ended.
    async fn look_at_run(&mut self, run: RunId) -> Result<()> {
        let found = match self.store().run(run).await {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            found => Some(found?),
        };
        match found {
            Some(record) if !record.state.is_terminal() => Ok(()),
            Some(record) => self.end_of(run, &outcome_of(&record)).await,
            None => {
                let gone = Failure::lasting("not_found", format!("there is no run '{run}' any more"));
                self.end_of(run, &Outcome::Failure(gone)).await
            }
        }
    }

    async fn end_of(&mut self, run: RunId, outcome: &Outcome) -> Result<()> {
        for wait in self.by_run.get(&run).into_iter().flatten() {
            end(&self.shared, wait, outcome.clone()).await?;
        }
        self.by_run.remove(&run);
        Ok(())
    }

    /// Ends waits for data sets that were updated.
    async fn read_log(&mut self) -> Result<()> {
        while !self.by_dataset.is_empty() {
            let page = log::page(self.store(), self.read_to).await?;
            for (_, run, touched) in &page {
                for dataset in touched.writes.iter().collect::<BTreeSet<_>>() {
                    let Some(waits) = self.by_dataset.remove(dataset) else { continue };
                    let (over, still): (Vec<_>, Vec<_>) = waits.into_iter().partition(|wait| match &wait.wait.on {
                        WaitFor::Dataset { since, .. } => touched.at >= *since,
                        _ => true,
                    });
                    if !still.is_empty() {
                        self.by_dataset.insert(dataset.clone(), still);
                    }
                    for wait in over {
                        let output = json!({ "dataset": dataset, "run": run, "at": touched.at });
                        end(&self.shared, &wait, Outcome::success(output)).await?;
                    }
                }
            }
            let Some((last, ..)) = page.last() else { return Ok(()) };
            self.read_to = *last;
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<()> {
        if std::mem::take(&mut self.new) || self.everything {
            self.read_waits().await?;
            self.read_log().await?;
        }
        for run in std::mem::take(&mut self.ended) {
            if self.by_run.contains_key(&run.id) {
                self.end_of(run.id, &outcome_of(&run)).await?;
            }
        }
        if self.runs.take() {
            let runs: Vec<RunId> = self.by_run.keys().copied().collect();
            for run in runs {
                self.look_at_run(run).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Service for Waits {
    fn hear(&mut self, rung: Rung) -> bool {
        match rung {
            Rung::Wake(Wake::Wait) => self.new = true,
            Rung::Wake(Wake::Run) if !self.by_run.is_empty() => return self.runs.want(),
            // One that a wait is for that was not read yet is looked at when that is.
            Rung::Ended(run) if self.by_run.contains_key(&run.id) => self.ended.push(run),
            Rung::Sweep => self.everything = true,
            _ => return false,
        }
        true
    }

    async fn work(&mut self) -> Result<Option<Duration>> {
        let looked = self.look().await;
        // What was not done is found by a look at everything.
        self.everything |= looked.is_err();
        looked?;
        Ok(self.runs.left().filter(|_| !self.by_run.is_empty()))
    }
}

/// What the end of a run is to a task that waited for it.
fn outcome_of(run: &RunRecord) -> Outcome {
    let output = json!({ "run_id": run.id, "state": run.state });
    match run.state {
        RunState::Success => Outcome::success(output),
        state => {
            Outcome::Failure(Failure::new(EXIT, format!("run {} of '{}' is {state}: {}", run.id, run.flow, run.cause)))
        }
    }
}

/// Tells a run that a wait is over.
pub(crate) async fn end(shared: &Shared, wait: &PendingWait, outcome: Outcome) -> Result<()> {
    let at = shared.clock.now();
    let signal = Signal::Ended { key: wait.key.clone(), number: wait.number, outcome, at };
    match shared.store.send(wait.run, &signal).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        sent => sent,
    }
}
