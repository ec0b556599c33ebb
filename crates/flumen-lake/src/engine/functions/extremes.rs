//! `max_by(x, y)` and `min_by(x, y)`: the x of the row with the greatest or the least y.

use super::{Text, Written};

pub(super) const WRITTEN: &[Written] = &[
    Written {
        names: &["max_by", "arg_max"],
        arguments: 2..=2,
        usage: "max_by(x, y)",
        sql: Text::Same("first_value($1 ORDER BY $2 DESC NULLS LAST)"),
    },
    Written {
        names: &["min_by", "arg_min"],
        arguments: 2..=2,
        usage: "min_by(x, y)",
        sql: Text::Same("first_value($1 ORDER BY $2 ASC NULLS LAST)"),
    },
];
