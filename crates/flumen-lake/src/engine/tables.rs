//! What a table name in a query means: a table of the session, of the lake, of a database, or files.
//!
//! Every name is looked up before the query is planned, so that a wrong one is an error with the nearest right one, and
//! each table is read at one version however often the query names it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider, Session,
    TableProvider,
};
use datafusion::common::{DataFusionError, Result as DataFusionResult, TableReference};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use flumen_core::database::Databases;
use flumen_core::dataset::{Dataset, LAKE, TableName};
use flumen_core::error::nearest;
use flumen_core::read::FileReader;
use flumen_core::{Error, ErrorKind, Result};

use super::block::Block;
use super::commands::SessionSettings;
use super::database::RemoteTables;
use super::files::{self, Learnt, Notes};
use super::known::KnownTables;
use super::lake_table::{Contents, LakeTable};
use super::prepare::LENT_SCHEMA;
use super::session::{LAKE_CATALOG, SESSION_SCHEMA};
use super::time_travel::version_at;
use super::{errors, external, system};
use crate::catalog::{Catalog, Entry, ExternalEntry, Kind, Listed, Located, State, ViewEntry, schema_of};
use crate::lake::Table;

/// Where tables come from. Shared by all queries of a session.
pub(super) struct Tables {
    /// The catalog of the lake, inside a project.
    pub catalog: Option<Catalog>,
    /// What reads files.
    pub files: Arc<dyn FileReader>,
    /// Databases that can be named.
    pub databases: Option<Arc<dyn Databases>>,
    /// Tables and views that live as long as the session.
    pub session: Arc<MemorySchemaProvider>,
    /// What is known about the types of text files.
    pub learnt: Learnt,
    /// What was odd in files.
    pub notes: Arc<Notes>,
    /// Tables that were read before.
    pub known: Arc<KnownTables>,
    /// What SET has set.
    pub settings: Mutex<SessionSettings>,
    /// The block that has begun, if one has.
    pub block: tokio::sync::Mutex<Option<Block>>,
    /// Tables that are lent to statements, the latest last.
    pub lent: Mutex<Vec<Arc<LentTables>>>,
    /// The tables of the lake and of databases that queries have named, also by views.
    pub used: Mutex<BTreeSet<String>>,
}

/// Tables that are lent, by namespace and name.
pub(super) type LentTables = HashMap<(String, String), Arc<dyn TableProvider>>;

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tables")
    }
}

/// The tables of one query.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Tables and views of the lake.
    pub lake: HashMap<TableName, Arc<dyn TableProvider>>,
    /// Files, and tables named without their namespace, by the name in the query.
    pub bare: HashMap<String, Arc<dyn TableProvider>>,
    /// Tables of databases.
    pub remote: RemoteTables,
    /// Tables of the namespace that nobody loads.
    pub system: HashMap<String, Arc<dyn TableProvider>>,
    /// Whether the columns that Flumen adds to tables are shown: the query names one of them.
    pub shows_own: bool,
    /// Whether they are those of a view of the catalog: whoever made it was allowed to read its files.
    pub of_view: bool,
}

/// Whether `name`, written where a table is expected, means files.
pub(super) fn looks_like_file(name: &str) -> bool {
    name != "-" && (name.contains(['/', '\\', '*']) || matches!(name.parse(), Ok(Dataset::Files(_))))
}

impl Tables {
    /// Looks up `reference`, into `found`; a view is given back, to be planned.
    ///
    /// Errors: `NotFound` with the nearest name; `Invalid` for a name with several meanings or none.
    pub async fn find(
        self: &Arc<Self>,
        reference: &TableReference,
        found: &mut Found,
    ) -> Result<Option<(TableName, ViewEntry)>> {
        match reference {
            TableReference::Bare { table } => self.find_bare(table, found).await,
            TableReference::Partial { schema, table } => self.find_and_note(schema, table, found).await,
            TableReference::Full { catalog, schema, table } if catalog.as_ref() == LAKE_CATALOG => {
                self.find_and_note(schema, table, found).await
            }
            TableReference::Full { catalog, schema, table } => {
                let whole = format!("{catalog}.{schema}.{table}");
                if looks_like_file(&whole) {
                    return Err(unquoted(&whole));
                }
                self.find_in_database(catalog, schema, table, &mut found.remote).await?;
                self.note(whole);
                Ok(None)
            }
        }
    }

    /// The table that is lent under this name.
    fn lent(&self, namespace: &str, table: &str) -> Option<Arc<dyn TableProvider>> {
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (namespace.to_owned(), table.to_owned());
        lent.iter().rev().find_map(|tables| tables.get(&name)).cloned()
    }

    /// The namespace of names that have none.
    pub fn namespace(&self) -> String {
        self.settings().namespace.clone()
    }

    /// Chooses the namespace of names that have none.
    pub fn set_namespace(&self, namespace: &str) {
        namespace.trim().clone_into(&mut self.settings().namespace);
    }

    /// The point in time that is seen, if it is not the present.
    pub fn as_of(&self) -> Option<DateTime<Utc>> {
        self.settings().as_of
    }

    /// Chooses the point in time that is seen.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.settings().timeout = timeout;
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.settings().timeout
    }

    pub fn set_as_of(&self, time: Option<DateTime<Utc>>) {
        self.settings().as_of = time;
    }

    fn settings(&self) -> MutexGuard<'_, SessionSettings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The environment that is seen.
    pub fn environment(&self) -> String {
        self.settings().environment.clone()
    }

    /// Chooses the environment that is seen.
    pub fn set_environment(&self, environment: &str) {
        environment.clone_into(&mut self.settings().environment);
    }

    /// The catalog.
    ///
    /// Errors: `NotFound` where there is no lake; `what` names what was asked for.
    pub fn catalog(&self, what: impl fmt::Display) -> Result<&Catalog> {
        self.catalog.as_ref().ok_or_else(|| {
            Error::not_found(format!("'{what}' is a table of a lake, and there is no project here to hold one"))
                .hint("run 'flumen init' to make one here, or name one with --project DIR")
        })
    }

    /// The catalog as this session sees it: in a block, with what the block has changed.
    pub async fn state(&self, catalog: &Catalog) -> Result<Arc<State>> {
        match self.block.lock().await.as_mut() {
            Some(block) => block.state(catalog).await,
            None => catalog.read().await,
        }
    }

    /// What `name` means.
    pub async fn locate(&self, name: &TableName) -> Result<Option<Located>> {
        let catalog = self.catalog(name)?;
        let state = self.state(catalog).await?;
        catalog.locate(&state, &self.environment(), name)
    }

    /// Whether `name` means a table that somebody else keeps.
    async fn is_external(&self, name: &TableName) -> bool {
        matches!(self.locate(name).await, Ok(Some(Located::External(_))))
    }

    /// The table to write to when `name` is written. In an environment, it may be copied first.
    ///
    /// Errors: `NotFound` where there is no lake; `Invalid` for what is no table.
    pub async fn writable(&self, name: &TableName) -> Result<Table> {
        let (catalog, environment) = (self.catalog(name)?, self.environment());
        if let Some(block) = self.block.lock().await.as_mut() {
            let state = block.state(catalog).await?;
            match catalog.locate(&state, &environment, name)? {
                Some(Located::Table { table, version: None, .. }) => return Ok(table),
                // What the block has dropped stays where it is: a table of that name has another place.
                None => {
                    let entry = catalog.new_entry(catalog.create_place(&state, name));
                    let table = catalog.lake().table_at(&entry.location, name)?;
                    block.change(catalog, vec![state.put(&environment, name, Entry::Table(entry))?]).await?;
                    return Ok(table);
                }
                Some(_) => {}
            }
        }
        Ok(catalog.writable(&environment, name).await?.table)
    }

    /// The table of the lake that a name with these parts means.
    ///
    /// Errors: `NotFound` with the nearest name; `Invalid` for a name with several meanings or none.
    pub async fn existing(&self, parts: &[String]) -> Result<TableName> {
        let name = match parts {
            [table] => {
                let all = self.list().await?;
                let found = self.of_bare(table, &all)?.cloned();
                return match found {
                    Some(name) => Ok(name),
                    None => match TableName::new(self.namespace(), table.as_str()) {
                        Ok(name) if self.exists(&name).await? => Ok(name),
                        _ => Err(self.unknown(table, &all)),
                    },
                };
            }
            [namespace, table] => TableName::new(namespace.as_str(), table.as_str())?,
            _ => return Err(self.not_of_lake(parts)),
        };
        if !self.exists(&name).await? {
            let all = self.list().await?;
            return Err(self.unknown(&name.to_string(), &all));
        }
        Ok(name)
    }

    /// Whether `name` means something that is there.
    pub async fn exists(&self, name: &TableName) -> Result<bool> {
        Ok(match self.locate(name).await? {
            Some(Located::Table { table, version, .. }) => self.contents(&table, version).await?.is_some(),
            Some(_) => true,
            None => false,
        })
    }

    /// The table that a name without a namespace means: that of the session's namespace, or the only one of that name.
    fn of_bare<'a>(&self, table: &str, all: &'a [TableName]) -> Result<Option<&'a TableName>> {
        let matching: Vec<&TableName> = all.iter().filter(|name| name.table == table).collect();
        let namespace = self.namespace();
        if let Some(name) = matching.iter().find(|name| name.namespace == namespace) {
            return Ok(Some(name));
        }
        match matching.as_slice() {
            [name] => Ok(Some(name)),
            [] => Ok(None),
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                Err(Error::invalid(format!("'{table}' is a table in several namespaces"))
                    .hint(format!("write one of: {}", names.join(", "))))
            }
        }
    }

    /// What this session sees of a table: in a block, as it was when the block began, with the block's own writes.
    pub async fn contents(&self, table: &Table, version: Option<u64>) -> Result<Option<Contents>> {
        let as_of = self.as_of();
        if version.is_none()
            && as_of.is_none()
            && let Some(block) = self.block.lock().await.as_mut()
        {
            return block.contents(table).await;
        }
        let Some(mut snapshot) = table.snapshot_at(version).await? else { return Ok(None) };
        if let Some(time) = as_of {
            match version_at(table, snapshot.version(), time).await? {
                None => return Ok(None),
                Some(version) if version == snapshot.version() => {}
                Some(version) => match table.snapshot_at(Some(version)).await? {
                    None => return Ok(None),
                    Some(then) => snapshot = then,
                },
            }
        }
        Contents::of(&snapshot).map(Some)
    }

    /// The rows of a table that this session sees, with the columns that Flumen adds or without.
    async fn lake_table(&self, table: &Table, version: Option<u64>, shows_own: bool) -> Result<Option<Arc<LakeTable>>> {
        let contents = self.contents(table, version);
        if version.is_none() && self.as_of().is_none() && self.block.lock().await.is_none() {
            return self.known.latest(table, shows_own, contents).await;
        }
        let Some(contents) = contents.await? else { return Ok(None) };
        LakeTable::new(if shows_own { contents } else { contents.without_own() }).map(|table| Some(Arc::new(table)))
    }

    /// The files that `address` means, as a table.
    ///
    /// Errors: those of the readers.
    pub async fn find_file(&self, address: &str, found: &mut Found) -> Result<()> {
        let registered = external::Registered(self.files.as_ref());
        let reader: &dyn FileReader = if found.of_view { &registered } else { self.files.as_ref() };
        let provider = files::open(reader, address, &self.learnt, &self.notes).await?;
        found.bare.insert(address.to_owned(), provider);
        Ok(())
    }

    async fn find_bare(&self, table: &str, found: &mut Found) -> Result<Option<(TableName, ViewEntry)>> {
        if self.session.table_exist(table) || found.bare.contains_key(table) {
            return Ok(None);
        }
        if looks_like_file(table) {
            self.find_file(table, found).await?;
            return Ok(None);
        }
        if let Some(provider) = self.lent(LENT_SCHEMA, table) {
            found.bare.insert(table.to_owned(), provider);
            return Ok(None);
        }
        if self.catalog.is_none() {
            return Err(self.unknown(table, &[]));
        }
        let name = self.existing(&[table.to_owned()]).await?;
        let view = self.load(&name, found).await?;
        if let Some(provider) = found.lake.get(&name) {
            found.bare.insert(table.to_owned(), Arc::clone(provider));
        }
        Ok(view)
    }

    /// What a query names: that it does is remembered.
    async fn find_and_note(
        self: &Arc<Self>,
        namespace: &str,
        table: &str,
        found: &mut Found,
    ) -> Result<Option<(TableName, ViewEntry)>> {
        let view = self.find_in_lake(namespace, table, found).await?;
        if TableName::new(namespace, table).is_ok_and(|name| found.lake.contains_key(&name)) {
            self.note(format!("{LAKE}.{namespace}.{table}"));
        }
        Ok(view)
    }

    fn note(&self, table: String) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(table);
    }

    async fn find_in_lake(
        self: &Arc<Self>,
        namespace: &str,
        table: &str,
        found: &mut Found,
    ) -> Result<Option<(TableName, ViewEntry)>> {
        if namespace == SESSION_SCHEMA || namespace == "information_schema" {
            return Ok(None);
        }
        let whole = format!("{namespace}.{table}");
        if looks_like_file(&whole) {
            return Err(unquoted(&whole));
        }
        let name = TableName::new(namespace, table)?;
        if let Some(provider) = self.lent(namespace, table) {
            found.lake.insert(name, provider);
            return Ok(None);
        }
        let system = namespace == system::NAMESPACE && self.catalog.is_some();
        let known = match system {
            true if table == system::QUARANTINE_TABLE => Some(system::quarantine(self).await?),
            true => system::table(table, self)?,
            false => None,
        };
        match (self.load(&name, found).await, known) {
            (Err(error), Some(known)) if error.kind() == ErrorKind::NotFound => {
                found.system.insert(table.to_owned(), known);
                Ok(None)
            }
            (loaded, _) => loaded,
        }
    }

    /// Puts what `name` means into `found`, unless it is a view: that is given back.
    async fn load(&self, name: &TableName, found: &mut Found) -> Result<Option<(TableName, ViewEntry)>> {
        if found.lake.contains_key(name) {
            return Ok(None);
        }
        let provider: Arc<dyn TableProvider> = match self.locate(name).await? {
            Some(Located::View(view)) => return Ok(Some((name.clone(), view))),
            Some(Located::External(external)) => self.external(name, &external).await?,
            Some(Located::Table { table, version, .. }) => {
                // In debug builds what is awaited here would make every query's future several times as large.
                match Box::pin(self.lake_table(&table, version, found.shows_own)).await? {
                    Some(table) => table,
                    None => return Err(self.not_there(name).await?),
                }
            }
            None => return Err(self.not_there(name).await?),
        };
        found.lake.insert(name.clone(), provider);
        Ok(None)
    }

    /// What `name` means in another environment than the one that is seen.
    ///
    /// Errors: `NotFound` if it means nothing there; `Invalid` for a view, which is planned where it is seen.
    pub async fn of_environment(
        &self,
        environment: &str,
        name: &TableName,
        shows_own: bool,
    ) -> Result<Arc<dyn TableProvider>> {
        let catalog = self.catalog(environment)?;
        let state = self.state(catalog).await?;
        let missing = || {
            Error::not_found(format!("there is no table '{name}' in the environment '{environment}'"))
                .hint(format!("'flumen --env {environment} lake list' shows those there are"))
        };
        match catalog.locate(&state, environment, name)? {
            Some(Located::Table { table, version, .. }) => {
                let contents = self.contents(&table, version).await?.ok_or_else(missing)?;
                Ok(Arc::new(LakeTable::new(if shows_own { contents } else { contents.without_own() })?))
            }
            Some(Located::External(external)) => self.external(name, &external).await,
            Some(Located::View(_)) => Err(Error::invalid(format!(
                "'{name}' is a view of the environment '{environment}', which is not seen here"
            ))
            .hint(format!("set flumen.env = '{environment}', and read it as {name}"))),
            None => Err(missing()),
        }
    }

    async fn not_there(&self, name: &TableName) -> Result<Error> {
        let all = self.list().await?;
        Ok(self.unknown(&name.to_string(), &all))
    }

    /// A table that somebody else keeps.
    async fn external(&self, name: &TableName, external: &ExternalEntry) -> Result<Arc<dyn TableProvider>> {
        let opened = external::open(self, name, external).await;
        opened.map_err(|error| error.within(format!("the external table {name}")))
    }

    /// The names that are in use in the lake: tables, views and external tables.
    pub async fn list(&self) -> Result<Vec<TableName>> {
        Ok(self.listed().await?.into_iter().map(|listed| listed.name).collect())
    }

    /// The names that are in use in the lake, and what each is.
    pub async fn listed(&self) -> Result<Vec<Listed>> {
        let Some(catalog) = &self.catalog else { return Ok(Vec::new()) };
        let state = self.state(catalog).await?;
        catalog.list(&state, &self.environment()).await
    }

    /// The Delta tables of the lake.
    pub async fn delta_tables(&self) -> Result<Vec<Table>> {
        let Some(catalog) = &self.catalog else { return Ok(Vec::new()) };
        let state = self.state(catalog).await?;
        let environment = self.environment();
        let mut tables = Vec::new();
        for listed in catalog.list(&state, &environment).await? {
            if let Some(Located::Table { table, .. }) = catalog.locate(&state, &environment, &listed.name)? {
                tables.push(table);
            }
        }
        Ok(tables)
    }

    fn unknown(&self, wrong: &str, all: &[TableName]) -> Error {
        let made = Error::not_found(format!("there is no table '{wrong}'"));
        let full: Vec<String> = all.iter().map(ToString::to_string).collect();
        let session = self.session.table_names();
        let bare = all.iter().map(|name| name.table.as_str());
        let system = system::TABLES.map(|table| format!("{}.{table}", system::NAMESPACE));
        let candidates = full.iter().chain(&session).chain(&system).map(String::as_str);
        if let Some(right) = nearest(wrong, candidates) {
            return made.hint(format!("did you mean '{right}'?"));
        }
        let last = wrong.rsplit('.').next().unwrap_or(wrong);
        if let Some(right) = nearest(last, bare)
            && let Some(whole) = all.iter().find(|name| name.table == right)
        {
            return made.hint(format!("did you mean '{whole}'?"));
        }
        match (full.is_empty(), self.catalog.is_some()) {
            (false, _) => {
                made.hint(format!("there are: {}", errors::list(&full.iter().map(String::as_str).collect::<Vec<_>>())))
            }
            (true, true) => {
                made.hint("the lake has no tables yet: bring data in with 'flumen ingest FILE --to lake.raw.NAME'")
            }
            (true, false) => made.hint("write the name of a file in quotes: select * from 'trips.csv'"),
        }
    }
}

fn unquoted(name: &str) -> Error {
    Error::invalid(format!("'{name}' looks like a file, and is not quoted"))
        .hint(format!("write it in quotes: select * from '{name}'"))
}

/// The catalogs of one query: what was found for it, and behind that the whole lake for `information_schema`.
pub(super) fn catalogs(tables: &Arc<Tables>, found: Found, listed: &[Listed]) -> Arc<dyn CatalogProviderList> {
    let found = Arc::new(found);
    let mut namespaces: HashMap<String, Names> = HashMap::new();
    let kind = |listed: &Listed| if listed.kind == Kind::View { TableType::View } else { TableType::Base };
    let known = listed.iter().map(|listed| (&listed.name, kind(listed)));
    for (name, kind) in found.lake.iter().map(|(name, table)| (name, table.table_type())).chain(known) {
        namespaces.entry(name.namespace.clone()).or_default().insert(name.table.clone(), kind);
    }
    if !found.system.is_empty() || !listed.is_empty() {
        let names = namespaces.entry(system::NAMESPACE.to_owned()).or_default();
        for name in system::TABLES {
            names.entry(name.to_owned()).or_insert(TableType::View);
        }
    }
    let list = MemoryCatalogProviderList::new();
    for (connection, catalog) in found.remote.catalogs(tables) {
        list.register_catalog(connection, catalog);
    }
    let catalog = LakeCatalog { tables: Arc::clone(tables), found, namespaces };
    list.register_catalog(LAKE_CATALOG.to_owned(), Arc::new(catalog));
    Arc::new(list)
}

#[derive(Debug)]
struct LakeCatalog {
    tables: Arc<Tables>,
    found: Arc<Found>,
    namespaces: HashMap<String, Names>,
}

/// The tables of a namespace.
type Names = BTreeMap<String, TableType>;

impl CatalogProvider for LakeCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.namespaces.keys().cloned().collect();
        names.push(SESSION_SCHEMA.to_owned());
        names.sort();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == SESSION_SCHEMA {
            return Some(Arc::new(SessionTables { tables: Arc::clone(&self.tables), found: Arc::clone(&self.found) }));
        }
        let names = self.namespaces.get(name)?.clone();
        Some(Arc::new(Namespace {
            name: name.to_owned(),
            names,
            tables: Arc::clone(&self.tables),
            found: Arc::clone(&self.found),
        }))
    }
}

/// A namespace of the lake.
#[derive(Debug)]
struct Namespace {
    name: String,
    names: Names,
    tables: Arc<Tables>,
    found: Arc<Found>,
}

#[async_trait]
impl SchemaProvider for Namespace {
    fn table_names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    async fn table(&self, table: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let Ok(name) = TableName::new(&self.name, table) else { return Ok(None) };
        if let Some(found) = self.found.lake.get(&name) {
            return Ok(Some(Arc::clone(found)));
        }
        if self.name == system::NAMESPACE
            && let Some(known) = self.found.system.get(table)
        {
            return Ok(Some(Arc::clone(known)));
        }
        if !self.table_exist(table) {
            return Ok(None);
        }
        // Only `information_schema` asks for what the query does not name.
        let mut found = Found::default();
        let external = |error| DataFusionError::External(Box::new(error));
        let loaded = match self.tables.find_in_lake(&self.name, table, &mut found).await {
            Ok(loaded) => loaded,
            Err(error) if error.kind() == ErrorKind::Unavailable && !self.tables.is_external(&name).await => {
                return Err(external(error));
            }
            // What cannot be read has no columns that could be listed, and the others have.
            Err(_) => return Ok(None),
        };
        if let Some((_, view)) = loaded {
            // What is broken below a view is no reason not to list it.
            return Ok(Some(Arc::new(ListedView {
                schema: schema_of(&view.columns).map_err(external)?,
                sql: view.sql,
            })));
        }
        Ok(found.lake.remove(&name).or_else(|| found.system.remove(table)))
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        // Lists of tables ask for nothing else: no table has to be read for them.
        Ok(self.names.get(name).copied())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}

/// A view in a list: its columns as they were when it was made.
#[derive(Debug)]
struct ListedView {
    schema: SchemaRef,
    sql: String,
}

#[async_trait]
impl TableProvider for ListedView {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_table_definition(&self) -> Option<&str> {
        Some(&self.sql)
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(DataFusionError::Internal("a view that is only listed was read".to_owned()))
    }
}

/// The tables that are named without a namespace.
#[derive(Debug)]
struct SessionTables {
    tables: Arc<Tables>,
    found: Arc<Found>,
}

#[async_trait]
impl SchemaProvider for SessionTables {
    fn table_names(&self) -> Vec<String> {
        self.tables.session.table_names()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if let Some(found) = self.found.bare.get(name) {
            return Ok(Some(Arc::clone(found)));
        }
        self.tables.session.table(name).await
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        self.tables.session.register_table(name, table)
    }

    fn deregister_table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        self.tables.session.deregister_table(name)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.found.bare.contains_key(name) || self.tables.session.table_exist(name)
    }
}
