//! Object stores: what a URL or a connection opens, and what their errors mean.

use std::sync::Arc;
use std::time::Duration;

use flumen_core::limits::{REQUEST_TRIES, RETRY_DELAY, RETRY_DELAY_MAX};
use flumen_core::{Error, ErrorKind, Result};
use futures::StreamExt as _;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::connections::Check;
use crate::connections::{azure::AzureConfig, gcs::GcsConfig, local::LocalConfig, s3::S3Config};
use crate::environment::Environment;

/// How long a store may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one request to a store may take, its body included. Large objects are read in ranges.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long after a request's beginning it may be tried again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// How many objects a test of a store looks at.
const TEST_OBJECTS: usize = 100;

/// A place in an object store.
#[derive(Debug, Clone)]
pub struct StoreAt {
    /// The place as a URL, without credentials: `s3://bucket/raw/`, `file:///data/lake/`.
    pub url: Url,
    /// The whole bucket, container or file system.
    pub store: Arc<dyn ObjectStore>,
    /// The place in the store.
    pub path: Path,
}

impl StoreAt {
    /// Lists the place, to see whether the store answers and lets us in.
    pub(crate) async fn test(&self) -> Check {
        let mut objects = self.store.list(Some(&self.path)).take(TEST_OBJECTS);
        let mut found = 0;
        let mut outcome = Ok(());
        while let Some(object) = objects.next().await {
            match object {
                Ok(_) => found += 1,
                Err(error) => {
                    outcome = Err(store_error(self.url.as_str(), error));
                    break;
                }
            }
        }
        let said = match found {
            0 => "it is empty".to_owned(),
            1 => "one object".to_owned(),
            TEST_OBJECTS => format!("{TEST_OBJECTS} objects or more"),
            some => format!("{some} objects"),
        };
        Check { what: format!("list {}", self.url), outcome: outcome.map(|()| said) }
    }
}

/// The object store for `url`, with the credentials that the environment has: `s3://bucket/key`, `gs://bucket/key`,
/// `az://container/key` (the account from `AZURE_STORAGE_ACCOUNT_NAME`), `abfss://container@account.dfs.core.windows.net/key`
/// and `file:///path`.
///
/// Within a project use `Project::object_store_for`, which knows the connections too.
///
/// Errors: `Invalid` for a URL of another kind or one that lacks something.
pub fn object_store_for(url: &Url, environment: &Environment) -> Result<StoreAt> {
    match url.scheme() {
        "file" => LocalConfig::of_url(url)?.object_store(),
        "s3" | "s3a" => S3Config::of_url(url)?.object_store(environment),
        "gs" | "gcs" => GcsConfig::of_url(url)?.object_store(environment),
        "az" | "azure" | "abfs" | "abfss" | "wasb" | "wasbs" => {
            AzureConfig::of_url(url, environment)?.object_store(environment)
        }
        other => Err(Error::invalid(format!("'{other}://' is not the address of an object store"))
            .hint("write s3://bucket/key, gs://bucket/key, az://container/key or abfss://container@account.dfs.core.windows.net/key")),
    }
}

/// The bucket of a URL, and the path in it.
pub(crate) fn bucket_and_path(url: &Url) -> Result<(String, Path)> {
    let bucket = url.host_str().filter(|host| !host.is_empty());
    let bucket = bucket.ok_or_else(|| Error::invalid(format!("{url} names no bucket")))?;
    let path = Path::from_url_path(url.path())
        .map_err(|error| Error::invalid(format!("{url} is not a path that a bucket can have")).caused_by(error))?;
    Ok((bucket.to_owned(), path))
}

/// The path below `prefix`, where settings give one.
pub(crate) fn prefix_path(prefix: Option<&str>) -> Result<Path> {
    Path::parse(prefix.unwrap_or_default().trim_matches('/'))
        .map_err(|error| Error::invalid(format!("prefix: {error}")).hint("write it as a/b/c"))
}

/// How our stores wait and time out.
pub(crate) fn client_options() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT)
}

/// How our stores try again.
pub(crate) fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: RETRY_DELAY, max_backoff: RETRY_DELAY_MAX, base: 2.0 },
        max_retries: REQUEST_TRIES as usize - 1,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// What an error of an object store at `place` means: its kind, one sentence, and a remedy.
pub fn store_error(place: impl std::fmt::Display, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    // Local stores put the I/O error inside; it knows best.
    if let Some(io) = io_kind(&error) {
        return Error::io(place, std::io::Error::from(io)).caused_by(error);
    }
    // A refused listing arrives as a generic error, with the status somewhere in the causes.
    let text = whole_text(&error);
    let status =
        text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)).and_then(|code| code.parse().ok());
    let credentials = "check the credentials and what they may do, or set 'anonymous: true' for a public bucket";
    let missing = "set them in the connection or in the environment, or set 'anonymous: true' for a public bucket";
    let (kind, what, hint) = match (&error, status) {
        (Store::NotFound { .. }, _) | (_, Some(404))
            if ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| text.contains(code)) =>
        {
            (
                ErrorKind::NotFound,
                "there is no such bucket",
                Some("check the bucket's name, its region and the endpoint"),
            )
        }
        (Store::NotFound { .. }, _) | (_, Some(404)) => {
            (ErrorKind::NotFound, "not found (404)", Some("check the bucket and the path"))
        }
        (Store::PermissionDenied { .. }, _) | (_, Some(403)) => {
            (ErrorKind::Invalid, "access denied (403)", Some(credentials))
        }
        (Store::Unauthenticated { .. }, _) | (_, Some(401)) => {
            (ErrorKind::Invalid, "the credentials are missing or wrong (401)", Some(missing))
        }
        (Store::AlreadyExists { .. } | Store::Precondition { .. }, _) => {
            (ErrorKind::Conflict, "somebody else wrote it first", Some("run the same command again"))
        }
        (Store::NotSupported { .. } | Store::NotImplemented { .. }, _) => {
            (ErrorKind::Invalid, "the store cannot do this", None)
        }
        (Store::InvalidPath { .. }, _) => (ErrorKind::Invalid, "this is not a path that a store can have", None),
        _ if text.contains("169.254.169.254") || text.contains("metadata.google") => {
            (ErrorKind::Invalid, "no credentials were found", Some(missing))
        }
        (_, Some(301 | 307)) => (
            ErrorKind::Invalid,
            "the bucket is in another region",
            Some("set 'region' in the connection, or AWS_REGION"),
        ),
        _ if text.contains("configured region") => (
            ErrorKind::Invalid,
            "the bucket is in another region",
            Some("set 'region' in the connection, or AWS_REGION"),
        ),
        _ if text.contains("URL scheme is not allowed") => (
            ErrorKind::Invalid,
            "the endpoint is not https",
            Some("set 'allow_http: true' in the connection if that is meant"),
        ),
        _ => (
            ErrorKind::Unavailable,
            "the store does not answer as it should",
            Some("check the endpoint and the network, then try again"),
        ),
    };
    let detail = match kind {
        ErrorKind::Unavailable => format!("{place}: {what}: {}", innermost(&error)),
        _ => format!("{place}: {what}"),
    };
    let made = Error::new(kind, detail).caused_by(error);
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    // A network's I/O errors lie deeper, below those of the HTTP client, and mean that the server does not answer.
    let mut cause = error.source();
    for _ in 0..2 {
        let inner = cause?;
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = inner.source();
    }
    None
}

/// The messages of an error and of all its causes.
fn whole_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str("; ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// The message of the innermost cause: the one that says what really happened.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        last = inner.to_string();
        cause = inner.source();
    }
    last
}
