//! Parquet files on the local disk, scanned by DataFusion itself: with row groups left out by their statistics.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Result as DataFusionResult, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use flumen_core::read::Input;
use flumen_core::{Error, Result};
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaDataReader;

use super::FileTable;

/// Parquet files of one table.
pub(super) struct ParquetFiles {
    schema: SchemaRef,
    files: Vec<PartitionedFile>,
    statistics: Statistics,
    /// Files that came from elsewhere are kept as long as somebody holds their inputs.
    _inputs: Vec<Arc<dyn Input>>,
}

impl fmt::Debug for ParquetFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParquetFiles({} files)", self.files.len())
    }
}

impl ParquetFiles {
    /// The files of `table`, if DataFusion's own scan gives the rows that our readers give: columns are matched by their
    /// exact names there, and types are cast as Arrow casts them.
    pub fn of(table: &FileTable) -> Result<Option<Self>> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for (input, places) in table.inputs.iter().zip(&table.places) {
            let Some(path) = input.parquet_file().filter(|path| path.is_file()) else { return Ok(None) };
            for (place, field) in places.iter().zip(table.schema.fields()) {
                let Some(place) = place else { continue };
                let own = input.schema().field(*place);
                if own.name() != field.name() || super::plain(own.data_type()) != *field.data_type() {
                    return Ok(None);
                }
            }
            paths.push(path);
        }
        let mut files = Vec::with_capacity(paths.len());
        let mut rows = 0_usize;
        for path in &paths {
            let path = std::path::absolute(path).map_err(|error| Error::io(path.display(), error))?;
            let file = std::fs::File::open(&path).map_err(|error| Error::io(path.display(), error))?;
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| {
                Error::data(format!("{}: this is no whole Parquet file: {error}", path.display())).caused_by(error)
            })?;
            rows += usize::try_from(metadata.file_metadata().num_rows()).unwrap_or_default();
            let Ok(location) = Path::from_absolute_path(&path) else { return Ok(None) };
            let bytes = file.metadata().map_err(|error| Error::io(path.display(), error))?.len();
            let mut made = PartitionedFile::new(String::new(), bytes);
            made.object_meta.location = location;
            files.push(made);
        }
        let fields: Vec<Arc<Field>> = table.schema.fields().iter().map(viewed).collect();
        let schema: SchemaRef = Arc::new(arrow::datatypes::Schema::new(fields));
        let mut statistics = Statistics::new_unknown(&schema);
        statistics.num_rows = Precision::Exact(rows);
        Ok(Some(Self { schema, files, statistics, _inputs: table.inputs.clone() }))
    }
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
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let groups = FileGroup::new(self.files.clone()).split_files(session.config().target_partitions().max(1));
        let options = session.table_options().parquet.clone();
        let source = ParquetSource::new(Arc::clone(&self.schema)).with_table_parquet_options(options);
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(self.statistics.clone())
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
