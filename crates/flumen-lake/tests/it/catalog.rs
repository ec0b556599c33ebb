//! The catalog: commits, names, environments.

mod environments;
mod log;
mod names;
