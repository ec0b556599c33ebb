//! Files in object stores: S3, Google Cloud Storage, Azure, and what speaks like them.

use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::{Error, ErrorKind, Result};
use flumen_project::StoreAt;
use flumen_project::store::store_error;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::address;
use crate::download::{Answer, Failure, Remote, Version};

/// One object.
pub struct StoredFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    address: String,
}

/// The objects at `pattern` (a path, perhaps with wildcards) below `base`, in the order of their names.
///
/// Errors: `NotFound` if there is none; those of the store.
pub async fn find(base: &StoreAt, pattern: &str) -> Result<Vec<StoredFile>> {
    let root = base.url.as_str().trim_end_matches('/').to_owned();
    let pattern = pattern.trim_start_matches('/');
    let file = |path: Path, below: &str| StoredFile {
        store: Arc::clone(&base.store),
        path,
        address: format!("{root}/{below}"),
    };
    if !address::has_wildcards(pattern) {
        return Ok(vec![file(join(&base.path, pattern)?, pattern)]);
    }
    let fixed: Vec<&str> = pattern.split('/').take_while(|part| !address::has_wildcards(part)).collect();
    let prefix = join(&base.path, &fixed.join("/"))?;
    let place = format!("{root}/{}", fixed.join("/"));
    let listed: Vec<Path> = base
        .store
        .list(Some(&prefix))
        .map_ok(|object| object.location)
        .try_collect()
        .await
        .map_err(|error| store_error(&place, error))?;
    let below = |path: &Path| {
        let parts: Option<Vec<String>> =
            path.prefix_match(&base.path).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect());
        parts.map(|parts| parts.join("/"))
    };
    let mut found: Vec<(String, Path)> = listed
        .iter()
        .filter_map(|path| Some((below(path)?, path.clone())))
        .filter(|(below, _)| address::matches(pattern, below))
        .collect();
    found.sort();
    if found.is_empty() {
        let names: Vec<String> = listed.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        return Err(Error::not_found(format!("no object matches '{root}/{pattern}'"))
            .hint(address::holds(std::path::Path::new(&place), &names)));
    }
    Ok(found.into_iter().map(|(below, path)| file(path, &below)).collect())
}

fn join(base: &Path, below: &str) -> Result<Path> {
    let whole = format!("{}/{below}", base.as_ref());
    Path::parse(whole.trim_matches('/'))
        .map_err(|error| Error::invalid(format!("'{below}' is not a path that a store can have")).caused_by(error))
}

#[async_trait]
impl Remote for StoredFile {
    fn address(&self) -> &str {
        &self.address
    }

    async fn get(&self, from: u64, version: Option<&Version>) -> Result<Answer, Failure> {
        let mut options = GetOptions::new();
        if let (1.., Some(etag)) = (from, version.and_then(|version| version.etag.clone())) {
            options = options.with_range(Some(GetRange::Offset(from))).with_if_match(Some(etag));
        }
        let answer = match self.store.get_opts(&self.path, options).await {
            // It is another version now: what comes is that one, from its beginning.
            Err(object_store::Error::Precondition { .. }) => self.store.get(&self.path).await,
            other => other,
        };
        let answer = answer.map_err(|error| failure(&self.address, error))?;
        let etag = answer.meta.e_tag.clone().filter(|etag| !etag.starts_with("W/"));
        let version = Version {
            validator: etag.as_ref().map(|etag| format!("etag:{etag}")),
            etag,
            ranges: true,
            ..Version::default()
        };
        let (start, size) = (answer.range.start, Some(answer.meta.size));
        let address = self.address.clone();
        let body = answer.into_stream().map_err(move |error| failure(&address, error)).boxed();
        Ok(Answer { start, size, version, body })
    }
}

fn failure(address: &str, error: object_store::Error) -> Failure {
    let error = store_error(address, error);
    match error.kind() {
        // The store's client has tried each request again already; what is tried again here is a body that broke off.
        ErrorKind::Unavailable => Failure::again(error),
        _ => Failure::Final(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    async fn bucket() -> StoreAt {
        let store = InMemory::new();
        for path in ["raw/b.csv", "raw/a.csv", "raw/d/c.csv", "raw/x.txt", "rawer/a.csv"] {
            store.put(&Path::from(path), "a\n1\n".into()).await.unwrap();
        }
        StoreAt { url: "s3://bucket/raw/".parse().unwrap(), store: Arc::new(store), path: Path::from("raw") }
    }

    async fn check(pattern: &str) -> String {
        match find(&bucket().await, pattern).await {
            Ok(files) => files.iter().map(|file| file.address.clone()).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{error} [{}]", error.remedy().unwrap_or_default()),
        }
    }

    #[tokio::test]
    async fn objects_are_found_by_pattern() {
        assert_eq!(check("*.csv").await, "s3://bucket/raw/a.csv s3://bucket/raw/b.csv");
        assert_eq!(check("**/c.csv").await, "s3://bucket/raw/d/c.csv");
        assert_eq!(check("d/*").await, "s3://bucket/raw/d/c.csv");
        assert_eq!(check("x.txt").await, "s3://bucket/raw/x.txt");
        assert_eq!(
            check("d/*.parquet").await,
            "no object matches 's3://bucket/raw/d/*.parquet' [s3://bucket/raw/d holds c.csv]"
        );
    }

    #[tokio::test]
    async fn an_object_is_fetched_with_its_etag() {
        let files = find(&bucket().await, "a.csv").await.unwrap();
        let answer = files[0].get(0, None).await.unwrap();
        assert_eq!(answer.size, Some(4));
        assert_eq!(answer.version.validator, answer.version.etag.as_ref().map(|etag| format!("etag:{etag}")));
        let version = answer.version;
        let rest = files[0].get(2, Some(&version)).await.unwrap();
        assert_eq!((rest.start, rest.size), (2, Some(4)));
        let gone = find(&bucket().await, "gone.csv").await.unwrap();
        let Err(Failure::Final(error)) = gone[0].get(0, None).await else { panic!("it is not there") };
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
