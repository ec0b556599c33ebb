//! The command line as a whole: global options, and help worth reading. The commands are in `commands.rs`.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, ValueEnum};
use flumen_core::Error;

use crate::commands::{self, Command};

/// What the program is started with.
#[derive(Debug, Parser)]
#[command(
    name = "flumen",
    version,
    about = "A data platform in one binary: bring data in, keep it in a lake, ask it with SQL.",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}",
    before_help = commands::overview(),
    after_help = AFTER_HELP,
    subcommand_value_name = "COMMAND",
    max_term_width = 110,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// The options that every command takes.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  flumen init taxi && cd taxi
  flumen ingest 'trips_2019-*.csv.gz' --to lake.raw.trips
  flumen sql 'select count(*) from lake.raw.trips'
  flumen sql \"select * from 'trips.parquet' limit 5\"

Exit codes:
  0 done   1 a run failed   2 wrong request   3 not found   4 conflict   5 a system does not answer
  6 bad data   70 a fault in Flumen   130 cancelled

'flumen COMMAND --help' tells more about a command.
";

/// The options that every command takes, before or after its name.
#[derive(Debug, Clone, Args)]
pub struct GlobalOptions {
    /// Print results as JSON, and errors as one JSON object on standard error
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// The project's folder [default: the nearest folder upwards that has a flumen.yml]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "FLUMEN_PROJECT",
        hide_env = true,
        help_heading = "Global options"
    )]
    pub project: Option<PathBuf>,
    /// The environment whose tables the names of the lake mean
    #[arg(
        long = "env",
        global = true,
        value_name = "ENV",
        env = "FLUMEN_ENV",
        hide_env = true,
        default_value = "prod",
        help_heading = "Global options"
    )]
    pub environment: String,
    /// Tell more, such as the causes of an error
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Tell nothing but results, warnings and errors
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// When to use colours; NO_COLOR in the environment turns them off too
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = When::Auto, help_heading = "Global options")]
    pub color: When,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    // No doc comments: with them, every command's help would spell the values out over many lines.
    Auto,
    Always,
    Never,
}

/// A usage error as the error that `--json` prints: the first paragraph of what clap says, and the usage as the remedy.
pub fn usage_error(error: &clap::Error) -> Error {
    let text = error.to_string();
    let paragraph: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let message = paragraph.join(" ").trim_start_matches("error: ").to_owned();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    Error::invalid(message).hint(match usage {
        Some(usage) => format!("usage: {usage}"),
        None => "see 'flumen --help'".to_owned(),
    })
}

/// The whole command line as clap knows it, for shell completion.
pub fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_holds_together() {
        super::definition().debug_assert();
    }
}
