//! Reads the rows of a table's files, one batch at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, SchemaRef};
use bytes::Bytes;
use flumen_core::limits::BATCH_ROWS;
use flumen_core::{Error, Result};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tokio::runtime::Handle;

use crate::lake::{DataFile, Table, file_path};
use crate::sink::NewFile;

/// A Parquet file of a table, with what the log says about it.
#[derive(Debug, Clone)]
pub(crate) struct StoredFile {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) partition: Vec<(String, Option<String>)>,
    pub(crate) deleted_rows: bool,
}

impl From<&DataFile> for StoredFile {
    fn from(file: &DataFile) -> Self {
        Self {
            path: file.path.clone(),
            size: file.size,
            partition: file.partition.iter().map(|(column, value)| (column.clone(), value.clone())).collect(),
            deleted_rows: file.deletion_vector.is_some(),
        }
    }
}

impl From<&NewFile> for StoredFile {
    fn from(file: &NewFile) -> Self {
        Self { path: file.path.clone(), size: file.size, partition: file.partition.to_vec(), deleted_rows: false }
    }
}

/// The rows of one file, with the columns that were asked for. Blocking: not for use within the async runtime.
pub(crate) struct FileRows {
    place: String,
    stream: ParquetRecordBatchStream<StoreReader>,
    schema: SchemaRef,
    partition: Vec<(String, Option<String>)>,
    runtime: Handle,
}

impl FileRows {
    /// Opens `file` of `table`, for the columns of `schema` (some of the table's): those that the file lacks are null.
    ///
    /// Errors: `Invalid` if another tool has deleted rows by a deletion vector; `Data` if the file is broken.
    pub(crate) fn open(table: &Table, file: &StoredFile, schema: SchemaRef, runtime: &Handle) -> Result<Self> {
        let place = format!("{}: {}", table.address(), file.path);
        if file.deleted_rows {
            return Err(Error::invalid(format!("{place}: another tool has deleted rows of this file in place"))
                .hint("let that tool rewrite the file (REORG or OPTIMIZE … PURGE), then try again"));
        }
        let failed = |error| read_error(&place, error);
        let reader = object_reader(table, &file.path, file.size)?;
        let builder = runtime.block_on(ParquetRecordBatchStreamBuilder::new(reader)).map_err(failed)?;
        let roots: Vec<usize> = builder
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| schema.index_of(field.name()).is_ok())
            .map(|(place, _)| place)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let stream = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        Ok(Self { place, stream, schema, partition: file.partition.clone(), runtime: runtime.clone() })
    }

    fn align(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let column = |field: &Arc<Field>| -> Result<ArrayRef> {
            let data_type = field.data_type();
            if let Some((_, value)) = self.partition.iter().find(|(name, _)| name == field.name()) {
                let text: ArrayRef = Arc::new(StringArray::from(vec![value.as_deref(); rows]));
                return Ok(cast(&text, data_type)?);
            }
            match batch.column_by_name(field.name()) {
                None => Ok(new_null_array(data_type, rows)),
                Some(column) if column.data_type() == data_type => Ok(Arc::clone(column)),
                Some(column) => Ok(cast(column, data_type)?),
            }
        };
        let columns = self.schema.fields().iter().map(column).collect::<Result<Vec<_>>>();
        let columns = columns.map_err(|error| error.within(&self.place))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

impl Iterator for FileRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.runtime.clone().block_on(self.stream.next())?;
        Some(batch.map_err(|error| read_error(&self.place, error)).and_then(|batch| self.align(&batch)))
    }
}

/// The footer of a file.
pub(crate) async fn footer(table: &Table, path: &str, size: u64) -> Result<(Arc<ParquetMetaData>, SchemaRef)> {
    let builder = ParquetRecordBatchStreamBuilder::new(object_reader(table, path, size)?).await;
    let builder = builder.map_err(|error| read_error(&format!("{}: {path}", table.address()), error))?;
    Ok((Arc::clone(builder.metadata()), Arc::clone(builder.schema())))
}

fn object_reader(table: &Table, path: &str, size: u64) -> Result<StoreReader> {
    if path.contains("://") {
        return Err(Error::invalid(format!("{}: the file {path} is outside of the table's folder", table.address()))
            .hint("the table is a shallow clone that another tool made; copy its rows into a table of its own"));
    }
    Ok(StoreReader { store: Arc::clone(table.store()), path: file_path(path), size })
}

/// A file in a store, for the Parquet reader.
struct StoreReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for StoreReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        let bytes = self.store.get_range(&self.path, range);
        bytes.map(|bytes| bytes.map_err(|error| ParquetError::External(Box::new(error)))).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            let bytes = self.store.get_ranges(&self.path, &ranges).await;
            bytes.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

fn read_error(place: &str, error: ParquetError) -> Error {
    if let ParquetError::External(cause) = error {
        return match cause.downcast::<object_store::Error>() {
            Ok(store) => crate::lake::store_error(place, *store),
            Err(other) => Error::data(format!("{place}: {other}")),
        };
    }
    Error::data(format!("{place}: the Parquet file is broken: {error}")).caused_by(error)
}
