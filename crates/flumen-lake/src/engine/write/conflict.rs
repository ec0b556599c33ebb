//! `INSERT … ON CONFLICT`: rows whose key is there already are left out, or change the row that is there. It is a merge.

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{
    ConflictTarget, Expr, Ident, ObjectName, OnConflict, OnConflictAction, OnInsert,
};
use flumen_core::{Error, Result};

use super::draft::Draft;
use super::filling::Given;
use super::merge::{self, Action, Clause, Kind, Merge};
use super::returning::Names;
use super::update::assignments;
use super::{Statement, Target, name_of, name_of_ident, refuse};
use crate::catalog::{Key, Located};
use crate::engine::columns::{self, quoted};

/// What the rows are called that were to be inserted.
const EXCLUDED: &str = "excluded";

/// A key, and what becomes of a row whose key is there.
pub(super) struct Conflict {
    keys: Vec<String>,
    /// What the row that is there changes; nothing, if none.
    update: Option<(HashMap<String, String>, Option<String>)>,
}

impl Conflict {
    /// What `on` says about the table of `draft`, which statements call `alias`.
    ///
    /// Errors: `Invalid` where no key is named and none is declared.
    pub async fn of(statement: &Statement<'_>, on: &OnInsert, draft: &Draft, alias: &str) -> Result<Self> {
        let OnInsert::OnConflict(OnConflict { conflict_target, action }) = on else {
            return refuse("on duplicate key update", "write on conflict (key) do update set …");
        };
        let keys = keys(statement, conflict_target.as_ref(), draft).await?;
        let update = match action {
            OnConflictAction::DoNothing => None,
            OnConflictAction::DoUpdate(update) => {
                let table = draft.table().name();
                let mut set = update.assignments.clone();
                let mut condition = update.selection.clone();
                let mut names = Names { table, bare: Some((alias, draft.schema())) };
                set.iter_mut().for_each(|assignment| names.spell(&mut assignment.value));
                if let Some(condition) = &mut condition {
                    names.spell(condition);
                }
                let set = assignments(&set, draft.schema(), &draft.table().address())?;
                Some((set, condition.as_ref().map(Expr::to_string)))
            }
        };
        Ok(Self { keys, update })
    }

    /// Whether the rows that are there stay as they are.
    pub fn only_adds(&self) -> bool {
        self.update.is_none()
    }

    /// The rows of `alias` that have a key of `source`, as a condition.
    pub fn has_key_of(&self, alias: &str, source: &str) -> String {
        let pairs =
            self.keys.iter().map(|key| format!("{}.{} = {EXCLUDED}.{}", quoted(alias), quoted(key), quoted(key)));
        format!("EXISTS (SELECT 1 FROM ({source}) AS {EXCLUDED} WHERE {})", pairs.collect::<Vec<_>>().join(" AND "))
    }

    /// Stages what is given; gives the rows that were added or changed, and the query for the rows that were to be added.
    ///
    /// Errors: `Data` if a row would be changed twice.
    pub async fn stage(
        &self,
        statement: &Statement<'_>,
        given: &Given,
        target: Target,
        draft: &mut Draft,
    ) -> Result<(u64, String)> {
        draft.look();
        let (query, names) = given.whole(statement, draft).await?;
        if let Some(missing) = self.keys.iter().find(|key| !names.contains(key)) {
            return Err(Error::invalid(format!(
                "the insert gives nothing for '{missing}', by which it looks for conflicts"
            ))
            .hint("name the column among those that are inserted"));
        }
        let keys: Vec<String> = self.keys.iter().map(|key| quoted(key)).collect();
        let source = match self.update {
            // Of rows with the same key the first is added, and the others meet it.
            None => {
                let missing: Vec<String> = keys.iter().map(|key| format!("{key} IS NULL")).collect();
                format!(
                    "SELECT * FROM ({query}) AS _flumen_new QUALIFY row_number() OVER (PARTITION BY {}) = 1 OR {}",
                    keys.join(", "),
                    missing.join(" OR ")
                )
            }
            Some(_) => {
                self.check_once(statement, &query, &keys).await?;
                query.clone()
            }
        };
        let on = keys.iter().map(|key| format!("{}.{key} = {EXCLUDED}.{key}", quoted(&target.alias)));
        let value = |field: &arrow::datatypes::FieldRef| match names.contains(field.name()) {
            true => format!("{EXCLUDED}.{}", quoted(field.name())),
            false => "NULL".to_owned(),
        };
        let inserted = Action::Insert(draft.schema().fields().iter().map(value).collect());
        let mut clauses = vec![Clause { kind: Kind::NotMatched, condition: None, action: inserted }];
        if let Some((set, condition)) = &self.update {
            let (condition, action) = (condition.clone(), Action::Update(set.clone()));
            clauses.push(Clause { kind: Kind::Matched, condition, action });
        }
        let on = on.collect::<Vec<_>>().join(" AND ");
        let merge = Merge { target, source: format!("({source}) AS {EXCLUDED}"), on, clauses, operation: "WRITE" };
        Ok((merge::stage(statement, &merge, draft).await?, query))
    }

    async fn check_once(&self, statement: &Statement<'_>, query: &str, keys: &[String]) -> Result<()> {
        let keys = keys.join(", ");
        let text = format!("SELECT {keys} FROM ({query}) AS _flumen_new GROUP BY {keys} HAVING count(*) > 1 LIMIT 1");
        let (context, plan) = statement.plan(&text, Vec::new()).await?;
        let frame = context.execute_logical_plan(plan).await.map_err(|error| statement.explained(error))?;
        let rows = frame.collect().await.map_err(|error| statement.explained(error))?;
        match rows.iter().find(|batch| batch.num_rows() > 0) {
            Some(batch) if (0..batch.num_columns()).all(|column| !batch.column(column).is_null(0)) => Err(Error::data(
                format!(
                    "'on conflict do update' would change a row twice: two rows are inserted with {}",
                    crate::constraints::describe_row(batch, 0)
                ),
            )
            .hint("give one row a key, for example with: qualify row_number() over (partition by key order by …) = 1")),
            _ => Ok(()),
        }
    }
}

/// The columns by which rows are the same.
async fn keys(statement: &Statement<'_>, target: Option<&ConflictTarget>, draft: &Draft) -> Result<Vec<String>> {
    let table = draft.table().address();
    let spelled = |name: &Ident| columns::spelled(draft.schema(), &name_of_ident(name), &table);
    let declared = match statement.engine.tables.locate(draft.table().name()).await? {
        Some(Located::Table { entry: Some(entry), .. }) => {
            entry.primary_key.iter().chain(&entry.unique).cloned().collect()
        }
        _ => Vec::new(),
    };
    let named = |name: &ObjectName| -> Result<Vec<String>> {
        let wanted = name_of(name)?;
        let names = declared.iter().map(|key: &Key| key.name.as_str());
        let found = declared.iter().find(|key| key.name == wanted).map(|key| key.columns.clone());
        found.ok_or_else(|| Error::not_found(format!("{table} has no key '{wanted}'")).did_you_mean(&wanted, names))
    };
    match target {
        Some(ConflictTarget::Columns(columns)) => columns.iter().map(spelled).collect(),
        Some(ConflictTarget::OnConstraint(name)) => named(name),
        None => declared.first().map(|key| key.columns.clone()).ok_or_else(|| {
            Error::invalid(format!("{table} has no key by which rows could be in conflict"))
                .hint("name the columns: on conflict (id) do …; or declare a primary key")
        }),
    }
}
