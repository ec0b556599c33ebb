//! Flows: what commands about them have in common.
//!
//! - `runtime.rs`: scheduler and worker in this process; `server.rs`: whether another process has them.
//! - `start.rs`: how a run begins; `follow.rs`: how it is shown, `live.rs` on a terminal, `tree.rs` as a tree; `names.rs`: how runs and tasks are named.
//! - `workers.rs`: who is there in the store, and who has died; `situation.rs`: what holds runs back; `history.rs`: runs that are forgotten.

pub mod follow;
pub mod history;
mod live;
pub mod names;
pub mod roster;
pub mod runtime;
pub mod server;
pub mod show;
pub mod situation;
pub mod start;
pub mod tree;
pub mod watching;
pub mod workers;
