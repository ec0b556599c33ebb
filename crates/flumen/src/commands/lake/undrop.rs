//! `flumen lake undrop`.

use flumen_core::Result;
use serde_json::json;

use crate::commands::env::lake_table;
use crate::context::Context;
use crate::destination;

/// Bring back what was dropped, or published over
#[derive(Debug, clap::Args)]
pub struct UndropCommand {
    /// lake.NAMESPACE.TABLE, as it was called
    table: String,
    /// Under another name
    #[arg(long = "as", value_name = "NAME")]
    to: Option<String>,
}

impl UndropCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let name = lake_table(&self.table)?;
        let to = self.to.as_deref().map_or_else(|| Ok(name.clone()), lake_table)?;
        let environment = destination::catalog(context)?.undrop(&name, &to).await?;
        if context.output.json {
            return context.output.json(&json!({ "table": format!("lake.{to}"), "environment": environment }));
        }
        context.output.note(format_args!("lake.{to} is back in '{environment}'"));
        Ok(())
    }
}
