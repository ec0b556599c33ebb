//! What a scheduler must know about the flows of the project as they are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::flow::{FlowName, FlowVersion};
use flumen_flow::compiled::{Compiled, timetable_of};
use flumen_flow::definition::ScheduleSpec;
use flumen_flow::definition::params::{Given, Resolved, explain, resolve};
use flumen_flow::timetable::Timetable;
use futures::stream::BoxStream;
use serde_json::{Map, Value};

/// The flows of the project, and their deployments. A flow whose file is broken is not there, and nothing else stops.
#[async_trait]
pub trait Roster: Send + Sync {
    /// All of them. One that has not changed is the same `Arc` as before. The store has the versions that they name.
    fn entries(&self) -> Vec<Arc<Entry>>;

    /// The flow, or a deployment of it.
    fn find(&self, flow: &FlowName, deployment: Option<&str>) -> Option<Arc<Entry>>;

    /// Something of it changed. One item may stand for many changes; the stream ends with the roster.
    fn changes(&self) -> BoxStream<'static, ()>;

    /// The values of a run's parameters, with those rendered whose defaults are templates.
    ///
    /// Errors: what is wrong with a template, which concerns this flow alone.
    async fn render(&self, entry: &Entry, resolved: Resolved) -> Result<Map<String, Value>>;
}

/// A flow, or a named copy of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The flow.
    pub flow: Arc<Compiled>,
    /// Its version.
    pub version: FlowVersion,
    /// The name of the copy.
    pub deployment: Option<String>,
    /// What the copy says of the flow's parameters.
    pub params: Map<String, Value>,
    /// When it runs by itself.
    pub schedule: Option<ScheduleSpec>,
    /// The same, ready for searches.
    pub timetable: Timetable,
}

impl Entry {
    /// The flow itself.
    pub fn of(flow: Arc<Compiled>, version: FlowVersion) -> Self {
        let (schedule, timetable) = (flow.flow.schedule.clone(), flow.timetable.clone());
        Self { flow, version, deployment: None, params: Map::new(), schedule, timetable }
    }

    /// A copy of the flow, with its own parameters and schedule. It has no schedule where it is given none.
    ///
    /// Errors: `Invalid` for a schedule that cannot be read.
    pub fn deployed(
        flow: Arc<Compiled>,
        version: FlowVersion,
        name: impl Into<String>,
        params: Map<String, Value>,
        schedule: Option<ScheduleSpec>,
    ) -> Result<Self> {
        let timetable = timetable_of(schedule.as_ref())?;
        Ok(Self { flow, version, deployment: Some(name.into()), params, schedule, timetable })
    }

    /// The name of the flow.
    pub fn name(&self) -> FlowName {
        self.flow.graph.flow.clone()
    }

    /// The name of the flow and, after an `@`, that of the copy.
    pub fn label(&self) -> String {
        label(self.flow.graph.flow.as_str(), self.deployment.as_deref())
    }
}

/// The name of a flow and, after an `@`, that of a copy.
pub(crate) fn label(flow: &str, deployment: Option<&str>) -> String {
    match deployment {
        Some(deployment) => format!("{flow}@{deployment}"),
        None => flow.to_owned(),
    }
}

/// The parameters of a run that nobody starts by hand: `given` before the schedule's, those before the deployment's, and
/// those before the defaults.
///
/// Errors: `Invalid`, with all that does not fit; those of [`Roster::render`].
pub(crate) async fn params(
    roster: &dyn Roster,
    entry: &Entry,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>> {
    let scheduled = entry.schedule.iter().flat_map(|schedule| &schedule.params);
    let all = entry.params.iter().chain(scheduled).chain(given);
    let all: BTreeMap<String, Given> = all.map(|(name, value)| (name.clone(), Given::Value(value.clone()))).collect();
    let resolved = resolve(&entry.flow.flow.params, &all)
        .map_err(|problems| explain(&format!("flow '{}'", entry.label()), &problems))?;
    match resolved.templates.is_empty() {
        true => Ok(resolved.values),
        false => roster.render(entry, resolved).await,
    }
}
