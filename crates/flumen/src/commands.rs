//! The commands. A new one costs its own file, a variant and a line here, and its name in [`GROUPS`].

mod completion;
mod connection;
mod contract;
mod doctor;
mod env;
mod ingest;
mod init;
mod lake;
mod load;
mod sample;
mod serve;
pub mod sql;
mod user;

use flumen_core::Result;

use crate::context::Context;

/// What Flumen can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Init(init::InitCommand),
    Connection(connection::ConnectionCommand),
    Doctor(doctor::DoctorCommand),
    Env(env::EnvCommand),
    Ingest(Box<ingest::IngestCommand>),
    Lake(lake::LakeCommand),
    Load(load::LoadCommand),
    Contract(contract::ContractCommand),
    Completion(completion::CompletionCommand),
    Sample(sample::SampleCommand),
    Serve(serve::ServeCommand),
    Sql(sql::SqlCommand),
    User(user::UserCommand),
}

impl Command {
    /// Whether it asks on the terminal, and so takes Ctrl-C for itself.
    pub fn is_prompt(&self) -> bool {
        matches!(self, Command::Sql(command) if command.is_prompt())
    }

    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Init(command) => command.run(context).await,
            Command::Connection(command) => command.run(context).await,
            Command::Doctor(command) => command.run(context).await,
            Command::Ingest(command) => command.run(context).await,
            Command::Env(command) => command.run(context).await,
            Command::Lake(command) => command.run(context).await,
            Command::Load(command) => command.run(context).await,
            Command::Contract(command) => command.run(context).await,
            Command::Completion(command) => command.run(context).await,
            Command::Sample(command) => command.run(context).await,
            Command::Serve(command) => command.run(context).await,
            Command::Sql(command) => command.run(context).await,
            Command::User(command) => command.run(context).await,
        }
    }
}

/// The headings under which `flumen --help` lists the commands.
const GROUPS: &[(&str, &[&str])] = &[
    ("Data", &["ingest", "sql", "lake", "env", "load", "contract", "sample"]),
    ("Server", &["serve", "user"]),
    ("Project", &["init", "connection", "doctor"]),
    ("Shell", &["completion"]),
];

/// The list of commands for `flumen --help`, by group.
pub fn overview() -> String {
    use clap::Subcommand as _;
    let commands = Command::augment_subcommands(clap::Command::new("flumen"));
    let about = |name: &str| {
        let command = commands.find_subcommand(name)?;
        Some(command.get_about().map(ToString::to_string).unwrap_or_default())
    };
    let mut text = String::new();
    for (heading, names) in GROUPS {
        text.push_str(&format!("{heading}:\n"));
        for (name, about) in names.iter().filter_map(|name| Some((name, about(name)?))) {
            text.push_str(&format!("  {name:<12} {about}\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_the_overview() {
        use clap::Subcommand as _;
        for command in Command::augment_subcommands(clap::Command::new("flumen")).get_subcommands() {
            let listed = GROUPS.iter().any(|(_, names)| names.contains(&command.get_name()));
            assert!(listed || command.is_hide_set(), "'{}' is missing in GROUPS", command.get_name());
        }
    }
}
