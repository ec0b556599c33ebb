//! Executes task runs.
//!
//! - `worker.rs`: the lease loop; `execute.rs`: from a claimed task run to the outcome of its attempt;
//!   `patient.rs`: the store as attempts see it.
//! - `kinds.rs`: the kinds of tasks, a file each; `attempt.rs`: what a kind is given.
//! - `library.rs`: flows in the versions that runs keep; `project_flows.rs`: those of the project as they are now;
//!   `circles.rs`: those that start themselves.
//! - `templates.rs`: what templates see; `outputs.rs`: what tasks give to later ones.
//! - `cache.rs`: outputs that are used again.
//! - `hooks.rs`: what is done when something happened.
//! - `answers.rs`: what a scheduler asks about flows.
//! - `logs.rs`: what attempts print, kept; `kept.rs`: where.
//! - `files.rs`: files that flows name.
//! - `process.rs`: programs that tasks start, and how they end; `watchdog.rs`: and when the worker is killed.
//! - `python.rs`: interpreters that are kept warm.
//! - `log.rs`: what tasks print: in lines, with secrets masked.
//!
//! Tasks that work with data (`ingest`, `sql` and others) run in processes of their own, of the same program: a limit of memory,
//! a crash or a cancelled attempt is theirs alone. So this crate knows neither sources nor the lake.

pub mod answers;
pub mod attempt;
mod cache;
mod circles;
mod execute;
pub mod failure;
mod files;
pub mod hooks;
pub mod host;
pub mod kept;
pub mod kinds;
pub mod library;
pub mod log;
pub mod logs;
pub mod outputs;
mod patient;
pub mod presence;
pub mod process;
pub mod project_flows;
pub mod python;
pub mod templates;
pub mod watchdog;
pub mod worker;

pub use execute::{execute, look, render, render_file};
