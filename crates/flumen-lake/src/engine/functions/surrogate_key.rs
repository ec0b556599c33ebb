//! `surrogate_key(a, b, …)`: one key made of several columns, equal to what dbt's `generate_surrogate_key` makes of the same
//! texts: the MD5 of the values, with `-` between them, and a word in the place of null.

use datafusion::sql::sqlparser::ast::Expr;
use flumen_core::Result;

use super::{Text, Written};

/// What dbt writes for null.
const NULL: &str = "_dbt_utils_surrogate_key_null_";

pub(super) const WRITTEN: &[Written] = &[Written {
    names: &["surrogate_key", "generate_surrogate_key"],
    arguments: 1..=usize::MAX,
    usage: "surrogate_key(a, b, …)",
    sql: Text::Of(key),
}];

fn key(given: &[Expr]) -> Result<String> {
    let parts = (1..=given.len()).map(|number| format!("coalesce(CAST(${number} AS VARCHAR), '{NULL}')"));
    Ok(format!("md5({})", parts.collect::<Vec<_>>().join(" || '-' || ")))
}
