//! `flumen lake drop`.

use flumen_core::Result;
use serde_json::json;

use crate::commands::env::lake_table;
use crate::context::Context;
use crate::destination;

/// Drop tables or views, all at once; 'flumen lake undrop' brings them back until they are vacuumed
#[derive(Debug, clap::Args)]
pub struct DropCommand {
    /// lake.NAMESPACE.TABLE
    #[arg(required = true)]
    tables: Vec<String>,
}

impl DropCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let names = self.tables.iter().map(|text| lake_table(text)).collect::<Result<Vec<_>>>()?;
        destination::catalog(context)?.drop_entries(&context.environment, &names).await?;
        if context.output.json {
            return context
                .output
                .json(&json!({ "dropped": names.iter().map(|name| format!("lake.{name}")).collect::<Vec<_>>() }));
        }
        for name in names {
            context
                .output
                .note(format_args!("lake.{name} is dropped; 'flumen lake undrop lake.{name}' brings it back"));
        }
        Ok(())
    }
}
