//! `lake`: looking after tables of the lake.

use flumen_core::task_kind::{Path, Problem, TaskKind, Uses, schema_of};
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
        Vec::new()
    }

    fn uses(&self, _: &Value) -> Uses {
        // What a table says stays the same.
        Uses::default()
    }
}

own_process!(Lake);
