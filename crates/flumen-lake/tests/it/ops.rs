//! Operations on whole tables, and on the whole lake.

mod check;
mod describe;
mod maintain;
mod optimize;
mod restore;
mod vacuum;
mod volume;
