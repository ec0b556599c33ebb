//! Where the tasks of a run are.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use flumen_core::flow::{Ask, RunRecord, StopTo, TaskKey, TaskRun, TaskState};
use flumen_core::{Error, Result};
use serde_json::Value;

use super::graph::Graph;
use super::rule::Counts;

/// A run: its record, its task runs, and what is counted about them so that nothing has to be looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub(super) record: RunRecord,
    pub(super) nodes: Vec<NodeRun>,
    /// Tasks that are not terminal.
    pub(super) open: usize,
    /// Leaves that failed, or could not be done.
    pub(super) leaves_failed: usize,
    /// Leaves that were cancelled.
    pub(super) leaves_cancelled: usize,
    /// Tasks about which there is an unanswered question.
    pub(super) asked: BTreeMap<usize, Ask>,
}

/// One task of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NodeRun {
    pub(super) task: TaskRun,
    /// Its items, so far as they have been begun.
    pub(super) kids: Vec<TaskRun>,
    pub(super) tally: Tally,
    /// The states of the tasks that it needs.
    pub(super) needs: Counts,
}

/// What the items of a task are doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Begun, and not done.
    pub(super) active: u32,
    /// Done, however.
    pub(super) done: u32,
    pub(super) skipped: u32,
    pub(super) failed: u32,
    pub(super) cancelled: u32,
    /// Those that are to be begun again.
    pub(super) idle: BTreeSet<u32>,
}

impl Tally {
    fn enter(&mut self, index: u32, state: TaskState) {
        self.count(state, |count| *count += 1);
        if matches!(state, TaskState::None | TaskState::Scheduled) {
            self.idle.insert(index);
        }
    }

    fn leave(&mut self, index: u32, state: TaskState) {
        self.count(state, |count| *count -= 1);
        self.idle.remove(&index);
    }

    fn count(&mut self, state: TaskState, change: impl Fn(&mut u32)) {
        match state {
            TaskState::None | TaskState::Scheduled => {}
            state if state.is_terminal() => change(&mut self.done),
            _ => change(&mut self.active),
        }
        match state {
            TaskState::Skipped => change(&mut self.skipped),
            TaskState::Failed | TaskState::UpstreamFailed => change(&mut self.failed),
            TaskState::Cancelled => change(&mut self.cancelled),
            _ => {}
        }
    }
}

/// The place of a task run within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) node: usize,
    pub(super) kid: Option<u32>,
}

impl At {
    /// The task as a whole.
    pub(super) fn whole(node: usize) -> Self {
        Self { node, kid: None }
    }

    pub(super) fn item(node: usize, kid: u32) -> Self {
        Self { node, kid: Some(kid) }
    }
}

impl Run {
    /// A run of `graph` to which nothing has happened yet.
    pub fn new(graph: &Graph, record: RunRecord) -> Self {
        let nodes: Vec<NodeRun> = graph
            .nodes()
            .iter()
            .map(|node| NodeRun {
                task: TaskRun::new(TaskKey::new(node.id.clone()), record.created),
                kids: Vec::new(),
                tally: Tally::default(),
                needs: Counts::default(),
            })
            .collect();
        let open = nodes.len();
        Self { record, nodes, open, leaves_failed: 0, leaves_cancelled: 0, asked: BTreeMap::new() }
    }

    /// The run of `graph` that a store has kept.
    ///
    /// Errors: `Internal` for a task run that is not of this graph.
    pub fn restore(graph: &Graph, record: RunRecord, tasks: impl IntoIterator<Item = TaskRun>) -> Result<Self> {
        let mut run = Self::new(graph, record);
        let mut kids: Vec<BTreeMap<u32, TaskRun>> = vec![BTreeMap::new(); run.nodes.len()];
        for task in tasks {
            let number = graph.number(task.key.task.as_str()).ok_or_else(|| {
                Error::internal(format!("run {}: there is no task '{}' in its flow", run.record.id, task.key))
            })?;
            match task.key.index {
                Some(index) => drop(kids[number].insert(index, task)),
                None => run.nodes[number].task = task,
            }
        }
        for (number, kids) in kids.into_iter().enumerate() {
            for (index, kid) in kids {
                if index as usize != run.nodes[number].kids.len() {
                    return Err(Error::internal(format!(
                        "run {}: an item before '{}' is missing",
                        run.record.id, kid.key
                    )));
                }
                run.nodes[number].tally.enter(index, kid.state);
                run.nodes[number].kids.push(kid);
            }
            let (state, asked) = (run.nodes[number].task.state, run.nodes[number].task.asked);
            run.asked.extend(asked.map(|ask| (number, ask)));
            run.count(graph, number, TaskState::None, state);
        }
        Ok(run)
    }

    /// The run, without its tasks.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// A task run; `None` where there is no such task, or the item was not begun yet.
    pub fn task(&self, graph: &Graph, key: &TaskKey) -> Option<&TaskRun> {
        self.find(graph, key).map(|at| self.at(at))
    }

    /// The task runs to which something has happened: what a store keeps.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskRun> {
        let touched = |task: &&TaskRun| task.key.index.is_some() || !task.cause.is_empty();
        self.nodes.iter().flat_map(|node| std::iter::once(&node.task).chain(&node.kids)).filter(touched)
    }

    /// What the task called `id` gives to later tasks: for one that ran for each of a list, the list of what they give.
    pub fn output(&self, graph: &Graph, id: &str) -> Option<Value> {
        let node = &self.nodes[graph.number(id)?];
        match &node.task.items {
            Some(items) => {
                let kids = node.kids.iter().take(items.len());
                Some(kids.map(|kid| kid.output.clone().unwrap_or_default()).collect())
            }
            None => node.task.output.clone(),
        }
    }

    /// The questions that nobody has answered yet.
    pub fn questions(&self) -> impl Iterator<Item = (&TaskKey, Ask)> {
        self.asked.iter().map(|(number, ask)| (&self.nodes[*number].task.key, *ask))
    }

    pub(super) fn find(&self, graph: &Graph, key: &TaskKey) -> Option<At> {
        let node = graph.number(key.task.as_str())?;
        match key.index {
            Some(kid) if kid as usize >= self.nodes[node].kids.len() => None,
            kid => Some(At { node, kid }),
        }
    }

    pub(super) fn at(&self, at: At) -> &TaskRun {
        let node = &self.nodes[at.node];
        at.kid.map_or(&node.task, |kid| &node.kids[kid as usize])
    }

    pub(super) fn at_mut(&mut self, at: At) -> &mut TaskRun {
        let node = &mut self.nodes[at.node];
        match at.kid {
            Some(kid) => &mut node.kids[kid as usize],
            None => &mut node.task,
        }
    }

    /// Whether the task runs for items, and has begun to.
    pub(super) fn is_expanded(&self, node: usize) -> bool {
        let task = &self.nodes[node].task;
        task.state == TaskState::Running && task.items.is_some()
    }

    /// What becomes of the tasks of a run that is being ended.
    pub(super) fn ending(&self) -> StopTo {
        if self.record.timed_out { StopTo::Timeout } else { StopTo::Cancelled }
    }

    /// Whether it took too long, and something was left undone.
    pub(super) fn is_cut_short(&self, graph: &Graph) -> bool {
        use TaskState::{Cancelled, Failed, UpstreamFailed};
        let is_undone = |task: &TaskRun| matches!(task.state, Failed | UpstreamFailed | Cancelled);
        let mut work = self.nodes.iter().zip(graph.nodes()).filter(|(_, node)| node.tears_down.is_empty());
        self.record.timed_out && work.any(|(run, _)| is_undone(&run.task))
    }

    /// Adds the next item of a task's list.
    pub(super) fn add_item(&mut self, node: usize, now: DateTime<Utc>) -> At {
        let node_run = &mut self.nodes[node];
        let kid = u32::try_from(node_run.kids.len()).unwrap_or(u32::MAX);
        let key = TaskKey::item(node_run.task.key.task.clone(), kid);
        node_run.kids.push(TaskRun::new(key, now));
        At::item(node, kid)
    }

    /// Puts a task run into another state, and counts it there.
    pub(super) fn put(&mut self, graph: &Graph, at: At, to: TaskState) {
        let from = std::mem::replace(&mut self.at_mut(at).state, to);
        match at.kid {
            Some(kid) => {
                let tally = &mut self.nodes[at.node].tally;
                tally.leave(kid, from);
                tally.enter(kid, to);
            }
            None => self.count(graph, at.node, from, to),
        }
    }

    fn count(&mut self, graph: &Graph, number: usize, from: TaskState, to: TaskState) {
        if from == to || !(from.is_terminal() || to.is_terminal()) {
            return;
        }
        self.open = self.open + usize::from(from.is_terminal()) - usize::from(to.is_terminal());
        for later in graph.after(number) {
            self.nodes[*later].needs.shift(from, to);
        }
        if graph.is_leaf(number) {
            let failed = |state| usize::from(matches!(state, TaskState::Failed | TaskState::UpstreamFailed));
            let cancelled = |state| usize::from(state == TaskState::Cancelled);
            self.leaves_failed = self.leaves_failed + failed(to) - failed(from);
            self.leaves_cancelled = self.leaves_cancelled + cancelled(to) - cancelled(from);
        }
    }
}
