//! `flumen load`: what was loaded, when, from where; take it back, or do it again.

use std::sync::Arc;

use flumen_core::dataset::Dataset;
use flumen_core::load::{LoadId, LoadRecord, Mode};
use flumen_core::write::{LedgerEntry, Sink};
use flumen_core::{Error, Result};
use flumen_lake::catalog::Kind;
use serde_json::json;

use super::ingest::IngestCommand;
use crate::context::Context;
use crate::destination::{self, DestinationOptions};
use crate::output::{Table, bytes, count, counted};

/// Loads: list them, show one, take one back, do one again
#[derive(Debug, clap::Args)]
pub struct LoadCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// The loads of a table, the latest first (without one: of all tables of the lake)
    List {
        /// lake.NAMESPACE.TABLE or CONNECTION.SCHEMA.TABLE
        dataset: Option<String>,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Everything about one load: files, rows, what changed
    Show {
        /// The load's id, or its beginning
        load: String,
        /// The table, where it is not in the lake
        #[arg(long, value_name = "DATASET")]
        of: Option<String>,
    },
    /// Take one load back, as one commit: the table is as if it had never been
    Undo {
        /// The load's id, or its beginning
        load: String,
        /// The table, where it is not in the lake
        #[arg(long, value_name = "DATASET")]
        of: Option<String>,
    },
    /// Take one load back and do it again, with the same options: after the file or the contract was mended
    Replay {
        /// The load's id, or its beginning
        load: String,
        /// The table, where it is not in the lake
        #[arg(long, value_name = "DATASET")]
        of: Option<String>,
    },
}

/// A table with a ledger.
struct Ledger {
    dataset: Dataset,
    sink: Arc<dyn Sink>,
}

impl LoadCommand {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self.action {
            Action::List { dataset, limit } => list(dataset.as_deref(), limit, context).await,
            Action::Show { load, of } => {
                let (_, entry) = find(&load, of.as_deref(), context).await?;
                show(&entry, context)
            }
            Action::Undo { load, of } => {
                let (ledger, entry) = find(&load, of.as_deref(), context).await?;
                undo(&ledger, &entry, context).await
            }
            Action::Replay { load, of } => {
                let (ledger, entry) = find(&load, of.as_deref(), context).await?;
                replay(&ledger, &entry, context).await
            }
        }
    }
}

/// The tables that are meant: one, or all of the lake.
async fn ledgers(dataset: Option<&str>, context: &Context) -> Result<Vec<Ledger>> {
    let datasets = match dataset {
        Some(text) => vec![text.parse::<Dataset>()?],
        None => {
            let catalog = destination::catalog(context)?;
            let state = catalog.read().await?;
            let listed = catalog.list(&state, &context.environment).await?;
            let tables = listed.into_iter().filter(|listed| listed.kind == Kind::Table).map(|listed| listed.name);
            tables.filter(|table| !table.table.ends_with("__quarantine")).map(Dataset::Lake).collect()
        }
    };
    let mut ledgers = Vec::new();
    for dataset in datasets {
        let sink = destination::open(&dataset, &DestinationOptions::default(), context).await?;
        ledgers.push(Ledger { dataset, sink });
    }
    Ok(ledgers)
}

async fn list(dataset: Option<&str>, limit: usize, context: &Context) -> Result<()> {
    let mut entries = Vec::new();
    for ledger in ledgers(dataset, context).await? {
        entries.extend(ledger.sink.loads(limit).await?);
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.committed));
    entries.truncate(limit);
    if context.output.json {
        return context.output.json(&entries.iter().map(as_json).collect::<Vec<_>>());
    }
    if entries.is_empty() {
        context.output.note("no loads yet");
        return Ok(());
    }
    let mut table =
        Table::new(["load", "committed", "dataset", "mode", "files", "rows", "quarantined", "version", "state"]);
    for entry in &entries {
        let record = &entry.record;
        table.row([
            record.load.short().to_owned(),
            entry.committed.format("%Y-%m-%d %H:%M:%S").to_string(),
            record.dataset.clone(),
            record.mode.name().to_owned(),
            count(record.files.len() as u64),
            count(record.rows_written),
            count(record.rows_quarantined),
            entry.version.map(|version| version.to_string()).unwrap_or_default(),
            state(entry).to_owned(),
        ]);
    }
    context.output.table(&table)
}

fn state(entry: &LedgerEntry) -> &'static str {
    match (&entry.record.undoes, entry.undone) {
        (Some(_), _) => "undo",
        (None, true) => "undone",
        (None, false) => "loaded",
    }
}

fn as_json(entry: &LedgerEntry) -> serde_json::Value {
    json!({
        "load": entry.record.load.as_str(),
        "committed": entry.committed,
        "version": entry.version,
        "state": state(entry),
        "record": entry.record,
    })
}

/// The load whose id begins with `id`.
async fn find(id: &str, dataset: Option<&str>, context: &Context) -> Result<(Ledger, LedgerEntry)> {
    let mut found = Vec::new();
    for ledger in ledgers(dataset, context).await? {
        let entries = ledger.sink.loads(usize::MAX).await?;
        if let Some(entry) = entries.into_iter().find(|entry| entry.record.load.as_str().starts_with(id)) {
            found.push((ledger, entry));
        }
    }
    match found.len() {
        1 => found.pop().ok_or_else(|| Error::internal("a load was lost")),
        0 => Err(Error::not_found(format!(
            "there is no load '{id}'{}",
            dataset.map(|d| format!(" in {d}")).unwrap_or_default()
        ))
        .hint("'flumen load list' shows them; for a table that is not in the lake, name it with --of DATASET")),
        n => Err(Error::invalid(format!("{n} loads begin with '{id}'"))
            .hint("give more digits, or the table with --of DATASET")),
    }
}

fn show(entry: &LedgerEntry, context: &Context) -> Result<()> {
    let output = &context.output;
    if output.json {
        return output.json(&as_json(entry));
    }
    let record = &entry.record;
    output.line(format_args!("load         {}", record.load))?;
    output.line(format_args!("dataset      {}", record.dataset))?;
    output.line(format_args!("mode         {}", record.mode.name()))?;
    output.line(format_args!("state        {}", state(entry)))?;
    if let Some(undoes) = &record.undoes {
        output.line(format_args!("undoes       {undoes}"))?;
    }
    output.line(format_args!("started      {}", record.started.format("%Y-%m-%d %H:%M:%S%.3f UTC")))?;
    output.line(format_args!("committed    {}", entry.committed.format("%Y-%m-%d %H:%M:%S%.3f UTC")))?;
    if let Some(version) = entry.version {
        output.line(format_args!("version      {version}"))?;
    }
    output.line(format_args!(
        "rows         {} read, {} written, {} quarantined, {} skipped",
        count(record.rows_read),
        count(record.rows_written),
        count(record.rows_quarantined),
        count(record.rows_skipped)
    ))?;
    output.line(format_args!("bytes        {} read", bytes(record.bytes_read)))?;
    if let Some(cursor) = &record.cursor {
        output.line(format_args!("cursor       {} = {}", cursor.column, cursor.value))?;
    }
    output.line("files")?;
    for file in &record.files {
        output.line(format_args!("  {:>12}  {}", count(file.rows), file.identity.address))?;
    }
    if !record.drift.is_empty() {
        output.line("changes")?;
        let mut table = Table::new(["file", "column", "from", "to", "what was done"]);
        for drift in &record.drift {
            let file = drift.file.rsplit('/').next().unwrap_or(&drift.file);
            table.row([
                file.to_owned(),
                drift.column.clone(),
                drift.from.clone().unwrap_or_default(),
                drift.to.clone().unwrap_or_default(),
                drift.action.clone(),
            ]);
        }
        output.table(&table)?;
    }
    Ok(())
}

async fn undo(ledger: &Ledger, entry: &LedgerEntry, context: &Context) -> Result<()> {
    let load = &entry.record.load;
    if entry.record.undoes.is_some() {
        return Err(Error::invalid(format!("{} is itself an undo", load.short()))
            .hint("load the files again instead: flumen load replay"));
    }
    if entry.undone {
        context.output.note(format_args!("load {} is taken back already", load.short()));
        return Ok(());
    }
    let record = LoadRecord {
        undoes: Some(load.clone()),
        ..LoadRecord::new(
            LoadId::from_uuid(context.ids.next()),
            &entry.record.dataset,
            Mode::Append,
            context.clock.now(),
        )
    };
    let committed = ledger.sink.undo(load, &record).await?;
    if context.output.json {
        return context.output.json(&json!({"undone": load.as_str(), "version": committed.version}));
    }
    let version = committed.version.map(|version| format!(" (version {version})")).unwrap_or_default();
    context.output.note(format_args!(
        "load {} of {} is taken back from {}{version}",
        load.short(),
        counted(entry.record.rows_written, "row"),
        ledger.dataset
    ));
    Ok(())
}

async fn replay(ledger: &Ledger, entry: &LedgerEntry, context: &Context) -> Result<()> {
    let record = &entry.record;
    if record.options.is_empty() {
        return Err(Error::invalid(format!(
            "load {} did not come from a command that can be run again",
            record.load.short()
        ))
        .hint("'flumen load undo' takes it back"));
    }
    let value = serde_json::Value::Object(record.options.clone().into_iter().collect());
    let command: IngestCommand = serde_json::from_value(value).map_err(|error| {
        Error::invalid(format!("the options of load {} are of another version of flumen", record.load.short()))
            .caused_by(error)
    })?;
    // A source that has gone away, or still does not fit, is found out before anything is taken back.
    let rehearsal = IngestCommand { dry_run: true, force: true, ..command.clone() };
    rehearsal.load(context).await?;
    if !entry.undone {
        undo(ledger, entry, context).await?;
    }
    command.run(context).await
}
