//! `flumen lake export`.

use std::path::PathBuf;

use flumen_core::Result;

use crate::commands::env::lake_table;
use crate::commands::sql::SqlCommand;
use crate::context::Context;
use crate::destination;

/// Write a table's rows to a file: CSV, JSON, Parquet, by its name
#[derive(Debug, clap::Args)]
pub struct ExportCommand {
    /// lake.NAMESPACE.TABLE
    table: String,
    /// The file; it is there once it is whole
    file: PathBuf,
    /// Also the columns that tell where a row came from
    #[arg(long)]
    lineage: bool,
}

impl ExportCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let name = lake_table(&self.table)?;
        let catalog = destination::catalog(context)?;
        let (_, snapshot) = flumen_lake::ops::describe::snapshot(&catalog, &context.environment, &name, None).await?;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let schema = snapshot.schema();
        let columns = schema.fields().iter().map(|field| field.name());
        let columns = columns.filter(|name| self.lineage || !name.starts_with("_flumen_")).map(|name| quoted(name));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let query = format!("select {columns} from lake.{}.{}", quoted(&name.namespace), quoted(&name.table));
        SqlCommand::to_file(query, self.file).run(context).await
    }
}
