//! `INSERT INTO … SELECT | VALUES | DEFAULT VALUES`, `INSERT OVERWRITE`, and what they return.

use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{Insert, SelectItem, Statement as Sql, TableObject};
use flumen_core::{Error, Result};

use super::conflict::Conflict;
use super::draft::Draft;
use super::filling::{self, Given};
use super::returning::{self, Names, Staged};
use super::{Statement, Target, name_of, name_of_ident, refuse};
use crate::engine::columns::quoted;

/// Stages an insert into `draft`; gives the rows.
pub(super) async fn stage(statement: &Statement<'_>, insert: &Insert, draft: &mut Draft) -> Result<Staged> {
    check(insert)?;
    let given = Given::of(insert, draft)?;
    let alias = alias(insert)?;
    let before: Vec<String> = draft.files()?.into_iter().map(|file| file.path).collect();
    let mut matched = None;
    let rows = match &insert.on {
        Some(on) => {
            let conflict = Conflict::of(statement, on, draft, &alias).await?;
            let (_, plan) = statement.plan(&given.query.to_string(), Vec::new()).await?;
            given.check_count(&plan, draft)?;
            let name = target_name(insert)?;
            let target = Target { name, alias: alias.clone(), given: None };
            let (rows, source) = conflict.stage(statement, &given, target, draft).await?;
            if !conflict.only_adds() {
                matched = Some(conflict.has_key_of(&alias, &source));
            }
            rows
        }
        None => {
            let (context, plan) = statement.plan(&given.query.to_string(), Vec::new()).await?;
            given.check_count(&plan, draft)?;
            let (plan, assigned) = given.filled(statement, draft, plan).await?;
            let plan = statement.cast(plan, draft.schema(), assigned)?;
            if insert.overwrite {
                let before = draft.files()?;
                draft.remove(before)?;
                draft.look();
            }
            let written = statement.write_rows(draft, &context, &plan, false).await?;
            draft.describe("WRITE");
            draft.add(written.files);
            written.rows
        }
    };
    let Some(items) = &insert.returning else { return Ok(rows.into()) };
    let items = spelled(items, draft);
    let from = format!("{} AS {}", super::TARGET, quoted(&alias));
    let files = draft.files()?;
    let returned = match matched {
        Some(condition) => {
            let tables = returning::rows_of(draft, files)?;
            returning::query(statement, &items, &format!("{from} WHERE {condition}"), tables).await?
        }
        None => {
            let new = files.into_iter().filter(|file| !before.contains(&file.path)).collect();
            returning::query(statement, &items, &from, returning::rows_of(draft, new)?).await?
        }
    };
    Ok(Staged { rows, returned: Some(returned) })
}

/// What a statement returns, its columns named as a query over the table alone has them.
pub(super) fn spelled(items: &[SelectItem], draft: &Draft) -> Vec<SelectItem> {
    let mut items = items.to_vec();
    let table = draft.table().name();
    items.iter_mut().for_each(|item| Names { table, bare: None }.spell(item));
    items
}

/// What the columns of the table are qualified with.
pub(in crate::engine) fn alias(insert: &Insert) -> Result<String> {
    match &insert.table_alias {
        Some(alias) => Ok(name_of_ident(&alias.alias)),
        None => name_of(&target_name(insert)?),
    }
}

/// Makes an insert one that DataFusion can plan, to find out what its parameters are.
pub(in crate::engine) fn simplify(statement: &mut Parsed) {
    let Parsed::Statement(inner) = statement else { return };
    let Sql::Insert(insert) = inner.as_mut() else { return };
    insert.on = None;
    filling::without_defaults(insert);
}

fn target_name(insert: &Insert) -> Result<datafusion::sql::sqlparser::ast::ObjectName> {
    match &insert.table {
        TableObject::TableName(name) => Ok(name.clone()),
        _ => refuse("insert into a function", "insert into a table"),
    }
}

fn check(insert: &Insert) -> Result<()> {
    if insert.output.is_some() {
        return refuse("insert … output", "write insert … returning …");
    }
    if insert.or.is_some() || insert.replace_into || insert.ignore {
        return refuse("insert or …, replace into", "write insert … on conflict (key) do update set …, or do nothing");
    }
    if insert.overwrite && insert.on.is_some() {
        return Err(
            Error::invalid("an overwrite leaves no row that could be in conflict").hint("leave 'on conflict' out")
        );
    }
    if insert.partitioned.is_some() || !insert.assignments.is_empty() {
        return refuse("this form of insert", "write insert into t (columns) select …");
    }
    Ok(())
}
