//! `INSERT INTO … SELECT | VALUES` and `INSERT OVERWRITE`.

use datafusion::sql::sqlparser::ast::Insert;
use flumen_core::{Error, Result};

use super::draft::Draft;
use super::{Statement, name_of, refuse};
use crate::engine::columns::{self, Assigned};

/// Stages an insert into `draft`; gives the rows.
pub(super) async fn stage(statement: &Statement<'_>, insert: &Insert, draft: &mut Draft) -> Result<u64> {
    check(insert)?;
    let source = insert.source.as_ref().ok_or_else(|| {
        Error::invalid("an insert needs rows").hint("write insert into t values (…), or insert into t select …")
    })?;
    let table = draft.table().address();
    let visible = columns::visible(draft.schema());
    let names: Vec<String> = match insert.columns.as_slice() {
        [] => visible.iter().map(|field| field.name().clone()).collect(),
        listed => listed
            .iter()
            .map(|name| columns::spelled(draft.schema(), &name_of(name)?, &table))
            .collect::<Result<_>>()?,
    };
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)).map(|(_, name)| name) {
        return Err(Error::invalid(format!("the column '{twice}' is listed twice")));
    }
    let (context, plan) = statement.plan(&source.to_string(), Vec::new()).await?;
    let given = plan.schema().fields().len();
    if given != names.len() {
        // A table that has more columns than rows were given for is no guesswork: they are named.
        return Err(Error::invalid(format!(
            "the insert gives {given} {} for {} of {table}",
            if given == 1 { "value" } else { "values" },
            columns::counted(&names)
        ))
        .hint(format!(
            "name the columns: insert into {} (…) …; the table has {}",
            draft.table().name(),
            names.join(", ")
        )));
    }
    let assigned = names.into_iter().enumerate().map(|(at, name)| Assigned { name, at }).collect();
    let plan = statement.cast(plan, draft.schema(), assigned)?;
    if insert.overwrite {
        let before = draft.files()?;
        draft.remove(before)?;
        draft.look();
    }
    let written = statement.write_rows(draft, &context, &plan, false).await?;
    draft.describe("WRITE");
    draft.add(written.files);
    Ok(written.rows)
}

fn check(insert: &Insert) -> Result<()> {
    if insert.returning.is_some() || insert.output.is_some() {
        return refuse("insert … returning", "insert the rows, then select them");
    }
    if insert.on.is_some() || insert.or.is_some() || insert.replace_into || insert.ignore {
        return refuse(
            "insert … on conflict",
            "write it as: merge into t using (…) s on t.key = s.key when matched then …",
        );
    }
    if insert.partitioned.is_some() || !insert.assignments.is_empty() {
        return refuse("this form of insert", "write insert into t (columns) select …");
    }
    Ok(())
}
