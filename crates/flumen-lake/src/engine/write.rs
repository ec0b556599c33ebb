//! Statements that change tables of the lake.
//!
//! Each kind of statement, in its own file, stages what it does in a [`Draft`]: which files go, which come. Updates, deletes
//! and merges are queries over the rows of the table, with the file and the position of each; only files with rows that
//! change are written anew. Outside of a block, a draft is committed at once, and decided anew if the table has changed
//! meanwhile; within one, it waits for COMMIT.

mod conflict;
mod delete;
mod draft;
mod filling;
pub(super) mod insert;
mod merge;
pub(super) mod returning;
mod rows;
mod table;
mod update;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    CreateTable, Delete, Insert, Merge as MergeStatement, ObjectName, Query, TableAlias, TableFactor, TableWithJoins,
    Truncate, Update,
};
use flumen_core::clock::{Clock, Ids};
use flumen_core::limits::COMMIT_TRIES;
use flumen_core::load::LoadId;
use flumen_core::{Error, Result};
use futures::TryStreamExt;

pub(super) use draft::{Draft, Mark, Refusal};
use merge::Merge;
use returning::Names;
pub(super) use returning::Staged;
pub(super) use rows::pump;
use rows::{Place, Written};
pub(super) use table::{Alteration, declared};

use super::columns::{self, Assigned, quoted};
use super::lake_table::{Contents, LakeTable, PATH_COLUMN};
use super::{Engine, errors, labels};
use crate::lake::{DataFile, Snapshot, Table};

/// The name under which a statement's own table stands in the queries that are made of it.
const TARGET: &str = "_flumen_target";

/// When and under which ids things are written.
#[derive(Clone)]
pub(super) struct Writers {
    /// Where the present comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
}

/// A statement that changes the rows or the definition of one table.
pub(super) enum Write<'a> {
    Insert(&'a Insert),
    Update(&'a Update),
    Delete(&'a Delete),
    Merge(&'a MergeStatement),
    Truncate(&'a Truncate),
    Create(&'a CreateTable),
    Alter(&'a Alteration),
}

impl Write<'_> {
    /// Its command, as Postgres tags it.
    pub fn command(&self) -> &'static str {
        match self {
            Write::Insert(_) => "INSERT",
            Write::Update(_) => "UPDATE",
            Write::Delete(_) => "DELETE",
            Write::Merge(_) => "MERGE",
            Write::Truncate(_) => "TRUNCATE TABLE",
            Write::Create(create) if create.query.is_some() => "CREATE TABLE AS",
            Write::Create(_) => "CREATE TABLE",
            Write::Alter(_) => "ALTER TABLE",
        }
    }

    /// Whether it makes the table, rather than finding it.
    pub fn creates(&self) -> bool {
        matches!(self, Write::Create(_))
    }

    /// Whether the rows it wrote are worth telling.
    pub fn counts(&self) -> bool {
        !matches!(self, Write::Alter(_) | Write::Truncate(_))
            && !matches!(self, Write::Create(create) if create.query.is_none())
    }

    /// Stages it in `draft`; gives the rows that it wrote, changed or removed.
    pub async fn stage(&self, engine: &Engine, sql: &str, draft: &mut Draft) -> Result<Staged> {
        let statement = Statement { engine, sql };
        match self {
            Write::Insert(insert) => insert::stage(&statement, insert, draft).await,
            Write::Update(update) => {
                let mut update = (*update).clone();
                let table = draft.table().name().clone();
                Names { table: &table, bare: None }.spell(&mut update);
                update::stage(&statement, &update, draft).await
            }
            Write::Delete(delete) => {
                let mut delete = (*delete).clone();
                let table = draft.table().name().clone();
                Names { table: &table, bare: None }.spell(&mut delete);
                delete::stage(&statement, &delete, draft).await
            }
            Write::Merge(merge) => merge::stage(&statement, &Merge::of(merge, draft)?, draft).await.map(Staged::from),
            Write::Truncate(_) => delete::everything(&statement, draft, "TRUNCATE").await.map(Staged::from),
            Write::Create(create) => table::create(&statement, create, draft).await.map(Staged::from),
            Write::Alter(alteration) => table::alter(&statement, alteration, draft).await.map(Staged::from),
        }
    }
}

/// The table that `write` is about, as the statement names it; none for one that has no table of the lake.
pub(super) fn target_name(write: &Write<'_>) -> Result<ObjectName> {
    use datafusion::sql::sqlparser::ast::TableObject;
    Ok(match write {
        Write::Insert(insert) => match &insert.table {
            TableObject::TableName(name) => name.clone(),
            _ => return refuse("insert into a function", "insert into a table"),
        },
        Write::Update(update) => update::target(update)?.name,
        Write::Delete(delete) => delete::target(delete)?.name,
        Write::Merge(merge) => Target::of(&merge.table)?.name,
        Write::Truncate(truncate) => match truncate.table_names.as_slice() {
            [only] => only.name.clone(),
            _ => return refuse("truncate of several tables", "truncate one table after the other"),
        },
        Write::Create(create) => create.name.clone(),
        Write::Alter(alteration) => alteration.table.clone(),
    })
}

/// The table of a statement that can return rows, and what its columns are qualified with.
///
/// Errors: `Invalid` for a statement that has no table of the lake.
pub(super) fn returning_table(statement: &datafusion::sql::sqlparser::ast::Statement) -> Result<(ObjectName, String)> {
    use datafusion::sql::sqlparser::ast::Statement as Sql;
    match statement {
        Sql::Insert(insert) => Ok((target_name(&Write::Insert(insert))?, insert::alias(insert)?)),
        Sql::Update(update) => update::target(update).map(|target| (target.name, target.alias)),
        Sql::Delete(delete) => delete::target(delete).map(|target| (target.name, target.alias)),
        other => refuse(&other.to_string(), "write insert, update or delete … returning …"),
    }
}

/// The error for what is not run.
pub(super) fn refuse<T>(what: &str, instead: &str) -> Result<T> {
    Err(Error::invalid(format!("'{what}' is not run here")).hint(instead))
}

/// Stages `write` on `table` and commits it at once. Decides anew when the table changes meanwhile.
pub(super) async fn autocommit(engine: &Engine, sql: &str, write: &Write<'_>, table: &Table) -> Result<Staged> {
    for _ in 0..COMMIT_TRIES {
        let snapshot = table.snapshot().await?;
        let mut draft = new_draft(&engine.writers, table, snapshot)?;
        let staged = match write.stage(engine, sql, &mut draft).await {
            Ok(staged) => staged,
            Err(error) => {
                let _ = draft.discard().await;
                return Err(error);
            }
        };
        match draft.commit(&engine.writers).await {
            Ok(_) => return Ok(staged),
            Err(Refusal::Stale) => draft.discard().await?,
            Err(Refusal::Failed(error)) => {
                let _ = draft.discard().await;
                return Err(error);
            }
        }
    }
    Err(Error::conflict(format!("{}: other writers were faster {COMMIT_TRIES} times", table.address()))
        .hint("run the same statement again when fewer others write to this table"))
}

/// A draft that begins with `snapshot`.
pub(super) fn new_draft(writers: &Writers, table: &Table, snapshot: Option<Snapshot>) -> Result<Draft> {
    Draft::new(table.clone(), snapshot, LoadId::derive(["statement", &writers.ids.next().to_string()]))
}

/// A table as a statement names it, and what its columns are qualified with.
pub(super) struct Target {
    pub name: ObjectName,
    pub alias: String,
    given: Option<TableAlias>,
}

impl Target {
    /// The table that `factor` is.
    ///
    /// Errors: `Invalid` if it is anything but a table.
    pub fn of(factor: &TableFactor) -> Result<Self> {
        match factor {
            TableFactor::Table { name, alias, args: None, version: None, .. } => {
                let alias_name = match alias {
                    Some(alias) => name_of_ident(&alias.name),
                    None => name_of(name)?,
                };
                Ok(Self { name: name.clone(), alias: alias_name, given: alias.clone() })
            }
            other => Err(Error::invalid(format!("'{other}' cannot be written to")).hint("name a table of the lake")),
        }
    }

    /// Itself in a query over its rows.
    pub fn scan(&self) -> String {
        let alias = self.given.as_ref().map_or_else(|| quoted(&self.alias), |alias| alias.name.to_string());
        format!("{TARGET} AS {alias}")
    }
}

/// The last part of a name, folded as SQL does.
pub(super) fn name_of(name: &ObjectName) -> Result<String> {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.map(name_of_ident).ok_or_else(|| Error::invalid(format!("'{name}' is not a name")))
}

pub(super) fn name_of_ident(ident: &datafusion::sql::sqlparser::ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The tables of a FROM, as text.
fn from_text(tables: &[TableWithJoins]) -> Result<String> {
    match tables {
        [only] if only.joins.is_empty() => Ok(only.to_string()),
        [] => Err(Error::internal("a FROM has no tables")),
        several => {
            let texts: Vec<String> = several.iter().map(ToString::to_string).collect();
            Ok(format!("({})", texts.join(" CROSS JOIN ")))
        }
    }
}

/// All columns of `schema`, qualified with `alias`.
fn columns_of(schema: &Schema, alias: &str) -> String {
    let qualified = schema.fields().iter().map(|field| format!("{}.{}", quoted(alias), quoted(field.name())));
    qualified.collect::<Vec<_>>().join(", ")
}

/// Files with rows that change, and how many rows.
pub(super) struct Touched {
    pub files: Vec<DataFile>,
    pub rows: u64,
}

/// One statement on its way.
pub(super) struct Statement<'a> {
    engine: &'a Engine,
    /// As it was written, for errors.
    sql: &'a str,
}

impl Statement<'_> {
    fn explained(&self, error: datafusion::common::DataFusionError) -> Error {
        errors::explain_part(error, self.sql)
    }

    /// Plans `query`, in which the names of `tables` mean what is given.
    async fn plan(
        &self,
        query: &str,
        tables: Vec<(String, Arc<dyn TableProvider>)>,
    ) -> Result<(SessionContext, LogicalPlan)> {
        self.engine.plan_part(self.sql, query, tables).await
    }

    /// Plans `query`, whose columns are going to have a life of their own.
    async fn plan_kept(&self, query: &Query) -> Result<(SessionContext, LogicalPlan)> {
        let mut query = query.clone();
        labels::alias_kept(&mut query);
        self.plan(&query.to_string(), Vec::new()).await
    }

    /// `plan` with the columns of `schema`.
    fn cast(&self, plan: LogicalPlan, schema: &SchemaRef, assigned: Vec<Assigned>) -> Result<LogicalPlan> {
        columns::assigned(plan, schema, &assigned).map_err(|error| self.explained(error))
    }

    /// The files of `draft` as a table that knows where its rows are.
    fn places(&self, draft: &Draft, files: Vec<DataFile>) -> Result<Arc<dyn TableProvider>> {
        let contents = Contents { files, ..draft.contents()? };
        Ok(Arc::new(LakeTable::with_places(contents)?))
    }

    /// Writes the rows of `plan` into new files of the draft's table.
    async fn write_rows(
        &self,
        draft: &Draft,
        context: &SessionContext,
        plan: &LogicalPlan,
        mixed: bool,
    ) -> Result<Written> {
        let place = Place {
            folder: draft.folder(mixed),
            columns: Arc::clone(draft.schema()),
            partition_by: draft.partition_by().to_vec(),
        };
        rows::write(draft, place, context, plan, self.sql, &self.engine.writers).await
    }

    /// The files with rows for which `condition` holds.
    async fn touched(&self, draft: &Draft, target: &Target, condition: &str) -> Result<Touched> {
        let query = format!("SELECT {PATH_COLUMN}, count(*) FROM {} WHERE {condition} GROUP BY 1", target.scan());
        let files = draft.files()?;
        let counts = self.counts(draft, &files, &query).await?;
        Ok(Touched {
            rows: counts.values().map(|counts| counts[0]).sum(),
            files: files.into_iter().filter(|file| counts.contains_key(&file.path)).collect(),
        })
    }

    /// The answer to a query that gives a file's path and then numbers.
    async fn counts(&self, draft: &Draft, files: &[DataFile], query: &str) -> Result<HashMap<String, Vec<u64>>> {
        let table = self.places(draft, files.to_vec())?;
        let (context, plan) = self.plan(query, vec![(TARGET.to_owned(), table)]).await?;
        let frame = context.execute_logical_plan(plan).await.map_err(|error| self.explained(error))?;
        let mut stream = frame.execute_stream().await.map_err(|error| self.explained(error))?;
        let mut counts = HashMap::new();
        while let Some(batch) = stream.try_next().await.map_err(|error| self.explained(error))? {
            let paths = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
            let paths = paths.as_string::<i32>();
            let numbers = batch.columns()[1..].iter().map(|column| arrow::compute::cast(column, &DataType::Int64));
            let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                let of_row = numbers.iter().map(|column| column.as_primitive::<Int64Type>().value(row).unsigned_abs());
                counts.insert(paths.value(row).to_owned(), of_row.collect());
            }
        }
        Ok(counts)
    }

    /// How many rows the draft has.
    async fn count(&self, draft: &Draft) -> Result<u64> {
        let query = format!("SELECT {PATH_COLUMN}, count(*) FROM {TARGET} GROUP BY 1");
        let counts = self.counts(draft, &draft.files()?, &query).await?;
        Ok(counts.values().map(|counts| counts[0]).sum())
    }

    /// Replaces `files` by the rows of `query`, in which the target means these files, and whose columns are the table's.
    async fn rewrite(&self, draft: &mut Draft, files: Vec<DataFile>, query: &str) -> Result<()> {
        let before = Contents { files, ..draft.contents()? };
        self.rewrite_from(draft, before, query).await
    }

    /// Replaces the files of `before` by the rows of `query`, in which the target means these files, with the columns of
    /// `before`.
    async fn rewrite_from(&self, draft: &mut Draft, before: Contents, query: &str) -> Result<()> {
        let files = before.files.clone();
        let table: Arc<dyn TableProvider> = Arc::new(LakeTable::with_places(before)?);
        let (context, plan) = self.plan(query, vec![(TARGET.to_owned(), table)]).await?;
        let plan = self.all_columns(plan, draft.schema())?;
        let written = self.write_rows(draft, &context, &plan, true).await?;
        draft.remove(files)?;
        draft.add(written.files);
        Ok(())
    }

    /// `plan`, whose columns are those of `schema` in their order, in the types of `schema`.
    fn all_columns(&self, plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan> {
        let fields = schema.fields().iter().enumerate();
        let assigned = fields.map(|(at, field)| Assigned { name: field.name().clone(), at }).collect();
        self.cast(plan, schema, assigned)
    }

    /// Writes the change feed: the rows of `query`, which has the table's columns and then the kind of change.
    async fn write_changes(&self, draft: &mut Draft, files: &[DataFile], query: &str) -> Result<()> {
        let table = self.places(draft, files.to_vec())?;
        let (context, plan) = self.plan(query, vec![(TARGET.to_owned(), table)]).await?;
        let kind = Field::new("_change_type", DataType::Utf8, true);
        let fields = draft.schema().fields().iter().map(|field| field.as_ref().clone()).chain([kind]);
        let columns: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let plan = self.all_columns(plan, &columns)?;
        let folder = draft::CHANGES_FOLDER.to_owned();
        let place = Place { folder, columns, partition_by: draft.partition_by().to_vec() };
        let written = rows::write(draft, place, &context, &plan, self.sql, &self.engine.writers).await?;
        draft.add_changes(written.files);
        Ok(())
    }
}

/// The files of `all` that have a path in `paths`.
fn chosen(all: Vec<DataFile>, paths: &HashSet<String>) -> Vec<DataFile> {
    all.into_iter().filter(|file| paths.contains(&file.path)).collect()
}
