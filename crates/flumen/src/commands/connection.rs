//! `flumen connection list | show | test | add`: the systems that a project knows by name.

use flumen_core::{Error, Result};
use flumen_project::connections::{Connection, Kind, kind_named};
use flumen_project::edit::add_connection;
use flumen_project::environment::ENV_FILE;
use flumen_project::scaffold::env_is_ignored;
use flumen_project::{Check, PROJECT_FILE, Project};
use serde_json::json;

use crate::context::Context;
use crate::output::{Color, Table, paint};

/// List, show, test and add connections
#[derive(Debug, clap::Args)]
#[command(visible_alias = "block", arg_required_else_help = true, subcommand_required = true)]
pub struct ConnectionCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the project's connections
    #[command(visible_alias = "ls")]
    List,
    /// Show a connection, secrets masked
    Show {
        /// Its name
        name: String,
    },
    /// Try to reach what is behind a connection
    Test {
        /// Its name
        name: String,
    },
    /// Add a connection to flumen.yml
    Add(AddCommand),
}

/// Add a connection to flumen.yml
#[derive(Debug, clap::Args)]
#[command(after_help = after_add_help())]
struct AddCommand {
    /// Its name, the first part of addresses: pg in pg.public.trips
    name: String,
    /// Its kind
    #[arg(long, value_name = "KIND")]
    kind: String,
    /// A field's value; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

impl ConnectionCommand {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let project = context.project()?;
        match self.action {
            Action::List => list(&project, context),
            Action::Show { name } => show(&project.connection(&name)?, context),
            Action::Test { name } => test(&project.connection(&name)?, context).await,
            Action::Add(command) => command.run(&project, context),
        }
    }
}

fn list(project: &Project, context: &Context) -> Result<()> {
    let connections: Vec<Connection> = project.connections().collect();
    if context.output.json {
        let entry = |connection: &Connection| json!({ "name": connection.name(), "kind": connection.kind().name, "place": place(connection) });
        return context.output.json(&connections.iter().map(entry).collect::<Vec<_>>());
    }
    if connections.is_empty() {
        context.output.note("there are no connections yet; add one with 'flumen connection add NAME --kind KIND'");
        return Ok(());
    }
    let mut table = Table::new(["name", "kind", "place"]);
    for connection in &connections {
        table.row([connection.name().to_owned(), connection.kind().name.to_owned(), place(connection)]);
    }
    context.output.table(&table)
}

/// Where a connection leads, in a few words: the first of its fields that says it, as a template if it cannot be rendered.
fn place(connection: &Connection) -> String {
    let fields = connection.show();
    let tells = |name: &&str| fields.iter().find(|field| field.name == **name);
    let found = ["url", "bucket", "container", "root", "host"].iter().find_map(tells);
    let text = found.and_then(|field| field.value.clone().or_else(|| field.template.clone()));
    text.unwrap_or_default()
}

fn show(connection: &Connection, context: &Context) -> Result<()> {
    let fields = connection.show();
    if context.output.json {
        let field = |field: &flumen_project::connections::ShownField| json!({ "name": field.name, "value": field.value, "secret": field.secret, "template": field.template, "problem": field.problem });
        return context.output.json(&json!({
            "name": connection.name(),
            "kind": connection.kind().name,
            "fields": fields.iter().map(field).collect::<Vec<_>>(),
        }));
    }
    context.output.line(format!("{}: {}", connection.name(), connection.kind().about))?;
    let mut table = Table::new(["field", "value", "from"]);
    table.row(["kind".to_owned(), connection.kind().name.to_owned(), String::new()]);
    for field in fields {
        let value = match (field.value, field.problem) {
            (Some(value), _) => value,
            (None, problem) => format!("({})", problem.unwrap_or_default()),
        };
        table.row([field.name, value, field.template.unwrap_or_default()]);
    }
    context.output.table(&table)
}

/// Tries a connection, prints each step, and ends with the error of the step that failed.
async fn test(connection: &Connection, context: &Context) -> Result<()> {
    let checks = tokio::select! {
        checks = connection.test() => checks,
        () = context.cancel.cancelled() => return Err(Error::cancelled()),
    };
    if context.output.json {
        let check = |check: &Check| match &check.outcome {
            Ok(said) => json!({ "what": check.what, "ok": true, "message": said }),
            Err(error) => {
                json!({ "what": check.what, "ok": false, "message": error.message(), "hint": error.remedy() })
            }
        };
        context.output.json(&json!({
            "name": connection.name(),
            "kind": connection.kind().name,
            "ok": checks.iter().all(|check| check.outcome.is_ok()),
            "checks": checks.iter().map(check).collect::<Vec<_>>(),
        }))?;
    }
    for check in checks {
        let (mark, said) = match &check.outcome {
            Ok(said) => (paint("ok", Color::Green, context.output.stdout_colors), format!(": {said}")),
            Err(_) => (paint("failed", Color::Red, context.output.stdout_colors), String::new()),
        };
        if !context.output.json {
            context.output.line(format!("{mark}  {}{said}", check.what))?;
        }
        check.outcome.map_err(|error| {
            let place = format!("connection '{}'", connection.name());
            if error.message().starts_with(&place) { error } else { error.within(place) }
        })?;
    }
    Ok(())
}

impl AddCommand {
    fn run(self, project: &Project, context: &Context) -> Result<()> {
        let kind = kind_named(&self.kind)?;
        let added = add_connection(project, &self.name, kind, &self.set)?;
        if !added.variables.is_empty() && !env_is_ignored(project.dir()) {
            context.output.warning(format!("{ENV_FILE} holds secrets, and .gitignore does not leave it out"));
        }
        if context.output.json {
            return context.output.json(&json!({
                "name": self.name, "kind": kind.name, "file": PROJECT_FILE, "variables": added.variables,
            }));
        }
        context.output.line(format!("added to {PROJECT_FILE}:\n{}", added.lines.trim_end()))?;
        for variable in &added.variables {
            context.output.line(format!("the secret went to {ENV_FILE}, as {variable}"))?;
        }
        context.output.note(format!("try it: flumen connection test {}", self.name));
        Ok(())
    }
}

fn key_and_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// The kinds with their fields, and examples.
fn after_add_help() -> String {
    let mut text = String::from("Kinds and their fields (* must be given):\n");
    for kind in flumen_project::connections::KINDS {
        text.push_str(&format!("  {:<9} {}\n", kind.name, fields(kind)));
    }
    text.push_str(
        "\nA secret goes to .env, and flumen.yml names its variable. A value may be a template: {{ env_var('PG_HOST') }}\n\n\
         Examples:\n  \
         flumen connection add pg --kind postgres --set host=localhost --set user=me --set password=… --set database=taxi\n  \
         flumen connection add trips --kind s3 --set bucket=nyc-tlc --set anonymous=true\n  \
         flumen connection add api --kind http --set url=https://example.org/ --set headers.X-Api-Key=…\n",
    );
    text
}

fn fields(kind: &Kind) -> String {
    let name =
        |field: &flumen_project::connections::Field| format!("{}{}", field.name, if field.required { "*" } else { "" });
    kind.fields.iter().map(name).collect::<Vec<_>>().join(", ")
}
