//! A deployment: a named copy of a flow, with its own parameters, schedule, tags and pool, in a file of its own.

use flumen_core::task_kind::{Path, Problem, schema_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checker::Checker;
use super::fields::ScheduleField;
use super::mistake::{Mistakes, Place};
use super::params::{Given, ParamSpec, resolve};
use super::reading::Reading;
use super::schedule::{self, ScheduleSpec};
use super::surroundings::{Surroundings, Texts};
use super::tasks;
use super::yaml::{Content, Node};

/// A named copy of a flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deployment {
    /// Its name.
    pub name: String,
    /// The flow.
    pub flow: String,
    /// What it is for.
    pub description: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What its runs are told.
    pub params: Map<String, Value>,
    /// When it runs by itself.
    pub schedule: Option<ScheduleSpec>,
    /// The pool of those of its tasks that name none.
    pub pool: Option<String>,
    /// The file that it was read from.
    pub file: String,
}

/// What a file of a deployment may say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// Its name.
    deployment: Option<String>,
    /// The flow that it is a copy of.
    flow: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// Words to find it by.
    tags: Option<Vec<String>>,
    /// What its runs are told: values of the flow's parameters.
    params: Option<Map<String, Value>>,
    /// When it runs by itself, as in a flow.
    schedule: Option<ScheduleField>,
    /// The pool of those of its tasks that name none.
    pool: Option<String>,
}

impl Checker {
    /// The deployment in `text`, the content of `file`.
    ///
    /// Errors: everything that is wrong with it.
    pub fn deployment(
        &self,
        file: &str,
        text: &str,
        around: &Surroundings,
        texts: &dyn Texts,
    ) -> Result<Deployment, Mistakes> {
        let mut broken = Vec::new();
        let root = match Node::parse(text, &mut broken) {
            Ok(root) => root,
            Err(last) => {
                broken.push(last);
                Node { place: Place::START, content: Content::Map(Vec::new()) }
            }
        };
        let mut reading = Reading::new(file, &root);
        for (place, message, hint) in broken {
            reading.note_in(file, place, message, hint);
        }
        let top = Path::top();
        let value = reading.shaped("", &top, &schema_of::<Fields>());
        let fields: Fields = reading.typed("", &top, value);
        let name = required("deployment", fields.deployment, &mut reading);
        tasks::check_name("a deployment", &name, &Path::of(["deployment"]), &mut reading);
        let flow = required("flow", fields.flow, &mut reading);
        let specs = specs(&flow, around, &mut reading);
        let params = fields.params.unwrap_or_default();
        check_params(&params, specs, &mut reading);
        // What the deployment gives, its schedule need not.
        let missing = |spec: &ParamSpec| ParamSpec {
            required: spec.required && !params.contains_key(&spec.name),
            ..spec.clone()
        };
        let missing: Vec<ParamSpec> = specs.iter().map(missing).collect();
        let schedule = fields.schedule.map(|field| schedule::read(field, &missing, around, texts, &mut reading));
        if let Some(pool) = fields.pool.as_ref().filter(|pool| !around.has_pool(pool)) {
            let pools = around.pools.iter().map(String::as_str);
            let problem = Problem::new(Path::of(["pool"]), format!("there is no pool '{pool}'"));
            reading.note("", &top, problem.nearest(pool, pools, "the pools are"));
        }
        let deployment = Deployment {
            name,
            flow,
            description: fields.description,
            tags: fields.tags.unwrap_or_default(),
            params,
            schedule,
            pool: fields.pool,
            file: file.to_owned(),
        };
        Mistakes::of(reading.mistakes).map_or(Ok(deployment), Err)
    }
}

fn required(key: &str, value: Option<String>, reading: &mut Reading<'_>) -> String {
    if value.is_none() && !reading.is_damaged(&Path::of([key])) {
        let problem = Problem::at_key(Path::of([key]), format!("'{key}' is missing"));
        reading.note("", &Path::top(), problem.hint(format!("write {key}: NAME")));
    }
    value.unwrap_or_default()
}

/// The parameters of the flow.
fn specs<'a>(flow: &str, around: &'a Surroundings, reading: &mut Reading<'_>) -> &'a [ParamSpec] {
    match around.flows.get(flow) {
        Some(known) => known.params.as_deref().unwrap_or_default(),
        None => {
            if !flow.is_empty() {
                let flows = around.flows.keys().map(String::as_str);
                let problem = Problem::new(Path::of(["flow"]), format!("there is no flow '{flow}'"));
                reading.note("", &Path::top(), problem.nearest(flow, flows, "the flows are"));
            }
            &[]
        }
    }
}

fn check_params(params: &Map<String, Value>, specs: &[ParamSpec], reading: &mut Reading<'_>) {
    let given = params.iter().map(|(name, value)| (name.clone(), Given::Value(value.clone()))).collect();
    let Err(problems) = resolve(specs, &given) else { return };
    // What it does not say may still be given to a run.
    for problem in
        problems.into_iter().filter(|problem| problem.path.keys().first().is_some_and(|name| params.contains_key(name)))
    {
        reading.note("", &Path::of(["params"]), problem);
    }
}
