//! Services over real stores: flows, schedules and workers go in, runs come out. Time is Tokio's, which tests let pass.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

mod backfills;
mod datasets;
mod faults;
mod gate;
mod notices;
mod schedules;
mod stories;
mod turns;
mod waits;
mod world;
