//! `EXPLAIN` of statements that write: the plan of the query inside them, and nothing is done.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use datafusion::sql::parser::{CopyToSource, ExplainStatement, Statement};
use datafusion::sql::sqlparser::ast::{
    Assignment, Delete, Merge, MergeClauseKind, Statement as Sql, TableObject, TableWithJoins, Update,
    UpdateTableFromKind,
};
use flumen_core::sql::Answer;
use flumen_core::{Error, Result};
use futures::StreamExt;

use super::commands::parts;
use super::write::{Write, target_name};
use super::{Engine, statements};

/// A statement that writes, as EXPLAIN shows it.
struct Explained {
    /// What it does, such as `INSERT into raw.t`.
    what: String,
    /// The query inside.
    query: String,
}

impl Engine {
    /// Explains a statement that writes; none for one that only reads.
    ///
    /// Errors: `Invalid` for EXPLAIN ANALYZE, which would run it, and for a statement without a query inside.
    pub(super) async fn explain_write(&self, sql: &str, explain: &ExplainStatement) -> Result<Option<Answer>> {
        let Some(of) = self.explained(&explain.statement).await? else { return Ok(None) };
        if explain.options.analyze {
            return Err(Error::invalid(format!("explain analyze would run the statement ({})", of.what)).hint(
                format!(
                    "explain shows its plan without running it; the query inside can be timed: explain analyze {}",
                    of.query
                ),
            ));
        }
        let planned = ExplainStatement {
            options: explain.options.clone(),
            statement: Box::new(statements::parse_any(&of.query)?),
        };
        let mut answer = Box::pin(self.answer(sql, Statement::Explain(planned))).await?;
        let text = [Some("statement"), Some(of.what.as_str())];
        let note = text.map(|text| Arc::new(StringArray::from(vec![text])) as ArrayRef);
        let fields = answer.schema.fields().iter();
        if fields.len() == note.len() && fields.clone().all(|field| field.data_type() == &DataType::Utf8) {
            let note = RecordBatch::try_new(Arc::clone(&answer.schema), note.to_vec())?;
            answer.batches = Box::pin(futures::stream::iter([Ok(note)]).chain(answer.batches));
        }
        Ok(Some(answer))
    }

    async fn explained(&self, statement: &Statement) -> Result<Option<Explained>> {
        let statement = match statement {
            Statement::Statement(statement) => statement.as_ref(),
            Statement::CopyTo(copy) => {
                let query = match &copy.source {
                    CopyToSource::Query(query) => query.to_string(),
                    CopyToSource::Relation(name) => format!("SELECT * FROM {name}"),
                };
                return Ok(Some(Explained { what: format!("COPY to '{}'; nothing is written", copy.target), query }));
            }
            Statement::CreateExternalTable(_) => return no_plan("create external table"),
            _ => return Ok(None),
        };
        let (write, query) = match statement {
            Sql::Insert(insert) => {
                let source = insert.source.as_ref().map(ToString::to_string);
                if matches!(insert.table, TableObject::TableFunction(_)) {
                    return Ok(None);
                }
                (Write::Insert(insert), source)
            }
            Sql::Update(update) => (Write::Update(update), Some(of_update(update))),
            Sql::Delete(delete) => (Write::Delete(delete), Some(of_delete(delete))),
            Sql::Merge(merge) => (Write::Merge(merge), Some(of_merge(merge))),
            Sql::CreateTable(create) => (Write::Create(create), create.query.as_ref().map(ToString::to_string)),
            Sql::CreateView(create) => {
                let what = format!("CREATE VIEW {}; nothing is made", create.name);
                return Ok(Some(Explained { what, query: create.query.to_string() }));
            }
            Sql::Truncate(_) => return no_plan("truncate"),
            Sql::AlterTable(_) => return no_plan("alter table"),
            Sql::Drop { .. } => return no_plan("drop"),
            Sql::Comment { .. } => return no_plan("comment"),
            Sql::CreateSchema { .. } => return no_plan("create schema"),
            Sql::Set(_) => return no_plan("set"),
            _ => return Ok(None),
        };
        let name = target_name(&write)?;
        if !write.creates() && !self.is_of_session(&name, false) {
            // A table that is not there is told first.
            self.tables.existing(&parts(&name)?).await?;
        }
        let Some(query) = query else { return no_plan(&write.command().to_lowercase()) };
        Ok(Some(Explained { what: format!("{} {name}; nothing is written", write.command()), query }))
    }
}

fn no_plan<T>(what: &str) -> Result<T> {
    Err(Error::invalid(format!("there is nothing to explain: {what} has no query inside"))
        .hint("explain tells about select, insert, update, delete, merge, copy, and create … as select"))
}

fn of_update(update: &Update) -> String {
    let values: Vec<String> = update.assignments.iter().map(|Assignment { value, .. }| value.to_string()).collect();
    let others = match &update.from {
        Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) => from.as_slice(),
        None => &[],
    };
    let condition = update.selection.as_ref().map(ToString::to_string);
    select(&values.join(", "), std::iter::once(&update.table).chain(others), condition)
}

fn of_delete(delete: &Delete) -> String {
    use datafusion::sql::sqlparser::ast::FromTable;
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let others = delete.using.iter().flatten();
    select("1", from.iter().chain(others), delete.selection.as_ref().map(ToString::to_string))
}

fn select<'a>(columns: &str, from: impl Iterator<Item = &'a TableWithJoins>, condition: Option<String>) -> String {
    let from: Vec<String> = from.map(ToString::to_string).collect();
    let condition = condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    format!("SELECT {columns} FROM {}{condition}", from.join(", "))
}

fn of_merge(merge: &Merge) -> String {
    let has = |wanted: fn(&MergeClauseKind) -> bool| merge.clauses.iter().any(|clause| wanted(&clause.clause_kind));
    let new = has(|kind| matches!(kind, MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget));
    let left = has(|kind| matches!(kind, MergeClauseKind::NotMatchedBySource));
    let join = match (left, new) {
        (true, true) => "FULL JOIN",
        (true, false) => "LEFT JOIN",
        (false, true) => "RIGHT JOIN",
        (false, false) => "JOIN",
    };
    format!("SELECT * FROM {} {join} {} ON {}", merge.table, merge.source, merge.on)
}
