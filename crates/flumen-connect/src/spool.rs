//! A place on the local disk for bytes that come from elsewhere: downloads, standard input, what was unpacked.
//!
//! A [`SpoolFile`] grows while readers read it: whoever is faster than the writer waits for more bytes, and sees the writer's
//! error if it fails. The files live in a folder of this process's own, which goes when the last of them goes, or when the
//! process says that it ends; what a killed process left behind is swept away by the next one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use flumen_core::{Error, ErrorKind, Result};
use tokio::sync::Notify;

/// How spool folders are called. A folder with this name whose lock nobody holds was left behind.
const PREFIX: &str = "flumen-spool-";
/// How one is called until its lock is held, so that nobody sweeps it away too early.
const NEW_PREFIX: &str = "flumen-new-";
/// The file in it that its process holds locked.
const LOCK: &str = "lock";

/// The spool folder of a process.
pub struct Spool {
    parent: PathBuf,
    contents: Mutex<Contents>,
    next: AtomicU64,
}

/// What is in a spool.
#[derive(Default)]
struct Contents {
    folder: Option<Folder>,
    files: Vec<Weak<SpoolFile>>,
    /// Nothing comes in any more.
    is_stopped: bool,
}

/// The folder itself, once something was put into it.
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing can be done about a folder that cannot be removed; the next process tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Spool {
    /// A spool in the system's folder for temporary files (`TMPDIR`). The folder is made when it is first needed.
    pub fn new() -> Arc<Self> {
        Self::within(std::env::temp_dir())
    }

    /// A spool in a folder within `parent`.
    pub fn within(parent: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self { parent: parent.into(), contents: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// An empty file, for the bytes of what is known as `address`.
    pub fn file(self: &Arc<Self>, address: &str) -> Result<Arc<SpoolFile>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut contents = lock(&self.contents);
        if contents.is_stopped {
            return Err(Error::cancelled());
        }
        let path = self.folder(&mut contents)?.join(number.to_string());
        let failed = |error| Error::io(format!("the copy of {address} in {}", path.display()), error);
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
        let file = Arc::new(SpoolFile {
            address: address.to_owned(),
            path,
            file,
            state: Mutex::new(State { written: 0, read: 0, wanted: 0, end: None }),
            more: Condvar::new(),
            demand: Notify::new(),
            _spool: Arc::clone(self),
        });
        contents.files.retain(|file| file.strong_count() > 0);
        contents.files.push(Arc::downgrade(&file));
        Ok(file)
    }

    /// Tells everybody who waits for bytes that none will come, because the work was cancelled. Nothing comes in any more.
    pub fn stop(&self) {
        let mut contents = lock(&self.contents);
        contents.is_stopped = true;
        for file in contents.files.drain(..).filter_map(|file| file.upgrade()) {
            file.stop();
        }
    }

    /// [Stops](Spool::stop), and removes the folder, also when there are readers left. For the end of the process: threads
    /// that still read then have nobody who waits for them.
    pub fn close(&self) {
        self.stop();
        drop(lock(&self.contents).folder.take());
    }

    fn folder(&self, contents: &mut Contents) -> Result<PathBuf> {
        if let Some(folder) = &contents.folder {
            return Ok(folder.path.clone());
        }
        sweep(&self.parent);
        let made = make(&self.parent).map_err(|error| {
            Error::io(format!("{} (for temporary files)", self.parent.display()), error)
                .hint("set TMPDIR to a folder that can be written to and has room")
        })?;
        Ok(contents.folder.insert(made).path.clone())
    }
}

fn make(parent: &Path) -> io::Result<Folder> {
    let new = tempfile::Builder::new().prefix(NEW_PREFIX).tempdir_in(parent)?;
    let held = File::create(new.path().join(LOCK))?;
    held.lock()?;
    let name = new.path().file_name().unwrap_or_default().to_string_lossy().replacen(NEW_PREFIX, PREFIX, 1);
    let path = parent.join(name);
    fs::rename(new.path(), &path)?;
    let _ = new.keep();
    Ok(Folder { path, _lock: held })
}

/// Removes the spool folders of processes that were killed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Whoever holds the lock lives. What belongs to others cannot be opened, and stays.
        if let Ok(held) = File::options().write(true).open(entry.path().join(LOCK))
            && held.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A file that grows while it is read. Removed when it is dropped.
pub struct SpoolFile {
    address: String,
    path: PathBuf,
    file: File,
    state: Mutex<State>,
    more: Condvar,
    demand: Notify,
    _spool: Arc<Spool>,
}

struct State {
    /// Bytes that are there.
    written: u64,
    /// Bytes from the start that a reader has seen.
    read: u64,
    /// Up to where readers want bytes.
    wanted: u64,
    /// How the writing ended, once it did.
    end: Option<std::result::Result<(), Failure>>,
}

/// An error that several readers can be told.
#[derive(Clone)]
struct Failure {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn of(error: &Error) -> Self {
        Self { kind: error.kind(), message: error.message().to_owned(), hint: error.remedy().map(str::to_owned) }
    }

    fn error(&self) -> Error {
        let error = Error::new(self.kind, self.message.clone());
        match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }
}

impl SpoolFile {
    /// Its path on the local disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are there so far.
    pub fn written(&self) -> u64 {
        self.state().written
    }

    /// Whether it is whole.
    pub fn is_complete(&self) -> bool {
        matches!(self.state().end, Some(Ok(())))
    }

    /// Adds `bytes` at the end.
    pub fn append(&self, bytes: &[u8]) -> Result<()> {
        let at = self.state().written;
        self.file
            .write_all_at(bytes, at)
            .map_err(|error| Error::io(format!("the copy of {} in {}", self.address, self.path.display()), error))?;
        self.state().written = at + bytes.len() as u64;
        self.more.notify_all();
        Ok(())
    }

    /// Whether `bytes` are what the file has at `offset`.
    pub fn holds(&self, offset: u64, bytes: &[u8]) -> Result<bool> {
        let mut there = vec![0; bytes.len()];
        let read = self.file.read_exact_at(&mut there, offset);
        read.map_err(|error| Error::io(self.path.display(), error))?;
        Ok(there == bytes)
    }

    /// Begins anew, if no reader has seen a byte yet. False: one has.
    pub fn restart(&self) -> Result<bool> {
        let mut state = self.state();
        if state.read > 0 {
            return Ok(false);
        }
        self.file.set_len(0).map_err(|error| Error::io(self.path.display(), error))?;
        state.written = 0;
        Ok(true)
    }

    /// Says that the file is whole.
    pub fn finish(&self) {
        self.state().end = Some(Ok(()));
        self.more.notify_all();
    }

    /// Says that no more bytes will come, and why: every reader that comes to the end is told.
    pub fn fail(&self, error: &Error) {
        self.state().end = Some(Err(Failure::of(error)));
        self.more.notify_all();
    }

    /// The same as [`SpoolFile::fail`] with a cancellation, unless the end has come already.
    fn stop(&self) {
        self.state().end.get_or_insert_with(|| Err(Failure::of(&Error::cancelled())));
        self.more.notify_all();
    }

    /// Waits until a reader wants bytes after the first `bytes` ones.
    pub async fn wanted_beyond(&self, bytes: u64) {
        loop {
            let notified = self.demand.notified();
            if self.state().wanted > bytes {
                return;
            }
            notified.await;
        }
    }

    /// A reader from the first byte. Its reads block until there are bytes, or it is clear that none will come.
    pub fn reader(self: &Arc<Self>) -> SpoolReader {
        SpoolReader { file: Arc::clone(self), at: 0 }
    }

    /// Waits until the file is whole, and gives its path.
    pub fn wait(&self) -> Result<PathBuf> {
        let mut state = self.state();
        self.want(&mut state, u64::MAX);
        loop {
            match &state.end {
                Some(Ok(())) => return Ok(self.path.clone()),
                Some(Err(failure)) => return Err(failure.error()),
                None => state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits until there are bytes at `at`. The bytes that there are from there on; none at the end of the file.
    fn available(&self, at: u64) -> io::Result<u64> {
        let mut state = self.state();
        loop {
            if state.written > at {
                state.read = state.read.max(at + 1);
                return Ok(state.written - at);
            }
            match &state.end {
                Some(Ok(())) => return Ok(0),
                Some(Err(failure)) => return Err(io::Error::other(failure.error())),
                None => {}
            }
            self.want(&mut state, at + 1);
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn want(&self, state: &mut State, bytes: u64) {
        if state.wanted < bytes {
            state.wanted = bytes;
            self.demand.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads a [`SpoolFile`] from its start.
pub struct SpoolReader {
    file: Arc<SpoolFile>,
    at: u64,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let there = usize::try_from(self.file.available(self.at)?).unwrap_or(usize::MAX);
        let length = buffer.len().min(there);
        let bytes = self.file.file.read_at(&mut buffer[..length], self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

/// Copies all of `from` into `to`, and says how it ended.
pub fn fill(to: &SpoolFile, mut from: impl Read) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let copied = loop {
        match from.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(bytes) => {
                if let Err(error) = to.append(&buffer[..bytes]) {
                    break Err(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(crate::blob::error(&to.address, error)),
        }
    };
    match copied {
        Ok(()) => to.finish(),
        Err(ref error) => to.fail(error),
    }
    copied
}

/// A poisoned lock guards plain numbers here: they are as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_follow_the_writer_and_hear_how_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::within(dir.path());
        let file = spool.file("x").unwrap();
        let mut reader = file.reader();
        let (ask, asked) = std::sync::mpsc::channel();
        let following = std::thread::spawn(move || {
            let mut bytes = [0; 4];
            reader.read_exact(&mut bytes).unwrap();
            ask.send(bytes).unwrap();
            let mut rest = String::new();
            reader.read_to_string(&mut rest).map_err(|error| crate::blob::error("x", error).to_string())
        });
        file.append(b"ab").unwrap();
        file.append(b"cd").unwrap();
        assert_eq!(&asked.recv().unwrap(), b"abcd");
        assert!(!file.restart().unwrap());
        file.append(b"ef").unwrap();
        file.fail(&Error::unavailable("the server went away"));
        assert_eq!(following.join().unwrap(), Err("the server went away".to_owned()));
        assert_eq!(file.wait().unwrap_err().message(), "the server went away");
    }

    #[test]
    fn a_spool_that_is_closed_lets_nobody_wait_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::within(dir.path());
        let (whole, growing) = (spool.file("x").unwrap(), spool.file("y").unwrap());
        whole.append(b"ab").unwrap();
        whole.finish();
        let mut reader = growing.reader();
        let following = std::thread::spawn(move || reader.read(&mut [0; 4]).is_err());
        spool.close();
        assert!(following.join().unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(whole.wait().is_ok());
        assert_eq!(growing.wait().unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(spool.file("z").err().map(|error| error.kind()), Some(ErrorKind::Cancelled));
    }

    #[test]
    fn nothing_is_left_behind_not_even_by_the_dead() {
        let dir = tempfile::tempdir().unwrap();
        let dead = dir.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let living = Spool::within(dir.path());
        let kept = living.file("x").unwrap();
        assert!(!dead.exists());
        let other = Spool::within(dir.path());
        drop(other.file("y").unwrap());
        assert!(kept.path().exists());
        drop((kept, living, other));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
