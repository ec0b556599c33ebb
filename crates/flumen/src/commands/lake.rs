//! `flumen lake`: look at the lake and look after it. A subcommand costs its own file under `lake/`, a variant and a line.

mod check;
mod describe;
mod diff;
mod drop;
mod export;
mod files;
mod history;
mod list;
mod maintain;
mod optimize;
mod rename;
mod restore;
mod stats;
mod tag;
mod undrop;
mod vacuum;

use flumen_core::Result;
use futures::future::LocalBoxFuture;

use crate::context::Context;

/// Tables of the lake: list, describe, compare, restore, tidy up; and files beside them
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct LakeCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    List(list::ListCommand),
    Describe(describe::DescribeCommand),
    History(history::HistoryCommand),
    Diff(diff::DiffCommand),
    Restore(restore::RestoreCommand),
    Rename(rename::RenameCommand),
    Drop(drop::DropCommand),
    Undrop(undrop::UndropCommand),
    Tag(tag::TagCommand),
    Optimize(optimize::OptimizeCommand),
    Vacuum(vacuum::VacuumCommand),
    Maintain(maintain::MaintainCommand),
    Check(check::CheckCommand),
    Stats(stats::StatsCommand),
    Export(export::ExportCommand),
    Put(files::PutCommand),
    Get(files::GetCommand),
    Ls(files::LsCommand),
    Rm(files::RmCommand),
}

impl LakeCommand {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let run: LocalBoxFuture<'_, Result<()>> = match self.action {
            Action::List(command) => Box::pin(command.run(context)),
            Action::Describe(command) => Box::pin(command.run(context)),
            Action::History(command) => Box::pin(command.run(context)),
            Action::Diff(command) => Box::pin(command.run(context)),
            Action::Restore(command) => Box::pin(command.run(context)),
            Action::Rename(command) => Box::pin(command.run(context)),
            Action::Drop(command) => Box::pin(command.run(context)),
            Action::Undrop(command) => Box::pin(command.run(context)),
            Action::Tag(command) => Box::pin(command.run(context)),
            Action::Optimize(command) => Box::pin(command.run(context)),
            Action::Maintain(command) => Box::pin(command.run(context)),
            Action::Vacuum(command) => Box::pin(command.run(context)),
            Action::Check(command) => Box::pin(command.run(context)),
            Action::Stats(command) => Box::pin(command.run(context)),
            Action::Export(command) => Box::pin(command.run(context)),
            Action::Put(command) => Box::pin(command.run(context)),
            Action::Get(command) => Box::pin(command.run(context)),
            Action::Ls(command) => Box::pin(command.run(context)),
            Action::Rm(command) => Box::pin(command.run(context)),
        };
        run.await
    }
}

/// The option by which a version is named in an address: `lake.raw.trips@3`.
fn versioned(text: &str) -> Result<(flumen_core::dataset::TableName, Option<u64>)> {
    let (name, version) = match text.rsplit_once('@') {
        Some((name, version)) => {
            let number = version.parse().map_err(|_| {
                flumen_core::Error::invalid(format!("'{version}' is no version of a table"))
                    .hint("write a number after the @: lake.raw.trips@3; 'flumen lake history' shows them")
            })?;
            (name, Some(number))
        }
        None => (text, None),
    };
    Ok((super::env::lake_table(name)?, version))
}

/// `7d`, `12h`, `30m`, `90s` or `2w`, in seconds.
fn seconds(text: &str) -> std::result::Result<u64, String> {
    const FORMS: &str = "write for example 7d, 12h, 30m or 90s";
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(FORMS.to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| FORMS.to_owned())?;
    number.checked_mul(unit).ok_or_else(|| FORMS.to_owned())
}

/// Seconds as [`seconds`] reads them.
fn as_span(seconds: u64) -> String {
    let units = [(604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.iter().find(|(size, _)| seconds > 0 && seconds.is_multiple_of(*size));
    unit.map_or_else(|| format!("{seconds}s"), |(size, name)| format!("{}{name}", seconds / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back() {
        for text in ["0s", "90s", "30m", "12h", "3d", "2w"] {
            assert_eq!(as_span(seconds(text).unwrap()), text);
        }
        for bad in ["", "7", "d", "7 days", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_stand_behind_the_address() {
        let (name, version) = versioned("lake.raw.t@3").unwrap();
        assert_eq!((name.to_string().as_str(), version), ("raw.t", Some(3)));
        assert_eq!(versioned("raw.t").unwrap().1, None);
        assert!(versioned("raw.t@x").is_err());
    }
}
