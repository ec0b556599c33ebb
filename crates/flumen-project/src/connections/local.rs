//! `kind: local`: a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flumen_core::{Error, Result};
use url::Url;

use super::{Check, Config, Field, Kind, Takes, Values};
use crate::durable::DurableFileSystem;
use crate::store::StoreAt;

/// See the module.
pub const KIND: Kind = Kind {
    name: "local",
    about: "a folder",
    fields: &[Field::required("root", Takes::Text, "the folder; relative to the project")],
    configure,
};

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalConfig {
    /// The folder, absolute. It need not exist.
    pub root: PathBuf,
}

fn configure(values: &Values) -> Result<Config> {
    let root = values.required("root")?;
    Ok(Config::Local(LocalConfig { root: values.project_dir().join(root) }))
}

impl LocalConfig {
    /// The folder of a `file:` URL.
    pub(crate) fn of_url(url: &Url) -> Result<Self> {
        let root = url.to_file_path();
        let root = root.map_err(|()| Error::invalid(format!("{url} is not a local path")))?;
        Ok(Self { root })
    }

    /// The file system, and the folder in it.
    pub fn object_store(&self) -> Result<StoreAt> {
        let root = absolute(&self.root)?;
        let not_a_path = || Error::invalid(format!("{}: this path cannot be used", root.display()));
        let url = Url::from_directory_path(&root).map_err(|()| not_a_path())?;
        let path =
            object_store::path::Path::from_absolute_path(&root).map_err(|error| not_a_path().caused_by(error))?;
        Ok(StoreAt { url, store: Arc::new(DurableFileSystem::default()), path })
    }

    /// Looks whether the folder is there and can be read.
    pub(super) fn test(&self) -> Vec<Check> {
        let outcome = std::fs::read_dir(&self.root).map(|entries| match entries.count() {
            0 => "it is empty".to_owned(),
            1 => "one entry".to_owned(),
            some => format!("{some} entries"),
        });
        vec![Check {
            what: format!("list {}", self.root.display()),
            outcome: outcome.map_err(|error| Error::io(self.root.display(), error)),
        }]
    }
}

/// The path, absolute and without `.` and `..`, whether or not it exists.
fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|error| Error::io(path.display(), error))?;
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    Ok(clean)
}
