//! `flumen lake rename`.

use flumen_core::{Error, Result};
use serde_json::json;

use crate::commands::env::lake_table;
use crate::context::Context;
use crate::destination;

/// Give tables or views other names, all at once
#[derive(Debug, clap::Args)]
pub struct RenameCommand {
    /// OLD NEW, or several such pairs
    #[arg(required = true, num_args = 2.., value_names = ["OLD", "NEW"])]
    names: Vec<String>,
}

impl RenameCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let mut pairs = Vec::new();
        for pair in self.names.chunks(2) {
            let [from, to] = pair else {
                return Err(Error::invalid("a name is missing").hint("write pairs: OLD NEW OLD NEW"));
            };
            pairs.push((lake_table(from)?, lake_table(to)?));
        }
        destination::catalog(context)?.rename(&context.environment, &pairs).await?;
        if context.output.json {
            let shown =
                pairs.iter().map(|(from, to)| json!({ "from": format!("lake.{from}"), "to": format!("lake.{to}") }));
            return context.output.json(&shown.collect::<Vec<_>>());
        }
        for (from, to) in pairs {
            context.output.note(format_args!("lake.{from} is lake.{to} now"));
        }
        Ok(())
    }
}
