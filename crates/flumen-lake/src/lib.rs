//! Delta tables: the lake's folders, its sink, its ledger, the operations on tables; and the SQL engine over them.
//!
//! - [`lake`]: a storage root with namespaces and tables; snapshots of a table and the files in them.
//! - [`catalog`]: what the tables are called, what else there is to know of them, and environments.
//! - [`types`]: how Arrow's types are kept in Delta.
//! - [`ledger`]: which loads a table has had, from its log.
//! - [`sink`]: how a load writes, and commits, as one.
//! - [`ops`]: one operation on a table, one module: undo, merge, scd2, replace-where; optimize, vacuum, check, restore.
//! - [`engine`]: SQL over the lake's tables and over files in place.
//!
//! Every change is one Delta commit, made by the loop in `commit.rs`: look at the latest snapshot, decide, try to write the
//! next version, and decide again if somebody else was faster. On a local disk, commits survive a loss of
//! power (`flumen_project::durable`).

pub mod catalog;
mod commit;
mod constraints;
pub mod engine;
pub mod lake;
pub mod ledger;
pub mod ops;
pub mod sink;
pub mod types;
