//! Files on the local disk.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flumen_core::load::FileIdentity;
use flumen_core::{Error, Result};

use crate::blob::{self, Blob};

/// Bytes that are hashed at a time, by all cores at once. Read, not mapped: mapped pages would count as our memory.
const HASH_BYTES: usize = 4 << 20;

/// One file on the local disk.
pub struct LocalFile {
    address: String,
    path: PathBuf,
    size: Option<u64>,
    opened: Version,
}

/// What the file system says about a version of a file. It is read by several readers, each of which opens it anew, so
/// another file under the same name is another version.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    size: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    file: (u64, u64),
}

impl Version {
    fn of(about: &Metadata) -> Self {
        Self {
            size: about.len(),
            modified: about.modified().ok(),
            #[cfg(unix)]
            file: (about.dev(), about.ino()),
        }
    }
}

impl LocalFile {
    /// The file at `path`, known by that path.
    ///
    /// Errors: `NotFound`, or `Invalid` for a folder or a file that may not be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let shown = path.display().to_string();
        let address = shown.strip_prefix("./").unwrap_or(&shown).to_owned();
        let file = File::open(&path).map_err(|error| Error::io(&address, error))?;
        let about = file.metadata().map_err(|error| Error::io(&address, error))?;
        if about.is_dir() {
            return Err(Error::io(&address, std::io::Error::from(ErrorKind::IsADirectory)));
        }
        // A pipe (`<(zcat x)`) has no size, and is empty at a second reading.
        let size = about.is_file().then_some(about.len());
        Ok(Self { address, path, size, opened: Version::of(&about) })
    }

    /// Whether it is a file, and not a pipe or a device.
    pub fn is_regular(&self) -> bool {
        self.size.is_some()
    }
}

impl Blob for LocalFile {
    fn address(&self) -> &str {
        &self.address
    }

    fn size(&self) -> Option<u64> {
        self.size
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(&self.path).map_err(|error| Error::io(&self.address, error))?))
    }

    fn local_file(&self) -> Result<PathBuf> {
        Ok(self.path.clone())
    }

    fn identity(&self) -> Result<FileIdentity> {
        let hash = hash(&self.path).map_err(|error| Error::io(&self.address, error))?;
        // The absolute path: the same file named from another folder is the same file.
        let path = std::path::absolute(&self.path).map_err(|error| Error::io(&self.address, error))?;
        Ok(FileIdentity { address: path.display().to_string(), validator: Some(blob::content_hash(&hash)) })
    }

    fn check_unchanged(&self) -> Result<()> {
        let now = std::fs::metadata(&self.path).map(|about| Version::of(&about));
        match now {
            Ok(now) if !self.is_regular() || now == self.opened => Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(&self.address, error)),
            _ => Err(Error::conflict(format!("{} changed while it was being read", self.address))
                .hint("wait until nobody writes to it, then run the same command again")),
        }
    }
}

/// The hash of a file's content.
pub fn hash(path: &Path) -> std::io::Result<blake3::Hash> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_BYTES];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..])? {
                0 => break,
                bytes => filled += bytes,
            }
        }
        if filled == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update_rayon(&buffer[..filled]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_has_the_same_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        let content = vec![7u8; HASH_BYTES * 2 + 17];
        std::fs::write(&path, &content).unwrap();
        let identity = LocalFile::open(&path).unwrap().identity().unwrap();
        assert_eq!(identity.address, path.display().to_string());
        assert_eq!(identity.validator, Some(format!("blake3:{}", blake3::hash(&content).to_hex())));
    }

    #[test]
    fn a_file_that_was_written_to_or_replaced_or_removed_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        let changes: [(&str, &dyn Fn()); 4] = [
            ("written to", &|| std::fs::write(&path, "a\n1\n2\n").unwrap()),
            ("written to, its size as before", &|| {
                // As another second would: the clock of a file system ticks slowly.
                let file = File::options().write(true).open(&path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }),
            ("replaced", &|| {
                let other = path.with_extension("new");
                std::fs::copy(&path, &other).unwrap();
                let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
                File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
                std::fs::rename(&other, &path).unwrap();
            }),
            ("removed", &|| std::fs::remove_file(&path).unwrap()),
        ];
        for (how, change) in changes {
            std::fs::write(&path, "a\n1\n").unwrap();
            let file = LocalFile::open(&path).unwrap();
            file.identity().unwrap();
            file.check_unchanged().unwrap();
            change();
            let error = file.check_unchanged().expect_err(how);
            assert_eq!(error.message(), format!("{} changed while it was being read", path.display()), "{how}");
        }
    }

    #[test]
    fn a_folder_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = LocalFile::open(dir.path()).err().unwrap();
        assert!(error.message().ends_with("this is a folder, not a file"), "{error}");
    }
}
