//! How runs and their tasks are shown.

use chrono::{DateTime, Datelike as _, SecondsFormat, Timelike as _, Utc};
use flumen_core::flow::{Interval, Origin, RunId, RunRecord, TaskRun, TaskState};
use flumen_worker::log::Masks;
use serde_json::{Value, json};

use crate::output::{Color, paint};

/// Characters of an id that are shown.
const SHORT: usize = 8;

/// The beginning of an id, long enough to be typed.
pub fn short(run: RunId) -> String {
    run.to_string().chars().take(SHORT).collect()
}

/// A moment, without what is zero.
pub fn moment(at: DateTime<Utc>) -> String {
    let is_day = at.num_seconds_from_midnight() == 0 && at.nanosecond() == 0;
    match (is_day, at.day()) {
        (true, _) => at.format("%Y-%m-%d").to_string(),
        (false, _) => at.format("%Y-%m-%d %H:%M:%S").to_string(),
    }
}

/// An interval.
pub fn interval(interval: &Interval) -> String {
    match interval.is_moment() {
        true => moment(interval.start),
        false => format!("{} to {}", moment(interval.start), moment(interval.end)),
    }
}

/// A sign for a state.
pub fn mark(state: TaskState, colors: bool) -> String {
    let (sign, color) = match state {
        TaskState::Success => ("✓", Color::Green),
        TaskState::Failed | TaskState::UpstreamFailed => ("✗", Color::Red),
        TaskState::UpForRetry | TaskState::Cancelled => ("!", Color::Yellow),
        TaskState::Skipped | TaskState::Removed => ("–", Color::Dim),
        TaskState::Running => ("▸", Color::Cyan),
        _ => ("·", Color::Dim),
    };
    paint(sign, color, colors)
}

/// Why there is a run.
pub fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Schedule => "schedule".to_owned(),
        Origin::Person { name } => name.clone(),
        Origin::Backfill { id } => format!("backfill {}", id.chars().take(12).collect::<String>()),
        Origin::Datasets => "data sets".to_owned(),
        Origin::Task { run, task } => format!("{}/{task}", short(*run)),
    }
}

/// A moment as JSON.
pub fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A run as JSON. Secrets among its parameters are `secret_params`.
pub fn run_json(run: &RunRecord, secret_params: &[String]) -> Value {
    let params: serde_json::Map<String, Value> = run
        .params
        .iter()
        .map(|(name, value)| {
            let is_secret = secret_params.contains(name);
            (name.clone(), if is_secret { Value::from(flumen_core::secret::MASK) } else { value.clone() })
        })
        .collect();
    json!({
        "id": run.id,
        "flow": run.flow,
        "version": run.version.short(),
        "deployment": run.deployment,
        "interval": { "start": iso(run.interval.start), "end": iso(run.interval.end) },
        "params": params,
        "origin": run.origin,
        "state": run.state,
        "cause": run.cause,
        "created": iso(run.created),
        "started": run.started.map(iso),
        "ended": run.ended.map(iso),
    })
}

/// A task run as JSON.
pub fn task_json(task: &TaskRun, masks: &Masks) -> Value {
    let output = task.output.as_ref().map(|output| masks.apply(&output.to_string()).into_owned());
    let output: Option<Value> = output.map(|text| serde_json::from_str(&text).unwrap_or(Value::from(text)));
    json!({
        "task": task.key,
        "state": task.state,
        "cause": task.cause,
        "since": iso(task.since),
        "attempt": task.attempt,
        "began": task.began.map(iso),
        "worker": task.worker,
        "output": output,
        "failure": task.failure,
    })
}
