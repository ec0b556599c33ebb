//! The seam for SQL: text in, record batches out.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;

use crate::error::Result;
use crate::write::{Sink, WriteOptions};

/// Rows as they come.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// What a statement answers.
pub struct Answer {
    /// The columns. Empty for a statement that answers nothing.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: BatchStream,
    /// What the statement did, if it is one that does something rather than answer.
    pub done: Option<Done>,
}

/// What a statement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Its command, as Postgres tags it: `INSERT`, `CREATE TABLE`, `BEGIN`.
    pub command: &'static str,
    /// The rows that it wrote, changed or removed, for one that counts them.
    pub rows: Option<u64>,
}

impl Answer {
    /// The answer to a statement that has nothing to show but that it is done.
    pub fn done(command: &'static str, rows: Option<u64>) -> Self {
        Self {
            schema: SchemaRef::new(arrow::datatypes::Schema::empty()),
            batches: Box::pin(futures::stream::empty()),
            done: Some(Done { command, rows }),
        }
    }
}

/// Runs SQL.
///
/// Errors: `Invalid` for a query that cannot be understood, with its place in the text; `NotFound` for a table or column
/// that is not there, with the nearest name.
#[async_trait]
pub trait SqlEngine: Send + Sync {
    /// Runs one statement.
    async fn query(&self, sql: &str) -> Result<Answer>;
}

/// Where `COPY … TO` writes: what an address of a data set means outside of the lake.
#[async_trait]
pub trait Destinations: Send + Sync {
    /// The sink at `address`, which writes as `options` say.
    ///
    /// Errors: `Invalid` for an address or an option that means nothing; `NotFound` for a connection that is not there.
    async fn sink(&self, address: &str, options: &WriteOptions) -> Result<Arc<dyn Sink>>;
}
