//! Where files come from: a registry of the sources, and how an address finds its own.

use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::boxed;
use flumen_core::read::{FileReader, Input, ReadOptions, Source};
use flumen_core::{Error, Result};
use flumen_project::connections::{Config, http::plain_client};
use flumen_project::store::object_store_for;
use flumen_project::{Environment, Project, StoreAt};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use url::Url;

use crate::address;
use crate::blob::Blob;
use crate::download::{self, Remote, Retry};
use crate::folders;
use crate::formats;
use crate::spool::Spool;

pub mod http;
pub mod local;
pub mod object_store;
pub mod postgres;
pub mod stdin;

use http::WebFile;
use local::LocalFile;

/// Downloads that are begun at once.
const DOWNLOADS: usize = 4;

/// All files that can be read, wherever they are: paths, patterns, URLs, standard input.
pub struct Files {
    project: Option<Arc<Project>>,
    spool: Arc<Spool>,
    retry: Retry,
}

impl Files {
    /// Files, with what comes from elsewhere kept in the system's folder for temporary files while it is needed.
    pub fn new() -> Self {
        Self { project: None, spool: Spool::new(), retry: Retry::default() }
    }

    /// The same, with the connections and the folder for temporary files of `project`.
    ///
    /// Errors: `Invalid` when the folder's template is wrong.
    pub fn of_project(project: Arc<Project>) -> Result<Self> {
        let spool = project.spool()?.map_or_else(Spool::new, Spool::within);
        Ok(Self { project: Some(project), spool, retry: Retry::default() })
    }

    /// The same, with what comes from elsewhere kept in `spool`.
    pub fn with_spool(self, spool: Arc<Spool>) -> Self {
        Self { spool, ..self }
    }

    /// The same, with failed requests tried again as `retry` says.
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The files at `address`, in order.
    async fn find(&self, address: &str) -> Result<Vec<Arc<dyn Blob>>> {
        match self.locate(address).await? {
            Located::Stdin => Ok(vec![stdin::open(&self.spool)?]),
            Located::Local(addresses) => self.find_local(&addresses),
            Located::Remote(remotes) => self.download(remotes).await,
        }
    }

    /// The addresses of the files at `address`, in order: each opens again. None of them is opened; those on web servers need not
    /// be there.
    ///
    /// Errors: `NotFound` if there is none; those of the stores.
    #[boxed]
    pub async fn addresses(&self, address: &str) -> Result<Vec<String>> {
        match self.locate(address).await? {
            Located::Stdin => Ok(vec![address.to_owned()]),
            Located::Local(patterns) => {
                let mut files = Vec::new();
                for pattern in &patterns {
                    files.extend(address::local_files(pattern)?);
                }
                Ok(files.into_iter().map(|path| path.display().to_string()).collect())
            }
            Located::Remote(remotes) => Ok(remotes.iter().map(|remote| remote.address().to_owned()).collect()),
        }
    }

    async fn locate(&self, address: &str) -> Result<Located> {
        if address == "-" {
            return Ok(Located::Stdin);
        }
        match address.split_once("://") {
            None => Ok(Located::Local(expand_local(address)?)),
            Some(("file", path)) => Ok(Located::Local(expand_local(path)?)),
            Some(("http" | "https", _)) => Ok(Located::Remote(self.web_files(&address::expand(address)?)?)),
            Some((scheme, below)) => match self.connection(scheme)? {
                Some(config) => self.find_connected(config, &address::expand(below)?).await,
                None => self.find_stored(&address::expand(address)?).await.map(Located::Remote),
            },
        }
    }

    /// The files on the local disk at `addresses`.
    fn find_local(&self, addresses: &[String]) -> Result<Vec<Arc<dyn Blob>>> {
        let mut blobs: Vec<Arc<dyn Blob>> = Vec::new();
        for address in addresses {
            for path in address::local_files(address)? {
                let file = LocalFile::open(path)?;
                // A pipe is empty once it has been read: it is kept while it is.
                blobs.push(if file.is_regular() { Arc::new(file) } else { stdin::keep(file, &self.spool)? });
            }
        }
        Ok(blobs)
    }

    /// The connection called `name`, if the project has one.
    fn connection(&self, name: &str) -> Result<Option<Config>> {
        let Some(project) = &self.project else { return Ok(None) };
        project.connections().find(|connection| connection.name() == name).map(|found| found.config()).transpose()
    }

    /// The files at `paths` of a connection: `minio://raw/x.csv` is `raw/x.csv` of the connection `minio`.
    async fn find_connected(&self, config: Config, paths: &[String]) -> Result<Located> {
        if let Config::Http(config) = &config {
            let client = config.client()?;
            let file = |path: &String| {
                let file = WebFile::new(client.clone(), config.address(path)?);
                Ok(Arc::new(file) as Arc<dyn Remote>)
            };
            return Ok(Located::Remote(paths.iter().map(file).collect::<Result<_>>()?));
        }
        if let Config::Local(config) = &config {
            let below = |path: &String| config.root.join(path).display().to_string();
            return Ok(Located::Local(paths.iter().map(below).collect()));
        }
        let environment = self.environment();
        let store = match config {
            Config::S3(config) => config.object_store(&environment)?,
            Config::Gcs(config) => config.object_store(&environment)?,
            Config::Azure(config) => config.object_store(&environment)?,
            _ => return Err(Error::invalid("the connection is of a kind that holds no files")),
        };
        let mut remotes = Vec::new();
        for path in paths {
            remotes.extend(stored(&store, path).await?);
        }
        Ok(Located::Remote(remotes))
    }

    fn environment(&self) -> Environment {
        self.project.as_ref().map_or_else(Environment::of_process, |project| project.environment().clone())
    }

    /// The objects at `addresses`, URLs that may have wildcards.
    async fn find_stored(&self, addresses: &[String]) -> Result<Vec<Arc<dyn Remote>>> {
        let mut remotes = Vec::new();
        for address in addresses {
            let (bucket, path) = split_bucket(address);
            let url = Url::parse(bucket).map_err(|error| {
                Error::invalid(format!("'{address}' is not an address: {error}"))
                    .hint("write s3://bucket/path/file.csv")
            })?;
            let store = match &self.project {
                Some(project) => project.object_store_for(&url)?,
                None => object_store_for(&url, &self.environment())?,
            };
            remotes.extend(stored(&store, path).await?);
        }
        Ok(remotes)
    }

    /// The files at `addresses` on web servers.
    fn web_files(&self, addresses: &[String]) -> Result<Vec<Arc<dyn Remote>>> {
        let mut files: Vec<Arc<dyn Remote>> = Vec::new();
        // Files of one folder share a client, and so its connections.
        let mut last: Option<(Url, reqwest::Client)> = None;
        for address in addresses {
            let url = Url::parse(address).map_err(|error| {
                Error::invalid(format!("'{}' is not an address: {error}", without_user(address)))
                    .hint("write https://host/path/file.csv")
            })?;
            if url.path().contains('*') {
                return Err(Error::invalid(format!(
                    "{}: a web server cannot list its files",
                    http::public_address(&url)
                ))
                .hint("write the names out, or a range such as trips_{2019-01..2019-06}.csv"));
            }
            let folder = url.join(".").unwrap_or_else(|_| url.clone());
            let client = match &last {
                Some((shared, client)) if *shared == folder => client.clone(),
                _ => match &self.project {
                    Some(project) => project.http_client_for(&url)?,
                    None => plain_client()?,
                },
            };
            last = Some((folder, client.clone()));
            files.push(Arc::new(WebFile::new(client, url)));
        }
        Ok(files)
    }

    /// Begins to download `remotes`.
    async fn download(&self, remotes: Vec<Arc<dyn Remote>>) -> Result<Vec<Arc<dyn Blob>>> {
        let mut begun: Vec<BoxFuture<'static, Result<Arc<dyn Blob>>>> = Vec::new();
        for remote in remotes {
            begun.push(download::begin(remote, Arc::clone(&self.spool), self.retry).boxed());
        }
        futures::stream::iter(begun).buffered(DOWNLOADS).try_collect().await
    }
}

/// Where the files at an address are.
enum Located {
    /// On standard input.
    Stdin,
    /// On the local disk, as paths that may have wildcards.
    Local(Vec<String>),
    /// Elsewhere.
    Remote(Vec<Arc<dyn Remote>>),
}

async fn stored(store: &StoreAt, path: &str) -> Result<Vec<Arc<dyn Remote>>> {
    let files = object_store::find(store, path).await?;
    Ok(files.into_iter().map(|file| Arc::new(file) as Arc<dyn Remote>).collect())
}

/// `s3://bucket/a/b` as `s3://bucket` and `a/b`.
fn split_bucket(address: &str) -> (&str, &str) {
    let start = address.find("://").map_or(0, |at| at + 3);
    match address[start..].find('/') {
        Some(slash) => (&address[..start + slash], &address[start + slash + 1..]),
        None => (address, ""),
    }
}

/// An address that cannot be understood, without what may be a password.
fn without_user(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => address.to_owned(),
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

/// The addresses that `address` stands for; a file with braces in its name stands for itself.
fn expand_local(address: &str) -> Result<Vec<String>> {
    if std::path::Path::new(address).exists() { Ok(vec![address.to_owned()]) } else { address::expand(address) }
}

#[async_trait]
impl FileReader for Files {
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        let blobs = self.find(address).await?;
        let (options, spool) = (options.clone(), Arc::clone(&self.spool));
        // Formats read from disk, and wait for what is on its way.
        let opened = tokio::task::spawn_blocking(move || {
            let mut inputs = Vec::new();
            for blob in blobs {
                inputs.extend(formats::open(blob, &options, &spool)?);
            }
            Ok(folders::with_columns(inputs, &options.folder_text))
        });
        opened.await.map_err(|error| Error::internal("reading a file broke off").caused_by(error))?
    }
}

#[async_trait]
impl Source for Files {
    async fn open(&self, address: &str, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        FileReader::open(self, address, options).await
    }
}
