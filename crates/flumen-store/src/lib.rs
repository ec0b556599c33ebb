//! The metadata database: users, flows and their runs.
//!
//! - [`sqlite`]: a file in the project, for one machine.
//! - [`memory`]: the same without a file, for tests and for servers that keep nothing. It keeps runs too.
//! - [`password`]: what is kept in place of a password.
//!
//! Each store is held to the suites of `flumen_core::testkit`.

mod bell;
pub mod memory;
pub mod password;
pub mod sqlite;
mod wakes;
