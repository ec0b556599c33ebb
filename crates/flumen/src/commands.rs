//! The commands. A new one costs its own file, a variant and a line here, and its name in [`GROUPS`].

mod backfill;
mod check;
mod completion;
mod connection;
mod contract;
mod deploy;
mod doctor;
mod env;
mod flow;
pub mod ingest;
mod init;
pub mod lake;
mod load;
mod pool;
mod render;
mod run;
mod sample;
mod schedule;
mod serve;
pub mod sql;
mod status;
mod store;
mod task;
mod up;
mod user;
mod var;
mod why;

use flumen_core::Result;
use futures::future::LocalBoxFuture;

use crate::context::Context;

/// What Flumen can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Init(init::InitCommand),
    Backfill(Box<backfill::BackfillCommand>),
    Check(check::CheckCommand),
    Deploy(deploy::DeployCommand),
    Connection(connection::ConnectionCommand),
    Doctor(doctor::DoctorCommand),
    Env(env::EnvCommand),
    Ingest(Box<ingest::IngestCommand>),
    Lake(lake::LakeCommand),
    Load(load::LoadCommand),
    Contract(contract::ContractCommand),
    Completion(completion::CompletionCommand),
    Flow(flow::FlowCommand),
    Pool(pool::PoolCommand),
    Render(render::RenderCommand),
    Run(Box<run::RunCommand>),
    Schedule(schedule::ScheduleCommand),
    Status(status::StatusCommand),
    Store(store::StoreCommand),
    Task(task::TaskCommand),
    Sample(sample::SampleCommand),
    Serve(serve::ServeCommand),
    Sql(sql::SqlCommand),
    User(user::UserCommand),
    Var(var::VarCommand),
    Up(Box<up::UpCommand>),
    Scheduler(up::SchedulerCommand),
    Worker(up::WorkerCommand),
    Why(why::WhyCommand),
    /// What a worker starts for a task
    #[command(name = "__task", hide = true)]
    OneTask(crate::tasks::TaskCommand),
}

impl Command {
    /// Whether it asks on the terminal, and so takes Ctrl-C for itself.
    pub fn is_prompt(&self) -> bool {
        matches!(self, Command::Sql(command) if command.is_prompt())
    }

    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        // One future of a known size in place of one that has room for each.
        let run: LocalBoxFuture<'_, Result<()>> = match self {
            Command::Init(command) => Box::pin(command.run(context)),
            Command::Backfill(command) => Box::pin(command.run(context)),
            Command::Check(command) => Box::pin(command.run(context)),
            Command::Deploy(command) => Box::pin(command.run(context)),
            Command::Connection(command) => Box::pin(command.run(context)),
            Command::Doctor(command) => Box::pin(command.run(context)),
            Command::Ingest(command) => Box::pin(command.run(context)),
            Command::Env(command) => Box::pin(command.run(context)),
            Command::Lake(command) => Box::pin(command.run(context)),
            Command::Load(command) => Box::pin(command.run(context)),
            Command::Contract(command) => Box::pin(command.run(context)),
            Command::Completion(command) => Box::pin(command.run(context)),
            Command::Flow(command) => Box::pin(command.run(context)),
            Command::Pool(command) => Box::pin(command.run(context)),
            Command::Render(command) => Box::pin(command.run(context)),
            Command::Run(command) => Box::pin(command.run(context)),
            Command::Schedule(command) => Box::pin(command.run(context)),
            Command::Status(command) => Box::pin(command.run(context)),
            Command::Store(command) => Box::pin(command.run(context)),
            Command::Task(command) => Box::pin(command.run(context)),
            Command::Sample(command) => Box::pin(command.run(context)),
            Command::Serve(command) => Box::pin(command.run(context)),
            Command::Sql(command) => Box::pin(command.run(context)),
            Command::User(command) => Box::pin(command.run(context)),
            Command::Var(command) => Box::pin(command.run(context)),
            Command::Up(command) => Box::pin(command.run(context)),
            Command::Scheduler(command) => Box::pin(command.run(context)),
            Command::Worker(command) => Box::pin(command.run(context)),
            Command::Why(command) => Box::pin(command.run(context)),
            Command::OneTask(command) => Box::pin(command.run(context)),
        };
        run.await
    }
}

/// The headings under which `flumen --help` lists the commands.
const GROUPS: &[(&str, &[&str])] = &[
    ("Data", &["ingest", "sql", "lake", "env", "load", "contract", "sample"]),
    ("Flows", &["run", "backfill", "check", "flow", "deploy", "why", "render", "task", "schedule"]),
    ("Server", &["up", "status", "scheduler", "worker", "pool", "serve", "user", "store"]),
    ("Project", &["init", "connection", "var", "doctor"]),
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
