//! A few kinds of tasks for tests, as real ones would be written.
#![allow(dead_code, reason = "fields stand for their schema")]

use std::collections::BTreeMap;
use std::sync::Arc;

use flumen_core::task_kind::units::Period;
use flumen_core::task_kind::{Kinds, Named, NamedFile, NamedFlow, Path, Problem, TaskKind, Uses, schema_of};
use schemars::JsonSchema;
use serde_json::Value;

/// All of them.
pub fn kinds() -> Kinds {
    let all: [Arc<dyn TaskKind>; 9] = [
        Arc::new(Ingest),
        Arc::new(Sql),
        Arc::new(Check),
        Arc::new(Shell),
        Arc::new(Python),
        Arc::new(Flow),
        Arc::new(Notify),
        Arc::new(Sensor),
        Arc::new(Http),
    ];
    Kinds::new(all)
}

struct Ingest;

/// Brings rows from anywhere to anywhere.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct IngestFields {
    /// Where the rows come from.
    from: OneOrMore,
    /// Where they go.
    to: String,
    /// How they meet what is there.
    mode: Option<Mode>,
    /// What a slot of replaced rows is named by.
    by: Option<String>,
    /// The columns that tell rows apart.
    key: Option<OneOrMore>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Mode {
    /// Adds.
    Append,
    /// Replaces all.
    Replace,
    /// Replaces by key.
    Merge,
    /// Replaces some.
    ReplaceWhere,
}

impl TaskKind for Ingest {
    fn name(&self) -> &'static str {
        "ingest"
    }

    fn about(&self) -> &'static str {
        "Brings rows from anywhere to anywhere."
    }

    fn schema(&self) -> Value {
        schema_of::<IngestFields>()
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        if config["mode"] == "merge" && config["key"].is_null() {
            let problem = Problem::new(Path::of(["mode"]), "mode 'merge' needs a 'key'");
            return vec![problem.hint("name the columns that tell rows apart")];
        }
        Vec::new()
    }

    fn uses(&self, config: &Value) -> Uses {
        Uses { writes: Named::at(config, Path::of(["to"])).into_iter().collect(), ..Uses::default() }
    }
}

struct Sql;

/// Runs SQL.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SqlFields {
    /// A query.
    query: Option<String>,
    /// A file with one.
    file: Option<String>,
    /// The table that its rows go into.
    into: Option<String>,
    /// Where it runs.
    connection: Option<String>,
}

impl TaskKind for Sql {
    fn name(&self) -> &'static str {
        "sql"
    }

    fn about(&self) -> &'static str {
        "Runs SQL in the lake or a database."
    }

    fn schema(&self) -> Value {
        schema_of::<SqlFields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("query")
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        if config["query"].is_null() == config["file"].is_null() {
            return vec![Problem::at_key(Path::top(), "give either 'query' or 'file'")];
        }
        Vec::new()
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

struct Check;

/// Looks whether rows are as they should be.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CheckFields {
    /// The table.
    table: String,
    /// How many rows there must be: "> 0".
    rows: Option<String>,
    /// What must hold for columns.
    columns: Option<BTreeMap<String, ColumnFields>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ColumnFields {
    /// The most empty values.
    nulls: Option<u64>,
    /// The least value.
    min: Option<f64>,
}

impl TaskKind for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn about(&self) -> &'static str {
        "Looks whether rows are as they should be."
    }

    fn schema(&self) -> Value {
        schema_of::<CheckFields>()
    }

    fn uses(&self, config: &Value) -> Uses {
        Uses { reads: Named::at(config, Path::of(["table"])).into_iter().collect(), ..Uses::default() }
    }
}

/// A kind with these fields and nothing else to it.
macro_rules! plain {
    ($kind:ident, $name:literal, $about:literal, $bare:expr, $fields:ident { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        struct $kind;

        #[derive(JsonSchema)]
        #[schemars(deny_unknown_fields)]
        struct $fields { $($(#[$doc])* $field: $type),* }

        impl TaskKind for $kind {
            fn name(&self) -> &'static str {
                $name
            }

            fn about(&self) -> &'static str {
                $about
            }

            fn schema(&self) -> Value {
                schema_of::<$fields>()
            }

            fn bare_field(&self) -> Option<&'static str> {
                $bare
            }
        }
    };
}

plain!(Shell, "shell", "Runs a command.", Some("command"), ShellFields {
    /// The command.
    command: String,
    /// The shell.
    shell: Option<String>,
});

plain!(Notify, "notify", "Tells somebody.", None, NotifyFields {
    /// The connection that it goes through.
    webhook: String,
    /// What is said.
    text: Option<String>,
});

plain!(Sensor, "sensor", "Waits for something.", None, SensorFields {
    /// A file that must be there.
    file: Option<String>,
    /// How long to wait at most.
    patience: Option<Period>,
});

plain!(Http, "http", "Asks a web server.", Some("url"), HttpFields {
    /// The address.
    url: String,
    /// Headers.
    headers: Option<BTreeMap<String, String>>,
});

struct Python;

/// Runs Python.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PythonFields {
    /// The code.
    code: Option<String>,
    /// A file with it.
    file: Option<String>,
    /// The function in it.
    function: Option<String>,
    /// The function's arguments.
    args: Option<Value>,
}

impl TaskKind for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn about(&self) -> &'static str {
        "Runs Python."
    }

    fn schema(&self) -> Value {
        schema_of::<PythonFields>()
    }

    fn uses(&self, config: &Value) -> Uses {
        let file = |name| NamedFile { name, is_template: false };
        Uses { files: Named::at(config, Path::of(["file"])).map(file).into_iter().collect(), ..Uses::default() }
    }

    fn is_template(&self, path: &Path) -> bool {
        !Path::of(["code"]).holds(path)
    }
}

struct Flow;

/// Starts another flow.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FlowFields {
    /// Its name.
    name: String,
    /// Its parameters.
    params: Option<BTreeMap<String, Value>>,
    /// Whether to wait for its end.
    wait: Option<bool>,
}

impl TaskKind for Flow {
    fn name(&self) -> &'static str {
        "flow"
    }

    fn about(&self) -> &'static str {
        "Starts another flow."
    }

    fn schema(&self) -> Value {
        schema_of::<FlowFields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("name")
    }

    fn uses(&self, config: &Value) -> Uses {
        let params = config["params"].as_object().map(|params| (Path::of(["params"]), params.clone()));
        let flow = Named::at(config, Path::of(["name"])).map(|name| NamedFlow { name, params, told_all: true });
        Uses { flows: flow.into_iter().collect(), ..Uses::default() }
    }
}
