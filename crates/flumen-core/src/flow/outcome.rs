//! How one attempt at a task ended.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::id::{RunId, WorkerId};

/// The kind of a failure that was too slow.
pub const TIMEOUT: &str = "timeout";
/// The kind of a failure whose worker went away too often.
pub const LOST: &str = "lost";

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it should.
    Success {
        /// What it gives to later tasks.
        #[serde(default)]
        output: Value,
        /// The data sets that it read.
        #[serde(default)]
        reads: Vec<String>,
        /// The data sets that it changed.
        #[serde(default)]
        writes: Vec<String>,
    },
    /// It need not be done: an earlier output is used again.
    Reused {
        /// That output.
        output: Value,
        /// Whose it is.
        cause: String,
    },
    /// It did not.
    Failure(Failure),
    /// There was nothing to do.
    Skipped {
        /// Why.
        cause: String,
    },
    /// It looked, and looks again later; that is the same attempt.
    Rescheduled {
        /// When.
        until: DateTime<Utc>,
    },
    /// It waits for something, and needs no worker for that.
    Deferred {
        /// For what.
        wait: Wait,
    },
    /// It was stopped, as somebody had asked.
    Cancelled,
    /// Its worker is not there any more.
    Lost {
        /// Which one that was.
        worker: WorkerId,
        /// How one knows.
        cause: String,
    },
}

impl Outcome {
    /// Success with `output`, and nothing to say about data sets.
    pub fn success(output: Value) -> Self {
        Outcome::Success { output, reads: Vec::new(), writes: Vec::new() }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of error: `timeout`, `exit`, `unavailable`…: what `retry_on` names.
    pub kind: String,
    /// The exit code of a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What happened, for a person.
    pub message: String,
    /// Whether another attempt may do better.
    pub retryable: bool,
}

impl Failure {
    /// A failure that another attempt may mend.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), exit_code: None, message: message.into(), retryable: true }
    }

    /// A failure that no other attempt mends.
    pub fn lasting(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { retryable: false, ..Self::new(kind, message) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit_code {
            Some(code) => write!(f, "exit code {code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// What a deferred task waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// The condition.
    pub on: WaitFor,
    /// When it has waited long enough and fails; the task's own timeout holds besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// A condition that is watched without a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case")]
pub enum WaitFor {
    /// A moment.
    Time {
        /// Which.
        at: DateTime<Utc>,
    },
    /// The end of another run.
    Run {
        /// Which.
        run: RunId,
    },
    /// A data set is updated.
    Dataset {
        /// Its address.
        dataset: String,
        /// An update before this does not count.
        since: DateTime<Utc>,
    },
    /// A look that costs little, from time to time.
    Check {
        /// Seconds from one look to the next.
        every_seconds: u64,
        /// What to look at, in the words of the task's kind; `for` says it to a person.
        what: Value,
    },
    /// Somebody says yes or no.
    Person {
        /// What they are asked.
        question: String,
    },
}

impl fmt::Display for WaitFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitFor::Time { at } => write!(f, "{}", at.format("%Y-%m-%d %H:%M:%S UTC")),
            WaitFor::Run { run } => write!(f, "the end of run {run}"),
            WaitFor::Dataset { dataset, .. } => write!(f, "an update of {dataset}"),
            WaitFor::Check { every_seconds, what } => {
                let what = what["for"].as_str().unwrap_or("a condition");
                write!(f, "{what}, looked at every {every_seconds} s")
            }
            WaitFor::Person { question } => write!(f, "somebody's answer to '{question}'"),
        }
    }
}
