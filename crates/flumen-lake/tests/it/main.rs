//! Lake tables: loads in, rows out.

mod append;
mod modes;
mod quarantine;
mod support;
