//! `RETURNING`: the rows that a statement wrote, changed or removed, as it shows them.
//!
//! They are read when the statement is done, from the files that it has written (or, for rows that are gone, from those that
//! held them): nothing is kept in memory for them.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem, Statement as Sql, VisitMut, VisitorMut};
use flumen_core::Result;
use flumen_core::dataset::TableName;
use flumen_core::sql::{Answer, Done};

use super::draft::Draft;
use super::{Statement, TARGET, name_of_ident};
use crate::engine::labels::{self, Labels};
use crate::engine::lake_table::{Contents, LakeTable};
use crate::engine::{Engine, columns, statements, visit};
use crate::lake::DataFile;

/// What a statement did to its table.
#[derive(Default)]
pub(in crate::engine) struct Staged {
    /// The rows that it wrote, changed or removed.
    pub rows: u64,
    /// Those rows, if it asks for them.
    pub returned: Option<Returned>,
}

impl From<u64> for Staged {
    fn from(rows: u64) -> Self {
        Self { rows, returned: None }
    }
}

/// A query for the rows that a statement returns.
pub(in crate::engine) struct Returned {
    context: SessionContext,
    plan: LogicalPlan,
    labels: Labels,
}

impl Returned {
    /// The answer to a statement `command` that is done.
    ///
    /// Errors: those of reading the rows.
    pub async fn answer(self, command: &'static str, rows: u64, sql: &str) -> Result<Answer> {
        let answer = crate::engine::answer_of(self.context, self.plan, &self.labels, sql).await?;
        Ok(Answer { done: Some(Done { command, rows: Some(rows) }), ..answer })
    }
}

/// The query for `items` of the rows of `from`, in which the names of `tables` mean what is given.
///
/// Errors: those of the items.
pub(super) async fn query(
    statement: &Statement<'_>,
    items: &[SelectItem],
    from: &str,
    tables: Vec<(String, Arc<dyn TableProvider>)>,
) -> Result<Returned> {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    let mut parsed = statements::parse_any(&format!("SELECT {} FROM {from}", items.join(", ")))?;
    let labels = Labels::of(&parsed);
    labels::alias(&mut parsed);
    let (context, plan) = statement.plan(&parsed.to_string(), tables).await?;
    Ok(Returned { context, plan, labels })
}

/// `files` of a draft's table, as the statement's own table.
pub(super) fn rows_of(draft: &Draft, files: Vec<DataFile>) -> Result<Vec<(String, Arc<dyn TableProvider>)>> {
    let contents = Contents { files, ..draft.contents()? };
    Ok(vec![(TARGET.to_owned(), Arc::new(LakeTable::new(contents.without_own())?))])
}

/// Takes what `statement` returns out of it; gives that and the name of its table, as text.
pub(in crate::engine) fn take(statement: &mut Parsed) -> Option<Vec<SelectItem>> {
    let Parsed::Statement(inner) = statement else { return None };
    match inner.as_mut() {
        Sql::Insert(insert) => insert.returning.take(),
        Sql::Update(update) => update.returning.take(),
        Sql::Delete(delete) => delete.returning.take(),
        _ => None,
    }
}

/// Leaves the namespace out of columns that are written as `namespace.table.column` of the statement's table; gives columns
/// without a table the one called `bare`, if they are columns of it.
pub(in crate::engine) struct Names<'a> {
    pub table: &'a TableName,
    pub bare: Option<(&'a str, &'a arrow::datatypes::Schema)>,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::CompoundIdentifier(parts) if parts.len() >= 3 => {
                let at = parts.len() - 3;
                if name_of_ident(&parts[at]) == self.table.namespace
                    && name_of_ident(&parts[at + 1]) == self.table.table
                {
                    parts.drain(..=at);
                }
            }
            Expr::Identifier(ident) => {
                if let Some((alias, schema)) = self.bare
                    && columns::spelled(schema, &name_of_ident(ident), "").is_ok()
                {
                    *expr = Expr::CompoundIdentifier(vec![Ident::with_quote('"', alias), ident.clone()]);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Names<'_> {
    /// Spells the columns in `part` so.
    pub fn spell(&mut self, part: &mut impl VisitMut) {
        visit::change(part, self);
    }
}

impl Engine {
    /// The columns of what a statement on `table` returns.
    pub(in crate::engine) async fn returned_columns(
        &self,
        sql: &str,
        table: &TableName,
        alias: &str,
        mut items: Vec<SelectItem>,
    ) -> Result<arrow::datatypes::SchemaRef> {
        items.iter_mut().for_each(|item| Names { table, bare: None }.spell(item));
        let statement = Statement { engine: self, sql };
        let from = format!(
            "{}.{} AS {}",
            columns::quoted(&table.namespace),
            columns::quoted(&table.table),
            columns::quoted(alias)
        );
        let returned = query(&statement, &items, &from, Vec::new()).await?;
        let schema = Arc::new(returned.plan.schema().as_arrow().clone());
        Ok(returned.labels.apply(&crate::engine::unviewed(&schema)))
    }
}
