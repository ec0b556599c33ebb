//! `count_if(condition)`: the rows for which it holds.

use super::{Text, Written};

pub(super) const WRITTEN: &[Written] = &[Written {
    names: &["count_if", "countif"],
    arguments: 1..=1,
    usage: "count_if(condition)",
    sql: Text::Same("count(CASE WHEN $1 THEN 1 END)"),
}];
