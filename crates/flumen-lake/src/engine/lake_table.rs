//! A lake table as DataFusion sees it: one version of a Delta table, scanned as plain Parquet files.
//!
//! The plan holds nothing but file groups, statistics and partition values, so that any DataFusion engine can run it.
//! Files whose statistics rule them out are not in it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result as DataFusionResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use flumen_core::dataset::TableName;
use flumen_core::words::counted;
use flumen_core::{Error, Result};
use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::arrow::RowNumber;
use url::Url;

use super::columns;
use super::known_files::KnownFiles;
use super::statistics;
use crate::lake::{DataFile, Snapshot, Table, file_path};

/// The column that says in which file of the table a row is, where it was asked for.
pub(super) const PATH_COLUMN: &str = "_flumen_path";
/// The column that says which row of its file a row is, counted from 0, where it was asked for.
pub(super) const POSITION_COLUMN: &str = "_flumen_position";

/// What a table holds: at one version, or after statements that are not committed yet.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    /// The table.
    pub table: Table,
    /// The version that this is, or began as.
    pub version: Option<u64>,
    /// The columns.
    pub schema: SchemaRef,
    /// The columns by which it is partitioned.
    pub partition_by: Vec<String>,
    /// Its properties.
    pub properties: BTreeMap<String, String>,
    /// The files with its rows.
    pub files: Vec<DataFile>,
}

impl Contents {
    /// Those of `snapshot`.
    ///
    /// Errors: `Invalid` for a table with features that are not read here; `Data` for a log that makes no sense.
    pub fn of(snapshot: &Snapshot) -> Result<Self> {
        check_features(snapshot)?;
        Ok(Self {
            table: snapshot.table().clone(),
            version: Some(snapshot.version()),
            schema: snapshot.schema(),
            partition_by: snapshot.partition_by(),
            properties: snapshot.properties(),
            files: snapshot.files()?,
        })
    }

    /// The same without the columns that Flumen adds.
    pub fn without_own(self) -> Self {
        Self { schema: columns::without_own(&self.schema), ..self }
    }
}

/// One version of a lake table.
pub(super) struct LakeTable {
    name: TableName,
    version: Option<u64>,
    store: ObjectStoreUrl,
    /// The columns in the table's own order.
    schema: SchemaRef,
    /// The columns in the order of a scan: those in the files, then those of the partitions.
    scanned: TableSchema,
    /// For each column of `schema`, its place in `scanned`.
    places: Vec<usize>,
    files: Vec<PartitionedFile>,
    /// What is known of all files together: the planner asks for it again and again.
    statistics: OnceLock<Option<Statistics>>,
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = counted(self.files.len() as u64, "file");
        write!(f, "LakeTable({} version {:?}, {files})", self.name, self.version)
    }
}

impl LakeTable {
    /// The rows of `contents`.
    ///
    /// Errors: `Invalid` for files that are not read here; `Data` for a log that makes no sense.
    pub fn new(contents: Contents) -> Result<Self> {
        Self::build(contents, false)
    }

    /// The same, with the columns [`PATH_COLUMN`] and [`POSITION_COLUMN`] after the others.
    ///
    /// Errors: as [`LakeTable::new`].
    pub fn with_places(contents: Contents) -> Result<Self> {
        Self::build(contents, true)
    }

    fn build(contents: Contents, with_places: bool) -> Result<Self> {
        let name = contents.table.name().clone();
        let declared = Arc::clone(&contents.schema);
        let partitions = &contents.partition_by;
        let is_partition = |field: &FieldRef| partitions.contains(field.name());
        let in_files: Vec<FieldRef> =
            declared.fields().iter().filter(|field| !is_partition(field)).map(viewed).collect();
        let mut of_partitions = Vec::with_capacity(partitions.len() + 1);
        for partition in partitions {
            let field = declared.field_with_name(partition).map_err(|error| {
                Error::data(format!("table {name} has no column '{partition}', by which it is partitioned"))
                    .caused_by(error)
            })?;
            of_partitions.push(Arc::new(field.clone()));
        }
        let mut of_scan = of_partitions.clone();
        let mut made_up: Vec<FieldRef> = Vec::new();
        if with_places {
            of_scan.push(Arc::new(Field::new(PATH_COLUMN, DataType::Utf8, false)));
            let position = Field::new(POSITION_COLUMN, DataType::Int64, false).with_extension_type(RowNumber);
            made_up.push(Arc::new(position));
        }
        let in_files: SchemaRef = Arc::new(Schema::new(in_files));
        let scanned = TableSchema::builder(Arc::clone(&in_files))
            .with_table_partition_cols(of_scan.clone())
            .with_virtual_columns(made_up.clone())
            .build();
        let added = if with_places { &[PATH_COLUMN, POSITION_COLUMN][..] } else { &[] };
        let names = declared.fields().iter().map(|field| field.name().as_str()).chain(added.iter().copied());
        let (mut fields, mut places) = (Vec::new(), Vec::new());
        for name in names {
            let place = scanned.table_schema().index_of(name)?;
            places.push(place);
            fields.push(Arc::clone(&scanned.table_schema().fields()[place]));
        }
        let root = contents.table.url();
        let files = contents.files.iter().map(|file| {
            let mut scanned = scanned_file(&name, root, file, &in_files, &of_partitions)?;
            if with_places {
                add_place(&mut scanned, &file.path);
            }
            Ok(scanned)
        });
        let files = files.collect::<Result<_>>()?;
        Ok(Self {
            store: store_url(root)?,
            schema: Arc::new(Schema::new(fields)),
            scanned,
            places,
            files,
            statistics: OnceLock::new(),
            name,
            version: contents.version,
        })
    }

    /// How much there is to know of it: the columns of its files.
    pub fn weight(&self) -> usize {
        self.files.len() * (self.places.len() + 1)
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let files = statistics::may_pass(session, &self.files, self.scanned.table_schema(), filters)?;
        let columns: Vec<usize> = match projection {
            Some(wanted) => wanted.iter().map(|index| self.places[*index]).collect(),
            None => self.places.clone(),
        };
        let schema = self.scanned.table_schema();
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(schema.project(&columns)?))));
        }
        let statistics = Statistics::try_merge_iter(files.iter().filter_map(|f| f.statistics.as_deref()), schema)?;
        let groups = FileGroup::new(files).split_files(session.config().target_partitions().max(1));
        let options = session.table_options().parquet.clone();
        let source = ParquetSource::new(self.scanned.clone()).with_table_parquet_options(options);
        // What one query has read of the files' own descriptions serves the next ones.
        let runtime = session.runtime_env();
        let known = runtime.cache_manager.get_file_metadata_cache();
        let reader = CachedParquetFileReaderFactory::new(runtime.object_store(&self.store)?, known);
        let near = self.store.as_str().starts_with("file:");
        let reader: Arc<dyn ParquetFileReaderFactory> =
            if near { Arc::new(KnownFiles(reader)) } else { Arc::new(reader) };
        let source = source.with_parquet_file_reader_factory(reader);
        let scan = FileScanConfigBuilder::new(self.store.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(columns))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        let merged = || {
            let files = self.files.iter().filter_map(|file| file.statistics.as_deref());
            let merged = Statistics::try_merge_iter(files, self.scanned.table_schema()).ok()?;
            let of = |place: &usize| merged.column_statistics[*place].clone();
            let column_statistics = self.places.iter().map(of).collect();
            Some(Statistics { column_statistics, ..merged })
        };
        self.statistics.get_or_init(merged).clone()
    }
}

/// Text is scanned as views into the pages of the file: it is copied only where it is needed.
fn viewed(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        _ => return Arc::clone(field),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}

/// Refuses what would be read wrongly.
fn check_features(snapshot: &Snapshot) -> Result<()> {
    let name = snapshot.table().address();
    match snapshot.property("delta.columnMapping.mode") {
        Some(mode) if mode != "none" => Err(Error::invalid(format!(
            "{name} has other names for its columns in its files (delta.columnMapping.mode = {mode}), which is not read here"
        ))
        .hint("write it anew without column mapping")),
        _ => Ok(()),
    }
}

/// `scheme://host` of the store that `root` is in.
pub(super) fn store_url(root: &Url) -> Result<ObjectStoreUrl> {
    let authority = &root[url::Position::BeforeScheme..url::Position::BeforePath];
    ObjectStoreUrl::parse(authority)
        .map_err(|error| Error::internal(format!("'{root}' does not name an object store")).caused_by(error))
}

fn scanned_file(
    name: &TableName,
    root: &Url,
    file: &DataFile,
    in_files: &SchemaRef,
    of_partitions: &[FieldRef],
) -> Result<PartitionedFile> {
    let path = &file.path;
    if file.deletion_vector.is_some() {
        return Err(Error::invalid(format!(
            "table {name} marks rows of '{path}' as deleted by a deletion vector, which is not read here"
        ))
        .hint("let the tool that wrote it rewrite its files (REORG TABLE … APPLY (PURGE))"));
    }
    let mut values = Vec::with_capacity(of_partitions.len());
    for field in of_partitions {
        let value = match file.partition.get(field.name()).and_then(Option::as_deref) {
            // An empty string is how the log writes a null.
            None | Some("") => ScalarValue::try_from(field.data_type()),
            Some(text) => ScalarValue::try_from_string(text.to_owned(), field.data_type()),
        };
        values.push(value.map_err(|error| {
            let (column, wanted) = (field.name(), field.data_type());
            Error::data(format!("table {name}: the partition value of column '{column}' for '{path}' is no {wanted}"))
                .caused_by(error)
        })?);
    }
    let mut statistics = statistics::of_file(file, in_files);
    let rows: Precision<usize> = statistics.num_rows;
    statistics.column_statistics.extend(values.iter().map(|value| statistics::constant(value, &rows)));
    let meta = ObjectMeta {
        location: location(name, root, path)?,
        last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
        size: file.size,
        e_tag: None,
        version: None,
    };
    let mut made = PartitionedFile::from(meta).with_partition_values(values);
    made.statistics = Some(Arc::new(statistics));
    Ok(made)
}

/// Gives a file the value of [`PATH_COLUMN`], and room for the statistics of it and of [`POSITION_COLUMN`].
fn add_place(file: &mut PartitionedFile, path: &str) {
    let value = ScalarValue::Utf8(Some(path.to_owned()));
    if let Some(statistics) = &mut file.statistics {
        let statistics = Arc::make_mut(statistics);
        let constant = statistics::constant(&value, &statistics.num_rows);
        statistics.column_statistics.extend([constant, ColumnStatistics::new_unknown()]);
    }
    file.partition_values.push(value);
}

/// Where the file is in its store. The log may name it by a whole URL, in the same store.
fn location(name: &TableName, root: &Url, path: &str) -> Result<Path> {
    let wrong = |error: object_store::path::Error| {
        Error::data(format!("table {name} names a file by '{path}', which is no path")).caused_by(error)
    };
    if let Some(url) = path.contains("://").then(|| Url::parse(path).ok()).flatten() {
        if url.scheme() != root.scheme() || url.host_str() != root.host_str() {
            return Err(Error::invalid(format!("table {name} has the file '{path}', which is in another store"))
                .hint("copy the table instead of cloning it"));
        }
        return Path::from_url_path(url.path()).map_err(wrong);
    }
    let folder = Path::from_url_path(root.path()).map_err(wrong)?;
    let joined = format!("{folder}/{path}");
    Ok(file_path(&joined))
}
