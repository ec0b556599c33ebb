//! What is known of flows while they run: states, attempts, outcomes, what happened and why.
//!
//! These are nouns without rules. When a task may start is decided by the state machine of a run, in `flumen-flow`; what is
//! kept of it, and under which promises, by [`store`].

pub mod id;
pub mod outcome;
pub mod record;
pub mod signal;
pub mod state;
pub mod store;

pub use id::{FlowName, FlowVersion, RunId, TaskId, TaskKey, WorkerId};
pub use outcome::{Failure, Outcome, Wait, WaitFor};
pub use record::{
    Ask, Change, Event, Interval, Lease, Notice, Occasion, Origin, Queued, RunRecord, Stop, StopTo, TaskRun, Timer,
    Touched,
};
pub use signal::{Answer, Signal};
pub use state::{RunState, TaskState, TriggerRule};
