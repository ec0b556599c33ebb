//! Volumes: files that are no tables, beside the tables.
//!
//! A file is put under a name that no other has, then the catalog is told: readers see the old file or the new one, whole.
//! What is taken out of the catalog is removed afterwards, by the command or by vacuum.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FsPath;

use flumen_core::boxed;
use flumen_core::dataset::TableName;
use flumen_core::limits::UPLOAD_PART_BYTES;
use flumen_core::load::LoadId;
use flumen_core::words::counted;
use flumen_core::{Error, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::io::AsyncReadExt;

use crate::catalog::{About, Action, Catalog, PROD, State, Volume, VolumeFile};
use crate::lake::{Table, delete_files, location_of};

/// Changes what people say about a thing.
pub type Say<'a> = &'a (dyn Fn(&mut About) + Sync);

/// The checksum of what `hasher` has seen, as the catalog keeps it.
pub(crate) fn checksum(hasher: &blake3::Hasher) -> String {
    format!("blake3:{}", hasher.finalize().to_hex())
}

/// What people say about a file that is put.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// What is in it; by the ending of its name, if none.
    pub media_type: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Words by which it is found.
    pub tags: BTreeSet<String>,
}

/// The file's path within its volume, checked.
fn check_path(path: &str) -> Result<()> {
    let odd =
        |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\\', '\0']) || part.len() > 200;
    if path.len() > 1000 || path.split('/').any(odd) {
        return Err(Error::invalid(format!("'{path}' is no path within a volume"))
            .hint("write names with slashes between them, such as 2024/cat.png"));
    }
    Ok(())
}

impl Catalog {
    /// Puts local files into the volume `name`, which is made if it is not there: all are seen at once.
    ///
    /// Errors: `Conflict` if a table has that name; `Invalid` for a path that is none; those of the disk and the store.
    #[boxed]
    pub async fn put_files(
        &self,
        name: &TableName,
        files: &[(std::path::PathBuf, String)],
        options: &PutOptions,
    ) -> Result<Vec<VolumeFile>> {
        for (_, path) in files {
            check_path(path)?;
        }
        let state = self.read().await?;
        let volume = match state.volumes.get(name) {
            Some(volume) => volume.clone(),
            None => self.make_volume(name).await?,
        };
        let place = self.lake().table_at(&volume.location, name)?;
        let mut put = Vec::new();
        for (source, path) in files {
            put.push((path.clone(), self.put_file(&place, source, path, options).await?));
        }
        let mut replaced = Vec::new();
        let reason = match put.as_slice() {
            [(path, _)] => format!("put {name}/{path}"),
            many => format!("put {} into {name}", counted(many.len() as u64, "file")),
        };
        let told = self
            .change(&reason, |state| {
                let volume = state.volumes.get(name).ok_or_else(|| no_volume(state, name))?;
                replaced = put.iter().filter_map(|(path, _)| Some(volume.files.get(path)?.object.clone())).collect();
                Ok(put
                    .iter()
                    .map(|(path, file)| Action::PutFile {
                        volume: name.clone(),
                        path: path.clone(),
                        file: file.clone(),
                    })
                    .collect())
            })
            .await;
        if told.is_err() {
            replaced = put.iter().map(|(_, file)| file.object.clone()).collect();
        }
        // What stays behind is swept by vacuum.
        let _ = delete_files(&place, replaced.into_iter().map(Path::from).collect()).await;
        told?;
        Ok(put.into_iter().map(|(_, file)| file).collect())
    }

    async fn make_volume(&self, name: &TableName) -> Result<Volume> {
        let state = self.read().await?;
        if self.exists(&state, PROD, name).await? {
            return Err(Error::conflict(format!("'{name}' is a table, not a volume")).hint("choose another name"));
        }
        let location = format!("{}__files", location_of(name));
        let location = if state.places().contains_key(location.as_str()) { self.made_place(name) } else { location };
        let made = Volume { location, files: BTreeMap::new(), about: About::default(), created: self.clock().now() };
        let state = self
            .change(&format!("make volume {name}"), |state| {
                let there = state.volumes.contains_key(name);
                let make = Action::PutVolume { name: name.clone(), volume: made.clone() };
                Ok(if there { Vec::new() } else { vec![make] })
            })
            .await?;
        state.volumes.get(name).cloned().ok_or_else(|| no_volume(&state, name))
    }

    async fn put_file(&self, place: &Table, source: &FsPath, path: &str, options: &PutOptions) -> Result<VolumeFile> {
        let failed = |error| Error::io(source.display(), error);
        let mut file = tokio::fs::File::open(source).await.map_err(failed)?;
        let ending = path.rsplit_once('.').map(|(_, ending)| ending.to_lowercase()).unwrap_or_default();
        let id = LoadId::from_uuid(self.ids().next());
        let plain = ending.len() <= 10 && ending.chars().all(|c| c.is_ascii_alphanumeric());
        let object = if ending.is_empty() || !plain { id.to_string() } else { format!("{id}.{ending}") };
        let target = Path::from(object.as_str());
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        let broken = |error| place.store_error(error);
        let mut upload = place.store().put_multipart(&target).await.map_err(broken)?;
        loop {
            let mut part = Vec::with_capacity(UPLOAD_PART_BYTES);
            let read = (&mut file).take(UPLOAD_PART_BYTES as u64).read_to_end(&mut part).await.map_err(failed)?;
            hasher.update(&part);
            size += read as u64;
            if read > 0 || size == 0 {
                upload.put_part(part.into()).await.map_err(broken)?;
            }
            if read < UPLOAD_PART_BYTES {
                break;
            }
        }
        upload.complete().await.map_err(broken)?;
        let about = About { description: options.description.clone(), tags: options.tags.clone(), owner: None };
        let media_type = options.media_type.clone().unwrap_or_else(|| media_type(&ending).to_owned());
        Ok(VolumeFile { object, size, checksum: checksum(&hasher), media_type, about, created: self.clock().now() })
    }

    /// The bytes of a file of a volume.
    ///
    /// Errors: `NotFound` if there is no such volume or file.
    #[boxed]
    pub async fn get_file(
        &self,
        name: &TableName,
        path: &str,
    ) -> Result<(VolumeFile, BoxStream<'static, Result<bytes::Bytes>>)> {
        let state = self.read().await?;
        let volume = state.volumes.get(name).ok_or_else(|| no_volume(&state, name))?;
        let file = volume.files.get(path).ok_or_else(|| no_file(volume, name, path))?;
        let place = self.lake().table_at(&volume.location, name)?;
        let found = place.store().get(&Path::from(file.object.as_str())).await;
        let found = found.map_err(|error| place.store_error(error))?;
        let stream = found.into_stream().map_err(move |error| place.store_error(error));
        Ok((file.clone(), stream.boxed()))
    }

    /// Changes what people say about files of a volume: one, or with a path that ends with a slash all below it; with none, about
    /// the volume. Gives what is said now, with the paths.
    ///
    /// Errors: `NotFound` if there is no such volume or file.
    #[boxed]
    pub async fn describe_files<'a>(
        &'a self,
        name: &'a TableName,
        path: &'a str,
        say: Say<'a>,
    ) -> Result<Vec<(String, About)>> {
        let mut said: Vec<(String, About)> = Vec::new();
        self.change(&format!("describe {name}/{path}"), |state| {
            let volume = state.volumes.get(name).ok_or_else(|| no_volume(state, name))?;
            if path.is_empty() {
                let mut volume = volume.clone();
                say(&mut volume.about);
                said = vec![(String::new(), volume.about.clone())];
                return Ok(vec![Action::PutVolume { name: name.clone(), volume }]);
            }
            let meant = |known: &str| known == path || path.ends_with('/') && known.starts_with(path);
            let mut actions = Vec::new();
            said.clear();
            for (known, file) in volume.files.iter().filter(|(known, _)| meant(known)) {
                let mut file = file.clone();
                say(&mut file.about);
                said.push((known.clone(), file.about.clone()));
                actions.push(Action::PutFile { volume: name.clone(), path: known.clone(), file });
            }
            if actions.is_empty() { Err(no_file(volume, name, path)) } else { Ok(actions) }
        })
        .await?;
        Ok(said)
    }

    /// Takes files out of a volume: one, or with a path that ends with a slash (or none) all below it. Gives their paths.
    ///
    /// Errors: `NotFound` if there is no such volume or file.
    #[boxed]
    pub async fn remove_files(&self, name: &TableName, path: &str) -> Result<Vec<String>> {
        let below = |known: &str| path.is_empty() || known == path || path.ends_with('/') && known.starts_with(path);
        let mut gone: Vec<(String, String)> = Vec::new();
        let before = self.read().await?;
        let volume = before.volumes.get(name).ok_or_else(|| no_volume(&before, name))?;
        let place = self.lake().table_at(&volume.location, name)?;
        self.change(&format!("remove {name}/{path}"), |state| {
            let volume = state.volumes.get(name).ok_or_else(|| no_volume(state, name))?;
            let files = volume.files.iter().filter(|(known, _)| below(known));
            gone = files.map(|(path, file)| (path.clone(), file.object.clone())).collect();
            if gone.is_empty() && !path.is_empty() {
                return Err(no_file(volume, name, path));
            }
            if path.is_empty() {
                return Ok(vec![Action::RemoveVolume { name: name.clone() }]);
            }
            let remove = |(path, _): &(String, String)| Action::RemoveFile { volume: name.clone(), path: path.clone() };
            Ok(gone.iter().map(remove).collect())
        })
        .await?;
        let _ = delete_files(&place, gone.iter().map(|(_, object)| Path::from(object.as_str())).collect()).await;
        Ok(gone.into_iter().map(|(path, _)| path).collect())
    }
}

pub(crate) fn no_volume(state: &State, name: &TableName) -> Error {
    let known: Vec<String> = state.volumes.keys().map(ToString::to_string).collect();
    Error::not_found(format!("there is no volume '{name}'"))
        .hint("'flumen lake put FILE lake.NAMESPACE.VOLUME/' makes one")
        .did_you_mean(&name.to_string(), known.iter().map(String::as_str))
}

fn no_file(volume: &Volume, name: &TableName, path: &str) -> Error {
    Error::not_found(format!("the volume '{name}' has no file '{path}'"))
        .hint(format!("'flumen lake ls lake.{name}' shows those it has"))
        .did_you_mean(path, volume.files.keys().map(String::as_str))
}

/// What is in a file whose name ends with `ending`.
fn media_type(ending: &str) -> &'static str {
    match ending {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "tif" | "tiff" => "image/tiff",
        "pdf" => "application/pdf",
        "txt" | "log" => "text/plain",
        "md" => "text/markdown",
        "html" | "htm" => "text/html",
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "xml" => "application/xml",
        "json" => "application/json",
        "ndjson" | "jsonl" => "application/x-ndjson",
        "yml" | "yaml" => "application/yaml",
        "parquet" => "application/vnd.apache.parquet",
        "arrow" => "application/vnd.apache.arrow.file",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "zst" => "application/zstd",
        "tar" => "application/x-tar",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_within_the_volume() {
        for bad in ["", "/x", "../x", "a/../b", "a//b", "a\\b"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        assert!(check_path("2024/a b–c.png").is_ok());
    }
}
