//! One run: its letters are read, its questions answered, and what follows is written in one transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use flumen_core::clock::Clock;
use flumen_core::flow::store::{Letter, MetaStore, Taken};
use flumen_core::flow::{Answer, Ask, RunId, RunRecord, Signal, TaskKey, TaskState};
use flumen_core::{ErrorKind, Result};
use flumen_flow::machine::{Batch, Graph, Run};

use crate::alarm::Endings;
use crate::service::{Watcher, is_of_store};

/// Runs that are remembered from one step to the next, so that they need not be read again.
const REMEMBERED: usize = 256;
/// Tries to step a run that others change meanwhile. Then it waits for its next turn.
const TRIES: usize = 8;

/// What a scheduler asks about flows.
#[async_trait]
pub trait Flows: Send + Sync {
    /// The flow of a run, in the version that the run keeps.
    ///
    /// Errors: `NotFound`; `Invalid` for a version that cannot be read here.
    async fn graph(&self, record: &RunRecord) -> Result<Arc<Graph>>;

    /// Whether a task's condition holds, or what the list is that it runs for. `None` where that cannot be said yet: it is asked
    /// again when something has happened. What is wrong with a template is an answer too.
    async fn answer(&self, run: &Run, graph: &Graph, key: &TaskKey, ask: Ask) -> Option<Answer>;
}

/// Steps runs, and remembers them.
pub(crate) struct Steps {
    store: Arc<dyn MetaStore>,
    flows: Arc<dyn Flows>,
    clock: Arc<dyn Clock>,
    watcher: Arc<dyn Watcher>,
    remembered: Mutex<HashMap<RunId, (u64, Run)>>,
    pub(crate) endings: Endings,
}

impl Steps {
    pub(crate) fn new(
        store: Arc<dyn MetaStore>,
        flows: Arc<dyn Flows>,
        clock: Arc<dyn Clock>,
        watcher: Arc<dyn Watcher>,
    ) -> Self {
        Self { store, flows, clock, watcher, remembered: Mutex::default(), endings: Endings::default() }
    }

    /// Steps a run until its inbox is empty. One bad run stops no other: only what is wrong with the store is an error.
    pub(crate) async fn step(&self, taken: Taken) -> Result<()> {
        let Taken { run: id, mut inbox } = taken;
        for _ in 0..TRIES {
            match self.try_step(id, inbox.take()).await {
                Ok(()) => return Ok(()),
                // Somebody else was faster: what is remembered is old.
                Err(error) if error.kind() == ErrorKind::Conflict => drop(self.remembered().remove(&id)),
                Err(error) if is_of_store(&error) => return Err(error),
                Err(error) => {
                    self.watcher.run_fails(id, &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Steps a run. `inbox` are its version and its letters, where they were just read.
    async fn try_step(&self, id: RunId, inbox: Option<(u64, Vec<Letter>)>) -> Result<()> {
        let (version, letters) = match inbox {
            Some(inbox) => inbox,
            None => self.store.inbox(id).await?,
        };
        let remembered = self.remembered().remove(&id).filter(|(known, _)| *known == version);
        let (graph, mut run, letters) = match remembered {
            Some((_, run)) => (self.flows.graph(run.record()).await?, run, letters),
            None => {
                let loaded = self.store.load(id).await?;
                let graph = self.flows.graph(&loaded.record).await?;
                let run = Run::restore(&graph, loaded.record, loaded.tasks)?;
                if loaded.version != version {
                    return Err(flumen_core::flow::store::run_changed(id));
                }
                (graph, run, loaded.inbox)
            }
        };
        let mut batch = Batch::new(&mut run, &graph, self.clock.now());
        batch.read(letters);
        while let Some((key, ask)) = batch.next_question() {
            let answer = match ask {
                Ask::Past => Some(Answer::Past { done: self.is_done_before(id, &key).await? }),
                Ask::When | Ask::Items => self.flows.answer(batch.run(), &graph, &key, ask).await,
            };
            if let Some(answer) = answer {
                batch.tell(Signal::Answered { key, answer });
            }
        }
        for (task, cause) in batch.refusals() {
            self.watcher.refused(id, task.as_ref(), cause);
        }
        let commit = batch.finish(version);
        let version = self.store.commit(&commit).await?;
        self.remember(id, version, run);
        Ok(())
    }

    /// Whether a task is done in the run before, or there is none.
    async fn is_done_before(&self, run: RunId, key: &TaskKey) -> Result<bool> {
        let state = self.store.past(run, &key.task).await?;
        Ok(state.is_none_or(|state| matches!(state, TaskState::Success | TaskState::Skipped)))
    }

    fn remember(&self, id: RunId, version: u64, run: Run) {
        let mut remembered = self.remembered();
        if run.record().state.is_terminal() {
            self.endings.tell(run.record());
            return;
        }
        if remembered.len() >= REMEMBERED
            && let Some(other) = remembered.keys().next().copied()
        {
            remembered.remove(&other);
        }
        remembered.insert(id, (version, run));
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<RunId, (u64, Run)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
