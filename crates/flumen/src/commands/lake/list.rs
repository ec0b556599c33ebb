//! `flumen lake list`.

use flumen_core::Result;
use serde_json::json;

use crate::context::Context;
use crate::destination;
use crate::output::Table;

/// List tables, views and volumes
#[derive(Debug, clap::Args)]
#[command(visible_alias = "tables")]
pub struct ListCommand {
    /// Only those of this namespace
    namespace: Option<String>,
    /// Only those with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// What was dropped and can be brought back
    #[arg(long)]
    dropped: bool,
}

impl ListCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        if self.dropped {
            return self.dropped(context).await;
        }
        let catalog = destination::catalog(context)?;
        let state = catalog.read().await?;
        let mut rows = Vec::new();
        for listed in catalog.list(&state, &context.environment).await? {
            let about = state.entry(&context.environment, &listed.name)?.map(|entry| entry.about().clone());
            rows.push((listed.name, listed.kind.name(), about.unwrap_or_default()));
        }
        rows.extend(state.volumes.iter().map(|(name, volume)| (name.clone(), "volume", volume.about.clone())));
        rows.retain(|(name, _, about)| {
            self.namespace.as_ref().is_none_or(|wanted| *wanted == name.namespace)
                && self.tag.as_ref().is_none_or(|tag| about.tags.contains(tag))
        });
        if context.output.json {
            let one = |(name, kind, about): &(flumen_core::dataset::TableName, _, flumen_lake::catalog::About)| {
                json!({
                    "name": format!("lake.{name}"), "kind": kind, "description": about.description,
                    "tags": about.tags, "owner": about.owner,
                })
            };
            return context.output.json(&rows.iter().map(one).collect::<Vec<_>>());
        }
        if rows.is_empty() {
            context.output.note("nothing here yet: bring data in with 'flumen ingest FILE --to lake.raw.NAME'");
            return Ok(());
        }
        let mut table = Table::new(["name", "kind", "tags", "description"]);
        for (name, kind, about) in rows {
            let tags = about.tags.into_iter().collect::<Vec<_>>().join(" ");
            table.row([format!("lake.{name}"), kind.to_owned(), tags, about.description.unwrap_or_default()]);
        }
        context.output.table(&table)
    }

    async fn dropped(self, context: &Context) -> Result<()> {
        let state = destination::catalog(context)?.read().await?;
        let gone = state.dropped.iter().rev().filter(|one| !one.removing);
        if context.output.json {
            let one = |one: &flumen_lake::catalog::Dropped| {
                json!({
                    "name": format!("lake.{}", one.name), "kind": one.entry.kind().name(), "at": one.at,
                    "why": one.why, "environment": one.environment,
                })
            };
            return context.output.json(&gone.map(one).collect::<Vec<_>>());
        }
        let mut table = Table::new(["name", "kind", "dropped", "why", "environment"]);
        for one in gone {
            table.row([
                format!("lake.{}", one.name),
                one.entry.kind().name().to_owned(),
                one.at.format("%Y-%m-%d %H:%M:%S").to_string(),
                one.why.clone(),
                one.environment.clone(),
            ]);
        }
        context.output.table(&table)
    }
}
