//! `DELETE FROM …` and `TRUNCATE`. Files without a row that goes are left alone.

use datafusion::sql::sqlparser::ast::{Delete, FromTable};
use flumen_core::{Error, Result};

use super::draft::Draft;
use super::insert::spelled;
use super::merge::{self, Action, Clause, Kind, Merge};
use super::returning::{self, Staged};
use super::{Statement, Target, columns_of, from_text, refuse};

/// The table that a delete is about.
pub(super) fn target(delete: &Delete) -> Result<Target> {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let only = match from.as_slice() {
        [only] if only.joins.is_empty() && delete.tables.is_empty() => &only.relation,
        _ => return Err(Error::invalid("a delete is from one table").hint("write delete from t using … where …")),
    };
    Target::of(only)
}

/// Stages a delete into `draft`; gives the rows that go.
pub(super) async fn stage(statement: &Statement<'_>, delete: &Delete, draft: &mut Draft) -> Result<Staged> {
    if delete.output.is_some() {
        return refuse("delete … output", "write delete … returning …");
    }
    if !delete.order_by.is_empty() || delete.limit.is_some() {
        return refuse("delete … limit", "write a condition that says which rows go");
    }
    let target = target(delete)?;
    if let Some(using) = delete.using.as_deref().filter(|using| !using.is_empty()) {
        if delete.returning.is_some() {
            return refuse("delete … using … returning", "select the rows first, then delete them");
        }
        let on = delete.selection.as_ref().map_or_else(|| "true".to_owned(), ToString::to_string);
        let merge = Merge {
            target,
            source: from_text(using)?,
            on,
            clauses: vec![Clause { kind: Kind::Matched, condition: None, action: Action::Delete }],
            operation: "DELETE",
        };
        return merge::stage(statement, &merge, draft).await.map(Staged::from);
    }
    draft.look();
    let returned = match &delete.returning {
        Some(items) => {
            let condition =
                delete.selection.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
            let from = format!("{}{condition}", target.scan());
            let tables = returning::rows_of(draft, draft.files()?)?;
            Some(returning::query(statement, &spelled(items, draft), &from, tables).await?)
        }
        None => None,
    };
    let Some(condition) = &delete.selection else {
        return Ok(Staged { rows: everything(statement, draft, "DELETE").await?, returned });
    };
    let touched = statement.touched(draft, &target, &condition.to_string()).await?;
    if touched.rows == 0 {
        return Ok(Staged { rows: 0, returned });
    }
    let columns = columns_of(draft.schema(), &target.alias);
    if draft.has_change_feed() {
        let gone = format!("SELECT {columns}, 'delete' FROM {} WHERE {condition}", target.scan());
        statement.write_changes(draft, &touched.files, &gone).await?;
    }
    let kept = format!("SELECT {columns} FROM {} WHERE ({condition}) IS NOT TRUE", target.scan());
    statement.rewrite(draft, touched.files, &kept).await?;
    draft.describe("DELETE");
    Ok(Staged { rows: touched.rows, returned })
}

/// Takes all rows out.
pub(super) async fn everything(statement: &Statement<'_>, draft: &mut Draft, operation: &'static str) -> Result<u64> {
    let before = draft.files()?;
    let counted: Option<u64> = before.iter().map(|file| file.stats.as_ref().and_then(|stats| stats.num_records)).sum();
    let rows = match counted {
        Some(rows) => rows,
        None => statement.count(draft).await?,
    };
    draft.remove(before)?;
    draft.look();
    draft.describe(operation);
    Ok(rows)
}
