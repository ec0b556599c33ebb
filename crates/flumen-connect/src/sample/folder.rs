//! Sample files in a folder: made once, kept while their arguments are the same, never half there, never over a file
//! that somebody else made.
//!
//! A hidden list in the folder (`.flumen-sample.ndjson`, a line a file) says what was made with which arguments and which
//! hash; it is also the lock that keeps two runs out of each other's way. A file is written under a hidden name and renamed
//! when it is complete, after its line in the list.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, BufWriter, ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flumen_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{SampleFile, Watch, Written};

/// The hidden list of what was made.
const LIST: &str = ".flumen-sample.ndjson";
/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// A line of the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    file: String,
    key: String,
    rows: u64,
    bytes: u64,
    blake3: String,
}

/// A folder into which this process, and no other, writes sample files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    list: File,
    entries: Vec<Entry>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Where it is.
    pub path: PathBuf,
    /// Its rows, bytes and hash.
    pub written: Written,
    /// Whether it was there already.
    pub kept: bool,
}

impl Folder {
    /// Opens the folder at `path`, and makes it if it is not there.
    ///
    /// # Errors
    /// When it cannot be made or written to, or another run writes to it ([`flumen_core::ErrorKind::Conflict`]).
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        match std::fs::create_dir_all(path) {
            Err(error) if matches!(error.kind(), Io::AlreadyExists | Io::NotADirectory) => {
                return Err(Error::invalid(format!("{shown}: this is not a folder"))
                    .hint("name a folder with --out; it is made if it is not there"));
            }
            made => made.map_err(|error| Error::io(&shown, error))?,
        }
        let list_path = path.join(LIST);
        let unopened = |error| Error::io(list_path.display(), error);
        let mut list = OpenOptions::new().read(true).append(true).create(true).open(&list_path).map_err(unopened)?;
        if let Err(TryLockError::WouldBlock) = list.try_lock() {
            return Err(Error::new(
                flumen_core::ErrorKind::Conflict,
                format!("{shown}: another run writes sample files into this folder"),
            )
            .hint("wait until it has ended, or name another folder with --out"));
        }
        // A line that a killed run left unfinished is no entry; the newline keeps the next one apart from it.
        let mut text = Vec::new();
        BufReader::new(&mut list).read_to_end(&mut text).map_err(unopened)?;
        if text.last().is_some_and(|last| *last != b'\n') {
            list.write_all(b"\n").map_err(unopened)?;
        }
        let entries = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok(Self { path: path.to_owned(), list, entries })
    }

    /// Makes `file` on `workers` threads, or keeps the one that is there and the same.
    ///
    /// # Errors
    /// [`flumen_core::ErrorKind::Conflict`] when another file of that name is there and `force` is not set; what writing
    /// says; [`flumen_core::ErrorKind::Cancelled`].
    pub fn make(&mut self, file: &SampleFile, force: bool, workers: usize, watch: &Watch) -> Result<Made> {
        let path = self.path.join(file.name());
        if let Some(written) = self.found(file, &path)? {
            watch.add_rows(written.rows);
            return Ok(Made { path, written, kept: true });
        }
        if !force && path.symlink_metadata().is_ok() {
            return Err(Error::new(
                flumen_core::ErrorKind::Conflict,
                format!("{}: a different file of this name is there already", path.display()),
            )
            .hint("name another folder with --out, or write over it with --force"));
        }
        let partial = self.path.join(format!(".{}.partial", file.name()));
        let written = self.write(file, &path, &partial, workers, watch).inspect_err(|_| {
            // What is left of a failed run is of no use; that it cannot be removed changes nothing about the failure.
            let _ = std::fs::remove_file(&partial);
        })?;
        Ok(Made { path, written, kept: false })
    }

    /// Refuses now what [`Folder::make`] would refuse after the files before it were made.
    ///
    /// # Errors
    /// As [`Folder::make`] when a different file is there.
    pub fn check(&self, files: &[SampleFile], force: bool) -> Result<()> {
        let Some(other) = files.iter().filter(|_| !force).find(|file| {
            let path = self.path.join(file.name());
            path.symlink_metadata()
                .is_ok_and(|found| self.entry(file).is_none_or(|entry| !found.is_file() || found.len() != entry.bytes))
        }) else {
            return Ok(());
        };
        Err(Error::new(
            flumen_core::ErrorKind::Conflict,
            format!("{}: a different file of this name is there already", self.path.join(other.name()).display()),
        )
        .hint("name another folder with --out, or write over it with --force"))
    }

    /// The newest line about the file of this name, if it was made with the same arguments.
    fn entry(&self, file: &SampleFile) -> Option<&Entry> {
        let name = file.name();
        self.entries.iter().rev().find(|entry| entry.file == name).filter(|entry| entry.key == file.key())
    }

    /// What is at `path`, if it is `file`, to the last byte.
    fn found(&self, file: &SampleFile, path: &Path) -> Result<Option<Written>> {
        let Some(entry) = self.entry(file) else { return Ok(None) };
        let unread = |error| Error::io(path.display(), error);
        match path.metadata() {
            Ok(found) if found.is_file() && found.len() == entry.bytes => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == Io::NotFound => return Ok(None),
            Err(error) => return Err(unread(error)),
        }
        let mut hash = blake3::Hasher::new();
        hash.update_mmap_rayon(path).map_err(unread)?;
        let blake3 = hash.finalize().to_hex().to_string();
        Ok((blake3 == entry.blake3).then_some(Written { rows: entry.rows, bytes: entry.bytes, blake3 }))
    }

    fn write(
        &mut self,
        file: &SampleFile,
        path: &Path,
        partial: &Path,
        workers: usize,
        watch: &Watch,
    ) -> Result<Written> {
        let place = path.display().to_string();
        let failed = |error| Error::io(&place, error);
        let out = File::create(partial).map_err(failed)?;
        let written = file.write(&place, BufWriter::with_capacity(BUFFER_BYTES, &out), workers, watch)?;
        drop(out);
        let entry = Entry {
            file: file.name(),
            key: file.key(),
            rows: written.rows,
            bytes: written.bytes,
            blake3: written.blake3.clone(),
        };
        let mut line = serde_json::to_string(&entry).map_err(|error| Error::internal(error.to_string()))?;
        line.push('\n');
        self.list.seek(SeekFrom::End(0)).and_then(|_| self.list.write_all(line.as_bytes())).map_err(failed)?;
        std::fs::rename(partial, path).map_err(failed)?;
        self.entries.push(entry);
        Ok(written)
    }
}
