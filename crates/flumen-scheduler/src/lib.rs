//! What makes runs, steps them, and watches what they wait for.
//!
//! It has no rules of its own: what happens next in a run is decided by [`flumen_flow::machine`], what is due by
//! [`flumen_flow::timetable`], and both are kept by a [`MetaStore`](flumen_core::flow::store::MetaStore). Any number of
//! schedulers may work on one store: whoever is first moves a cursor or a run on, and the others see that.
//!
//! - `services.rs`: everything at once, as a server runs it.
//! - `service.rs`: the loop that steps runs: what wakes it, and when it looks on its own.
//! - `steps.rs`: one run: its letters, its questions, one transaction.
//! - `roster.rs`: what must be known of the flows of a project.
//! - `alarm.rs`: the loop of every other service.
//! - `schedules.rs`: intervals that are due become runs.
//! - `backfill.rs`: what commands do with backfills; `backfills.rs`: their runs are made.
//! - `datasets.rs`: updates of data sets become runs; `log.rs`: where they are read.
//! - `waits.rs`: what deferred tasks wait for.
//! - `notices.rs`: what somebody may want to be told.
//! - `turns.rs`: runs begin when their flow has room.

mod alarm;
pub mod backfill;
mod backfills;
mod datasets;
mod log;
mod notices;
mod roster;
mod schedules;
mod service;
mod services;
mod steps;
mod turns;
mod waits;

pub use notices::Notifier;
pub use roster::{Entry, Roster};
pub use service::{News, Scheduler, Watcher};
pub use services::{Parts, Services};
pub use steps::Flows;
pub use waits::Looker;
