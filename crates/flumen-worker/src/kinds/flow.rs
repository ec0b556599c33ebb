//! `flow`: a run of another flow. It is waited for without a worker.
//!
//! A task run has one such run, however many attempts there are: one that failed goes on where it failed. A task that is cleared has
//! a new one.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::NewRun;
use flumen_core::flow::{
    Failure, FlowName, Interval, Origin, Outcome, RunId, RunRecord, RunState, Signal, Wait, WaitFor,
};
use flumen_core::task_kind::{Named, NamedFlow, Path, TaskKind, Uses, schema_of};
use flumen_core::{Error, Result};
use flumen_flow::definition::Flow;
use flumen_flow::definition::params::{Given, explain, resolve};
use flumen_flow::timetable::dates::Stretch;
use futures::StreamExt as _;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Kind;
use crate::attempt::Attempt;
use crate::library::Version;
use crate::templates;

/// How long a run that is asked to go on may take to do so.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kind `flow`.
#[derive(Debug)]
pub struct SubFlow;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The name of the flow.
    name: String,
    /// Its parameters.
    params: Option<Map<String, Value>>,
    /// The interval that it is about, by its start: `2021-01`. That of this run by default.
    interval: Option<String>,
    /// Whether to wait for its end, and to fail if it fails. True by default.
    wait: Option<bool>,
    /// The named copy of the flow that is run.
    deployment: Option<String>,
}

impl TaskKind for SubFlow {
    fn name(&self) -> &'static str {
        "flow"
    }

    fn about(&self) -> &'static str {
        "Runs another flow, and waits for its end. Its output is the run's id and state."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("name")
    }

    fn uses(&self, config: &Value) -> Uses {
        let params = config["params"].as_object().map(|params| (Path::of(["params"]), params.clone()));
        // A named copy may give what the flow requires.
        let told_all = config["deployment"].is_null();
        let flow = Named::at(config, Path::of(["name"])).map(|name| NamedFlow { name, params, told_all });
        Uses { flows: flow.into_iter().collect(), ..Uses::default() }
    }
}

#[async_trait]
impl Kind for SubFlow {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        let fields: Fields = attempt.fields()?;
        let host = attempt.host;
        let waits = fields.wait.unwrap_or(true);
        let id = match earlier(attempt).await? {
            Some(run) if waits && ended_badly(run.state) && has_ended_before(attempt, &run).await? => {
                attempt.note(&format!("run {} goes on where it failed", run.id));
                go_on(attempt, run.id).await?;
                run.id
            }
            Some(run) => run.id,
            None => begin(attempt, fields).await?,
        };
        host.watcher.child(id);
        if !waits {
            return Ok(Outcome::success(json!({ "run_id": id })));
        }
        Ok(end_of(&host.store.run(id).await?)
            .unwrap_or(Outcome::Deferred { wait: Wait { on: WaitFor::Run { run: id }, until: None } }))
    }

    fn starts_programs(&self) -> bool {
        false
    }
}

/// What the end of a run means for a task that waits for it; none while the run goes on.
pub(super) fn end_of(run: &RunRecord) -> Option<Outcome> {
    let failed = |what: &str| format!("run {} of flow '{}' {what}: {}", run.id, run.flow, run.cause);
    match run.state {
        RunState::Success => Some(Outcome::success(json!({ "run_id": run.id, "state": run.state }))),
        RunState::Failed => Some(Outcome::Failure(Failure::new("exit", failed("failed")))),
        RunState::Cancelled => Some(Outcome::Failure(Failure::lasting("exit", failed("was cancelled")))),
        RunState::Queued | RunState::Running | RunState::Paused => None,
    }
}

fn ended_badly(state: RunState) -> bool {
    matches!(state, RunState::Failed | RunState::Cancelled)
}

/// The name by which there is one run for a task run.
fn unique(attempt: &Attempt<'_>) -> String {
    format!("task {} of {}, {}", attempt.work.queued.key, attempt.work.run.id, attempt.clears)
}

/// The id of the run that a task run has: the same for every attempt, so that one that was made can be found.
fn id_of(attempt: &Attempt<'_>) -> RunId {
    RunId::new(uuid::Uuid::new_v5(&attempt.work.run.id.uuid(), unique(attempt).as_bytes()))
}

/// The run that an earlier attempt, or an earlier look of this one, has begun.
async fn earlier(attempt: &Attempt<'_>) -> Result<Option<RunRecord>> {
    match attempt.host.store.run(id_of(attempt)).await {
        Ok(run) => Ok(Some(run)),
        Err(error) if error.kind() == flumen_core::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the run, which begins as soon as its flow lets it.
async fn begin(attempt: &Attempt<'_>, fields: Fields) -> Result<RunId> {
    let host = attempt.host;
    let now = host.clock.now();
    let current = host.flows.current(&fields.name, fields.deployment.as_deref()).await?;
    let flow = &current.version.compiled.flow;
    let mut params = current.params;
    params.extend(fields.params.unwrap_or_default());
    let new = NewRun {
        id: id_of(attempt),
        flow: FlowName::from(&flow.name),
        version: current.version.id.clone(),
        deployment: fields.deployment,
        interval: interval(attempt, &current.version, fields.interval.as_deref())?,
        params: values(attempt, flow, params, now)?,
        origin: Origin::Task { run: attempt.work.run.id, task: attempt.work.queued.key.clone() },
        unique: Some(unique(attempt)),
        start: false,
    };
    let name = new.flow.clone();
    if host.keeps_runs {
        host.store.keep_for(&attempt.work.lease.worker, &[new.id]).await?;
    }
    let created = host.store.create_runs(&[new], now).await?;
    let id = created.first().map(|created| created.id);
    host.store.start_runs(&name, flow.max_active_runs).await?;
    id.ok_or_else(|| Error::internal("a store made a run and does not say which"))
}

/// The values of the flow's parameters.
fn values(
    attempt: &Attempt<'_>,
    flow: &Flow,
    given: Map<String, Value>,
    now: DateTime<Utc>,
) -> Result<Map<String, Value>> {
    let given: BTreeMap<String, Given> = given.into_iter().map(|(name, value)| (name, Given::Value(value))).collect();
    let resolved =
        resolve(&flow.params, &given).map_err(|problems| explain(&format!("flow '{}'", flow.name), &problems))?;
    let mut values = resolved.values;
    templates::render_defaults(flow, &attempt.host.project, &mut values, &resolved.templates, now)?;
    Ok(values)
}

/// The interval that the run is about.
fn interval(attempt: &Attempt<'_>, version: &Version, named: Option<&str>) -> Result<Interval> {
    let Some(text) = named else { return Ok(attempt.work.run.interval) };
    let timetable = &version.compiled.timetable;
    timetable.named(&Stretch::parse(text, timetable.zone())?).map_err(|error| error.within("interval"))
}

/// Whether a run had ended before this attempt began: then what ended it is an earlier attempt's.
async fn has_ended_before(attempt: &Attempt<'_>, run: &RunRecord) -> Result<bool> {
    let began = attempt.began().await?;
    Ok(run.ended.is_some_and(|ended| ended < began))
}

/// Asks for a run to go on where it failed, and sees that it does.
async fn go_on(attempt: &Attempt<'_>, id: RunId) -> Result<()> {
    let store = &attempt.host.store;
    let mut wakes = store.wakes();
    let by = format!("task {} of run {}", attempt.work.queued.key, attempt.work.run.id);
    store.send(id, &Signal::Retry { by }).await?;
    let goes_on = async {
        while ended_badly(store.run(id).await?.state) {
            tokio::select! {
                wake = wakes.next() => if wake.is_none() { std::future::pending::<()>().await },
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        gone = goes_on => gone,
        () = attempt.cancel.cancelled() => Err(Error::cancelled()),
        () = tokio::time::sleep(PATIENCE) => {
            Err(Error::unavailable(format!("run {id} was asked to go on, and does not"))
                .hint("check that a scheduler runs"))
        }
    }
}
