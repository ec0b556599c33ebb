//! `flumen.yml`, `.env`, connections and secrets, and the object stores, web clients and database sessions made from them.
//!
//! Start at [`Project`]. This crate knows neither DataFusion nor Delta. Nothing here prints, and no `Debug` or message
//! shows a secret.

pub mod connections;
pub mod contracts;
pub mod durable;
pub mod edit;
pub mod environment;
pub mod project;
pub mod scaffold;
pub mod settings;
pub mod store;
pub mod template;
pub mod tls;
pub mod yaml;

pub use connections::{Check, Config, Connection};
pub use environment::{ENV_FILE, Environment};
pub use project::{Changes, PROJECT_FILE, Project};
pub use store::StoreAt;
