//! Columns of a table as statements name them: without regard to case, and without those that Flumen adds.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use flumen_core::{Error, Result};

use crate::types;

/// What the columns that Flumen adds to a table begin with.
const OWN_PREFIX: &str = "_flumen_";
/// How names go on that begin so, and are those of tables and columns within one query.
const OTHER_NAMES: &[&str] = &["reference_", "target", "source", "session", "again_"];

/// Whether `name` is a column that Flumen adds: shown only to who asks for it by name.
pub(super) fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX)
}

/// Whether the text of a statement names a column that Flumen adds.
pub(super) fn names_own(sql: &str) -> bool {
    let mut named = sql.match_indices(OWN_PREFIX).map(|(at, prefix)| &sql[at + prefix.len()..]);
    named.any(|rest| !OTHER_NAMES.iter().any(|other| rest.starts_with(other)))
}

/// The columns of `schema` that are not Flumen's own.
pub(super) fn visible(schema: &Schema) -> Vec<FieldRef> {
    schema.fields().iter().filter(|field| !is_own(field.name())).cloned().collect()
}

/// The column that `name` means, as `schema` spells it.
///
/// Errors: `NotFound`, with the nearest name.
pub(super) fn spelled(schema: &Schema, name: &str, table: &str) -> Result<String> {
    let fields = schema.fields();
    let exact = fields.iter().find(|field| field.name() == name);
    let loose = || fields.iter().find(|field| field.name().to_lowercase() == name.to_lowercase());
    exact.or_else(loose).map(|field| field.name().clone()).ok_or_else(|| {
        Error::not_found(format!("{table} has no column '{name}'"))
            .did_you_mean(name, fields.iter().map(|field| field.name().as_str()))
    })
}

/// A column of a table that takes its values from the column at `at` of a plan.
pub(super) struct Assigned {
    pub name: String,
    pub at: usize,
}

/// `plan` with the columns of `schema`, in their types. Those that nothing is assigned to are null.
pub(super) fn assigned(
    plan: LogicalPlan,
    schema: &SchemaRef,
    assigned: &[Assigned],
) -> datafusion::common::Result<LogicalPlan> {
    let have: Vec<Column> = plan.schema().columns();
    let exprs: Vec<Expr> = schema
        .fields()
        .iter()
        .map(|field| {
            let expr = match assigned.iter().find(|of| of.name == *field.name()) {
                Some(of) => Expr::Column(have[of.at].clone()),
                None => lit(datafusion::common::ScalarValue::Null),
            };
            cast(expr, field.data_type().clone()).alias(field.name())
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}

/// The columns of a query as the lake keeps them. A column that is nothing but null is text.
///
/// Errors: `Invalid` for a type that cannot be kept.
pub(super) fn stored(schema: &SchemaRef) -> Result<SchemaRef> {
    let text = |field: &FieldRef| match field.data_type() {
        DataType::Null => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        _ => Arc::clone(field),
    };
    types::stored_schema(&Schema::new(schema.fields().iter().map(text).collect::<Vec<_>>()))
}

/// `plan`, sorted by these columns; as it is, if there are none.
pub(super) fn sorted(plan: LogicalPlan, by: &[String]) -> datafusion::common::Result<LogicalPlan> {
    if by.is_empty() {
        return Ok(plan);
    }
    let by = by.iter().map(|name| Expr::Column(Column::new_unqualified(name)).sort(true, false));
    LogicalPlanBuilder::from(plan).sort(by.collect::<Vec<_>>())?.build()
}

/// A name as SQL writes it, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema` without Flumen's own columns.
pub(super) fn without_own(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().any(|field| is_own(field.name())) {
        Arc::new(Schema::new(visible(schema)))
    } else {
        Arc::clone(schema)
    }
}
