//! What a store keeps besides the state of runs: wishes for runs, backfills, pools, workers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::flow::{FlowName, FlowVersion, Interval, Origin, RunId, RunState, WorkerId};

/// A wish for a run.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// The id that it gets, if there is no such run.
    pub id: RunId,
    /// The flow.
    pub flow: FlowName,
    /// Its version.
    pub version: FlowVersion,
    /// The named copy of the flow to which it belongs.
    pub deployment: Option<String>,
    /// The data that it is about.
    pub interval: Interval,
    /// The values of the flow's parameters.
    pub params: Map<String, Value>,
    /// Why there is this run.
    pub origin: Origin,
    /// A text of which there is one run of the flow and deployment only, such as its interval.
    pub unique: Option<String>,
    /// Whether it begins at once; else [`start_runs`](super::MetaStore::start_runs) begins it.
    pub start: bool,
}

/// What became of a wish for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// The run that there is.
    pub id: RunId,
    /// Whether it is new.
    pub new: bool,
}

/// A step of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// Whose cursor it is.
    pub schedule: String,
    /// Where the caller believes it to be.
    pub from: Option<String>,
    /// Where it is afterwards.
    pub to: String,
    /// The runs that are made on the way.
    pub runs: Vec<NewRun>,
}

/// Which runs somebody wants to see.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunFilter {
    /// Of this flow.
    pub flow: Option<FlowName>,
    /// Of this deployment; of none, where it is empty.
    pub deployment: Option<String>,
    /// In one of these states; in any, where there are none.
    pub states: Vec<RunState>,
    /// Of intervals that start here or later.
    pub from: Option<DateTime<Utc>>,
    /// Of intervals that start here or before.
    pub to: Option<DateTime<Utc>>,
    /// Whose id begins like this.
    pub prefix: Option<String>,
    /// Of this backfill.
    pub backfill: Option<String>,
    /// Whether the oldest come first.
    pub oldest_first: bool,
    /// Listed after this one: the next page.
    pub after: Option<RunId>,
    /// How many at most; all, where it is not said.
    pub limit: Option<usize>,
}

/// Runs for many intervals, made by and by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backfill {
    /// Its id.
    pub id: String,
    /// The flow.
    pub flow: FlowName,
    /// The version that its runs get.
    pub version: FlowVersion,
    /// The deployment.
    pub deployment: Option<String>,
    /// The first start of an interval.
    pub from: DateTime<Utc>,
    /// The last start of an interval.
    pub to: DateTime<Utc>,
    /// What of the intervals that have a run already is run again: `none`, `failed`, `all`.
    pub reprocess: String,
    /// Whether the last comes first.
    pub reverse: bool,
    /// How many runs of it are active at once.
    pub max_active: u32,
    /// The parameters of its runs.
    pub params: Map<String, Value>,
    /// Where it is.
    pub state: BackfillState,
    /// How many runs it makes in all.
    pub total: u64,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub created: DateTime<Utc>,
}

/// Where a backfill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillState {
    /// Runs are being made.
    Running,
    /// No more are made for now.
    Paused,
    /// All were made, and ended.
    Done,
    /// No more are made.
    Cancelled,
}

/// Who may work at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How many slots it has; as many as anybody wants, where it is not said.
    pub slots: Option<u32>,
    /// How often task runs may begin.
    pub rate: Option<Rate>,
}

/// So many in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// A pool, and what it is used for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool.
    pub pool: Pool,
    /// The slots that are taken.
    pub used: u32,
    /// The task runs that wait.
    pub queued: u64,
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its id.
    pub id: WorkerId,
    /// The machine that it runs on.
    pub host: String,
    /// The number of its process there.
    pub process: u32,
    /// The version of Flumen.
    pub version: String,
    /// The pools from which it takes work.
    pub pools: Vec<String>,
    /// How many task runs it has room for.
    pub slots: u32,
    /// Since when it is there.
    pub started: DateTime<Utc>,
    /// When it was last seen.
    pub seen: DateTime<Utc>,
    /// Whether it takes no more work, and ends when it is done.
    pub draining: bool,
    /// Whether its process makes the runs of schedules and steps runs.
    #[serde(default)]
    pub schedules: bool,
    /// Whether it works for a command, on the runs of that alone.
    #[serde(default)]
    pub commanded: bool,
    /// What its process can be found by: whoever has the same text sees the same numbers of processes.
    #[serde(default)]
    pub boot: String,
    /// When its process began, as the system counts: another one may have the same number later.
    #[serde(default)]
    pub born: u64,
}
