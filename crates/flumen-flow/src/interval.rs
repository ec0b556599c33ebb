//! The stretch of time whose data a run processes.

pub use flumen_core::flow::Interval;
