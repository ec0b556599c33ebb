//! `flumen user`: who may log in at the doors.

use std::io::{self, IsTerminal as _, Read as _};

use flumen_core::user::scram::SALT_BYTES;
use flumen_core::user::{User, Verifiers, check_name, name_taken, no_user};
use flumen_core::{Error, Result};
use flumen_store::password;
use serde_json::json;

use crate::context::Context;
use crate::metadata;
use crate::output::Table;

/// Users: add one, give another password, list them, drop one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The password is asked for on a terminal, and read from standard input elsewhere. It is not kept: only what a login is held
against is.

Examples:
  flumen user add ann
  flumen user add report --read-only < password.txt
  flumen user passwd ann
")]
pub struct UserCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Add a user
    Add {
        /// The name to log in with
        name: String,
        /// The user may read, and change nothing
        #[arg(long)]
        read_only: bool,
    },
    /// Give a user another password
    Passwd {
        /// The user
        name: String,
    },
    /// All users
    List,
    /// Remove a user
    Drop {
        /// The user
        name: String,
    },
}

impl UserCommand {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let store = metadata::users(context.project()?.as_ref()).await?;
        let output = &context.output;
        match self.action {
            Action::Add { name, read_only } => {
                check_name(&name)?;
                // Before somebody types a password for nothing.
                if store.find(&name).await?.is_some() {
                    return Err(name_taken(&name));
                }
                let verifiers = ask(context)?;
                let user = User { name: name.clone(), read_only, created: context.clock.now() };
                store.add(&user, &verifiers).await?;
                if output.json {
                    return output.json(&json!({ "name": name, "read_only": read_only }));
                }
                output.note(format_args!("user {name} may {}", if read_only { "read" } else { "read and write" }));
            }
            Action::Passwd { name } => {
                if store.find(&name).await?.is_none() {
                    return Err(no_user(&name));
                }
                store.set_verifiers(&name, &ask(context)?).await?;
                if output.json {
                    return output.json(&json!({ "name": name }));
                }
                output.note(format_args!("user {name} has another password"));
            }
            Action::List => {
                let users = store.list().await?;
                if output.json {
                    let row = |user: &User| json!({ "name": user.name, "read_only": user.read_only, "created": user.created });
                    return output.json(&users.iter().map(row).collect::<Vec<_>>());
                }
                if users.is_empty() {
                    output.note("there are no users: the doors are open on this computer, and nowhere else");
                    return Ok(());
                }
                let mut table = Table::new(["user", "may", "since"]);
                for user in users {
                    let may = if user.read_only { "read" } else { "read and write" };
                    table.row([user.name, may.to_owned(), user.created.format("%Y-%m-%d %H:%M:%S").to_string()]);
                }
                output.table(&table)?;
            }
            Action::Drop { name } => {
                store.remove(&name).await?;
                if output.json {
                    return output.json(&json!({ "name": name }));
                }
                output.note(format_args!("user {name} is gone"));
                if store.list().await?.is_empty() {
                    output.warning("there are no users any more: nobody has to log in on this computer");
                }
            }
        }
        Ok(())
    }
}

/// Asks for a password, twice where somebody types it.
fn ask(context: &Context) -> Result<Verifiers> {
    let password = if io::stdin().is_terminal() { typed()? } else { piped()? };
    let mut salt = [0; SALT_BYTES];
    salt.copy_from_slice(context.ids.next().as_bytes());
    password::verifiers(&password, &salt)
}

fn typed() -> Result<String> {
    let terminal = console::Term::stderr();
    let ask = |prompt: &str| -> Result<String> {
        let failed = |error| Error::io("the terminal", error);
        terminal.write_str(prompt).map_err(failed)?;
        terminal.read_secure_line().map_err(failed)
    };
    let (first, second) = (ask("Password: ")?, ask("Again: ")?);
    if first == second { Ok(first) } else { Err(Error::invalid("the two passwords differ").hint("try again")) }
}

/// The first line of standard input.
fn piped() -> Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|error| Error::io("standard input", error))?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    if password.is_empty() {
        return Err(Error::invalid("there is no password on standard input")
            .hint("run this on a terminal, or hand it in: flumen user add NAME < FILE"));
    }
    Ok(password)
}
