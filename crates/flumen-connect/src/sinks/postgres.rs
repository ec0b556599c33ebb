//! The sink for a Postgres table.
//!
//! What always holds:
//! - A load becomes visible in one transaction, which also writes its line in the ledger. Until then its rows are in a
//!   staging table named after the load, or in the open transaction of one COPY.
//! - Rows are encoded by the workers and go through bounded channels: memory does not grow with the load.
//! - While a load runs, its connection holds an advisory lock made from its id. So the same load cannot run twice at
//!   once, and a staging table whose lock is free is a leftover, to be swept away.
//!
//! `session` decides how rows get into the table; `writer` moves them; `publish` is the last transaction, with `swap`
//! and `modes` for what it does to the table; `ledger` remembers.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use flumen_core::dataset::TableName;
use flumen_core::load::{Committed, Fence, LOAD_COLUMN, LoadId, LoadRecord, LoadRequest};
use flumen_core::write::{LedgerEntry, LoadSession, Sink, TableState};
use flumen_core::{Error, Result, limits};
use tokio_postgres::Client;

use crate::postgres::catalog::{qualified, read_table};
use crate::postgres::connect::{Connect, connect_patiently};
use crate::postgres::error::explain;
use crate::postgres::{check_name, quote, types};

mod ledger;
mod lock;
mod modes;
mod publish;
mod quarantine;
mod session;
mod swap;
mod writer;

/// How a [`PostgresSink`] behaves, beyond its table.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Whether loads are written into `_flumen.loads`. Without it nothing is skipped, undone or fenced.
    pub ledger: bool,
    /// Whether rows carry the `_flumen_*` columns unless it is said otherwise.
    pub lineage: bool,
    /// Whether the table's statistics are renewed when a load is done.
    pub analyze: bool,
    /// How long a table that somebody else has locked is waited for.
    pub lock_timeout: Duration,
    /// How long a server that went away is waited for.
    pub patience: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            ledger: true,
            lineage: false,
            analyze: true,
            lock_timeout: Duration::from_secs(10),
            patience: limits::POSTGRES_PATIENCE,
        }
    }
}

/// A table in a Postgres database, as a destination.
pub struct PostgresSink {
    target: Arc<Target>,
}

/// What all parts of a load need to know about where it goes.
struct Target {
    connector: Arc<dyn Connect>,
    address: String,
    table: TableName,
    options: PostgresOptions,
}

impl Target {
    /// The table, for messages.
    fn name(&self) -> String {
        format!("postgres table {}", self.table)
    }

    /// The table, for SQL.
    fn sql(&self) -> String {
        qualified(&self.table)
    }

    /// Another table of the same schema, for SQL.
    fn beside(&self, table: &str) -> String {
        format!("{}.{}", quote(&self.table.namespace), quote(table))
    }

    /// An error of the driver, in words.
    fn failed(&self, error: tokio_postgres::Error) -> Error {
        explain(self.name(), error)
    }

    /// A connection with the settings that every part of a load wants.
    async fn connect(&self, patience: Duration) -> Result<Client> {
        let client = connect_patiently(self.connector.as_ref(), patience).await?;
        let settings = format!(
            "set application_name = 'flumen'; set lock_timeout = {}; set statement_timeout = 0; \
             set idle_in_transaction_session_timeout = 0; set client_min_messages = warning; \
             set extra_float_digits = 3; set timezone = 'UTC'",
            self.options.lock_timeout.as_millis()
        );
        client.batch_execute(&settings).await.map_err(|error| self.failed(error))?;
        // A server that works for a client that was killed should notice, and give its locks back. Not all servers can.
        let notice = "select pg_catalog.set_config(name, '500', false) from pg_catalog.pg_settings \
                      where name = 'client_connection_check_interval'";
        let _ = client.batch_execute(notice).await;
        Ok(client)
    }

    /// A connection that is not waited for: the first one, where a wrong port is likelier than a server on its way.
    async fn connect_once(&self) -> Result<Client> {
        self.connect(Duration::from_secs(5).min(self.options.patience)).await
    }
}

impl PostgresSink {
    /// A sink for `table`, reached through `connector`, that the user knows as `address`.
    ///
    /// Errors: `Invalid` for a name that Postgres cannot keep.
    pub fn new(
        connector: Arc<dyn Connect>,
        address: impl Into<String>,
        table: TableName,
        options: PostgresOptions,
    ) -> Result<Self> {
        check_name("schema", &table.namespace)?;
        check_name("table", &table.table)?;
        Ok(Self { target: Arc::new(Target { connector, address: address.into(), table, options }) })
    }
}

#[async_trait]
impl Sink for PostgresSink {
    fn address(&self) -> String {
        self.target.address.clone()
    }

    async fn state(&self) -> Result<Option<TableState>> {
        let client = self.target.connect_once().await?;
        let table = read_table(&client, &self.target.table).await?;
        Ok(table.map(|table| TableState { schema: table.schema(), version: None, partition_by: Vec::new() }))
    }

    async fn known(&self, files: &[LoadId]) -> Result<Vec<bool>> {
        let client = self.target.connect_once().await?;
        if !self.target.options.ledger || read_table(&client, &self.target.table).await?.is_none() {
            return Ok(vec![false; files.len()]);
        }
        ledger::known(&client, &self.target, files).await
    }

    async fn loads(&self, limit: usize) -> Result<Vec<LedgerEntry>> {
        if !self.target.options.ledger {
            return Ok(Vec::new());
        }
        let client = self.target.connect_once().await?;
        ledger::loads(&client, &self.target, limit).await
    }

    async fn times_loaded(&self, load: &LoadId) -> Result<usize> {
        if !self.target.options.ledger {
            return Ok(0);
        }
        let client = self.target.connect_once().await?;
        ledger::times_loaded(&client, &self.target, load).await
    }

    async fn undo(&self, load: &LoadId, record: &LoadRecord) -> Result<Committed> {
        let target = &self.target;
        let mut client = target.connect_once().await?;
        lock::take(&client, target, load, Fence(0)).await?;
        let table = read_table(&client, &target.table)
            .await?
            .ok_or_else(|| Error::not_found(format!("{} is not there any more", target.name())))?;
        let tx = client.transaction().await.map_err(|error| target.failed(error))?;
        ledger::may_undo(&tx, target, load).await?;
        let deleted = match table.column(LOAD_COLUMN) {
            Some(_) => tx
                .execute(&format!("delete from {} where {} = $1", target.sql(), quote(LOAD_COLUMN)), &[&load.as_str()])
                .await
                .map_err(|error| target.failed(error))?,
            None => 0,
        };
        // The column may have come with a later load: then this one's rows are there and do not say so.
        if deleted == 0 && ledger::rows_written(&tx, target, load).await? > 0 {
            return Err(Error::invalid(format!(
                "load {} cannot be undone: no row of {} says that this load wrote it",
                load.short(),
                target.name()
            ))
            .hint(format!(
                "if a later load replaced its rows, there is nothing to take back; else delete them by hand, or load the \
                 right content with --mode replace. Rows of a load with --lineage carry {LOAD_COLUMN}, and can be taken back"
            )));
        }
        ledger::mark_undone(&tx, target, load, record).await?;
        tx.commit().await.map_err(|error| target.failed(error))?;
        Ok(Committed { version: None, bytes_written: 0 })
    }

    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn LoadSession>> {
        Ok(Box::new(session::Session::begin(Arc::clone(&self.target), request).await?))
    }

    fn lineage_by_default(&self) -> bool {
        self.target.options.lineage
    }

    fn stored_type(&self, data_type: &DataType) -> Result<DataType> {
        types::stored_type(data_type)
    }
}
