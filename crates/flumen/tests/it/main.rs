//! The binary from outside: exit codes, standard output, standard error, files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

mod sample;
