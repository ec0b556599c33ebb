//! What must always hold, told by a model that knows only the log of what happened and the rules as the documentation has them.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use flumen_core::flow::store::{Commit, Held, Work};
use flumen_core::flow::{Change, Event, RunId, RunState, TaskKey, TaskState, Timer};
use flumen_flow::machine::{Graph, Run};
use serde_json::Value;

/// The person who asks for things.
const PERSON: &str = "ann";

#[derive(Default)]
pub struct Model {
    states: HashMap<(RunId, TaskKey), TaskState>,
    runs: HashMap<RunId, RunState>,
    outputs: HashMap<(RunId, TaskKey), Option<Value>>,
    /// The number of the last lease of all.
    number: u64,
    /// The number of the last lease of each task run.
    claims: HashMap<(RunId, TaskKey), u64>,
    ended: HashSet<Held>,
    /// When each run is to be stopped.
    stops: HashMap<RunId, Option<DateTime<Utc>>>,
    /// The timers that rang for that.
    rung: HashSet<(RunId, DateTime<Utc>)>,
}

pub fn describe(event: &Event) -> String {
    let what = match &event.change {
        Change::Run { from, to } => format!("run: {from} → {to}"),
        Change::Task { key, from, to, attempt, .. } => format!("{key}: {from} → {to} (attempt {attempt})"),
    };
    format!("{what}, {}: {}", event.by, event.cause)
}

fn hold(holds: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(wrong()) }
}

impl Model {
    /// A lease was given.
    pub fn check_claim(&mut self, work: &Work) -> Result<(), String> {
        let lease = &work.lease;
        hold(lease.number > self.number, || format!("number {} after {}", lease.number, self.number))?;
        self.number = lease.number;
        let place = (lease.run, lease.key.clone());
        hold(self.state(lease.run, &lease.key) == TaskState::Queued, || format!("{lease:?} of a task not queued"))?;
        self.claims.insert(place, lease.number);
        Ok(())
    }

    /// A lease was ended by its holder: it must be the last that was given, and not have ended before.
    pub fn check_end(&mut self, held: &Held) -> Result<(), String> {
        let last = self.claims.get(&(held.run, held.key.clone())).copied();
        hold(last == Some(held.number), || format!("{held:?} was ended, and the last one is {last:?}"))?;
        hold(self.ended.insert(held.clone()), || format!("{held:?} was ended twice"))
    }

    fn state(&self, run: RunId, key: &TaskKey) -> TaskState {
        self.states.get(&(run, key.clone())).copied().unwrap_or(TaskState::None)
    }

    /// What was committed follows from what was there.
    pub fn check(&mut self, graph: &Graph, commit: &Commit) -> Result<(), String> {
        let run = commit.run;
        for task in &commit.tasks {
            let place = (run, task.key.clone());
            self.outputs.insert(place, task.output.clone());
            let retries = graph.node(graph.number(task.key.task.as_str()).unwrap()).retry.retries;
            hold(task.tries() <= retries + 1, || {
                format!("{} had {} attempts of {}", task.key, task.tries(), retries + 1)
            })?;
        }
        for event in &commit.events {
            self.check_event(graph, event).map_err(|wrong| format!("{}: {wrong}", describe(event)))?;
        }
        for task in &commit.tasks {
            let known = self.state(run, &task.key);
            hold(known == task.state, || format!("{} is {}, and by the log {known}", task.key, task.state))?;
        }
        self.check_timeout(graph, commit)?;
        let known = self.runs.get(&run).copied().unwrap_or(RunState::Queued);
        hold(known == commit.record.state, || format!("the run is {}, and by the log {known}", commit.record.state))?;
        self.check_limits(graph, commit)
    }

    /// A run with a limit of time has a timer as long as it is open, and is ended no sooner than that says.
    fn check_timeout(&mut self, graph: &Graph, commit: &Commit) -> Result<(), String> {
        let record = &commit.record;
        let set = commit.timers.iter().find(|(timer, _)| *timer == Timer::Timeout).map(|(_, at)| *at);
        if let Some(at) = set {
            hold(at == record.stop_at, || format!("the timer is set to {at:?}, and the run stops at {record:?}"))?;
        }
        let known = self.stops.insert(record.id, record.stop_at).flatten();
        match (known, record.stop_at) {
            (old, Some(new)) if old != Some(new) => {
                let span = TimeDelta::from_std(graph.timeout.unwrap()).unwrap();
                hold(new == (commit.now + span).trunc_subsecs(6) && set.is_some(), || {
                    format!("at {} it is to stop at {new}, after {span}", commit.now)
                })?;
            }
            (Some(old), None) if !record.state.is_terminal() => {
                hold(self.rung.contains(&(record.id, old)), || format!("it was to stop at {old}, and does so before"))?;
            }
            _ => {}
        }
        let is_open = matches!(record.state, RunState::Running | RunState::Paused);
        let is_limited = graph.timeout.is_some() && is_open && record.cancelling.is_none();
        hold(!is_limited || record.stop_at.is_some() || self.is_only_torn_down(graph, record.id), || {
            format!("nothing stops {record:?}")
        })?;
        hold(is_open || record.stop_at.is_none(), || format!("it is over, and stops once more: {record:?}"))?;
        hold(!record.timed_out || record.cancelling.is_some(), || format!("it is not ended: {record:?}"))
    }

    /// A timer of a run rang.
    pub fn note_rung(&mut self, run: RunId, at: DateTime<Utc>) {
        self.rung.insert((run, at));
    }

    fn is_only_torn_down(&self, graph: &Graph, run: RunId) -> bool {
        let mut work = graph.nodes().iter().filter(|node| node.tears_down.is_empty());
        work.all(|node| self.state(run, &TaskKey::new(node.id.clone())).is_terminal())
    }

    fn check_event(&mut self, graph: &Graph, event: &Event) -> Result<(), String> {
        match &event.change {
            Change::Run { from, to } if from == to => {
                let known = self.runs.get(&event.run).copied().unwrap_or(RunState::Queued);
                hold(known == *from && !from.is_terminal(), || format!("it was {known}"))
            }
            // It is told of, and stays what it is.
            Change::Task { key, from, to, .. } if from == to => {
                let known = self.state(event.run, key);
                hold(known == *from && !from.is_terminal(), || format!("it was {known}"))
            }
            Change::Run { from, to } => {
                let known = self.runs.insert(event.run, *to).unwrap_or(RunState::Queued);
                hold(known == *from, || format!("it was {known}"))?;
                hold(!from.is_terminal() || event.by == PERSON, || "terminal is terminal".to_owned())
            }
            Change::Task { key, from, to, number, .. } => {
                let known = self.state(event.run, key);
                hold(known == *from, || format!("it was {known}"))?;
                hold(!from.is_terminal() || event.by == PERSON, || "terminal is terminal".to_owned())?;
                if *from == TaskState::Queued && *to == TaskState::Running {
                    let claim = self.claims.get(&(event.run, key.clone()));
                    hold(claim == Some(number), || format!("the claim is {claim:?}, not {number}"))?;
                }
                let is_begun = !matches!(from, TaskState::None | TaskState::Scheduled | TaskState::Queued);
                let node = graph.node(graph.number(key.task.as_str()).unwrap());
                let is_given = node.given.is_some();
                let makes_list = node.map.is_some() && key.index.is_none();
                hold(*to != TaskState::Success || is_begun || is_given || event.by == PERSON, || {
                    "nobody did it".to_owned()
                })?;
                hold(*to != TaskState::Queued || !is_given || makes_list, || "there is nothing to do".to_owned())?;
                if *from == TaskState::None {
                    self.check_begin(graph, event, key, *to)?;
                }
                self.states.insert((event.run, key.clone()), *to);
                Ok(())
            }
        }
    }

    /// A task leaves its first state: its rule must say so.
    fn check_begin(&self, graph: &Graph, event: &Event, key: &TaskKey, to: TaskState) -> Result<(), String> {
        if key.index.is_some() {
            let whole = self.state(event.run, &TaskKey::new(key.task.clone()));
            let begins = matches!(to, TaskState::Scheduled | TaskState::Queued | TaskState::Success);
            return hold(!begins || whole == TaskState::Running, || format!("the task as a whole is {whole}"));
        }
        if event.by == PERSON && event.cause.starts_with("ann marked") || to == TaskState::Cancelled {
            return Ok(());
        }
        if to == TaskState::UpstreamFailed && event.cause.starts_with("not begun: the run took longer than") {
            let stops = self.rung.iter().any(|(run, _)| *run == event.run);
            return hold(stops, || "no time was over".to_owned());
        }
        let number = graph.number(key.task.as_str()).unwrap();
        let asks_first = graph.node(number).depends_on_past || graph.node(number).when;
        hold(!(asks_first && matches!(to, TaskState::Queued | TaskState::Success)), || "it asked nobody".to_owned())?;
        let states: Vec<TaskState> =
            graph.nodes().iter().map(|node| self.state(event.run, &TaskKey::new(node.id.clone()))).collect();
        let said = match to {
            TaskState::Scheduled | TaskState::Queued | TaskState::Success => "run",
            TaskState::Skipped => "skipped",
            TaskState::UpstreamFailed => "upstream_failed",
            _ => return Err("nothing leads there".to_owned()),
        };
        let output = |branch: usize| {
            self.outputs.get(&(event.run, TaskKey::new(graph.node(branch).id.clone()))).cloned().flatten()
        };
        // A branch that succeeded and was cleared in one commit has not left its choice.
        let is_unknown =
            |need: &usize| graph.node(*need).branch && states[*need] == TaskState::Success && output(*need).is_none();
        if graph.node(number).needs.iter().any(is_unknown) {
            return Ok(());
        }
        let should = rule_says(graph, number, &states, output);
        hold(should == said, || format!("the rule says {should} of {states:?}"))
    }

    fn check_limits(&self, graph: &Graph, commit: &Commit) -> Result<(), String> {
        for node in graph.nodes() {
            let Some(limit) = node.map.and_then(|map| map.at_once) else { continue };
            let active = self.states.iter().filter(|((run, key), state)| {
                let is_idle = matches!(state, TaskState::None | TaskState::Scheduled) || state.is_terminal();
                *run == commit.run && key.task == node.id && key.index.is_some() && !is_idle
            });
            let active = active.count();
            hold(active <= limit as usize, || format!("{active} items of {} at work, of {limit}", node.id))?;
        }
        Ok(())
    }

    /// Nothing that could go on has been left lying.
    pub fn check_settled(&self, graph: &Graph, run: &Run) -> Result<(), String> {
        let record = run.record();
        if record.state == RunState::Queued || record.state.is_terminal() {
            return Ok(());
        }
        let key = |number: usize| TaskKey::new(graph.node(number).id.clone());
        let state = |number| run.task(graph, &key(number)).unwrap().state;
        let states: Vec<TaskState> = (0..graph.nodes().len()).map(state).collect();
        for number in (0..states.len()).filter(|number| states[*number] == TaskState::None) {
            let id = &graph.node(number).id;
            let has_items = run.tasks().any(|task| {
                let is_idle = matches!(task.state, TaskState::None | TaskState::Scheduled) || task.state.is_terminal();
                task.key.task == *id && task.key.index.is_some() && !is_idle
            });
            if has_items {
                continue;
            }
            let says = rule_says(graph, number, &states, |branch| {
                run.task(graph, &key(branch)).and_then(|task| task.output.clone())
            });
            hold(says == "wait", || format!("{id} was left lying, and its rule says {says} of {states:?}"))?;
            let tears_down = !graph.node(number).tears_down.is_empty();
            hold(record.cancelling.is_none() || tears_down, || format!("{id} was left lying in a cancelled run"))?;
        }
        if record.timed_out {
            for task in run.tasks() {
                let tears_down = !graph.node(graph.number(task.key.task.as_str()).unwrap()).tears_down.is_empty();
                let is_stopped = task.state == TaskState::Running && task.stop.is_some();
                let is_begun = !matches!(task.state, TaskState::None) && !task.state.is_terminal();
                hold(tears_down || is_stopped || !is_begun, || format!("the run took too long, and {task:?}"))?;
            }
        }
        hold(states.iter().any(|state| !state.is_terminal()), || format!("the run is {} with all done", record.state))
    }

    /// All has come to its end.
    pub fn check_ended(&self, graph: &Graph, run: &Run) -> Result<(), String> {
        let record = run.record();
        for task in run.tasks() {
            let is_clean = task.state.is_terminal()
                && task.due.is_none()
                && task.asked.is_none()
                && task.wait.is_none()
                && task.stop.is_none();
            hold(is_clean, || format!("the run is {}, and {task:?}", record.state))?;
            let (known, claim) = (self.state(record.id, &task.key), self.claims.get(&(record.id, task.key.clone())));
            hold(known == task.state, || format!("{} is {}, and by the log {known}", task.key, task.state))?;
            hold(claim.copied().unwrap_or_default() == task.number, || format!("{} missed {claim:?}", task.key))?;
        }
        let works = |number: usize| graph.node(number).tears_down.is_empty();
        let is_leaf = |number: &usize| works(*number) && !graph.after(*number).iter().any(|later| works(*later));
        let leaves = (0..graph.nodes().len()).filter(is_leaf);
        let states: Vec<TaskState> =
            leaves.map(|number| self.state(record.id, &TaskKey::new(graph.node(number).id.clone()))).collect();
        let any = |wanted: &[TaskState]| states.iter().any(|state| wanted.contains(state));
        let is_undone = |number: usize| {
            let state = self.state(record.id, &TaskKey::new(graph.node(number).id.clone()));
            matches!(state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled)
        };
        let should = if record.timed_out && (0..graph.nodes().len()).any(|number| works(number) && is_undone(number)) {
            RunState::Failed
        } else if any(&[TaskState::Cancelled]) {
            RunState::Cancelled
        } else if any(&[TaskState::Failed, TaskState::UpstreamFailed]) {
            RunState::Failed
        } else {
            RunState::Success
        };
        hold(record.state == should, || format!("the run is {}, with leaves {states:?}", record.state))
    }
}

/// What the documentation says of a task: `wait`, `run`, `skipped` or `upstream_failed`.
fn rule_says(
    graph: &Graph,
    number: usize,
    states: &[TaskState],
    output: impl Fn(usize) -> Option<Value>,
) -> &'static str {
    let node = graph.node(number);
    let ups: Vec<TaskState> = node.needs.iter().map(|need| states[*need]).collect();
    if !node.tears_down.is_empty() {
        let setups: Vec<TaskState> = node.tears_down.iter().map(|setup| states[*setup]).collect();
        return if ups.iter().any(|state| !state.is_terminal()) {
            "wait"
        } else if setups.contains(&TaskState::Success) {
            "run"
        } else if setups.iter().all(|state| *state == TaskState::Skipped) {
            "skipped"
        } else {
            "upstream_failed"
        };
    }
    for need in &node.needs {
        if graph.node(*need).branch
            && states[*need] == TaskState::Success
            && let Some(names) = output(*need).as_ref().and_then(names)
            && !is_on_way(graph, number, &names)
        {
            return "skipped";
        }
    }
    table(node.rule.name(), &ups)
}

/// The tasks that a branch's output names; `None` where it is a person's yes, which names none.
fn names(output: &Value) -> Option<Vec<String>> {
    match output {
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(names) => Some(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()),
        Value::Object(fields) => names(fields.get("branch")?),
        _ => Some(vec![]),
    }
}

/// Whether a task is one of those named, or comes after one of them.
fn is_on_way(graph: &Graph, number: usize, names: &[String]) -> bool {
    names.iter().any(|name| name == graph.node(number).id.as_str())
        || graph.node(number).needs.iter().any(|need| is_on_way(graph, *need, names))
}

/// The table of trigger rules, as it is written.
pub fn table(rule: &str, ups: &[TaskState]) -> &'static str {
    let count = |wanted: &[TaskState]| ups.iter().filter(|state| wanted.contains(state)).count();
    let n = ups.len();
    let s = count(&[TaskState::Success, TaskState::Removed]);
    let k = count(&[TaskState::Skipped]);
    let f = count(&[TaskState::Failed, TaskState::Cancelled]);
    let u = count(&[TaskState::UpstreamFailed]);
    let all_done = s + k + f + u == n;
    if n == 0 {
        return "run";
    }
    let (runs, fails, skips) = match rule {
        "all_success" => (s == n, f > 0 || u > 0, k > 0),
        "all_failed" => (f + u == n, false, s > 0 || k > 0),
        "all_done" => (all_done, false, false),
        "all_done_min_one_success" => (all_done && k == 0 && s >= 1, all_done && s == 0 && k == 0, k > 0),
        "one_success" => (s >= 1, all_done && s == 0 && k < n, all_done && k == n),
        "one_failed" => (f > 0 || u > 0, false, all_done && f == 0 && u == 0),
        "one_done" => (s + f >= 1, false, all_done && s == 0 && f == 0),
        "none_failed" => (s + k == n, f > 0 || u > 0, false),
        "none_failed_min_one_success" => (s + k == n && k < n, f > 0 || u > 0, k == n),
        "none_skipped" => (all_done && k == 0, false, k >= 1),
        "all_skipped" => (k == n, false, s > 0 || f > 0 || u > 0),
        "always" => (true, false, false),
        other => panic!("there is no rule {other}"),
    };
    // Where a failure and a skip both decide, the failure is told.
    match (runs, fails, skips) {
        (true, ..) => "run",
        (_, true, _) => "upstream_failed",
        (.., true) => "skipped",
        _ => "wait",
    }
}
