//! Who works on a project: servers, and commands that run something themselves, hold locks as long as they live.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use flumen_core::{Error, Result};
use flumen_project::Project;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::metadata::FOLDER;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// The number of its process.
    pub process: u32,
    /// Its version.
    pub version: String,
    /// Where it listens.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The machine, of one that the store alone knows of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// The lock of a server that lives.
#[derive(Debug)]
pub struct ServerLock {
    file: File,
}

/// The lock of a command that runs something itself. Many may have one.
#[derive(Debug)]
pub struct CommandLock {
    _file: File,
}

/// How often a server tries to get its lock: whoever looks whether there is one holds it for a moment.
const TRIES: u32 = 10;
/// The wait from one try to the next.
const BETWEEN: Duration = Duration::from_millis(20);
/// The file of a server's lock.
const SERVER: &str = "server.lock";
/// The file of the locks of commands.
const COMMANDS: &str = "commands.lock";

fn path(project: &Project, name: &str) -> PathBuf {
    project.dir().join(FOLDER).join(name)
}

fn open(project: &Project, name: &str) -> Result<File> {
    let path = path(project, name);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder.display(), error))?;
    }
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| Error::io(path.display(), error))
}

impl ServerLock {
    /// Makes this process the server of the project.
    ///
    /// Errors: `Conflict`, where there is one already.
    pub fn take(project: &Project) -> Result<Self> {
        let file = open(project, SERVER)?;
        let mut tries = 0;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            tries += 1;
            if tries < TRIES {
                std::thread::sleep(BETWEEN);
                continue;
            }
            let process = read(&file).map(|record| format!(" (process {})", record.process)).unwrap_or_default();
            return Err(Error::conflict(format!("a server works on this project already{process}"))
                .hint("stop it first, or use it: 'flumen status' shows what it does"));
        }
        Ok(Self { file })
    }

    /// Writes what others may know.
    ///
    /// Errors: those of the file.
    pub fn announce(&mut self, record: &ServerRecord) -> Result<()> {
        let text = serde_json::to_string(record)
            .map_err(|error| Error::internal("a record cannot be written").caused_by(error))?;
        let mut write = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|error| Error::io("the server's lock", error))
    }
}

/// The server that works on the project now, if there is one.
///
/// Errors: those of the file.
pub fn current(project: &Project) -> Result<Option<ServerRecord>> {
    if !path(project, SERVER).exists() {
        return Ok(None);
    }
    let file = open(project, SERVER)?;
    // Whoever gets the lock is alone; it is given back with the file.
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    Ok(Some(read(&file).unwrap_or(ServerRecord {
        process: 0,
        version: String::new(),
        addresses: Vec::new(),
        host: None,
    })))
}

impl CommandLock {
    /// Tells others that this process runs something.
    ///
    /// Errors: those of the file.
    pub fn take(project: &Project) -> Result<Self> {
        let file = open(project, COMMANDS)?;
        // Whoever looks holds it for a moment, and no longer.
        flock(&file, FlockOperation::LockShared)
            .map_err(|error| Error::io(path(project, COMMANDS).display(), error.into()))?;
        Ok(Self { _file: file })
    }
}

/// Whether a command runs something itself on this project now.
///
/// Errors: those of the file.
pub fn is_command_at_work(project: &Project) -> Result<bool> {
    if !path(project, COMMANDS).exists() {
        return Ok(false);
    }
    let file = open(project, COMMANDS)?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

fn read(mut file: &File) -> Option<ServerRecord> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}
