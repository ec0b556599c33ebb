//! `flumen deploy`: named copies of flows, each with its own parameters, schedule, tags and pool.

use std::fmt::Write as _;

use flumen_core::{Error, Result};
use flumen_worker::project_flows::DEPLOYMENTS_FOLDER;
use serde_json::{Value, json};

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::flows::start;
use crate::output::Table;

/// Make a named copy of a flow, with its own parameters and schedule
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  flumen deploy taxi --name green -p color=green --cron '0 7 2 * *'
  flumen deploy list
  flumen run taxi --deployment green

A deployment is a file in deployments/ that can be edited.
"
)]
pub struct DeployCommand {
    #[command(subcommand)]
    action: Option<Action>,
    /// The flow
    #[arg(required = true)]
    flow: Option<String>,
    /// The name of the copy
    #[arg(long, required = true)]
    name: Option<String>,
    /// A parameter, as NAME=VALUE
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE", value_parser = start::parameter)]
    params: Vec<(String, String)>,
    /// When it runs by itself, as a cron expression
    #[arg(long, value_name = "CRON")]
    cron: Option<String>,
    /// The time zone of the schedule
    #[arg(long, value_name = "ZONE", requires = "cron")]
    timezone: Option<String>,
    /// The pool of those of its tasks that name none
    #[arg(long)]
    pool: Option<String>,
    /// A word to find it by
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// All deployments
    List,
    /// Remove a deployment; its runs stay
    Remove {
        /// Its name
        name: String,
    },
}

impl DeployCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        match &self.action {
            Some(Action::List) => return list(&flowing, context).await,
            Some(Action::Remove { name }) => {
                let flows = flowing.flows().await?;
                let path = flowing.project.dir().join(&flows.deployment(name)?.file);
                std::fs::remove_file(&path).map_err(|error| Error::io(path.display(), error))?;
                let value = json!({ "name": name, "removed": true });
                return context.output.done(&value, format_args!("deployment '{name}' is gone"));
            }
            None => {}
        }
        let name = self.name.clone().unwrap_or_default();
        let flows = flowing.flows().await?;
        let flow = flows.flow(self.flow.as_deref().unwrap_or_default())?;
        let file = format!("{DEPLOYMENTS_FOLDER}/{name}.yml");
        let path = flowing.project.dir().join(&file);
        if path.exists() {
            return Err(Error::conflict(format!("{file} is there already"))
                .hint("edit it, or remove it first: flumen deploy remove"));
        }
        let text = self.text(&name, flow)?;
        let checked = flowing.check_deployment(&file, &text).await?;
        let folder = flowing.project.dir().join(DEPLOYMENTS_FOLDER);
        std::fs::create_dir_all(&folder).map_err(|error| Error::io(folder.display(), error))?;
        std::fs::write(&path, &text).map_err(|error| Error::io(path.display(), error))?;
        if context.output.json {
            return context.output.json(&checked);
        }
        context.output.note(format_args!("wrote {file}: flumen run {} --deployment {name}", flow.name));
        Ok(())
    }

    /// The file.
    fn text(&self, name: &str, flow: &flumen_flow::definition::Flow) -> Result<String> {
        let json = |value: &Value| value.to_string();
        let mut text = format!("deployment: {name}\nflow: {}\n", flow.name);
        if !self.tags.is_empty() {
            let _ = writeln!(text, "tags: {}", json(&Value::from(self.tags.clone())));
        }
        if let Some(pool) = &self.pool {
            let _ = writeln!(text, "pool: {pool}");
        }
        if !self.params.is_empty() {
            text.push_str("params:\n");
        }
        for (param, given) in &self.params {
            let value = match flow.params.iter().find(|spec| spec.name == *param) {
                Some(spec) => spec.read(given).map_err(|problem| {
                    flumen_flow::definition::params::explain(&format!("flow '{}'", flow.name), &[problem])
                })?,
                None => Value::from(given.as_str()),
            };
            let _ = writeln!(text, "  {param}: {}", json(&value));
        }
        if let Some(cron) = &self.cron {
            let zone = self.timezone.as_ref().map(|zone| format!(", timezone: {zone}")).unwrap_or_default();
            let _ = writeln!(text, "schedule: {{ cron: {}{zone} }}", json(&Value::from(cron.as_str())));
        }
        Ok(text)
    }
}

async fn list(flowing: &Flowing, context: &Context) -> Result<()> {
    let flows = flowing.flows().await?;
    let output = &context.output;
    if output.json {
        return output.json(&flows.deployments.values().collect::<Vec<_>>());
    }
    if flows.deployments.is_empty() {
        output.note("there are no deployments");
        return Ok(());
    }
    let mut table = Table::new(["deployment", "flow", "schedule", "parameters", "file"]);
    for one in flows.deployments.values() {
        table.row([
            one.name.clone(),
            one.flow.clone(),
            one.schedule.as_ref().map(ToString::to_string).unwrap_or_default(),
            if one.params.is_empty() { String::new() } else { Value::Object(one.params.clone()).to_string() },
            one.file.clone(),
        ]);
    }
    output.table(&table)
}
