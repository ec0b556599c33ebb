//! What a template can see: given by the caller, handed out by `scope.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use flumen_core::Result;
use serde_json::Value as Json;

use crate::interval::Interval;

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// The value.
    pub value: Json,
    /// What it is to templates.
    pub kind: ParamKind,
}

/// What a parameter is to templates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ParamKind {
    /// What its value is.
    #[default]
    Plain,
    /// A date object, made of its text.
    Date,
    /// A value that is never shown.
    Secret,
}

/// A text from the surroundings of a flow.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Whether it is never shown.
    pub secret: bool,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret { flumen_core::secret::MASK } else { &self.text })
    }
}

/// What templates take from outside the flow: variables, connections, the environment, secrets. Each is asked for only when a
/// template uses it.
pub trait Surroundings: fmt::Debug + Send + Sync {
    /// The variable with this name.
    fn variable(&self, name: &str) -> Result<Option<Text>>;
    /// The names of all variables.
    fn variables(&self) -> Vec<String>;
    /// The fields of the connection with this name.
    fn connection(&self, name: &str) -> Result<Option<BTreeMap<String, Text>>>;
    /// The names of all connections.
    fn connections(&self) -> Vec<String>;
    /// A variable of the environment.
    fn environment(&self, name: &str) -> Option<String>;
    /// The secret with this name.
    fn secret(&self, name: &str) -> Result<Option<String>>;
}

/// [`Surroundings`] that are known beforehand.
#[derive(Clone, Default)]
pub struct Given {
    /// Variables.
    pub variables: BTreeMap<String, Text>,
    /// Connections, by their fields.
    pub connections: BTreeMap<String, BTreeMap<String, Text>>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Secrets.
    pub secrets: BTreeMap<String, String>,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variables, connections, .. } = self;
        f.debug_struct("Given").field("variables", variables).field("connections", connections).finish_non_exhaustive()
    }
}

impl Surroundings for Given {
    fn variable(&self, name: &str) -> Result<Option<Text>> {
        Ok(self.variables.get(name).cloned())
    }

    fn variables(&self) -> Vec<String> {
        self.variables.keys().cloned().collect()
    }

    fn connection(&self, name: &str) -> Result<Option<BTreeMap<String, Text>>> {
        Ok(self.connections.get(name).cloned())
    }

    fn connections(&self) -> Vec<String> {
        self.connections.keys().cloned().collect()
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    fn secret(&self, name: &str) -> Result<Option<String>> {
        Ok(self.secrets.get(name).cloned())
    }
}

/// The last run of a flow that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Success {
    /// The interval that it was about.
    pub interval: Interval,
    /// When it began.
    pub started: DateTime<Utc>,
}

/// What the templates of one task see. Everything in it is given: the same context always renders the same.
#[derive(Debug, Clone)]
pub struct Context {
    /// The name of the flow.
    pub flow: String,
    /// The id of the task; empty for what is the flow's own.
    pub task: String,
    /// The id of the run.
    pub run_id: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The zone of the flow's schedule: dates are on its wall clock.
    pub zone: Tz,
    /// What the run is about.
    pub interval: Interval,
    /// The interval before it in the schedule.
    pub previous: Option<Interval>,
    /// The interval after it in the schedule.
    pub next: Option<Interval>,
    /// The last run before this one that succeeded.
    pub last_success: Option<Success>,
    /// The parameters.
    pub params: BTreeMap<String, Param>,
    /// What the run was started with: `dag_run.conf`.
    pub conf: Json,
    /// What tasks gave, by their ids.
    pub outputs: BTreeMap<String, Json>,
    /// More names, such as `item` of a mapped task.
    pub more: BTreeMap<String, Json>,
    /// The present.
    pub now: DateTime<Utc>,
    /// What `macros.random` and `macros.uuid` come from.
    pub seed: u64,
    /// What is outside the flow.
    pub surroundings: Arc<dyn Surroundings>,
}

impl Context {
    /// A context with nothing in it but an interval, whose end is the present.
    pub fn new(flow: impl Into<String>, task: impl Into<String>, interval: Interval, zone: Tz) -> Self {
        Self {
            flow: flow.into(),
            task: task.into(),
            run_id: String::new(),
            attempt: 1,
            zone,
            interval,
            previous: None,
            next: None,
            last_success: None,
            params: BTreeMap::new(),
            conf: Json::Object(serde_json::Map::new()),
            outputs: BTreeMap::new(),
            more: BTreeMap::new(),
            now: interval.end,
            seed: 0,
            surroundings: Arc::new(Given::default()),
        }
    }
}
