//! Statements that do something rather than answer: which ones there are, and who does them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use datafusion::catalog::SchemaProvider;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    AlterTableOperation, ContextModifier, CreateIndex, CreateTable, Expr, ObjectName, ObjectType, Query, Set, SetExpr,
    Statement as Sql, Use, Value,
};
use flumen_core::dataset::TableName;
use flumen_core::sql::{Answer, Done};
use flumen_core::{Error, ErrorKind, Result};

use super::write::{Alteration, Staged, Write, autocommit, name_of, name_of_ident, refuse, target_name};
use super::{Engine, columns, span, system, tables, time_travel};
use crate::catalog::{Located, PROD, not_writable};
use crate::lake::Table;

impl Engine {
    /// Does `statement`, if it is one that does something to the lake or to this session; none for one that is to be planned.
    ///
    /// Errors: those of the statement.
    pub(super) async fn command(&self, sql: &str, statement: &Statement) -> Result<Option<Answer>> {
        let Statement::Statement(inner) = statement else { return self.other_command(sql, statement).await };
        let write = match inner.as_ref() {
            Sql::StartTransaction { .. } => {
                self.begin().await;
                return Ok(Some(Answer::done("BEGIN", None)));
            }
            Sql::Commit { .. } => {
                let committed = self.commit().await?;
                return Ok(Some(Answer::done(if committed { "COMMIT" } else { "ROLLBACK" }, None)));
            }
            Sql::Rollback { savepoint: None, .. } => {
                self.rollback().await?;
                return Ok(Some(Answer::done("ROLLBACK", None)));
            }
            Sql::Rollback { savepoint: Some(name), .. } => {
                self.rollback_to_savepoint(&name_of_ident(name)).await?;
                return Ok(Some(Answer::done("ROLLBACK", None)));
            }
            Sql::Savepoint { name } => {
                self.set_savepoint(&name_of_ident(name)).await?;
                return Ok(Some(Answer::done("SAVEPOINT", None)));
            }
            Sql::ReleaseSavepoint { name } => {
                self.release_savepoint(&name_of_ident(name)).await?;
                return Ok(Some(Answer::done("RELEASE", None)));
            }
            Sql::Set(set) => return self.set(set).await,
            Sql::Use(Use::Object(name) | Use::Schema(name)) => {
                self.tables.set_namespace(&name_of(name)?);
                return Ok(Some(Answer::done("USE", None)));
            }
            Sql::Insert(insert) => Write::Insert(insert),
            Sql::Update(update) => Write::Update(update),
            Sql::Delete(delete) => Write::Delete(delete),
            Sql::Merge(merge) => Write::Merge(merge),
            Sql::Truncate(truncate) => Write::Truncate(truncate),
            Sql::CreateTable(create) if !create.temporary => Write::Create(create),
            Sql::CreateView(_)
            | Sql::CreateSchema { .. }
            | Sql::Drop { .. }
            | Sql::Comment { .. }
            | Sql::AlterSchema(_) => return self.change_catalog(sql, inner).await,
            Sql::Copy { .. } => return self.copy_from(sql, inner).await,
            Sql::AlterTable(alter) => {
                let altered = self.alter_table(sql, &alter.name, &alter.operations).await;
                return match altered {
                    Err(error) if alter.if_exists && error.kind() == ErrorKind::NotFound => {
                        match self.tables.existing(&parts(&alter.name)?).await {
                            Err(_) => Ok(Some(Answer::done("ALTER TABLE", None))),
                            Ok(_) => Err(error),
                        }
                    }
                    altered => altered.map(Some),
                };
            }
            Sql::CreateIndex(index) => return self.create_index(index).await.map(Some),
            Sql::CreateDatabase { db_name, .. } => {
                return refuse(
                    &format!("create database {db_name}"),
                    "a lake is one database; its environments are made with: flumen env create NAME",
                );
            }
            Sql::Query(query) if matches!(query.body.as_ref(), SetExpr::Insert(_)) => {
                let inner = insert_with(query)?;
                return Box::pin(self.command(sql, &Statement::Statement(Box::new(inner)))).await;
            }
            Sql::Query(query) if changes_rows(query.body.as_ref()) => {
                return refuse("with … update, delete or merge", "write the query of 'with' into the statement itself");
            }
            _ => return self.show(inner).await,
        };
        let name = target_name(&write)?;
        if self.is_of_session(&name, write.creates()) {
            return match write {
                Write::Insert(_) | Write::Create(_) | Write::Delete(_) | Write::Update(_) => Ok(None),
                _ => refuse(write.command(), "tables of the session can be inserted into, updated and deleted from"),
            };
        }
        self.write(sql, &write, &name).await.map(Some)
    }

    /// Errors: `Invalid` if a statement of the block failed, and `statement` does not end the block.
    pub(super) async fn check_block(&self, statement: &Statement) -> Result<()> {
        let ends = matches!(statement, Statement::Statement(inner)
            if matches!(inner.as_ref(), Sql::Commit { .. } | Sql::Rollback { .. }));
        match self.tables.block.lock().await.as_ref() {
            Some(block) if block.has_failed() && !ends => {
                Err(Error::invalid("a statement of this block has failed; nothing more is done in it").hint("rollback"))
            }
            _ => Ok(()),
        }
    }

    async fn other_command(&self, sql: &str, statement: &Statement) -> Result<Option<Answer>> {
        match statement {
            Statement::Reset(reset) => {
                use datafusion::sql::parser::ResetStatement;
                let ResetStatement::Variable(name) = reset;
                match name.to_string().to_lowercase().as_str() {
                    AS_OF => self.tables.set_as_of(None),
                    ENVIRONMENT => self.tables.set_environment(PROD),
                    TIMEOUT => self.tables.set_timeout(None),
                    _ => return Ok(None),
                }
                Ok(Some(Answer::done("RESET", None)))
            }
            Statement::CopyTo(copy) => self.copy_to(sql, copy).await.map(Some),
            Statement::Explain(explain) => self.explain_write(sql, explain).await,
            Statement::CreateExternalTable(create) => self.create_external(create).await,
            _ => Ok(None),
        }
    }

    /// Runs a statement that changes a table of the lake, in the block that has begun or by itself.
    async fn write(&self, sql: &str, write: &Write<'_>, name: &ObjectName) -> Result<Answer> {
        self.check_may_write()?;
        let table = match write {
            Write::Create(create) => self.place_for(name, create).await?,
            _ => {
                let name = self.tables.existing(&parts(name)?).await?;
                self.tables.writable(&name).await?
            }
        };
        let there = write.creates() && self.tables.exists(table.name()).await?;
        let Staged { rows, returned } = match self.stage_in_block(sql, write, &table).await? {
            Some(staged) => staged,
            None => autocommit(self, sql, write, &table).await?,
        };
        match write {
            Write::Create(create) if !there || create.or_replace => self.declare(&table, create).await?,
            _ => {}
        }
        match returned {
            Some(returned) => returned.answer(write.command(), rows, sql).await,
            None => Ok(Answer::done(write.command(), write.counts().then_some(rows))),
        }
    }

    /// Errors: `Invalid` if this session may only read.
    pub(super) fn check_may_write(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::invalid("this session may only read").hint("ask for a user who may write"));
        }
        if self.reads_only.load(Ordering::Relaxed) {
            return Err(Error::invalid("nothing can be written in a read-only transaction")
                .hint("set transaction_read_only = off"));
        }
        if self.tables.as_of().is_some() {
            return Err(Error::invalid(format!(
                "this session sees the past ({AS_OF} is set), which cannot be written to"
            ))
            .hint(format!("reset {AS_OF}")));
        }
        Ok(())
    }

    /// Errors: `Invalid` if this session may not read and write files.
    pub(super) fn check_file_access(&self, location: &str) -> Result<()> {
        if self.files_allowed {
            return Ok(());
        }
        Err(Error::invalid(format!("'{location}' is a file, which this session may not touch"))
            .hint("files are for 'flumen sql' and 'flumen ingest' on the machine itself"))
    }

    /// Whether `name` means a table of the session: one that is there, or that is to be made where there is no lake.
    pub(super) fn is_of_session(&self, name: &ObjectName, creates: bool) -> bool {
        let [part] = name.0.as_slice() else { return false };
        let Some(ident) = part.as_ident() else { return false };
        let there = self.tables.session.table_exist(&name_of_ident(ident));
        there || creates && self.tables.catalog.is_none()
    }

    /// The table that `name` means.
    ///
    /// Errors: `NotFound`, with the nearest name.
    pub(super) async fn named_table(&self, name: &ObjectName) -> Result<Table> {
        let name = self.tables.existing(&parts(name)?).await?;
        match self.tables.locate(&name).await? {
            Some(Located::Table { table, .. }) => Ok(table),
            Some(Located::View(_)) => Err(Error::invalid(format!("'{name}' is a view, which has no versions"))),
            _ => Err(Error::invalid(format!("'{name}' is an external table, which has no versions here"))),
        }
    }

    /// The name of something that is to be made.
    ///
    /// Errors: `Invalid` for a name that means a file, or nothing.
    pub(super) fn name_for(&self, name: &ObjectName) -> Result<TableName> {
        let parts = parts(name)?;
        let made = match parts.as_slice() {
            [table] => TableName::new(self.tables.namespace(), table.as_str())?,
            [namespace, table] => TableName::new(namespace.as_str(), table.as_str())?,
            _ => return Err(self.tables.not_of_lake(&parts)),
        };
        if tables::looks_like_file(&made.to_string()) || tables::looks_like_file(&made.table) {
            return Err(Error::invalid(format!("'{name}' is a file, not a table"))
                .hint("write a file with: copy (select …) to 'file.parquet'"));
        }
        if matches!(made.namespace.as_str(), system::NAMESPACE | "information_schema" | "pg_catalog") {
            return Err(Error::invalid(format!("the namespace '{}' is not for tables of yours", made.namespace)));
        }
        Ok(made)
    }

    /// The place for a table that is to be made, which may be there already.
    async fn place_for(&self, name: &ObjectName, create: &CreateTable) -> Result<Table> {
        let name = self.name_for(name)?;
        match self.tables.locate(&name).await? {
            Some(Located::View(_)) => Err(not_writable(&name, "a view")),
            Some(Located::External(_)) => Err(not_writable(&name, "an external table")),
            // What is there already is not copied only to be told so.
            Some(Located::Table { table, version: Some(_), .. }) if !create.or_replace => Ok(table),
            _ => self.tables.writable(&name).await,
        }
    }

    async fn alter_table(&self, sql: &str, name: &ObjectName, operations: &[AlterTableOperation]) -> Result<Answer> {
        if let Some(answer) = self.alter_entry(name, operations).await? {
            return Ok(answer);
        }
        let alteration = Alteration { table: name.clone(), operations: operations.to_vec() };
        let answer = self.write(sql, &Write::Alter(&alteration), name).await?;
        self.follow_columns(name, operations).await?;
        Ok(answer)
    }

    /// An index is nothing that the lake keeps: that its table and columns are there is all that is looked at.
    async fn create_index(&self, index: &CreateIndex) -> Result<Answer> {
        self.check_may_write()?;
        let table = self.named_table(&index.table_name).await?;
        let name = format!("{}.{}", columns::quoted(&table.name().namespace), columns::quoted(&table.name().table));
        let schema = self.columns(&name).await?;
        for column in &index.columns {
            if let Expr::Identifier(ident) = &column.column.expr {
                columns::spelled(&schema, &name_of_ident(ident), &table.address())?;
            }
        }
        self.tables.notes.say(if index.unique { NOT_UNIQUE } else { NO_INDEX });
        Ok(Answer::done("CREATE INDEX", None))
    }

    /// What a SET says to Flumen rather than to DataFusion.
    async fn set(&self, set: &Set) -> Result<Option<Answer>> {
        let Set::SingleAssignment { variable, values, scope, .. } = set else { return Ok(None) };
        if matches!(scope, Some(ContextModifier::Global)) {
            return refuse("set global", "settings are those of this session");
        }
        let text = || values.first().map(plain).unwrap_or_default();
        match variable.to_string().to_lowercase().as_str() {
            "search_path" | "schema" => self.tables.set_namespace(&text()),
            ENVIRONMENT => {
                let environment = text();
                self.check_environment(&environment).await?;
                self.tables.set_environment(&environment);
            }
            AS_OF => {
                let time = match (text().to_lowercase().as_str(), values.first()) {
                    ("" | "default" | "now" | "none", _) | (_, None) => None,
                    (_, Some(Expr::Identifier(_))) => Some(time_travel::point_in_time(&text())?),
                    (_, Some(expr)) => Some(self.point_in_time(expr).await?),
                };
                self.tables.set_as_of(time);
            }
            TIMEOUT => self.tables.set_timeout(timeout_of(&text())?),
            _ => return Ok(None),
        }
        Ok(Some(Answer::done("SET", None)))
    }
}

/// What is said of an index.
const NO_INDEX: &str = "an index is not kept: files are skipped by their statistics (sort rows with 'cluster by', divide them with 'partitioned by')";

/// What is said of one that is to keep values apart.
const NOT_UNIQUE: &str = "an index is not kept, and nothing keeps its values apart: 'insert … on conflict' leaves out rows whose key is there";

/// The insert of `WITH … INSERT …`, with the WITH before its rows.
fn insert_with(query: &Query) -> Result<Sql> {
    let SetExpr::Insert(statement) = query.body.as_ref() else {
        return refuse("this form of insert", "insert into t …");
    };
    let mut statement = statement.clone();
    if let (Sql::Insert(insert), Some(with)) = (&mut statement, &query.with)
        && let Some(source) = &mut insert.source
    {
        match &mut source.with {
            None => source.with = Some(with.clone()),
            Some(own) => {
                let before = with.cte_tables.iter().cloned();
                own.cte_tables = before.chain(std::mem::take(&mut own.cte_tables)).collect();
                own.recursive |= with.recursive;
            }
        }
    }
    Ok(statement)
}

fn changes_rows(body: &SetExpr) -> bool {
    matches!(body, SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_))
}

/// Makes a temporary table or view of `statement` one of this session: all that DataFusion makes are. A table of the lake does
/// not keep one of the session from having its name.
pub(super) fn temporary_is_of_session(statement: &mut Statement, session: &dyn SchemaProvider) {
    let Statement::Statement(inner) = statement else { return };
    match inner.as_mut() {
        Sql::CreateTable(create) if create.temporary => {
            create.temporary = false;
            let name = name_of(&create.name).unwrap_or_default();
            create.or_replace |= !session.table_exist(&name) && !create.if_not_exists;
        }
        Sql::CreateView(create) => create.temporary = false,
        _ => {}
    }
}

/// What the statements that DataFusion does are called when they are done.
pub(super) fn done_by(statement: &Statement) -> Option<Done> {
    let command = match statement {
        Statement::Reset(_) => "RESET",
        Statement::Statement(inner) => match inner.as_ref() {
            Sql::Set(_) => "SET",
            Sql::Prepare { .. } => "PREPARE",
            Sql::Deallocate { .. } => "DEALLOCATE",
            Sql::CreateTable(_) => "CREATE TABLE",
            Sql::Insert(_) => "INSERT",
            Sql::Update(_) => "UPDATE",
            Sql::Delete(_) => "DELETE",
            Sql::CreateView(_) => "CREATE VIEW",
            Sql::Drop { object_type: ObjectType::View, .. } => "DROP VIEW",
            Sql::Drop { .. } => "DROP TABLE",
            _ => return None,
        },
        _ => return None,
    };
    Some(Done { command, rows: None })
}

/// The command, if DataFusion answers it with the number of rows that it wrote.
pub(super) fn counts(done: &Option<Done>) -> Option<&'static str> {
    done.as_ref().map(|done| done.command).filter(|command| matches!(*command, "INSERT" | "UPDATE" | "DELETE"))
}

/// The setting that chooses the environment.
pub(super) const ENVIRONMENT: &str = "flumen.env";
/// The setting that shows the lake as it was.
pub(super) const AS_OF: &str = "flumen.as_of";

/// The setting that says how long a statement may take.
const TIMEOUT: &str = "statement_timeout";

/// What `text` says of the time that a statement may take. Nothing, and 0, is no limit.
fn timeout_of(text: &str) -> Result<Option<Duration>> {
    if matches!(text.trim(), "" | "default") {
        return Ok(None);
    }
    let milliseconds = span::milliseconds(text).ok_or_else(|| {
        Error::invalid(format!("'{text}' is no span of time")).hint("write for example '30s', '5min', or 0")
    })?;
    Ok((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
}

/// A value of SET as plain text.
fn plain(expr: &Expr) -> String {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(ident) => name_of_ident(ident),
        other => other.to_string(),
    }
}

/// The parts of a name, folded as SQL does; `lake` before them is left out.
pub(super) fn parts(name: &ObjectName) -> Result<Vec<String>> {
    let parts = name.0.iter().map(|part| part.as_ident().map(name_of_ident));
    let parts: Option<Vec<String>> = parts.collect();
    let mut parts = parts.ok_or_else(|| Error::invalid(format!("'{name}' is not a name")))?;
    if parts.len() == 3 && parts[0] == flumen_core::dataset::LAKE {
        parts.remove(0);
    }
    Ok(parts)
}

/// What a session remembers besides its tables.
#[derive(Debug, Clone)]
pub(super) struct SessionSettings {
    /// The namespace of names that have none.
    pub namespace: String,
    /// The point in time that is seen, if it is not the present.
    pub as_of: Option<DateTime<Utc>>,
    /// The environment that is seen.
    pub environment: String,
    /// How long a statement may take.
    pub timeout: Option<Duration>,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { namespace: DEFAULT_NAMESPACE.to_owned(), as_of: None, environment: PROD.to_owned(), timeout: None }
    }
}

/// The namespace of tables that are made without one.
const DEFAULT_NAMESPACE: &str = "public";
