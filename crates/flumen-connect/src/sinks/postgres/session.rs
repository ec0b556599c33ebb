//! One load on its way: how its rows get into the table is decided here, once, at its beginning.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use flumen_core::load::{Committed, LOAD_COLUMN, LoadRecord, LoadRequest, Mode};
use flumen_core::write::{BatchWriter, LoadSession, RefusedRows};
use flumen_core::{Error, ErrorKind, Result};
use tokio_postgres::Client;
use tokio_postgres::error::Severity;

use super::writer::{SharedCopy, Tally, own_copy};
use super::{Target, ledger, lock, publish, quarantine, swap};
use crate::postgres::catalog::{Table, read_table};
use crate::postgres::encode::{ColumnWire, Encoder};
use crate::postgres::types::{Wire, column_type};
use crate::postgres::{check_name, quote, quote_all};

/// How the rows of a load get into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One COPY into the table itself, its transaction open until the commit: for an append to a table that is there.
    Direct,
    /// Into a staging table that becomes the table: nothing is there yet.
    New,
    /// Into a staging table made like the table, which then takes its place.
    Swap,
    /// Into a staging table, and from there by SQL: what is there decides what becomes of the rows, or is not ours to replace.
    Stage,
}

/// What the parts of a load share.
pub struct Plan {
    /// What is to be loaded.
    pub request: LoadRequest,
    /// The table as it was when the load began.
    pub before: Option<Table>,
    /// How the rows get there.
    pub way: Way,
    /// The staging table's name, unqualified, where there is one.
    pub stage: String,
}

impl Plan {
    /// The fields that are written. A column of type null has no type in Postgres yet, and is left out.
    pub fn fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.request.schema.fields().iter().filter(|field| field.data_type() != &DataType::Null)
    }
}

/// One load into a table.
pub struct Session {
    target: Arc<Target>,
    plan: Plan,
    /// Holds the load's lock, and commits where there is a staging table.
    control: Client,
    encoder: Encoder,
    copy: String,
    shared: Mutex<Option<SharedCopy>>,
    tally: Arc<Tally>,
    runtime: tokio::runtime::Handle,
}

impl Session {
    /// Takes the lock, claims the load, sweeps leftovers away, and gets ready for writers.
    pub async fn begin(target: Arc<Target>, request: LoadRequest) -> Result<Self> {
        for field in request.schema.fields() {
            check_name("column", field.name())?;
        }
        let mut control = target.connect_once().await?;
        lock::take(&control, &target, &request.load, request.fence).await?;
        let before = read_table(&control, &target.table).await?;
        check(&target, &request, before.as_ref())?;
        if target.options.ledger {
            ledger::ensure(&mut control, &target).await?;
            ledger::claim(&control, &target, &request, before.is_some()).await?;
            match before {
                Some(_) => ledger::check_files(&control, &target, &request).await?,
                None => ledger::forget_dropped(&control, &target).await?,
            }
        }
        lock::sweep(&control, &target, &request.load).await?;
        let stage = lock::stage_name(&request.load, 0);
        let mut plan = Plan { request, before, way: Way::Stage, stage };
        plan.way = choose(&control, &target, &plan).await?;

        let columns = wires(&plan)?;
        let table = match plan.way {
            Way::Direct => target.sql(),
            Way::New | Way::Stage => {
                make_stage(&control, &target, &plan).await?;
                target.beside(&plan.stage)
            }
            Way::Swap => {
                swap::make_stage(&control, &target, &plan).await?;
                target.beside(&plan.stage)
            }
        };
        let names = quote_all(columns.iter().map(|(_, column)| column.name.as_str()));
        let copy = format!("copy {table} ({names}) from stdin (format binary)");
        let tally = Arc::new(Tally::default());
        let shared = match plan.way {
            Way::Direct => {
                let client = target.connect(target.options.patience).await?;
                Some(SharedCopy::begin(client, Arc::clone(&target), copy.clone(), Arc::clone(&tally)).await?)
            }
            _ => None,
        };
        Ok(Self {
            target,
            plan,
            control,
            encoder: Encoder::new(columns),
            copy,
            shared: Mutex::new(shared),
            tally,
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Ends the COPY in the open transaction, writes the ledger there, and commits.
    async fn commit_direct(&mut self, record: &LoadRecord) -> Result<()> {
        let target = &self.target;
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = shared.ok_or_else(|| Error::internal("a load was committed twice"))?;
        let client = shared.finish(target, &self.tally).await?;
        publish::make_indexes(&client, target, &self.plan).await?;
        if target.options.ledger {
            ledger::write(&client, target, &self.plan.request, record, 0).await?;
        }
        match client.batch_execute("commit").await {
            Ok(()) => Ok(()),
            // The answer may have been lost after the commit was made: the ledger knows.
            Err(error) => {
                let error = target.failed(error);
                match target.connect(target.options.patience).await {
                    Ok(mut control) if target.options.ledger => {
                        std::mem::swap(&mut control, &mut self.control);
                        if ledger::is_done(&self.control, &self.target, &self.plan.request).await? {
                            return Ok(());
                        }
                        Err(error)
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// Publishes the staging table. A server that goes away is waited for: everything but this last step is done.
    async fn commit_staged(&mut self, record: &LoadRecord) -> Result<()> {
        const TRIES: usize = 3;
        let mut tries = 1;
        loop {
            let error = match publish::publish(&mut self.control, &self.target, &self.plan, record).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let lost = self.control.is_closed() || is_fatal(&error);
            if error.kind() != ErrorKind::Unavailable || !lost || tries == TRIES {
                return Err(error);
            }
            tries += 1;
            self.control = self.target.connect(self.target.options.patience).await?;
            lock::take(&self.control, &self.target, &self.plan.request.load, self.plan.request.fence).await?;
            if self.target.options.ledger && ledger::is_done(&self.control, &self.target, &self.plan.request).await? {
                return Ok(());
            }
            // A server that crashed may have lost rows that it had confirmed: they are counted again.
            let count = format!("select count(*) from {}", self.target.beside(&self.plan.stage));
            match self.control.query_one(&count, &[]).await {
                Ok(row) if row.get::<_, i64>(0) as u64 == self.tally.rows.load(Ordering::Acquire) => {}
                _ => return Err(error),
            }
        }
    }

    async fn drop_stage(&self) -> Result<()> {
        if self.plan.way == Way::Direct {
            return Ok(());
        }
        let drop = format!("drop table if exists {}", self.target.beside(&self.plan.stage));
        if !self.control.is_closed() && self.control.batch_execute(&drop).await.is_ok() {
            return Ok(());
        }
        let client = self.target.connect_once().await?;
        client.batch_execute(&drop).await.map_err(|error| self.target.failed(error))
    }
}

/// Whether the server ends the connection with `error`. The connection itself may learn of it a moment later.
fn is_fatal(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    let severity = cause.and_then(|cause| cause.as_db_error()).and_then(|said| said.parsed_severity());
    matches!(severity, Some(Severity::Fatal | Severity::Panic))
}

#[async_trait]
impl LoadSession for Session {
    fn writer(&self) -> Result<Box<dyn BatchWriter>> {
        let (target, encoder, tally) = (Arc::clone(&self.target), self.encoder.clone(), Arc::clone(&self.tally));
        if self.plan.way != Way::Direct {
            return Ok(Box::new(own_copy(&self.runtime, target, self.copy.clone(), encoder, tally)));
        }
        match self.shared.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(shared) => Ok(Box::new(shared.writer(target, encoder, tally))),
            None => Err(Error::internal("a writer was asked for after the commit")),
        }
    }

    async fn quarantine(&self, rows: RefusedRows) -> Result<()> {
        quarantine::write(&self.target, &self.plan.request.load, rows).await
    }

    async fn commit(mut self: Box<Self>, record: &LoadRecord) -> Result<Committed> {
        let published = match self.tally.check() {
            Ok(()) if self.plan.way == Way::Direct => self.commit_direct(record).await,
            Ok(()) => self.commit_staged(record).await,
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            // The reason for the failure counts more than what could not be tidied up: the next load sweeps.
            let _ = self.drop_stage().await;
            lock::release(&self.control).await;
            return Err(error);
        }
        // A plan that is made from old statistics is slow, not wrong: the load stands without it.
        if self.target.options.analyze {
            let _ = self.control.batch_execute(&format!("analyze {}", self.target.sql())).await;
        }
        lock::release(&self.control).await;
        Ok(Committed { version: None, bytes_written: self.tally.bytes.load(Ordering::Acquire) })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(shared);
        let dropped = self.drop_stage().await;
        lock::release(&self.control).await;
        dropped
    }
}

/// Refuses what cannot be done to the table as it is.
fn check(target: &Target, request: &LoadRequest, before: Option<&Table>) -> Result<()> {
    let name = target.name();
    if request.schema.fields().iter().all(|field| field.data_type() == &DataType::Null) {
        return Err(Error::data(format!("{name}: no column of the rows has a value, so none has a type"))
            .hint("give the columns types with --types or a contract"));
    }
    let has = |column: &str| request.schema.column_with_name(column).is_some();
    let needs = |columns: &[String]| match columns.iter().find(|column| !has(column)) {
        Some(missing) => Err(Error::invalid(format!("{name}: the rows have no column '{missing}'"))
            .did_you_mean(missing, request.schema.fields().iter().map(|field| field.name().as_str()))),
        None => Ok(()),
    };
    match &request.mode {
        Mode::Merge { keys, delete_flag } => {
            needs(keys)?;
            needs(delete_flag.as_slice())?;
        }
        Mode::Scd2 { keys, .. } => needs(keys)?,
        Mode::ReplaceLoad { .. } if !has(LOAD_COLUMN) || !target.options.ledger => {
            return Err(Error::invalid(format!(
                "{name}: what the same flow and interval wrote before is found by the column {LOAD_COLUMN} and the ledger"
            ))
            .hint("load with --lineage and without --no-ledger"));
        }
        Mode::Append | Mode::Replace | Mode::ReplaceWhere { .. } | Mode::ReplaceLoad { .. } => {}
    }
    request.indexes.iter().try_for_each(|columns| needs(columns))?;
    needs(&request.primary_key)?;
    if !request.partition_by.is_empty() {
        return Err(Error::invalid(format!("{name}: --partition-by is for lake tables"))
            .hint("create a partitioned table yourself, and append to it"));
    }
    let Some(before) = before else { return Ok(()) };
    let takes_rows = matches!(before.kind, 'r' | 'p' | 'f') || before.kind == 'v' && request.mode == Mode::Append;
    if !takes_rows {
        return Err(Error::invalid(format!("{name} is a view, not a table")).hint("load into a table"));
    }
    if !request.primary_key.is_empty() && request.primary_key != before.primary_key {
        return Err(Error::invalid(format!("{name} is there already, with another primary key"))
            .hint("leave --primary-key out, or alter the table"));
    }
    let new = request.schema.fields().iter().find(|field| before.column(field.name()).is_none());
    match new {
        Some(new) if !request.evolve && !is_extra(&request.mode, new.name()) => {
            Err(Error::invalid(format!("{name} has no column '{}'", new.name()))
                .did_you_mean(new.name(), before.columns.iter().map(|column| column.name.as_str())))
        }
        _ => Ok(()),
    }
}

/// Whether `column` only steers the load, and needs no place in the table.
pub fn is_extra(mode: &Mode, column: &str) -> bool {
    matches!(mode, Mode::Merge { delete_flag: Some(flag), .. } if flag == column)
}

async fn choose(client: &Client, target: &Target, plan: &Plan) -> Result<Way> {
    let Some(before) = &plan.before else {
        return Ok(match plan.request.mode {
            Mode::Append | Mode::Replace => Way::New,
            _ => Way::Stage,
        });
    };
    let copyable = || {
        plan.fields().all(|field| {
            before.column(field.name()).is_some_and(|column| column.pg_type.wire(field.data_type()).is_some())
        })
    };
    Ok(match plan.request.mode {
        Mode::Append if copyable() => Way::Direct,
        Mode::Replace if swap::is_possible(client, target, before.oid).await? => Way::Swap,
        _ => Way::Stage,
    })
}

/// How each column goes over the wire, with its place in the batches.
fn wires(plan: &Plan) -> Result<Vec<(usize, ColumnWire)>> {
    let mut columns = Vec::new();
    for (index, field) in plan.request.schema.fields().iter().enumerate() {
        if field.data_type() == &DataType::Null {
            continue;
        }
        let there = plan.before.as_ref().and_then(|table| table.column(field.name()));
        let as_there = || there.and_then(|column| column.pg_type.wire(field.data_type()));
        let wire: Wire = match plan.way {
            Way::Direct | Way::Swap => match as_there() {
                Some(wire) => wire,
                None => column_type(field.data_type())?.1,
            },
            Way::New | Way::Stage => column_type(field.data_type())?.1,
        };
        columns.push((index, ColumnWire { name: field.name().clone(), field: Arc::clone(field), wire }));
    }
    Ok(columns)
}

/// Makes a staging table with the columns of the load.
async fn make_stage(client: &Client, target: &Target, plan: &Plan) -> Result<()> {
    let mut columns = Vec::new();
    for field in plan.fields() {
        columns.push(format!("{} {}", quote(field.name()), column_type(field.data_type())?.0));
    }
    // What becomes the table must be in the log; what is only copied from need not be.
    let unlogged = if plan.way == Way::Stage { "unlogged " } else { "" };
    let create = format!("create {unlogged}table {} ({})", target.beside(&plan.stage), columns.join(", "));
    client.batch_execute(&create).await.map_err(|error| target.failed(error))
}
