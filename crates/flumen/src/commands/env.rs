//! `flumen env`: sets of tables beside `prod`, to try things in and to publish at once.

use flumen_core::dataset::{Dataset, TableName};
use flumen_core::{Error, Result};
use flumen_lake::catalog::{Change, PROD};
use serde_json::json;

use crate::context::Context;
use crate::destination;
use crate::output::{Table, count};

/// Environments: make one from prod, see how it differs, publish it, drop it
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct EnvCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make an environment of what another is now: no rows are copied until something is written
    Create {
        /// Its name
        name: String,
        /// Which one to start from
        #[arg(long, value_name = "ENV", default_value = PROD)]
        from: String,
    },
    /// List the environments
    #[command(visible_alias = "ls")]
    List,
    /// How an environment differs from another
    Diff {
        /// The environment
        name: String,
        /// The one it is held against
        #[arg(default_value = PROD)]
        against: String,
    },
    /// Make prod mean what an environment has of its own, all tables at once
    Publish {
        /// The environment
        name: String,
        /// Also where prod has changed since the environment was made: these changes are left behind
        #[arg(long)]
        force: bool,
    },
    /// Forget an environment; vacuum removes its own tables in time
    #[command(visible_alias = "rm")]
    Drop {
        /// The environment
        name: String,
    },
    /// Pin a table to a version: readers see that one
    Pin {
        /// lake.NAMESPACE.TABLE
        table: String,
        /// The version [default: the latest]
        #[arg(long)]
        version: Option<u64>,
    },
    /// Let a pinned table of prod float again
    Unpin {
        /// lake.NAMESPACE.TABLE
        table: String,
    },
}

impl EnvCommand {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let catalog = destination::catalog(context)?;
        let output = &context.output;
        match self.action {
            Action::Create { name, from } => {
                let project = context.project()?;
                let reserved: Vec<String> = project.connections().map(|of| of.name().to_owned()).collect();
                let tables = catalog.create_environment(&name, &from, &reserved).await?;
                if output.json {
                    return output.json(&json!({ "environment": name, "from": from, "tables": tables }));
                }
                output.note(format_args!(
                    "environment '{name}' has the tables and views of '{from}' as they are now ({}): use it with --env {name}",
                    count(tables as u64)
                ));
                Ok(())
            }
            Action::List => list(context).await,
            Action::Diff { name, against } => diff(&name, &against, context).await,
            Action::Publish { name, force } => {
                let published = catalog.publish(&name, force).await?;
                if output.json {
                    return output.json(&published);
                }
                if published.is_empty() {
                    output.note(format_args!("'{name}' has nothing of its own to publish"));
                    return Ok(());
                }
                let mut table = Table::new(["table", "what"]);
                for one in published {
                    table.row([format!("lake.{}.{}", one.namespace, one.table), one.what.to_owned()]);
                }
                output.table(&table)
            }
            Action::Drop { name } => {
                catalog.drop_environment(&name).await?;
                told(context, &name, "dropped")
            }
            Action::Pin { table, version } => {
                let table = lake_table(&table)?;
                let version = catalog.pin(&context.environment, &table, version).await?;
                if output.json {
                    return output.json(&json!({ "table": table.to_string(), "pinned": version }));
                }
                output.note(format_args!("lake.{table} is pinned to version {version}"));
                Ok(())
            }
            Action::Unpin { table } => {
                let table = lake_table(&table)?;
                catalog.unpin(&table).await?;
                told(context, &format!("lake.{table}"), "floats")
            }
        }
    }
}

fn told(context: &Context, what: &str, how: &str) -> Result<()> {
    if context.output.json {
        return context.output.json(&json!({ "name": what, "is": how }));
    }
    context.output.note(format_args!("{what}: {how}"));
    Ok(())
}

/// A table of the lake, by its address; `lake.` may be left out.
///
/// Errors: `Invalid` for what is no such address.
pub fn lake_table(text: &str) -> Result<TableName> {
    let whole = if text.starts_with("lake.") { text.to_owned() } else { format!("lake.{text}") };
    match whole.parse::<Dataset>() {
        Ok(Dataset::Lake(name)) => Ok(name),
        _ => Err(Error::invalid(format!("'{text}' is not a table of the lake"))
            .hint("write lake.NAMESPACE.TABLE, or NAMESPACE.TABLE")),
    }
}

async fn list(context: &Context) -> Result<()> {
    let state = destination::catalog(context)?.read().await?;
    if context.output.json {
        let environments = state.environments.iter().map(|(name, environment)| {
            json!({
                "name": name,
                "from": environment.from,
                "created": environment.created,
                "entries": environment.entries.len(),
                "own": environment.own_tables(),
            })
        });
        let all: Vec<_> = std::iter::once(json!({ "name": PROD })).chain(environments).collect();
        return context.output.json(&all);
    }
    let mut table = Table::new(["environment", "from", "created", "names", "of its own"]);
    table.row([PROD.to_owned(), String::new(), String::new(), String::new(), String::new()]);
    for (name, environment) in &state.environments {
        table.row([
            name.clone(),
            environment.from.clone(),
            environment.created.format("%Y-%m-%d %H:%M:%S").to_string(),
            count(environment.entries.len() as u64),
            count(environment.own_tables() as u64),
        ]);
    }
    context.output.table(&table)
}

async fn diff(name: &str, against: &str, context: &Context) -> Result<()> {
    let differences = destination::catalog(context)?.diff_environments(against, name).await?;
    if context.output.json {
        return context.output.json(&differences);
    }
    if differences.is_empty() {
        context.output.note(format_args!("'{name}' and '{against}' are the same"));
        return Ok(());
    }
    let mut table = Table::new(["name", "kind", "difference"]);
    for one in differences {
        let what = match one.change {
            Change::Added => format!("only in {name}"),
            Change::Missing => format!("not in {name}"),
            Change::Version { from, to } => format!("version {to}, {against} has {from}"),
            Change::Copy { of, version } => format!("a copy of version {of}, at version {version}"),
            Change::Other => "something else".to_owned(),
        };
        table.row([format!("lake.{}.{}", one.namespace, one.table), one.kind.name().to_owned(), what]);
    }
    context.output.table(&table)
}
