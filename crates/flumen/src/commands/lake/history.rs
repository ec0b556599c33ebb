//! `flumen lake history`.

use flumen_core::Result;
use flumen_lake::ops::history::history;
use serde_json::json;

use super::versioned;
use crate::context::Context;
use crate::destination;
use crate::output::{Table, count};

/// The versions of a table, or of the catalog, and what made them
#[derive(Debug, clap::Args)]
pub struct HistoryCommand {
    /// lake.NAMESPACE.TABLE [default: the catalog]
    table: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

impl HistoryCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let catalog = destination::catalog(context)?;
        let Some(table) = &self.table else { return self.of_catalog(context).await };
        let (name, _) = versioned(table)?;
        let (table, _) = flumen_lake::ops::describe::snapshot(&catalog, &context.environment, &name, None).await?;
        let happened = history(&table, self.limit).await?;
        if context.output.json {
            return context.output.json(&happened);
        }
        let mut shown =
            Table::new(["version", "at", "operation", "rows added", "files added", "files removed", "load", "by"]);
        for one in happened {
            shown.row([
                one.version.to_string(),
                one.at.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default(),
                one.operation,
                one.rows_added.map(count).unwrap_or_default(),
                count(one.files_added),
                count(one.files_removed),
                one.load.map(|load| load.chars().take(12).collect()).unwrap_or_default(),
                one.by.unwrap_or_default(),
            ]);
        }
        context.output.table(&shown)
    }

    async fn of_catalog(&self, context: &Context) -> Result<()> {
        let commits = destination::catalog(context)?.history(self.limit).await?;
        if context.output.json {
            let one = |commit: &flumen_lake::catalog::Commit| json!({ "version": commit.version, "at": commit.at, "reason": commit.reason, "by": commit.by });
            return context.output.json(&commits.iter().map(one).collect::<Vec<_>>());
        }
        let mut shown = Table::new(["version", "at", "what", "by"]);
        for commit in commits {
            let at = commit.at.format("%Y-%m-%d %H:%M:%S").to_string();
            shown.row([commit.version.to_string(), at, commit.reason, commit.by]);
        }
        context.output.table(&shown)
    }
}
