//! Functions that give several values.

use std::sync::Arc;

use postgres_types::Type;

use super::{Gives, Spec, Value, at, int, ours, ours_null, plain, plain_null};
use crate::catalog::tables;
use crate::catalog::value::Row;
use crate::failure::{Failure, code};
use flumen_core::limits;

pub(super) const FUNCTIONS: &[Spec] = &[
    plain_null("unnest", Gives::Argument(0), |a, _| Ok(a.first().cloned().unwrap_or(Value::Null))),
    plain("generate_series", Type::INT8_ARRAY, |a, _| {
        let (from, to) = (int(a, 0), int(a, 1));
        let step = if a.len() > 2 { int(a, 2) } else { 1 };
        if step == 0 {
            return Err(Failure::new("22023", "step size cannot equal zero"));
        }
        let count = (to.saturating_sub(from) / step).saturating_add(1).max(0);
        if count > limits::CATALOG_ROWS {
            return Err(Failure::new(code::LIMIT_EXCEEDED, format!("{count} rows are too many here")));
        }
        Ok(Value::array((0..count).map(|index| Value::Int(from + index * step)).collect()))
    }),
    plain("generate_subscripts", Type::INT4_ARRAY, |a, _| {
        let Value::Array(values) = at(a, 0) else { return Ok(Value::Null) };
        Ok(Value::array((1..=values.len() as i64).map(Value::Int).collect()))
    }),
    ours("_pg_expandarray", Type::RECORD_ARRAY, |a, _| {
        let Value::Array(values) = at(a, 0) else { return Ok(Value::Null) };
        let row = |(value, place): (&Value, i64)| Value::Row(Arc::new(vec![value.clone(), Value::Int(place)]));
        Ok(Value::array(values.iter().zip(1..).map(row).collect()))
    }),
    ours("pg_get_keywords", Type::RECORD_ARRAY, |_, _| {
        let row = |word: &&str| {
            let texts = [*word, "R", "reserved"].map(Value::text);
            Value::Row(Arc::new(texts.into_iter().chain([Value::Bool(false), Value::text("requires AS")]).collect()))
        };
        Ok(Value::array(RESERVED.iter().map(row).collect()))
    }),
    ours_null("aclexplode", Type::RECORD_ARRAY, |_, _| Ok(Value::array(Vec::new()))),
    // Nothing is partitioned as Postgres does it, and nothing can be added.
    ours_null("pg_partition_ancestors", Type::REGCLASS_ARRAY, |_, _| Ok(Value::array(Vec::new()))),
    ours_null("pg_available_extensions", Type::RECORD_ARRAY, |_, _| Ok(Value::array(Vec::new()))),
    ours_null("pg_options_to_table", Type::RECORD_ARRAY, |_, _| Ok(Value::array(Vec::new()))),
    ours_null("pg_show_all_settings", Type::RECORD_ARRAY, |_, c| {
        let Some(table) = tables::find(&["pg_catalog".to_owned(), "pg_settings".to_owned()]) else {
            return Ok(Value::array(Vec::new()));
        };
        let rows = c.snapshot.rows(table);
        let shown = |row: &Row| Value::Row(Arc::new(row.iter().take(table.shown).cloned().collect()));
        Ok(Value::array(rows.iter().map(shown).collect()))
    }),
];

/// The fields of the rows that the function `name` gives.
pub(super) fn fields(name: &str) -> Option<&'static [(&'static str, Type)]> {
    Some(match name {
        "_pg_expandarray" => const { &[("x", Type::INT2), ("n", Type::INT4)] },
        "pg_get_keywords" => {
            const {
                &[
                    ("word", Type::TEXT),
                    ("catcode", Type::CHAR),
                    ("catdesc", Type::TEXT),
                    ("barelabel", Type::BOOL),
                    ("baredesc", Type::TEXT),
                ]
            }
        }
        "aclexplode" => {
            const {
                &[
                    ("grantor", Type::OID),
                    ("grantee", Type::OID),
                    ("privilege_type", Type::TEXT),
                    ("is_grantable", Type::BOOL),
                ]
            }
        }
        "pg_available_extensions" => {
            const { &[("name", Type::NAME), ("default_version", Type::TEXT), ("comment", Type::TEXT)] }
        }
        "pg_options_to_table" => const { &[("option_name", Type::TEXT), ("option_value", Type::TEXT)] },
        // Those of `pg_settings`, in their order.
        "pg_show_all_settings" => {
            const {
                &[
                    ("name", Type::TEXT),
                    ("setting", Type::TEXT),
                    ("unit", Type::TEXT),
                    ("category", Type::TEXT),
                    ("short_desc", Type::TEXT),
                    ("extra_desc", Type::TEXT),
                    ("context", Type::TEXT),
                    ("vartype", Type::TEXT),
                    ("source", Type::TEXT),
                    ("min_val", Type::TEXT),
                    ("max_val", Type::TEXT),
                    ("enumvals", Type::TEXT_ARRAY),
                    ("boot_val", Type::TEXT),
                    ("reset_val", Type::TEXT),
                    ("sourcefile", Type::TEXT),
                    ("sourceline", Type::INT4),
                    ("pending_restart", Type::BOOL),
                ]
            }
        }
        _ => return None,
    })
}

/// Words that cannot be names without quotes.
pub(super) const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];
