//! Tables of databases that are connections of the project: `pg.public.zones`.
//!
//! The database does what it can do as well as the engine, and does the same: conditions, columns and limits of a scan are
//! part of the query that it is sent; `rules/push_to_database.rs` gives it joins and aggregates too. What Postgres
//! understands in another way, or not at all, is done here, on the rows that it gives.
//!
//! - `expression.rs`: which expressions mean the same there, and how they are written.
//! - `select.rs`: queries, made of plans.
//! - `exec.rs`: the operator that has one run.

mod exec;
mod expression;
mod select;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, Session, TableProvider};
use datafusion::common::{Column, DataFusionError, Result as DataFusionResult};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Projection, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use flumen_core::database::{Database, DatabaseTable};
use flumen_core::dataset::TableName;
use flumen_core::error::nearest;
use flumen_core::{Error, Result};

use super::tables::Tables;
use exec::DatabaseExec;
use select::{Output, Select};

/// A connection, as queries name it, and the database behind it.
#[derive(Clone)]
struct Remote {
    connection: String,
    database: Arc<dyn Database>,
}

/// A table of a database.
pub(super) struct RemoteTable {
    remote: Remote,
    table: DatabaseTable,
    schema: SchemaRef,
}

impl fmt::Debug for RemoteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteTable({} of {})", self.table.sql, self.remote.connection)
    }
}

impl RemoteTable {
    fn new(remote: Remote, table: DatabaseTable) -> Self {
        let fields: Vec<Field> = table.columns.iter().map(|column| column.field.clone()).collect();
        Self { remote, table, schema: Arc::new(Schema::new(fields)) }
    }

    /// All its rows, under the name `alias`.
    fn select(&self, alias: &str) -> Select {
        let output = |column: &flumen_core::database::DatabaseColumn| {
            let sql = format!("{alias}.{}{}", column.sql, column.conversion);
            Output::column(sql, column.field.data_type().clone(), column.compares)
        };
        let columns = self.table.columns.iter().map(output).collect();
        Select::table(format!("{} as {alias}", self.table.sql), columns, self.table.rows)
    }

    fn place(&self, column: &Column) -> Option<usize> {
        self.schema.index_of(&column.name).ok()
    }
}

#[async_trait]
impl TableProvider for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let select = self.select("t1");
        let supports = |filter: &&Expr| match select.condition(filter, &|column| self.place(column)) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(supports).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut select = self.select("t1");
        for filter in filters {
            let condition = select.condition(filter, &|column| self.place(column)).ok_or_else(|| {
                DataFusionError::Internal(format!("a condition was promised that cannot be kept: {filter}"))
            })?;
            select.add_condition(condition);
        }
        if let Some(limit) = limit {
            select.limit(0, Some(limit));
        }
        let schema = match projection {
            Some(places) => {
                select.keep(places);
                Arc::new(self.schema.project(places)?)
            }
            None => Arc::clone(&self.schema),
        };
        Ok(Arc::new(DatabaseExec::new(&self.remote.connection, &self.remote.database, &select, schema)))
    }
}

/// A query that a database runs by itself.
struct RemoteQuery {
    remote: Remote,
    select: Select,
    schema: SchemaRef,
}

impl fmt::Debug for RemoteQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteQuery({} of {})", self.select, self.remote.connection)
    }
}

#[async_trait]
impl TableProvider for RemoteQuery {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut select = self.select.clone();
        let schema = match projection {
            Some(places) => {
                select.keep(places);
                Arc::new(self.schema.project(places)?)
            }
            None => Arc::clone(&self.schema),
        };
        Ok(Arc::new(DatabaseExec::new(&self.remote.connection, &self.remote.database, &select, schema)))
    }
}

/// What of a plan a database does by itself.
pub(super) enum Pushed {
    /// All of it.
    Whole(LogicalPlan),
    /// All of it; but its rows have to be put in order here, however they come.
    Ordered(LogicalPlan),
}

/// A plan that gives the rows of `plan` and leaves the work to one database, if that is possible, and more than a scan.
pub(super) fn pushed(plan: &LogicalPlan) -> DataFusionResult<Option<Pushed>> {
    let mut compiler = select::Compiler::default();
    let Some(select) = compiler.plan(plan) else { return Ok(None) };
    let Some(remote) = compiler.remote.filter(|_| select.is_worthwhile()) else { return Ok(None) };
    let ordered = select.is_ordered();
    let schema = plan.schema();
    let fields = schema.fields().iter().enumerate();
    let fields = fields.map(|(place, field)| Field::clone(field).with_name(format!("c{place}")));
    let name = remote.connection.clone();
    let query = RemoteQuery { remote, select, schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())) };
    let scan = LogicalPlanBuilder::scan(name.as_str(), provider_as_source(Arc::new(query)), None)?.build()?;
    let columns = schema.iter().enumerate().map(|(place, (qualifier, field))| {
        let column = Expr::Column(Column::new(Some(name.as_str()), format!("c{place}")));
        column.alias_qualified(qualifier.cloned(), field.name())
    });
    let made = Projection::try_new_with_schema(columns.collect(), Arc::new(scan), Arc::clone(schema))?;
    let made = LogicalPlan::Projection(made);
    Ok(Some(if ordered { Pushed::Ordered(made) } else { Pushed::Whole(made) }))
}

/// The tables of databases in one query, by connection, schema and name.
#[derive(Debug, Default)]
pub(super) struct RemoteTables {
    found: HashMap<(String, TableName), Arc<dyn TableProvider>>,
    listed: HashMap<String, Vec<TableName>>,
}

impl RemoteTables {
    /// The columns of all of them.
    pub fn schemas(&self) -> impl Iterator<Item = SchemaRef> {
        self.found.values().map(|table| table.schema())
    }

    /// The catalog of each database that the query names.
    pub fn catalogs(&self, tables: &Arc<Tables>) -> Vec<(String, Arc<dyn CatalogProvider>)> {
        let mut catalogs: BTreeMap<String, RemoteCatalog> = BTreeMap::new();
        let mut add = |connection: &String, name: &TableName, found: Option<&Arc<dyn TableProvider>>| {
            let catalog = catalogs.entry(connection.clone()).or_default();
            let schema = catalog.schemas.entry(name.namespace.clone()).or_insert_with(|| RemoteSchema {
                connection: connection.clone(),
                name: name.namespace.clone(),
                tables: Arc::clone(tables),
                names: BTreeMap::new(),
            });
            let known = schema.names.entry(name.table.clone()).or_default();
            if let Some(found) = found {
                *known = Some(Arc::clone(found));
            }
        };
        for (connection, names) in &self.listed {
            names.iter().for_each(|name| add(connection, name, None));
        }
        for ((connection, name), found) in &self.found {
            add(connection, name, Some(found));
        }
        let catalogs = catalogs.into_iter();
        catalogs.map(|(name, catalog)| (name, Arc::new(catalog) as Arc<dyn CatalogProvider>)).collect()
    }
}

impl Tables {
    fn remote(&self, connection: &str) -> Result<Remote> {
        let known = self.databases.as_ref().map(|databases| databases.names()).unwrap_or_default();
        let Some(databases) = self.databases.as_ref().filter(|_| known.iter().any(|name| name == connection)) else {
            let made = Error::not_found(format!("'{connection}' is no catalog of tables that SQL can read"));
            if let Some(right) = nearest(connection, known.iter().map(String::as_str)) {
                return Err(made.hint(format!("did you mean '{right}'?")));
            }
            return Err(made.hint(
                "SQL reads lake.<namespace>.<table>, tables of Postgres connections, and files; bring other data in with \
                 'flumen ingest'",
            ));
        };
        Ok(Remote { connection: connection.to_owned(), database: databases.database(connection)? })
    }

    /// Looks up a table of a database, into `found`. `information_schema` stands for the names of all its tables.
    ///
    /// Errors: `NotFound`, with the nearest name; `Unavailable` when the server does not answer.
    pub async fn find_in_database(
        &self,
        connection: &str,
        schema: &str,
        table: &str,
        found: &mut RemoteTables,
    ) -> Result<()> {
        if schema == "information_schema" {
            let listed = self.database_tables(connection).await?;
            found.listed.insert(connection.to_owned(), listed);
            return Ok(());
        }
        let key = (connection.to_owned(), TableName { namespace: schema.to_owned(), table: table.to_owned() });
        if found.found.contains_key(&key) {
            return Ok(());
        }
        let table = self.remote_table(connection, &key.1).await?;
        found.found.insert(key, table);
        Ok(())
    }

    async fn remote_table(&self, connection: &str, name: &TableName) -> Result<Arc<dyn TableProvider>> {
        let remote = self.remote(connection)?;
        let table = remote.database.table(name).await?;
        Ok(Arc::new(RemoteTable::new(remote, table)))
    }

    /// The tables of a database, sorted.
    ///
    /// Errors: `NotFound` for a connection that is not there; `Unavailable` when the server does not answer.
    pub async fn database_tables(&self, connection: &str) -> Result<Vec<TableName>> {
        self.remote(connection)?.database.tables().await
    }

    /// The error for a name that should be one of the lake's, and is not.
    pub fn not_of_lake(&self, parts: &[String]) -> Error {
        let whole = parts.join(".");
        let names = self.databases.as_ref().map(|databases| databases.names()).unwrap_or_default();
        match parts {
            [connection, ..] if names.contains(connection) => {
                Error::invalid(format!("'{whole}' is a table of the connection '{connection}', which SQL only reads"))
                    .hint(format!("write to it with: copy (select …) to '{whole}', or flumen ingest … --to {whole}"))
            }
            _ => Error::invalid(format!("'{whole}' is not the name of a table of the lake"))
                .hint("write namespace.table"),
        }
    }
}

/// The tables of a database that one query names or lists.
#[derive(Debug, Default)]
struct RemoteCatalog {
    schemas: BTreeMap<String, RemoteSchema>,
}

impl CatalogProvider for RemoteCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.schemas.get(name).map(|schema| Arc::new(schema.clone()) as Arc<dyn SchemaProvider>)
    }
}

#[derive(Debug, Clone)]
struct RemoteSchema {
    connection: String,
    name: String,
    tables: Arc<Tables>,
    names: BTreeMap<String, Option<Arc<dyn TableProvider>>>,
}

#[async_trait]
impl SchemaProvider for RemoteSchema {
    fn table_names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        match self.names.get(name) {
            None => Ok(None),
            Some(Some(found)) => Ok(Some(Arc::clone(found))),
            // Only a list of columns asks for what the query does not name.
            Some(None) => {
                let name = TableName { namespace: self.name.clone(), table: name.to_owned() };
                let table = self.tables.remote_table(&self.connection, &name).await;
                table.map(Some).map_err(|error| DataFusionError::External(Box::new(error)))
            }
        }
    }

    async fn table_type(&self, name: &str) -> DataFusionResult<Option<TableType>> {
        Ok(self.names.contains_key(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}
