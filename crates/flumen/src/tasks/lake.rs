//! `lake`.

use clap::Parser;
use flumen_core::{Error, Result};
use flumen_worker::attempt::{Done, Job};
use flumen_worker::kinds::OneOrMore;
use flumen_worker::kinds::lake::Fields;

use crate::commands::lake::LakeCommand;
use crate::context::Context;

/// The word for every table.
const ALL: &str = "all";

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    command: LakeCommand,
}

/// Does what the commands of the same names do; what they print is in the log.
pub(super) async fn run(job: &Job, context: &Context) -> Result<Done> {
    let fields: Fields = super::fields(job)?;
    for (action, tables) in [("optimize", fields.optimize), ("vacuum", fields.vacuum), ("check", fields.check)] {
        let Some(tables) = tables.map(OneOrMore::names) else { continue };
        let is_all = tables.iter().any(|table| table == ALL);
        let names = tables.into_iter().filter(|_| !is_all);
        line([action.to_owned()].into_iter().chain(names))?.run(context).await?;
    }
    if fields.maintain == Some(true) {
        line(["maintain".to_owned()])?.run(context).await?;
    }
    Ok(Done::default())
}

fn line(arguments: impl IntoIterator<Item = String>) -> Result<LakeCommand> {
    let all = ["lake".to_owned()].into_iter().chain(arguments);
    Line::try_parse_from(all).map(|line| line.command).map_err(|error| Error::invalid(error.to_string()))
}
