//! Operations on tables: one operation, one module.
//!
//! Those that change rows which are there already (merge, scd2, replace-where, take-out) are each an `Operation` of
//! `rewrite.rs`: it looks at the rows of a load, then says of each row of the table whether it stays, goes or changes.
//! Files of which no row is touched stay as they are.
//!
//! Those on a whole table, or a whole lake, are here for commands and for `serve`: optimize, restore, vacuum, check.

pub mod check;
pub mod describe;
pub mod expire;
pub mod history;
pub mod maintain;
pub(crate) mod merge;
pub mod optimize;
pub(crate) mod read;
pub(crate) mod replace_where;
pub mod restore;
pub(crate) mod rewrite;
pub(crate) mod scd2;
pub mod stats;
pub(crate) mod survey;
pub(crate) mod take_out;
pub(crate) mod undo;
pub mod vacuum;
pub mod volume;
