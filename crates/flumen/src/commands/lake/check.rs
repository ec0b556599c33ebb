//! `flumen lake check`.

use flumen_core::{Error, Result};
use flumen_lake::ops::check::{CheckOptions, Severity, check};

use crate::commands::env::lake_table;
use crate::context::Context;
use crate::destination;
use crate::output::{Table, counted};

/// Look for missing files, broken logs, and what killed programs left behind
#[derive(Debug, clap::Args)]
pub struct CheckCommand {
    /// lake.NAMESPACE.TABLE [default: the whole lake]
    tables: Vec<String>,
    /// Also open every data file, and read every file of the volumes
    #[arg(long)]
    deep: bool,
}

impl CheckCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let only = self.tables.iter().map(|text| lake_table(text)).collect::<Result<Vec<_>>>()?;
        let options = CheckOptions { only, deep: self.deep };
        let report = context.unless_cancelled(check(&destination::catalog(context)?, &options)).await?;
        if context.output.json {
            context.output.json(&report)?;
        } else {
            if !report.findings.is_empty() {
                let mut table = Table::new(["", "place", "what"]);
                for finding in &report.findings {
                    let severity = match finding.severity {
                        Severity::Broken => "broken",
                        Severity::Leftover => "left over",
                    };
                    table.row([severity.to_owned(), finding.place.clone(), finding.what.clone()]);
                }
                context.output.table(&table)?;
            }
            context.output.note(format_args!(
                "looked at {} and {}",
                counted(report.tables, "table"),
                counted(report.files, "file")
            ));
        }
        if report.is_broken() {
            return Err(Error::data("the lake is not whole")
                .hint("'flumen lake history' and 'flumen lake restore' lead back to a version that is; 'flumen load undo' and 'replay' load again what is lost"));
        }
        Ok(())
    }
}
