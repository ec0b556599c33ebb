//! Flows: what they are, when they run, and what happens next. Nothing here reads a clock, a file or a store.
//!
//! - [`definition`]: what a file says, and everything that is wrong with it.
//! - [`timetable`] and [`interval`]: when a flow runs, and for which data.
//! - [`template`]: what stands in the fields of its tasks.
//! - [`compiled`]: all of that, as it is needed to run.
//! - [`machine`]: what happens next in a run.

pub mod compiled;
pub mod definition;
pub mod interval;
pub mod machine;
pub mod template;
pub mod timetable;
