//! `check`: whether rows are as they should be.

use std::collections::BTreeMap;

use flumen_core::task_kind::units::Period;
use flumen_core::task_kind::{Named, Path, Problem, TaskKind, Uses, is_template, schema_of};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::OneOrMore;
use super::own_process::own_process;

/// The kind `check`.
#[derive(Debug)]
pub struct Check;

/// What a `check` task says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// The table: of the lake, or `CONNECTION.SCHEMA.TABLE`.
    pub table: Option<String>,
    /// Only rows for which this SQL condition holds are looked at.
    #[serde(rename = "where")]
    pub predicate: Option<String>,
    /// How many rows there must be: `> 0`, `>= 1000`, `between 1 and 500`, `= 265`.
    pub rows: Option<RowsRule>,
    /// What must hold for columns, by their names.
    pub columns: Option<BTreeMap<String, ColumnRule>>,
    /// Columns that together tell each row from all others.
    pub unique: Option<OneOrMore<String>>,
    /// How old the newest row may be.
    pub fresh: Option<FreshRule>,
    /// A query that must give no rows.
    pub empty: Option<String>,
    /// What becomes of the task when something does not hold: it fails (the default), or only warns.
    pub severity: Option<Severity>,
}

/// A number of rows, or what it must be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RowsRule {
    /// Exactly so many.
    Exactly(u64),
    /// A comparison.
    Rule(String),
}

/// What must hold for a column.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnRule {
    /// The most nulls.
    pub nulls: Option<u64>,
    /// Whether every value is there once.
    pub unique: Option<bool>,
    /// The least value.
    pub min: Option<Value>,
    /// The greatest value.
    pub max: Option<Value>,
    /// The only values that there are; nulls are none of them and no mistake.
    #[serde(rename = "in")]
    pub among: Option<Vec<Value>>,
    /// A regular expression that every text matches.
    pub matches: Option<String>,
}

/// How old the newest row may be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreshRule {
    /// The column with the time of a row.
    pub column: String,
    /// How long ago it may be, at the end of the run's interval.
    pub within: Period,
}

/// What becomes of the task when something does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It fails.
    #[default]
    Fail,
    /// It succeeds, and says what does not hold.
    Warn,
}

/// A comparison of a number of rows, as SQL: `> 0`.
///
/// Errors: what is wrong with it.
pub fn comparison(text: &str) -> Result<String, String> {
    let text = text.trim();
    let number = |text: &str| {
        text.trim().replace('_', "").parse::<u64>().map_err(|_| format!("'{}' is not a number", text.trim()))
    };
    for sign in [">=", "<=", "!=", "<>", "=", ">", "<"] {
        if let Some(rest) = text.strip_prefix(sign) {
            return Ok(format!("{} {}", if sign == "!=" { "<>" } else { sign }, number(rest)?));
        }
    }
    if let Some((low, high)) = text.strip_prefix("between ").and_then(|rest| rest.split_once(" and ")) {
        return Ok(format!("between {} and {}", number(low)?, number(high)?));
    }
    number(text).map(|number| format!("= {number}"))
}

impl TaskKind for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn about(&self) -> &'static str {
        "Looks whether rows are as they should be. Its output has rows, passed, and failed: a list of what does not hold."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("empty")
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        let about_table = ["where", "rows", "columns", "unique", "fresh"];
        if config["table"].is_null() {
            for key in about_table.into_iter().filter(|key| !config[*key].is_null()) {
                problems.push(Problem::at_key(Path::of([key]), format!("'{key}' means nothing without 'table'")));
            }
            if config["empty"].is_null() {
                problems.push(
                    Problem::at_key(Path::top(), "there is nothing to check")
                        .hint("give a 'table', or a query in 'empty'"),
                );
            }
        } else if about_table.iter().skip(1).all(|key| config[*key].is_null()) && config["empty"].is_null() {
            let hint = "add 'rows', 'columns', 'unique' or 'fresh'";
            problems.push(Problem::at_key(Path::top(), "nothing is said about the table").hint(hint));
        }
        if let Some(text) = config["rows"].as_str().filter(|text| !is_template(text))
            && let Err(message) = comparison(text)
        {
            let hint = "write it such as '> 0', '>= 1000' or 'between 1 and 500'";
            problems.push(Problem::new(Path::of(["rows"]), message).hint(hint));
        }
        problems
    }

    fn uses(&self, config: &Value) -> Uses {
        Uses { reads: Named::at(config, Path::of(["table"])).into_iter().collect(), ..Uses::default() }
    }
}

own_process!(Check);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_understood() {
        for (text, sql) in
            [("> 0", "> 0"), ("265", "= 265"), ("!=3", "<> 3"), ("between 1 and 5_000", "between 1 and 5000")]
        {
            assert_eq!(comparison(text).as_deref(), Ok(sql), "{text}");
        }
        for text in ["", "> x", "many", "between 1"] {
            assert!(comparison(text).is_err(), "{text}");
        }
    }
}
