//! Flows: what they are, when they run, and what happens next. Nothing here reads a clock, a file or a store.

pub mod definition;
pub mod interval;
pub mod machine;
pub mod template;
pub mod timetable;
