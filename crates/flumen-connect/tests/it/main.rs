//! The crate's integration tests: one binary, because each links a lot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that panics is a test that fails")]

mod formats;
mod http;
mod postgres_modes;
mod postgres_sink;
mod postgres_source;
