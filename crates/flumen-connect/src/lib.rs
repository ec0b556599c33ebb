//! Sources, sinks, formats, and the pipeline that moves rows between them.
//!
//! This crate knows neither Delta nor SQL: the lake's sink arrives through [`flumen_core::write::Sink`].

pub mod address;
mod archive;
pub mod blob;
pub mod codec;
mod download;
pub mod encoding;
mod folders;
pub mod formats;
pub mod ingest;
pub mod postgres;
pub mod sample;
pub mod sinks;
pub mod sources;
pub mod spool;

pub use download::Retry;
