//! What people ask of a run: cancel, clear, retry, mark, pause, resume.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use flumen_core::flow::outcome::TIMEOUT;
use flumen_core::flow::{Failure, RunState, Stop, StopTo, TaskKey, TaskRun, TaskState, Timer};
use flumen_core::task_kind::units::Period;

use super::ending::MARKED;
use super::{Action, Step};
use crate::machine::run::At;

impl Step<'_> {
    pub(super) fn cancel(&mut self) {
        if self.run.record.state.is_terminal() {
            return self.refuse(None, "the run has ended already");
        }
        let is_second = self.run.record.cancelling.is_some();
        let cause = format!("{} cancelled the run", self.by);
        self.run.record.cancelling.get_or_insert_with(|| cause.clone());
        self.end_all(StopTo::Cancelled, &cause, !is_second);
    }

    /// The run has taken longer than it may: unless only teardown is left, it is ended.
    pub(super) fn run_timed_out(&mut self, due: DateTime<Utc>) {
        if self.run.record.stop_at != Some(due) {
            return self.refuse(None, "that timer was stopped");
        }
        self.run.record.stop_at = None;
        let is_cut_off = |node: usize| !self.is_teardown(node) && self.is_open(node);
        if self.run.record.cancelling.is_some() || !(0..self.run.nodes.len()).any(is_cut_off) {
            return;
        }
        let span = self.graph.timeout.unwrap_or_default();
        let cause = format!("the run took longer than {}", Period(span));
        self.run.record.cancelling = Some(cause.clone());
        self.run.record.timed_out = true;
        self.end_all(StopTo::Timeout, &cause, true);
    }

    /// Ends all tasks; where it `tears_down`, all but those that do.
    fn end_all(&mut self, to: StopTo, cause: &str, tears_down: bool) {
        if self.run.record.state == RunState::Paused {
            self.change_run(RunState::Running, cause.to_owned());
        }
        for node in 0..self.run.nodes.len() {
            if self.is_teardown(node) && tears_down {
                self.woken.push_back(node);
                self.wake_ready(node);
            } else {
                self.end(node, to, cause);
            }
        }
    }

    /// Ends a task, and what is at work of its items.
    fn end(&mut self, node: usize, to: StopTo, cause: &str) {
        if self.run.is_expanded(node) || self.is_busy(node) {
            if self.run.is_expanded(node) {
                let stop = Stop { to, cause: cause.to_owned(), by: self.by.clone() };
                let task = &mut self.run.nodes[node].task;
                task.stop = Some(stop);
                self.actions.push(Action::Save(task.key.clone()));
            }
            for kid in self.kids(node, |state| !state.is_terminal()) {
                self.end_one(kid, to, cause);
            }
            self.woken.push_back(node);
        } else if !self.run.nodes[node].task.state.is_terminal() {
            self.end_one(At::whole(node), to, cause);
        }
    }

    /// Ends a task run: at once, or once its worker has let go of it.
    fn end_one(&mut self, at: At, to: StopTo, cause: &str) {
        match self.task(at).state {
            TaskState::Running => return self.ask_to_stop(at, to, cause.to_owned()),
            TaskState::Queued => self.dequeue(at),
            _ => {}
        }
        self.turn_into(at, to, cause.to_owned());
    }

    fn dequeue(&mut self, at: At) {
        let task = self.run.at_mut(at);
        task.resume = true;
        let key = task.key.clone();
        self.actions.push(Action::Dequeue(key));
    }

    /// Asks the worker that has a task run to stop it.
    pub(super) fn ask_to_stop(&mut self, at: At, to: StopTo, cause: String) {
        let by = self.by.clone();
        let task = self.run.at_mut(at);
        // What a person wants is not undone by a timeout.
        if task.stop.as_ref().is_some_and(|stop| stop.to == to || to == StopTo::Timeout) {
            return;
        }
        task.stop = Some(Stop { to, cause: cause.clone(), by });
        let (key, number) = (task.key.clone(), task.number);
        if task.due.take().is_some() {
            self.actions.push(Action::StopTimer(Timer::Task(key.clone())));
        }
        self.actions.push(Action::Stop { key: key.clone(), number, cause });
        self.actions.push(Action::Save(key));
    }

    /// Does what was wanted of a task run that nobody has.
    pub(super) fn turn_into(&mut self, at: At, to: StopTo, cause: String) {
        match to {
            StopTo::Cancelled => self.change(at, TaskState::Cancelled, cause),
            StopTo::Timeout if has_begun(self.task(at)) => {
                self.run.at_mut(at).failure = Some(Failure::new(TIMEOUT, cause.clone()));
                self.change(at, TaskState::Failed, cause);
            }
            StopTo::Timeout => self.change(at, TaskState::UpstreamFailed, format!("not begun: {cause}")),
            StopTo::Marked(state) => {
                let failed = state == TaskState::Failed;
                self.run.at_mut(at).failure = failed.then(|| Failure::lasting(MARKED, cause.clone()));
                self.change(at, state, cause);
            }
            StopTo::Cleared => self.reset(at, cause),
        }
    }

    /// As if it had never run, but for its number and its attempts.
    fn reset(&mut self, at: At, cause: String) {
        let task = self.run.at_mut(at);
        task.spared = task.attempt;
        task.lost = 0;
        task.resume = false;
        task.began = None;
        task.stop = None;
        task.items = None;
        task.output = None;
        task.failure = None;
        self.change(at, TaskState::None, cause);
        if at.kid.is_none() {
            self.watch_no_more(at.node);
            if self.graph.task_late_at(at.node, &self.run.record).is_some_and(|late| late > self.now) {
                self.watch_lateness(at.node);
            }
        }
        self.woken.push_back(at.node);
    }

    fn kids(&self, node: usize, which: impl Fn(TaskState) -> bool) -> Vec<At> {
        let kids = self.run.nodes[node].kids.iter().zip(0u32..);
        kids.filter(|(kid, _)| which(kid.state)).map(|(_, index)| At::item(node, index)).collect()
    }

    // Again.

    /// Does again what failed or was cancelled, and everything after it.
    pub(super) fn retry(&mut self) {
        let is_bad =
            |state: TaskState| matches!(state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled);
        let mut keys = Vec::new();
        for (number, node) in self.run.nodes.iter().enumerate() {
            if !is_bad(node.task.state) {
                continue;
            }
            let kids = self.kids(number, is_bad);
            if node.task.items.is_none() || kids.is_empty() {
                keys.push(node.task.key.clone());
            } else {
                keys.extend(kids.into_iter().map(|kid| self.task(kid).key.clone()));
            }
        }
        if keys.is_empty() {
            return self.refuse(None, "nothing has failed");
        }
        self.clear(&keys, true);
    }

    /// Does these again, with what sets up and tears down around them.
    pub(super) fn clear(&mut self, keys: &[TaskKey], downstream: bool) {
        let mut picked = BTreeSet::new();
        for key in keys {
            match self.run.find(self.graph, key) {
                Some(at) if at.kid.is_none() || self.is_current(at) => drop(picked.insert(at)),
                _ => self.refuse(Some(key.clone()), "there is no such task in the run"),
            }
        }
        if picked.is_empty() {
            return;
        }
        let mut whole = vec![false; self.run.nodes.len()];
        for at in picked.iter().filter(|at| at.kid.is_none()) {
            whole[at.node] = true;
        }
        if downstream {
            let after = picked.iter().flat_map(|at| self.graph.after(at.node)).copied();
            for (node, reached) in self.graph.downstream(after).into_iter().enumerate() {
                whole[node] |= reached;
            }
        }
        self.surround(&picked, &mut whole);
        let cause = format!("{} cleared it", self.by);
        self.run.record.cancelling = None;
        self.run.record.timed_out = false;
        if self.run.record.state.is_terminal() {
            self.change_run(RunState::Running, format!("{} cleared tasks of it", self.by));
        }
        if self.run.record.stop_at.is_none() && self.run.record.state != RunState::Queued {
            self.allow();
        }
        for (node, _) in whole.iter().enumerate().filter(|(_, cleared)| **cleared) {
            self.clear_whole(node, &cause);
        }
        for at in picked {
            if let Some(kid) = at.kid
                && !whole[at.node]
            {
                self.clear_item(at.node, kid, &cause);
            }
        }
    }

    /// Adds what sets up for, and tears down after, what is cleared: the one is gone by now, or will be by the other.
    fn surround(&self, picked: &BTreeSet<At>, whole: &mut [bool]) {
        for (number, node) in self.graph.nodes().iter().enumerate() {
            if node.tears_down.is_empty() {
                continue;
            }
            let after = self.graph.downstream(node.tears_down.iter().copied());
            let before = self.graph.upstream([number]);
            let is_within = |other: usize| other != number && after[other] && before[other];
            let items = picked.iter().any(|at| is_within(at.node));
            if items || (0..whole.len()).any(|other| whole[other] && is_within(other)) {
                whole[number] = true;
                for setup in &node.tears_down {
                    whole[*setup] = true;
                }
            }
        }
    }

    fn clear_whole(&mut self, node: usize, cause: &str) {
        let at = At::whole(node);
        let was_expanded = self.run.is_expanded(node);
        for kid in self.kids(node, |state| state != TaskState::None) {
            self.end_one(kid, StopTo::Cleared, cause);
        }
        match self.task(at).state {
            TaskState::None => {}
            TaskState::Running if was_expanded => self.reset(at, cause.to_owned()),
            _ => self.end_one(at, StopTo::Cleared, cause),
        }
    }

    fn clear_item(&mut self, node: usize, kid: u32, cause: &str) {
        let at = At::whole(node);
        if !self.run.is_expanded(node) {
            self.change(at, TaskState::Running, format!("{} cleared items of it", self.by));
        } else if self.run.at_mut(at).stop.take().is_some() {
            self.actions.push(Action::Save(self.task(at).key.clone()));
        }
        self.end_one(At::item(node, kid), StopTo::Cleared, cause);
        self.woken.push_back(node);
    }

    /// Whether the item belongs to the list that the task runs, or ran, for.
    fn is_current(&self, at: At) -> bool {
        let is_past = self.run.nodes[at.node].task.state.is_terminal() || self.run.is_expanded(at.node);
        is_past && at.kid.is_some_and(|kid| kid < self.item_count(at.node))
    }

    /// Takes a task run for what somebody says it is.
    pub(super) fn mark(&mut self, at: At, to: TaskState) {
        let key = self.task(at).key.clone();
        if !matches!(to, TaskState::Success | TaskState::Failed | TaskState::Skipped) {
            return self.refuse(Some(key), format!("a task cannot be marked {to}"));
        }
        if self.run.record.state == RunState::Queued {
            return self.refuse(Some(key), "the run has not begun");
        }
        let cause = format!("{} marked it {to}", self.by);
        let is_whole = at.kid.is_none();
        if !is_whole && !self.is_current(at) {
            return self.refuse(Some(key), "the item is not in the list that the task runs for");
        }
        if is_whole && self.task(at).state == TaskState::None && self.is_busy(at.node) {
            return self.refuse(Some(key), "items of it are being stopped; ask again when they are");
        }
        if is_whole && self.run.is_expanded(at.node) {
            return self.end(at.node, StopTo::Marked(to), &cause);
        }
        if self.task(at).state == to {
            return;
        }
        self.end_one(at, StopTo::Marked(to), &cause);
        // A task that has ended is what its items are now; it does not begin again.
        let has_ended = self.run.nodes[at.node].task.state.is_terminal();
        if !is_whole && has_ended && self.is_done(at.node) {
            self.sum_up(at.node, self.item_count(at.node));
        }
    }

    // Pause.

    pub(super) fn pause(&mut self) {
        if self.run.record.state != RunState::Running || self.run.record.cancelling.is_some() {
            return self.refuse(None, format!("the run is {}, and cannot be paused", self.run.record.state));
        }
        let cause = format!("{} paused the run", self.by);
        self.change_run(RunState::Paused, cause.clone());
        for node in 0..self.run.nodes.len() {
            let mut queued = self.kids(node, |state| state == TaskState::Queued);
            queued.extend((self.run.nodes[node].task.state == TaskState::Queued).then_some(At::whole(node)));
            for at in queued {
                self.dequeue(at);
                self.change(at, TaskState::Scheduled, cause.clone());
            }
        }
    }

    pub(super) fn resume(&mut self) {
        if self.run.record.state != RunState::Paused {
            return self.refuse(None, format!("the run is {}, and not paused", self.run.record.state));
        }
        self.change_run(RunState::Running, format!("{} resumed the run", self.by));
        for node in 0..self.run.nodes.len() {
            self.wake_ready(node);
        }
    }

    /// Lets a task that only waited for the run go on.
    fn wake_ready(&mut self, node: usize) {
        let task = &self.run.nodes[node].task;
        if task.state == TaskState::Scheduled && task.asked.is_none() {
            self.make_ready(At::whole(node), "the run goes on".to_owned());
        } else if self.run.is_expanded(node) {
            self.woken.push_back(node);
        }
    }
}

/// Whether an attempt at a task run was begun, since somebody last asked for it to be done.
fn has_begun(task: &TaskRun) -> bool {
    match task.state {
        TaskState::None | TaskState::Scheduled | TaskState::Queued => {
            task.began.is_some() || task.tries() > 1 || task.lost > 0
        }
        _ => true,
    }
}
