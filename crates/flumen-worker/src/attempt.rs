//! One attempt at a task: what its kind is given, and what surrounds it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use flumen_core::boxed;
use flumen_core::flow::store::Work;
use flumen_core::task_kind::shape::{Shape, type_name};
use flumen_core::{Error, Result};
use flumen_flow::definition::{Flow, Task};
use flumen_flow::template::Renderer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::library::Version;
use crate::log::{Log, Masks, Stream};
use crate::process::{Ended, Program, Run};

/// The file in an attempt's folder into which a program writes what it gives to later tasks.
pub const SCRATCH_OUTPUT: &str = "output.json";
/// The file in an attempt's folder into which a task in a process of its own writes how it ended.
pub(crate) const RESULT: &str = ".result.json";
/// The hidden command with which the binary runs a task in a process of its own.
pub const TASK_COMMAND: &str = "__task";

/// An attempt at a task, as its kind sees it.
pub struct Attempt<'a> {
    /// What the worker shares with all attempts.
    pub host: &'a Arc<Host>,
    /// The right to the attempt, and what it is.
    pub work: &'a Work,
    /// The version of the flow that the run keeps.
    pub version: &'a Arc<Version>,
    /// The task.
    pub task: &'a Task,
    /// The fields of its kind, rendered.
    pub config: &'a Value,
    /// The same as it may be shown: with secrets masked.
    pub shown: &'a Value,
    /// Renders more templates, such as those of files.
    pub renderer: &'a Renderer,
    /// A folder of its own, removed afterwards.
    pub scratch: &'a Path,
    /// The environment variables of its programs.
    pub environment: BTreeMap<OsString, OsString>,
    /// Where it prints.
    pub log: &'a dyn Log,
    /// The secrets that must not be seen.
    pub masks: Masks,
    /// Stops it.
    pub cancel: &'a CancellationToken,
    /// How often somebody has asked for the task to be done again: then it is not the same load any more.
    pub clears: u32,
}

/// How a task in a process of its own ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChildResult {
    Done(Done),
    Failed {
        kind: String,
        message: String,
        #[serde(default)]
        hint: Option<String>,
    },
}

/// What came of a task that ended well.
#[derive(Debug, Default, serde::Serialize, Deserialize)]
pub struct Done {
    /// What it gives to later tasks.
    #[serde(default)]
    pub output: Value,
    /// The data sets that it read.
    #[serde(default)]
    pub reads: Vec<String>,
    /// The data sets that it changed.
    #[serde(default)]
    pub writes: Vec<String>,
}

/// What a task in a process of its own is told.
#[derive(Debug, serde::Serialize, Deserialize)]
pub struct Job {
    /// The kind of the task.
    pub kind: String,
    /// Its fields, rendered.
    pub config: Value,
    /// What tells its loads from all others but those of its retries.
    pub load: String,
    /// What tells its files from the same files in other tasks, for other intervals, and before it was asked for again.
    pub scope: String,
    /// What replaced rows are named by: the same for all runs of the task for an interval.
    pub slot: String,
    /// The fencing number.
    pub fence: u64,
}

impl<'a> Attempt<'a> {
    /// The flow.
    pub fn flow(&self) -> &'a Flow {
        &self.version.compiled.flow
    }

    /// The fields of the kind. A template may have become a number where a text is wanted, or the other way round.
    ///
    /// Errors: `Invalid`, where it became something that does not fit.
    pub fn fields<T: DeserializeOwned>(&self) -> Result<T> {
        if let Ok(fields) = T::deserialize(self.config) {
            return Ok(fields);
        }
        let schema = self.host.library.kind(&self.task.kind)?.schema();
        T::deserialize(&fitted(Shape::of(&schema), self.config)).map_err(|error| {
            let place = self.flow().place_in(self.task, &flumen_core::task_kind::Path::top());
            Error::invalid(format!("{place}: task '{}': {error}", self.task.id))
                .hint("a template became something that does not fit there; 'flumen render' shows what")
        })
    }

    /// The memory that each of its programs may have.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.task.memory.map(|bytes| bytes.0)
    }

    /// When this attempt first came to a worker, which may be a look or a lost worker ago.
    ///
    /// Errors: those of the store.
    pub async fn began(&self) -> Result<DateTime<Utc>> {
        let key = &self.work.queued.key;
        let tasks = self.host.store.tasks_of(self.work.run.id, std::slice::from_ref(&key.task)).await?;
        let began = tasks.iter().find(|task| task.key == *key).and_then(|task| task.began);
        // Nobody has stepped the run since this worker took the task.
        Ok(began.unwrap_or_else(|| self.host.clock.now()))
    }

    /// Says something in the attempt's log.
    pub fn note(&self, text: &str) {
        self.log.line(Stream::Note, &self.masks.apply(text));
    }

    /// Writes a line into the log that stays also where the rest of a look is dropped.
    pub fn news(&self, text: &str) {
        self.log.news(&self.masks.apply(text));
    }

    /// What surrounds its programs. Their lines go to `log`.
    pub fn watched<'r>(&'r self, log: &'r dyn Log) -> Run<'r> {
        // How long it may take is counted by the state machine, which asks to stop it.
        Run {
            log,
            masks: self.masks.clone(),
            timeout: None,
            cancel: self.cancel,
            watchdog: self.host.watchdog.as_deref(),
        }
    }

    /// The log, which remembers the last line of the standard output.
    pub fn last_line(&self) -> LastLine<'_> {
        LastLine { log: self.log, last: Mutex::new(None) }
    }

    /// What tells the loads of this task run from all others: a retry is the same load; another run, and a task that is done
    /// again, are new ones.
    pub fn load_name(&self) -> String {
        format!("{}:{}:{}", self.work.run.id, self.work.queued.key, self.clears)
    }

    /// What tells the files that this task loads from the same files in other tasks and for other intervals.
    pub fn scope_name(&self) -> String {
        format!("{}:{}", self.slot_name(), self.clears)
    }

    /// The name under which this task run's rows are replaced: the same for all requests to do it.
    pub fn slot_name(&self) -> String {
        let run = &self.work.run;
        let deployment = run.deployment.as_deref().unwrap_or_default();
        let when = match run.interval.is_moment() {
            true => run.id.to_string(),
            false => format!("{}/{}", run.interval.start.to_rfc3339(), run.interval.end.to_rfc3339()),
        };
        format!("{}:{deployment}:{}:{when}", run.flow, self.work.queued.key)
    }

    /// Runs the task in a process of its own: this program with other arguments, in the project's folder, with all environment
    /// variables of the worker.
    ///
    /// Errors: what the task says went wrong.
    #[boxed]
    pub async fn in_own_process(&self, config: Value) -> Result<OwnProcess> {
        let job = Job {
            kind: self.task.kind.clone(),
            config,
            load: self.load_name(),
            scope: self.scope_name(),
            slot: self.slot_name(),
            fence: self.work.lease.number,
        };
        let input = serde_json::to_vec(&job)
            .map_err(|error| Error::internal("a task cannot be written as JSON").caused_by(error))?;
        let result = self.scratch.join(RESULT);
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        environment.extend(self.environment.clone());
        environment.insert("FLUMEN_RESULT".into(), result.clone().into());
        let program = Program {
            program: self.host.binary.clone().into(),
            arguments: vec![
                TASK_COMMAND.into(),
                "--project".into(),
                self.host.project.dir().into(),
                "--env".into(),
                self.host.environment.clone().into(),
            ],
            folder: self.host.project.dir().to_owned(),
            environment,
            input: Some(input),
            memory_bytes: self.memory_bytes(),
        };
        let ended = self.watched(self.log).program(&program).await?;
        let said = std::fs::read(&result).ok();
        match said.and_then(|text| serde_json::from_slice(&text).ok()) {
            Some(ChildResult::Done(done)) if ended == Ended::Exited(0) => Ok(OwnProcess::Done(done)),
            Some(ChildResult::Failed { kind, message, hint }) => {
                let error = Error::new(crate::failure::kind_named(&kind), message);
                Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
            _ => Ok(OwnProcess::Ended(ended)),
        }
    }
}

/// `value`, with texts in place of numbers, and numbers in place of texts, wherever only the other fits.
fn fitted(shape: Shape<'_>, value: &Value) -> Value {
    let fits = |value: &Value| {
        let name = type_name(value);
        shape.allows(name) || name == "integer" && shape.allows("number")
    };
    match value {
        Value::Object(map) => {
            let each = |(key, item): (&String, &Value)| {
                (key.clone(), shape.property(key).map_or_else(|| item.clone(), |shape| fitted(shape, item)))
            };
            map.iter().map(each).collect()
        }
        Value::Array(items) => match shape.items() {
            Some(each) => items.iter().map(|item| fitted(each, item)).collect(),
            None => value.clone(),
        },
        Value::Number(_) | Value::Bool(_) if !fits(value) && shape.allows("string") => Value::from(value.to_string()),
        Value::String(text) if !fits(value) => {
            serde_json::from_str(text.trim()).ok().filter(|read| fits(read)).unwrap_or_else(|| value.clone())
        }
        _ => value.clone(),
    }
}

/// How a task in a process of its own ended, other than by an error that it told.
#[derive(Debug)]
pub enum OwnProcess {
    /// Well.
    Done(Done),
    /// Without a word: it was killed.
    Ended(Ended),
}

/// A log that remembers the last line of the standard output.
pub struct LastLine<'a> {
    log: &'a dyn Log,
    last: Mutex<Option<String>>,
}

impl Log for LastLine<'_> {
    fn line(&self, stream: Stream, text: &str) {
        if stream == Stream::Out && !text.trim().is_empty() {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
        }
        self.log.line(stream, text);
    }
}

impl LastLine<'_> {
    /// That line.
    pub fn take(self) -> Option<String> {
        self.last.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;

    #[derive(JsonSchema)]
    #[allow(dead_code, reason = "it is there for its schema")]
    struct Fields {
        text: Option<String>,
        port: Option<u16>,
        flag: Option<bool>,
        any: Option<Value>,
        many: Option<Vec<String>>,
        named: Option<BTreeMap<String, String>>,
    }

    #[test]
    fn what_templates_became_is_made_to_fit() {
        let schema = flumen_core::task_kind::schema_of::<Fields>();
        let given = json!({
            "text": 2021, "port": "8080", "flag": "true", "any": 5, "many": [1, "b", true], "named": { "a": 1.5 },
        });
        let expect = json!({
            "text": "2021", "port": 8080, "flag": true, "any": 5, "many": ["1", "b", "true"], "named": { "a": "1.5" },
        });
        assert_eq!(fitted(Shape::of(&schema), &given), expect);
        let wrong = json!({ "text": [1], "port": "x", "flag": 1 });
        assert_eq!(fitted(Shape::of(&schema), &wrong), wrong);
    }
}
