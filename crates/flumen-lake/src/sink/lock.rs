//! Keeps two processes on one machine from running the same load at once, and tells which of them are alive.
//!
//! The lock is the operating system's, on the file `.lock` in the load's folder: it goes with the process that holds it,
//! however that ends. In an object store there is no such lock; there the commit decides (see `sink.rs`).
//!
//! An attempt with a number must not wait for an older one, which may hang for ever: it has a file of its own, `.lock-<number>`, and
//! the commit decides between them.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use flumen_core::load::Fence;
use flumen_core::{Error, Result};
use flumen_project::durable::create_folders;

/// What the names of locks begin with.
const NAME: &str = ".lock";

/// A lock that is held. Dropping it lets go.
#[derive(Debug)]
pub(crate) struct LoadLock {
    file: Option<File>,
    path: PathBuf,
    folder: PathBuf,
}

impl LoadLock {
    /// Takes the lock of the load whose folder is `folder`, for its attempt `fence`.
    ///
    /// Errors: `Conflict` if another process (or another session of this one) holds it.
    pub(crate) fn take(folder: &Path, load: &str, fence: Fence, table: &str) -> Result<Self> {
        let path = folder.join(if fence.0 == 0 { NAME.to_owned() } else { format!("{NAME}-{}", fence.0) });
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
                return Ok(Self { file: Some(file), path, folder: folder.to_owned() });
            }
        }
    }

    /// Whether no other attempt at this load is alive on this machine.
    pub(crate) fn is_alone(&self) -> std::io::Result<bool> {
        for path in locks(&self.folder)? {
            if path != self.path && is_held(&path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether somebody holds a lock of `folder`; `None` where there is none.
    pub(crate) fn state(folder: &Path) -> std::io::Result<Option<bool>> {
        let locks = locks(folder)?;
        for path in &locks {
            if is_held(path)? {
                return Ok(Some(true));
            }
        }
        Ok((!locks.is_empty()).then_some(false))
    }

    /// Removes the locks of a folder that nobody holds, and the folder if it is empty then.
    pub(crate) fn remove_dead(folder: &Path) -> std::io::Result<()> {
        for path in locks(folder)? {
            let file = match File::options().write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if file.try_lock().is_ok() && is_still(&file, &path) {
                drop(Self { file: Some(file), path, folder: folder.to_owned() });
            }
        }
        Ok(())
    }
}

/// The files that are locks of a folder. None where there is no folder.
fn locks(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(NAME) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn is_held(path: &Path) -> std::io::Result<bool> {
    let file = match File::options().write(true).open(path) {
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
        let _ = std::fs::remove_dir(&self.folder);
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
        let held = LoadLock::take(&folder, "1", Fence(0), "lake.raw.t").unwrap();
        let refused = LoadLock::take(&folder, "1", Fence(0), "lake.raw.t").unwrap_err();
        assert_eq!(refused.to_string(), "lake.raw.t: the load 1 is running already");
        drop(held);
        assert!(!folder.exists());
        LoadLock::take(&folder, "1", Fence(0), "lake.raw.t").unwrap();
    }

    #[test]
    fn an_attempt_does_not_wait_for_an_older_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("load-1");
        let older = LoadLock::take(&folder, "1", Fence(7), "lake.raw.t").unwrap();
        assert!(older.is_alone().unwrap());
        let newer = LoadLock::take(&folder, "1", Fence(8), "lake.raw.t").unwrap();
        assert!(!newer.is_alone().unwrap() && !older.is_alone().unwrap());
        drop(older);
        assert!(newer.is_alone().unwrap());
        assert_eq!(LoadLock::state(&folder).unwrap(), Some(true));
        // What a process leaves that was killed.
        std::fs::write(folder.join(".lock-6"), "").unwrap();
        LoadLock::remove_dead(&folder).unwrap();
        assert!(!folder.join(".lock-6").exists() && folder.join(".lock-8").exists());
        drop(newer);
        assert!(!folder.exists());
        assert_eq!(LoadLock::state(&folder).unwrap(), None);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(".lock-6"), "").unwrap();
        assert_eq!(LoadLock::state(&folder).unwrap(), Some(false));
        LoadLock::remove_dead(&folder).unwrap();
        assert!(!folder.exists());
    }
}
