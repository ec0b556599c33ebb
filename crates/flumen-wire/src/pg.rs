//! The door that speaks Postgres' protocol.
//!
//! - `door.rs`: who comes, TLS, login, where a connection goes on.
//! - `wire.rs`, `messages.rs`: bytes and messages.
//! - `connection.rs`: one session, message by message; `simple.rs` and `extended.rs` are its two ways to ask.
//! - `run.rs`: what a statement comes to; `cursors.rs`, `copy_in.rs`, `copy_out.rs` for those that need more.
//! - `rows.rs`, `encode.rs`, `types.rs`: answers as Postgres' values; `parameters.rs`: values as literals.

mod connection;
mod copy_in;
mod copy_out;
mod cursors;
mod door;
pub(crate) mod encode;
mod extended;
mod messages;
pub(crate) mod names;
mod parameters;
mod rows;
mod run;
mod simple;
pub(crate) mod types;
mod wire;

pub(crate) use copy_out::quoted_name;
pub(crate) use door::serve;
pub(crate) use parameters::{array_text, count, literals, numbered, substitute};
pub(crate) use rows::{Rows, rows_of_values};
