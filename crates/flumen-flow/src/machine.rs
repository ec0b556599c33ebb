//! The state machine of a run: what happens next.
//!
//! [`step`] takes a [`Run`], what it is told (a [`Signal`](flumen_core::flow::Signal)) and the present, and says what is to be
//! done. It is the only place where a run or a task run changes its state. It reads no clock, rolls no dice and waits for
//! nothing: what it cannot know (a template's value, another run) it asks for, and is told later.
//!
//! - [`graph`]: what a run is made of, compiled from a flow.
//! - [`run`]: where its tasks are, with the counts that make a step cost what it changes and not what the run holds.
//! - [`rule`]: the table of trigger rules; [`retry`]: whether and when a failure is tried again.
//! - [`batch`]: several steps as one transaction of the store.
//! - [`why`]: what holds a task run back, in a paragraph.
//!
//! What always holds: a task run that is not queued is not given to a worker, and one that a worker has is never queued, cleared
//! or decided before the worker has let go of it or its lease has ended; a terminal state is left only because a person asks for
//! it; a signal that comes twice, or too late, changes nothing.

pub mod batch;
pub mod graph;
pub mod retry;
pub mod rule;
pub mod run;
mod step;
#[cfg(test)]
mod tests;
pub mod why;

pub use batch::Batch;
pub use graph::{Graph, Hooks, Map, Node};
pub use retry::{Match, Retry};
pub use run::Run;
pub use step::{Action, step};
pub use why::why;
