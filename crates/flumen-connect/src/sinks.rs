//! Sinks: where rows go. Each has its own file below, and one line here.

pub mod files;
pub mod postgres;
