//! The SQL engine: DataFusion over the lake's tables and over files in place.
//!
//! A query is parsed, its tables are looked up, its column names are given their spelling, and only then it is planned:
//! so what is wrong with it is said in our words, with its place. Statements that change the lake are not DataFusion's:
//! they are made of queries here, and committed to the Delta log.
//!
//! - `statements.rs`, `dialect.rs`: cutting and parsing text.
//! - `commands.rs`: statements that do something, and who does them.
//! - `write.rs`: those that change tables of the lake; `block.rs`: BEGIN and COMMIT.
//! - `ddl.rs`: those about names; `external.rs`: tables that somebody else keeps.
//! - `follow.rs`: what is known about columns, after they are renamed.
//! - `references.rs`, `time_travel.rs`, `changes.rs`: tables as they were, and what changed.
//! - `functions.rs`, `shapes.rs`, `asked_first.rs`, `whole_rows.rs`, `pivot.rs`, `pivot_values.rs`: what other dialects have, in terms of
//!   what DataFusion has.
//! - `show.rs`, `explain.rs`: statements that tell about tables, settings and plans.
//! - `tables.rs`: what a table name means.
//! - `lake_table.rs`, `statistics.rs`: a lake table as plain Parquet files. `known.rs`: those that were read before.
//! - `database.rs`: tables of databases that are connections.
//! - `copy.rs`, `copy_text.rs`: COPY over files.
//! - `files.rs`: files in place, through the seam [`FileReader`]. `file_options.rs`: what statements say about them.
//! - `system.rs`: the tables `flumen.loads` and `flumen.drift`.
//! - `names.rs`: column names without regard to case.
//! - `labels.rs`: what the columns of an answer are called.
//! - `rules.rs`: what is added to DataFusion's planning.
//! - `errors.rs`: DataFusion's errors in our words.

mod asked_first;
mod block;
mod changes;
mod columns;
mod commands;
mod copy;
mod copy_text;
mod database;
mod ddl;
pub mod defaults;
mod dialect;
mod errors;
mod explain;
mod external;
mod file_options;
mod files;
mod follow;
mod functions;
mod known;
mod known_files;
mod labels;
mod lake_table;
pub mod memory;
mod names;
mod once;
mod pivot;
mod pivot_values;
pub mod prepare;
mod references;
mod rules;
mod session;
mod shapes;
mod show;
pub mod span;
mod statements;
mod statistics;
mod system;
mod tables;
mod time_travel;
mod views;
pub mod visit;
mod volumes;
mod whole_rows;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::ViewTable;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, ObjectName, Statement as Sql};
use flumen_core::boxed;
use flumen_core::clock::{Clock, Ids};
use flumen_core::database::Databases;
use flumen_core::dataset::TableName;
use flumen_core::read::FileReader;
use flumen_core::sql::{Answer, Destinations, SqlEngine};
use flumen_core::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

use crate::catalog::{Catalog, ViewEntry};
use commands::SessionSettings;
use files::{Learnt, Notes, TooNarrow};
use known::KnownTables;
use labels::Labels;
use tables::{Found, Tables};
use write::Writers;

pub use block::BlockState;

/// Tables that have a name in one query only.
type Given = Vec<(String, Arc<dyn TableProvider>)>;

/// What an engine needs.
pub struct EngineSettings {
    /// The catalog of the lake. None outside a project: only files can be read then.
    pub catalog: Option<Catalog>,
    /// The environment that is seen at first.
    pub environment: String,
    /// What reads files in place.
    pub files: Arc<dyn FileReader>,
    /// Bytes that sorting, joining and grouping may use before they go to disk.
    pub memory_bytes: usize,
    /// Threads to use; as many as there are cores, if none.
    pub threads: Option<usize>,
    /// Where the present comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether files outside of the lake may be named.
    pub files_allowed: bool,
    /// Whether external tables may be made: everybody reads the files that they name.
    pub external_tables: bool,
    /// What `COPY … TO` can write to, besides.
    pub destinations: Option<Arc<dyn Destinations>>,
    /// Databases whose tables can be read as `connection.schema.table`.
    pub databases: Option<Arc<dyn Databases>>,
}

/// The memory for an engine where nothing else is known.
pub const DEFAULT_MEMORY_BYTES: usize = 1 << 30;
/// How often a query begins anew because the types of text files turned out too narrow: once for each table is enough,
/// unless the files change meanwhile.
const FRESH_STARTS: usize = 8;

/// The SQL engine. Its tables and settings live as long as it does; queries may run at the same time.
pub struct Engine {
    tables: Arc<Tables>,
    state: Box<dyn session::Held>,
    writers: Writers,
    read_only: bool,
    reads_only: AtomicBool,
    files_allowed: bool,
    external_tables: bool,
    destinations: Option<Arc<dyn Destinations>>,
}

/// Why a text is no SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Its line and column, from 1.
    pub place: Option<(usize, usize)>,
    /// One sentence.
    pub message: String,
    /// The remedy, where one is known.
    pub hint: Option<String>,
}

impl Engine {
    /// An engine. Nothing is read or listed yet.
    pub fn new(settings: EngineSettings) -> Result<Self> {
        Self::knowing(settings, Arc::default())
    }

    fn knowing(settings: EngineSettings, known: Arc<KnownTables>) -> Result<Self> {
        let tables = Tables {
            catalog: settings.catalog,
            files: settings.files,
            databases: settings.databases,
            session: Arc::new(MemorySchemaProvider::new()),
            learnt: Learnt::default(),
            notes: Arc::new(Notes::default()),
            known,
            settings: Mutex::new(SessionSettings { environment: settings.environment, ..SessionSettings::default() }),
            block: tokio::sync::Mutex::default(),
            lent: Mutex::default(),
            used: Mutex::default(),
        };
        let state = session::state(settings.memory_bytes, settings.threads)?;
        let writers = Writers { clock: settings.clock, ids: settings.ids };
        Ok(Self {
            tables: Arc::new(tables),
            state: Box::new(Mutex::new(state)),
            writers,
            read_only: settings.read_only,
            reads_only: AtomicBool::new(false),
            files_allowed: settings.files_allowed,
            external_tables: settings.external_tables,
            destinations: settings.destinations,
        })
    }

    /// Cuts `text` into its statements. Each keeps its lines and columns (what was before it is left as blank space), so
    /// that errors name the place in the whole text.
    pub fn statements(text: &str) -> Vec<String> {
        statements::split(text)
    }

    /// The first mistake in `text`, as far as it shows without looking whether there is what the text names.
    pub fn syntax_error(text: &str) -> Option<SyntaxError> {
        let (error, place) = statements::split(text).iter().find_map(|statement| statements::mistake(statement))?;
        let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let place = place.map(|place| (number(place.line), number(place.column)));
        Some(SyntaxError { place, message: error.message().to_owned(), hint: error.remedy().map(str::to_owned) })
    }

    /// Whether `text` ends with a semicolon (outside of quotes and comments), or has nothing to run.
    pub fn is_complete(text: &str) -> bool {
        statements::is_complete(text)
    }

    /// How long a statement may take, if that was said by `SET statement_timeout`. Who asks for its answer keeps to it.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.tables.timeout()
    }

    /// Whether nothing may be written from now on, as long as this is not said otherwise: `SET TRANSACTION READ ONLY`.
    pub fn set_reads_only(&self, reads_only: bool) {
        self.reads_only.store(reads_only, Ordering::Relaxed);
    }

    /// All tables of the lake, sorted.
    #[boxed]
    pub async fn lake_tables(&self) -> Result<Vec<TableName>> {
        self.tables.list().await
    }

    /// The tables of a database, sorted.
    ///
    /// Errors: `NotFound` for a connection that is not there; `Unavailable` when the server does not answer.
    #[boxed]
    pub async fn database_tables(&self, connection: &str) -> Result<Vec<TableName>> {
        self.tables.database_tables(connection).await
    }

    /// The tables of the lake and of databases that statements have named so far, by their addresses, sorted; those behind views too.
    pub fn used_tables(&self) -> Vec<String> {
        self.tables.used.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The tables about the lake itself, sorted; none without a lake.
    pub fn system_tables(&self) -> Vec<TableName> {
        let named = |table| TableName::new(system::NAMESPACE, table).ok();
        if self.tables.catalog.is_some() { system::TABLES.into_iter().filter_map(named).collect() } else { Vec::new() }
    }

    /// The tables and views that live in this session, sorted.
    pub fn session_tables(&self) -> Vec<String> {
        let mut names = self.tables.session.table_names();
        names.sort();
        names
    }

    /// The columns of a table, by its name as a query would have it.
    ///
    /// Errors: `NotFound`, with the nearest name.
    #[boxed]
    pub async fn columns(&self, table: &str) -> Result<SchemaRef> {
        let quoted = table.starts_with(['\'', '"']) || !tables::looks_like_file(table);
        let name = if quoted { table.to_owned() } else { format!("'{}'", table.replace('\'', "''")) };
        Ok(self.describe(&format!("select * from {name} limit 0")).await?.schema)
    }

    /// What readers found odd in the files of the queries since this was asked last, one sentence each. Complete for a
    /// query when all its rows were read.
    pub fn take_warnings(&self) -> Vec<String> {
        self.tables.notes.take()
    }

    /// Looks at all values of the files on whose guessed types a query ended with `error`, if it did end so. True: their
    /// types hold for every value now, and the query may be run again.
    ///
    /// A query does this by itself as long as none of its rows were given out.
    #[boxed]
    pub async fn learn_types(&self, error: &Error) -> Result<bool> {
        let narrow = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<TooNarrow>());
        let Some(TooNarrow(table)) = narrow.cloned() else { return Ok(false) };
        let engine = Arc::clone(&self.tables);
        let learning = tokio::task::spawn_blocking(move || engine.learnt.learn(&table));
        learning.await.map_err(|error| Error::internal("reading a file broke off").caused_by(error))?
    }

    fn base(&self) -> SessionState {
        self.state.get()
    }

    /// Changes what all queries from now on start from.
    fn change_state<T>(&self, change: impl FnOnce(&mut SessionState) -> T) -> Option<T> {
        let (mut change, mut changed) = (Some(change), None);
        self.state.change(&mut |state| changed = change.take().map(|change| change(state)));
        changed
    }

    /// The context of one query, with every table that `statement` names, and those of `given`, that have their names
    /// in this query only.
    /// `path` has the views that are being planned.
    async fn context_for(
        &self,
        sql: &str,
        statement: &mut Statement,
        given: Given,
        path: &[TableName],
    ) -> Result<SessionContext> {
        let mut state = self.base();
        let explained = |error| errors::explain(error, sql);
        let shows_own = columns::names_own(&statement.to_string());
        let of_view = !path.is_empty();
        let mut found = Found { shows_own, of_view, bare: given.into_iter().collect(), ..Found::default() };
        let mut schemas = Vec::new();
        let mut lists = lists_tables(statement);
        let created = created(statement);
        for reference in state.resolve_table_references(statement).map_err(explained)? {
            let of_database = reference.catalog().is_some_and(|catalog| catalog != session::LAKE_CATALOG);
            lists |= reference.schema() == Some("information_schema") && !of_database;
            if !of_view && tables::looks_like_file(reference.table()) && !found.bare.contains_key(reference.table()) {
                self.check_file_access(reference.table())?;
            }
            match self.tables.find(&reference, &mut found).await {
                Ok(None) => {}
                Ok(Some((name, view))) => {
                    let provider = Box::pin(self.plan_view(&name, &view, path)).await?;
                    if let TableReference::Bare { table } = &reference {
                        found.bare.insert(table.to_string(), Arc::clone(&provider));
                    }
                    found.lake.insert(name, provider);
                }
                // Who creates or drops a table names one that need not be there.
                Err(error)
                    if error.kind() == ErrorKind::NotFound
                        && created.iter().any(|name| name.eq_ignore_ascii_case(reference.table())) => {}
                // `range(10)` is a table too.
                Err(_) if state.table_functions().contains_key(reference.table()) => {}
                // 'notes.txt' may be a file as well, and 'trips.cvs' was meant to be one.
                Err(error)
                    if error.kind() == ErrorKind::NotFound
                        && self.files_allowed
                        && matches!(&reference, TableReference::Bare { table } if table.contains('.')) =>
                {
                    self.tables.find_file(reference.table(), &mut found).await?;
                }
                Err(error) => {
                    let table = reference.table();
                    let error = if self.files_allowed && std::path::Path::new(table).is_dir() {
                        Error::not_found(format!("'{table}' is a folder")).hint(format!(
                            "name the files in it: '{table}/*.csv', or with those in folders below '{table}/**/*.csv'"
                        ))
                    } else {
                        error
                    };
                    return Err(match errors::find_word(sql, reference.table()) {
                        Some(place) if !tables::looks_like_file(reference.table()) => errors::at(error, place, sql),
                        _ => error,
                    });
                }
            }
        }
        for provider in found.lake.values() {
            schemas.push(provider.schema());
        }
        schemas.extend(found.remote.schemas());
        if let Some(catalog) = &self.tables.catalog {
            let store = lake_table::store_url(catalog.lake().url())?;
            state.runtime_env().register_object_store(store.as_ref(), Arc::clone(catalog.lake().store()));
        }
        schemas.extend(found.bare.values().map(|provider| provider.schema()));
        names::respell(statement, &schemas);
        let listed = if lists { self.tables.listed().await? } else { Vec::new() };
        state.register_catalog_list(tables::catalogs(&self.tables, found, &listed));
        Ok(SessionContext::new_with_state(state))
    }

    /// Plans `query`, which was made from the statement `sql`.
    async fn plan_part(&self, sql: &str, query: &str, given: Given) -> Result<(SessionContext, LogicalPlan)> {
        self.plan_within(sql, query, given, &[]).await
    }

    /// The view `name` as a table of the query.
    ///
    /// Errors: `Invalid` for a view that reads itself, or that is broken by a change of what it reads.
    async fn plan_view(
        &self,
        name: &TableName,
        view: &ViewEntry,
        path: &[TableName],
    ) -> Result<Arc<dyn TableProvider>> {
        if path.contains(name) {
            return Err(Error::invalid(format!("the view '{name}' reads itself")).hint("create it anew from tables"));
        }
        let path: Vec<TableName> = path.iter().chain([name]).cloned().collect();
        let planned = self.plan_within("", &view.sql, Vec::new(), &path).await;
        let (_, plan) = planned.map_err(|error| {
            let broken = Error::new(error.kind(), format!("the view '{name}' is broken: {error}"));
            broken.hint(format!(
                "what it reads has changed; write it anew (create or replace view {name} as …), or drop it"
            ))
        })?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.sql.clone()))))
    }

    async fn plan_within(
        &self,
        sql: &str,
        query: &str,
        given: Given,
        path: &[TableName],
    ) -> Result<(SessionContext, LogicalPlan)> {
        let explained = |error| errors::explain_part(error, sql);
        let mut statement = statements::parse_any(query)?;
        self.rewrite_pivots(sql, &mut statement).await?;
        functions::rewrite(&mut statement)?;
        shapes::rewrite(&mut statement)?;
        let mut references = self.resolve_references(&mut statement, !path.is_empty()).await?;
        references.extend(given);
        let context = self.context_for(sql, &mut statement, references, path).await?;
        let plan = context.state().statement_to_plan(statement).await.map_err(explained)?;
        let plan = context.state().optimize(&plan).map_err(explained)?;
        Ok((context, plan))
    }

    /// The Arrow type of a type as SQL writes it.
    fn sql_type(&self, sql: &str, data_type: &SqlType) -> Result<DataType> {
        let mut data_type = data_type.clone();
        functions::postgres::plain_type(&mut data_type);
        let text = format!("SELECT CAST(NULL AS {data_type})");
        let state = self.base();
        let explained = |error| errors::explain_part(error, sql);
        let parsed = statements::parse_any(&text)?;
        let plan = futures::executor::block_on(SessionContext::new_with_state(state).state().statement_to_plan(parsed));
        Ok(plan.map_err(explained)?.schema().field(0).data_type().clone())
    }

    /// Runs one statement. Not written as an async function: see [`session::Held`].
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Answer>> {
        self.run_or_fail(sql).boxed()
    }

    async fn run_or_fail(&self, sql: &str) -> Result<Answer> {
        match self.run_statement(sql).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                if let Some(block) = self.tables.block.lock().await.as_mut() {
                    block.fail();
                }
                Err(error)
            }
        }
    }

    async fn run_statement(&self, sql: &str) -> Result<Answer> {
        match self.run_attempts(sql).await {
            // A join that looks rows up cannot go to disk. One that sorts both sides can.
            Err(error) if errors::is_join_too_large(&error) && self.block_state().await != BlockState::Failed => {
                let Some(before) = self.join_by_sorting() else { return Err(error) };
                let ended = self.run_attempts(sql).await;
                self.join_by_looking_up(before);
                ended
            }
            ended => ended,
        }
    }

    /// Has joins sort both sides from now on; gives what is to be set again afterwards. None if they do already.
    fn join_by_sorting(&self) -> Option<(usize, usize)> {
        self.change_state(|state| {
            let limit = state.runtime_env().memory_pool.memory_limit();
            let options = state.config_mut().options_mut();
            let before = (options.execution.target_partitions, options.execution.sort_spill_reservation_bytes);
            options.execution.target_partitions = before.0.max(2);
            // Both sides are sorted at once, by each thread; what each keeps for merging must leave room for rows.
            if let MemoryLimit::Finite(bytes) = limit {
                options.execution.sort_spill_reservation_bytes = before.1.min(bytes / (16 * before.0.max(2)));
            }
            std::mem::replace(&mut options.optimizer.prefer_hash_join, false).then_some(before)
        })?
    }

    fn join_by_looking_up(&self, before: (usize, usize)) {
        self.change_state(|state| {
            let options = state.config_mut().options_mut();
            (options.execution.target_partitions, options.execution.sort_spill_reservation_bytes) = before;
            options.optimizer.prefer_hash_join = true;
        });
    }

    async fn run_attempts(&self, sql: &str) -> Result<Answer> {
        for _ in 0..FRESH_STARTS {
            match self.attempt(sql).await {
                Err(error) if self.learn_types(&error).await? => self.tables.notes.clear(),
                ended => return ended,
            }
        }
        self.attempt(sql).await
    }

    /// Runs a statement that was made from `sql`.
    async fn run_made(&self, sql: &str, statement: &str) -> Result<Answer> {
        let statement = statements::parse_any(statement)?;
        let answer = self.command(sql, &statement).await?;
        answer.ok_or_else(|| Error::internal("a statement that was made of another does nothing"))
    }

    /// Plans a statement and runs it up to its first rows.
    async fn attempt(&self, sql: &str) -> Result<Answer> {
        let mut statement = statements::parse(sql)?;
        references::in_environment(&mut statement, &self.tables.environment());
        self.check_block(&statement).await?;
        match self.command(sql, &statement).await? {
            Some(answer) => Ok(answer),
            None => self.answer(sql, statement).await,
        }
    }

    /// Answers a statement that is to be planned as it stands.
    async fn answer(&self, sql: &str, mut statement: Statement) -> Result<Answer> {
        let explained = |error| errors::explain(error, sql);
        commands::temporary_is_of_session(&mut statement, self.tables.session.as_ref());
        self.rewrite_pivots(sql, &mut statement).await?;
        let references = self.resolve_references(&mut statement, false).await?;
        let done = commands::done_by(&statement);
        let keeps_state = changes_session(&statement);
        let labels = Labels::of(&statement);
        labels::alias(&mut statement);
        functions::rewrite(&mut statement)?;
        shapes::rewrite(&mut statement)?;
        let context = self.context_for(sql, &mut statement, references, &[]).await?;
        let plan = plan_of(&context, statement).await.map_err(explained)?;
        if keeps_state || commands::counts(&done).is_some() {
            let frame = context.execute_logical_plan(plan).await.map_err(explained)?;
            if keeps_state {
                self.change_state(|state| *state = context.state());
            }
            let rows = frame.collect().await.map_err(explained)?;
            let command = done.as_ref().map_or("SET", |done| done.command);
            return Ok(Answer::done(command, commands::counts(&done).and(rows.first().and_then(counted))));
        }
        let answer = answer_of(context, plan, &labels, sql).await?;
        Ok(Answer { done, ..answer })
    }
}

/// Plans `statement`. An alias that a star beside it has as a column is told from it; a table's name in place of a column's is its row.
async fn plan_of(context: &SessionContext, mut statement: Statement) -> Result<LogicalPlan, DataFusionError> {
    loop {
        let mut kept = statement.clone();
        let error = match context.state().statement_to_plan(statement).await {
            Err(error) => error,
            planned => return planned,
        };
        let is_other = match (errors::meant_twice(&error), errors::missing(&error)) {
            (Some(name), _) => labels::alias_again(&mut kept, name),
            (_, Some((missing, in_sight))) => whole_rows::written_out(&mut kept, missing, in_sight),
            _ => false,
        };
        if !is_other {
            return Err(error);
        }
        statement = kept;
    }
}

/// Runs `plan` up to its first rows. `sql` is where it came from, for errors.
async fn answer_of(context: SessionContext, plan: LogicalPlan, labels: &Labels, sql: &str) -> Result<Answer> {
    let explained = |error| errors::explain(error, sql);
    let frame = context.execute_logical_plan(plan).await.map_err(explained)?;
    let mut stream = frame.execute_stream().await.map_err(explained)?;
    let first = stream.next().await.transpose().map_err(explained)?;
    let schema = labels.apply(&unviewed(&stream.schema()));
    let sql = sql.to_owned();
    let wanted = Arc::clone(&schema);
    let batches = futures::stream::iter(first.map(Ok)).chain(stream).map(move |batch| {
        // Files that came from elsewhere are there as long as their tables are.
        let _tables = &context;
        batch.map_err(|error| errors::explain(error, &sql)).and_then(|batch| copied_out(&batch, &wanted))
    });
    Ok(Answer { schema, batches: Box::pin(batches), done: None })
}

#[async_trait]
impl SqlEngine for Engine {
    async fn query(&self, sql: &str) -> Result<Answer> {
        self.run(sql).await
    }
}

/// Whether `statement` lists tables that it does not name.
fn lists_tables(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(inner) if matches!(inner.as_ref(),
        Sql::ShowTables { .. } | Sql::ShowColumns { .. } | Sql::ShowFunctions { .. }))
}

/// Whether what `statement` leaves behind is in the state and not in a table.
fn changes_session(statement: &Statement) -> bool {
    match statement {
        Statement::Reset(_) => true,
        Statement::Statement(inner) => {
            matches!(inner.as_ref(), Sql::Set(_) | Sql::Prepare { .. } | Sql::Deallocate { .. })
        }
        _ => false,
    }
}

/// The tables that `statement` makes or drops.
fn created(statement: &Statement) -> Vec<String> {
    let Statement::Statement(inner) = statement else { return Vec::new() };
    let last = |name: &ObjectName| {
        let part = name.0.last().and_then(|part| part.as_ident());
        part.map(|ident| ident.value.clone())
    };
    match inner.as_ref() {
        Sql::CreateTable(create) => last(&create.name).into_iter().collect(),
        Sql::CreateView(create) => last(&create.name).into_iter().collect(),
        Sql::Drop { names, .. } => names.iter().filter_map(last).collect(),
        _ => Vec::new(),
    }
}

/// The number that DataFusion answers to a statement that writes rows.
fn counted(batch: &RecordBatch) -> Option<u64> {
    let count = arrow::compute::cast(batch.columns().first()?, &DataType::UInt64).ok()?;
    let count = arrow::array::AsArray::as_primitive_opt::<arrow::datatypes::UInt64Type>(&count)?;
    (!count.is_empty()).then(|| count.value(0))
}

/// Views of text are for the inside of a query; what comes out is plain.
fn unviewed(schema: &SchemaRef) -> SchemaRef {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => Arc::new(Field::clone(field).with_data_type(DataType::Utf8)),
        DataType::BinaryView => Arc::new(Field::clone(field).with_data_type(DataType::Binary)),
        _ => Arc::clone(field),
    };
    let fields: Vec<Arc<Field>> = schema.fields().iter().map(plain).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn copied_out(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else {
            arrow::compute::cast(column, field.data_type())
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(Error::from)
}
