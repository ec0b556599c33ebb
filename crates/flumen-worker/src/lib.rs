//! Executes task runs.
//!
//! - `process.rs`: programs that tasks start, and how they end; `watchdog.rs`: and when the worker is killed.
//! - `python.rs`: interpreters that are kept warm.
//! - `log.rs`: what tasks print: in lines, with secrets masked.

pub mod log;
pub mod process;
pub mod python;
pub mod watchdog;
