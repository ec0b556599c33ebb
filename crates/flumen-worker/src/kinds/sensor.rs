//! `sensor`: waits for something outside.
//!
//! One run of it is one look, but with `mode: poke`. Between two looks a deferred sensor waits without a worker, and is looked at
//! again as the same attempt; a look changes nothing. `patience` is counted from when the attempt first came to a worker, which
//! the store knows, so that it holds across looks, workers and restarts.

mod looks;
mod updates;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::outcome::TIMEOUT;
use flumen_core::flow::{Failure, Outcome, RunId, TaskKey, Wait, WaitFor};
use flumen_core::task_kind::units::Period;
use flumen_core::task_kind::{Named, NamedFlow, Path, Problem, TaskKind, Uses, is_template, schema_of};
use flumen_core::{ErrorKind, Result};
use flumen_flow::template::names_in_expression;
use flumen_flow::timetable::dates::Stretch;
use flumen_project::Project;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::http::no_address;
use super::{Kind, OneOrMore};
use crate::attempt::Attempt;
use crate::files;

/// The wait from one look to the next, unless told otherwise.
const EVERY: Duration = Duration::from_secs(30);
/// The shortest wait from one look to the next, unless a worker is kept for it.
const LEAST_EVERY: Duration = Duration::from_secs(1);
/// What is said before what a look saw that did not see what is waited for.
pub const NOT_YET: &str = "not yet: ";
/// Task runs of which it is remembered what their looks saw.
const REMEMBERED: usize = 10_000;
/// The most files that a look tells of.
const FILES: usize = 1_000;
/// What there is to wait for.
const CONDITIONS: [&str; 7] = ["file", "http", "sql", "dataset", "run", "time", "delay"];

/// The kind `sensor`.
#[derive(Debug, Default)]
pub struct Sensor {
    updates: updates::Updates,
    /// What the last look of each task run saw.
    last: Mutex<HashMap<(RunId, TaskKey), String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// A file that is there: a path from the project's folder or the address of an object, perhaps with `*`, `?` and `**`.
    file: Option<String>,
    /// An answer of a web server.
    http: Option<HttpCondition>,
    /// A query whose first value is true: neither empty, nor false, nor zero.
    sql: Option<SqlCondition>,
    /// A data set that was updated.
    dataset: Option<DatasetField>,
    /// A run of another flow that ended well.
    run: Option<RunField>,
    /// A moment.
    time: Option<String>,
    /// A length of time, from when the task begins.
    delay: Option<Period>,
    /// How it waits from one look to the next.
    mode: Option<Mode>,
    /// The wait from one look to the next: 30s by default.
    every: Option<Period>,
    /// How long to wait before the task fails. For ever by default, or as long as the task's timeout.
    patience: Option<Period>,
    /// Whether the task is skipped, and does not fail, when its patience ends.
    soft: Option<bool>,
}

/// How a sensor waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Without a worker: the scheduler looks. The default.
    Deferred,
    /// In the queue: each look is a worker's.
    Reschedule,
    /// On a worker, whose slot it keeps: for looks that are close together.
    Poke,
}

/// An answer of a web server. Without more, any from 200 to 299.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HttpCondition {
    /// The address; with `connection`, the path below its url.
    url: String,
    /// The connection of kind http that is used.
    connection: Option<String>,
    /// The method: `GET` by default.
    method: Option<String>,
    /// Headers.
    headers: Option<BTreeMap<String, String>>,
    /// What is added to the address after '?'.
    params: Option<Map<String, Value>>,
    /// The status codes that are waited for.
    status: Option<OneOrMore<u16>>,
    /// A text that the answer has in it.
    contains: Option<String>,
    /// An expression over `answer`, read as JSON, and `status`: `answer.state == 'done'`.
    when: Option<String>,
}

/// A query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqlCondition {
    /// The query.
    query: String,
    /// The connection; the lake by default.
    connection: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum DatasetField {
    Name(String),
    Since(DatasetCondition),
}

/// An update of a data set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DatasetCondition {
    /// Its name: `lake.raw.trips`.
    name: String,
    /// Earlier updates do not count. The start of the run's interval by default.
    since: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum RunField {
    Flow(String),
    Run(RunCondition),
}

/// A run of another flow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RunCondition {
    /// The flow.
    flow: Option<String>,
    /// The named copy of the flow.
    deployment: Option<String>,
    /// The interval, by its start: `2021-01`. That of this run by default.
    interval: Option<String>,
    /// The run itself, by its id, in place of the others.
    id: Option<String>,
}

/// What a look saw.
enum Look {
    /// It is there; the output.
    There(Value),
    /// Not yet. What it waits for, if that is something that can be watched without looking; and what it saw.
    NotYet(Option<WaitFor>, String),
    /// It will not come.
    Never(Outcome),
}

impl TaskKind for Sensor {
    fn name(&self) -> &'static str {
        "sensor"
    }

    fn about(&self) -> &'static str {
        "Waits for a file, an answer of a web server, a query, a data set, another run, or a time."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let has = |key: &str| !config[key].is_null();
        let mut problems = Vec::new();
        let given: Vec<&str> = CONDITIONS.into_iter().filter(|key| has(key)).collect();
        if given.len() != 1 {
            let message = "a sensor waits for one thing";
            let hint = format!("give one of {}", CONDITIONS.join(", "));
            problems.push(Problem::at_key(Path::top(), message).hint(hint));
        }
        if has("time") || has("delay") {
            for key in ["every", "patience", "soft"].into_iter().filter(|key| has(key)) {
                let message = format!("a sensor of a time has no '{key}': it is known when it ends");
                problems.push(Problem::at_key(Path::of([key]), message));
            }
        }
        if config["soft"] == Value::Bool(true) && !has("patience") {
            problems.push(Problem::at_key(Path::of(["soft"]), "a sensor without 'patience' never gives up"));
        }
        let run = &config["run"];
        if run.is_object() && run["flow"].is_null() == run["id"].is_null() {
            problems.push(Problem::at_key(Path::of(["run"]), "give either 'flow' or 'id'"));
        }
        if let Some(problem) = no_address(&config["http"]) {
            problems.push(Problem { path: Path::of(["http"]).join(&problem.path), ..problem });
        }
        let times = [Path::of(["time"]), Path::of(["dataset", "since"]), Path::of(["run", "interval"])];
        for (path, named) in times.into_iter().filter_map(|path| Some((path.clone(), Named::at(config, path)?))) {
            if let Some(Err(error)) = (!named.is_template()).then(|| Stretch::parse(&named.text, chrono_tz::UTC)) {
                problems.push(Problem::new(path, error.message()).hint(error.remedy().unwrap_or_default()));
            }
        }
        let when = &config["http"]["when"];
        if let Some(text) = when.as_str().filter(|text| !is_template(text))
            && let Err(error) = names_in_expression(text)
        {
            problems.push(Problem::new(Path::of(["http", "when"]), error.message()));
        }
        problems
    }

    fn uses(&self, config: &Value) -> Uses {
        let named = |keys: &[&str]| Named::at(config, Path::of(keys.iter().copied()));
        let flow = |name| NamedFlow { name, params: None, told_all: false };
        Uses {
            reads: named(&["dataset"]).or_else(|| named(&["dataset", "name"])).into_iter().collect(),
            connections: [named(&["http", "connection"]), named(&["sql", "connection"])]
                .into_iter()
                .flatten()
                .collect(),
            flows: named(&["run"]).or_else(|| named(&["run", "flow"])).map(flow).into_iter().collect(),
            ..Uses::default()
        }
    }
}

#[async_trait]
impl Kind for Sensor {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        let fields: Fields = attempt.fields()?;
        if let Some(at) = looks::moment(attempt, &fields).await? {
            return wait_until(attempt, fields.mode, at).await;
        }
        let mode = fields.mode.unwrap_or(Mode::Deferred);
        let soft = fields.soft.unwrap_or_default();
        let least = if mode == Mode::Poke { Duration::ZERO } else { LEAST_EVERY };
        let every = fields.every.map_or(EVERY, |every| every.0).max(least);
        let deadline = match fields.patience {
            Some(Period(patience)) => attempt.began().await?.checked_add_signed(delta(patience)),
            None => None,
        };
        loop {
            let event = match self.look(attempt, &fields).await? {
                Look::There(output) => return Ok(Outcome::success(output)),
                Look::Never(outcome) => return Ok(outcome),
                Look::NotYet(event, saw) => {
                    self.tell(attempt, saw);
                    event
                }
            };
            let now = attempt.host.clock.now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(out_of_patience(soft));
            }
            let next = now + delta(every);
            let next = deadline.map_or(next, |deadline| deadline.min(next));
            match mode {
                // Whoever watches fails the task when its time is over; a look can skip it too.
                Mode::Deferred if soft => {
                    return Ok(Outcome::Deferred { wait: Wait { on: check(attempt, every), until: None } });
                }
                Mode::Deferred => {
                    let on = event.unwrap_or_else(|| check(attempt, every));
                    return Ok(Outcome::Deferred { wait: Wait { on, until: deadline } });
                }
                Mode::Reschedule => return Ok(Outcome::Rescheduled { until: next }),
                Mode::Poke if !sleep_until(attempt, next).await => return Ok(Outcome::Cancelled),
                Mode::Poke => {}
            }
        }
    }
}

impl Sensor {
    /// Tells what a look saw, where that is something else than what the one before saw.
    fn tell(&self, attempt: &Attempt<'_>, saw: String) {
        let of = (attempt.work.run.id, attempt.work.queued.key.clone());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.get(&of) == Some(&saw) {
            return;
        }
        if last.len() >= REMEMBERED {
            last.clear();
        }
        attempt.news(&format!("{NOT_YET}{saw}"));
        last.insert(of, saw);
    }

    /// One look. A system that does not answer now is one that has nothing to show yet.
    async fn look(&self, attempt: &Attempt<'_>, fields: &Fields) -> Result<Look> {
        let look = async {
            if let Some(pattern) = &fields.file {
                look_for_files(&attempt.host.project, pattern).await
            } else if let Some(condition) = &fields.http {
                looks::http(attempt, condition).await
            } else if let Some(condition) = &fields.sql {
                looks::sql(attempt, condition).await
            } else if let Some(dataset) = &fields.dataset {
                self.updates.look(attempt, dataset).await
            } else if let Some(run) = &fields.run {
                looks::run(attempt, run).await
            } else {
                Err(flumen_core::Error::invalid("the sensor waits for nothing"))
            }
        };
        tokio::select! {
            looked = look => match looked {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    Ok(Look::NotYet(None, format!("it looks again later: {}", error.message())))
                }
                looked => looked,
            },
            () = attempt.cancel.cancelled() => Ok(Look::Never(Outcome::Cancelled)),
        }
    }
}

fn check(attempt: &Attempt<'_>, every: Duration) -> WaitFor {
    let what = json!({ "for": described(attempt.shown) });
    WaitFor::Check { every_seconds: every.as_secs_f64().ceil() as u64, what }
}

/// What a sensor waits for, without secrets.
fn described(shown: &Value) -> String {
    let text = |value: &Value, key: &str| value.as_str().or(value[key].as_str()).unwrap_or_default().to_owned();
    if let Some(file) = shown["file"].as_str() {
        return format!("file {file}");
    }
    if !shown["http"].is_null() {
        return format!("an answer of {}", text(&shown["http"], "url"));
    }
    if !shown["sql"].is_null() {
        return format!(
            "a true answer to: {}",
            text(&shown["sql"], "query").split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    if !shown["dataset"].is_null() {
        return format!("an update of {}", text(&shown["dataset"], "name"));
    }
    match shown["run"]["id"].as_str() {
        Some(id) => format!("the end of run {id}"),
        None => format!("a run of flow '{}'", text(&shown["run"], "flow")),
    }
}

fn out_of_patience(soft: bool) -> Outcome {
    let message = "it has waited as long as it may, and what it waits for did not come";
    match soft {
        true => Outcome::Skipped { cause: message.to_owned() },
        false => Outcome::Failure(Failure::new(TIMEOUT, message)),
    }
}

/// Waits for a moment, which comes whatever happens.
async fn wait_until(attempt: &Attempt<'_>, mode: Option<Mode>, at: DateTime<Utc>) -> Result<Outcome> {
    if attempt.host.clock.now() < at {
        match mode.unwrap_or(Mode::Deferred) {
            Mode::Deferred => {
                return Ok(Outcome::Deferred { wait: Wait { on: WaitFor::Time { at }, until: None } });
            }
            Mode::Reschedule => return Ok(Outcome::Rescheduled { until: at }),
            Mode::Poke if !sleep_until(attempt, at).await => return Ok(Outcome::Cancelled),
            Mode::Poke => {}
        }
    }
    Ok(Outcome::success(Value::Null))
}

/// Sleeps; false where the attempt is cancelled meanwhile.
async fn sleep_until(attempt: &Attempt<'_>, at: DateTime<Utc>) -> bool {
    let wait = (at - attempt.host.clock.now()).to_std().unwrap_or_default();
    tokio::select! {
        () = attempt.cancel.cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

fn delta(span: Duration) -> TimeDelta {
    TimeDelta::from_std(span).unwrap_or(TimeDelta::days(36_500))
}

/// Looks for files.
async fn look_for_files(project: &Project, pattern: &str) -> Result<Look> {
    let found = files::find(project, pattern, FILES).await?;
    if found.is_empty() {
        return Ok(Look::NotYet(None, format!("there is no file {pattern}")));
    }
    let files: Vec<String> = found.into_iter().map(|file| file.address).collect();
    Ok(Look::There(json!({ "files": files })))
}
