//! The loop that feeds the state machine of runs, and writes what it decides.
//!
//! It has no rules of its own: what happens next is decided by [`flumen_flow::machine`], and kept by a
//! [`MetaStore`](flumen_core::flow::store::MetaStore). Any number of schedulers may work on one store.
//!
//! - `service.rs`: the loop: what wakes it, and when it looks on its own.
//! - `steps.rs`: one run: its letters, its questions, one transaction.

mod service;
mod steps;

pub use service::{Scheduler, Watcher};
pub use steps::Flows;
