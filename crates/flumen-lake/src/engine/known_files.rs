//! What files say of themselves, read once: also where their pages are, which DataFusion would read anew for each part of a file that
//! a query with a condition opens.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::ParquetMetaData;

/// Readers of files on disks. Where files are far away, a request more for each of them is not worth it.
#[derive(Debug)]
pub(super) struct KnownFiles(pub CachedParquetFileReaderFactory);

impl ParquetFileReaderFactory for KnownFiles {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(Reader(self.0.create_reader(partition, file, hint, metrics)?)))
    }
}

struct Reader(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        // The options would say that the places of pages are not wanted yet.
        self.0.get_metadata(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use datafusion::execution::cache::cache_manager::CacheManager;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::PageIndexPolicy;

    #[tokio::test]
    async fn the_places_of_pages_are_known_from_the_first_time_on() {
        let rows = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as _)]).expect("rows");
        let mut content = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut content, rows.schema(), None).expect("writer");
        writer.write(&rows).expect("written");
        writer.close().expect("closed");
        let (store, path) = (Arc::new(InMemory::new()), Path::from("a.parquet"));
        store.put(&path, content.into()).await.expect("put");
        let file = PartitionedFile::from(store.head(&path).await.expect("file"));

        let known = CacheManager::try_new(&Default::default()).expect("cache").get_file_metadata_cache();
        let factory = KnownFiles(CachedParquetFileReaderFactory::new(store, known));
        let mut reader = factory.create_reader(0, file, None, &ExecutionPlanMetricsSet::new()).expect("reader");
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
        let first = reader.get_metadata(Some(&options)).await.expect("metadata");
        assert!(first.column_index().is_some() && first.offset_index().is_some());
        let again = reader.get_metadata(Some(&options)).await.expect("metadata");
        assert!(Arc::ptr_eq(&first, &again));
    }
}
