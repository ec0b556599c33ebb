//! What tests need and users do not: servers that start when a test asks for them, on a port that is free, and end with the
//! process of the test, however it ends.
//!
//! - [`bucket`]: buckets in the test's own process that speak as S3 or as Google Cloud Storage do, and fail when told to.
//! - [`interop`]: programs that read and write Delta tables.
//! - [`azurite`], [`moto`]: Azure's blob service and a second S3, made by others; `scripts/setup.sh test` installs them.
//! - [`postgres`]: Debian's Postgres.
//! - [`slt`]: the files of sqllogictest.
//!
//! Every crate may use it for its tests, and none for anything else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on should fail")]

pub mod azurite;
pub mod bucket;
mod http;
pub mod interop;
pub mod moto;
pub mod postgres;
mod process;
pub mod slt;

#[cfg(test)]
mod tests;
