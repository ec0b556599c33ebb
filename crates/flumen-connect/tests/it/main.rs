//! The crate's integration tests: one binary, because each links a lot.

mod formats;
mod http;
mod postgres_server;
mod postgres_sink;
