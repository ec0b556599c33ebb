//! What is kept of a run: the run, its task runs, and the log of what happened.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::id::{FlowName, FlowVersion, RunId, TaskId, TaskKey, WorkerId};
use super::outcome::{Failure, Wait};
use super::state::{RunState, TaskState};

/// The stretch of time whose data a run processes: from `start` to just before `end`. Where both are the same, a run is about a
/// moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// Its first moment: the logical date of a run.
    pub start: DateTime<Utc>,
    /// The first moment after it: when a scheduled run of it is due.
    pub end: DateTime<Utc>,
}

impl Interval {
    /// The interval that is only a moment.
    pub fn at(moment: DateTime<Utc>) -> Self {
        Self { start: moment, end: moment }
    }

    /// Whether it is only a moment.
    pub fn is_moment(&self) -> bool {
        self.start == self.end
    }

    /// How long it is.
    pub fn length(&self) -> TimeDelta {
        self.end - self.start
    }

    /// The smallest interval that holds both: what a run covers that several updates of datasets caused.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// Why there is a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "origin", rename_all = "snake_case")]
pub enum Origin {
    /// Its time came.
    Schedule,
    /// Somebody asked for it.
    Person {
        /// Who.
        name: String,
    },
    /// It belongs to a backfill.
    Backfill {
        /// Which.
        id: String,
    },
    /// Data sets were updated.
    Datasets,
    /// A task of another run asked for it.
    Task {
        /// That run.
        run: RunId,
        /// The task.
        task: TaskKey,
    },
}

/// A run, without its tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// The flow.
    pub flow: FlowName,
    /// The version of the flow, which it keeps.
    pub version: FlowVersion,
    /// The named copy of the flow to which it belongs, if any.
    pub deployment: Option<String>,
    /// The data that it is about.
    pub interval: Interval,
    /// The values of the flow's parameters.
    pub params: Map<String, Value>,
    /// Why there is this run.
    pub origin: Origin,
    /// Where it is.
    pub state: RunState,
    /// Why it is there, in words.
    pub cause: String,
    /// Why it is being ended: what runs is stopped, nothing else starts but the teardown of what was set up.
    pub cancelling: Option<String>,
    /// Whether that is because it took too long: then it ends failed.
    #[serde(default)]
    pub timed_out: bool,
    /// When it has taken too long, unless it ends before.
    #[serde(default)]
    pub stop_at: Option<DateTime<Utc>>,
    /// When it was asked for.
    pub created: DateTime<Utc>,
    /// When it began.
    pub started: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
}

/// A task run: a task of a run, or one item of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRun {
    /// Which it is.
    pub key: TaskKey,
    /// Where it is.
    pub state: TaskState,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why, in words.
    pub cause: String,
    /// The attempts that were begun and count, from 1.
    pub attempt: u32,
    /// Of these, those before somebody asked for it to be done again: they do not count as retries.
    pub spared: u32,
    /// Workers lost under it since.
    pub lost: u32,
    /// Whether the attempt goes on where it is started next, as after a reschedule or a lost worker.
    pub resume: bool,
    /// The number of the last lease. It only grows.
    pub number: u64,
    /// Whose lease that was.
    pub worker: Option<WorkerId>,
    /// When this attempt first came to a worker.
    pub began: Option<DateTime<Utc>>,
    /// When its timer rings.
    pub due: Option<DateTime<Utc>>,
    /// The question that must be answered before it can go on.
    pub asked: Option<Ask>,
    /// How it must end, since somebody wants it stopped.
    pub stop: Option<Stop>,
    /// What it waits for without a worker.
    pub wait: Option<Wait>,
    /// The list whose items it runs for.
    pub items: Option<Vec<Value>>,
    /// What it gives to later tasks.
    pub output: Option<Value>,
    /// Why its last attempt failed.
    pub failure: Option<Failure>,
}

impl TaskRun {
    /// One that nothing has happened to yet.
    pub fn new(key: TaskKey, since: DateTime<Utc>) -> Self {
        Self {
            key,
            state: TaskState::None,
            since,
            cause: String::new(),
            attempt: 0,
            spared: 0,
            lost: 0,
            resume: false,
            number: 0,
            worker: None,
            began: None,
            due: None,
            asked: None,
            stop: None,
            wait: None,
            items: None,
            output: None,
            failure: None,
        }
    }

    /// The attempts that count against the task's retries.
    pub fn tries(&self) -> u32 {
        self.attempt - self.spared
    }
}

/// A question about a task that is answered outside the machine, from templates or from other runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Is this task done in the run before this one?
    Past,
    /// Does its condition hold?
    When,
    /// What is the list that it runs for?
    Items,
}

/// What becomes of a task run that a worker has been asked to stop, once the worker has let go of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// What becomes of it.
    pub to: StopTo,
    /// Why, in words.
    pub cause: String,
    /// Who asked.
    pub by: String,
}

/// What becomes of a task run that is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopTo {
    /// It was too slow: a failure, which may be retried.
    Timeout,
    /// It is cancelled.
    Cancelled,
    /// It is what somebody says it is.
    Marked(TaskState),
    /// It is done again.
    Cleared,
}

/// Something that happened, for good: the log only grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The run.
    pub run: RunId,
    /// When.
    pub at: DateTime<Utc>,
    /// What changed.
    pub change: Change,
    /// Why, in words.
    pub cause: String,
    /// Who asked for it, or saw it: `scheduler`, `worker w3`, `ann`.
    pub by: String,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Change {
    /// Of the run.
    Run {
        /// Before.
        from: RunState,
        /// After.
        to: RunState,
    },
    /// Of a task run.
    Task {
        /// Which.
        key: TaskKey,
        /// Before.
        from: TaskState,
        /// After.
        to: TaskState,
        /// Its attempt.
        attempt: u32,
        /// The number of its lease.
        number: u64,
    },
}

/// The right of one worker to one attempt, for a while. Everything that is done under it carries its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// The task run.
    pub key: TaskKey,
    /// Greater than that of every lease before it, in any run: what a destination tells a late holder by.
    pub number: u64,
    /// Who holds it.
    pub worker: WorkerId,
    /// When it ends, unless it is renewed.
    pub expires: DateTime<Utc>,
}

/// A task run that is ready for a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// The task run.
    pub key: TaskKey,
    /// Which attempt this will be.
    pub attempt: u32,
    /// Whether the attempt is to make the list for whose items the task runs, and not yet to run for one.
    pub lists: bool,
    /// The item that it is for.
    pub item: Option<Value>,
    /// Where it waits.
    pub pool: String,
    /// How many slots of the pool it takes.
    pub slots: u32,
    /// The higher, the sooner.
    pub priority: i32,
}

/// What a timer is for. A task run, and a run for each purpose, has one at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// What the state of a task run waits for: a retry, a look, a timeout.
    Task(TaskKey),
    /// The run should be done by now.
    Late,
    /// The run takes longer than it should.
    Long,
    /// The run has taken longer than it may.
    Timeout,
    /// A task should be done by now.
    TaskLate(TaskId),
    /// A task takes longer than it should.
    TaskLong(TaskId),
}

/// Something that somebody may want to be told: what hooks are for. Delivered once or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The run.
    pub run: RunId,
    /// What happened.
    pub occasion: Occasion,
    /// When.
    pub at: DateTime<Utc>,
    /// Why, in words.
    pub cause: String,
}

/// The occasion of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "occasion", rename_all = "snake_case")]
pub enum Occasion {
    /// A task run failed for good.
    TaskFailed {
        /// Which.
        key: TaskKey,
    },
    /// A task run succeeded.
    TaskSucceeded {
        /// Which.
        key: TaskKey,
    },
    /// An attempt failed, and another one follows.
    TaskRetries {
        /// Of which task run.
        key: TaskKey,
        /// The attempt that failed.
        attempt: u32,
    },
    /// A task is later than it should be.
    TaskLate {
        /// Which.
        key: TaskKey,
    },
    /// A task takes longer than it should.
    TaskLong {
        /// Which.
        key: TaskKey,
    },
    /// The run failed.
    RunFailed,
    /// The run succeeded.
    RunSucceeded,
    /// The run is later than it should be.
    RunLate,
    /// The run takes longer than it should.
    RunLong,
}

impl Occasion {
    /// The task run that it is about; none where it is about the run.
    pub fn key(&self) -> Option<&TaskKey> {
        match self {
            Occasion::TaskFailed { key }
            | Occasion::TaskSucceeded { key }
            | Occasion::TaskRetries { key, .. }
            | Occasion::TaskLate { key }
            | Occasion::TaskLong { key } => Some(key),
            Occasion::RunFailed | Occasion::RunSucceeded | Occasion::RunLate | Occasion::RunLong => None,
        }
    }
}

/// Data sets that a task run read and changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// The task.
    pub task: TaskId,
    /// When.
    pub at: DateTime<Utc>,
    /// What it read.
    pub reads: Vec<String>,
    /// What it changed.
    pub writes: Vec<String>,
}
