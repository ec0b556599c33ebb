//! Schedulers: they step runs, and crash.

use std::collections::HashMap;
use std::sync::Arc;

use flumen_core::ErrorKind;
use flumen_core::flow::store::{Commit, MetaStore};
use flumen_core::flow::{RunId, Signal, Timer};
use flumen_flow::machine::{Batch, Run, step};

use crate::world::{LEASE, World, at_once};

/// A scheduler process. It remembers runs, so that it need not load them again.
pub struct Scheduler {
    name: String,
    runs: HashMap<RunId, (u64, Run)>,
    /// What it is about to write.
    pending: Option<Pending>,
}

struct Pending {
    commit: Commit,
    run: Run,
    signals: Vec<Signal>,
}

impl Scheduler {
    pub fn new(number: usize) -> Self {
        Self { name: format!("s{number}"), runs: HashMap::new(), pending: None }
    }

    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }
}

impl World {
    /// A scheduler does its next thing: it steps a run, or writes what it has stepped.
    pub fn schedule(&mut self, number: usize) -> Result<(), String> {
        match self.schedulers[number].pending.take() {
            Some(pending) => self.write(number, pending),
            None => {
                let Some(pending) = self.step_run(number)? else { return Ok(()) };
                if self.random.percent(60) {
                    return self.write(number, pending);
                }
                self.schedulers[number].pending = Some(pending);
                Ok(())
            }
        }
    }

    fn step_run(&mut self, number: usize) -> Result<Option<Pending>, String> {
        let taken = Self::must(at_once(self.store.take_runs(self.now, self.now + LEASE, 1)))?;
        let mut taken: Vec<(RunId, Option<_>)> = taken.into_iter().map(|taken| (taken.run, taken.inbox)).collect();
        // It may be wrong about who has a run, and come to no harm.
        if taken.is_empty() && !self.runs.is_empty() {
            taken.push((*self.random.pick(&self.runs), None));
        }
        let Some((id, inbox)) = taken.pop() else { return Ok(None) };
        let record = Self::must(at_once(self.store.run(id)))?;
        let graph = Arc::clone(&self.flows[&record.flow]);
        let (version, letters) = match inbox {
            Some(inbox) => inbox,
            None => Self::must(at_once(self.store.inbox(id)))?,
        };
        let remembered = self.schedulers[number].runs.remove(&id).filter(|(remembered, _)| *remembered == version);
        let mut run = match remembered {
            Some((_, run)) => run,
            None => {
                let loaded = Self::must(at_once(self.store.load(id)))?;
                Self::must(Run::restore(&graph, loaded.record, loaded.tasks))?
            }
        };
        let signals: Vec<Signal> = letters.iter().map(|letter| letter.signal.clone()).collect();
        let has_questions = run.questions().next().is_some();
        if signals.is_empty() && !has_questions {
            self.schedulers[number].runs.insert(id, (version, run));
            return Ok(None);
        }
        let now = self.now;
        let mut batch = Batch::new(&mut run, &graph, now);
        batch.read(letters);
        while let Some((key, ask)) = batch.next_question() {
            if let Some(answer) = self.answer(id, &key, ask) {
                batch.tell(Signal::Answered { key, answer });
            }
        }
        let refusals: Vec<String> = batch.refusals().iter().map(|(key, cause)| format!("{key:?}: {cause}")).collect();
        let commit = batch.finish(version);
        for refusal in refusals {
            self.say(format!("a signal is refused: {refusal}"));
        }
        Ok(Some(Pending { commit, run, signals }))
    }

    fn write(&mut self, number: usize, pending: Pending) -> Result<(), String> {
        let name = self.schedulers[number].name.clone();
        if self.faults && self.random.percent(6) {
            self.say(format!("{name} crashes before its commit"));
            self.schedulers[number].runs.clear();
            return Ok(());
        }
        let Pending { commit, run, signals } = pending;
        match at_once(self.store.commit(&commit)) {
            Ok(version) => {
                let graph = Arc::clone(&self.flows[&commit.record.flow]);
                self.say(format!("{name} commits version {version} of {}", commit.run));
                for event in &commit.events {
                    self.say(format!("    {}", crate::checks::describe(event)));
                }
                for signal in &signals {
                    if let Signal::Due { timer: Timer::Timeout, at } = signal {
                        self.model.note_rung(commit.run, *at);
                    }
                }
                self.model.check(&graph, &commit)?;
                self.check_kept(&graph, &run)?;
                if self.random.percent(20) {
                    self.check_again(&graph, &run, &signals)?;
                }
                let twice = signals.into_iter().filter(is_delivered_twice).map(|signal| (commit.run, signal));
                self.delivered.extend(twice);
                self.schedulers[number].runs.insert(commit.run, (version, run));
            }
            Err(error) if error.kind() == ErrorKind::Conflict => self.say(format!("{name} has a conflict: {error}")),
            Err(error) => return Err(format!("{name}: {error}")),
        }
        if self.faults && self.random.percent(6) {
            self.say(format!("{name} crashes after its commit"));
            self.schedulers[number].runs.clear();
        }
        Ok(())
    }

    /// What was written is what is remembered, down to the counts.
    fn check_kept(&self, graph: &flumen_flow::machine::Graph, run: &Run) -> Result<(), String> {
        let loaded = Self::must(at_once(self.store.load(run.record().id)))?;
        let restored = Self::must(Run::restore(graph, loaded.record, loaded.tasks))?;
        if restored != *run {
            return Err(format!("kept:       {restored:#?}\nremembered: {run:#?}"));
        }
        self.model.check_settled(graph, run)
    }

    /// A signal that comes again at once changes nothing.
    fn check_again(&self, graph: &flumen_flow::machine::Graph, run: &Run, signals: &[Signal]) -> Result<(), String> {
        for signal in signals.iter().filter(|signal| is_delivered_twice(signal)) {
            // A new timer may have been set to the very same time.
            if let Signal::Due { timer: Timer::Task(key), at } = signal
                && run.task(graph, key).is_some_and(|task| task.due == Some(*at))
            {
                continue;
            }
            if let Signal::Due { timer: Timer::Timeout, at } = signal
                && run.record().stop_at == Some(*at)
            {
                continue;
            }
            let mut again = run.clone();
            let actions = step(&mut again, graph, self.now, signal.clone());
            if again != *run {
                return Err(format!("{signal:?} changed something the second time: {actions:?}"));
            }
        }
        Ok(())
    }
}

/// Whether the store or the network, and not a person, says it.
fn is_delivered_twice(signal: &Signal) -> bool {
    matches!(signal, Signal::Start | Signal::Claimed { .. } | Signal::Ended { .. } | Signal::Due { .. })
}
