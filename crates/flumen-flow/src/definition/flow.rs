//! A flow, as it was checked.

use std::collections::BTreeMap;

use flumen_core::flow::TriggerRule;
use flumen_core::task_kind::units::{Bytes, Period};
use flumen_core::task_kind::{Path, Uses};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::fields::OnOverlap;
pub use super::fields::{CacheInputs, CacheParams, FailureName};
use super::mistake::{Mistake, Place};
use super::params::ParamSpec;
use super::schedule::ScheduleSpec;
use super::yaml::Node;

/// The pool of tasks that name none.
pub const DEFAULT_POOL: &str = "default";

/// What the pools begin with in which tasks with a rate wait.
pub const RATE_POOL: &str = "rate:";

/// A flow without mistakes. Its templates are not rendered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flow {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What a run can be told, in the order of the file.
    pub params: Vec<ParamSpec>,
    /// When it runs by itself.
    pub schedule: Option<ScheduleSpec>,
    /// How many runs may be active at once.
    pub max_active_runs: u32,
    /// What happens to a scheduled run when that many are.
    pub on_overlap: OnOverlap,
    /// How long a run may take.
    pub timeout: Option<Period>,
    /// How long after it was due a run should be done.
    pub deadline: Option<Period>,
    /// How long a run should take.
    pub warn_after: Option<Period>,
    /// The tasks, in the order of the file.
    pub tasks: Vec<Task>,
    /// The groups, in the order of the file.
    pub groups: Vec<Group>,
    /// What is done when something happened to a run.
    pub hooks: Hooks,
    /// The file that it was read from.
    pub file: String,
    /// What is perhaps not meant.
    #[serde(skip)]
    pub warnings: Vec<Mistake>,
    /// The text of that file.
    #[serde(skip)]
    pub source: String,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// Its name.
    pub id: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its kind.
    pub kind: String,
    /// The fields of its kind, with templates unrendered.
    pub config: Value,
    /// The tasks before it, by name, in the order of the file.
    pub needs: Vec<String>,
    /// What it makes of how they ended. A teardown has none: it runs whenever what it takes down was set up.
    pub trigger_rule: TriggerRule,
    /// An expression, without `{{ }}`; where it is false, the task is skipped.
    pub when: Option<String>,
    /// What it runs for each of.
    pub for_each: Option<ForEach>,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// Whether it sets something up.
    pub setup: bool,
    /// If it takes something down: the tasks that set it up.
    pub teardown: Option<Vec<String>>,
    /// If its output chooses what goes on: those that are up for choice.
    pub branch: Option<Vec<String>>,
    /// What becomes of its failures.
    pub retry: Retry,
    /// How long an attempt may take.
    pub timeout: Option<Period>,
    /// The pool whose slots it takes.
    pub pool: String,
    /// How many slots.
    pub pool_slots: u32,
    /// Those with a higher one go first.
    pub priority: i32,
    /// How often it may start.
    pub rate: Option<Rate>,
    /// Whether it waits for itself in the run before.
    pub depends_on_past: bool,
    /// How long after the run was due it should be done.
    pub deadline: Option<Period>,
    /// How long it should take.
    pub warn_after: Option<Period>,
    /// When an earlier output is used again.
    pub cache: Option<Cache>,
    /// Environment variables of an attempt, as templates.
    pub env: BTreeMap<String, String>,
    /// How much memory an attempt may use.
    pub memory: Option<Bytes>,
    /// What is done when something happened to it.
    pub hooks: Hooks,
    /// What it uses outside itself, perhaps as templates. Paths are those in `config`.
    #[serde(skip)]
    pub uses: Uses,
    /// Its output, where its kind knows that before, and there is nothing to do for it.
    #[serde(skip)]
    pub given: Option<Value>,
    /// Where it stands in the file.
    #[serde(skip)]
    pub path: Path,
}

/// What becomes of failures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retry {
    /// How many further attempts there are.
    pub retries: u32,
    /// The waits before them; the last one stays.
    pub delays: Vec<Period>,
    /// The factor by which the wait grows from attempt to attempt.
    pub backoff: Option<f64>,
    /// The longest wait.
    pub max_delay: Option<Period>,
    /// The part of the wait that is added.
    pub jitter: f64,
    /// The only failures that are tried again; none means all.
    pub on: Vec<FailureName>,
    /// Failures that are not.
    pub not_on: Vec<FailureName>,
    /// How many lost workers do not count.
    pub max_infra: u32,
}

/// How often something may start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// How many may start…
    pub limit: u32,
    /// … in this time.
    pub per: Period,
    /// The name under which tasks share it. None means that the task has its own.
    pub key: Option<String>,
}

/// What a task runs for each of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForEach {
    /// Where the list comes from.
    pub source: ForEachSource,
    /// How many may run at once.
    pub max_active: Option<u32>,
    /// How many items there may be.
    pub limit: u32,
}

/// Where a list comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForEachSource {
    /// It is here; its texts are templates.
    Items(Vec<Value>),
    /// An expression gives it, without `{{ }}`.
    Expression(String),
    /// The rows of a query.
    Query {
        /// The query, as a template.
        query: String,
        /// The connection; none is the lake.
        connection: Option<String>,
    },
    /// The files that a pattern matches, as a template.
    Glob(String),
}

/// When an earlier output is used again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cache {
    /// What must be unchanged of what it reads.
    pub inputs: CacheInputs,
    /// Whether its own fields and files must be unchanged.
    pub source: bool,
    /// Which parameters must be the same.
    pub params: CacheParams,
    /// How long an output may be used again.
    pub expires: Option<Period>,
}

/// What is done when something happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Hooks {
    /// It failed for good.
    pub on_failure: Vec<Hook>,
    /// It succeeded.
    pub on_success: Vec<Hook>,
    /// An attempt failed, and another follows.
    pub on_retry: Vec<Hook>,
    /// It is later, or takes longer, than it should.
    pub on_late: Vec<Hook>,
}

impl Hooks {
    /// Whether nothing is ever done.
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Hook> {
        [&self.on_failure, &self.on_success, &self.on_retry, &self.on_late].into_iter().flatten()
    }
}

/// Something that is done when something happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hook {
    /// The kind of task that does it.
    pub kind: String,
    /// The fields of that kind, with templates unrendered.
    pub config: Value,
    /// How long it may take.
    pub timeout: Period,
    /// How many further attempts there are.
    pub retries: u32,
    /// The wait before them.
    pub retry_delay: Period,
    /// Where it stands in the file.
    #[serde(skip)]
    pub path: Path,
}

/// A group of tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// What it says that it needs, each with its place. The tasks' own needs have it already.
    #[serde(skip)]
    pub needs: Vec<(String, Path)>,
}

impl Flow {
    /// The pools in which its tasks with a rate wait, and the rates: each once, sorted.
    pub fn rates(&self) -> BTreeMap<String, &Rate> {
        self.tasks.iter().filter_map(|task| Some((task.queue(&self.name), task.rate.as_ref()?))).collect()
    }

    /// The task called `id`.
    pub fn task(&self, id: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.id == id)
    }

    /// The place in the file of what `path` leads to, for messages about it. It reads the file's text again.
    pub fn place(&self, path: &Path) -> Place {
        Node::parse(&self.source, &mut Vec::new()).map_or(Place::START, |root| root.place_of(path, false))
    }

    /// The place in the file of a value in the configuration of a task, as `flows/taxi.yml:12:7`.
    pub fn place_in(&self, task: &Task, path: &Path) -> String {
        let Place { line, column } = self.place(&task.config_path().join(path));
        format!("{}:{line}:{column}", self.file)
    }

    /// The files of the project that it names by themselves, and not by templates: each once.
    pub fn files(&self) -> Vec<&str> {
        let named = self.tasks.iter().flat_map(|task| &task.uses.files).filter(|file| !file.name.is_template());
        let mut files: Vec<&str> = named.map(|file| file.name.text.as_str()).collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

impl Task {
    /// A task that needs nothing, and is ordinary in everything but its kind.
    pub fn plain(id: &str, kind: &str, config: Value) -> Self {
        Self {
            id: id.to_owned(),
            description: None,
            kind: kind.to_owned(),
            config,
            needs: Vec::new(),
            trigger_rule: TriggerRule::default(),
            when: None,
            for_each: None,
            group: None,
            setup: false,
            teardown: None,
            branch: None,
            retry: Retry {
                retries: 0,
                delays: Vec::new(),
                backoff: None,
                max_delay: None,
                jitter: 0.0,
                on: Vec::new(),
                not_on: Vec::new(),
                max_infra: 0,
            },
            timeout: None,
            pool: DEFAULT_POOL.to_owned(),
            pool_slots: 1,
            priority: 0,
            rate: None,
            depends_on_past: false,
            deadline: None,
            warn_after: None,
            cache: None,
            env: BTreeMap::new(),
            memory: None,
            hooks: Hooks::default(),
            uses: Uses::default(),
            given: None,
            path: Path::top(),
        }
    }

    /// The pool in which it waits, as a task of the flow `flow`: where it has a rate, that of the rate, whatever it names.
    pub fn queue(&self, flow: &str) -> String {
        match &self.rate {
            None => self.pool.clone(),
            Some(Rate { key: Some(key), .. }) => format!("{RATE_POOL}{key}"),
            // No key has a slash.
            Some(_) => format!("{RATE_POOL}{flow}/{}", self.id),
        }
    }

    /// Where the fields of its kind stand in the file.
    pub fn config_path(&self) -> Path {
        self.path.key(&self.kind)
    }
}

/// The version of a flow: a hash of its YAML and of every file that it names, as hexadecimal digits. The order of the files
/// does not matter.
pub fn version<'a>(yaml: &[u8], files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(yaml);
    for (name, bytes) in files.into_iter().collect::<BTreeMap<_, _>>() {
        add(name.as_bytes());
        add(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
