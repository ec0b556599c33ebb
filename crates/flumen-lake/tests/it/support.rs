//! A lake for one test: loads are written as text, tables are read back as text, straight from Parquet and the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use chrono::{DateTime, Utc};
use flumen_core::clock::{Clock, Ids};
use flumen_core::dataset::TableName;
use flumen_core::load::{
    Committed, FILE_COLUMN, Fence, FileIdentity, FileRecord, LOAD_COLUMN, LoadId, LoadRecord, LoadRequest, Mode,
};
use flumen_core::write::{LoadSession, Sink};
use flumen_core::{Error, Result};
use flumen_lake::catalog::Catalog;
use flumen_lake::lake::{Lake, Snapshot, Table};
use flumen_lake::sink::LakeSink;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, path::Path};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use uuid::Uuid;

/// A second passes with each look.
#[derive(Default)]
pub struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        let seconds = self.0.fetch_add(1, Ordering::Relaxed);
        DateTime::from_timestamp(1_700_000_000 + i64::try_from(seconds).unwrap(), 0).unwrap()
    }
}

/// Ids that count, beginning anywhere.
pub struct TestIds(AtomicU64);

impl TestIds {
    /// Ids that no other engine of the tests has.
    pub fn random() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(AtomicU64::new(NEXT.fetch_add(1, Ordering::Relaxed) << 32))
    }
}

impl From<u64> for TestIds {
    fn from(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Ids for TestIds {
    fn next(&self) -> Uuid {
        Uuid::from_u64_pair(self.0.fetch_add(1, Ordering::Relaxed), 7)
    }
}

/// A lake and its table `raw.t`.
pub struct TestLake {
    pub lake: Lake,
    folder: Option<TempDir>,
    clock: Arc<TestClock>,
    ids: Arc<TestIds>,
}

impl TestLake {
    /// In a folder.
    pub fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::local(folder.path().join("lake")).unwrap();
        Self::new(lake, Some(folder))
    }

    /// In memory.
    pub fn memory() -> Self {
        let url = "memory:///some/where".parse().unwrap();
        Self::new(Lake::at(url, Arc::new(InMemory::new())).unwrap(), None)
    }

    fn new(lake: Lake, folder: Option<TempDir>) -> Self {
        Self { lake, folder, clock: Arc::default(), ids: Arc::new(TestIds(AtomicU64::new(1))) }
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.folder.as_ref().unwrap().path().join("lake")
    }

    /// On a lake that is there already, with ids that begin at `seed` and a clock that begins `days` later.
    pub fn on(lake: Lake, seed: u64, days: u64) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(days * 86_400)));
        Self { lake, folder: None, clock, ids: Arc::new(TestIds(AtomicU64::new(seed))) }
    }

    /// The catalog, as another process would have it.
    pub fn catalog(&self) -> Catalog {
        Catalog::new(self.lake.clone(), self.clock.clone(), self.ids.clone())
    }

    /// The catalog of another lake, with the same clock and ids.
    pub fn catalog_of(&self, lake: Lake) -> Catalog {
        Catalog::new(lake, self.clock.clone(), self.ids.clone())
    }

    /// Appends `rows` (of one column `n`) to the table at `table`.
    pub async fn append(&self, table: &Table, name: &str, rows: &[&str]) -> Committed {
        let sink = LakeSink::new(table.clone(), self.clock.clone(), self.ids.clone());
        let (session, record) = self.write_by(&sink, &Load::new(name, &["n"], rows)).await.unwrap();
        session.commit(&record).await.unwrap()
    }

    pub fn table(&self) -> Table {
        self.lake.table(&TableName::new("raw", "t").unwrap()).unwrap()
    }

    /// A sink of its own, as another process would have it.
    pub fn sink(&self) -> LakeSink {
        LakeSink::new(self.table(), self.clock.clone(), self.ids.clone())
    }

    /// Begins `load` and writes its rows.
    pub async fn write(&self, load: &Load) -> Result<(Box<dyn LoadSession>, LoadRecord)> {
        self.write_by(&self.sink(), load).await
    }

    pub async fn write_by(&self, sink: &LakeSink, load: &Load) -> Result<(Box<dyn LoadSession>, LoadRecord)> {
        let request = load.request(self.clock.now());
        let record = load.record(&request);
        let session = sink.begin(request).await?;
        let batch = load.rows.clone();
        let writers = load.writers;
        let session = tokio::task::spawn_blocking(move || -> Result<_> {
            let mut made = (0..writers).map(|_| session.writer()).collect::<Result<Vec<_>>>()?;
            for row in 0..batch.num_rows() {
                let writer = made.get_mut(row % writers).unwrap();
                writer.write(&batch.slice(row, 1))?;
            }
            for writer in made {
                writer.finish()?;
            }
            Ok(session)
        });
        Ok((session.await.unwrap()?, record))
    }

    /// Runs `load` from begin to commit.
    pub async fn load(&self, load: &Load) -> Result<Committed> {
        let (session, record) = self.write(load).await?;
        session.commit(&record).await
    }

    /// Takes the load called `name` back.
    pub async fn undo(&self, name: &str) -> Result<Committed> {
        let load = Load::new(name, &["n"], &[]);
        let mut record = load.record(&load.request(self.clock.now()));
        record.load = LoadId::derive(["undo", name]);
        record.undoes = Some(load_id(name));
        self.sink().undo(&load_id(name), &record).await
    }

    /// The rows of the table, sorted, one a line; columns that begin with `_flumen` are left out.
    pub async fn rows(&self) -> Vec<String> {
        match self.table().snapshot().await.unwrap() {
            Some(snapshot) => self.rows_of(&snapshot).await,
            None => Vec::new(),
        }
    }

    /// The rows of one version of a table, as [`TestLake::rows`] gives them.
    pub async fn rows_of(&self, snapshot: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        for batch in self.batches_of(snapshot).await {
            for row in 0..batch.num_rows() {
                let fields = batch.schema();
                let shown = fields.fields().iter().zip(batch.columns());
                let shown = shown.filter(|(field, _)| !field.name().starts_with("_flumen"));
                let values: Vec<String> =
                    shown.map(|(_, column)| array_value_to_string(column, row).unwrap()).collect();
                lines.push(values.join("|"));
            }
        }
        lines.sort();
        lines
    }

    /// The rows as they stand in the files that the log names.
    pub async fn batches(&self) -> Vec<RecordBatch> {
        match self.table().snapshot().await.unwrap() {
            Some(snapshot) => self.batches_of(&snapshot).await,
            None => Vec::new(),
        }
    }

    async fn batches_of(&self, snapshot: &Snapshot) -> Vec<RecordBatch> {
        let table = snapshot.table();
        let schema = snapshot.schema();
        let mut batches = Vec::new();
        for file in snapshot.files().unwrap() {
            let bytes = table.store().get(&Path::from(file.path.as_str())).await.unwrap().bytes().await.unwrap();
            assert_eq!(bytes.len() as u64, file.size, "{}", file.path);
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
            let mut rows = 0;
            for batch in reader {
                let batch = batch.unwrap();
                rows += batch.num_rows() as u64;
                let columns = schema.fields().iter().map(|field| -> ArrayRef {
                    if let Some(value) = file.partition.get(field.name()) {
                        let text: ArrayRef = Arc::new(StringArray::from(vec![value.as_deref(); batch.num_rows()]));
                        return cast(&text, field.data_type()).unwrap();
                    }
                    match batch.column_by_name(field.name()) {
                        Some(column) => cast(column, field.data_type()).unwrap(),
                        None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
                    }
                });
                batches.push(RecordBatch::try_new(schema.clone(), columns.collect()).unwrap());
            }
            assert!(rows > 0, "{} is empty", file.path);
            assert_eq!(file.stats.unwrap().num_records, Some(rows), "{}", file.path);
        }
        batches
    }

    /// The `_flumen_load` of each row, by the name of the load.
    pub async fn loads_of_rows(&self, names: &[&str]) -> Vec<String> {
        let batches = self.batches().await;
        let Some(first) = batches.first() else { return Vec::new() };
        let all = concat_batches(&first.schema(), &batches).unwrap();
        let ids = all.column_by_name(LOAD_COLUMN).unwrap();
        let mut found: Vec<String> = (0..all.num_rows())
            .map(|row| {
                let id = array_value_to_string(ids, row).unwrap();
                names.iter().find(|name| load_id(name).as_str() == id).map_or(id, |name| (*name).to_owned())
            })
            .collect();
        found.sort();
        found
    }

    /// The data files in the table's folder, whether the log names them or not.
    pub async fn data_files(&self) -> Vec<String> {
        use futures::TryStreamExt;
        let listed: Vec<_> = self.table().store().list(None).try_collect().await.unwrap_or_default();
        let paths = listed.into_iter().map(|file| file.location.to_string());
        paths.filter(|path| !path.starts_with("_delta_log") && path.ends_with(".parquet")).collect()
    }
}

pub fn load_id(name: &str) -> LoadId {
    LoadId::derive(["test", name])
}

/// A load as a test writes it.
#[derive(Clone)]
pub struct Load {
    pub name: String,
    pub mode: Mode,
    pub rows: RecordBatch,
    pub files: Vec<(FileIdentity, Option<LoadId>)>,
    pub fence: i64,
    pub evolve: bool,
    pub writers: usize,
    pub partition_by: Vec<String>,
}

impl Load {
    /// Rows as text: `columns` are `name` (a number) or `name:type`; values are separated by `|`, and empty means null.
    pub fn new(name: &str, columns: &[&str], rows: &[&str]) -> Self {
        let mut fields = Vec::new();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (place, column) in columns.iter().enumerate() {
            let (column, kind) = column.split_once(':').unwrap_or((column, "int"));
            let values: Vec<Option<&str>> =
                rows.iter().map(|row| row.split('|').nth(place).filter(|value| !value.is_empty())).collect();
            let array: ArrayRef = match kind {
                "int" => Arc::new(values.iter().map(|v| v.map(|v| v.parse::<i64>().unwrap())).collect::<Int64Array>()),
                "bool" => Arc::new(values.iter().map(|v| v.map(|v| v == "true")).collect::<BooleanArray>()),
                _ => Arc::new(StringArray::from(values)),
            };
            let array = match kind {
                "date" => cast(&array, &DataType::Date32).unwrap(),
                _ => array,
            };
            fields.push(Field::new(column, array.data_type().clone(), true));
            arrays.push(array);
        }
        for (column, value) in [(LOAD_COLUMN, load_id(name).to_string()), (FILE_COLUMN, format!("{name}.csv"))] {
            fields.push(Field::new(column, DataType::Utf8, true));
            arrays.push(Arc::new(StringArray::from(vec![value; rows.len()])));
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let load = Self {
            name: name.to_owned(),
            mode: Mode::Append,
            rows,
            files: Vec::new(),
            fence: 0,
            evolve: true,
            writers: 1,
            partition_by: Vec::new(),
        };
        load.of_file(name)
    }

    pub fn of_batch(name: &str, rows: RecordBatch) -> Self {
        Self { rows, ..Self::new(name, &["n"], &[]) }
    }

    pub fn of_file(mut self, file: &str) -> Self {
        let id = LoadId::derive(["file", file]);
        let identity = FileIdentity { address: format!("{file}.csv"), validator: Some(format!("test:{file}")) };
        self.files = vec![(identity, Some(id))];
        self
    }

    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn request(&self, started: DateTime<Utc>) -> LoadRequest {
        LoadRequest {
            load: load_id(&self.name),
            mode: self.mode.clone(),
            schema: self.schema(),
            evolve: self.evolve,
            files: self.files.clone(),
            fence: Fence(self.fence),
            started,
            writers: self.writers,
            partition_by: self.partition_by.clone(),
            indexes: Vec::new(),
            primary_key: Vec::new(),
        }
    }

    pub fn record(&self, request: &LoadRequest) -> LoadRecord {
        let rows = self.rows.num_rows() as u64;
        let file = |(identity, ledger_id): &(FileIdentity, Option<LoadId>)| FileRecord {
            identity: identity.clone(),
            ledger_id: ledger_id.clone(),
            rows,
        };
        LoadRecord {
            files: self.files.iter().map(file).collect(),
            rows_read: rows,
            rows_written: rows,
            ..LoadRecord::new(request.load.clone(), "lake.raw.t", request.mode.clone(), request.started)
        }
    }
}

/// An error, with its kind and hint.
pub fn told(error: &Error) -> String {
    format!("{}: {error} ({})", error.kind().name(), error.remedy().unwrap_or("-"))
}
