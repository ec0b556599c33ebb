//! `sql`: statements over the lake, or a query of any connection, perhaps into a table.

use flumen_core::task_kind::{Named, NamedFile, Path, Problem, TaskKind, Uses, schema_of};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::OneOrMore;
use super::ingest::{By, IngestMode, check_mode};
use super::own_process::own_process;

/// The kind `sql`.
#[derive(Debug)]
pub struct Sql;

/// What a `sql` task says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// Statements, with semicolons between them. The last one may be a query, whose rows are the output.
    pub query: Option<String>,
    /// A file of the project with them; a template too.
    pub file: Option<String>,
    /// The table into which the rows of the query go: `lake.NAMESPACE.TABLE`, or `CONNECTION.SCHEMA.TABLE`.
    pub into: Option<String>,
    /// What happens to the rows that are there: `replace` by default.
    pub mode: Option<IngestMode>,
    /// `replace-where`: with `load`, exactly what this task wrote for this interval before is replaced.
    pub by: Option<By>,
    /// `replace-where`: the rows to replace, as a SQL condition.
    #[serde(rename = "where")]
    pub predicate: Option<String>,
    /// `merge`, `scd2`: the columns that identify a row.
    pub key: Option<OneOrMore<String>>,
    /// Lake: partition columns of a new table.
    pub partition_by: Option<OneOrMore<String>>,
    /// The Postgres connection in which the statements run, as that database understands them. The lake by default.
    pub connection: Option<String>,
    /// The most rows of an output; 1,000 by default.
    pub limit: Option<u64>,
    /// Memory that sorting, joining and grouping may use before they go to disk, such as 4GB.
    pub query_memory: Option<String>,
}

impl TaskKind for Sql {
    fn name(&self) -> &'static str {
        "sql"
    }

    fn about(&self) -> &'static str {
        "Runs SQL in the lake or a database. Its output has rows, columns, data and value (the first value of the first row)."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("query")
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        if config["query"].is_null() == config["file"].is_null() {
            problems.push(Problem::at_key(Path::top(), "give either 'query' or 'file'"));
        }
        if config["into"].is_null() {
            for key in ["mode", "by", "where", "key", "partition_by"].into_iter().filter(|key| !config[*key].is_null())
            {
                let problem = Problem::at_key(Path::of([key]), format!("'{key}' means nothing without 'into'"));
                problems.push(problem.hint("name the table: into: lake.marts.NAME"));
            }
        } else if !config["mode"].is_null() {
            problems.extend(check_mode(config));
        }
        problems
    }

    fn uses(&self, config: &Value) -> Uses {
        let file = |name| NamedFile { name, is_template: true };
        Uses {
            writes: Named::at(config, Path::of(["into"])).into_iter().collect(),
            connections: Named::at(config, Path::of(["connection"])).into_iter().collect(),
            files: Named::at(config, Path::of(["file"])).map(file).into_iter().collect(),
            ..Uses::default()
        }
    }
}

own_process!(Sql, "file" => "query");
