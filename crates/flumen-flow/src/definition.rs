//! What a flow is: read from YAML, and checked whole.
//!
//! [`Checker::check`] makes a [`Flow`] of a file's text, or tells everything that is wrong with it, each with file, line,
//! column and the nearest right name. The fields of the file are types (`definition/fields.rs`), from which the schema for
//! editors is made too; what a kind of task takes is known from [`flumen_core::task_kind`]. Nothing here reads a file: what
//! the project has is passed in as [`Surroundings`], and what templates, schedules and files mean as [`Texts`].

mod checker;
mod deployment;
mod fields;
mod flow;
mod graph;
mod meaning;
mod mistake;
mod names;
pub mod params;
mod reading;
mod schedule;
mod schemas;
mod surroundings;
mod tasks;
mod yaml;

pub use checker::Checker;
pub use deployment::Deployment;
pub use fields::OnOverlap;
pub use flow::{
    Cache, CacheInputs, CacheParams, DEFAULT_POOL, FailureName, Flow, ForEach, ForEachSource, Group, Hook, Hooks,
    RATE_POOL, Rate, Retry, Task, version,
};
pub use meaning::{FileLookup, Meanings};
pub use mistake::{Mistake, Mistakes, Place};
pub use schedule::{Catchup, Covers, DatasetRule, RuleSpec, ScheduleSpec};
pub use surroundings::{KnownFlow, PlainTexts, ProjectFile, References, Surroundings, SyntaxProblem, Texts};
pub use tasks::FAILURES;
