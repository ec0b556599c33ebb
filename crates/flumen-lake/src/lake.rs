//! The lake: Delta tables at `<root>/<namespace>/<table>`, in a local folder or an object store.
//!
//! Nothing here is cached: each [`Table::snapshot`] reads the log anew, so what it gives is the latest version.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use deltalake_core::kernel::{DeletionVectorDescriptor, EagerSnapshot, Version};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::{DeltaTableError, kernel::transaction::TransactionError};
use flumen_core::dataset::{LAKE, TableName};
use flumen_core::{Error, ErrorKind, Result};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use flumen_project::durable::DurableFileSystem;

/// A storage root that holds namespaces, which hold Delta tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lake {
    /// The URL of the root, with a slash at its end.
    url: Url,
    /// The store of the root's bucket (of the whole file system, for a folder).
    store: Arc<dyn ObjectStore>,
    /// The root within the store.
    prefix: Path,
    /// The root on the local disk, if it is there.
    folder: Option<PathBuf>,
}

impl Lake {
    /// The lake in a local folder. The folder need not be there yet: the first load makes it.
    ///
    /// Errors: `Invalid` if the path cannot be made absolute.
    pub fn local(folder: impl AsRef<FsPath>) -> Result<Self> {
        let folder = folder.as_ref();
        let folder = std::path::absolute(folder).map_err(|error| Error::io(folder.display(), error))?;
        let url = Url::from_directory_path(&folder)
            .map_err(|()| Error::invalid(format!("{}: not a path that an URL can hold", folder.display())))?;
        let prefix = Path::from_absolute_path(&folder).map_err(|error| {
            Error::invalid(format!("{}: cannot be the root of a lake: {error}", folder.display()))
                .hint("choose a folder whose name has letters, digits, spaces, dashes and dots only")
        })?;
        Ok(Self { url, store: Arc::new(DurableFileSystem::default()), prefix, folder: Some(folder) })
    }

    /// The lake at `url` in an object store. `store` is that of the whole bucket (container, account): the path of `url`
    /// is the place of the lake in it. It must support conditional PUT, as S3, GCS and Azure do.
    ///
    /// Errors: `Invalid` if the path of the URL cannot be one in an object store.
    pub fn at(mut url: Url, store: Arc<dyn ObjectStore>) -> Result<Self> {
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| Error::invalid(format!("{url}: cannot be the root of a lake: {error}")))?;
        Ok(Self { url, store, prefix, folder: None })
    }

    /// The URL of the root, with a slash at its end.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The store of the root's bucket; of the whole file system, for a folder. Paths in it are those of the URLs.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The root on the local disk, if it is there.
    pub fn folder(&self) -> Option<&FsPath> {
        self.folder.as_deref()
    }

    /// The names of the namespaces, sorted. A lake that is not there yet has none.
    pub async fn namespaces(&self) -> Result<Vec<String>> {
        self.folders_in(&self.prefix).await
    }

    /// The tables of a namespace, sorted. A folder without a Delta log is not a table.
    pub async fn tables(&self, namespace: &str) -> Result<Vec<TableName>> {
        let mut tables = Vec::new();
        let root = self.prefix.clone().join(namespace);
        for table in self.folders_in(&root).await? {
            let Ok(name) = TableName::new(namespace, &table) else { continue };
            let log = root.clone().join(table).join("_delta_log");
            let mut entries = self.store.list(Some(&log));
            if entries.try_next().await.map_err(|error| store_error(&log, error))?.is_some() {
                tables.push(name);
            }
        }
        Ok(tables)
    }

    async fn folders_in(&self, path: &Path) -> Result<Vec<String>> {
        let listed = match self.store.list_with_delimiter(Some(path)).await {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(store_error(path, error)),
        };
        let mut names: Vec<String> = listed
            .common_prefixes
            .iter()
            .filter_map(|prefix| prefix.filename().map(str::to_owned))
            .filter(|name| !name.starts_with(['.', '_']))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The table called `name`, whether it is there or not.
    ///
    /// Errors: `Invalid` if the name has characters that cannot be kept in an object store as they are.
    pub fn table(&self, name: &TableName) -> Result<Table> {
        let prefix = self.prefix.clone().join(name.namespace.as_str()).join(name.table.as_str());
        if !prefix.as_ref().ends_with(&format!("{}/{}", name.namespace, name.table)) {
            return Err(Error::invalid(format!("the name '{name}' has a character that an object store cannot keep"))
                .hint("use letters, digits and underscores"));
        }
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&name.namespace).push(&name.table).push("");
        }
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&self.store), prefix.clone()));
        let log = default_logstore(Arc::clone(&store), Arc::clone(&self.store), &url, &StorageConfig::default());
        let folder = self.folder.as_ref().map(|root| root.join(&name.namespace).join(&name.table));
        Ok(Table { lake: self.clone(), name: name.clone(), url, store, log, folder })
    }
}

/// A place for a Delta table: it may hold one, or not yet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Table {
    lake: Lake,
    name: TableName,
    url: Url,
    store: Arc<dyn ObjectStore>,
    pub(crate) log: LogStoreRef,
    folder: Option<PathBuf>,
}

impl Table {
    /// Its name.
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// The table in which the rows are that loads into this one refused.
    pub fn quarantine(&self) -> Result<Self> {
        self.lake.table(&self.name.quarantine())
    }

    /// Its address, as users write it: `lake.raw.trips`.
    pub fn address(&self) -> String {
        format!("{LAKE}.{}", self.name)
    }

    /// Its folder as an URL, with a slash at its end.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The store whose root is the table's folder.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Its folder on the local disk, if it is there.
    pub fn folder(&self) -> Option<&FsPath> {
        self.folder.as_deref()
    }

    /// The latest version, or `None` if there is no table here yet.
    ///
    /// Errors: `Invalid` if the folder holds files but no Delta table; `Data` if the log cannot be understood.
    pub async fn snapshot(&self) -> Result<Option<Snapshot>> {
        self.snapshot_at(None).await
    }

    /// The given version, or the latest.
    ///
    /// Errors: as [`Table::snapshot`], and `NotFound` if the table has no such version.
    pub async fn snapshot_at(&self, version: Option<u64>) -> Result<Option<Snapshot>> {
        let exists = self.log.is_delta_table_location().await.map_err(|error| self.error(error))?;
        if !exists {
            self.refuse_foreign_folder().await?;
            return Ok(None);
        }
        let state = EagerSnapshot::try_new(self.log.as_ref(), version.map(|version| version as Version)).await;
        let state = state.map_err(|error| match (version, error) {
            (Some(version), DeltaTableError::InvalidVersion(_)) => {
                Error::not_found(format!("{} has no version {version}", self.address()))
            }
            (_, error) => self.error(error),
        })?;
        Ok(Some(Snapshot { table: self.clone(), state }))
    }

    /// A folder with files that no load of ours left, and without a Delta log, is somebody else's.
    async fn refuse_foreign_folder(&self) -> Result<()> {
        let mut files = self.store.list(None);
        loop {
            match files.try_next().await {
                Ok(None) | Err(object_store::Error::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(self.store_error(error)),
                Ok(Some(file)) => {
                    let ours = file.location.parts().next().is_some_and(|part| part.as_ref().starts_with(LOAD_FOLDER));
                    if !ours && !file.location.as_ref().starts_with(['.', '_']) {
                        return Err(Error::invalid(format!(
                            "{}: the folder {} holds files ({}) but is no Delta table",
                            self.address(),
                            self.url,
                            file.location
                        ))
                        .hint("choose another table name, or move these files away"));
                    }
                }
            }
        }
    }

    /// An error of the Delta library, in our words.
    pub(crate) fn error(&self, error: DeltaTableError) -> Error {
        match error {
            DeltaTableError::ObjectStore { source }
            | DeltaTableError::Transaction { source: TransactionError::ObjectStore { source } } => {
                self.store_error(source)
            }
            other => match io_cause(&other) {
                Some(io) => Error::io(self.address(), io),
                None => Error::data(format!("{}: the log of the table cannot be read: {other}", self.address()))
                    .hint("see the folder _delta_log of the table; another tool may have written what is not supported")
                    .caused_by(other),
            },
        }
    }

    /// An error of the store, in our words.
    pub(crate) fn store_error(&self, error: object_store::Error) -> Error {
        store_error(self.address(), error)
    }
}

/// The folders that loads write into begin so.
pub(crate) const LOAD_FOLDER: &str = "load-";

/// An error of an object store at `place`, in our words.
pub(crate) fn store_error(place: impl std::fmt::Display, error: object_store::Error) -> Error {
    use object_store::Error as E;
    if let Some(io) = io_cause(&error) {
        return Error::io(place, io);
    }
    let (kind, hint) = match &error {
        E::NotFound { .. } => (ErrorKind::NotFound, None),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            (ErrorKind::Invalid, Some("check the credentials of the connection, and what they may do"))
        }
        E::AlreadyExists { .. } | E::Precondition { .. } => (ErrorKind::Conflict, None),
        E::NotSupported { .. } | E::NotImplemented { .. } => {
            (ErrorKind::Invalid, Some("the lake needs a store with conditional PUT, as S3, GCS and Azure have"))
        }
        _ => (ErrorKind::Unavailable, Some("try again; `flumen connection test` shows whether the store answers")),
    };
    let made = Error::new(kind, format!("{place}: {error}")).caused_by(error);
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

/// The error of the operating system beneath `error`, if there is one.
fn io_cause(error: &(dyn std::error::Error + 'static)) -> Option<std::io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return match io.raw_os_error() {
                Some(code) => Some(std::io::Error::from_raw_os_error(code)),
                None if io.get_ref().is_none() => Some(io.kind().into()),
                None => None,
            };
        }
        cause = error.source();
    }
    None
}

/// One version of a table: its columns and its files.
#[derive(Clone, Debug)]
pub struct Snapshot {
    table: Table,
    pub(crate) state: EagerSnapshot,
}

impl Snapshot {
    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.state.version()
    }

    /// The columns, partition columns among them.
    pub fn schema(&self) -> SchemaRef {
        self.state.arrow_schema()
    }

    /// The columns by which the table is partitioned.
    pub fn partition_by(&self) -> Vec<String> {
        self.state.metadata().partition_columns().to_vec()
    }

    /// The value of a table property such as `delta.appendOnly`.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.state.metadata().configuration().get(name).map(String::as_str)
    }

    /// The files whose rows are the table's.
    ///
    /// Errors: `Data` if the statistics of a file are not JSON.
    pub fn files(&self) -> Result<Vec<DataFile>> {
        let files = self.state.try_log_data().map_err(|error| self.table.error(error))?;
        files
            .iter()
            .map(|file| {
                let stats = file.stats().map(|text| FileStats::parse(&text)).transpose().map_err(|error| {
                    Error::data(format!(
                        "{}: the statistics of {} cannot be read: {error}",
                        self.table.address(),
                        file.path()
                    ))
                })?;
                Ok(DataFile {
                    path: file.path().into_owned(),
                    size: file.size().try_into().unwrap_or(0),
                    modified_ms: file.modification_time(),
                    partition: file.partition_values_map().into_iter().collect(),
                    deletion_vector: file.deletion_vector_descriptor(),
                    stats,
                })
            })
            .collect()
    }
}

/// A Parquet file whose rows are a table's.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Its path within the table's folder (or, in a table that another tool made, an URL).
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// When it was made, in milliseconds since 1970.
    pub modified_ms: i64,
    /// The values of the partition columns, as Delta writes them: the file does not hold these columns.
    pub partition: BTreeMap<String, Option<String>>,
    /// Rows of it that another tool has deleted in place. We make none.
    pub deletion_vector: Option<DeletionVectorDescriptor>,
    /// What is known of its rows.
    pub stats: Option<FileStats>,
}

/// What the log knows about the rows of a file. Values are as Delta writes them: numbers, strings, and dates and timestamps
/// in ISO 8601. They are bounds: a minimum may be lower, a maximum higher than any value.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileStats {
    /// Rows.
    pub num_records: Option<u64>,
    /// A lower bound of each column; of structs, an object.
    pub min_values: serde_json::Map<String, serde_json::Value>,
    /// An upper bound of each column.
    pub max_values: serde_json::Map<String, serde_json::Value>,
    /// How many nulls each column has.
    pub null_count: serde_json::Map<String, serde_json::Value>,
}

impl FileStats {
    fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}

/// Deletes files of a table; those that are gone already do not matter.
pub(crate) async fn delete_files(table: &Table, paths: impl IntoIterator<Item = Path>) -> Result<()> {
    for path in paths {
        match table.store().delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(table.store_error(error)),
        }
    }
    Ok(())
}
