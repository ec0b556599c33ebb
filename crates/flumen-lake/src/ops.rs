//! Operations on tables: one operation, one module.
//!
//! Those that change rows which are there already (merge, scd2, replace-where, take-out) are each an `Operation` of `rewrite.rs`: it looks at the rows of a load, then says of each row of the table whether
//! it stays, goes or changes. Files of which no row is touched stay as they are.

pub(crate) mod merge;
pub(crate) mod read;
pub(crate) mod replace_where;
pub(crate) mod rewrite;
pub(crate) mod scd2;
pub(crate) mod take_out;
pub(crate) mod undo;
