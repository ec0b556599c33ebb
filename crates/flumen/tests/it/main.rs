//! The binary from outside: exit codes, standard output, standard error, files.
//!
//! `sandbox` has what tests need; a file in `tests/cli/` is a transcript, a test that costs no Rust.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on should fail")]

mod cli;
mod clouds;
mod databases;
mod doors;
mod doors_catalog;
mod doors_files;
mod doors_slt;
mod faults;
mod flows;
mod ingest;
mod interop;
mod lake;
mod postgres;
mod postgres_faults;
mod s3;
mod sample;
mod sandbox;
mod server;
mod sql;
mod sql_docs;
mod stores;
mod tlc;
mod web;
