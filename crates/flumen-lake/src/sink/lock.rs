//! Keeps two processes on one machine from running the same load at once.
//!
//! The lock is the operating system's, on the file `.lock` in the load's folder: it goes with the process that holds it,
//! however that ends. In an object store there is no such lock; there the commit decides (see `sink.rs`).

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use flumen_core::{Error, Result};

use flumen_project::durable::create_folders;

/// A lock that is held. Dropping it lets go.
#[derive(Debug)]
pub(crate) struct LoadLock {
    file: Option<File>,
    path: PathBuf,
}

impl LoadLock {
    /// Takes the lock of the load whose folder is `folder`.
    ///
    /// Errors: `Conflict` if another process (or another session of this one) holds it.
    pub(crate) fn take(folder: &Path, load: &str, table: &str) -> Result<Self> {
        let path = folder.join(".lock");
        let failed = |error| Error::io(format!("{table}: {}", path.display()), error);
        loop {
            create_folders(folder).map_err(failed)?;
            let file = match File::options().create(true).truncate(false).write(true).open(&path) {
                Ok(file) => file,
                // Somebody removed the folder between the two steps.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::conflict(format!("{table}: the load {load} is running already"))
                        .hint("wait until it ends; `flumen load list` shows the result"));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            if is_still(&file, &path) {
                return Ok(Self { file: Some(file), path });
            }
        }
    }
}

impl LoadLock {
    /// Whether somebody holds the lock of `folder`, in which there is one.
    pub(crate) fn is_held(folder: &Path) -> std::io::Result<bool> {
        let file = match File::options().write(true).open(folder.join(".lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Whether the file that we locked is the one under its name: its last holder removes it when done.
#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still(_: &File, path: &Path) -> bool {
    path.exists()
}

impl Drop for LoadLock {
    fn drop(&mut self) {
        // While it is still held, so that nobody can hold the same name twice.
        let _ = std::fs::remove_file(&self.path);
        if let Some(folder) = self.path.parent() {
            let _ = std::fs::remove_dir(folder);
        }
        drop(self.file.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_nothing_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("load-1");
        let held = LoadLock::take(&folder, "1", "lake.raw.t").unwrap();
        let refused = LoadLock::take(&folder, "1", "lake.raw.t").unwrap_err();
        assert_eq!(refused.to_string(), "lake.raw.t: the load 1 is running already");
        drop(held);
        assert!(!folder.exists());
        LoadLock::take(&folder, "1", "lake.raw.t").unwrap();
    }
}
