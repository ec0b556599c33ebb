//! What one step of a run changes.

use chrono::{DateTime, Utc};

use crate::flow::{Event, Notice, Queued, RunId, RunRecord, Signal, TaskKey, TaskRun, Timer, Touched, Wait};

/// Everything that one step, or several at once, change about a run: written in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The run.
    pub run: RunId,
    /// The version that was stepped.
    pub version: u64,
    /// When.
    pub now: DateTime<Utc>,
    /// The letters that were read: they leave the inbox. One that is gone already changes nothing.
    pub read: Vec<u64>,
    /// The run as it is now.
    pub record: RunRecord,
    /// The task runs that changed, as they are now.
    pub tasks: Vec<TaskRun>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What leaves the queue unclaimed; a `Conflict` where it is not there. Done before anything is put there.
    pub dequeue: Vec<TaskKey>,
    /// What is put into the queue, in order.
    pub enqueue: Vec<Queued>,
    /// Timers that are set, or stopped (`None`).
    pub timers: Vec<(Timer, Option<DateTime<Utc>>)>,
    /// Leases whose holders are asked to stop, and why. One that is gone changes nothing.
    pub stops: Vec<(TaskKey, u64, String)>,
    /// Waits that begin, with the number of the attempt, or end (`None`).
    pub waits: Vec<(TaskKey, Option<(u64, Wait)>)>,
    /// What somebody may want to be told.
    pub notices: Vec<Notice>,
    /// Data sets that were read and changed.
    pub touched: Vec<Touched>,
    /// Letters to the run of the same flow and deployment whose interval is the first after this one's, if there is one.
    pub to_next: Vec<Signal>,
}

impl Commit {
    /// One that changes nothing but what `record` says.
    pub fn new(record: RunRecord, version: u64, now: DateTime<Utc>) -> Self {
        Self {
            run: record.id,
            version,
            now,
            read: Vec::new(),
            record,
            tasks: Vec::new(),
            events: Vec::new(),
            dequeue: Vec::new(),
            enqueue: Vec::new(),
            timers: Vec::new(),
            stops: Vec::new(),
            waits: Vec::new(),
            notices: Vec::new(),
            touched: Vec::new(),
            to_next: Vec::new(),
        }
    }
}
