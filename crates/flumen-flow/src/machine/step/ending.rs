//! How attempts end, and what follows.

use std::time::Duration;

use chrono::{DateTime, Utc};
use flumen_core::flow::outcome::{LOST, TIMEOUT};
use flumen_core::flow::{
    Change, Event, Failure, Notice, Occasion, Outcome, Stop, StopTo, TaskId, TaskKey, TaskState, Timer, Touched, Wait,
    WaitFor,
};
use flumen_core::task_kind::units::Period;
use serde_json::Value;

use super::{Action, SCHEDULER, Step, chosen, is_done};
use crate::machine::run::At;

/// The kind of a failure of a branch that names a task that is not there.
const BRANCH: &str = "branch";
/// The kind of a failure that a person said it is.
pub(super) const MARKED: &str = "marked";
/// What is told of a task that is done.
const DONE: &str = "it did what it should";
/// The kind of a failure that is somebody's no.
const REFUSED: &str = "refused";

impl Step<'_> {
    pub(super) fn ended(&mut self, at: At, number: u64, outcome: Outcome) {
        let is_whole = at.kid.is_none() && self.run.is_expanded(at.node);
        let task = self.task(at);
        let is_at_it = matches!(task.state, TaskState::Running | TaskState::Deferred | TaskState::Paused) && !is_whole;
        let key = task.key.clone();
        if number != task.number {
            let cause = format!("lease {number} is not the current one, which is {}", task.number);
            return self.refuse(Some(key), cause);
        }
        if !is_at_it {
            return self.refuse(Some(key), format!("the attempt of lease {number} has ended already"));
        }
        self.by = match (&outcome, &task.worker) {
            (Outcome::Lost { .. }, _) | (_, None) => SCHEDULER.to_owned(),
            (_, Some(_)) if task.state != TaskState::Running => SCHEDULER.to_owned(),
            (_, Some(worker)) => format!("worker {worker}"),
        };
        match self.run.at_mut(at).stop.take() {
            Some(stop) => self.stopped(at, stop, outcome),
            None => self.conclude(at, outcome),
        }
    }

    /// A task run that was to be stopped has come to an end.
    fn stopped(&mut self, at: At, stop: Stop, outcome: Outcome) {
        match stop.to {
            StopTo::Timeout | StopTo::Cancelled if is_done(&outcome) => self.conclude(at, outcome),
            StopTo::Timeout => self.fail(at, Failure::new(TIMEOUT, stop.cause)),
            StopTo::Cancelled | StopTo::Marked(_) | StopTo::Cleared => {
                self.by = stop.by;
                self.turn_into(at, stop.to, stop.cause);
            }
        }
    }

    fn conclude(&mut self, at: At, outcome: Outcome) {
        match outcome {
            Outcome::Success { output, reads, writes } => self.succeed(at, output, (reads, writes), DONE),
            Outcome::Reused { output, cause } => self.succeed(at, output, Default::default(), &cause),
            Outcome::Failure(failure) => self.fail(at, failure),
            Outcome::Skipped { cause } => self.change(at, TaskState::Skipped, cause),
            Outcome::Rescheduled { until } => {
                self.change(at, TaskState::UpForReschedule, format!("looks again at {}", time(until)));
                self.run.at_mut(at).resume = true;
                let due = self.deadline(at).map_or(until, |deadline| deadline.min(until));
                self.set_timer(at, due);
            }
            Outcome::Deferred { wait } => self.defer(at, wait),
            Outcome::Cancelled => self.change(at, TaskState::Cancelled, "it was stopped by its worker".to_owned()),
            Outcome::Lost { cause, .. } => self.lost(at, &cause),
        }
    }

    pub(super) fn succeed(&mut self, at: At, output: Value, (reads, writes): (Vec<String>, Vec<String>), cause: &str) {
        let node = self.node(at);
        let task = node.id.clone();
        if at.kid.is_none() && node.map.is_some() {
            return match output {
                Value::Array(items) => self.expand(at.node, items),
                other => {
                    let message = format!("it should give a list to run for, and gave {}", kind(&other));
                    self.fail(at, Failure::lasting(super::items::ITEMS, message));
                }
            };
        }
        if node.branch
            && let Err(message) = chosen(self.graph, at.node, &output)
        {
            return self.fail(at, Failure::lasting(BRANCH, message));
        }
        let run = self.run.at_mut(at);
        run.output = Some(output);
        run.failure = None;
        if !(reads.is_empty() && writes.is_empty()) {
            self.actions.push(Action::Touch(Touched { task, at: self.at, reads, writes }));
        }
        self.change(at, TaskState::Success, cause.to_owned());
    }

    /// An attempt failed: another one follows, or none does.
    pub(super) fn fail(&mut self, at: At, failure: Failure) {
        let policy = &self.graph.node(at.node).retry;
        let task = self.task(at);
        let (tries, attempt, key) = (task.tries(), task.attempt, task.key.clone());
        let again = policy.covers(&failure) && (1..=policy.retries).contains(&tries) && !self.is_ending(at.node);
        let delay = policy.delay(tries, &self.graph.flow, &key, self.run.record.interval.start);
        let all = policy.retries.saturating_add(1);
        let words = failure.to_string();
        self.run.at_mut(at).failure = Some(failure);
        if !again {
            return self.change(at, TaskState::Failed, words);
        }
        let due = self.at + delay;
        let next = format!("{words}; attempt {} of {all} begins at {}", tries + 1, time(due));
        self.run.at_mut(at).resume = false;
        self.change(at, TaskState::UpForRetry, next);
        self.set_timer(at, due);
        if self.node(at).hooks.retry {
            self.notify(Occasion::TaskRetries { key, attempt }, at);
        }
    }

    /// The worker of an attempt is gone: the attempt begins again, and costs one only when that happens too often.
    fn lost(&mut self, at: At, cause: &str) {
        let free = self.node(at).retry.infra;
        let is_ending = self.is_ending(at.node);
        let task = self.run.at_mut(at);
        task.lost += 1;
        if is_ending {
            return self.turn_into(at, self.run.ending(), cause.to_owned());
        }
        if free.is_some_and(|free| task.lost > free) {
            let message = format!("{cause}; {} workers were lost under it", task.lost);
            return self.fail(at, Failure::new(LOST, message));
        }
        task.resume = true;
        task.began = None;
        self.make_ready(at, cause.to_owned());
    }

    fn defer(&mut self, at: At, wait: Wait) {
        let state = if matches!(wait.on, WaitFor::Person { .. }) { TaskState::Paused } else { TaskState::Deferred };
        self.change(at, state, format!("waits for {}", wait.on));
        let moment = if let WaitFor::Time { at } = wait.on { Some(at) } else { None };
        let due = [moment, wait.until, self.deadline(at)].into_iter().flatten().min();
        let task = self.run.at_mut(at);
        task.wait = Some(wait.clone());
        let (key, number) = (task.key.clone(), task.number);
        if moment.is_none() {
            self.actions.push(Action::Wait { key, number, wait });
        }
        if let Some(due) = due {
            self.set_timer(at, due);
        }
    }

    /// The timer of a task run rang.
    pub(super) fn task_due(&mut self, at: At, due: DateTime<Utc>) {
        let task = self.task(at);
        let key = task.key.clone();
        if task.due != Some(due) {
            return self.refuse(Some(key), "that timer was stopped");
        }
        let is_late = self.deadline(at).is_some_and(|deadline| deadline <= due);
        let timeout = |what: &str| Failure::new(TIMEOUT, format!("{what} longer than it may"));
        match task.state {
            TaskState::UpForRetry => self.make_ready(at, "its next attempt is due".to_owned()),
            TaskState::UpForReschedule if is_late => self.fail(at, timeout("it looked")),
            TaskState::UpForReschedule => self.make_ready(at, "it looks again".to_owned()),
            TaskState::Deferred => match &task.wait {
                Some(Wait { on: WaitFor::Time { at: moment }, .. }) if *moment <= due => {
                    self.succeed(at, Value::Null, Default::default(), DONE);
                }
                _ => self.fail(at, timeout("it waited")),
            },
            TaskState::Paused => self.fail(at, timeout("it waited for a person")),
            TaskState::Running => {
                self.run.at_mut(at).due = None;
                self.actions.push(Action::StopTimer(Timer::Task(key)));
                let span = self.node(at).timeout.unwrap_or_default();
                self.ask_to_stop(at, StopTo::Timeout, format!("it took longer than {} s", span.as_secs_f64()));
            }
            _ => self.refuse(Some(key), "nothing waits for that timer"),
        }
    }

    /// A timer rang that tells of what is late or long.
    pub(super) fn told_late(&mut self, timer: Timer) {
        if self.run.record.state.is_terminal() {
            return;
        }
        let record = &self.run.record;
        let (occasion, cause) = match timer {
            Timer::Late => (Occasion::RunLate, self.late(self.graph.late, self.graph.late_at(record))),
            Timer::Long => (Occasion::RunLong, long(self.graph.long)),
            Timer::TaskLate(task) => {
                let Some(node) = self.open_node(&task) else { return };
                let cause = self.late(self.graph.node(node).late, self.graph.task_late_at(node, record));
                (Occasion::TaskLate { key: TaskKey::new(task) }, cause)
            }
            Timer::TaskLong(task) => {
                let Some(node) = self.open_node(&task) else { return };
                (Occasion::TaskLong { key: TaskKey::new(task) }, long(self.graph.node(node).long))
            }
            Timer::Timeout | Timer::Task(_) => return,
        };
        let change = match &occasion {
            Occasion::TaskLate { key } | Occasion::TaskLong { key } => {
                let Some(task) = self.run.task(self.graph, key) else { return };
                let (from, to) = (task.state, task.state);
                Change::Task { key: key.clone(), from, to, attempt: task.attempt, number: task.number }
            }
            _ => Change::Run { from: record.state, to: record.state },
        };
        let (run, at) = (record.id, self.at);
        self.actions.push(Action::Log(Event { run, at, change, cause: cause.clone(), by: self.by.clone() }));
        self.actions.push(Action::Notify(Notice { run, occasion, at, cause }));
    }

    /// The number of a task that is not done.
    fn open_node(&self, task: &TaskId) -> Option<usize> {
        self.graph.number(task.as_str()).filter(|node| self.is_open(*node))
    }

    /// What is told of a run or task that should have been done by `at`.
    fn late(&self, limit: Option<Duration>, at: Option<DateTime<Utc>>) -> String {
        let limit = Period(limit.unwrap_or_default());
        let by = at.map(time).unwrap_or_default();
        let late = at.and_then(|at| (self.now - at).to_std().ok()).unwrap_or_default().as_secs();
        let late =
            if late > 0 { format!(", and is {} late", Period(Duration::from_secs(late))) } else { String::new() };
        format!("its deadline of {limit} is over: it should have been done by {by}{late}")
    }

    /// Somebody's answer.
    pub(super) fn approve(&mut self, at: At, yes: bool, note: &str) {
        let task = self.task(at);
        let by = self.by.clone();
        if task.state != TaskState::Paused {
            return self.refuse(Some(task.key.clone()), format!("the task is {}, and asks nobody", task.state));
        }
        let said = if note.is_empty() { String::new() } else { format!(": {note}") };
        if yes {
            let run = self.run.at_mut(at);
            run.output = Some(serde_json::json!({ "approved": true, "by": by, "note": note }));
            run.failure = None;
            self.change(at, TaskState::Success, format!("{by} approved it{said}"));
        } else {
            let message = format!("{by} refused it{said}");
            self.run.at_mut(at).failure = Some(Failure::lasting(REFUSED, message.clone()));
            self.change(at, TaskState::Failed, message);
        }
    }
}

/// What is told of a run or task that is slow.
fn long(limit: Option<Duration>) -> String {
    format!("it takes longer than {} (warn_after)", Period(limit.unwrap_or_default()))
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
