//! What all attempts of a worker share.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::clock::{Clock, Ids};
use flumen_core::flow::store::{MetaStore, Work};
use flumen_project::Project;
use serde_json::{Map, Value};

use crate::kept::Kept;
use crate::library::{Library, Version};
use crate::log::Stream;
use crate::python::Interpreters;
use crate::watchdog::Watchdog;

/// What all attempts of a worker share. Clones share it too.
#[derive(Clone)]
pub struct Host {
    /// The project.
    pub project: Arc<Project>,
    /// The environment of the lake whose tables the names of the lake mean.
    pub environment: String,
    /// Where runs are kept.
    pub store: Arc<dyn MetaStore>,
    /// The flows, in the versions that runs keep.
    pub library: Arc<Library>,
    /// The flows as they are now, for tasks that start others.
    pub flows: Arc<dyn FlowsNow>,
    /// Where logs and large outputs are kept.
    pub kept: Kept,
    /// Whether tasks with a cache use earlier outputs. What comes of them is kept in any case.
    pub use_cache: bool,
    /// Whether the runs that tasks begin are kept for the worker that has the task: nobody else is to do them.
    pub keeps_runs: bool,
    /// This program: it runs tasks in processes of their own.
    pub binary: PathBuf,
    /// Interpreters that are kept warm.
    pub interpreters: Arc<Interpreters>,
    /// Ends what tasks started when the worker is killed.
    pub watchdog: Option<Arc<Watchdog>>,
    /// Who watches.
    pub watcher: Arc<dyn Watcher>,
    /// Where the present comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
}

impl Host {
    /// Reads the variables that the store has: templates have them from then on.
    ///
    /// Errors: those of the store.
    pub async fn read_variables(&self) -> Result<()> {
        self.project.keep_variables(self.store.variables().await?);
        Ok(())
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("project", &self.project.dir()).finish_non_exhaustive()
    }
}

/// Knows the flows of the project as they are now.
#[async_trait]
pub trait FlowsNow: Send + Sync {
    /// The version of a flow that a new run gets, kept in the store, and what the named copy of it says, if one is asked for.
    ///
    /// Errors: `NotFound`, with the nearest name; `Invalid`, with the flow's mistakes; those of the store.
    async fn current(&self, flow: &str, deployment: Option<&str>) -> Result<Current>;
}

/// A flow as it is now.
#[derive(Debug, Clone)]
pub struct Current {
    /// Its newest version.
    pub version: Arc<Version>,
    /// The parameters that its named copy gives, which count before the flow's defaults.
    pub params: Map<String, Value>,
}

/// Is told what happens in a worker, as it happens. Called from many tasks: it must be quick.
pub trait Watcher: Send + Sync {
    /// A line was printed.
    fn line(&self, work: &Work, stream: Stream, text: &str);
    /// The store cannot be used now; it is tried again.
    fn store_fails(&self, error: &flumen_core::Error);
    /// A run was begun by a task of another one.
    fn child(&self, run: flumen_core::flow::RunId);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {
    fn line(&self, _: &Work, _: Stream, _: &str) {}
    fn store_fails(&self, _: &flumen_core::Error) {}
    fn child(&self, _: flumen_core::flow::RunId) {}
}
