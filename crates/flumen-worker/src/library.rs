//! The flows of runs, each in the version that its run keeps: the file with every file that it names, as the store has it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::boxed;
use flumen_core::flow::store::{self, MetaStore, Pool};
use flumen_core::flow::{FlowName, FlowVersion, TriggerRule};
use flumen_core::task_kind::is_template;
use flumen_core::task_kind::units::Period;
use flumen_core::{Error, Result};
use flumen_flow::compiled::Compiled;
use flumen_flow::definition::params::ParamSpec;
use flumen_flow::definition::{
    Cache, CacheInputs, Checker, DEFAULT_POOL, Flow, Hooks, Meanings, ProjectFile, Surroundings, Task,
};
use flumen_flow::machine::Graph;
use flumen_flow::template;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kept::Kept;
use crate::kinds::{self, Kind};

/// Versions that are remembered.
const REMEMBERED: usize = 1_000;
/// Bytes of a file from which it is kept in the lake's root and not in the store.
const LARGE_FILE_BYTES: usize = 64 << 10;

/// A flow and its files, as they are kept.
#[derive(Debug, Serialize, Deserialize)]
struct Bundle {
    /// The path of the flow's file in the project.
    file: String,
    /// What is in it.
    text: String,
    /// The files that it names, by their path in the project.
    files: BTreeMap<String, Content>,
    /// How it differs from what the file says.
    #[serde(flatten)]
    variant: Variant,
}

/// How a version differs from what the flow's file says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The pool of those of its tasks that name none, in a deployment that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The only task that it has, for trying it out: without hooks, and without the tasks before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// The outputs of tasks that it does not have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
}

/// What is in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Content {
    Text(String),
    /// In base 64.
    Bytes(String),
    /// In the lake's root, under this name.
    Kept(String),
}

/// A version of a flow, ready to run.
#[derive(Debug)]
pub struct Version {
    /// Its name: the hash of what it is.
    pub id: FlowVersion,
    /// The flow.
    pub compiled: Compiled,
    /// The graph, shared with those who step runs.
    pub graph: Arc<Graph>,
    /// The files that it names.
    pub files: BTreeMap<String, Bytes>,
    /// Outputs of tasks that it does not have, for trying one out.
    pub outputs: BTreeMap<String, Value>,
    /// The secrets that its templates name.
    pub secrets: BTreeSet<String>,
    uses: HashMap<String, TaskUses>,
}

/// What the templates of a task use that has to be read from the store.
#[derive(Debug, Clone, Default)]
pub struct TaskUses {
    /// The tasks whose outputs they name; `None` where that cannot be told.
    pub outputs: Option<BTreeSet<String>>,
    /// Whether they ask for the last run that succeeded.
    pub last_success: bool,
    /// Whether they have variables of the project.
    pub variables: bool,
}

/// Versions by their name. Each is read once.
#[derive(Debug)]
pub struct Library {
    checker: Checker,
    kinds: HashMap<&'static str, Arc<dyn Kind>>,
    kept: Kept,
    hooks: RwLock<Arc<Hooks>>,
    known: Mutex<HashMap<FlowVersion, Arc<Version>>>,
    /// What this process has saved.
    saved: Mutex<HashSet<FlowVersion>>,
}

impl std::fmt::Debug for dyn Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Library {
    /// An empty one; large files are in `kept`. All flows have `hooks` besides their own.
    pub fn new(kept: Kept, hooks: Hooks) -> Self {
        let kinds = kinds::all().into_iter().map(|kind| (kind.name(), kind)).collect();
        Self {
            checker: Checker::new(kinds::known()),
            kinds,
            kept,
            hooks: RwLock::new(Arc::new(hooks)),
            known: Mutex::default(),
            saved: Mutex::default(),
        }
    }

    /// The hooks of the project.
    pub fn project_hooks(&self) -> Arc<Hooks> {
        Arc::clone(&self.hooks.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The hooks of the project are these from now on.
    pub fn set_project_hooks(&self, hooks: Hooks) {
        let mut ours = self.hooks.write().unwrap_or_else(PoisonError::into_inner);
        if **ours == hooks {
            return;
        }
        *ours = Arc::new(hooks);
        drop(ours);
        // Versions know which occasions have hooks.
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The kind called `name`.
    ///
    /// Errors: `Invalid`, where a newer version of Flumen made the flow.
    pub fn kind(&self, name: &str) -> Result<&Arc<dyn Kind>> {
        self.kinds.get(name).ok_or_else(|| {
            Error::invalid(format!("this version of flumen has no tasks of kind '{name}'"))
                .hint("run it with the version that made the run")
        })
    }

    /// Keeps a flow that was checked, with its files as they are now, and gives the version. Where tasks have rates, the pools of
    /// these get them: what was kept last holds. What this process has saved is not saved again.
    ///
    /// Errors: those of the files and of the store.
    #[boxed]
    pub async fn keep(
        &self,
        flow: &Flow,
        variant: &Variant,
        project: &Path,
        store: &dyn MetaStore,
        now: DateTime<Utc>,
    ) -> Result<Arc<Version>> {
        let mut files = BTreeMap::new();
        for name in flow.files() {
            let path = project.join(name);
            let content = std::fs::read(&path).map_err(|error| Error::io(path.display(), error))?;
            files.insert(name.to_owned(), self.content(content).await?);
        }
        let bundle = Bundle { file: flow.file.clone(), text: flow.source.clone(), files, variant: variant.clone() };
        let content = serde_json::to_vec(&bundle)
            .map_err(|error| Error::internal("a flow cannot be written as JSON").caused_by(error))?;
        let id = FlowVersion::of(&content);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        let version = match known {
            Some(known) => known,
            None => self.read(&id, &content).await?,
        };
        if !self.saved().contains(&id) {
            keep_rates(&version.compiled.flow, store).await?;
            store.save_version(&FlowName::from(&flow.name), &id, &content.into(), now).await?;
            self.saved().insert(id);
        }
        Ok(version)
    }

    /// Saves everything that is kept from now on, whatever was saved before: versions that were saved long ago and that no run has are
    /// forgotten with old runs.
    pub fn save_again(&self) {
        self.saved().clear();
    }

    fn saved(&self) -> MutexGuard<'_, HashSet<FlowVersion>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn content(&self, bytes: Vec<u8>) -> Result<Content> {
        if bytes.len() > LARGE_FILE_BYTES {
            let name = FlowVersion::of(&bytes).to_string();
            self.kept.put(&format!("files/{name}"), bytes.into()).await?;
            return Ok(Content::Kept(name));
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Content::Text(text),
            Err(error) => Content::Bytes(BASE64_STANDARD.encode(error.as_bytes())),
        })
    }

    /// The version called `id`.
    ///
    /// Errors: `NotFound`; `Invalid` for one that this version of Flumen cannot read; those of the store.
    #[boxed]
    pub async fn version(&self, id: &FlowVersion, store: &dyn MetaStore) -> Result<Arc<Version>> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(Arc::clone(known));
        }
        let content = store.version(id).await?;
        self.read(id, &content).await
    }

    async fn read(&self, id: &FlowVersion, content: &[u8]) -> Result<Arc<Version>> {
        let broken = |error: serde_json::Error| {
            Error::data(format!("version {} of a flow cannot be read", id.short())).caused_by(error)
        };
        let Bundle { file, text, files, variant } = serde_json::from_slice(content).map_err(broken)?;
        let mut read = BTreeMap::new();
        for (name, content) in files {
            read.insert(name, self.bytes(content).await?);
        }
        let lookup = |name: &str| match read.get(name).map(|bytes| std::str::from_utf8(bytes)) {
            Some(Ok(text)) => ProjectFile::Text(text.to_owned()),
            Some(Err(_)) => ProjectFile::Unread,
            None => ProjectFile::Missing,
        };
        let flow = self.checker.check(&file, &text, &Surroundings::trusting(), &Meanings::new(&lookup));
        let mut flow = flow.map_err(|mistakes| {
            Error::invalid(format!("version {} of the flow cannot be read here: {}", id.short(), Error::from(mistakes)))
        })?;
        let secrets = secrets_of(&flow, &read);
        let hooks = variant.apply(&mut flow, &self.project_hooks());
        // What a default that is a template needs, every task does.
        let is_template = |spec: &ParamSpec| spec.default.as_ref().and_then(Value::as_str).is_some_and(is_template);
        let has_templates = flow.params.iter().any(is_template);
        let uses_of = |task: &Task| {
            let uses = TaskUses::of(task, &read);
            TaskUses { variables: uses.variables || has_templates, ..uses }
        };
        let uses = flow.tasks.iter().map(|task| (task.id.clone(), uses_of(task))).collect();
        let mut compiled = Compiled::within(flow, &hooks)?;
        let graph = Arc::new(std::mem::replace(&mut compiled.graph, Graph::new("", Vec::new())?));
        let version =
            Arc::new(Version { id: id.clone(), compiled, graph, files: read, outputs: variant.outputs, secrets, uses });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED
            && let Some(other) = known.keys().next().cloned()
        {
            known.remove(&other);
        }
        known.insert(id.clone(), Arc::clone(&version));
        Ok(version)
    }

    async fn bytes(&self, content: Content) -> Result<Bytes> {
        match content {
            Content::Text(text) => Ok(text.into()),
            Content::Bytes(text) => BASE64_STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|error| Error::data("a file of a flow cannot be read").caused_by(error)),
            Content::Kept(name) => self.kept.get(&format!("files/{name}")).await?.ok_or_else(|| {
                Error::not_found(format!("a file of the flow is not in the lake's root any more ({name})"))
                    .hint("run the flow anew, from the files as they are now")
            }),
        }
    }
}

/// Makes the pools in which tasks with a rate wait.
async fn keep_rates(flow: &Flow, store: &dyn MetaStore) -> Result<()> {
    let rates = flow.rates();
    if rates.is_empty() {
        return Ok(());
    }
    let known = store.pools().await?;
    for (name, rate) in rates {
        let known = known.iter().map(|known| &known.pool).find(|pool| pool.name == name);
        // Somebody may have limited its slots.
        let slots = known.and_then(|pool| pool.slots);
        let Period(per) = rate.per;
        let pool = Pool { name, slots, rate: Some(store::Rate { count: rate.limit, per }) };
        if known != Some(&pool) {
            store.save_pool(&pool).await?;
        }
    }
    Ok(())
}

impl Variant {
    /// Makes a flow what it is in this variant; and the hooks of the project that it has then.
    fn apply(&self, flow: &mut Flow, hooks: &Hooks) -> Hooks {
        if let Some(pool) = &self.pool {
            for task in flow.tasks.iter_mut().filter(|task| task.pool == DEFAULT_POOL && task.rate.is_none()) {
                task.pool.clone_from(pool);
            }
        }
        let Some(only) = &self.only else { return hooks.clone() };
        flow.tasks.retain(|task| task.id == *only);
        for task in &mut flow.tasks {
            task.needs.clear();
            task.trigger_rule = TriggerRule::default();
            (task.teardown, task.branch, task.depends_on_past) = (None, None, false);
            task.hooks = Hooks::default();
        }
        flow.hooks = Hooks::default();
        Hooks::default()
    }
}

/// The names of secrets in all templates of a flow.
fn secrets_of(flow: &Flow, files: &BTreeMap<String, Bytes>) -> BTreeSet<String> {
    let mut texts: Vec<String> = vec![flow.source.clone()];
    texts.extend(files.values().filter_map(|bytes| std::str::from_utf8(bytes).ok().map(str::to_owned)));
    let mut found = BTreeSet::new();
    for text in texts {
        // Wherever it stands: a name too many masks too much, one too few shows a secret.
        for call in ["secret_env(", "secret("] {
            let after = text.split(call).skip(1).map(str::trim_start);
            let quoted = after.filter_map(|rest| {
                let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
                rest[1..].split(quote).next()
            });
            found.extend(quoted.map(str::to_owned));
        }
    }
    found
}

impl Version {
    /// What the templates of a task use.
    pub fn uses(&self, task: &str) -> TaskUses {
        self.uses.get(task).cloned().unwrap_or_default()
    }

    /// The folder in which the files of this version are, as programs want them. It is made when it is first asked for.
    ///
    /// Errors: those of the file system.
    pub fn unpack(&self, folder: &Path) -> Result<PathBuf> {
        let place = folder.join(self.id.short());
        for (name, bytes) in &self.files {
            let path = place.join(name);
            if path.is_file() {
                continue;
            }
            let parent = path.parent().unwrap_or(&place);
            // Others may write the same at the same time: each sees a whole file.
            let write = || {
                std::fs::create_dir_all(parent)?;
                let file = tempfile::NamedTempFile::new_in(parent)?;
                std::fs::write(file.path(), bytes)?;
                file.persist(&path).map_err(|error| error.error)
            };
            write().map_err(|error| Error::io(path.display(), error))?;
        }
        Ok(place)
    }
}

impl TaskUses {
    fn of(task: &Task, files: &BTreeMap<String, Bytes>) -> Self {
        let mut uses = Self { outputs: Some(BTreeSet::new()), last_success: false, variables: false };
        uses.add_all(&task.config);
        task.env.values().for_each(|text| uses.add(template::names(text)));
        task.when.iter().for_each(|text| uses.add(template::names_in_expression(text)));
        use flumen_flow::definition::ForEachSource as Source;
        match task.for_each.as_ref().map(|each| &each.source) {
            None => {}
            Some(Source::Items(items)) => items.iter().for_each(|item| uses.add_all(item)),
            Some(Source::Expression(text)) => uses.add(template::names_in_expression(text)),
            Some(Source::Query { query: text, .. } | Source::Glob(text)) => uses.add(template::names(text)),
        }
        if let Some(Cache { inputs: CacheInputs::These(inputs), .. }) = &task.cache {
            inputs.iter().for_each(|text| uses.add(template::names(text)));
        }
        for file in task.uses.files.iter().filter(|file| file.is_template) {
            match files.get(&file.name.text).map(|bytes| std::str::from_utf8(bytes)) {
                Some(Ok(text)) => uses.add(template::names(text)),
                // Its name is known only when the task runs.
                _ => (uses.outputs, uses.variables) = (None, true),
            }
        }
        uses
    }

    /// What the templates in the fields of a kind use.
    pub(crate) fn of_config(config: &Value) -> Self {
        let mut uses = Self { outputs: Some(BTreeSet::new()), last_success: false, variables: false };
        uses.add_all(config);
        uses
    }

    fn add_all(&mut self, value: &Value) {
        match value {
            Value::String(text) if is_template(text) => self.add(template::names(text)),
            Value::Array(items) => items.iter().for_each(|item| self.add_all(item)),
            Value::Object(map) => map.values().for_each(|item| self.add_all(item)),
            _ => {}
        }
    }

    fn add(&mut self, names: Result<template::Names>) {
        // One that is broken fails when it is rendered.
        let Ok(names) = names else { return };
        self.variables |= names.used.iter().any(|name| name.parts.first().is_some_and(|part| part == "var"));
        self.last_success |=
            names.top_level().iter().any(|name| name.starts_with("prev_") && name.ends_with("_success"));
        match (&mut self.outputs, names.outputs()) {
            (Some(all), Some(more)) => all.extend(more.into_iter().map(str::to_owned)),
            (all, _) => *all = None,
        }
        let by_task_instance = ["ti", "task_instance"];
        if names.top_level().iter().any(|name| by_task_instance.contains(name)) {
            self.outputs = None;
        }
    }
}
