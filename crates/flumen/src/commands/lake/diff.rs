//! `flumen lake diff`.

use flumen_core::Result;
use flumen_lake::ops::describe;

use super::versioned;
use crate::context::Context;
use crate::destination;
use crate::output::{Table, bytes, count};

/// How two versions of a table, or two tables, differ
#[derive(Debug, clap::Args)]
pub struct DiffCommand {
    /// lake.NAMESPACE.TABLE, with @VERSION for an earlier version
    left: String,
    /// The same, for the other side
    right: String,
}

impl DiffCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let catalog = destination::catalog(context)?;
        let (left, right) = (versioned(&self.left)?, versioned(&self.right)?);
        let (_, left) = describe::snapshot(&catalog, &context.environment, &left.0, left.1).await?;
        let (_, right) = describe::snapshot(&catalog, &context.environment, &right.0, right.1).await?;
        let diff = describe::diff(&left, &right).await?;
        let output = &context.output;
        if output.json {
            return output.json(&diff);
        }
        let mut sides = Table::new(["table", "version", "rows", "size", "files only here", "rows in them"]);
        for (side, only) in [(&diff.left, diff.only_left), (&diff.right, diff.only_right)] {
            sides.row([
                side.table.clone(),
                side.version.to_string(),
                side.rows.map(count).unwrap_or_default(),
                bytes(side.bytes),
                count(only.files),
                count(only.rows),
            ]);
        }
        output.table(&sides)?;
        if !diff.columns.is_empty() {
            output.line("")?;
            let mut columns = Table::new(["column", "left", "right"]);
            for column in diff.columns {
                let side = |side: Option<String>| side.unwrap_or_else(|| "(none)".to_owned());
                columns.row([column.name, side(column.left), side(column.right)]);
            }
            output.table(&columns)?;
        }
        if !diff.loads.is_empty() {
            output.line("")?;
            let mut loads = Table::new(["load between them", "committed", "mode", "rows", "from"]);
            for load in diff.loads {
                loads.row([
                    load.load.chars().take(12).collect(),
                    load.committed.format("%Y-%m-%d %H:%M:%S").to_string(),
                    load.mode,
                    count(load.rows),
                    load.from.join(", "),
                ]);
            }
            output.table(&loads)?;
        }
        Ok(())
    }
}
