//! `flumen lake describe`.

use flumen_core::Result;
use flumen_core::dataset::TableName;
use flumen_lake::catalog::Entry;
use flumen_lake::ops::describe::{self, Description};
use serde_json::{Value, json};

use super::{as_span, versioned};
use crate::context::Context;
use crate::destination;
use crate::output::{Output, Table, bytes, count, counted};

/// Everything about a table: columns, size, freshness, loads, who reads it
#[derive(Debug, clap::Args)]
pub struct DescribeCommand {
    /// lake.NAMESPACE.TABLE, with @VERSION for an earlier version
    table: String,
}

impl DescribeCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let (name, version) = versioned(&self.table)?;
        let catalog = destination::catalog(context)?;
        let state = catalog.read().await?;
        let entry = state.entry(&context.environment, &name)?;
        if let Some(Entry::View(_) | Entry::External(_)) = &entry {
            let readers = describe::views(&state, &context.environment, &name)?;
            return entry.map_or(Ok(()), |entry| no_table(&name, &entry, &readers, &context.output));
        }
        let described = describe::describe(&catalog, &context.environment, &name, version).await?;
        if context.output.json {
            return context.output.json(&described);
        }
        heading(&described, &context.output)?;
        context.output.line("")?;
        columns(&described, &context.output)?;
        origins(&described, &context.output)
    }
}

/// What the catalog says of a view or an external table.
fn no_table(name: &TableName, entry: &Entry, readers: &[String], output: &Output) -> Result<()> {
    if output.json {
        return output.json(&json!({
            "name": format!("lake.{name}"), "kind": entry.kind().name(), "is": entry, "read_by": readers,
        }));
    }
    let line = |name: &str, text: String| output.line(format_args!("{name:<12} {text}"));
    line(entry.kind().name(), format!("lake.{name}"))?;
    if let Some(text) = &entry.about().description {
        line("description", text.clone())?;
    }
    if !entry.about().tags.is_empty() {
        line("tags", entry.about().tags.iter().cloned().collect::<Vec<_>>().join(" "))?;
    }
    let columns = match entry {
        Entry::View(view) => {
            line("query", view.sql.clone())?;
            let reads: Vec<String> = view.reads.iter().map(|name| format!("lake.{name}")).collect();
            line("reads", reads.join(", "))?;
            view.columns.as_slice()
        }
        Entry::External(external) => {
            line("at", format!("{} ({})", external.location, external.format))?;
            external.columns.as_deref().unwrap_or_default()
        }
        Entry::Table(_) => &[],
    };
    if !readers.is_empty() {
        line("read by", readers.join(", "))?;
    }
    if columns.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut shown = Table::new(["column", "type", "description"]);
    for column in columns {
        let about = entry.columns().get(&column.name).and_then(|about| about.description.clone());
        shown.row([column.name.clone(), column.data_type.clone(), about.unwrap_or_default()]);
    }
    output.table(&shown)
}

fn heading(table: &Description, output: &Output) -> Result<()> {
    let line = |name: &str, text: String| output.line(format_args!("{name:<12} {text}"));
    line("table", table.table.clone())?;
    if let Some(text) = &table.about.description {
        line("description", text.clone())?;
    }
    if !table.about.tags.is_empty() {
        line("tags", table.about.tags.iter().cloned().collect::<Vec<_>>().join(" "))?;
    }
    if let Some(owner) = &table.about.owner {
        line("owner", owner.clone())?;
    }
    line("version", format!("{}{}", table.version, if table.pinned { " (pinned)" } else { "" }))?;
    line("folder", table.location.clone())?;
    line("rows", table.rows.map_or_else(|| "not known".to_owned(), count))?;
    line("size", format!("{} in {}", bytes(table.bytes), counted(table.files, "file")))?;
    if !table.partition_by.is_empty() {
        line("partitions", format!("{} by {}", count(table.partitions), table.partition_by.join(", ")))?;
    }
    if !table.clustering.is_empty() {
        line("clustered by", table.clustering.join(", "))?;
    }
    if let Some(loaded) = table.loaded {
        line("last load", format!("{}", loaded.format("%Y-%m-%d %H:%M:%S UTC")))?;
    }
    if let Some(limit) = table.freshness_s {
        let state = if table.is_stale == Some(true) { "STALE" } else { "fresh" };
        line("freshness", format!("{state}: a load every {} is expected", as_span(limit)))?;
    }
    if let Some(retention) = &table.retention {
        let what = retention.column.as_ref().map(|column| format!(" of rows, by {column}")).unwrap_or_default();
        line("retention", format!("{}{what}", as_span(retention.keep_s)))?;
    }
    if let Some(key) = &table.primary_key {
        line("primary key", key.columns.join(", "))?;
    }
    for key in &table.unique {
        line("unique", key.columns.join(", "))?;
    }
    for key in &table.foreign_keys {
        line("refers", format!("{} to lake.{} ({})", key.columns.join(", "), key.table, key.references.join(", ")))?;
    }
    if !table.views.is_empty() {
        line("read by", table.views.join(", "))?;
    }
    Ok(())
}

fn columns(table: &Description, output: &Output) -> Result<()> {
    let mut shown = Table::new(["column", "type", "nulls", "min", "max", "distinct", "description"]);
    for column in &table.columns {
        let tags: Vec<String> = column.about.tags.iter().map(|tag| format!("#{tag}")).collect();
        let about = [column.about.description.clone().unwrap_or_default(), tags.join(" ")];
        shown.row([
            column.name.clone(),
            format!("{}{}", column.data_type, if column.nullable { "" } else { " not null" }),
            column.nulls.map(count).unwrap_or_default(),
            column.min.as_ref().map(plain).unwrap_or_default(),
            column.max.as_ref().map(plain).unwrap_or_default(),
            column.distinct.map(|number| format!("~{}", count(number))).unwrap_or_default(),
            about.join(" ").trim().to_owned(),
        ]);
    }
    output.table(&shown)
}

fn origins(table: &Description, output: &Output) -> Result<()> {
    if !table.loads.is_empty() {
        output.line("")?;
        let mut shown = Table::new(["load", "committed", "mode", "rows", "from"]);
        for load in &table.loads {
            let state = if load.undone { " (undone)" } else { "" };
            shown.row([
                load.load.chars().take(12).collect(),
                load.committed.format("%Y-%m-%d %H:%M:%S").to_string(),
                format!("{}{state}", load.mode),
                count(load.rows),
                load.from.join(", "),
            ]);
        }
        output.table(&shown)?;
    }
    if !table.drift.is_empty() {
        output.line("")?;
        let mut shown = Table::new(["drift in", "column", "from", "to", "what was done"]);
        for drift in &table.drift {
            shown.row([
                drift.file.rsplit('/').next().unwrap_or(&drift.file).to_owned(),
                drift.column.clone(),
                drift.from.clone().unwrap_or_default(),
                drift.to.clone().unwrap_or_default(),
                drift.action.clone(),
            ]);
        }
        output.table(&shown)?;
    }
    Ok(())
}

/// A bound, short enough for a line.
fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= 32 { text } else { text.chars().take(31).chain(['…']).collect() }
}
