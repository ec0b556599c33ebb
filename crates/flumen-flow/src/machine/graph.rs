//! A flow as the machine sees it: tasks by number, and what comes after what.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::{FlowName, RunRecord, TaskId, TaskKey, TriggerRule};
use flumen_core::{Error, Result};
use serde_json::Value;

use super::retry::Retry;

/// The pool of a task that names none.
pub const DEFAULT_POOL: &str = "default";

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name.
    pub id: TaskId,
    /// The tasks that it needs, by number.
    pub needs: Vec<usize>,
    /// What it makes of their states.
    pub rule: TriggerRule,
    /// What becomes of its failures.
    pub retry: Retry,
    /// How long an attempt may take, its waits included.
    pub timeout: Option<Duration>,
    /// How long after the run was due it should be done.
    pub late: Option<Duration>,
    /// How long it should take.
    pub long: Option<Duration>,
    /// Where it waits for a worker.
    pub pool: String,
    /// How many slots of the pool it takes.
    pub slots: u32,
    /// The higher, the sooner.
    pub priority: i32,
    /// Whether it has a condition.
    pub when: bool,
    /// Whether it waits for itself in the run before.
    pub depends_on_past: bool,
    /// The list for whose items it runs, if it does.
    pub map: Option<Map>,
    /// Whether its output names those that go on, of the tasks that need it.
    pub branch: bool,
    /// The tasks that set up what it tears down.
    pub tears_down: Vec<usize>,
    /// The group to which it belongs.
    pub group: Option<String>,
    /// Who wants to be told what.
    pub hooks: Hooks,
    /// Its output, where that is known before: it is done as soon as it may begin, and needs no worker.
    pub given: Option<Value>,
}

impl Node {
    /// A task that needs `needs`, and is ordinary in everything else.
    pub fn new(id: impl Into<TaskId>, needs: impl Into<Vec<usize>>) -> Self {
        Self {
            id: id.into(),
            needs: needs.into(),
            rule: TriggerRule::AllSuccess,
            retry: Retry::default(),
            timeout: None,
            late: None,
            long: None,
            pool: DEFAULT_POOL.to_owned(),
            slots: 1,
            priority: 0,
            when: false,
            depends_on_past: false,
            map: None,
            branch: false,
            tears_down: Vec::new(),
            group: None,
            hooks: Hooks::default(),
            given: None,
        }
    }
}

/// The list for whose items a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// Whether a worker makes the list, from a query or a glob: that is an attempt at the task as a whole. Otherwise it is asked
    /// for.
    pub by_worker: bool,
    /// How many items may be at work at once.
    pub at_once: Option<u32>,
    /// How many items the list may have.
    pub limit: Option<u32>,
}

/// What somebody wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hooks {
    /// That it failed for good.
    pub failure: bool,
    /// That it succeeded.
    pub success: bool,
    /// That an attempt failed, and another follows.
    pub retry: bool,
}

impl Hooks {
    /// What this or `other` wants.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            failure: self.failure || other.failure,
            success: self.success || other.success,
            retry: self.retry || other.retry,
        }
    }
}

/// A flow, compiled. Made once for a version of a flow, and shared by its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// The flow.
    pub flow: FlowName,
    /// Who wants to be told how a run ends.
    pub hooks: Hooks,
    /// How long after the end of its interval a run should be done.
    pub late: Option<Duration>,
    /// How long a run should take.
    pub long: Option<Duration>,
    /// How long a run may take.
    pub timeout: Option<Duration>,
    nodes: Vec<Node>,
    numbers: HashMap<TaskId, usize>,
    after: Vec<Vec<usize>>,
    leaves: Vec<bool>,
}

impl Graph {
    /// From when on a run is later than it should be, if that is said: counted from when it was due, or asked for after that.
    pub fn late_at(&self, run: &RunRecord) -> Option<DateTime<Utc>> {
        after_due(run, self.late?)
    }

    /// From when on a task of a run is later than it should be, if that is said; counted in the same way.
    pub fn task_late_at(&self, number: usize, run: &RunRecord) -> Option<DateTime<Utc>> {
        after_due(run, self.nodes[number].late?)
    }

    /// The flow `flow` of these tasks.
    ///
    /// A task needs what it tears down, whether it says so or not.
    ///
    /// Errors: `Invalid` for two tasks of one name, for a need that is not there, for a circle, and for a branch that runs for
    /// each of a list.
    pub fn new(flow: impl Into<FlowName>, mut nodes: Vec<Node>) -> Result<Self> {
        let flow = flow.into();
        for node in &mut nodes {
            node.needs.extend_from_slice(&node.tears_down);
            let mut seen = HashSet::new();
            node.needs.retain(|need| seen.insert(*need));
        }
        let mut numbers = HashMap::with_capacity(nodes.len());
        let mut after = vec![Vec::new(); nodes.len()];
        for (number, node) in nodes.iter().enumerate() {
            if numbers.insert(node.id.clone(), number).is_some() {
                return Err(Error::invalid(format!("flow '{flow}' has two tasks '{}'", node.id)));
            }
            if node.branch && node.map.is_some() {
                return Err(Error::invalid(format!("task '{}' cannot branch for each of a list", node.id)));
            }
            for need in &node.needs {
                match after.get_mut(*need) {
                    Some(after) => after.push(number),
                    None => return Err(Error::invalid(format!("task '{}' needs a task that is not there", node.id))),
                }
            }
        }
        let is_leaf =
            |number: usize| nodes[number].tears_down.is_empty() && later_work(&nodes, &after[number]).is_none();
        let mut leaves: Vec<bool> = (0..nodes.len()).map(is_leaf).collect();
        if !leaves.contains(&true) {
            leaves.fill(true);
        }
        let graph = Self {
            flow,
            hooks: Hooks::default(),
            late: None,
            long: None,
            timeout: None,
            nodes,
            numbers,
            after,
            leaves,
        };
        match graph.circle() {
            Some(within) => Err(Error::invalid(format!("flow '{}' goes in a circle at task '{within}'", graph.flow))),
            None => Ok(graph),
        }
    }

    /// A task that could never begin, since it needs itself in the end.
    fn circle(&self) -> Option<&TaskId> {
        let mut open: Vec<usize> = self.nodes.iter().map(|node| node.needs.len()).collect();
        let mut ready: Vec<usize> = (0..open.len()).filter(|number| open[*number] == 0).collect();
        while let Some(number) = ready.pop() {
            for later in &self.after[number] {
                open[*later] -= 1;
                if open[*later] == 0 {
                    ready.push(*later);
                }
            }
        }
        open.iter().position(|needs| *needs > 0).map(|number| &self.nodes[number].id)
    }

    /// The tasks, by number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A task.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// The number of the task called `id`.
    pub fn number(&self, id: &str) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    /// The tasks that need this one.
    pub fn after(&self, number: usize) -> &[usize] {
        &self.after[number]
    }

    /// Whether the state of a run depends on this task: no other work needs it, and it tears nothing down.
    pub fn is_leaf(&self, number: usize) -> bool {
        self.leaves[number]
    }

    /// The tasks of a group, as keys.
    pub fn group(&self, name: &str) -> Vec<TaskKey> {
        let within = |node: &&Node| node.group.as_deref() == Some(name);
        self.nodes.iter().filter(within).map(|node| TaskKey::new(node.id.clone())).collect()
    }

    /// For each task, whether it is one of `from` or comes after one of them.
    pub fn downstream(&self, from: impl IntoIterator<Item = usize>) -> Vec<bool> {
        self.reach(from, |number| &self.after[number])
    }

    /// For each task, whether it is one of `from` or comes before one of them.
    pub fn upstream(&self, from: impl IntoIterator<Item = usize>) -> Vec<bool> {
        self.reach(from, |number| &self.nodes[number].needs)
    }

    fn reach<'a>(&'a self, from: impl IntoIterator<Item = usize>, next: impl Fn(usize) -> &'a Vec<usize>) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        let mut open: Vec<usize> = from.into_iter().collect();
        while let Some(number) = open.pop() {
            if !std::mem::replace(&mut reached[number], true) {
                open.extend(next(number));
            }
        }
        reached
    }
}

fn after_due(run: &RunRecord, time: Duration) -> Option<DateTime<Utc>> {
    run.interval.end.max(run.created).checked_add_signed(TimeDelta::from_std(time).ok()?)
}

fn later_work(nodes: &[Node], after: &[usize]) -> Option<usize> {
    after.iter().copied().find(|later| nodes[*later].tears_down.is_empty())
}
