<<<<<<< HEAD
//! Files in, rows out: every format and every source, as a load sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that panics is a test that fails")]

mod formats;
=======
//! Integration tests: one binary, since each links a lot.

mod postgres_server;
mod postgres_sink;
>>>>>>> 4e3068d (Postgres: binary COPY encoder, catalog, and a sink that stages, swaps and keeps a ledger)
