//! `flumen lake restore`.

use flumen_core::Result;
use flumen_lake::ops::restore::restore;

use super::versioned;
use crate::context::Context;
use crate::destination;
use crate::output::{count, counted};

/// Make a table what it was at an earlier version, as one commit
#[derive(Debug, clap::Args)]
pub struct RestoreCommand {
    /// lake.NAMESPACE.TABLE
    table: String,
    /// The version, as 'flumen lake history' shows it
    version: u64,
}

impl RestoreCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let (name, _) = versioned(&self.table)?;
        let catalog = destination::catalog(context)?;
        // What is not there is not made.
        flumen_lake::ops::describe::snapshot(&catalog, &context.environment, &name, None).await?;
        let writable = catalog.writable(&context.environment, &name).await?;
        let address = format!("lake.{name}");
        if let Some(copied) = &writable.copied {
            context.output.note(destination::copy_note(&address, &context.environment, copied));
        }
        let restored = restore(&catalog, &writable.table, self.version).await?;
        if context.output.json {
            return context.output.json(&restored);
        }
        context.output.note(format_args!(
            "{address} is as it was at version {}: {} came back, {} went (version {})",
            restored.to,
            counted(restored.files_added, "file"),
            count(restored.files_removed),
            restored.version
        ));
        Ok(())
    }
}
