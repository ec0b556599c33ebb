//! `export`: the rows of a query to files, a database or an object store.

use flumen_core::task_kind::{Named, NamedFile, Path, Problem, TaskKind, Uses, schema_of};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::OneOrMore;
use super::ingest::IngestMode;
use super::own_process::own_process;

/// The kind `export`.
#[derive(Debug)]
pub struct Export;

/// What an `export` task says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// The table whose rows are written.
    pub table: Option<String>,
    /// Or a query over the lake.
    pub query: Option<String>,
    /// Or a file of the project with one; a template too.
    pub file: Option<String>,
    /// Where to: a path, an object-store URL, or `CONNECTION.SCHEMA.TABLE`. The name of a file tells its format.
    pub to: String,
    /// What happens to the rows that are there: `replace` by default.
    pub mode: Option<IngestMode>,
    /// `merge`: the columns that identify a row.
    pub key: Option<OneOrMore<String>>,
}

impl TaskKind for Export {
    fn name(&self) -> &'static str {
        "export"
    }

    fn about(&self) -> &'static str {
        "Writes the rows of a table or a query to files, a database or an object store. Its output has rows."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let given = ["table", "query", "file"].iter().filter(|key| !config[**key].is_null()).count();
        let mut problems = Vec::new();
        if given != 1 {
            problems.push(Problem::at_key(Path::top(), "give one of 'table', 'query' and 'file'"));
        }
        if let Some(mode) = config["mode"].as_str().filter(|mode| matches!(*mode, "merge" | "scd2"))
            && config["key"].is_null()
        {
            let problem = Problem::new(Path::of(["mode"]), format!("mode '{mode}' needs a 'key'"));
            problems.push(problem.hint("name the columns that tell rows apart"));
        }
        problems
    }

    fn uses(&self, config: &Value) -> Uses {
        let file = |name| NamedFile { name, is_template: true };
        Uses {
            reads: Named::at(config, Path::of(["table"])).into_iter().collect(),
            writes: Named::at(config, Path::of(["to"])).into_iter().collect(),
            files: Named::at(config, Path::of(["file"])).map(file).into_iter().collect(),
            ..Uses::default()
        }
    }
}

own_process!(Export, "file" => "query");
