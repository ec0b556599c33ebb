//! Lake tables: loads in, rows out, and SQL over them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that panics is a test that fails")]

mod append;
mod catalog;
mod modes;
mod ops;
mod quarantine;
mod robust;
mod slt;
mod sql;
mod support;
