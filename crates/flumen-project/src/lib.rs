//! `flumen.yml`, `.env`, connections and secrets, and the object stores, web clients and database sessions made from them.
//!
//! Start at [`Project`]. This crate knows neither DataFusion nor Delta.

mod project;

pub use project::{PROJECT_FILE, Project};
