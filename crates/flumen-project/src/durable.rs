//! What makes a write survive a loss of power: bytes are on the disk before a name leads to them, and names are before
//! anybody is told of them.
//!
//! A commit of the lake is therefore never seen without its data: data files are synced while the load goes on, and all of
//! them before the commit; the file of the commit is synced before it gets its name, and the folder after it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// Makes `folder` and the folders above it that are missing. Each is synced into the one above.
pub fn create_folders(folder: &FsPath) -> io::Result<()> {
    let above = match folder.parent() {
        Some(above) if above.as_os_str().is_empty() => FsPath::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(above),
        Err(_) if folder.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_folders(above)?;
            create_folders(folder)
        }
        Err(error) => Err(error),
    }
}

/// Waits until the disk has the names in `folder`.
#[cfg(unix)]
pub fn sync_folder(folder: &FsPath) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems of a network cannot do it, and need not; and one may be let write into a folder, but not look
        // into it.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Waits until the disk has the names in `folder`.
#[cfg(not(unix))]
pub fn sync_folder(_: &FsPath) -> io::Result<()> {
    // A folder cannot be opened there; its names are in the journal of the file system.
    Ok(())
}

/// The local disk as a store whose writes survive a loss of power. All else is [`LocalFileSystem`]'s.
#[derive(Debug, Default)]
pub struct DurableFileSystem(LocalFileSystem);

impl fmt::Display for DurableFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn failed(error: io::Error) -> Error {
    Error::Generic { store: "LocalFileSystem", source: Box::new(error) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| failed(io::Error::other(error)))?
}

/// Writes `payload` to the file at `path`, which others see whole, on the disk, or not at all.
fn put(path: &FsPath, payload: &PutPayload, mode: &PutMode) -> Result<()> {
    let folder = path.parent().unwrap_or(FsPath::new("/"));
    create_folders(folder).map_err(failed)?;
    let (mut file, staged) = stage(path).map_err(failed)?;
    let written = payload.iter().try_for_each(|bytes| file.write_all(bytes)).and_then(|()| file.sync_data());
    let named = written.and_then(|()| match mode {
        PutMode::Create => fs::hard_link(&staged, path),
        _ => fs::rename(&staged, path),
    });
    if named.is_err() || *mode == PutMode::Create {
        // Its second name, or what is left of it: nobody sees it.
        let _ = fs::remove_file(&staged);
    }
    match named {
        Ok(()) => sync_folder(folder).map_err(failed),
        Err(source) if source.kind() == ErrorKind::AlreadyExists => {
            Err(Error::AlreadyExists { path: path.display().to_string(), source: Box::new(source) })
        }
        Err(error) => Err(failed(error)),
    }
}

/// A new file beside `path`. [`LocalFileSystem`] lists no file with such a name.
fn stage(path: &FsPath) -> io::Result<(File, PathBuf)> {
    let mut number = 1;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        match File::create_new(&name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            made => return made.map(|file| (file, name.into())),
        }
    }
}

/// Waits until the disk has the file at `path`, and its name.
fn sync_file(path: &FsPath) -> Result<()> {
    File::open(path).and_then(|file| file.sync_data()).map_err(failed)?;
    path.parent().map_or(Ok(()), sync_folder).map_err(failed)
}

/// Ranges of the file at `path`. Their memory is not filled with zeros before: a query reads hundreds of megabytes.
#[cfg(unix)]
fn read_ranges(path: &FsPath, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
    let file = File::open(path)?;
    let read = |range: &Range<u64>| {
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = range.start + bytes.len() as u64;
            match rustix::io::pread(&file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // There may have been room for more than what was asked for.
        bytes.truncate(length);
        Ok(Bytes::from(bytes))
    };
    ranges.iter().map(read).collect()
}

/// None: what is there is [`LocalFileSystem`]'s way of reading.
#[cfg(not(unix))]
fn read_ranges(_: &FsPath, _: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
    Err(ErrorKind::Unsupported.into())
}

#[async_trait]
impl ObjectStore for DurableFileSystem {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) || !options.attributes.is_empty() {
            return self.0.put_opts(location, payload, options).await;
        }
        let path = self.0.path_to_filesystem(location)?;
        blocking(move || put(&path, &payload, &options.mode)).await?;
        let about = self.0.head(location).await.ok();
        Ok(PutResult { e_tag: about.and_then(|about| about.e_tag), version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.0.path_to_filesystem(location)?;
        if let Some(folder) = path.parent().map(FsPath::to_owned) {
            blocking(move || create_folders(&folder).map_err(failed)).await?;
        }
        Ok(Box::new(Upload { upload: self.0.put_multipart_opts(location, options).await?, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = self.0.path_to_filesystem(location)?;
        let wanted = ranges.to_vec();
        match blocking(move || Ok(read_ranges(&path, &wanted).ok())).await? {
            Some(read) => Ok(read),
            // It has the words for what is wrong.
            None => self.0.get_ranges(location, ranges).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await?;
        let path = self.0.path_to_filesystem(to)?;
        blocking(move || sync_file(&path)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await?;
        let path = self.0.path_to_filesystem(to)?;
        blocking(move || sync_file(&path)).await
    }
}

/// A file that is written in parts.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.upload.put_part(part)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        let path = self.path.clone();
        blocking(move || sync_file(&path)).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn ranges_are_those_of_the_file_and_what_is_beyond_its_end_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| Path::from_absolute_path(dir.path().join(name)).unwrap();
        fs::write(dir.path().join("x"), "0123456789").unwrap();
        let store = DurableFileSystem::default();
        let read = store.get_ranges(&place("x"), &[2..5, 0..0, 9..10, 0..10]).await.unwrap();
        assert_eq!(read, ["234", "", "9", "0123456789"].map(Bytes::from));
        let plain = LocalFileSystem::new();
        for (name, range) in [("x", 8..12), ("x", 10..11), ("none", 0..1)] {
            let said = |error: Error| error.to_string();
            let expect = plain.get_ranges(&place(name), std::slice::from_ref(&range)).await.map_err(said);
            let got = store.get_ranges(&place(name), std::slice::from_ref(&range)).await.map_err(said);
            assert_eq!(got, expect, "{name} {range:?}");
        }
    }

    #[tokio::test]
    async fn one_of_two_who_create_wins_and_readers_see_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableFileSystem::default();
        let at = Path::from_absolute_path(dir.path().join("t/_delta_log/0.json")).unwrap();
        let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
        let (one, other) =
            tokio::join!(store.put_opts(&at, "one".into(), create()), store.put_opts(&at, "other".into(), create()));
        let (won, lost) = if one.is_ok() { ("one", other) } else { ("other", one) };
        assert!(matches!(lost, Err(Error::AlreadyExists { .. })), "{lost:?}");
        assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), won);
        let written = store.put(&at, "anew".into()).await.unwrap();
        assert_eq!(store.head(&at).await.unwrap().e_tag, written.e_tag);
        assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "anew");
        let names: Vec<_> = fs::read_dir(dir.path().join("t/_delta_log")).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0.json#1"), "half").unwrap();
        let store = DurableFileSystem::default();
        let folder = Path::from_absolute_path(dir.path()).unwrap();
        store.put(&folder.clone().join("0.json"), "whole".into()).await.unwrap();
        let listed: Vec<_> = store.list(Some(&folder)).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(fs::read(dir.path().join("0.json")).unwrap(), b"whole");
    }

    #[tokio::test]
    async fn files_in_parts_copies_and_renamed_ones() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableFileSystem::default();
        let at = |name: &str| Path::from_absolute_path(dir.path().join(name)).unwrap();
        let mut upload = store.put_multipart(&at("a/b/c")).await.unwrap();
        upload.put_part("1".into()).await.unwrap();
        upload.put_part("2".into()).await.unwrap();
        upload.complete().await.unwrap();
        store.copy(&at("a/b/c"), &at("d/e")).await.unwrap();
        store.rename(&at("d/e"), &at("f")).await.unwrap();
        assert_eq!(store.get(&at("f")).await.unwrap().bytes().await.unwrap(), "12");
        assert!(matches!(store.copy_if_not_exists(&at("a/b/c"), &at("f")).await, Err(Error::AlreadyExists { .. })));
    }

    #[test]
    fn folders_are_made_where_they_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        create_folders(&dir.path().join("a/b/c")).unwrap();
        create_folders(&dir.path().join("a/b/c")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(create_folders(&dir.path().join("file")).is_err());
        assert!(create_folders(&dir.path().join("file/x")).is_err());
    }
}
