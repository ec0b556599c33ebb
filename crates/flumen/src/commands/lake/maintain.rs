//! `flumen lake maintain`.

use flumen_core::Result;
use flumen_core::limits::MAINTAIN_BYTES;
use flumen_lake::ops::maintain::maintain;

use crate::context::Context;
use crate::destination;
use crate::output::{Table, count};

/// What a lake needs now and then: rows past their retention go, tables with many small files are compacted
#[derive(Debug, clap::Args)]
pub struct MaintainCommand {
    /// Rewrite at most so many megabytes
    #[arg(long, value_name = "MB")]
    budget: Option<u64>,
}

impl MaintainCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let catalog = destination::catalog(context)?;
        let budget = self.budget.map_or(MAINTAIN_BYTES, |megabytes| megabytes.saturating_mul(1_000_000));
        let done = context.unless_cancelled(maintain(&catalog, budget)).await?;
        if context.output.json {
            return context.output.json(&done);
        }
        if done.is_empty() {
            context.output.note("nothing to do");
            return Ok(());
        }
        let mut table = Table::new(["table", "files with expired rows", "files before", "files after"]);
        for one in &done {
            table.row([
                one.table.clone(),
                count(one.expired_files),
                count(one.optimized.files_before),
                count(one.optimized.files_after),
            ]);
            if let Some(problem) = &one.problem {
                context.output.warning(problem);
            }
        }
        context.output.table(&table)
    }
}
