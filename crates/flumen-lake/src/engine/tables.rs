//! What a table name in a query means: a table of the session, of the lake, or files.
//!
//! Every name is looked up before the query is planned, so that a wrong one is an error with the nearest right one, and
//! each table is read at one version however often the query names it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
    TableProvider,
};
use datafusion::common::{DataFusionError, Result as DataFusionResult, TableReference};
use datafusion::logical_expr::TableType;
use flumen_core::dataset::{Dataset, TableName};
use flumen_core::error::nearest;
use flumen_core::read::FileReader;
use flumen_core::{Error, ErrorKind, Result};

use super::errors;
use super::files::{self, Learnt, Notes};
use super::lake_table::LakeTable;
use super::session::{LAKE_CATALOG, SESSION_SCHEMA};
use super::system;
use crate::lake::Lake;

/// Where tables come from. Shared by all queries of a session.
pub(super) struct Tables {
    /// The lake, inside a project.
    pub lake: Option<Lake>,
    /// What reads files.
    pub files: Arc<dyn FileReader>,
    /// Tables and views that live as long as the session.
    pub session: Arc<MemorySchemaProvider>,
    /// What is known about the types of text files.
    pub learnt: Learnt,
    /// What was odd in files.
    pub notes: Arc<Notes>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tables")
    }
}

/// The tables of one query.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Tables of the lake.
    pub lake: HashMap<TableName, Arc<LakeTable>>,
    /// Files, and tables named without their namespace, by the name in the query.
    pub bare: HashMap<String, Arc<dyn TableProvider>>,
    /// Tables of the namespace that nobody loads.
    pub system: HashMap<String, Arc<dyn TableProvider>>,
}

/// Whether `name`, written where a table is expected, means files.
pub(super) fn looks_like_file(name: &str) -> bool {
    name != "-" && (name.contains(['/', '\\', '*']) || matches!(name.parse(), Ok(Dataset::Files(_))))
}

impl Tables {
    /// Looks up `reference`, into `found`.
    ///
    /// Errors: `NotFound` with the nearest name; `Invalid` for a name with several meanings or none.
    pub async fn find(self: &Arc<Self>, reference: &TableReference, found: &mut Found) -> Result<()> {
        match reference {
            TableReference::Bare { table } => self.find_bare(table, found).await,
            TableReference::Partial { schema, table } => self.find_in_lake(schema, table, found).await,
            TableReference::Full { catalog, schema, table } if catalog.as_ref() == LAKE_CATALOG => {
                self.find_in_lake(schema, table, found).await
            }
            TableReference::Full { catalog, .. } => {
                let whole = reference.to_string();
                if looks_like_file(&whole) {
                    return Err(unquoted(&whole));
                }
                Err(Error::not_found(format!("'{catalog}' is no catalog of tables that SQL can read"))
                    .hint("SQL reads lake.<namespace>.<table> and files; bring other data in with 'flumen ingest'"))
            }
        }
    }

    async fn find_bare(&self, table: &str, found: &mut Found) -> Result<()> {
        if self.session.table_exist(table) || found.bare.contains_key(table) {
            return Ok(());
        }
        if looks_like_file(table) {
            let provider = files::open(self.files.as_ref(), table, &self.learnt, &self.notes).await?;
            found.bare.insert(table.to_owned(), provider);
            return Ok(());
        }
        let all = self.list().await?;
        let matching: Vec<&TableName> = all.iter().filter(|name| name.table == table).collect();
        match matching.as_slice() {
            [name] => {
                let provider = self.load(name, found).await?;
                found.bare.insert(table.to_owned(), provider);
                Ok(())
            }
            [] => Err(self.unknown(table, &all)),
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                Err(Error::invalid(format!("'{table}' is a table in several namespaces"))
                    .hint(format!("write one of: {}", names.join(", "))))
            }
        }
    }

    async fn find_in_lake(self: &Arc<Self>, namespace: &str, table: &str, found: &mut Found) -> Result<()> {
        if namespace == SESSION_SCHEMA || namespace == "information_schema" {
            return Ok(());
        }
        let whole = format!("{namespace}.{table}");
        if looks_like_file(&whole) {
            return Err(unquoted(&whole));
        }
        let name = TableName::new(namespace, table)?;
        let system = namespace == system::NAMESPACE && self.lake.is_some();
        let known = if system { system::table(table, self)? } else { None };
        match (self.load(&name, found).await, known) {
            (Err(error), Some(known)) if error.kind() == ErrorKind::NotFound => {
                found.system.insert(table.to_owned(), known);
                Ok(())
            }
            (loaded, _) => loaded.map(drop),
        }
    }

    async fn load(&self, name: &TableName, found: &mut Found) -> Result<Arc<LakeTable>> {
        if let Some(table) = found.lake.get(name) {
            return Ok(Arc::clone(table));
        }
        let lake = self.lake.as_ref().ok_or_else(|| {
            Error::not_found(format!("'{name}' is a table of a lake, and there is no project here to hold one"))
                .hint("run 'flumen init' to make one here, or name one with --project DIR")
        })?;
        let Some(snapshot) = lake.table(name)?.snapshot().await? else {
            let all = self.list().await?;
            return Err(self.unknown(&name.to_string(), &all));
        };
        let table = Arc::new(LakeTable::new(&snapshot)?);
        found.lake.insert(name.clone(), Arc::clone(&table));
        Ok(table)
    }

    /// All tables of the lake.
    pub async fn list(&self) -> Result<Vec<TableName>> {
        let Some(lake) = &self.lake else { return Ok(Vec::new()) };
        let mut tables = Vec::new();
        for namespace in lake.namespaces().await? {
            tables.extend(lake.tables(&namespace).await?);
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
        match (full.is_empty(), self.lake.is_some()) {
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
pub(super) fn catalogs(tables: &Arc<Tables>, found: Found, listed: &[TableName]) -> Arc<dyn CatalogProviderList> {
    let found = Arc::new(found);
    let mut namespaces: HashMap<String, Vec<String>> = HashMap::new();
    for name in listed.iter().chain(found.lake.keys()) {
        let names = namespaces.entry(name.namespace.clone()).or_default();
        if !names.contains(&name.table) {
            names.push(name.table.clone());
        }
    }
    if !found.system.is_empty() || !listed.is_empty() {
        let names = namespaces.entry(system::NAMESPACE.to_owned()).or_default();
        for name in system::TABLES {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    let catalog = LakeCatalog { tables: Arc::clone(tables), found, namespaces };
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(LAKE_CATALOG.to_owned(), Arc::new(catalog));
    Arc::new(list)
}

#[derive(Debug)]
struct LakeCatalog {
    tables: Arc<Tables>,
    found: Arc<Found>,
    namespaces: HashMap<String, Vec<String>>,
}

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
    names: Vec<String>,
    tables: Arc<Tables>,
    found: Arc<Found>,
}

#[async_trait]
impl SchemaProvider for Namespace {
    fn table_names(&self) -> Vec<String> {
        self.names.clone()
    }

    async fn table(&self, table: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let Ok(name) = TableName::new(&self.name, table) else { return Ok(None) };
        if let Some(found) = self.found.lake.get(&name) {
            return Ok(Some(Arc::clone(found) as Arc<dyn TableProvider>));
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
        let loaded = self.tables.find_in_lake(&self.name, table, &mut found).await;
        loaded.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let table = match found.lake.remove(&name) {
            Some(table) => Some(table as Arc<dyn TableProvider>),
            None => found.system.remove(table),
        };
        Ok(table)
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        // Lists of tables ask for nothing else: no table has to be read for them.
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
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
