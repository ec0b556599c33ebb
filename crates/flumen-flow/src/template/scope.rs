//! The names of a context as objects of templates. Secrets that are handed out are noted on the way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use flumen_core::Error as Flumen;
use flumen_core::secret::MASK;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value, from_args};
use minijinja::{Error, State};
use serde_json::Value as Json;

use super::context::{Context, ParamKind, Text};
use super::dates::{Moment, arguments, failed, unknown_member, wrong};
use super::{json, macros};

/// One rendering of one field.
#[derive(Debug)]
pub(super) struct Scope {
    pub context: Arc<Context>,
    /// Whether secrets are masked.
    masked: bool,
    secrets: Mutex<Vec<String>>,
    draws: AtomicU64,
    seed: u64,
}

impl Scope {
    pub(super) fn new(context: Arc<Context>, field: &str, masked: bool) -> Arc<Self> {
        // Another field draws other numbers.
        let named = context.task.bytes().chain([0]).chain(field.bytes());
        let seed = named.fold(context.seed, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Arc::new(Self { context, masked, secrets: Mutex::default(), draws: AtomicU64::new(0), seed })
    }

    /// The secrets that were handed out.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        secrets.sort_unstable();
        secrets.dedup();
        secrets
    }

    /// A number that follows from the seed, and from how many were drawn before.
    pub(super) fn draw(&self) -> u64 {
        let count = self.draws.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // SplitMix64.
        let mut mixed = self.seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number from 0 up to 1.
    pub(super) fn draw_unit(&self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn moment(&self, moment: DateTime<Utc>) -> Value {
        Moment::at(moment.with_timezone(&self.context.zone)).value()
    }

    fn secret(&self, text: &str) -> Value {
        if !text.is_empty() {
            self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
        }
        Value::from(if self.masked { MASK } else { text })
    }

    fn text(&self, text: &Text) -> Value {
        if text.secret { self.secret(&text.text) } else { Value::from(text.text.as_str()) }
    }

    fn json(&self, value: &Json) -> Value {
        json::to_value(value, &|text| Value::from(text))
    }

    fn param(&self, name: &str) -> Option<Value> {
        let param = self.context.params.get(name)?;
        Some(match (param.kind, &param.value) {
            (ParamKind::Plain, value) => self.json(value),
            (ParamKind::Secret, Json::Number(number)) => self.secret(&number.to_string()),
            (ParamKind::Secret, value) => json::to_value(value, &|text| self.secret(text)),
            (ParamKind::Date, Json::String(text)) => match super::strftime::parse_iso(text) {
                Ok(parsed) if text.len() <= 10 => Moment::day(parsed.moment(self.context.zone)).value(),
                Ok(parsed) => Moment::at(parsed.moment(self.context.zone)).value(),
                Err(_) => Value::from(text.as_str()),
            },
            (ParamKind::Date, value) => self.json(value),
        })
    }

    fn variable(&self, name: &str) -> Option<Value> {
        match self.context.surroundings.variable(name) {
            Ok(text) => text.map(|text| self.text(&text)),
            Err(error) => Some(Value::from(failed(error))),
        }
    }

    /// A variable, read as JSON.
    fn variable_json(&self, name: &str) -> Option<Value> {
        let text = match self.context.surroundings.variable(name) {
            Ok(text) => text?,
            Err(error) => return Some(Value::from(failed(error))),
        };
        let hidden = |inner: &str| if text.secret { self.secret(inner) } else { Value::from(inner) };
        Some(match serde_json::from_str(&text.text) {
            Ok(read) => json::to_value(&read, &hidden),
            Err(_) => Value::from(wrong(format!("the variable '{name}' is not JSON"))),
        })
    }

    /// A day of the interval's start, moved by so many.
    fn day(&self, moment: DateTime<Utc>, days: i64, format: &str) -> Value {
        let local = moment.with_timezone(&self.context.zone).date_naive();
        let moved = chrono::TimeDelta::try_days(days).and_then(|days| local.checked_add_signed(days)).unwrap_or(local);
        Value::from(moved.format(format).to_string())
    }
}

/// What a [`Node`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    Root,
    Params,
    Outputs,
    Connections,
    Variables,
    VariablesJson,
    Instance,
    Run,
    Function(&'static str),
    Macros,
    Datetime,
    Timedelta,
    Dateutil,
    Parser,
    Relativedelta,
    Time,
    Uuid,
    Random,
}

/// Names at the top, always there.
pub(super) const TOP: &[&str] = &[
    "params",
    "conn",
    "var",
    "env_var",
    "secret",
    "secret_env",
    "outputs",
    "run_id",
    "flow",
    "task",
    "attempt",
    "data_interval_start",
    "data_interval_end",
    "logical_date",
    "execution_date",
    "ds",
    "ds_nodash",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
    "prev_ds",
    "prev_ds_nodash",
    "next_ds",
    "next_ds_nodash",
    "yesterday_ds",
    "yesterday_ds_nodash",
    "tomorrow_ds",
    "tomorrow_ds_nodash",
    "prev_execution_date",
    "next_execution_date",
    "prev_data_interval_start_success",
    "prev_data_interval_end_success",
    "prev_start_date_success",
    "ti",
    "task_instance",
    "dag_run",
    "macros",
    "now",
];

/// Those of them that are dates.
pub(super) const DATES: &[&str] = &["data_interval_start", "data_interval_end", "logical_date", "execution_date"];

pub(super) const INSTANCE: &[&str] = &["xcom_pull", "task_id", "dag_id", "run_id", "try_number"];
pub(super) const RUN: &[&str] =
    &["conf", "run_id", "dag_id", "logical_date", "execution_date", "data_interval_start", "data_interval_end"];

/// An object of a template that knows its scope.
#[derive(Debug)]
pub(super) struct Node {
    scope: Arc<Scope>,
    thing: Thing,
}

impl Node {
    pub(super) fn value(scope: &Arc<Scope>, thing: Thing) -> Value {
        Value::from_object(Self { scope: scope.clone(), thing })
    }

    fn node(&self, thing: Thing) -> Value {
        Self::value(&self.scope, thing)
    }

    fn top(&self, name: &str) -> Option<Value> {
        let scope = &self.scope;
        let context = &scope.context;
        if let Some(more) = context.more.get(name) {
            return Some(scope.json(more));
        }
        let start = context.interval.start;
        let logical = || Moment::at(start.with_timezone(&context.zone));
        let maybe = |moment: Option<DateTime<Utc>>| moment.map_or(Value::from(()), |moment| scope.moment(moment));
        let maybe_day = |moment: Option<DateTime<Utc>>, format: &str| {
            moment.map_or(Value::from(()), |moment| scope.day(moment, 0, format))
        };
        let (previous, next) = (context.previous.map(|it| it.start), context.next.map(|it| it.start));
        let (dashes, none) = ("%Y-%m-%d", "%Y%m%d");
        Some(match name {
            "params" => self.node(Thing::Params),
            "conn" => self.node(Thing::Connections),
            "var" => self.node(Thing::Variables),
            "outputs" => self.node(Thing::Outputs),
            "ti" | "task_instance" => self.node(Thing::Instance),
            "dag_run" => self.node(Thing::Run),
            "macros" => self.node(Thing::Macros),
            "env_var" => self.node(Thing::Function("env_var")),
            "secret" => self.node(Thing::Function("secret")),
            "secret_env" => self.node(Thing::Function("secret_env")),
            "now" => self.node(Thing::Function("now")),
            "run_id" => Value::from(context.run_id.as_str()),
            "flow" => Value::from(context.flow.as_str()),
            "task" => Value::from(context.task.as_str()),
            "attempt" => Value::from(context.attempt),
            "data_interval_start" | "logical_date" | "execution_date" => logical().value(),
            "data_interval_end" => scope.moment(context.interval.end),
            "ds" => scope.day(start, 0, dashes),
            "ds_nodash" => scope.day(start, 0, none),
            "ts" => Value::from(logical().isoformat('T')),
            "ts_nodash" => Value::from(logical().text("%Y%m%dT%H%M%S")),
            "ts_nodash_with_tz" => Value::from(logical().text("%Y%m%dT%H%M%S%z")),
            "prev_ds" => maybe_day(previous, dashes),
            "prev_ds_nodash" => maybe_day(previous, none),
            "next_ds" => maybe_day(next, dashes),
            "next_ds_nodash" => maybe_day(next, none),
            "yesterday_ds" => scope.day(start, -1, dashes),
            "yesterday_ds_nodash" => scope.day(start, -1, none),
            "tomorrow_ds" => scope.day(start, 1, dashes),
            "tomorrow_ds_nodash" => scope.day(start, 1, none),
            "prev_execution_date" => maybe(previous),
            "next_execution_date" => maybe(next),
            "prev_data_interval_start_success" => maybe(context.last_success.map(|it| it.interval.start)),
            "prev_data_interval_end_success" => maybe(context.last_success.map(|it| it.interval.end)),
            "prev_start_date_success" => maybe(context.last_success.map(|it| it.started)),
            _ => return None,
        })
    }

    fn connection(&self, name: &str) -> Option<Value> {
        match self.scope.context.surroundings.connection(name) {
            Ok(fields) => {
                let fields = fields?;
                Some(Value::from_object(Connection { scope: self.scope.clone(), fields }))
            }
            Err(error) => Some(Value::from(failed(error))),
        }
    }

    /// `xcom_pull(task_ids='load', key='rows', default=0)`.
    fn pull(&self, args: &[Value]) -> Result<Value, Error> {
        let (by_place, by_name) = arguments(args)?;
        let get = |place: usize, name: &str| match by_place.get(place) {
            Some(value) => Ok(Some(value.clone())),
            None => by_name.get::<Option<Value>>(name),
        };
        let (tasks, key, default) = (get(0, "task_ids")?, get(9, "key")?, get(9, "default")?);
        let _ = by_name.get::<Option<Value>>("dag_id")?;
        by_name.assert_all_used()?;
        let Some(tasks) = tasks.filter(|tasks| !tasks.is_none()) else {
            return Err(failed(
                Flumen::invalid("xcom_pull does not say of which task").hint("write xcom_pull(task_ids='load')"),
            ));
        };
        let key = key.filter(|key| !key.is_none() && key.as_str() != Some("return_value"));
        let one = |task: &Value| self.pull_one(&task.to_string(), key.as_ref(), default.as_ref());
        match tasks.as_str() {
            Some(_) => one(&tasks),
            None => tasks.try_iter()?.map(|task| one(&task)).collect::<Result<Vec<_>, _>>().map(Value::from),
        }
    }

    fn pull_one(&self, task: &str, key: Option<&Value>, default: Option<&Value>) -> Result<Value, Error> {
        let outputs = &self.scope.context.outputs;
        let missing = |error: Flumen| default.cloned().ok_or_else(|| failed(error));
        let Some(output) = outputs.get(task) else {
            let error = Flumen::invalid(format!("there is no output of a task '{task}'"));
            return missing(error.did_you_mean(task, outputs.keys().map(String::as_str)));
        };
        let Some(key) = key.map(Value::to_string) else { return Ok(self.scope.json(output)) };
        match output.get(&key) {
            Some(value) => Ok(self.scope.json(value)),
            None => {
                let keys = output.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
                missing(Flumen::invalid(format!("there is no '{key}' in outputs.{task}")).did_you_mean(&key, keys))
            }
        }
    }

    /// Calls a function that takes the name of something.
    fn named(&self, function: &str, args: &[Value]) -> Result<Value, Error> {
        let (by_place, by_name) = arguments(args)?;
        let default = match by_place.get(1) {
            Some(default) => Some(default.clone()),
            None => by_name.get::<Option<Value>>("default")?,
        };
        by_name.assert_all_used()?;
        let name = match (by_place.first().and_then(Value::as_str), by_place.len()) {
            (Some(name), 1 | 2) => name,
            _ => {
                return Err(failed(
                    Flumen::invalid(format!("{function} takes a name")).hint(format!("write {function}('NAME')")),
                ));
            }
        };
        let (scope, surroundings) = (&self.scope, &self.scope.context.surroundings);
        let found = match function {
            "var" => scope.variable(name),
            "env_var" => surroundings.environment(name).map(Value::from),
            "secret_env" => surroundings.environment(name).map(|text| scope.secret(&text)),
            _ => surroundings.secret(name).map_err(failed)?.map(|text| scope.secret(&text)),
        };
        found.or(default).ok_or_else(|| failed(self.unset(function, name)))
    }

    fn unset(&self, function: &str, name: &str) -> Flumen {
        match function {
            "var" => {
                let variables = self.scope.context.surroundings.variables();
                Flumen::invalid(format!("there is no variable '{name}'"))
                    .hint("add it under 'vars' in flumen.yml, or with 'flumen var'")
                    .did_you_mean(name, variables.iter().map(String::as_str))
            }
            "secret" => Flumen::invalid(format!("there is no secret '{name}'")).hint(format!(
                "write {name}=… into the file .env of the project, set it in the environment, or mount it as /run/secrets/{name}"
            )),
            _ => Flumen::invalid(format!("the environment variable {name} is not set"))
                .hint(format!("set {name} in the environment, or in the file .env of the project")),
        }
    }

    fn keys(&self) -> Vec<String> {
        let context = &self.scope.context;
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match self.thing {
            Thing::Root => TOP.iter().map(|name| (*name).to_owned()).chain(context.more.keys().cloned()).collect(),
            Thing::Params => context.params.keys().cloned().collect(),
            Thing::Outputs => context.outputs.keys().cloned().collect(),
            Thing::Connections => context.surroundings.connections(),
            Thing::Variables | Thing::VariablesJson => context.surroundings.variables(),
            Thing::Run => all(RUN),
            _ => Vec::new(),
        }
    }

    /// The name of a module in messages, and what it has.
    fn members(&self) -> (&'static str, &'static [&'static str]) {
        match self.thing {
            Thing::Instance => ("ti", INSTANCE),
            Thing::Run => ("dag_run", RUN),
            Thing::Datetime => ("macros.datetime", macros::DATETIME),
            Thing::Dateutil => ("macros.dateutil", macros::DATEUTIL),
            Thing::Parser => ("macros.dateutil.parser", &["parse"]),
            Thing::Relativedelta => ("macros.dateutil.relativedelta", &["relativedelta"]),
            Thing::Time => ("macros.time", macros::TIME),
            Thing::Uuid => ("macros.uuid", macros::UUID),
            Thing::Random => ("macros.random", macros::RANDOM),
            Thing::Timedelta => ("macros.timedelta", &[]),
            _ => ("macros", macros::MACROS),
        }
    }

    fn is_module(&self) -> bool {
        !matches!(
            self.thing,
            Thing::Root | Thing::Params | Thing::Outputs | Thing::Connections | Thing::Variables | Thing::VariablesJson
        )
    }
}

impl Object for Node {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let scope = &self.scope;
        let context = &scope.context;
        let found = match (self.thing, name) {
            (Thing::Root, _) => self.top(name),
            (Thing::Params, _) => scope.param(name),
            (Thing::Outputs, _) => context.outputs.get(name).map(|output| scope.json(output)),
            (Thing::Connections, _) => self.connection(name),
            (Thing::Variables, _) => scope.variable(name).or_else(|| match name {
                "value" => Some(self.node(Thing::Variables)),
                "json" => Some(self.node(Thing::VariablesJson)),
                _ => None,
            }),
            (Thing::VariablesJson, _) => scope.variable_json(name),
            (Thing::Instance, "task_id") => Some(Value::from(context.task.as_str())),
            (Thing::Instance, "try_number") => Some(Value::from(context.attempt)),
            (Thing::Instance | Thing::Run, "dag_id") => Some(Value::from(context.flow.as_str())),
            (Thing::Instance | Thing::Run, "run_id") => Some(Value::from(context.run_id.as_str())),
            (Thing::Run, "conf") => Some(scope.json(&context.conf)),
            (Thing::Run, _) if RUN.contains(&name) => self.top(name),
            (thing, _) => macros::member(scope, thing, name),
        };
        if found.is_some() || !self.is_module() {
            return found;
        }
        let (of, members) = self.members();
        Some(Value::from(match members.contains(&name) {
            true => wrong(format!("{of}.{name} is a function: write {of}.{name}(…)")),
            false => macros::unknown(of, name, members),
        }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys().into_iter().map(Value::from).collect())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.is_module() || !self.keys().is_empty()
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        match self.thing {
            Thing::Variables => self.named("var", args),
            Thing::Function("now") => from_args::<()>(args).map(|()| self.scope.moment(self.scope.context.now)),
            Thing::Function(name) => self.named(name, args),
            thing => macros::call(&self.scope, thing, args).unwrap_or_else(|| Err(wrong("this is not a function"))),
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        if self.thing == Thing::Instance && method == "xcom_pull" {
            return self.pull(args);
        }
        if let Some(result) = macros::call_method(&self.scope, self.thing, method, args) {
            return result;
        }
        if !self.is_module() {
            // `params.get('x')`, `params.items()`: what every map has.
            return Err(Error::from(minijinja::ErrorKind::UnknownMethod));
        }
        let (of, members) = self.members();
        Err(unknown_member(of, method, members))
    }
}

/// A connection, by its fields.
#[derive(Debug)]
struct Connection {
    scope: Arc<Scope>,
    fields: BTreeMap<String, Text>,
}

impl Object for Connection {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.fields.get(key.as_str()?).map(|text| self.scope.text(text))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.fields.keys().cloned().map(Value::from).collect())
    }
}
