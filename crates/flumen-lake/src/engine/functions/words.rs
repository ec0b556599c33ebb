//! Other words for what DataFusion has.

use super::{Text, Written};

pub(super) const WRITTEN: &[Written] = &[
    Written { names: &["len"], arguments: 1..=1, usage: "len(text)", sql: Text::Same("length($1)") },
    Written {
        names: &["charindex"],
        arguments: 2..=2,
        usage: "charindex(what, text)",
        sql: Text::Same("strpos($2, $1)"),
    },
    Written {
        names: &["date_from_parts", "datefromparts"],
        arguments: 3..=3,
        usage: "date_from_parts(year, month, day)",
        sql: Text::Same("make_date($1, $2, $3)"),
    },
    Written { names: &["getdate", "sysdate"], arguments: 0..=0, usage: "getdate()", sql: Text::Same("now()") },
];
