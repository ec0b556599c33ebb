//! `UPDATE … SET … [FROM …] WHERE …`.

use std::collections::HashMap;

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::{Assignment, AssignmentTarget, Update, UpdateTableFromKind};
use flumen_core::{Error, Result};

use super::draft::Draft;
use super::insert::spelled;
use super::merge::{self, Action, Clause, Kind, Merge};
use super::returning::{self, Staged};
use super::{Statement, Target, columns_of, from_text, name_of, refuse};
use crate::engine::columns::{self, quoted};

/// The table that an update is about.
pub(super) fn target(update: &Update) -> Result<Target> {
    if !update.table.joins.is_empty() {
        return refuse("update of a join", "write update t set … from other where t.key = other.key");
    }
    Target::of(&update.table.relation)
}

/// Stages an update in `draft`; gives the rows that change. What it returns is worked out from them as they were.
pub(super) async fn stage(statement: &Statement<'_>, update: &Update, draft: &mut Draft) -> Result<Staged> {
    if update.output.is_some() {
        return refuse("update … output", "write update … returning …");
    }
    if !update.order_by.is_empty() || update.limit.is_some() || update.or.is_some() {
        return refuse("update … limit", "write a condition that says which rows change");
    }
    let target = target(update)?;
    let values = assignments(&update.assignments, draft.schema(), &draft.table().address())?;
    if let Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) = &update.from {
        if update.returning.is_some() {
            return refuse("update … from … returning", "update the rows, then select them");
        }
        let on = update.selection.as_ref().map_or_else(|| "true".to_owned(), ToString::to_string);
        let merge = Merge {
            target,
            source: from_text(from)?,
            on,
            clauses: vec![Clause { kind: Kind::Matched, condition: None, action: Action::Update(values) }],
            operation: "UPDATE",
        };
        return merge::stage(statement, &merge, draft).await.map(Staged::from);
    }
    draft.look();
    let condition = update.selection.as_ref().map_or_else(|| "true".to_owned(), |condition| format!("({condition})"));
    let scan = target.scan();
    let after = new_values(draft.schema(), &target.alias, &values);
    let returned = match &update.returning {
        Some(items) => {
            let from = format!("(SELECT {after} FROM {scan} WHERE {condition}) AS {}", quoted(&target.alias));
            let tables = returning::rows_of(draft, draft.files()?)?;
            Some(returning::query(statement, &spelled(items, draft), &from, tables).await?)
        }
        None => None,
    };
    let touched = statement.touched(draft, &target, &condition).await?;
    if touched.rows == 0 {
        return Ok(Staged { rows: 0, returned });
    }
    let before = columns_of(draft.schema(), &target.alias);
    if draft.has_change_feed() {
        let changes = format!(
            "SELECT {before}, 'update_preimage' FROM {scan} WHERE {condition} \
             UNION ALL SELECT {after}, 'update_postimage' FROM {scan} WHERE {condition}"
        );
        statement.write_changes(draft, &touched.files, &changes).await?;
    }
    let query = format!(
        "SELECT {after} FROM {scan} WHERE {condition} UNION ALL SELECT {before} FROM {scan} WHERE {condition} IS NOT TRUE"
    );
    statement.rewrite(draft, touched.files, &query).await?;
    draft.describe("UPDATE");
    Ok(Staged { rows: touched.rows, returned })
}

/// What each column is set to, by the column's own spelling.
///
/// Errors: `NotFound` for a column that is not there; `Invalid` for one that is set twice.
pub(super) fn assignments(list: &[Assignment], schema: &Schema, table: &str) -> Result<HashMap<String, String>> {
    let mut values = HashMap::new();
    for assignment in list {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return refuse("set (a, b) = …", "set one column after the other: set a = 1, b = 2");
        };
        let column = columns::spelled(schema, &name_of(name)?, table)?;
        if values.insert(column.clone(), assignment.value.to_string()).is_some() {
            return Err(Error::invalid(format!("the column '{column}' is set twice")));
        }
    }
    Ok(values)
}

/// All columns of `schema`, those of `values` with what they are set to. The types of the table decide: a number that is set
/// to text fails where it does not read as one.
fn new_values(schema: &Schema, alias: &str, values: &HashMap<String, String>) -> String {
    let value = |name: &String| match values.get(name) {
        Some(value) => format!("({value}) AS {}", quoted(name)),
        None => format!("{}.{}", quoted(alias), quoted(name)),
    };
    schema.fields().iter().map(|field| value(field.name())).collect::<Vec<_>>().join(", ")
}
