//! How a run begins: which data it is about, what it is told, which version it keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use flumen_core::flow::store::NewRun;
use flumen_core::flow::{Interval, Origin, RunId};
use flumen_core::{Error, Result};
use flumen_flow::compiled::timetable_of;
use flumen_flow::definition::params::{Given, ParamType, explain, resolve};
use flumen_flow::definition::{Flow, ScheduleSpec};
use flumen_flow::timetable::dates::Stretch;
use flumen_worker::library::Variant;
use flumen_worker::templates::render_defaults;
use serde_json::{Map, Value};

use super::names::person;
use super::runtime::Flowing;
use crate::context::Context;

/// What a person says about a run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunOptions {
    /// A parameter, as NAME=VALUE
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    pub params: Vec<(String, String)>,
    /// The interval whose data is processed: 2021-01 is the one that starts in January 2021 [default: the last complete one]
    #[arg(long, value_name = "DATE")]
    pub interval: Option<String>,
    /// The named copy of the flow that is run, with its parameters and its pool
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
}

/// A parameter on the command line.
pub fn parameter(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// The parameters of a run: what it was told, and defaults.
///
/// Errors: everything that does not fit.
pub fn params(
    flow: &Flow,
    given: &BTreeMap<String, Given>,
    flowing: &Flowing,
    context: &Context,
) -> Result<Map<String, Value>> {
    let resolved =
        resolve(&flow.params, given).map_err(|problems| explain(&format!("flow '{}'", flow.name), &problems))?;
    let mut values = resolved.values;
    render_defaults(flow, &flowing.project, &mut values, &resolved.templates, context.clock.now())?;
    for spec in flow.params.iter().filter(|spec| spec.kind == ParamType::File) {
        let name = values.get(&spec.name).and_then(Value::as_str);
        if let Some(name) = name.filter(|name| !flowing.project.dir().join(name).exists()) {
            let message = format!("flow '{}': parameter '{}': there is no file '{name}'", flow.name, spec.name);
            return Err(Error::invalid(message).hint("paths start in the project's folder"));
        }
    }
    Ok(values)
}

/// The interval that a run is about.
///
/// Errors: `Invalid` for a text that is no date, and where no interval starts there.
pub fn interval(schedule: Option<&ScheduleSpec>, text: Option<&str>, context: &Context) -> Result<Interval> {
    let timetable = timetable_of(schedule)?;
    match text {
        None => Ok(timetable.manual(context.clock.now())),
        Some(text) => {
            let stretch = Stretch::parse(text, timetable.zone()).map_err(|error| error.within("--interval"))?;
            if timetable.is_scheduled() { timetable.named(&stretch) } else { Ok(stretch.interval()) }
        }
    }
}

/// A run of the flow called `name` that a person asks for; the version is kept.
///
/// Errors: those of the flow, of parameters, interval, files and store.
pub async fn new_run(
    name: &str,
    options: &RunOptions,
    variant: Variant,
    flowing: &Flowing,
    context: &Context,
) -> Result<(NewRun, Arc<Flow>)> {
    let flows = flowing.flows().await?;
    let flow = flows.flow(name)?;
    let deployment = options.deployment.as_deref().map(|name| flows.deployment(name)).transpose()?;
    if let Some(other) = deployment.filter(|deployment| deployment.flow != flow.name) {
        return Err(Error::invalid(format!("deployment '{}' is one of flow '{}'", other.name, other.flow))
            .hint(format!("flumen run {} --deployment {}", other.flow, other.name)));
    }
    let deployed = deployment.iter().flat_map(|deployment| &deployment.params);
    let deployed = deployed.map(|(name, value)| (name.clone(), Given::Value(value.clone())));
    let given = options.params.iter().map(|(name, value)| (name.clone(), Given::Text(value.clone())));
    let params = params(flow, &deployed.chain(given).collect(), flowing, context)?;
    // One that has no schedule of its own is run for the intervals of the flow.
    let schedule = deployment.and_then(|deployment| deployment.schedule.as_ref()).or(flow.schedule.as_ref());
    let interval = interval(schedule, options.interval.as_deref(), context)?;
    let pool = deployment.and_then(|deployment| deployment.pool.clone());
    let variant = Variant { pool, ..variant };
    let version =
        flowing.library.keep(flow, &variant, flowing.project.dir(), &*flowing.store, context.clock.now()).await?;
    let new = NewRun {
        id: RunId::fresh(context.ids.next()),
        flow: flow.name.as_str().into(),
        version: version.id.clone(),
        deployment: deployment.map(|deployment| deployment.name.clone()),
        interval,
        params,
        origin: Origin::Person { name: person() },
        unique: None,
        start: false,
    };
    Ok((new, Arc::clone(flow)))
}

/// Makes a run and begins it, if its flow has room for it.
///
/// Errors: those of the store.
pub async fn begin(run: &NewRun, flow: &Flow, flowing: &Flowing, context: &Context) -> Result<RunId> {
    let created = flowing.store.create_runs(std::slice::from_ref(run), context.clock.now()).await?;
    let created = created.first().ok_or_else(|| Error::internal("the store made no run"))?;
    flowing.store.start_runs(&run.flow, flow.max_active_runs).await?;
    Ok(created.id)
}
