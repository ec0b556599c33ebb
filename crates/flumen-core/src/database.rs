//! The seam for databases that SQL reads where they are: what a connection's tables are, and the rows of a query that the
//! database runs by itself.
//!
//! The engine decides what the database is asked, and writes the query in the SQL of Postgres. The database knows its
//! tables, and how each column is written so that its values have the Arrow type they are given out in.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;

use crate::dataset::TableName;
use crate::error::Result;
use crate::sql::BatchStream;

/// The databases that SQL can name: the connections of a project.
pub trait Databases: Send + Sync {
    /// The names of all connections, whatever they lead to.
    fn names(&self) -> Vec<String>;

    /// The database behind a connection. Nothing is connected yet.
    ///
    /// Errors: `NotFound` for a name that is not there; `Invalid` for a connection that leads to no database.
    fn database(&self, connection: &str) -> Result<Arc<dyn Database>>;
}

/// A database. It is read, and never changed.
#[async_trait]
pub trait Database: Send + Sync {
    /// Its tables and views, sorted, without those about itself.
    async fn tables(&self) -> Result<Vec<TableName>>;

    /// What one of its tables looks like now.
    ///
    /// Errors: `NotFound`, with the nearest name; `Unavailable` when the server does not answer.
    async fn table(&self, name: &TableName) -> Result<DatabaseTable>;

    /// The rows of a query, whose columns have the types of `schema`, in that order. The database is asked when the
    /// stream is read, and not longer than the stream is there.
    async fn query(&self, sql: &str, schema: &SchemaRef) -> Result<BatchStream>;
}

/// A table or view of a database.
#[derive(Debug, Clone)]
pub struct DatabaseTable {
    /// How a query names it: `"public"."zones"`.
    pub sql: String,
    /// Its columns, in order.
    pub columns: Vec<DatabaseColumn>,
    /// About how many rows it has, if the database has counted.
    pub rows: Option<u64>,
}

/// A column of a table in a database.
#[derive(Debug, Clone)]
pub struct DatabaseColumn {
    /// Its name, and the type of its values.
    pub field: Field,
    /// How a query names it: `"zone"`.
    pub sql: String,
    /// What stands behind that name so that the values have that type: `::text`, or nothing.
    pub conversion: &'static str,
    /// Which comparisons the database makes as SQL here does.
    pub compares: Compares,
}

/// Which comparisons of two values mean the same in a database and here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compares {
    /// None.
    Never,
    /// Whether they are equal: text, whose order depends on the database's collation.
    Equal,
    /// All.
    Ordered,
}
