//! The seam for SQL: text in, record batches out.

use std::pin::Pin;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;

use crate::error::Result;

/// Rows as they come.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// What a statement answers.
pub struct Answer {
    /// The columns. Empty for a statement that answers nothing.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: BatchStream,
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
