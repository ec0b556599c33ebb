//! `flumen lake tag`.

use flumen_core::{Error, Result};
use flumen_lake::catalog::{About, Entry, Retention};
use serde_json::json;

use super::seconds;
use crate::commands::env::lake_table;
use crate::context::Context;
use crate::destination;

/// Say something about a table, a column, or a file of a volume: tags, a description, an owner, how fresh it is to be
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flumen lake tag lake.raw.trips taxi public --description 'one row a trip'
  flumen lake tag lake.raw.trips --column fare money
  flumen lake tag lake.raw.trips --remove public
  flumen lake tag lake.raw.trips --freshness 26h --retention 365d --by pickup_at
  flumen lake tag lake.files.images/2024/cat.png animal --description 'asleep'
  flumen lake tag lake.files.images/2024/ old
")]
pub struct TagCommand {
    /// lake.NAMESPACE.TABLE, or lake.NAMESPACE.VOLUME/PATH: a file, all below a path that ends with /, or the volume
    #[arg(value_name = "ADDRESS")]
    table: String,
    /// Tags to add
    tags: Vec<String>,
    /// Of this column, not of the table
    #[arg(long)]
    column: Option<String>,
    /// A tag to take away; may be given several times
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    /// What it is; empty for none
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Who answers for it; empty for nobody
    #[arg(long, value_name = "NAME", conflicts_with = "column")]
    owner: Option<String>,
    /// How old the latest load may be, such as 26h
    #[arg(long, value_name = "SPAN", value_parser = seconds, conflicts_with = "column")]
    freshness: Option<u64>,
    /// How long earlier versions are kept (or rows, with --by), such as 365d
    #[arg(long, value_name = "SPAN", value_parser = seconds, conflicts_with = "column")]
    retention: Option<u64>,
    /// The column by which the age of a row is told, for --retention
    #[arg(long, value_name = "COLUMN", requires = "retention")]
    by: Option<String>,
}

impl TagCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        if let Some((volume, path)) = self.table.split_once('/') {
            return self.of_files(context, volume, path).await;
        }
        let name = lake_table(&self.table)?;
        let catalog = destination::catalog(context)?;
        let state = catalog.read().await?;
        if let Some(column) = self.column.as_deref().or(self.by.as_deref())
            && !matches!(state.entry(&context.environment, &name)?, Some(Entry::View(_) | Entry::External(_)))
        {
            let (_, snapshot) =
                flumen_lake::ops::describe::snapshot(&catalog, &context.environment, &name, None).await?;
            let schema = snapshot.schema();
            if schema.index_of(column).is_err() {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                return Err(
                    Error::not_found(format!("lake.{name} has no column '{column}'")).did_you_mean(column, names)
                );
            }
        }
        let reason = format!("describe {name}");
        catalog.edit(&context.environment, &name, &reason, |entry| self.apply(entry)).await?;
        let state = catalog.read().await?;
        let entry = state.entry(&context.environment, &name)?;
        let about = entry.as_ref().map(|entry| match &self.column {
            Some(column) => entry.columns().get(column).cloned().unwrap_or_default(),
            None => entry.about().clone(),
        });
        if context.output.json {
            return context
                .output
                .json(&json!({ "table": format!("lake.{name}"), "column": self.column, "about": about }));
        }
        let of = self.column.map(|column| format!(".{column}")).unwrap_or_default();
        context.output.note(format_args!("lake.{name}{of} {}", tags_of(&about.unwrap_or_default())));
        Ok(())
    }

    /// The same for what is in the volume, at `path`.
    async fn of_files(&self, context: &Context, volume: &str, path: &str) -> Result<()> {
        if self.column.is_some() || self.freshness.is_some() || self.retention.is_some() {
            return Err(Error::invalid(format!(
                "{} is in a volume: it has no columns, freshness or retention",
                self.table
            ))
            .hint("files have tags, a description and an owner"));
        }
        let name = lake_table(volume)?;
        let said = destination::catalog(context)?.describe_files(&name, path, &|about| self.say(about)).await?;
        if context.output.json {
            let shown = said.iter().map(|(path, about)| json!({ "volume": volume, "path": path, "about": about }));
            return context.output.json(&shown.collect::<Vec<_>>());
        }
        for (path, about) in &said {
            context.output.note(format_args!("{volume}/{path} {}", tags_of(about)));
        }
        Ok(())
    }

    fn say(&self, about: &mut About) {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        about.tags.extend(self.tags.iter().cloned());
        about.tags.retain(|tag| !self.remove.contains(tag));
        if let Some(text) = &self.description {
            about.description = some(text);
        }
        if let Some(text) = &self.owner {
            about.owner = some(text);
        }
    }

    fn apply(&self, entry: &mut Entry) -> Result<()> {
        self.say(match &self.column {
            Some(column) => entry.columns_mut().entry(column.clone()).or_default(),
            None => entry.about_mut(),
        });
        if self.freshness.is_some() || self.retention.is_some() {
            let Entry::Table(table) = entry else {
                return Err(Error::invalid("only a table has freshness and retention"));
            };
            table.freshness_s = self.freshness.or(table.freshness_s);
            if let Some(keep_s) = self.retention {
                table.retention = Some(Retention { keep_s, column: self.by.clone() });
            }
        }
        Ok(())
    }
}

fn tags_of(about: &About) -> String {
    let tags: Vec<&str> = about.tags.iter().map(String::as_str).collect();
    if tags.is_empty() { "has no tags".to_owned() } else { format!("has the tags {}", tags.join(" ")) }
}
