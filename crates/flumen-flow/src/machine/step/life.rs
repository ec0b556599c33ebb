//! From the start of a run to the start of an attempt.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use flumen_core::flow::{
    Answer, Ask, Change, Event, Failure, Notice, Occasion, Queued, RunState, Signal, TaskState, Timer, WorkerId,
};

use serde_json::Value;

use super::{Action, Step};
use crate::machine::run::At;

/// The kind of a failure whose template is wrong.
const TEMPLATE: &str = "template";

impl Step<'_> {
    pub(super) fn start(&mut self) {
        if self.run.record.state != RunState::Queued {
            return self.refuse(None, "the run has begun already");
        }
        self.run.record.started = Some(self.now);
        self.change_run(RunState::Running, "its turn came".to_owned());
        // A run that has waited for longer than that was told of while it waited.
        let late = self.graph.late_at(&self.run.record).filter(|late| *late > self.now);
        let long = self.graph.long.map(|long| self.now + delta(long));
        self.actions.extend(late.map(|at| Action::SetTimer(Timer::Late, at)));
        self.actions.extend(long.map(|at| Action::SetTimer(Timer::Long, at)));
        self.allow();
        for node in 0..self.graph.nodes().len() {
            self.watch_lateness(node);
        }
        self.woken.extend(0..self.graph.nodes().len());
    }

    /// The run may take its time from now on.
    pub(super) fn allow(&mut self) {
        let Some(timeout) = self.graph.timeout else { return };
        let at = (self.now + delta(timeout)).trunc_subsecs(6);
        self.run.record.stop_at = Some(at);
        self.actions.push(Action::SetTimer(Timer::Timeout, at));
    }

    /// Sets the timer of a task that should be done by some time. Where that is over, it rings at once.
    pub(super) fn watch_lateness(&mut self, node: usize) {
        let late = self.graph.task_late_at(node, &self.run.record);
        let timer = Timer::TaskLate(self.graph.node(node).id.clone());
        self.actions.extend(late.map(|at| Action::SetTimer(timer, at)));
    }

    /// Sets the timer of a task that should not take longer than some time, when it begins for the first time.
    pub(super) fn watch_length(&mut self, node: usize) {
        let task = &self.run.nodes[node].task;
        let node = self.graph.node(node);
        let is_first = task.tries() <= 1 && task.lost == 0;
        let long = node.long.filter(|_| is_first).map(|long| self.at + delta(long));
        self.actions.extend(long.map(|at| Action::SetTimer(Timer::TaskLong(node.id.clone()), at)));
    }

    /// A task is done, or is not begun any more: nobody need be told that it takes long.
    pub(super) fn watch_no_more(&mut self, node: usize) {
        let node = self.graph.node(node);
        self.actions.extend(node.late.map(|_| Action::StopTimer(Timer::TaskLate(node.id.clone()))));
        self.actions.extend(node.long.map(|_| Action::StopTimer(Timer::TaskLong(node.id.clone()))));
    }

    /// Puts a task run into another state. Whatever it waited for in the one before, it waits for no more.
    pub(super) fn change(&mut self, at: At, to: TaskState, cause: String) {
        let run = self.run.record.id;
        let task = self.run.at_mut(at);
        let (key, from) = (task.key.clone(), task.state);
        let (had_timer, had_wait) = (task.due.take().is_some(), task.wait.take().is_some());
        task.asked = None;
        task.since = self.at;
        task.cause.clone_from(&cause);
        let event = Event {
            run,
            at: self.at,
            change: Change::Task { key: key.clone(), from, to, attempt: task.attempt, number: task.number },
            cause,
            by: self.by.clone(),
        };
        self.run.put(self.graph, at, to);
        if at.kid.is_none() {
            self.run.asked.remove(&at.node);
        }
        if had_timer {
            self.actions.push(Action::StopTimer(Timer::Task(key.clone())));
        }
        if had_wait {
            self.actions.push(Action::Unwait(key.clone()));
        }
        if from != to {
            self.actions.push(Action::Log(event));
        }
        self.actions.push(Action::Save(key));
        self.wake(at, to);
    }

    /// Wakes whatever looks at a task run that is now `to`.
    fn wake(&mut self, at: At, to: TaskState) {
        if at.kid.is_some() {
            return self.woken.push_back(at.node);
        }
        if !to.is_terminal() {
            return;
        }
        let later = self.graph.after(at.node).iter();
        self.woken.extend(later.filter(|later| self.run.nodes[**later].task.state == TaskState::None));
        // Items that were to be done again are not, if the task as a whole is not.
        for kid in self.run.nodes[at.node].tally.idle.clone() {
            self.change(At::item(at.node, kid), TaskState::Removed, format!("the task as a whole is {to}"));
        }
        self.watch_no_more(at.node);
        self.tell(at, to);
    }

    /// Tells the next run, and whoever wants to know, that a task is done.
    fn tell(&mut self, at: At, to: TaskState) {
        let node = self.graph.node(at.node);
        if node.depends_on_past && is_past(to) {
            self.actions.push(Action::TellNext(Signal::PastDone { task: node.id.clone() }));
        }
        let key = self.task(at).key.clone();
        match to {
            TaskState::Success if node.hooks.success => self.notify(Occasion::TaskSucceeded { key }, at),
            TaskState::Failed if node.hooks.failure => self.notify(Occasion::TaskFailed { key }, at),
            _ => {}
        }
    }

    pub(super) fn notify(&mut self, occasion: Occasion, at: At) {
        let cause = self.task(at).cause.clone();
        let notice = Notice { run: self.run.record.id, occasion, at: self.at, cause };
        self.actions.push(Action::Notify(notice));
    }

    pub(super) fn change_run(&mut self, to: RunState, cause: String) {
        let record = &mut self.run.record;
        let from = std::mem::replace(&mut record.state, to);
        record.cause.clone_from(&cause);
        record.ended = to.is_terminal().then_some(self.now);
        if from != to {
            let event =
                Event { run: record.id, at: self.now, change: Change::Run { from, to }, cause, by: self.by.clone() };
            self.actions.push(Action::Log(event));
        }
    }

    /// Ends the run when all its tasks have ended.
    pub(super) fn conclude_run(&mut self) {
        let record = &self.run.record;
        let is_held = record.state == RunState::Queued && record.cancelling.is_none();
        if self.run.open > 0 || is_held {
            return;
        }
        let is_empty = self.run.nodes.is_empty();
        let is_cut_short = self.run.is_cut_short(self.graph);
        let to = if is_cut_short {
            RunState::Failed
        } else if self.run.leaves_cancelled > 0 || (is_empty && record.cancelling.is_some()) {
            RunState::Cancelled
        } else if self.run.leaves_failed > 0 {
            RunState::Failed
        } else {
            RunState::Success
        };
        if record.state == to {
            return;
        }
        let was_open = !record.state.is_terminal();
        let cause = match to {
            RunState::Cancelled => record.cancelling.clone().unwrap_or_else(|| "a last task was cancelled".to_owned()),
            RunState::Failed if is_cut_short => record.cancelling.clone().unwrap_or_default(),
            RunState::Failed => self.blame(),
            _ => "all last tasks are done".to_owned(),
        };
        self.change_run(to, cause.clone());
        if was_open {
            self.actions.extend(self.graph.late.map(|_| Action::StopTimer(Timer::Late)));
            self.actions.extend(self.graph.long.map(|_| Action::StopTimer(Timer::Long)));
            let stop_at = self.run.record.stop_at.take();
            self.actions.extend(stop_at.map(|_| Action::StopTimer(Timer::Timeout)));
        }
        let occasion = match to {
            RunState::Success if self.graph.hooks.success => Occasion::RunSucceeded,
            RunState::Failed if self.graph.hooks.failure => Occasion::RunFailed,
            _ => return,
        };
        let notice = Notice { run: self.run.record.id, occasion, at: self.now, cause };
        self.actions.push(Action::Notify(notice));
    }

    /// Why the run failed: the first task that did, of those for which a last task could not be done.
    fn blame(&self) -> String {
        let state = |number: &usize| self.run.nodes[*number].task.state;
        let is_bad = |number: &usize| matches!(state(number), TaskState::Failed | TaskState::UpstreamFailed);
        let leaves = (0..self.run.nodes.len()).filter(|number| self.graph.is_leaf(*number) && is_bad(number));
        let before = self.graph.upstream(leaves);
        let is_cause = |number: &usize| before[*number] && state(number) == TaskState::Failed;
        let all = || 0..self.run.nodes.len();
        let first = all().find(is_cause).or_else(|| all().find(|number| before[*number] && is_bad(number)));
        first
            .map(|number| &self.run.nodes[number].task)
            .map_or_else(String::new, |task| format!("task '{}' is {}: {}", task.key, task.state, task.cause))
    }

    pub(super) fn set_timer(&mut self, at: At, due: DateTime<Utc>) {
        let task = self.run.at_mut(at);
        // Stores keep moments in microseconds, and the timer must be told from one that was stopped.
        let due = due.trunc_subsecs(6);
        task.due = Some(due);
        let timer = Timer::Task(task.key.clone());
        self.actions.push(Action::SetTimer(timer, due));
    }

    /// When the attempt has taken too long.
    pub(super) fn deadline(&self, at: At) -> Option<DateTime<Utc>> {
        Some((self.task(at).began? + delta(self.node(at).timeout?)).trunc_subsecs(6))
    }

    // From a rule that passes to the queue.

    /// A rule lets a task begin; what is to be known first is asked.
    pub(super) fn begin(&mut self, node: usize) {
        self.ask_after(node, None);
    }

    /// Asks the next question after `last`, or goes on where there is none.
    fn ask_after(&mut self, number: usize, last: Option<Ask>) {
        let node = self.graph.node(number);
        let is_asked = |ask: &Ask| match ask {
            Ask::Past => node.depends_on_past,
            Ask::When => node.when,
            Ask::Items => node.map.is_some_and(|map| !map.by_worker),
        };
        let rest = [Ask::Past, Ask::When, Ask::Items].into_iter().filter(|ask| Some(*ask) > last);
        let at = At::whole(number);
        let Some(ask) = rest.into_iter().find(is_asked) else {
            return self.make_ready(at, "nothing before it holds it back".to_owned());
        };
        let cause = match ask {
            Ask::Past => "waits for itself in the run before",
            Ask::When => "its condition is looked at",
            Ask::Items => "the list that it runs for is made",
        };
        self.change(at, TaskState::Scheduled, cause.to_owned());
        let task = self.run.at_mut(at);
        task.asked = Some(ask);
        let key = task.key.clone();
        self.run.asked.insert(number, ask);
        self.actions.push(Action::Ask { key, ask });
    }

    pub(super) fn answered(&mut self, at: At, answer: Answer) {
        let task = self.task(at);
        let (key, asked) = (task.key.clone(), task.asked);
        match (asked, answer) {
            (Some(Ask::Past), Answer::Past { done: true }) => self.ask_after(at.node, Some(Ask::Past)),
            (Some(Ask::Past), Answer::Past { done: false }) => {}
            (Some(Ask::When), Answer::When { holds: true }) => self.ask_after(at.node, Some(Ask::When)),
            (Some(Ask::When), Answer::When { holds: false }) => {
                self.change(at, TaskState::Skipped, "its condition does not hold".to_owned());
            }
            (Some(Ask::Items), Answer::Items { items }) => self.expand(at.node, items),
            (Some(_), Answer::Failed { message }) => {
                self.run.at_mut(at).failure = Some(Failure::lasting(TEMPLATE, message.clone()));
                self.change(at, TaskState::Failed, message);
            }
            _ => self.refuse(Some(key), "that is not asked of the task now"),
        }
    }

    pub(super) fn past_done(&mut self, node: usize) {
        if self.run.nodes[node].task.asked == Some(Ask::Past) {
            self.ask_after(node, Some(Ask::Past));
        }
    }

    /// Puts a task run into the queue, unless the run is paused.
    pub(super) fn make_ready(&mut self, at: At, cause: String) {
        if self.run.record.state == RunState::Paused {
            return self.change(at, TaskState::Scheduled, "the run is paused".to_owned());
        }
        let task = self.run.at_mut(at);
        if !std::mem::take(&mut task.resume) {
            task.attempt += 1;
            task.began = None;
        }
        let node = self.graph.node(at.node);
        let makes_list = at.kid.is_none() && node.map.is_some();
        match &node.given {
            Some(output) if !makes_list => self.give(at, output.clone()),
            _ => self.enqueue(at, cause),
        }
    }

    /// A task that needs no worker is done.
    fn give(&mut self, at: At, output: Value) {
        let now = self.at;
        self.run.at_mut(at).began = Some(now);
        self.succeed(at, output, Default::default(), "there is nothing to do");
    }

    fn enqueue(&mut self, at: At, cause: String) {
        let task = self.run.at(at);
        let (key, attempt) = (task.key.clone(), task.attempt);
        self.change(at, TaskState::Queued, cause);
        let node = self.graph.node(at.node);
        let items = self.run.nodes[at.node].task.items.as_ref();
        let queued = Queued {
            key,
            attempt,
            lists: at.kid.is_none() && node.map.is_some(),
            item: at.kid.and_then(|kid| items?.get(kid as usize).cloned()),
            pool: node.pool.clone(),
            slots: node.slots,
            priority: node.priority,
        };
        self.actions.push(Action::Enqueue(queued));
    }

    pub(super) fn claimed(&mut self, at: At, number: u64, worker: WorkerId) {
        let task = self.task(at);
        let key = task.key.clone();
        if number <= task.number {
            return self.refuse(Some(key), format!("lease {number} is known already"));
        }
        if task.state != TaskState::Queued {
            let cause = format!("the task is {}, and not in the queue", task.state);
            self.actions.push(Action::Stop { key: key.clone(), number, cause: cause.clone() });
            return self.refuse(Some(key), cause);
        }
        let when = self.at;
        let cause = format!("worker {worker} took it");
        let task = self.run.at_mut(at);
        task.number = number;
        task.worker = Some(worker);
        let is_first = task.began.is_none();
        task.began.get_or_insert(when);
        self.change(at, TaskState::Running, cause);
        if is_first && at.kid.is_none() {
            self.watch_length(at.node);
        }
        if let Some(due) = self.deadline(at) {
            self.set_timer(at, due);
        }
    }
}

/// A span of time that can be added to a moment.
pub(super) fn delta(span: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(span).unwrap_or(TimeDelta::days(36_500))
}

/// Whether a task that is `state` in the run before lets the same task begin in this one.
pub(super) fn is_past(state: TaskState) -> bool {
    matches!(state, TaskState::Success | TaskState::Skipped)
}
