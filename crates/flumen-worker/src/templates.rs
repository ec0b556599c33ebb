//! What the templates of a task see: made from its run, the outputs before it, and the project.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use flumen_core::boxed;
use flumen_core::flow::store::{MetaStore, Work};
use flumen_core::flow::{RunId, RunRecord, TaskId, TaskKey, TaskRun};
use flumen_core::task_kind::is_template;
use flumen_core::{Error, Result};
use flumen_flow::definition::params::ParamType;
use flumen_flow::template::{Context, Param, ParamKind, Renderer, Success, Surroundings, Text};
use flumen_project::Project;
use serde_json::{Map, Value};

use crate::host::Host;
use crate::kept::Kept;
use crate::library::Version;
use crate::outputs;

/// The folder with secrets in files, as Docker and Kubernetes mount them.
const SECRETS_FOLDER: &str = "/run/secrets";

/// A project as templates see it.
#[derive(Debug)]
struct OfProject(Arc<Project>);

impl Surroundings for OfProject {
    fn variable(&self, name: &str) -> Result<Option<Text>> {
        Ok(self.0.variable(name)?.map(|rendered| Text { text: rendered.text, secret: rendered.secret }))
    }

    fn variables(&self) -> Vec<String> {
        self.0.variable_names().into_iter().collect()
    }

    fn connection(&self, name: &str) -> Result<Option<BTreeMap<String, Text>>> {
        let Some(connection) = self.0.connections().find(|connection| connection.name() == name) else {
            return Ok(None);
        };
        let fields = connection.fields()?;
        Ok(Some(
            fields.into_iter().map(|(name, field)| (name, Text { text: field.text, secret: field.secret })).collect(),
        ))
    }

    fn connections(&self) -> Vec<String> {
        self.0.connections().map(|connection| connection.name().to_owned()).collect()
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.0.environment().get(name).map(str::to_owned)
    }

    fn secret(&self, name: &str) -> Result<Option<String>> {
        let is_plain =
            name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) && !name.starts_with('.');
        let path = Path::new(SECRETS_FOLDER).join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) if is_plain => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
            _ => Ok(self.environment(name)),
        }
    }
}

/// A run, as far as its templates see it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The run.
    pub run: &'a RunRecord,
    /// Its flow.
    pub version: &'a Version,
    /// The project.
    pub project: &'a Arc<Project>,
    /// The present.
    pub now: DateTime<Utc>,
}

impl Seen<'_> {
    /// What templates of a task see; of the flow itself, where `key` is none.
    ///
    /// Errors: those of a parameter whose default is a template.
    pub fn context(&self, key: Option<&TaskKey>, attempt: u32, outputs: BTreeMap<String, Value>) -> Result<Context> {
        let Seen { run, version, project, now } = self;
        let timetable = &version.compiled.timetable;
        let task = key.map_or("", |key| key.task.as_str());
        let mut context = Context::new(run.flow.as_str(), task, run.interval, timetable.zone());
        (context.previous, context.next) = timetable.neighbours(&run.interval);
        context.run_id = run.id.to_string();
        context.attempt = attempt;
        context.conf = Value::Object(run.params.clone());
        context.outputs = outputs;
        context.now = *now;
        context.seed = run.id.uuid().as_u64_pair().1 ^ u64::from(attempt);
        context.surroundings = Arc::new(OfProject(Arc::clone(project)));
        context.params = self.params(&context)?;
        Ok(context)
    }

    /// The parameters. A secret whose default is a template is rendered here and nowhere else, so that no store has it.
    fn params(&self, bare: &Context) -> Result<BTreeMap<String, Param>> {
        let mut params = BTreeMap::new();
        for (name, value) in &self.run.params {
            let spec = self.version.compiled.flow.params.iter().find(|spec| spec.name == *name);
            let kind = match spec.map(|spec| spec.kind) {
                Some(ParamType::Secret) => ParamKind::Secret,
                Some(ParamType::Date) => ParamKind::Date,
                _ => ParamKind::Plain,
            };
            let value = match (value, spec) {
                (Value::String(text), Some(spec))
                    if kind == ParamKind::Secret && is_template(text) && spec.default.as_ref() == Some(value) =>
                {
                    let rendered = Renderer::new(bare.clone()).text(&format!("params.{name}"), text)?;
                    Value::from(rendered.value)
                }
                (value, _) => value.clone(),
            };
            params.insert(name.clone(), Param { value, kind });
        }
        Ok(params)
    }
}

/// All secrets that a run knows by name: its secret parameters, those that templates of its flow name, and those of vars and
/// connections. What cannot be found out is no secret here.
pub fn secrets_of_run(host: &Host, work: &Work, version: &Version) -> Vec<String> {
    secrets_of(&host.project, &work.run, version, host.clock.now())
}

/// The same for whoever shows a run.
pub fn secrets_of(project: &Arc<Project>, run: &RunRecord, version: &Version, now: DateTime<Utc>) -> Vec<String> {
    let surroundings = OfProject(Arc::clone(project));
    let mut secrets: Vec<String> =
        version.secrets.iter().filter_map(|name| surroundings.secret(name).ok().flatten()).collect();
    let seen = Seen { run, version, project, now };
    let params = seen.context(None, 1, BTreeMap::new()).map(|context| context.params).unwrap_or_default();
    for param in params.into_values().filter(|param| param.kind == ParamKind::Secret) {
        texts(&param.value, &mut secrets);
    }
    let vars = surroundings.variables().into_iter().filter_map(|name| surroundings.variable(&name).ok().flatten());
    secrets.extend(vars.filter(|var| var.secret).map(|var| var.text));
    for connection in project.connections() {
        let fields = connection.fields().unwrap_or_default();
        secrets.extend(fields.into_values().filter(|field| field.secret).map(|field| field.text));
    }
    secrets
}

/// All texts in a value.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(map) => map.values().for_each(|item| texts(item, found)),
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => found.push(number.to_string()),
    }
}

/// Renders defaults of parameters that are templates, but those of secrets: these stay templates until they are used.
///
/// Errors: those of the templates, and values that do not fit their parameter.
pub fn render_defaults(
    flow: &flumen_flow::definition::Flow,
    project: &Arc<Project>,
    values: &mut Map<String, Value>,
    templates: &[String],
    now: DateTime<Utc>,
) -> Result<()> {
    let mut context = Context::new(&flow.name, "", flumen_core::flow::Interval::at(now), chrono_tz::UTC);
    context.surroundings = Arc::new(OfProject(Arc::clone(project)));
    let renderer = Renderer::new(context);
    for name in templates {
        let Some(spec) = flow.params.iter().find(|spec| spec.name == *name && spec.kind != ParamType::Secret) else {
            continue;
        };
        let Some(text) = values.get(name).and_then(Value::as_str) else { continue };
        let rendered = renderer.text(&format!("params.{name}"), text)?;
        let value = spec.read(&rendered.value).map_err(|problem| {
            flumen_flow::definition::params::explain(&format!("flow '{}'", flow.name), &[problem])
        })?;
        values.insert(name.clone(), value);
    }
    Ok(())
}

/// The outputs of tasks, by their names, from the store; those of a task that ran for each of a list are a list.
///
/// Errors: those of the store and of large outputs.
pub async fn outputs_of(
    store: &dyn MetaStore,
    kept: &Kept,
    run: RunId,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, Value>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<TaskId> = names.iter().map(TaskId::from).collect();
    let tasks = store.tasks_of(run, &ids).await?;
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for name in names {
        let of_task: Vec<&TaskRun> = tasks.iter().filter(|task| task.key.task.as_str() == name.as_str()).collect();
        let Some(whole) = of_task.iter().find(|task| task.key.index.is_none()) else { continue };
        let value = match &whole.items {
            None => match &whole.output {
                Some(output) => outputs::read(kept, output).await?,
                None => continue,
            },
            Some(items) => {
                let mut list = vec![Value::Null; items.len()];
                for item in &of_task {
                    let place = item.key.index.and_then(|index| list.get_mut(index as usize));
                    if let (Some(place), Some(output)) = (place, &item.output) {
                        *place = outputs::read(kept, output).await?;
                    }
                }
                Value::Array(list)
            }
        };
        found.insert(name.clone(), value);
    }
    Ok(found)
}

/// The last run that succeeded, as templates see it.
#[boxed]
pub async fn last_success(store: &dyn MetaStore, run: RunId) -> Result<Option<Success>> {
    let last = store.last_success(run).await?;
    Ok(last.map(|last| Success { interval: last.interval, started: last.started.unwrap_or(last.created) }))
}

/// The error where a task is not in its flow.
pub(crate) fn no_task(version: &Version, task: &str) -> Error {
    let flow = &version.compiled.flow;
    Error::not_found(format!("flow '{}' has no task '{task}'", flow.name))
        .did_you_mean(task, flow.tasks.iter().map(|task| task.id.as_str()))
}
