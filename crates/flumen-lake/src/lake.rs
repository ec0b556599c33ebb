//! The lake: Delta tables at `<root>/<namespace>/<table>`, in a local folder or an object store.
//!
//! Nothing here is cached: each [`Table::snapshot`] reads the log anew, so what it gives is the latest version. Who wants to keep what it
//! has read asks for the newest commit first: [`Table::newest_commit`].

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use deltalake_core::kernel::{Add, DeletionVectorDescriptor, EagerSnapshot, Version};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::{DeltaTableError, kernel::transaction::TransactionError};
use flumen_core::boxed;
use flumen_core::dataset::{LAKE, TableName};
use flumen_core::limits::LAKE_LISTINGS;
use flumen_core::{Error, ErrorKind, Result};
use flumen_project::durable::DurableFileSystem;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use url::Url;

use crate::ledger::version_in;

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

    /// The same lake through another store: one that counts, limits or breaks what goes through it.
    pub fn wrapped(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.store = wrap(self.store);
        self
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
    #[boxed]
    pub async fn namespaces(&self) -> Result<Vec<String>> {
        self.folders_in(&self.prefix).await
    }

    /// The folders of a namespace that are Delta tables, sorted, whatever the catalog says about them.
    #[boxed]
    pub async fn tables(&self, namespace: &str) -> Result<Vec<TableName>> {
        self.tables_in(namespace, |_| false).await
    }

    /// The folders of a namespace that are Delta tables, sorted; those for which `skip` holds are not looked into. What a
    /// table is called is for the catalog to say.
    pub(crate) async fn tables_in(&self, namespace: &str, skip: impl Fn(&str) -> bool) -> Result<Vec<TableName>> {
        let root = self.prefix.clone().join(namespace);
        let folders = self.folders_in(&root).await?.into_iter().filter(|folder| !skip(folder));
        let names: Vec<TableName> = folders.filter_map(|folder| TableName::new(namespace, folder).ok()).collect();
        let looks = names.into_iter().map(|name| {
            let (lake, folder) = (self.clone(), root.clone().join(name.table.as_str()));
            async move { Ok::<_, Error>(lake.is_table(folder).await?.then_some(name)) }
        });
        let tables = futures::stream::iter(looks).buffered(LAKE_LISTINGS).try_collect::<Vec<_>>().await?;
        Ok(tables.into_iter().flatten().collect())
    }

    /// Whether the folder has a Delta log.
    async fn is_table(&self, folder: Path) -> Result<bool> {
        let log = folder.join("_delta_log");
        if let (Some(root), Some(within)) = (&self.folder, log.prefix_match(&self.prefix)) {
            // A listing would ask for the size of every file of the log.
            let mut place = root.clone();
            place.extend(within.map(|part| part.as_ref().to_owned()));
            return Ok(std::fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_some()));
        }
        let mut entries = self.store.list(Some(&log));
        Ok(entries.try_next().await.map_err(|error| store_error(&log, error))?.is_some())
    }

    /// The names of the folders directly within `path`, sorted, but for those that are kept for other uses.
    pub(crate) async fn folders_in(&self, path: &Path) -> Result<Vec<String>> {
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
        self.table_at(&location_of(name), name)
    }

    /// The table in the folder `location` of the lake, called `name`, whether it is there or not.
    ///
    /// Errors: `Invalid` if the location is not a path within the lake that an object store can keep.
    pub fn table_at(&self, location: &str, name: &TableName) -> Result<Table> {
        let prefix = self.path(location)?;
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(location.split('/')).push("");
        }
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&self.store), prefix.clone()));
        let log = default_logstore(Arc::clone(&store), Arc::clone(&self.store), &url, &StorageConfig::default());
        let mut folder = self.folder.clone();
        if let Some(folder) = &mut folder {
            folder.extend(location.split('/'));
        }
        Ok(Table { lake: self.clone(), name: name.clone(), location: location.to_owned(), url, store, log, folder })
    }

    /// The root within the store.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The folder `location` of the lake, as a path of the store.
    ///
    /// Errors: `Invalid` if it is not a path within the lake that an object store can keep.
    pub(crate) fn path(&self, location: &str) -> Result<Path> {
        check_location(location)?;
        let path = location.split('/').fold(self.prefix.clone(), |path, part| path.join(part));
        if !path.as_ref().ends_with(location) {
            return Err(Error::invalid(format!("'{location}' has a character that an object store cannot keep"))
                .hint("use letters, digits and underscores"));
        }
        Ok(path)
    }
}

/// The file of a commit.
fn commit_name(version: u64) -> String {
    format!("{version:020}.json")
}

/// The newest version, where they have no gaps: `known` was there once.
fn newest(known: Option<u64>, exists: impl Fn(u64) -> bool) -> Option<u64> {
    let mut there = known.unwrap_or(0);
    if known.is_none() && !exists(there) {
        return None;
    }
    let mut step = 1;
    while exists(there + step) {
        there += step;
        step *= 2;
    }
    while step > 1 {
        step /= 2;
        if exists(there + step) {
            there += step;
        }
    }
    Some(there)
}

/// Where a table is that nothing else is known of.
pub(crate) fn location_of(name: &TableName) -> String {
    format!("{}/{}", name.namespace, name.table)
}

/// That `location` is a path within a lake: relative, and without steps upwards.
pub(crate) fn check_location(location: &str) -> Result<()> {
    let odd = |part: &str| part.is_empty() || part.starts_with('.') || part.contains(['\\', ':', '%', '\0']);
    if location.split('/').any(odd) {
        return Err(Error::invalid(format!("'{location}' is no folder within a lake")));
    }
    Ok(())
}

/// The last commit of a table, as its store has it: one that was dropped and made again has others with the same numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewestCommit {
    /// The version that it made.
    pub version: u64,
    /// Its file, with its time, size and tag.
    file: ObjectMeta,
}

/// A place for a Delta table: it may hold one, or not yet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Table {
    lake: Lake,
    name: TableName,
    location: String,
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

    /// The lake that it is in.
    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// Its folder within the root of the lake.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The table in which the rows are that loads into this one refused. It is beside the table's folder, whatever the
    /// table is called.
    pub fn quarantine(&self) -> Result<Self> {
        self.lake.table_at(&format!("{}{QUARANTINE}", self.location), &self.name.quarantine())
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

    /// The file `path` of the table, as a path of the lake's store.
    pub(crate) fn path_in_lake(&self, path: &Path) -> Result<Path> {
        Ok(self.lake.path(&self.location)?.parts().chain(path.parts()).collect())
    }

    /// The file `path` of the table on the local disk, if it is there.
    pub(crate) fn local_path(&self, path: &Path) -> Option<PathBuf> {
        let mut file = self.folder.clone()?;
        file.extend(path.parts().map(|part| part.as_ref().to_owned()));
        Some(file)
    }

    /// The number of the latest version, if there is a table here. Far cheaper than a snapshot: no commit is read.
    ///
    /// Errors: those of the store.
    #[boxed]
    pub async fn latest_version(&self) -> Result<Option<u64>> {
        let log = Path::from("_delta_log");
        let hint =
            match self.store.get(&log.clone().join("_last_checkpoint")).await {
                Ok(found) => found.bytes().await.ok().and_then(|bytes| {
                    serde_json::from_slice::<serde_json::Value>(&bytes).ok()?.get("version")?.as_u64()
                }),
                Err(object_store::Error::NotFound { .. }) => None,
                Err(error) => return Err(self.store_error(error)),
            };
        if let Some(folder) = &self.folder {
            // The listing of a folder would ask for the size of every file.
            let newest = newest(hint, |version| folder.join("_delta_log").join(commit_name(version)).exists());
            if newest.is_some() {
                return Ok(newest);
            }
        }
        // The version of the hint was there once.
        Ok(self.newest_listed(hint.unwrap_or(0)).await?.map(|commit| commit.version).or(hint))
    }

    /// The newest commit, where the version `known` was there once: one call to the store. None if there is none any more, or if the log
    /// does not say.
    ///
    /// Errors: those of the store.
    pub(crate) async fn newest_commit(&self, known: u64) -> Result<Option<NewestCommit>> {
        let log = Path::from("_delta_log");
        if let Some(folder) = &self.folder {
            let newest = newest(Some(known), |version| folder.join("_delta_log").join(commit_name(version)).exists());
            let version = newest.unwrap_or(known);
            return match self.store.head(&log.join(commit_name(version))).await {
                Ok(file) => Ok(Some(NewestCommit { version, file })),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.store_error(error)),
            };
        }
        self.newest_listed(known).await
    }

    /// The newest commit in the listing of the log, from the version `first` on.
    async fn newest_listed(&self, first: u64) -> Result<Option<NewestCommit>> {
        let log = Path::from("_delta_log");
        // It sorts before the file of that version, and after all those before it.
        let from = log.clone().join(format!("{first:020}"));
        let mut newest: Option<NewestCommit> = None;
        let mut files = self.store.list_with_offset(Some(&log), &from);
        loop {
            match files.try_next().await {
                Ok(None) | Err(object_store::Error::NotFound { .. }) => return Ok(newest),
                Err(error) => return Err(self.store_error(error)),
                Ok(Some(file)) => {
                    let name = file.location.filename().unwrap_or_default();
                    let version = version_in(name).filter(|version| name == commit_name(*version));
                    if let Some(version) = version
                        && newest.as_ref().is_none_or(|newest| newest.version < version)
                    {
                        newest = Some(NewestCommit { version, file });
                    }
                }
            }
        }
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
    #[boxed]
    pub async fn snapshot_at(&self, version: Option<u64>) -> Result<Option<Snapshot>> {
        let exists = self.log.is_delta_table_location().await.map_err(|error| self.error(error))?;
        if !exists {
            self.refuse_foreign_folder().await?;
            return Ok(None);
        }
        let wanted = version.map(|version| version as Version);
        match (EagerSnapshot::try_new(self.log.as_ref(), wanted).await, version) {
            (Ok(state), _) => Ok(Some(Snapshot { table: self.clone(), state })),
            (Err(_), Some(version)) if self.latest_version().await?.is_some_and(|latest| version > latest) => {
                Err(Error::not_found(format!("{} has no version {version}", self.address())))
            }
            (Err(error), _) => Err(self.error(error)),
        }
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

/// The folder of a quarantine is called like that of its table, with this at its end.
pub(crate) const QUARANTINE: &str = "__quarantine";

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

    /// The actions that made the files visible, as the log has them.
    pub(crate) fn adds(&self) -> Result<Vec<Add>> {
        let files = self.state.try_log_data().map_err(|error| self.table.error(error))?;
        let add = |file: deltalake_core::kernel::LogicalFileView| Add {
            path: file.path().into_owned(),
            partition_values: file.partition_values_map(),
            size: file.size(),
            modification_time: file.modification_time(),
            stats: file.stats(),
            deletion_vector: file.deletion_vector_descriptor(),
            ..Add::default()
        };
        Ok(files.iter().map(add).collect())
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

/// Where the file is that a log names by `path`: percent signs in it are those of the file's own name.
pub(crate) fn file_path(path: &str) -> Path {
    Path::parse(path).unwrap_or_else(|_| Path::from(path))
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
#[boxed]
pub(crate) async fn delete_files(table: &Table, paths: Vec<Path>) -> Result<()> {
    for path in paths {
        match table.store().delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(table.store_error(error)),
        }
    }
    Ok(())
}
