//! What a run is told: the letters in its inbox.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::id::{TaskId, TaskKey, WorkerId};
use super::outcome::Outcome;
use super::record::Timer;
use super::state::TaskState;

/// Something that a run is told. Told twice, it changes nothing the second time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "signal", rename_all = "snake_case")]
pub enum Signal {
    /// Begin.
    Start,
    /// A worker took a task run out of the queue.
    Claimed {
        /// Which.
        key: TaskKey,
        /// The number of its lease.
        number: u64,
        /// Who.
        worker: WorkerId,
        /// When.
        at: DateTime<Utc>,
    },
    /// An attempt, or what it went on to wait for, came to an end.
    Ended {
        /// Of which task run.
        key: TaskKey,
        /// The number of the attempt's lease.
        number: u64,
        /// How.
        outcome: Outcome,
        /// When.
        at: DateTime<Utc>,
    },
    /// A timer rang.
    Due {
        /// Which.
        timer: Timer,
        /// The time that it was set to.
        at: DateTime<Utc>,
    },
    /// The answer to a question about a task.
    Answered {
        /// Which task.
        key: TaskKey,
        /// What.
        answer: Answer,
    },
    /// The task is done in the run before this one.
    PastDone {
        /// Which.
        task: TaskId,
    },
    /// End it. What was set up is torn down; asked a second time, not even that.
    Cancel {
        /// Who asks.
        by: String,
    },
    /// Do these again, whatever became of them.
    Clear {
        /// Which.
        keys: Vec<TaskKey>,
        /// And everything after them.
        downstream: bool,
        /// Who asks.
        by: String,
    },
    /// Do again what failed or was cancelled, and everything after it.
    Retry {
        /// Who asks.
        by: String,
    },
    /// Take this task run for a success, a failure, or skipped.
    Mark {
        /// Which.
        key: TaskKey,
        /// What it is taken for.
        to: TaskState,
        /// Who asks.
        by: String,
    },
    /// Start nothing more for now.
    Pause {
        /// Who asks.
        by: String,
    },
    /// Go on.
    Resume {
        /// Who asks.
        by: String,
    },
    /// Somebody's answer to a task that waits for a person.
    Approve {
        /// Which.
        key: TaskKey,
        /// Yes or no.
        yes: bool,
        /// Who.
        by: String,
        /// What else they say.
        note: String,
    },
}

/// The answer to an [`Ask`](super::Ask).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Whether the task is done in the run before. Where it is not yet, [`Signal::PastDone`] follows.
    Past {
        /// Is it?
        done: bool,
    },
    /// Whether the condition holds.
    When {
        /// Does it?
        holds: bool,
    },
    /// The list.
    Items {
        /// What is in it.
        items: Vec<Value>,
    },
    /// There is no answer: a template is wrong.
    Failed {
        /// What is wrong with it.
        message: String,
    },
}
