//! Why a task run is where it is, for a person.

use chrono::{DateTime, Utc};
use flumen_core::flow::{Ask, RunState, TaskKey, TaskRun, TaskState};

use crate::definition::RATE_POOL;

use super::graph::Graph;
use super::run::{At, Run};

/// Tasks that a sentence names before it only counts them.
const NAMED: usize = 4;

/// Why the task run `key` is where it is: one paragraph.
pub fn why(run: &Run, graph: &Graph, key: &TaskKey, now: DateTime<Utc>) -> String {
    let Some(at) = run.find(graph, key) else {
        return match graph.number(key.task.as_str()) {
            Some(number) => format!("Item {key} was not begun yet. {}", whole(run, graph, number, now)),
            None => format!("There is no task '{key}' in flow '{}'.", graph.flow),
        };
    };
    match at.kid {
        None => whole(run, graph, at.node, now),
        Some(_) => one(run, graph, at, now),
    }
}

fn whole(run: &Run, graph: &Graph, number: usize, now: DateTime<Utc>) -> String {
    let node = &run.nodes[number];
    let items = match (&node.task.items, run.is_expanded(number)) {
        (Some(items), true) => format!(
            " Of its {} items {} are at work, {} are done ({} failed, {} skipped).",
            items.len(),
            node.tally.active,
            node.tally.done,
            node.tally.failed,
            node.tally.skipped
        ),
        _ => String::new(),
    };
    one(run, graph, At::whole(number), now) + &items
}

fn one(run: &Run, graph: &Graph, at: At, now: DateTime<Utc>) -> String {
    let task = run.at(at);
    let key = &task.key;
    let since = format!("since {} ({})", task.since.format("%Y-%m-%d %H:%M:%S UTC"), span(now, task.since));
    let mut text = match task.state {
        TaskState::None => unbegun(run, graph, at),
        TaskState::Scheduled => format!("Task '{key}' may begin, but waits {since}: {}.", held(run, task)),
        TaskState::Queued => {
            let node = graph.node(at.node);
            let slots = match node.slots {
                _ if node.pool.starts_with(RATE_POOL) => "its turn by the rate".to_owned(),
                1 => "one slot".to_owned(),
                many => format!("{many} slots"),
            };
            format!(
                "Task '{key}' is in the queue of pool '{}' {since}: {}. It waits for {slots} and a worker.",
                node.pool, task.cause
            )
        }
        TaskState::Running if at.kid.is_none() && run.is_expanded(at.node) => {
            format!("Task '{key}' is running {since}: {}.", task.cause)
        }
        TaskState::Running => {
            let worker = task.worker.as_ref().map_or("?", |worker| worker.as_str());
            format!("Task '{key}' is running on worker {worker} {since}, attempt {}.", task.attempt)
        }
        state if state.is_terminal() => format!("Task '{key}' is {state} {since}: {}.", task.cause),
        state => {
            let due = task.due.map_or_else(String::new, |due| format!(" at {}", due.format("%Y-%m-%d %H:%M:%S UTC")));
            let goes_on = if due.is_empty() { String::new() } else { format!(" Its timer rings{due}.") };
            format!("Task '{key}' is {state} {since}: {}.{goes_on}", task.cause)
        }
    };
    if let Some(stop) = &task.stop {
        text += &format!(" Its worker was asked to stop it: {}.", stop.cause);
    }
    let retries = graph.node(at.node).retry.retries;
    if task.state == TaskState::Failed && task.tries() > 0 {
        let again = match &task.failure {
            Some(failure) if task.tries() <= retries && !graph.node(at.node).retry.covers(failure) => {
                format!(" A failure of kind '{}' is not tried again.", failure.kind)
            }
            _ => String::new(),
        };
        text += &format!(" That was attempt {} of {}.{again}", task.tries(), retries.saturating_add(1));
    }
    if task.lost > 0 && !task.state.is_terminal() {
        text += &format!(" Workers lost under it so far: {}.", task.lost);
    }
    text
}

/// What a task that has not begun waits for.
fn unbegun(run: &Run, graph: &Graph, at: At) -> String {
    let node = graph.node(at.node);
    let key = &run.at(at).key;
    match run.record.state {
        RunState::Queued => return format!("Task '{key}' has not begun, since its run has not: {}.", run.record.cause),
        state if state.is_terminal() => return format!("Task '{key}' has not begun, and its run is {state}."),
        _ => {}
    }
    if at.kid.is_some() || run.nodes[at.node].tally.active > 0 {
        return format!(
            "Task '{key}' is to be done again, and waits for items of it that are being stopped or go first."
        );
    }
    let open: Vec<&TaskRun> =
        node.needs.iter().map(|need| &run.nodes[*need].task).filter(|task| !task.state.is_terminal()).collect();
    let mut names: Vec<String> =
        open.iter().take(NAMED).map(|task| format!("'{}' ({})", task.key, task.state)).collect();
    if open.len() > NAMED {
        names.push(format!("{} more", open.len() - NAMED));
    }
    let rule = if node.tears_down.is_empty() { node.rule.name() } else { "teardown" };
    format!(
        "Task '{key}' has not begun: its rule is {rule}, and of the {} tasks that it needs {} are not done: {}.",
        node.needs.len(),
        open.len(),
        names.join(", ")
    )
}

/// What holds a task back that nothing before it does.
fn held(run: &Run, task: &TaskRun) -> String {
    match task.asked {
        Some(Ask::Past) => "it waits for itself in the run before this one".to_owned(),
        Some(Ask::When) => "its condition has not been looked at yet".to_owned(),
        Some(Ask::Items) => "the list that it runs for is not made yet".to_owned(),
        None if run.record.state == RunState::Paused => format!("the run is paused ({})", run.record.cause),
        None => task.cause.clone(),
    }
}

fn span(now: DateTime<Utc>, since: DateTime<Utc>) -> String {
    let seconds = (now - since).num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
