//! `ingest`: rows from anywhere to anywhere, as `flumen ingest` brings them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use flumen_core::task_kind::{Named, NamedFile, Path, Problem, TaskKind, Uses, schema_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OneOrMore;
use super::own_process::own_process;

/// The kind `ingest`.
#[derive(Debug)]
pub struct Ingest;

/// What an `ingest` task says. The fields are the options of `flumen ingest`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// What to load: paths, patterns, http(s), s3, gs or az URLs, CONNECTION.SCHEMA.TABLE; a connection where there is a `query`.
    pub from: OneOrMore<String>,
    /// Where to: `lake.NAMESPACE.TABLE`, `CONNECTION.SCHEMA.TABLE`, or files.
    pub to: String,
    /// What happens to the rows that are there: `append` by default.
    pub mode: Option<IngestMode>,
    /// `replace-where`: with `load`, exactly what this task wrote for this interval before is replaced.
    pub by: Option<By>,
    /// `replace-where`: the rows to replace, as a SQL condition; a new row outside it fails the load.
    #[serde(rename = "where")]
    pub predicate: Option<String>,
    /// `merge`, `scd2`: the columns that identify a row.
    pub key: Option<OneOrMore<String>>,
    /// `merge`: a boolean column; a row in which it is true deletes the row with its key.
    pub delete_flag: Option<String>,
    /// `scd2`: the column that says since when a row holds; `valid_from` by default.
    pub valid_from: Option<String>,
    /// `scd2`: the column that says until when it held; `valid_to` by default.
    pub valid_to: Option<String>,
    /// A contract: a file of the project, such as `contracts/trips.yml`.
    pub contract: Option<PathBuf>,
    /// Types of columns, by their names.
    pub types: Option<BTreeMap<String, String>>,
    /// The columns to load.
    pub select: Option<OneOrMore<String>>,
    /// Other names for columns: `OLD: NEW`.
    pub rename: Option<BTreeMap<String, String>>,
    /// How new columns are named: `keep`, `snake`, `lower`.
    pub column_case: Option<String>,
    /// Whether rows carry `_flumen_load`, `_flumen_file` and `_flumen_row`.
    pub lineage: Option<bool>,
    /// How many bad rows to put up with; they go to quarantine.
    pub max_bad: Option<u64>,
    /// Load no more than the first rows.
    pub limit: Option<u64>,
    /// Load again what is loaded already.
    pub force: Option<bool>,
    /// Lake: partition columns of a new table.
    pub partition_by: Option<OneOrMore<String>>,
    /// Lake: encode Parquet files again, also where they could be taken over as they are.
    pub reencode: Option<bool>,
    /// Postgres: indexes, each on a column or on several with commas between them.
    pub index: Option<OneOrMore<String>>,
    /// Postgres: the primary key of a new table.
    pub primary_key: Option<OneOrMore<String>>,
    /// The format of the files: csv, tsv, json, ndjson, parquet, arrow, avro, excel. Found out by default.
    pub format: Option<String>,
    /// How they are packed: gzip, zstd, bzip2, xz, none. Found out by default.
    pub compression: Option<String>,
    /// The encoding of text: utf-8, utf-16le, utf-16be, latin-1. Found out by default.
    pub encoding: Option<String>,
    /// CSV: the character between fields.
    pub delimiter: Option<String>,
    /// CSV: the character round fields; `none` if there is none.
    pub quote: Option<String>,
    /// CSV: whether the first row has the names.
    pub header: Option<bool>,
    /// CSV: lines before the header.
    pub skip_lines: Option<usize>,
    /// Text: values that mean null, besides the empty one.
    pub null: Option<OneOrMore<String>>,
    /// Text: the format of dates, such as `%d.%m.%Y`.
    pub date_format: Option<String>,
    /// Text: numbers are written 1.234,56.
    pub decimal_comma: Option<bool>,
    /// Text: cut off white space round values.
    pub trim: Option<bool>,
    /// JSON: nested values become columns: a.b as a_b.
    pub flatten: Option<bool>,
    /// Excel: the sheet.
    pub sheet: Option<String>,
    /// Postgres source: a query in place of a table; `from` is then the connection alone.
    pub query: Option<String>,
    /// Postgres source: load only rows in which this column is above what was loaded last.
    pub cursor: Option<String>,
    /// Postgres source: read again so much before the cursor.
    pub lag: Option<String>,
}

/// What happens to the rows that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IngestMode {
    /// They stay.
    Append,
    /// They go.
    Replace,
    /// Those with the same key are replaced.
    Merge,
    /// Those with the same key get an end, and the new ones hold from then on.
    Scd2,
    /// Those go that a condition names, or that this task wrote for this interval before.
    ReplaceWhere,
}

impl IngestMode {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Replace => "replace",
            Self::Merge => "merge",
            Self::Scd2 => "scd2",
            Self::ReplaceWhere => "replace-where",
        }
    }
}

/// What replaced rows are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The load that wrote them.
    Load,
}

/// What is wrong with a mode and what goes with it.
pub(super) fn check_mode(config: &Value) -> Vec<Problem> {
    let mode = config["mode"].as_str().unwrap_or("append");
    let (by, predicate) = (!config["by"].is_null(), !config["where"].is_null());
    let mut problems = Vec::new();
    if matches!(mode, "merge" | "scd2") && config["key"].is_null() {
        let problem = Problem::new(Path::of(["mode"]), format!("mode '{mode}' needs a 'key'"));
        problems.push(problem.hint("name the columns that tell rows apart"));
    }
    if mode == "replace-where" && !by && !predicate {
        let problem = Problem::new(Path::of(["mode"]), "mode 'replace-where' does not say what to replace");
        problems.push(
            problem
                .hint("add 'by: load' for what this task wrote for the interval before, or 'where' with a condition"),
        );
    }
    if by && predicate {
        problems.push(Problem::at_key(Path::of(["by"]), "give either 'by' or 'where'"));
    }
    if (by || predicate) && mode != "replace-where" && !flumen_core::task_kind::is_template(mode) {
        let key = if by { "by" } else { "where" };
        let problem = Problem::at_key(Path::of([key]), format!("'{key}' means nothing with mode '{mode}'"));
        problems.push(problem.hint("write mode: replace-where"));
    }
    problems
}

impl TaskKind for Ingest {
    fn name(&self) -> &'static str {
        "ingest"
    }

    fn about(&self) -> &'static str {
        "Brings rows from anywhere to anywhere. Its output has rows, rows_read, rows_quarantined, load and version."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let mut problems = check_mode(config);
        if config["from"].as_array().is_some_and(Vec::is_empty) {
            let problem = Problem::new(Path::of(["from"]), "'from' names nothing to load");
            problems.push(problem.hint("name a file, a pattern, an address or a table"));
        }
        problems
    }

    fn uses(&self, config: &Value) -> Uses {
        let file = |name| NamedFile { name, is_template: false };
        Uses {
            writes: Named::at(config, Path::of(["to"])).into_iter().collect(),
            files: Named::at(config, Path::of(["contract"])).map(file).into_iter().collect(),
            ..Uses::default()
        }
    }

    fn inputs(&self, config: &Value) -> Vec<String> {
        // Where there is a query, this is a connection, of which nobody can tell what is in it.
        match &config["from"] {
            Value::String(from) => vec![from.clone()],
            Value::Array(from) => from.iter().filter_map(|from| from.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        }
    }
}

own_process!(Ingest);
