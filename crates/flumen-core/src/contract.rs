//! Contracts: what the columns of a data set must be, and the one place where drift is decided.
//!
//! [`Contract`] is the file that a person writes, [`plan`] compares it with what the inputs have and the table holds, and
//! [`InputPlan::apply`] turns one batch of an input into rows of the table, putting aside what does not fit. All of it
//! is pure: nothing here reads or writes anything.

use std::collections::BTreeMap;
use std::fmt;

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

mod apply;
mod json;
mod names;
mod plan;

pub use apply::{Applied, Quarantined, Verdict, convert};
pub use names::{Case, parse_type, type_name};
pub use plan::{ColumnPlan, InputPlan, Offer, Plan, plan};

/// What a contract does with something that it does not foresee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// New columns are added, missing ones are null, a value that does not fit makes its row bad.
    #[default]
    Evolve,
    /// A new column fails the load; a value that does not fit makes its row bad.
    Freeze,
    /// The row goes to quarantine, and does not count as bad.
    DiscardRow,
    /// The value becomes null, with an entry in quarantine; a new column is left out.
    DiscardValue,
}

/// What the columns of a data set must be: a file `contracts/<name>.yml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// A name for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the data is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What happens on drift, unless one of the next three says otherwise.
    #[serde(default)]
    pub mode: OnDrift,
    /// … to columns that the contract does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_columns: Option<OnDrift>,
    /// … to values that do not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_values: Option<OnDrift>,
    /// … to rows of the wrong shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_rows: Option<OnDrift>,
    /// The columns.
    #[serde(default)]
    pub columns: Vec<ContractColumn>,
}

/// What one column must be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractColumn {
    /// Its name in the table.
    pub name: String,
    /// Its type; found from the data if it is not given.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub data_type: Option<TypeName>,
    /// Whether it may be null.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub nullable: bool,
    /// Names that it has in the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What its values mean: `CSH: 2`. Compared without white space round them, then without regard to case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub codes: BTreeMap<String, Scalar>,
    /// Columns of the files of which the first that is not null counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coalesce: Vec<String>,
    /// What happens to values that do not fit this column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<OnDrift>,
    /// What it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_true(value: &bool) -> bool {
    *value
}

impl ContractColumn {
    /// A column of which nothing but the name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), nullable: true, ..Self::default() }
    }
}

/// A type as a contract writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TypeName(pub DataType);

impl TryFrom<String> for TypeName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        parse_type(&text).map(Self)
    }
}

impl From<TypeName> for String {
    fn from(name: TypeName) -> Self {
        type_name(&name.0)
    }
}

/// The meaning of a code: any single value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Nothing: the code means null.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Null => Ok(()),
            Scalar::Bool(value) => value.fmt(f),
            Scalar::Int(value) => value.fmt(f),
            Scalar::Float(value) => value.fmt(f),
            Scalar::Text(value) => value.fmt(f),
        }
    }
}

impl Contract {
    /// What happens to columns that it does not name.
    pub fn on_new_columns(&self) -> OnDrift {
        self.new_columns.unwrap_or(self.mode)
    }

    /// What happens to values of `column` that do not fit.
    pub fn on_bad_value(&self, column: Option<&ContractColumn>) -> OnDrift {
        column.and_then(|column| column.mode).or(self.bad_values).unwrap_or(self.mode)
    }

    /// What happens to rows of the wrong shape.
    pub fn on_bad_row(&self) -> OnDrift {
        self.bad_rows.unwrap_or(self.mode)
    }

    /// The column called `name` (in any case), made if it is not there.
    pub fn column_mut(&mut self, name: &str) -> &mut ContractColumn {
        let at = self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        let at = at.unwrap_or_else(|| {
            self.columns.push(ContractColumn::named(name));
            self.columns.len() - 1
        });
        &mut self.columns[at]
    }

    /// What makes a load under this contract differ from one under another. Empty for the empty contract.
    pub fn version(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        // A structure of strings, numbers and lists always serialises.
        let text = serde_json::to_string(self).unwrap_or_default();
        crate::load::LoadId::derive(["contract", &text]).to_string()
    }

    /// Every mistake that can be seen without data: names twice, a code that its type cannot hold.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for column in &self.columns {
            if column.name.trim().is_empty() {
                wrong.push("a column has no name".to_owned());
            }
            for name in std::iter::once(&column.name).chain(&column.aliases) {
                if let Some(other) = seen.insert(name.trim().to_lowercase(), &column.name)
                    && !other.eq_ignore_ascii_case(&column.name)
                {
                    wrong.push(format!("the name '{name}' belongs to '{other}' and to '{}'", column.name));
                }
            }
            if let Some(TypeName(data_type)) = &column.data_type {
                for (code, meaning) in column.codes.iter().filter(|(_, meaning)| **meaning != Scalar::Null) {
                    let fits = crate::text::TextColumn::new(data_type, 1, &crate::text::TextOptions::default())
                        .is_ok_and(|mut builder| builder.append(meaning.to_string().as_bytes()));
                    if !fits {
                        wrong.push(format!(
                            "column '{}': the code {code} means '{meaning}', which is no {}",
                            column.name,
                            type_name(data_type)
                        ));
                    }
                }
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests;
