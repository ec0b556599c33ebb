//! The fields of a flow file, as they are written. Editors, the checker and the documentation know them from here.
//!
//! Every field may be left out, as far as these types are concerned: what has to be there is said by the checker, in words.

use std::collections::BTreeMap;

use flumen_core::flow::TriggerRule;
use flumen_core::task_kind::units::{Bytes, Period};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::timetable::{Catchup, Covers};

/// A flow: tasks, what comes before what, and when all of it runs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowFields {
    /// The flow's name: a letter or '_', then letters, digits, '_' and '-'.
    pub flow: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Words to find it by.
    pub tags: Option<Vec<String>>,
    /// What a run can be told. A bare value is a default, from which the type follows.
    #[expect(dead_code, reason = "read one by one, from the tree")]
    pub params: Option<BTreeMap<String, Value>>,
    /// When it runs by itself: a cron expression such as "0 6 2 * *" or "@daily", or more in keys and values.
    pub schedule: Option<ScheduleField>,
    /// How many runs may be active at once. 16 by default.
    #[schemars(range(min = 1))]
    pub max_active_runs: Option<u32>,
    /// What happens to a scheduled run when that many are.
    pub on_overlap: Option<OnOverlap>,
    /// How long a run may take before it is stopped as failed.
    pub timeout: Option<Period>,
    /// How long after it was due a run should be done; a notice is given if it is not.
    pub deadline: Option<Period>,
    /// How long a run should take; a notice is given when it takes longer.
    pub warn_after: Option<Period>,
    /// What holds for every task that does not say otherwise.
    pub defaults: Option<Shared>,
    /// The tasks, by name.
    #[expect(dead_code, reason = "read one by one, from the tree")]
    pub tasks: Option<BTreeMap<String, Value>>,
    /// Groups of tasks, by name.
    pub groups: Option<BTreeMap<String, GroupFields>>,
    /// What is done when a run has failed.
    pub on_failure: Option<OneOrMore<Value>>,
    /// What is done when a run has succeeded.
    pub on_success: Option<OneOrMore<Value>>,
    /// What is done when an attempt at a task failed, and another follows.
    pub on_retry: Option<OneOrMore<Value>>,
    /// What is done when a deadline passed, or something takes longer than it should.
    pub on_late: Option<OneOrMore<Value>>,
}

/// One value, or a list of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMore<T> {
    /// Several.
    More(Vec<T>),
    /// One.
    One(T),
}

impl<T> OneOrMore<T> {
    pub fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMore::More(list) => list,
            OneOrMore::One(one) => vec![one],
        }
    }
}

/// What a flow, a group or a task can say about how tasks are run.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Shared {
    /// How many further attempts there are after the first one failed. 0 by default.
    pub retries: Option<u32>,
    /// How long to wait before the next attempt; or a list: before the second, the third… 10s by default.
    pub retry_delay: Option<Delays>,
    /// The factor by which the wait grows from attempt to attempt; true means 2.
    pub retry_exponential_backoff: Option<Backoff>,
    /// The longest wait.
    pub max_retry_delay: Option<Period>,
    /// The part of the wait that is added at random: 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub retry_jitter: Option<f64>,
    /// The only failures after which another attempt is made: kinds of errors, exit codes.
    pub retry_on: Option<FailureNames>,
    /// Failures after which none is.
    pub no_retry_on: Option<FailureNames>,
    /// How many lost workers do not count as attempts. 3 by default.
    pub max_infra_retries: Option<u32>,
    /// How long an attempt may take.
    pub timeout: Option<Period>,
    /// The pool whose slots it takes.
    pub pool: Option<String>,
    /// How many slots.
    #[schemars(range(min = 1))]
    pub pool_slots: Option<u32>,
    /// Those with a higher one go first. 0 by default.
    pub priority: Option<i32>,
    /// How often it may start: "10/min", or { limit: 10, per: 1m, key: NAME } where tasks share it.
    pub rate: Option<RateField>,
    /// Whether it waits for the same task in the run before to succeed.
    pub depends_on_past: Option<bool>,
    /// Environment variables of an attempt, as templates.
    pub env: Option<BTreeMap<String, String>>,
    /// How much memory an attempt may use.
    pub memory: Option<Bytes>,
}

/// One wait for all, or one for each.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Delays {
    /// Each in turn; the last one stays.
    Each(#[schemars(length(min = 1))] Vec<Period>),
    /// The same before every attempt.
    Same(Period),
}

/// How waits grow.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Backoff {
    /// Doubled, or not at all.
    Flag(bool),
    /// By this factor.
    Factor(#[schemars(range(min = 1))] f64),
}

/// Failures, by the name of their kind or by exit code.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum FailureNames {
    /// Several.
    More(Vec<FailureName>),
    /// One.
    One(FailureName),
}

/// A kind of failure.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum FailureName {
    /// A process ended with this code.
    Exit(i32),
    /// An error of this kind: `timeout`, `unavailable`, `data`…
    Kind(String),
}

/// How often something may start.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RateField {
    /// `10/min`
    Short(String),
    /// In full.
    Full(RateFields),
}

/// A rate in full.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RateFields {
    /// How many may start…
    #[schemars(range(min = 1))]
    pub limit: u32,
    /// … in this time.
    pub per: Period,
    /// The name under which several tasks share the rate. Each has its own by default.
    pub key: Option<String>,
}

/// A task. One of its keys is its kind; the others are these.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskFields {
    /// What it is for.
    pub description: Option<String>,
    /// The tasks, or groups, that come before it.
    pub needs: Option<OneOrMore<String>>,
    /// What it makes of how they ended.
    pub trigger_rule: Option<TriggerRule>,
    /// A condition; where it is false, the task is skipped.
    pub when: Option<When>,
    /// A list, for each of whose items the task runs once, with `item` in its templates.
    pub for_each: Option<ForEachField>,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// Whether it sets something up for the tasks after it.
    pub setup: Option<bool>,
    /// The setup tasks whose work it takes down, also after failures; true if there are none.
    pub teardown: Option<Teardown>,
    /// Whether its output names which of the tasks that need it go on; or a list of those that are up for choice.
    pub branch: Option<Branch>,
    /// How long after the run was due the task should be done; a notice is given if it is not.
    pub deadline: Option<Period>,
    /// How long the task should take; a notice is given when it takes longer.
    pub warn_after: Option<Period>,
    /// When an earlier output is used again instead of running: true, for how long, or in full.
    pub cache: Option<CacheField>,
    /// What is done when it has failed for good.
    pub on_failure: Option<OneOrMore<Value>>,
    /// What is done when it has succeeded.
    pub on_success: Option<OneOrMore<Value>>,
    /// What is done when an attempt failed, and another follows.
    pub on_retry: Option<OneOrMore<Value>>,
    /// What is done when its deadline passed, or it takes longer than it should.
    pub on_late: Option<OneOrMore<Value>>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum When {
    /// Always, or never.
    Flag(bool),
    /// An expression: `params.color == 'green'`, with `{{ }}` or without.
    Expression(String),
}

/// What a task runs for each of.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ForEachField {
    /// These.
    List(Vec<Value>),
    /// An expression that gives a list: `outputs.find.files`, with `{{ }}` or without.
    Expression(String),
    /// In full.
    Full(ForEachFields),
}

/// What a task runs for each of, in full: one of `items`, `query` and `glob`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ForEachFields {
    /// A list, or an expression that gives one.
    pub items: Option<Items>,
    /// A query; each of its rows is an item: the value, if it has one column.
    pub query: Option<String>,
    /// The connection that the query goes to. The lake by default.
    pub connection: Option<String>,
    /// A pattern of files; each of their addresses is an item.
    pub glob: Option<String>,
    /// How many may run at once.
    #[schemars(range(min = 1))]
    pub max_active: Option<u32>,
    /// How many items there may be; more of them fail the task. 1,000 by default.
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
}

/// A list, or an expression that gives one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Items {
    /// These.
    List(Vec<Value>),
    /// An expression.
    Expression(String),
}

/// What a teardown takes down.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Teardown {
    /// Nothing that a task set up.
    Flag(bool),
    /// What this task set up.
    One(String),
    /// What these did.
    More(Vec<String>),
}

/// Who is chosen from by a task's output.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Branch {
    /// All tasks that need it.
    Flag(bool),
    /// These of them; the others go on in any case.
    Among(Vec<String>),
}

/// When an earlier output is used again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum CacheField {
    /// While nothing changed.
    Flag(bool),
    /// In full.
    Full(CacheFields),
    /// While nothing changed, for this long.
    For(Period),
}

/// When an earlier output is used again, in full.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CacheFields {
    /// Whether what it reads must be unchanged: the versions of tables, the files. Or a list of them instead of those that its
    /// kind knows. True by default.
    pub inputs: Option<CacheInputs>,
    /// Whether the task's own fields and files must be unchanged. True by default.
    pub source: Option<bool>,
    /// Whether the run's parameters must be the same; or a list of those that must. True by default.
    pub params: Option<CacheParams>,
    /// How long an output may be used again. Without end by default.
    pub expires: Option<Period>,
}

/// What must be unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CacheInputs {
    /// What the task reads, or nothing.
    Flag(bool),
    /// These data sets and files, as templates.
    These(Vec<String>),
}

/// Which parameters must be the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CacheParams {
    /// All, or none.
    Flag(bool),
    /// These.
    These(Vec<String>),
}

/// A group of tasks.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupFields {
    /// What it is for.
    pub description: Option<String>,
    /// What comes before all of its tasks.
    pub needs: Option<OneOrMore<String>>,
    /// What holds for its tasks where they do not say otherwise; goes before the flow's.
    pub defaults: Option<Shared>,
    /// What the names of the tasks that stand in it begin with.
    pub prefix: Option<String>,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// Its tasks; those elsewhere that say `group` belong to it too.
    #[expect(dead_code, reason = "read one by one, from the tree")]
    pub tasks: Option<BTreeMap<String, Value>>,
}

/// When a flow runs by itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ScheduleField {
    /// A cron expression.
    Cron(String),
    /// Several ways.
    Several(Vec<RuleField>),
    /// In full.
    Full(Box<ScheduleFields>),
}

/// One of several ways to say when a flow runs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RuleField {
    /// A cron expression.
    Cron(String),
    /// One of the others.
    Rules(RuleFields),
}

/// Ways to say when a flow runs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFields {
    /// Cron expressions: 5 or 6 fields, or a name such as @daily.
    pub cron: Option<OneOrMore<String>>,
    /// A fixed interval: 15m, 1h, 1 month.
    pub every: Option<OneOrMore<String>>,
    /// A recurrence of RFC 5545.
    pub rrule: Option<OneOrMore<String>>,
    /// A list of dates.
    pub dates: Option<OneOrMore<String>>,
    /// Data sets whose updates start a run.
    pub datasets: Option<DatasetsField>,
}

/// When a flow runs by itself, in full: one or several of `cron`, `every`, `rrule`, `dates` and `datasets`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleFields {
    /// Cron expressions: 5 or 6 fields, or a name such as @daily.
    pub cron: Option<OneOrMore<String>>,
    /// A fixed interval: 15m, 1h, 1 month.
    pub every: Option<OneOrMore<String>>,
    /// A recurrence of RFC 5545.
    pub rrule: Option<OneOrMore<String>>,
    /// A list of dates.
    pub dates: Option<OneOrMore<String>>,
    /// Data sets whose updates start a run.
    pub datasets: Option<DatasetsField>,
    /// The time zone of all times: Europe/Berlin. UTC by default.
    pub timezone: Option<String>,
    /// The first start of an interval.
    pub start: Option<String>,
    /// The last one.
    pub end: Option<String>,
    /// What happens to intervals that were missed.
    pub catchup: Option<Catchup>,
    /// What a run is about.
    pub interval: Option<Covers>,
    /// Parameters of the runs that it starts.
    pub params: Option<Map<String, Value>>,
}

/// What happens to a scheduled run while as many are active as may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOverlap {
    /// It waits.
    #[default]
    Queue,
    /// It is left out.
    Skip,
    /// The oldest active run is cancelled for it.
    CancelRunning,
}

/// Data sets whose updates start a run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum DatasetsField {
    /// This one.
    One(String),
    /// All of these: each was updated since the last run.
    List(Vec<DatasetsField>),
    /// All of some, or any of some.
    Rule(DatasetsFields),
}

/// All of some data sets, or any of some.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DatasetsFields {
    /// Each of these was updated since the last run.
    pub all: Option<Vec<DatasetsField>>,
    /// One of these was.
    pub any: Option<Vec<DatasetsField>>,
}

/// A parameter.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamFields {
    /// Its type; that of the default by default.
    #[serde(rename = "type")]
    pub kind: Option<ParamType>,
    /// Its value where a run is not told another. May be a template of `var`, `env_var`, `secret` and `secret_env`.
    pub default: Option<Value>,
    /// The only values that there are.
    #[serde(rename = "enum")]
    pub choices: Option<Vec<Value>>,
    /// The least; of texts and lists the least length.
    pub min: Option<Bound>,
    /// The most; of texts and lists the greatest length.
    pub max: Option<Bound>,
    /// Whether a run must be told it where there is no default. True by default.
    pub required: Option<bool>,
    /// What the items of a list are.
    pub items: Option<ParamType>,
    /// What it means.
    pub description: Option<String>,
}

/// The least or the most.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Bound {
    /// Of numbers and lengths.
    Number(f64),
    /// Of dates.
    Date(String),
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// Text.
    #[default]
    String,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// True or false.
    Bool,
    /// A date, or a date with a time: 2021-01-31, 2021-01-31T06:00.
    Date,
    /// One of the values in `enum`.
    Enum,
    /// A list.
    List,
    /// Keys and values.
    Object,
    /// Text that nobody may see: masked wherever text leaves a task.
    Secret,
    /// The path of a file.
    File,
}

/// What is done when something happened. One of its keys is a kind of task; the others are these.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HookFields {
    /// How long it may take. 1m by default.
    pub timeout: Option<Period>,
    /// How many further attempts there are after the first one failed. 2 by default.
    pub retries: Option<u32>,
    /// How long to wait before the next attempt. 10s by default.
    pub retry_delay: Option<Period>,
}
