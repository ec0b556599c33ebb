//! Tasks of flows that run in a process of their own: the worker starts this program once more, with a hidden command, and tells it
//! on its standard input what to do. What a kind is and takes is known to `flumen_worker::kinds`; how it is done is here, a file
//! each.

mod check;
mod export;
mod ingest;
mod lake;
mod list;
mod rows;
mod sensor;
mod sql;
mod state;

use std::io::Read as _;

use flumen_core::load::{Fence, LoadId, Mode};
use flumen_core::{Error, Result};
use flumen_worker::attempt::{Done, Job};
use flumen_worker::kinds::OneOrMore;
use flumen_worker::kinds::ingest::IngestMode;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::Context;

/// The variable that names the file into which is written how the task ended.
const RESULT: &str = "FLUMEN_RESULT";

/// Run one task of a flow (started by a worker)
#[derive(Debug, clap::Args)]
pub struct TaskCommand {}

impl TaskCommand {
    /// Does the task and writes how it ended.
    ///
    /// Errors: those of being told what to do, and of writing. What is wrong with the task is written.
    pub async fn run(self, context: &Context) -> Result<()> {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| Error::io("standard input", error))?;
        let job: Job = serde_json::from_str(&text).map_err(|error| {
            Error::invalid("standard input is not a task").hint("only workers start this").caused_by(error)
        })?;
        let path = std::env::var_os(RESULT)
            .ok_or_else(|| Error::invalid(format!("{RESULT} is not set")).hint("only workers start this"))?;
        let result = match do_it(&job, context).await {
            Ok(done) => json!({ "done": done }),
            Err(error) => {
                json!({ "failed": { "kind": error.kind().name(), "message": error.message(), "hint": error.remedy() } })
            }
        };
        std::fs::write(&path, result.to_string()).map_err(|error| Error::io(path.to_string_lossy(), error))
    }
}

/// A kind with what it does. A new one costs a line here.
async fn do_it(job: &Job, context: &Context) -> Result<Done> {
    match job.kind.as_str() {
        "check" => check::run(job, context).await,
        "export" => export::run(job, context).await,
        "ingest" => ingest::run(job, context).await,
        "lake" => lake::run(job, context).await,
        "list" => list::run(job, context).await,
        "sensor" => sensor::run(job, context).await,
        "sql" => sql::run(job, context).await,
        "state" => state::run(job, context).await,
        other => Err(Error::internal(format!("tasks of kind '{other}' do not run in a process of their own"))),
    }
}

/// The fields of a task's kind.
fn fields<T: DeserializeOwned>(job: &Job) -> Result<T> {
    T::deserialize(&job.config).map_err(|error| {
        Error::invalid(format!("{}: {error}", job.kind))
            .hint("a template became something that does not fit there; 'flumen render' shows what")
    })
}

/// The id of the task's load into `dataset`: a retry is the same load.
fn load_id(job: &Job, dataset: &str) -> LoadId {
    LoadId::derive(["flow", &job.load, dataset])
}

/// The fencing number of the attempt.
fn fence(job: &Job) -> Fence {
    Fence(i64::try_from(job.fence).unwrap_or(i64::MAX))
}

/// What happens to the rows that are there, for rows that come from a query.
fn mode(
    job: &Job,
    mode: Option<IngestMode>,
    predicate: Option<String>,
    key: Option<OneOrMore<String>>,
) -> Result<Mode> {
    let keys = || {
        key.clone()
            .map(OneOrMore::names)
            .ok_or_else(|| Error::invalid("'key' is missing: the columns that identify a row"))
    };
    Ok(match mode.unwrap_or(IngestMode::Replace) {
        IngestMode::Append => Mode::Append,
        IngestMode::Replace => Mode::Replace,
        IngestMode::Merge => Mode::Merge { keys: keys()?, delete_flag: None },
        IngestMode::Scd2 => {
            Mode::Scd2 { keys: keys()?, valid_from: "valid_from".to_owned(), valid_to: "valid_to".to_owned() }
        }
        IngestMode::ReplaceWhere => match predicate {
            Some(predicate) => Mode::ReplaceWhere { predicate },
            None => Mode::ReplaceLoad { slot: job.slot.clone() },
        },
    })
}
