//! The nouns of Flumen as data, and the seams between its parts.
//!
//! This crate knows no runtime, no SQL, no network and no files. Read [`read`] and [`write`] for the two seams that rows
//! pass, [`database`] for databases that are read where they are, [`contract`] for the one place where drift is decided,
//! [`load`] for what makes a load idempotent.

pub mod clock;
pub mod contract;
pub mod database;
pub mod dataset;
pub mod error;
pub mod flow;
pub mod limits;
pub mod load;
pub mod observe;
pub mod partition;
pub mod read;
pub mod secret;
pub mod sql;
pub mod task_kind;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod text;
pub mod user;
pub mod words;
pub mod write;

/// Makes an `async fn` give its future in a box.
///
/// Otherwise whoever awaits it in another crate compiles its body again, and those of all that it awaits, and proves again that they
/// may go to another thread. For functions that other crates call and that do more than a little.
pub use async_recursion::async_recursion as boxed;
pub use error::{Error, ErrorKind, Result};
