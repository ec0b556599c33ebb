//! One step of a run: what a signal changes, and what is to be done about it.

mod control;
mod ending;
mod items;
mod life;

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use flumen_core::flow::{
    Ask, Event, Notice, Outcome, Queued, RunState, Signal, TaskKey, TaskRun, TaskState, Timer, Touched, Wait,
};

use super::graph::{Graph, Node};
use super::rule::{Verdict, judge, judge_teardown};
use super::run::{At, Run};

/// Who is behind what nobody asked for.
const SCHEDULER: &str = "scheduler";

/// Something that is to be done about a run. [`Batch`](super::Batch) puts them into one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Keep this task run as it is now.
    Save(TaskKey),
    /// This happened.
    Log(Event),
    /// Put a task run into the queue.
    Enqueue(Queued),
    /// Take a task run out of the queue; no worker may have it.
    Dequeue(TaskKey),
    /// Send [`Signal::Due`] at this time.
    SetTimer(Timer, DateTime<Utc>),
    /// Do not.
    StopTimer(Timer),
    /// Ask the holder of a lease to stop.
    Stop {
        /// The task run.
        key: TaskKey,
        /// The number of the lease.
        number: u64,
        /// Why, in words.
        cause: String,
    },
    /// Watch for something, and send [`Signal::Ended`] with this number.
    Wait {
        /// The task run.
        key: TaskKey,
        /// The number of the attempt.
        number: u64,
        /// For what.
        wait: Wait,
    },
    /// Watch no more.
    Unwait(TaskKey),
    /// Find out, and send [`Signal::Answered`].
    Ask {
        /// About which task.
        key: TaskKey,
        /// What.
        ask: Ask,
    },
    /// Tell whoever wants to know.
    Notify(Notice),
    /// Data sets were read and changed.
    Touch(Touched),
    /// Send this to the run after this one.
    TellNext(Signal),
    /// The signal comes too late, twice, or fits nothing; it has changed nothing.
    Refuse {
        /// The task run that it was about.
        key: Option<TaskKey>,
        /// Why, in words.
        cause: String,
    },
}

/// Steps `run` of `graph`: it is told `signal`, and it is `now`.
pub fn step(run: &mut Run, graph: &Graph, now: DateTime<Utc>, signal: Signal) -> Vec<Action> {
    let mut step =
        Step { run, graph, now, at: now, by: SCHEDULER.to_owned(), actions: Vec::new(), woken: VecDeque::new() };
    let is_report = matches!(signal, Signal::Claimed { .. } | Signal::Ended { .. });
    step.take(signal);
    if is_report {
        // What follows from a worker's report is not the worker's doing.
        step.by = SCHEDULER.to_owned();
    }
    step.settle();
    step.actions
}

struct Step<'a> {
    run: &'a mut Run,
    graph: &'a Graph,
    now: DateTime<Utc>,
    /// When what happens happened; a signal may have been under way.
    at: DateTime<Utc>,
    /// Who is behind it.
    by: String,
    actions: Vec<Action>,
    /// Tasks that may go on.
    woken: VecDeque<usize>,
}

impl Step<'_> {
    fn take(&mut self, signal: Signal) {
        match signal {
            Signal::Start => self.start(),
            Signal::Claimed { key, number, worker, at } => {
                self.at = at;
                self.by = format!("worker {worker}");
                self.with(&key, |step, at| step.claimed(at, number, worker));
            }
            Signal::Ended { key, number, outcome, at } => {
                self.at = at;
                self.with(&key, |step, at| step.ended(at, number, outcome));
            }
            Signal::Due { timer: Timer::Task(key), at } => self.with(&key, |step, place| step.task_due(place, at)),
            Signal::Due { timer: Timer::Timeout, at } => self.run_timed_out(at),
            Signal::Due { timer, .. } => self.told_late(timer),
            Signal::Answered { key, answer } => self.with(&key, |step, at| step.answered(at, answer)),
            Signal::PastDone { task } => {
                if let Some(node) = self.graph.number(task.as_str()) {
                    self.past_done(node);
                }
            }
            Signal::Cancel { by } => self.behind(by).cancel(),
            Signal::Clear { keys, downstream, by } => self.behind(by).clear(&keys, downstream),
            Signal::Retry { by } => self.behind(by).retry(),
            Signal::Mark { key, to, by } => self.behind(by).with(&key, |step, at| step.mark(at, to)),
            Signal::Pause { by } => self.behind(by).pause(),
            Signal::Resume { by } => self.behind(by).resume(),
            Signal::Approve { key, yes, by, note } => {
                self.behind(by).with(&key, |step, at| step.approve(at, yes, &note));
            }
        }
    }

    fn behind(&mut self, by: String) -> &mut Self {
        self.by = by;
        self
    }

    fn with(&mut self, key: &TaskKey, act: impl FnOnce(&mut Self, At)) {
        match self.run.find(self.graph, key) {
            Some(at) => act(self, at),
            None => self.refuse(Some(key.clone()), "there is no such task in the run"),
        }
    }

    fn refuse(&mut self, key: Option<TaskKey>, cause: impl Into<String>) {
        self.actions.push(Action::Refuse { key, cause: cause.into() });
    }

    fn task(&self, at: At) -> &TaskRun {
        self.run.at(at)
    }

    fn node(&self, at: At) -> &Node {
        self.graph.node(at.node)
    }

    fn is_teardown(&self, node: usize) -> bool {
        !self.graph.node(node).tears_down.is_empty()
    }

    /// Whether a task is not done.
    fn is_open(&self, node: usize) -> bool {
        !self.run.nodes[node].task.state.is_terminal()
    }

    /// Whether items of the task are at work.
    fn is_busy(&self, node: usize) -> bool {
        self.run.nodes[node].tally.active > 0
    }

    /// Whether `node` must not begin anything any more.
    fn is_ending(&self, node: usize) -> bool {
        self.run.record.cancelling.is_some() && !self.is_teardown(node)
    }

    /// Lets everything go on that can, until nothing can.
    fn settle(&mut self) {
        while let Some(node) = self.woken.pop_front() {
            if self.run.is_expanded(node) {
                self.tend(node);
            } else {
                self.consider(node);
            }
        }
        self.conclude_run();
    }

    /// Whether a task begins, or never does.
    fn consider(&mut self, node: usize) {
        let state = self.run.nodes[node].task.state;
        let waits_for_start = self.run.record.state == RunState::Queued && self.run.record.cancelling.is_none();
        if state != TaskState::None || self.is_busy(node) || waits_for_start || self.run.record.state.is_terminal() {
            return;
        }
        let verdict = self.verdict(node);
        let at = At::whole(node);
        if let Some(cause) = &self.run.record.cancelling {
            // A teardown goes by its rule, and is cancelled with a run that somebody cancelled before anything was set up.
            let is_open = self.run.record.timed_out || matches!(verdict, Verdict::Run | Verdict::Wait);
            if !(is_open && self.is_teardown(node)) {
                let (to, cause) = (self.run.ending(), cause.clone());
                return self.turn_into(at, to, cause);
            }
        }
        match verdict {
            Verdict::Wait => {}
            Verdict::Run => self.begin(node),
            Verdict::Skip => {
                let cause = match self.passed_over(node) {
                    Some(branch) => format!("branch '{branch}' went another way"),
                    None => self.because(node, "skipped"),
                };
                self.change(at, TaskState::Skipped, cause);
            }
            Verdict::UpstreamFailed => self.change(at, TaskState::UpstreamFailed, self.because(node, "not run")),
        }
    }

    fn verdict(&self, number: usize) -> Verdict {
        let node = self.graph.node(number);
        let counts = &self.run.nodes[number].needs;
        let all = u32::try_from(node.needs.len()).unwrap_or(u32::MAX);
        if !node.tears_down.is_empty() {
            let setups = node.tears_down.iter().map(|setup| self.run.nodes[*setup].task.state);
            judge_teardown(all, counts, setups)
        } else if self.passed_over(number).is_some() {
            Verdict::Skip
        } else {
            judge(node.rule, all, counts)
        }
    }

    /// Why a rule decided against a task.
    fn because(&self, number: usize, what: &str) -> String {
        let node = self.graph.node(number);
        let counts = &self.run.nodes[number].needs;
        let rule = if node.tears_down.is_empty() { node.rule.name() } else { "teardown" };
        let blamed = node.needs.iter().map(|need| &self.run.nodes[*need].task).find(|task| {
            let bad = matches!(task.state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled);
            if counts.failed + counts.upstream_failed > 0 { bad } else { task.state == TaskState::Skipped }
        });
        match blamed {
            Some(task) => format!("{what}: its rule is {rule}, and task '{}' is {}", task.key, task.state),
            None => format!("{what}: its rule is {rule}, and all {} tasks before it succeeded", node.needs.len()),
        }
    }

    /// The branch that went another way than to this task.
    fn passed_over(&self, number: usize) -> Option<&str> {
        let branches = self.graph.node(number).needs.iter().copied().filter(|need| self.graph.node(*need).branch);
        for branch in branches {
            let task = &self.run.nodes[branch].task;
            if task.state != TaskState::Success {
                continue;
            }
            let chosen = task.output.as_ref().and_then(|output| chosen(self.graph, branch, output).ok());
            if chosen.is_some_and(|chosen| !self.graph.downstream(chosen)[number]) {
                return Some(task.key.task.as_str());
            }
        }
        None
    }
}

/// The tasks that a branch's output names: a name, a list of names, or an object with them in `branch`. The name of a group stands
/// for those of its tasks that need the branch.
fn chosen(graph: &Graph, branch: usize, output: &serde_json::Value) -> Result<Vec<usize>, String> {
    use serde_json::Value;
    let names: Vec<&Value> = match output {
        Value::Object(fields) if fields.contains_key("branch") => return chosen(graph, branch, &fields["branch"]),
        Value::Array(names) => names.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let mut tasks = Vec::new();
    for name in names {
        let text = name.as_str().ok_or_else(|| format!("{name} is not the name of a task"))?;
        let matches = |number: &&usize| {
            let node = graph.node(**number);
            node.id.as_str() == text || node.group.as_deref() == Some(text)
        };
        let before = tasks.len();
        tasks.extend(graph.after(branch).iter().filter(matches));
        if tasks.len() == before {
            return Err(format!("no task '{text}' needs this one"));
        }
    }
    Ok(tasks)
}

/// Whether an outcome says that the work was done, whatever anybody wants of it by now.
fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Success { .. } | Outcome::Reused { .. } | Outcome::Skipped { .. })
}
