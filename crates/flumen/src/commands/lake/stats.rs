//! `flumen lake stats`.

use flumen_core::Result;
use flumen_lake::ops::{describe, stats};
use serde_json::json;

use super::versioned;
use crate::context::Context;
use crate::destination;
use crate::output::{Table, count};

/// Read a table's rows and count its distinct values; 'describe' shows them from then on
#[derive(Debug, clap::Args)]
pub struct StatsCommand {
    /// lake.NAMESPACE.TABLE
    table: String,
}

impl StatsCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let (name, version) = versioned(&self.table)?;
        let catalog = destination::catalog(context)?;
        let (_, snapshot) = describe::snapshot(&catalog, &context.environment, &name, version).await?;
        let counted = context.unless_cancelled(stats::distinct(&snapshot)).await?;
        describe::keep_distinct(&catalog, &context.environment, &name, snapshot.version(), counted.clone()).await?;
        if context.output.json {
            return context.output.json(&json!({ "version": snapshot.version(), "distinct": counted }));
        }
        let mut table = Table::new(["column", "distinct"]);
        for (column, number) in counted {
            table.row([column, format!("~{}", count(number))]);
        }
        context.output.table(&table)
    }
}
