//! The tasks of a flow as a tree.

use std::collections::BTreeMap;

use flumen_flow::definition::{Flow, Task};

/// A task, and what stands before its name in a tree.
#[derive(Debug, Clone)]
pub struct Branch<'a> {
    /// The task.
    pub task: &'a Task,
    /// The lines that lead to it.
    pub lead: String,
}

/// The tasks of a flow, each below the last of those that it needs.
pub fn of(flow: &Flow) -> Vec<Branch<'_>> {
    let place: BTreeMap<&str, usize> = flow.tasks.iter().enumerate().map(|(at, task)| (task.id.as_str(), at)).collect();
    let mut below: BTreeMap<Option<&str>, Vec<&Task>> = BTreeMap::new();
    for task in &flow.tasks {
        let last = task.needs.iter().map(String::as_str).max_by_key(|need| place.get(need).copied());
        below.entry(last).or_default().push(task);
    }
    let mut branches = Vec::with_capacity(flow.tasks.len());
    let mut open: Vec<(usize, &Task)> = below.get(&None).into_iter().flatten().rev().map(|task| (0, *task)).collect();
    while let Some((depth, task)) = open.pop() {
        let lead = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
        open.extend(below.get(&Some(task.id.as_str())).into_iter().flatten().rev().map(|task| (depth + 1, *task)));
        branches.push(Branch { task, lead });
    }
    branches
}
