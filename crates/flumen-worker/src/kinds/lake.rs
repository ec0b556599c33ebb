//! `lake`: looking after tables of the lake.

use flumen_core::task_kind::{Path, Problem, TaskKind, Uses, is_template, schema_of};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::OneOrMore;
use super::own_process::own_process;

/// The kind `lake`.
#[derive(Debug)]
pub struct Lake;

/// What a `lake` task says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// Tables whose small files become large ones.
    pub optimize: Option<OneOrMore<String>>,
    /// Tables from which files are removed that no version in use needs. `all` is every table.
    pub vacuum: Option<OneOrMore<String>>,
    /// Tables that are looked through for damage. `all` is every table.
    pub check: Option<OneOrMore<String>>,
    /// Whether all of the lake is looked after as a server does: retention of rows, and compaction of small files.
    pub maintain: Option<bool>,
}

/// What names no table.
fn wrong_tables(key: &str, tables: &Value) -> Vec<Problem> {
    let one = |text: &str, path: Path| {
        // One text may have several names in it.
        let names = text.split(',').map(str::trim).filter(|name| *name != "all" && !is_template(text));
        let wrong = names.into_iter().find(|name| !is_table(name))?;
        let problem = Problem::new(path, format!("'{wrong}' is not the name of a table"));
        Some(problem.hint("write it such as lake.raw.trips, or all"))
    };
    match tables {
        Value::String(text) => one(text, Path::of([key])).into_iter().collect(),
        Value::Array(items) => {
            let each = items.iter().enumerate();
            each.filter_map(|(index, item)| one(item.as_str()?, Path::of([key]).index(index))).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a table of the lake can be called so: with its namespace, and perhaps with `lake` before it.
fn is_table(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    (2..=3).contains(&parts.len()) && parts.iter().all(|part| !part.trim().is_empty())
}

impl TaskKind for Lake {
    fn name(&self) -> &'static str {
        "lake"
    }

    fn about(&self) -> &'static str {
        "Looks after tables of the lake: optimize, vacuum, check, maintain."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        if ["optimize", "vacuum", "check", "maintain"].iter().all(|key| config[*key].is_null()) {
            let hint = "give 'optimize', 'vacuum', 'check' or 'maintain'";
            return vec![Problem::at_key(Path::top(), "there is nothing to do").hint(hint)];
        }
        let keys = ["optimize", "vacuum", "check"];
        keys.into_iter().flat_map(|key| wrong_tables(key, &config[key])).collect()
    }

    fn uses(&self, _: &Value) -> Uses {
        // What a table says stays the same.
        Uses::default()
    }
}

own_process!(Lake);
