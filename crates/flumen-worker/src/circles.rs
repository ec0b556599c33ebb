//! Flows that start themselves, perhaps by way of others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use flumen_core::task_kind::TaskKind as _;
use flumen_flow::definition::{Flow, Mistake};

use crate::kinds::flow::SubFlow;

/// A task that starts another flow, always.
struct Start {
    task: usize,
    flow: String,
}

/// Adds a warning to each circle of flows of which each starts the next, and no task has a condition: whoever begins one of them begins
/// runs without end.
pub(crate) fn warn(flows: &mut BTreeMap<String, Arc<Flow>>) {
    let starts: BTreeMap<String, Vec<Start>> = flows
        .iter()
        .map(|(name, flow)| (name.clone(), starts_of(flow)))
        .filter(|(_, starts)| !starts.is_empty())
        .collect();
    let mut told: BTreeSet<String> = BTreeSet::new();
    for name in starts.keys() {
        let Some((task, circle)) = circle(name, &starts) else { continue };
        if circle.iter().any(|other| told.contains(other)) {
            continue;
        }
        told.extend(circle.iter().cloned());
        if let Some(flow) = flows.get_mut(name) {
            let warning = warning(flow, task, &circle);
            Arc::make_mut(flow).warnings.push(warning);
        }
    }
}

fn starts_of(flow: &Flow) -> Vec<Start> {
    let mut starts = Vec::new();
    for (number, task) in flow.tasks.iter().enumerate() {
        if task.kind == SubFlow.name() && task.when.is_none() {
            let named = task.uses.flows.iter().filter(|of| !of.name.is_template());
            starts.extend(named.map(|of| Start { task: number, flow: of.name.text.clone() }));
        }
    }
    starts
}

/// The shortest way from a flow back to it: the task with which it begins, and the flows on it, the first one first.
fn circle(from: &str, starts: &BTreeMap<String, Vec<Start>>) -> Option<(usize, Vec<String>)> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = VecDeque::from([from]);
    while let Some(name) = next.pop_front() {
        for start in starts.get(name).into_iter().flatten() {
            if start.flow == from {
                let mut way = vec![name.to_owned()];
                let mut at = name;
                while at != from {
                    at = before.get(at)?;
                    way.push(at.to_owned());
                }
                way.reverse();
                let second = way.get(1).map_or(from, String::as_str);
                let task = starts.get(from)?.iter().find(|start| start.flow == second)?.task;
                return Some((task, way));
            }
            if !before.contains_key(start.flow.as_str()) && start.flow != from {
                before.insert(&start.flow, name);
                next.push_back(&start.flow);
            }
        }
    }
    None
}

fn warning(flow: &Flow, task: usize, circle: &[String]) -> Mistake {
    let task = &flow.tasks[task];
    let first = &circle[0];
    let mut message = format!("task '{}' starts flow '{}'", task.id, circle.get(1).unwrap_or(first));
    for next in circle.iter().skip(2).chain(circle.get(1).map(|_| first)) {
        message.push_str(&format!(", which starts '{next}'"));
    }
    message.push_str(" again: that has no end");
    let path = task.config_path();
    Mistake {
        file: flow.file.clone(),
        place: flow.place(&path),
        message,
        hint: Some("give one of these tasks a 'when' that is false some time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flow(name: &str, starts: &[&str]) -> (String, Arc<Flow>) {
        let checker = flumen_flow::definition::Checker::new(crate::kinds::known());
        let tasks: serde_json::Map<String, serde_json::Value> =
            starts.iter().enumerate().map(|(number, to)| (format!("t{number}"), json!({ "flow": to }))).collect();
        let text = json!({ "flow": name, "tasks": tasks }).to_string();
        let around = flumen_flow::definition::Surroundings::trusting();
        let meanings = |_: &str| flumen_flow::definition::ProjectFile::Missing;
        let flow = checker.check(name, &text, &around, &flumen_flow::definition::Meanings::new(&meanings)).unwrap();
        (name.to_owned(), Arc::new(flow))
    }

    #[test]
    fn circles_are_told_once() {
        let mut flows = BTreeMap::from([
            flow("a", &["x", "b"]),
            flow("b", &["c"]),
            flow("c", &["a", "x"]),
            flow("self", &["self"]),
            flow("x", &["y"]),
            flow("y", &["missing", "{{ ds }}"]),
        ]);
        warn(&mut flows);
        let warnings: Vec<String> = flows.values().flat_map(|flow| &flow.warnings).map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "a:1:53: task 't1' starts flow 'b', which starts 'c', which starts 'a' again: that has no end \
                 (give one of these tasks a 'when' that is false some time)",
                "self:1:38: task 't0' starts flow 'self' again: that has no end \
                 (give one of these tasks a 'when' that is false some time)",
            ]
        );
    }
}
