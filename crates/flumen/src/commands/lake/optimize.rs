//! `flumen lake optimize`.

use flumen_core::Result;
use flumen_lake::catalog::{Kind, Located};
use flumen_lake::ops::optimize::{OptimizeOptions, optimize};
use serde_json::json;

use crate::commands::env::lake_table;
use crate::context::Context;
use crate::destination;
use crate::output::{Table, bytes, count};

/// Make few large files of many small ones
#[derive(Debug, clap::Args)]
pub struct OptimizeCommand {
    /// lake.NAMESPACE.TABLE [default: all tables]
    tables: Vec<String>,
    /// Sort the rows by these columns, and remember that for the next time
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', requires = "tables")]
    cluster_by: Vec<String>,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

impl OptimizeCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let catalog = destination::catalog(context)?;
        let state = catalog.read().await?;
        let names = if self.tables.is_empty() {
            let listed = catalog.list(&state, &context.environment).await?;
            listed.into_iter().filter(|one| one.kind == Kind::Table).map(|one| one.name).collect()
        } else {
            self.tables.iter().map(|text| lake_table(text)).collect::<Result<Vec<_>>>()?
        };
        let mut done = Vec::new();
        for name in names {
            let located = catalog.locate(&state, &context.environment, &name)?;
            let Some(Located::Table { table, version: None, entry }) = located else {
                if !self.tables.is_empty() {
                    catalog.writable(&context.environment, &name).await?;
                    context.output.note(format_args!("lake.{name} is pinned here: there is nothing to optimize"));
                }
                continue;
            };
            if !self.cluster_by.is_empty() && !self.dry_run {
                let columns = self.cluster_by.clone();
                catalog
                    .edit(&context.environment, &name, &format!("cluster {name}"), |entry| {
                        if let flumen_lake::catalog::Entry::Table(table) = entry {
                            table.clustering.clone_from(&columns);
                        }
                        Ok(())
                    })
                    .await?;
            }
            let known = entry.map(|entry| entry.clustering).unwrap_or_default();
            let cluster_by = if self.cluster_by.is_empty() { known } else { self.cluster_by.clone() };
            let options = OptimizeOptions { cluster_by, budget_bytes: None, dry_run: self.dry_run };
            let work = optimize(&catalog, &table, &options);
            done.push((name, context.unless_cancelled(work).await?));
        }
        if context.output.json {
            let one = |(name, done): &(flumen_core::dataset::TableName, _)| json!({ "table": format!("lake.{name}"), "done": done });
            return context.output.json(&done.iter().map(one).collect::<Vec<_>>());
        }
        done.retain(|(_, done)| done.files_before > 0 || done.given_up > 0);
        if done.is_empty() {
            context.output.note("nothing to optimize: the files are large enough");
            return Ok(());
        }
        let mut table = Table::new(["table", "files before", "files after", "size before", "size after"]);
        for (name, done) in done {
            table.row([
                format!("lake.{name}"),
                count(done.files_before),
                count(done.files_after),
                bytes(done.bytes_before),
                if self.dry_run { String::new() } else { bytes(done.bytes_after) },
            ]);
        }
        context.output.table(&table)
    }
}
