//! A project: the folder with a `flumen.yml`. Everything else is found from it.

use std::path::{Path, PathBuf};

use flumen_core::{Error, Result};

/// The name of the file that makes a folder a project.
pub const PROJECT_FILE: &str = "flumen.yml";

/// A folder with a `flumen.yml`.
#[derive(Debug)]
pub struct Project {
    dir: PathBuf,
}

impl Project {
    /// The nearest folder, from `start` upwards, that is a project.
    pub fn find(start: &Path) -> Result<Option<PathBuf>> {
        Ok(start.ancestors().find(|dir| dir.join(PROJECT_FILE).is_file()).map(Path::to_owned))
    }

    /// The project in `dir`.
    ///
    /// Errors: `NotFound` when there is no `flumen.yml` in it.
    pub fn load(dir: &Path) -> Result<Self> {
        if !dir.join(PROJECT_FILE).is_file() {
            return Err(Error::not_found(format!("{}: there is no {PROJECT_FILE} in this folder", dir.display()))
                .hint("run 'flumen init' to make a project, or check --project"));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// The project's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
