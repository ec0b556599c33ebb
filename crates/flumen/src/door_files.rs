//! Which files the clients of the doors may read and write: none, or those in one folder that the project allows. What an
//! external table of the catalog names was allowed by whoever made it, and is read wherever it is.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use flumen_connect::sinks::files::FileSink;
use flumen_connect::sources::Files;
use flumen_connect::spool::Spool;
use flumen_core::read::{FileReader, Input, ReadOptions};
use flumen_core::sql::Destinations;
use flumen_core::write::{Sink, WriteOptions};
use flumen_core::{Error, Result};
use flumen_project::Project;

/// Reads and writes files for the doors.
pub struct DoorFiles {
    folder: Option<PathBuf>,
    files: Files,
    spool: Arc<Spool>,
}

impl DoorFiles {
    /// What `flumen.yml` allows.
    ///
    /// Errors: the folder is not there.
    pub fn new(project: &Project, files: Files, spool: Arc<Spool>) -> Result<Self> {
        let folder = project.served_files()?.map(|folder| {
            folder.canonicalize().map_err(|error| Error::io(format!("'serve.files' {}", folder.display()), error))
        });
        Ok(Self { folder: folder.transpose()?, files, spool })
    }

    /// Whether there is a folder that clients may use.
    pub fn allows_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// The path that `address` means within the folder. `none` is what clients may do with no file if there is no folder.
    ///
    /// Errors: `Invalid` if it is elsewhere, links followed.
    fn within(&self, address: &str, none: &str) -> Result<PathBuf> {
        let Some(folder) = &self.folder else {
            return Err(Error::invalid(format!("'{address}' is a file, and clients may {none} none here"))
                .hint("whoever runs the server can allow a folder: 'serve: { files: FOLDER }' in flumen.yml"));
        };
        let outside = || {
            Error::invalid(format!("'{address}' is not within the folder whose files clients may {none}"))
                .hint("name a file relative to that folder")
        };
        let path = Path::new(address);
        let leaves = path.components().any(|part| matches!(part, Component::ParentDir | Component::Prefix(_)));
        if address.contains("://") || leaves {
            return Err(outside());
        }
        let whole = folder.join(path);
        // As far as it is no pattern and is there, it must be within the folder when links are followed.
        let plain: PathBuf = whole.components().take_while(|part| !is_pattern(part)).collect();
        let there = plain.ancestors().find(|path| path.symlink_metadata().is_ok());
        match there.and_then(|path| path.canonicalize().ok()) {
            Some(real) if real.starts_with(folder) => Ok(whole),
            _ => Err(outside()),
        }
    }
}

fn is_pattern(part: &Component<'_>) -> bool {
    part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{'])
}

#[async_trait]
impl FileReader for DoorFiles {
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        let path = self.within(address, "read")?;
        let inputs = FileReader::open(&self.files, &path.to_string_lossy(), options).await?;
        // A pattern may lead through a link.
        for input in &inputs {
            let real = Path::new(input.address()).canonicalize().ok();
            let inside = self.folder.as_ref().zip(real).is_some_and(|(folder, real)| real.starts_with(folder));
            if !inside {
                return Err(Error::invalid(format!(
                    "'{address}' leads out of the folder whose files clients may read"
                ))
                .hint("name files that are in the folder itself"));
            }
        }
        Ok(inputs)
    }

    async fn open_registered(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        match &self.folder {
            // Clients may have made it, so that it must not lead out.
            Some(folder) if Path::new(address).starts_with(folder) => self.open(address, options).await,
            _ => FileReader::open(&self.files, address, options).await,
        }
    }

    fn register(&self, location: &str, format: &str) -> Result<String> {
        if format == "delta" {
            // Its log names files that nobody has looked at.
            return Err(Error::invalid("clients may not make external tables over Delta tables")
                .hint("whoever runs the server can, with 'flumen sql' on the machine itself"));
        }
        Ok(self.within(location, "read")?.display().to_string())
    }
}

#[async_trait]
impl Destinations for DoorFiles {
    async fn sink(&self, address: &str, options: &WriteOptions) -> Result<Arc<dyn Sink>> {
        let path = self.within(address, "write")?;
        Ok(Arc::new(FileSink::new(&path.to_string_lossy(), options, None, &self.spool)?))
    }
}
