//! `flumen lake vacuum`.

use flumen_core::Result;
use flumen_lake::ops::vacuum::{VacuumOptions, vacuum};

use super::seconds;
use crate::commands::env::lake_table;
use crate::context::Context;
use crate::destination;
use crate::output::{Table, bytes, count};

/// Remove files that no version, pin or running load needs any more
#[derive(Debug, clap::Args)]
pub struct VacuumCommand {
    /// lake.NAMESPACE.TABLE [default: the whole lake]
    tables: Vec<String>,
    /// Keep what was removed at least so long [default: what the table says, or 7d]
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    retain: Option<u64>,
    /// Only tell what would go
    #[arg(long)]
    dry_run: bool,
}

impl VacuumCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let only = self.tables.iter().map(|text| lake_table(text)).collect::<Result<Vec<_>>>()?;
        let options = VacuumOptions { only, retain_s: self.retain, dry_run: self.dry_run };
        let work = vacuum(&destination::catalog(context)?, &options).await?;
        if context.output.json {
            return context.output.json(&work);
        }
        if work.is_empty() {
            context.output.note("nothing to remove");
            return Ok(());
        }
        let mut table = Table::new(["place", "what", "files", "size"]);
        for one in work {
            table.row([one.place, one.what.to_owned(), count(one.files), bytes(one.bytes)]);
        }
        context.output.table(&table)?;
        if self.dry_run {
            context.output.note("nothing was removed: this was a rehearsal");
        }
        Ok(())
    }
}
