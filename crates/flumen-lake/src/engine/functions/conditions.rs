//! `iff`, `zeroifnull`, `nullifzero`, `safe_divide`; and `nvl` for every type.

use datafusion::logical_expr::ScalarUDF;

use super::{Text, Written};

pub(super) const WRITTEN: &[Written] = &[
    Written {
        names: &["iff", "if"],
        arguments: 3..=3,
        usage: "iff(condition, then, otherwise)",
        sql: Text::Same("CASE WHEN $1 THEN $2 ELSE $3 END"),
    },
    Written { names: &["zeroifnull"], arguments: 1..=1, usage: "zeroifnull(x)", sql: Text::Same("coalesce($1, 0)") },
    Written { names: &["nullifzero"], arguments: 1..=1, usage: "nullifzero(x)", sql: Text::Same("nullif($1, 0)") },
    Written {
        names: &["safe_divide"],
        arguments: 2..=2,
        usage: "safe_divide(a, b)",
        sql: Text::Same("CAST($1 AS DOUBLE) / nullif(CAST($2 AS DOUBLE), 0)"),
    },
];

/// `coalesce`, which is what `nvl` and `ifnull` mean.
pub(super) fn coalesce() -> ScalarUDF {
    super::renamed(datafusion::functions::core::coalesce(), &["nvl", "ifnull"])
}
