//! The kinds of tasks, as a worker runs them: with real interpreters, web servers, mail servers and container engines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that panics is a test that fails")]

mod approve;
mod cache;
mod docker;
mod docs;
mod flow;
mod hooks;
mod http;
mod mistakes;
mod notify;
mod python;
mod rates;
mod sensor;
mod support;
