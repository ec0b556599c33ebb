//! What is kept in the lake's root beside its tables: logs in chunks, large outputs, outputs that are used again, and the large files of flows.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use flumen_core::boxed;
use flumen_core::flow::{FlowName, RunId, TaskKey};
use flumen_core::{Error, ErrorKind, Result};
use flumen_project::StoreAt;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

/// The folder in the lake's root.
const FOLDER: &str = "_flumen";

/// A folder in the lake's root.
#[derive(Clone)]
pub struct Kept {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// The same, where it is on a disk of this machine.
    local: Option<PathBuf>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({})", self.root)
    }
}

impl Kept {
    /// The folder of the lake at `place`.
    pub fn new(place: StoreAt) -> Self {
        let local = place.url.to_file_path().ok().map(|root| root.join(FOLDER));
        Self { root: place.path.join(FOLDER), store: place.store, local }
    }

    /// Writes a file.
    #[boxed]
    pub(crate) async fn put(&self, path: &str, content: Bytes) -> Result<()> {
        let at = self.at(path);
        self.store.put(&at, content.into()).await.map(drop).map_err(|error| failed(&at, error))
    }

    /// Reads a file; `None` if it is not there.
    #[boxed]
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let at = self.at(path);
        match self.store.get(&at).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|error| failed(&at, error)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&at, error)),
        }
    }

    /// Removes a file. One that is gone already is none.
    pub(crate) async fn remove(&self, path: &str) -> Result<()> {
        let at = self.at(path);
        match self.store.delete(&at).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&at, error)),
        }
    }

    /// The files below a folder, sorted.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let at = self.at(folder);
        let found: Vec<_> = self.store.list(Some(&at)).try_collect().await.map_err(|error| failed(&at, error))?;
        let below = |path: Path| {
            let parts: Vec<String> = path.prefix_match(&self.root)?.map(|part| part.as_ref().to_owned()).collect();
            Some(parts.join("/"))
        };
        let mut names: Vec<String> = found.into_iter().filter_map(|meta| below(meta.location)).collect();
        names.sort();
        Ok(names)
    }

    /// Removes the logs and outputs of a run.
    ///
    /// Errors: those of the store. What is gone already is none.
    #[boxed]
    pub async fn forget(&self, run: RunId) -> Result<()> {
        for folder in [log_folder(run), output_folder(run)] {
            let at = self.at(&folder);
            let paths = self.store.list(Some(&at)).map_ok(|meta| meta.location).boxed();
            let removed: Result<Vec<Path>, _> = self.store.delete_stream(paths).try_collect().await;
            match removed {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(&at, error)),
            }
            // On a disk there are folders too. One that somebody writes to just now stays.
            if let Some(local) = &self.local {
                let _ = std::fs::remove_dir_all(local.join(&folder));
            }
        }
        Ok(())
    }

    fn at(&self, path: &str) -> Path {
        path.split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), |path, part| path.join(part))
    }
}

fn failed(at: &Path, error: object_store::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{at} in the lake's root: {error}")).caused_by(error)
}

/// Where the logs of a run are.
pub(crate) fn log_folder(run: RunId) -> String {
    format!("logs/{run}")
}

/// Where the logs of one attempt are.
pub(crate) fn attempt_folder(run: RunId, key: &TaskKey, attempt: u32, number: u64) -> String {
    // Stores encode brackets.
    let name = key.index.map_or_else(|| key.task.to_string(), |index| format!("{}.{index}", key.task));
    format!("logs/{run}/{name}/{attempt:04}-{number}")
}

/// The task run whose logs are in a folder called `name`.
pub(crate) fn key_of_folder(name: &str) -> Option<TaskKey> {
    let (task, index) = match name.split_once('.') {
        Some((task, index)) => (task, Some(index.parse().ok()?)),
        None => (name, None),
    };
    Some(TaskKey { task: task.into(), index })
}

/// Where outputs of a task are that may be used again; or of one item of the list that it runs for, by the hash of that.
pub(crate) fn cache_folder(flow: &FlowName, task: &str, item: Option<&str>) -> String {
    match item {
        None => format!("cache/{flow}/{task}"),
        // No name of a task has a dot.
        Some(item) => format!("cache/{flow}/{task}.items/{}", item.replace(':', "-")),
    }
}

/// Where the large outputs of a run are.
pub(crate) fn output_folder(run: RunId) -> String {
    format!("outputs/{run}")
}
