//! Kinds of tasks, as far as a flow's checker has to know them: the fields that a task of a kind takes, and what they name.
//!
//! A kind is one type: its configuration is a struct from which the JSON Schema is derived, so that what editors offer, what
//! is checked and what runs are the same. Configurations are JSON values with their templates unrendered: a text with
//! `{{ … }}` or `{% … %}` may stand wherever a value may. How a task runs is not here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

pub mod shape;
pub mod units;

/// The way from the top of a configuration to a value in it: `columns.total_amount.nulls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<String>);

/// Something wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The value that is wrong, or the one that lacks something.
    pub path: Path,
    /// Whether the key is wrong and not its value.
    pub at_key: bool,
    /// One sentence.
    pub message: String,
    /// The remedy, where one is known.
    pub hint: Option<String>,
}

/// A text in a configuration that names something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Where it stands.
    pub path: Path,
    /// The text, perhaps a template.
    pub text: String,
}

/// A flow that a task starts or waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedFlow {
    /// Its name.
    pub name: Named,
    /// Where its parameters stand, and what they are.
    pub params: Option<(Path, Map<String, Value>)>,
    /// Whether these are all that it is told, so that those that it requires must be among them.
    pub told_all: bool,
}

/// A file of the project that a task names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Its path from the project's folder.
    pub name: Named,
    /// Whether its text is a template.
    pub is_template: bool,
}

/// What a task uses outside itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Uses {
    /// The data sets that it reads: `lake.raw.trips`.
    pub reads: Vec<Named>,
    /// The data sets that it writes.
    pub writes: Vec<Named>,
    /// Connections that it names by themselves; those in data sets are known from them.
    pub connections: Vec<Named>,
    /// Files of the project, such as SQL and Python.
    pub files: Vec<NamedFile>,
    /// Flows.
    pub flows: Vec<NamedFlow>,
}

/// A kind of tasks, as data.
///
/// The functions never fail on a configuration that is wrong: `check` says what is, and the others leave out what they cannot
/// read.
pub trait TaskKind: Send + Sync {
    /// The key in a task: `sql`.
    fn name(&self) -> &'static str;

    /// What it does, in one sentence.
    fn about(&self) -> &'static str;

    /// The JSON Schema of its fields, made by [`schema_of`].
    fn schema(&self) -> Value;

    /// The field that a bare value stands for: with `command`, `shell: "true"` means `shell: { command: "true" }`.
    fn bare_field(&self) -> Option<&'static str> {
        None
    }

    /// What is wrong with a configuration beyond its shape: fields that exclude each other, a query that does not parse. It may
    /// have mistakes of shape, which are told by [`Kinds`] and not to be told again.
    fn check(&self, config: &Value) -> Vec<Problem> {
        let _ = config;
        Vec::new()
    }

    /// What a task with this configuration uses.
    fn uses(&self, config: &Value) -> Uses {
        let _ = config;
        Uses::default()
    }

    /// What a task with this configuration, rendered, reads, as far as it can be known before: data sets, and addresses of files.
    fn inputs(&self, config: &Value) -> Vec<String> {
        self.uses(config).reads.into_iter().map(|named| named.text).collect()
    }

    /// The output of a task with this configuration, where it is known before, and there is nothing else to do: such a task needs
    /// no worker.
    fn given(&self, config: &Value) -> Option<Value> {
        let _ = config;
        None
    }

    /// Whether the texts at `path` and below are templates. All are by default.
    fn is_template(&self, path: &Path) -> bool {
        let _ = path;
        true
    }
}

/// The kinds that there are, by name.
#[derive(Clone, Default)]
pub struct Kinds {
    kinds: BTreeMap<&'static str, Known>,
}

/// A kind with its schema, which is made once.
#[derive(Clone)]
struct Known {
    kind: Arc<dyn TaskKind>,
    schema: Arc<Value>,
}

impl Kinds {
    /// These kinds.
    pub fn new(kinds: impl IntoIterator<Item = Arc<dyn TaskKind>>) -> Self {
        let known = |kind: Arc<dyn TaskKind>| (kind.name(), Known { schema: Arc::new(kind.schema()), kind });
        Self { kinds: kinds.into_iter().map(known).collect() }
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone + '_ {
        self.kinds.keys().copied()
    }

    /// The kind called `name`.
    pub fn get(&self, name: &str) -> Option<&dyn TaskKind> {
        self.kinds.get(name).map(|known| &*known.kind)
    }

    /// The schema of the kind called `name`.
    pub fn schema(&self, name: &str) -> Option<&Value> {
        self.kinds.get(name).map(|known| &*known.schema)
    }

    /// Everything wrong with a configuration of the kind called `name`; nothing if there is no such kind.
    pub fn check(&self, name: &str, config: &Value) -> Vec<Problem> {
        let Some(known) = self.kinds.get(name) else { return Vec::new() };
        let mut problems = shape::check(&known.schema, config, shape::Templates::Anywhere);
        problems.extend(known.kind.check(config));
        problems
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}

/// The JSON Schema of a type, with everything in one piece. Descriptions are the doc comments.
pub fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Whether a text has to be rendered.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

impl Path {
    /// The top.
    pub fn top() -> Self {
        Self::default()
    }

    /// The path of the keys `keys`.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().map(str::to_owned).collect())
    }

    /// The value of `key` in what this path leads to.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        let mut path = self.clone();
        path.0.push(key.into());
        path
    }

    /// The item at `index` of the list that this path leads to.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.key(index.to_string())
    }

    /// This path and then `rest`.
    #[must_use]
    pub fn join(&self, rest: &Path) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    /// The path to what holds the value.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// The keys; an index of a list is its digits.
    pub fn keys(&self) -> &[String] {
        &self.0
    }

    /// Whether `other` is this path or leads on from it.
    pub fn holds(&self, other: &Path) -> bool {
        other.0.starts_with(&self.0)
    }

    /// What it leads to in `value`.
    pub fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |value, key| match value {
            Value::Object(map) => map.get(key),
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

impl Problem {
    /// A problem with the value at `path`.
    pub fn new(path: Path, message: impl Into<String>) -> Self {
        Self { path, at_key: false, message: message.into(), hint: None }
    }

    /// A problem with the key that `path` ends with.
    pub fn at_key(path: Path, message: impl Into<String>) -> Self {
        Self { path, at_key: true, message: message.into(), hint: None }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds as a remedy the nearest of `candidates` to `wrong`, or what there is if none is near: "the pools are a, b".
    #[must_use]
    pub fn nearest<'a>(
        self,
        wrong: &str,
        candidates: impl IntoIterator<Item = &'a str> + Clone,
        otherwise: &str,
    ) -> Self {
        if let Some(right) = crate::error::nearest(wrong, candidates.clone()) {
            return self.hint(format!("did you mean '{right}'?"));
        }
        let all: Vec<&str> = candidates.into_iter().take(20).collect();
        if all.is_empty() { self } else { self.hint(format!("{otherwise} {}", all.join(", "))) }
    }
}

impl Named {
    /// The text at `path` of `config`, if there is one.
    pub fn at(config: &Value, path: Path) -> Option<Self> {
        let text = path.find(config)?.as_str()?.to_owned();
        Some(Self { path, text })
    }

    /// The texts at `path` of `config`: one, or a list of them.
    pub fn all_at(config: &Value, path: &Path) -> Vec<Self> {
        match path.find(config) {
            Some(Value::Array(items)) => {
                (0..items.len()).filter_map(|index| Self::at(config, path.index(index))).collect()
            }
            _ => Self::at(config, path.clone()).into_iter().collect(),
        }
    }

    /// Whether it is known only when the task runs.
    pub fn is_template(&self) -> bool {
        is_template(&self.text)
    }
}
