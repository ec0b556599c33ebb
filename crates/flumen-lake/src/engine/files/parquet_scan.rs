//! Parquet files on the local disk, scanned by DataFusion itself: with files and row groups left out by their statistics, and by
//! the values that their folders give.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result as DataFusionResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use flumen_core::read::Input;
use flumen_core::words::counted;
use flumen_core::{Error, Result};
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaDataReader;

use super::FileTable;
use crate::engine::statistics;

/// Parquet files of one table.
pub(super) struct ParquetFiles {
    /// The columns of the files, then those of their folders.
    schema: TableSchema,
    files: Vec<PartitionedFile>,
    statistics: Statistics,
    /// Files that came from elsewhere are kept as long as somebody holds their inputs.
    _inputs: Vec<Arc<dyn Input>>,
}

impl fmt::Debug for ParquetFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParquetFiles({})", counted(self.files.len() as u64, "file"))
    }
}

impl ParquetFiles {
    /// The files of `table`, if DataFusion's own scan gives the rows that our readers give: columns are matched by their
    /// exact names there, and types are cast as Arrow casts them.
    pub fn of(table: &FileTable) -> Result<Option<Self>> {
        let all = table.schema.fields();
        let (of_files, of_folders) = all.split_at(all.len() - table.of_folders);
        let in_files: SchemaRef = Arc::new(Schema::new(of_files.iter().map(viewed).collect::<Vec<_>>()));
        let schema = TableSchema::builder(Arc::clone(&in_files)).with_table_partition_cols(of_folders.to_vec()).build();
        let mut files = Vec::with_capacity(table.inputs.len());
        for (input, places) in table.inputs.iter().zip(&table.places) {
            let is_same = |(place, field): (&Option<usize>, &Arc<Field>)| {
                let own = place.map(|place| input.schema().field(place));
                own.is_none_or(|own| own.name() == field.name() && super::plain(own.data_type()) == *field.data_type())
            };
            if input.folder_values().len() != table.of_folders || !places.iter().zip(of_files).all(is_same) {
                return Ok(None);
            }
            let Some(file) = scanned(input.as_ref(), &in_files)? else { return Ok(None) };
            files.push(file);
        }
        let known = files.iter().filter_map(|file| file.statistics.as_deref());
        let statistics = Statistics::try_merge_iter(known, schema.table_schema())
            .map_err(|error| Error::internal("the statistics of files do not fit each other").caused_by(error))?;
        Ok(Some(Self { schema, files, statistics, _inputs: table.inputs.clone() }))
    }
}

/// The Parquet file that `input` is, with what is known of it; none if it is no file on the local disk.
///
/// Errors: `Data` for a file that is broken.
fn scanned(input: &dyn Input, in_files: &SchemaRef) -> Result<Option<PartitionedFile>> {
    let Some(path) = input.parquet_file().filter(|path| path.is_file()) else { return Ok(None) };
    let path = std::path::absolute(&path).map_err(|error| Error::io(path.display(), error))?;
    let Ok(location) = Path::from_absolute_path(&path) else { return Ok(None) };
    let failed = |error| Error::io(path.display(), error);
    let file = std::fs::File::open(&path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| {
        Error::data(format!("{}: this is no whole Parquet file: {error}", path.display())).caused_by(error)
    })?;
    let odd =
        |error| Error::data(format!("{}: what it says of itself makes no sense", path.display())).caused_by(error);
    let mut statistics = DFParquetMetadata::statistics_from_parquet_metadata(&metadata, in_files).map_err(odd)?;
    let values = input.folder_values().iter().map(|value| ScalarValue::try_from_array(value, 0));
    let values = values.collect::<DataFusionResult<Vec<_>>>().map_err(odd)?;
    let rows = statistics.num_rows;
    statistics.column_statistics.extend(values.iter().map(|value| statistics::constant(value, &rows)));
    let mut made = PartitionedFile::new(String::new(), bytes).with_partition_values(values);
    made.object_meta.location = location;
    made.statistics = Some(Arc::new(statistics));
    Ok(Some(made))
}

/// Text is scanned as views into the pages of the file.
fn viewed(field: &Arc<Field>) -> Arc<Field> {
    match field.data_type() {
        DataType::Utf8 => Arc::new(Field::clone(field).with_data_type(DataType::Utf8View)),
        DataType::Binary => Arc::new(Field::clone(field).with_data_type(DataType::BinaryView)),
        _ => Arc::clone(field),
    }
}

#[async_trait]
impl TableProvider for ParquetFiles {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
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
        let schema = self.schema.table_schema();
        let files = statistics::may_pass(session, &self.files, schema, filters)?;
        if files.is_empty() {
            let columns = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
            return Ok(Arc::new(EmptyExec::new(Arc::new(schema.project(&columns)?))));
        }
        let statistics = Statistics::try_merge_iter(files.iter().filter_map(|f| f.statistics.as_deref()), schema)?;
        let groups = FileGroup::new(files).split_files(session.config().target_partitions().max(1));
        let options = session.table_options().parquet.clone();
        let source = ParquetSource::new(self.schema.clone()).with_table_parquet_options(options);
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics.clone())
    }
}
