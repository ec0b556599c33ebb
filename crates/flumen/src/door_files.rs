//! Which files the clients of the doors may read: none, or those in one folder that the project allows.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::read::{FileReader, Input, ReadOptions};
use flumen_core::{Error, Result};
use flumen_project::Project;

/// Reads files for the doors.
pub struct DoorFiles {
    folder: Option<PathBuf>,
    files: flumen_connect::sources::Files,
}

impl DoorFiles {
    /// What `flumen.yml` allows.
    ///
    /// Errors: the folder is not there.
    pub fn new(project: &Project, files: flumen_connect::sources::Files) -> Result<Self> {
        let folder = project.served_files()?.map(|folder| {
            folder.canonicalize().map_err(|error| Error::io(format!("'serve.files' {}", folder.display()), error))
        });
        Ok(Self { folder: folder.transpose()?, files })
    }

    /// The path that `address` means within the folder.
    fn within(&self, address: &str) -> Result<PathBuf> {
        let Some(folder) = &self.folder else {
            return Err(Error::invalid(format!("'{address}' is a file, and clients may read none here"))
                .hint("whoever runs the server can allow a folder: 'serve: { files: FOLDER }' in flumen.yml"));
        };
        let outside = || {
            Error::invalid(format!("'{address}' is not within the folder whose files clients may read"))
                .hint("name a file relative to that folder")
        };
        let path = Path::new(address);
        let leaves = path.components().any(|part| matches!(part, Component::ParentDir | Component::Prefix(_)));
        if address.contains("://") || leaves {
            return Err(outside());
        }
        let whole = folder.join(path);
        // As far as it is no pattern, it must be there, and within the folder when links are followed.
        let plain: PathBuf = whole.components().take_while(|part| !is_pattern(part)).collect();
        match plain.canonicalize() {
            Ok(real) if real.starts_with(folder) => Ok(whole),
            // What is not there is for the reader to say; but it must not say so about what is elsewhere.
            Err(_) if whole.starts_with(folder) => Ok(whole),
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
        let path = self.within(address)?;
        let inputs = FileReader::open(&self.files, &path.to_string_lossy(), options).await?;
        // A pattern may lead through a link.
        for input in &inputs {
            let real = Path::new(input.address()).canonicalize().ok();
            let inside = self.folder.as_ref().zip(real).is_some_and(|(folder, real)| real.starts_with(folder));
            if !inside {
                return Err(Error::invalid(format!(
                    "'{address}' leads out of the folder whose files clients may read"
                )));
            }
        }
        Ok(inputs)
    }
}
