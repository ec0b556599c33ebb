//! The Parquet files of one load, written by several threads at once.
//!
//! Each thread encodes whole row groups by itself; a finished one is copied to the file that all threads share (one for
//! each partition). So a load makes as few files as its size asks for, however many threads write, and no file is empty.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use flumen_core::limits::{LAKE_FILE_BYTES, OPEN_PARTITIONS, ROW_GROUP_BYTES, ROW_GROUP_ROWS};
use flumen_core::load::{LoadId, ROW_COLUMN};
use flumen_core::partition::{Partition, Partitioning, folder};
use flumen_core::write::BatchWriter;
use flumen_core::{Error, Result};
use object_store::path::Path;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, TypePtr};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::convert::Conversion;
use super::output::{Output, Syncing, local_path};
use super::stats::delta_stats;
use crate::constraints::Constraints;
use crate::lake::{LOAD_FOLDER, Table, file_path};
use flumen_project::durable::sync_folder;

/// Bytes of a column's name, or of its value, in the name of a partition's folder: what counts is the value in the log.
const PARTITION_NAME_BYTES: usize = 110;

/// A data file that is complete, but that no commit names yet.
#[derive(Debug, Clone)]
pub(crate) struct NewFile {
    /// Its path within the table.
    pub(crate) path: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Its rows.
    pub(crate) rows: u64,
    /// The values of the partition columns.
    pub(crate) partition: Partition,
    /// Delta's statistics, as JSON.
    pub(crate) stats: String,
}

/// The folder of a load's files within its table.
pub(crate) fn load_folder(load: &LoadId) -> String {
    format!("{LOAD_FOLDER}{load}")
}

/// The files of one attempt at a load.
pub(crate) struct LoadFiles {
    table: Table,
    folder: String,
    attempt: Uuid,
    runtime: Handle,
    conversion: Conversion,
    partitioning: Partitioning,
    /// The columns that are in the files: those of the conversion without the partition columns.
    columns: SchemaRef,
    parquet_schema: TypePtr,
    properties: WriterPropertiesPtr,
    row_groups: ArrowRowGroupWriterFactory,
    constraints: Option<Arc<Constraints>>,
    counter: AtomicUsize,
    /// Held while a row group is copied: two threads that end at once shall not make two files.
    open: Mutex<HashMap<Partition, OpenFile>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    complete: Vec<NewFile>,
    /// Files that the disk does not have yet.
    syncing: Vec<Syncing>,
    /// Every path that was begun, for the case that all has to go.
    begun: Vec<Path>,
    writers: usize,
}

struct OpenFile {
    path: Path,
    writer: SerializedFileWriter<Output>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LoadFiles {
    /// Prepares to write into `folder` of the table; makes no file yet.
    ///
    /// Errors: `Invalid` if the table cannot be partitioned as asked.
    pub(crate) fn new(
        table: Table,
        folder: String,
        attempt: Uuid,
        conversion: Conversion,
        partition_by: &[String],
        runtime: Handle,
    ) -> Result<Self> {
        let (partitioning, columns) =
            Partitioning::new(&conversion.schema, partition_by).map_err(|error| error.within(table.address()))?;
        let properties = Arc::new(properties());
        let broken = |error: ParquetError| parquet_error(&table.address(), error);
        let parquet_schema = ArrowSchemaConverter::new().convert(&columns).map_err(broken)?.root_schema_ptr();
        let pattern = SerializedFileWriter::new(Vec::new(), Arc::clone(&parquet_schema), Arc::clone(&properties));
        let row_groups = ArrowRowGroupWriterFactory::new(&pattern.map_err(broken)?, Arc::clone(&columns));
        Ok(Self {
            table,
            folder,
            attempt,
            runtime,
            conversion,
            partitioning,
            columns,
            parquet_schema,
            properties,
            row_groups,
            constraints: None,
            counter: AtomicUsize::new(0),
            open: Mutex::default(),
            state: Mutex::default(),
        })
    }

    /// Lets no row pass that breaks one of `constraints`.
    pub(crate) fn with_constraints(mut self, constraints: Option<Arc<Constraints>>) -> Self {
        self.constraints = constraints;
        self
    }

    /// Whether rows must meet constraints: a file cannot be taken over unseen then.
    pub(crate) fn has_constraints(&self) -> bool {
        self.constraints.is_some()
    }

    /// The columns of the rows, as the table has them, partition columns among them.
    pub(crate) fn columns(&self) -> &SchemaRef {
        &self.conversion.schema
    }

    /// The table.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Whether the table has partitions.
    pub(crate) fn is_partitioned(&self) -> bool {
        self.partitioning.is_partitioned()
    }

    /// The runtime in which uploads run.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// A writer for one thread.
    pub(crate) fn writer(self: &Arc<Self>) -> Writer {
        locked(&self.state).writers += 1;
        Writer { files: Arc::clone(self), encoders: HashMap::new(), finished: false }
    }

    /// A path that no file has.
    pub(crate) fn new_path(&self, partition: &Partition) -> Path {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut path = self.folder.clone();
        for (column, value) in partition.iter() {
            path.push('/');
            path.push_str(&folder(column, value.as_deref(), PARTITION_NAME_BYTES));
        }
        let path = file_path(&format!("{path}/{}-{number:05}.parquet", self.attempt.simple()));
        locked(&self.state).begun.push(path.clone());
        path
    }

    /// Adds a file that is complete, but for what `syncing` waits for.
    pub(crate) fn add(&self, file: NewFile, syncing: Option<Syncing>) {
        let mut state = locked(&self.state);
        state.complete.push(file);
        state.syncing.extend(syncing);
    }

    fn open(&self, partition: &Partition) -> Result<OpenFile> {
        let path = self.new_path(partition);
        let output = Output::create(&self.table, &path, &self.runtime)?;
        let writer = SerializedFileWriter::new(output, Arc::clone(&self.parquet_schema), Arc::clone(&self.properties));
        Ok(OpenFile { path, writer: writer.map_err(|error| self.error(error))? })
    }

    fn append(&self, partition: &Partition, chunks: Vec<ArrowColumnChunk>) -> Result<()> {
        let mut open = locked(&self.open);
        let mut file = match open.remove(partition) {
            Some(file) => file,
            None => self.open(partition)?,
        };
        let mut row_group = file.writer.next_row_group().map_err(|error| self.error(error))?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut row_group).map_err(|error| self.error(error))?;
        }
        row_group.close().map_err(|error| self.error(error))?;
        if file.writer.bytes_written() >= LAKE_FILE_BYTES {
            return self.close(partition, file);
        }
        if open.len() >= OPEN_PARTITIONS {
            let largest = open.iter().max_by_key(|(_, file)| file.writer.bytes_written());
            if let Some((largest, file)) =
                largest.map(|(largest, _)| largest.clone()).and_then(|largest| open.remove_entry(&largest))
            {
                self.close(&largest, file)?;
            }
        }
        open.insert(partition.clone(), file);
        Ok(())
    }

    fn close(&self, partition: &Partition, mut file: OpenFile) -> Result<()> {
        let metadata = file.writer.finish().map_err(|error| self.error(error))?;
        let size = file.writer.bytes_written() as u64;
        let syncing = file.writer.inner_mut().finish(&self.runtime).map_err(|error| self.io_error(error))?;
        let new = NewFile {
            path: file.path.to_string(),
            size,
            rows: metadata.file_metadata().num_rows().try_into().unwrap_or(0),
            partition: partition.clone(),
            stats: delta_stats(&self.columns, metadata.row_groups()),
        };
        self.add(new, syncing);
        Ok(())
    }

    /// Completes all files: they survive whatever happens then. Blocking.
    ///
    /// Errors: `Internal` if a writer was dropped before it finished: its rows would be missing.
    pub(crate) fn finish(&self) -> Result<Vec<NewFile>> {
        let open = std::mem::take(&mut *locked(&self.open));
        let writers = locked(&self.state).writers;
        if writers > 0 {
            return Err(Error::internal(format!("{}: {writers} writers did not finish", self.table.address())));
        }
        for (partition, file) in open {
            self.close(&partition, file)?;
        }
        let (complete, syncing) = {
            let mut state = locked(&self.state);
            (std::mem::take(&mut state.complete), std::mem::take(&mut state.syncing))
        };
        for file in syncing {
            let synced = self.runtime.block_on(file).map_err(std::io::Error::other).flatten();
            synced.map_err(|error| self.io_error(error))?;
        }
        let paths = complete.iter().filter_map(|file| local_path(&self.table, &file_path(&file.path)));
        let folders: BTreeSet<PathBuf> = paths.filter_map(|path| path.parent().map(PathBuf::from)).collect();
        for folder in folders {
            sync_folder(&folder).map_err(|error| self.io_error(error))?;
        }
        Ok(complete)
    }

    /// Completes all files, for who does not block.
    ///
    /// Errors: as [`LoadFiles::finish`].
    pub(crate) async fn finished(self: &Arc<Self>) -> Result<Vec<NewFile>> {
        let files = Arc::clone(self);
        let finishing = tokio::task::spawn_blocking(move || files.finish()).await;
        finishing.map_err(|error| Error::internal("the last files were not written").caused_by(error))?
    }

    /// Forgets all files; gives the paths of those that may exist.
    pub(crate) fn discard(&self) -> Vec<Path> {
        locked(&self.open).clear();
        let mut state = locked(&self.state);
        state.complete.clear();
        std::mem::take(&mut state.begun)
    }

    fn error(&self, error: ParquetError) -> Error {
        parquet_error(&self.table.address(), error)
    }

    fn io_error(&self, error: std::io::Error) -> Error {
        io_error(&self.table.address(), error)
    }
}

/// An error of the Parquet writer, in our words.
pub(crate) fn parquet_error(place: &str, error: ParquetError) -> Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(io) => io_error(place, *io),
            Err(other) => Error::data(format!("{place}: {other}")),
        },
        other => Error::internal(format!("{place}: a Parquet file cannot be written: {other}")).caused_by(other),
    }
}

/// An error while writing a file: one of an upload carries our own.
fn io_error(place: &str, error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(io) => Error::io(place, io),
    }
}

/// `partition` as Delta has it, to which an empty text is null.
fn of_delta(partition: &Partition) -> Partition {
    let value =
        |(name, value): &(String, Option<String>)| (name.clone(), value.clone().filter(|text| !text.is_empty()));
    partition.iter().map(value).collect()
}

fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(1).unwrap_or_default();
    let row = ColumnPath::from(ROW_COLUMN);
    WriterProperties::builder()
        .set_created_by(concat!("flumen ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        // Row numbers never repeat: differences are all there is to them.
        .set_column_dictionary_enabled(row.clone(), false)
        .set_column_encoding(row, Encoding::DELTA_BINARY_PACKED)
        .set_key_value_metadata(None::<Vec<KeyValue>>)
        .build()
}

/// Encodes the rows of one thread.
pub(crate) struct Writer {
    files: Arc<LoadFiles>,
    encoders: HashMap<Partition, Encoder>,
    finished: bool,
}

/// A row group in the making.
struct Encoder {
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

impl Encoder {
    fn bytes(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::memory_size).sum()
    }
}

impl Writer {
    fn encode(&mut self, partition: Partition, columns: &[ArrayRef]) -> Result<()> {
        let mut done = 0;
        let rows = columns.first().map_or(0, Array::len);
        while done < rows {
            let encoder = match self.encoders.get_mut(&partition) {
                Some(encoder) => encoder,
                None => {
                    let columns = self.files.row_groups.create_column_writers(0);
                    let columns = columns.map_err(|error| self.files.error(error))?;
                    self.encoders.entry(partition.clone()).or_insert(Encoder { columns, rows: 0 })
                }
            };
            let count = (rows - done).min(ROW_GROUP_ROWS - encoder.rows);
            let mut writers = encoder.columns.iter_mut();
            for (field, column) in self.files.columns.fields().iter().zip(columns) {
                let part = column.slice(done, count);
                for leaf in compute_leaves(field, &part).map_err(|error| self.files.error(error))? {
                    if let Some(writer) = writers.next() {
                        writer.write(&leaf).map_err(|error| self.files.error(error))?;
                    }
                }
            }
            encoder.rows += count;
            done += count;
            if encoder.rows >= ROW_GROUP_ROWS {
                self.flush(&partition)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, partition: &Partition) -> Result<()> {
        let Some(encoder) = self.encoders.remove(partition) else { return Ok(()) };
        let chunks: Result<Vec<_>, _> = encoder.columns.into_iter().map(ArrowColumnWriter::close).collect();
        self.files.append(partition, chunks.map_err(|error| self.files.error(error))?)
    }

    /// Keeps the memory of all row groups in the making below the limit: the largest goes first.
    fn flush_large(&mut self) -> Result<()> {
        let mut total: usize = self.encoders.values().map(Encoder::bytes).sum();
        while total > ROW_GROUP_BYTES {
            let largest = self.encoders.iter().map(|(partition, encoder)| (encoder.bytes(), partition)).max();
            let Some((bytes, partition)) = largest else { return Ok(()) };
            let partition = partition.clone();
            self.flush(&partition)?;
            total = total.saturating_sub(bytes);
        }
        Ok(())
    }
}

impl BatchWriter for Writer {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let within = |error: Error| error.within(self.files.table.address());
        let columns = self.files.conversion.apply(batch).map_err(within)?;
        if let Some(constraints) = &self.files.constraints {
            constraints.check(&self.files.conversion.schema, &columns).map_err(within)?;
        }
        for (partition, columns) in self.files.partitioning.split(&columns).map_err(within)? {
            self.encode(of_delta(&partition), &columns)?;
        }
        self.flush_large()
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let partitions: Vec<Partition> = self.encoders.keys().cloned().collect();
        for partition in partitions {
            self.flush(&partition)?;
        }
        self.finished = true;
        locked(&self.files.state).writers -= 1;
        Ok(())
    }
}
