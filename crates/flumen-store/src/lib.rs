//! The metadata database: users, flows and their runs.
//!
//! - [`sqlite`]: a file in the project, for one machine.
//! - [`postgres`]: a schema in a Postgres database, for many machines.
//! - [`memory`]: the same without a file, for tests and for servers that keep nothing. It keeps runs too.
//! - [`password`]: what is kept in place of a password.
//!
//! Each store is held to the suites of `flumen_core::testkit`.

mod bell;
mod columns;
pub mod memory;
pub mod password;
pub mod postgres;
pub mod sqlite;
mod wakes;

use chrono::{DateTime, Utc};
use flumen_core::flow::store::NewRun;
use flumen_core::flow::{RunRecord, RunState};

/// How the name of a step begins that only adds what older versions do without.
const EXPANDS: &str = "expand ";

/// A run that was wished for at `now`, before anything has happened to it.
fn first_record(new: &NewRun, now: DateTime<Utc>) -> RunRecord {
    RunRecord {
        id: new.id,
        flow: new.flow.clone(),
        version: new.version.clone(),
        deployment: new.deployment.clone(),
        interval: new.interval,
        params: new.params.clone(),
        origin: new.origin.clone(),
        state: RunState::Queued,
        cause: "waits for its turn".to_owned(),
        cancelling: None,
        timed_out: false,
        stop_at: None,
        created: now,
        started: None,
        ended: None,
    }
}
