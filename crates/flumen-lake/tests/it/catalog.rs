//! The catalog: commits, names, environments.

mod environments;
mod log;
pub mod names;
