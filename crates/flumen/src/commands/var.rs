//! `flumen var`: variables that templates of flows have, kept in the database of the project.

use flumen_core::{Error, Result};
use serde_json::json;

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::output::Table;

/// Variables: what templates have as 'var.NAME'
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "\
What is set here counts before 'vars:' in flumen.yml, and that before the file .env; servers use it from the next task on. It is no
place for secrets: these belong into .env or the environment, as secret_env('NAME').
"
)]
pub struct VarCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// All variables, and where they come from
    List,
    /// The value of one
    Get {
        /// Its name
        name: String,
    },
    /// Give one a value
    Set {
        /// Its name
        name: String,
        /// Its value
        value: String,
    },
    /// Forget the value that was set here
    Unset {
        /// Its name
        name: String,
    },
}

impl VarCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        flowing.read_variables().await?;
        let output = &context.output;
        match self.action {
            Action::List => list(&flowing, context),
            Action::Get { name } => {
                let value = flowing.project.variable(&name)?.ok_or_else(|| unknown(&name, &flowing))?;
                match output.json {
                    true => output.json(&json!({ "name": name, "value": shown(&value) })),
                    false => output.line(shown(&value)),
                }
            }
            Action::Set { name, value } => {
                check_name(&name)?;
                flowing.store.set_variable(&name, Some(&value)).await?;
                output.done(&json!({ "name": name, "value": value }), format!("var.{name} is '{value}'"))
            }
            Action::Unset { name } => {
                if !flowing.store.set_variable(&name, None).await? {
                    let error = Error::not_found(format!("no variable '{name}' was set here"));
                    return Err(error.hint("'flumen var list' shows where each comes from"));
                }
                flowing.read_variables().await?;
                let text = match flowing.project.variable_place(&name) {
                    Some(place) => format!("var.{name} is what {place} says"),
                    None => format!("there is no var.{name} any more"),
                };
                output.done(&json!({ "name": name, "removed": true }), text)
            }
        }
    }
}

/// Errors: `Invalid` for a name that templates cannot write.
fn check_name(name: &str) -> Result<()> {
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(Error::invalid(format!("'{name}' cannot be the name of a variable"))
        .hint("use a letter or '_', then letters, digits and '_'"))
}

fn unknown(name: &str, flowing: &Flowing) -> Error {
    let names = flowing.project.variable_names();
    Error::not_found(format!("there is no variable '{name}'"))
        .hint(format!("flumen var set {name} VALUE"))
        .did_you_mean(name, names.iter().map(String::as_str))
}

/// A value as it may be seen.
fn shown(value: &flumen_project::template::Rendered) -> String {
    if value.secret { flumen_core::secret::MASK.to_owned() } else { value.text.clone() }
}

fn list(flowing: &Flowing, context: &Context) -> Result<()> {
    let project = &flowing.project;
    let mut rows = Vec::new();
    for name in project.variable_names() {
        // One that cannot be made now is told of in its place.
        let value = match project.variable(&name) {
            Ok(value) => value.map(|value| shown(&value)).unwrap_or_default(),
            Err(error) => format!("({})", error.message()),
        };
        rows.push((project.variable_place(&name).unwrap_or_default(), name, value));
    }
    let output = &context.output;
    if output.json {
        let one =
            |(place, name, value): &(&str, String, String)| json!({ "name": name, "value": value, "from": place });
        return output.json(&rows.iter().map(one).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        output.note("there are no variables: flumen var set NAME VALUE");
        return Ok(());
    }
    let mut table = Table::new(["variable", "value", "from"]);
    for (place, name, value) in rows {
        table.row([name, value, place.to_owned()]);
    }
    output.table(&table)
}
