//! The kinds of tasks: what a task of each takes, and how it runs. A new one costs its own file and a line in [`all`].

mod approve;
pub mod check;
mod docker;
mod empty;
pub mod export;
pub(crate) mod flow;
pub(crate) mod http;
pub mod ingest;
pub mod lake;
mod notify;
mod own_process;
mod python;
mod sensor;
mod shell;
pub mod sql;

pub use sensor::NOT_YET;

use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::flow::Outcome;
use flumen_core::task_kind::{Kinds, TaskKind};
use flumen_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::attempt::{Attempt, SCRATCH_OUTPUT};

/// The exit code by which a program says that there was nothing to do.
const NOTHING_TO_DO: i32 = 99;

/// A kind of tasks that can run.
#[async_trait]
pub trait Kind: TaskKind {
    /// Does what a task says, once. It stops soon after `attempt.cancel` is cancelled; what it answers then does not matter.
    ///
    /// Errors: whatever went wrong; it becomes the failure of the attempt, whose kind is that of the error.
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome>;

    /// Whether it starts programs: only then an attempt has a folder, and environment variables.
    fn starts_programs(&self) -> bool {
        true
    }
}

/// All of them.
pub fn all() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(approve::Approve),
        Arc::new(check::Check),
        Arc::new(docker::Docker),
        Arc::new(empty::Empty),
        Arc::new(export::Export),
        Arc::new(flow::SubFlow),
        Arc::new(http::Http),
        Arc::new(ingest::Ingest),
        Arc::new(lake::Lake),
        Arc::new(notify::Notify),
        Arc::new(python::Python),
        Arc::new(sensor::Sensor::default()),
        Arc::new(shell::Shell),
        Arc::new(sql::Sql),
    ]
}

/// All of them as far as a flow's checker has to know them.
pub fn known() -> Kinds {
    Kinds::new(all().into_iter().map(|kind| kind as Arc<dyn TaskKind>))
}

/// One, or a list.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore<T> {
    /// One.
    One(T),
    /// Several.
    More(Vec<T>),
}

impl OneOrMore<String> {
    /// As a list; a text may have several with commas between them.
    pub fn names(self) -> Vec<String> {
        let all = self.into_list();
        all.iter().flat_map(|text| text.split(',')).map(|name| name.trim().to_owned()).collect()
    }
}

impl<T> OneOrMore<T> {
    /// As a list.
    pub fn into_list(self) -> Vec<T> {
        match self {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(list) => list,
        }
    }
}

/// What a program gives to later tasks: what it wrote into its file for that, else the `last` line that it printed.
fn program_output(attempt: &Attempt<'_>, last: Option<String>) -> Result<Value> {
    output_in(&attempt.scratch.join(SCRATCH_OUTPUT), last)
}

fn output_in(file: &std::path::Path, last: Option<String>) -> Result<Value> {
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Ok(Value::Null),
        // What is no JSON is text.
        Ok(text) => Ok(serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.trim_end()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(last.map_or(Value::Null, Value::from)),
        Err(error) => Err(Error::io(SCRATCH_OUTPUT, error)),
    }
}
