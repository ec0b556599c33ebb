//! What a store hands to schedulers and workers.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::flow::{Lease, Notice, Queued, RunId, RunRecord, Signal, TaskKey, TaskRun, Wait, WorkerId};

/// A letter in the inbox of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// Its id; later letters of the same sender have greater ones.
    pub id: u64,
    /// What it says.
    pub signal: Signal,
}

/// All of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The version that a commit must name.
    pub version: u64,
    /// The run.
    pub record: RunRecord,
    /// The task runs to which something has happened.
    pub tasks: Vec<TaskRun>,
    /// Its letters, in the order of their ids.
    pub inbox: Vec<Letter>,
}

/// A run that is to be stepped.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The run.
    pub run: RunId,
    /// Its version and its letters, as [`inbox`](super::MetaStore::inbox) gives them. None where a letter cannot be read, such as one
    /// of a newer version of Flumen: that run stops no other.
    pub inbox: Option<(u64, Vec<Letter>)>,
}

/// A worker's wish for work.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Who asks.
    pub worker: WorkerId,
    /// From which pools it takes work; from all, where none is named.
    pub pools: Vec<String>,
    /// Of which runs it takes work; of all, where none is named.
    pub only: Vec<RunId>,
    /// How many task runs it has room for.
    pub limit: usize,
    /// The present.
    pub now: DateTime<Utc>,
    /// When the leases end, unless they are renewed.
    pub expires: DateTime<Utc>,
}

/// What a worker gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claimed {
    /// The work, in the order in which it was queued.
    pub work: Vec<Work>,
    /// When more may begin, where only the rate of a pool holds it back.
    pub again: Option<DateTime<Utc>>,
}

/// A task run that a worker has claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// The right to it.
    pub lease: Lease,
    /// What it is.
    pub queued: Queued,
    /// Its run.
    pub run: RunRecord,
}

impl Work {
    /// What names the lease.
    pub fn held(&self) -> Held {
        Held { run: self.lease.run, key: self.lease.key.clone(), number: self.lease.number }
    }
}

/// Names a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// The run.
    pub run: RunId,
    /// The task run.
    pub key: TaskKey,
    /// The number.
    pub number: u64,
}

/// What a worker learns when it renews a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// It holds.
    Held,
    /// It holds, and the attempt is to be stopped.
    Stop {
        /// Why, in words.
        cause: String,
    },
    /// It has ended: whatever the attempt does now is refused.
    Gone,
}

/// What became of timers or leases whose time had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// How many there were.
    pub count: usize,
    /// When the next one's time comes.
    pub next: Option<DateTime<Utc>>,
}

/// A deferred task's wait.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingWait {
    /// Its id.
    pub id: u64,
    /// The run.
    pub run: RunId,
    /// The task run.
    pub key: TaskKey,
    /// The number of the attempt, with which its end is told.
    pub number: u64,
    /// For what.
    pub wait: Wait,
}

/// A notice that nobody has passed on yet.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingNotice {
    /// Its id.
    pub id: u64,
    /// What it says.
    pub notice: Notice,
}

/// Of what there is something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wake {
    /// Letters: a scheduler has work.
    Inbox,
    /// The queue, or room in a pool: workers have work.
    Queue,
    /// A lease whose holder is to stop: workers renew theirs.
    Stop,
    /// A timer that rings sooner than all others.
    Timer,
    /// Waits, or data sets that were updated.
    Wait,
    /// Notices.
    Notice,
    /// A run changed: whoever shows it looks again.
    Run,
}
