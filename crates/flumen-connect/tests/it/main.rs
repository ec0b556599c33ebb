//! Files in, rows out: every format and every source, as a load sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that panics is a test that fails")]

mod formats;
