//! The pipeline from CSV text to a table in memory.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use chrono::{DateTime, TimeZone, Utc};
use flumen_core::ErrorKind;
use flumen_core::contract::type_name;
use flumen_core::observe::Unobserved;
use flumen_core::read::ReadOptions;
use flumen_core::write::{BatchWriter, LedgerEntry, RefusedRows};
use uuid::Uuid;

use super::*;
use crate::blob::Memory;
use crate::formats::Format;
use crate::formats::csv::Csv;
use crate::sources::local::LocalFile;

/// A table in memory: what a sink must do, in its plainest form.
#[derive(Default)]
struct Table {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    loads: Vec<(LoadRecord, SchemaRef, Vec<RecordBatch>)>,
    quarantine: Vec<RecordBatch>,
    begun: usize,
    /// Done once, when a load begins: its inputs are identified then, and none of them is read.
    at_begin: Option<Box<dyn FnOnce() + Send>>,
}

struct TableSession {
    table: Arc<Table>,
    request: LoadRequest,
    written: Arc<Mutex<Vec<RecordBatch>>>,
}

struct TableWriter {
    batches: Vec<RecordBatch>,
    written: Arc<Mutex<Vec<RecordBatch>>>,
}

struct TableSink(Arc<Table>);

#[async_trait]
impl Sink for TableSink {
    fn address(&self) -> String {
        "memory.t".into()
    }
    async fn state(&self) -> Result<Option<TableState>> {
        let state = self.0.state.lock().unwrap();
        let last = state.loads.last().map(|(_, schema, _)| Arc::clone(schema));
        Ok(last.map(|schema| TableState { schema, version: None, partition_by: Vec::new() }))
    }
    async fn known(&self, files: &[LoadId]) -> Result<Vec<bool>> {
        let state = self.0.state.lock().unwrap();
        let has =
            |id: &LoadId| state.loads.iter().any(|(r, ..)| r.files.iter().any(|f| f.ledger_id.as_ref() == Some(id)));
        Ok(files.iter().map(has).collect())
    }
    async fn loads(&self, limit: usize) -> Result<Vec<LedgerEntry>> {
        let state = self.0.state.lock().unwrap();
        let entry = |(record, ..): &(LoadRecord, SchemaRef, Vec<RecordBatch>)| LedgerEntry {
            record: record.clone(),
            committed: at(0),
            version: None,
            undone: false,
        };
        Ok(state.loads.iter().rev().take(limit).map(entry).collect())
    }
    async fn undo(&self, load: &LoadId, _: &LoadRecord) -> Result<Committed> {
        self.0.state.lock().unwrap().loads.retain(|(record, ..)| record.load != *load);
        Ok(Committed { version: None, bytes_written: 0 })
    }
    async fn begin(&self, request: LoadRequest) -> Result<Box<dyn LoadSession>> {
        let mut state = self.0.state.lock().unwrap();
        state.begun += 1;
        if let Some(at_begin) = state.at_begin.take() {
            at_begin();
        }
        Ok(Box::new(TableSession { table: Arc::clone(&self.0), request, written: Arc::default() }))
    }
    fn lineage_by_default(&self) -> bool {
        false
    }
    fn stored_type(&self, data_type: &DataType) -> Result<DataType> {
        Ok(data_type.clone())
    }
}

#[async_trait]
impl LoadSession for TableSession {
    fn writer(&self) -> Result<Box<dyn BatchWriter>> {
        Ok(Box::new(TableWriter { batches: Vec::new(), written: Arc::clone(&self.written) }))
    }
    async fn quarantine(&self, rows: RefusedRows) -> Result<()> {
        self.table.state.lock().unwrap().quarantine = rows.collect::<Result<_>>()?;
        Ok(())
    }
    async fn commit(self: Box<Self>, record: &LoadRecord) -> Result<Committed> {
        let batches = std::mem::take(&mut *self.written.lock().unwrap());
        let mut state = self.table.state.lock().unwrap();
        if self.request.mode == Mode::Replace {
            state.loads.clear();
        }
        state.loads.push((record.clone(), self.request.schema, batches));
        Ok(Committed { version: None, bytes_written: 0 })
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl BatchWriter for TableWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.batches.push(batch.clone());
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<()> {
        self.written.lock().unwrap().extend(self.batches);
        Ok(())
    }
}

impl Table {
    /// `column type, … : value,value | …`, rows sorted.
    fn show(&self) -> String {
        let state = self.state.lock().unwrap();
        let Some((_, schema, _)) = state.loads.last() else { return "no table".into() };
        let columns: Vec<String> =
            schema.fields().iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
        let mut rows: Vec<String> = state.loads.iter().flat_map(|(_, _, batches)| batches).flat_map(rows).collect();
        rows.sort();
        format!("{} : {}", columns.join(", "), rows.join(" | "))
    }

    fn quarantine(&self) -> usize {
        self.state.lock().unwrap().quarantine.iter().map(RecordBatch::num_rows).sum()
    }
}

fn rows(batch: &RecordBatch) -> Vec<String> {
    let value = |array: &Arc<dyn arrow::array::Array>, row| array_value_to_string(array, row).unwrap();
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|a| value(a, row)).collect::<Vec<_>>().join(","))
        .collect()
}

fn at(second: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2019, 1, 1, 0, 0, second).unwrap()
}

struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> DateTime<Utc> {
        at(1)
    }
}
impl Ids for Fixed {
    fn next(&self) -> Uuid {
        Uuid::from_u128(7)
    }
}

fn files(files: &[(&str, &str)]) -> Vec<Arc<dyn Input>> {
    let open = |(name, text): &(&str, &str)| {
        let blob = Arc::new(Memory::new(*name, text.as_bytes().to_vec()));
        Csv.open(blob, &ReadOptions::default()).unwrap()
    };
    files.iter().flat_map(open).collect()
}

fn job(table: &Arc<Table>, inputs: Vec<Arc<dyn Input>>) -> Ingest {
    Ingest {
        inputs,
        sink: Arc::new(TableSink(Arc::clone(table))),
        mode: Mode::Append,
        contract: Contract::default(),
        case: Case::Keep,
        select: Vec::new(),
        text: TextOptions::default(),
        max_bad: 0,
        limit: None,
        force: false,
        load_id: None,
        scope: String::new(),
        lineage: None,
        take_over: true,
        partition_by: Vec::new(),
        indexes: Vec::new(),
        primary_key: Vec::new(),
        spool: Spool::new(),
        fence: Fence(0),
        started: at(0),
        threads: 2,
        options: BTreeMap::new(),
    }
}

async fn run_with(ingest_job: Ingest, cancel: CancellationToken) -> Result<Receipt> {
    ingest(ingest_job, Around { clock: &Fixed, ids: &Fixed, observer: Arc::new(Unobserved), cancel }).await
}

async fn run(job: Ingest) -> Result<Receipt> {
    run_with(job, CancellationToken::new()).await
}

#[tokio::test]
async fn files_become_one_table() {
    let table = Arc::default();
    let receipt = run(job(&table, files(&[("a.csv", "x,y\n1,a\n2,b\n"), ("b.csv", "X,z\n3,2.5\n")]))).await.unwrap();
    assert_eq!(table.show(), "x bigint, y text, z double : 1,a, | 2,b, | 3,,2.5");
    assert_eq!((receipt.record.rows_read, receipt.record.rows_written), (3, 3));
}

#[tokio::test]
async fn what_is_loaded_is_left_out() {
    let table = Arc::default();
    let (a, b) = (("a.csv", "x\n1\n"), ("b.csv", "x\n2\n"));
    run(job(&table, files(&[a]))).await.unwrap();
    let receipt = run(job(&table, files(&[a, b, b]))).await.unwrap();
    assert_eq!(table.show(), "x bigint : 1 | 2");
    assert_eq!(receipt.skipped, ["a.csv", "b.csv"]);
    assert!(run(job(&table, files(&[b]))).await.unwrap().committed.is_none());
    // Other content under the same name is another file; force loads anyway.
    run(job(&table, files(&[("a.csv", "x\n7\n")]))).await.unwrap();
    run(Ingest { force: true, ..job(&table, files(&[b])) }).await.unwrap();
    assert_eq!(table.show(), "x bigint : 1 | 2 | 2 | 7");
}

#[tokio::test]
async fn replace_is_a_no_op_only_when_the_same_files_are_the_latest_load() {
    let table = Arc::default();
    let (a, b) = (("a.csv", "x\n1\n"), ("b.csv", "x\n2\n"));
    for (file, commits) in [(a, true), (a, false), (b, true), (a, true)] {
        let receipt = run(Ingest { mode: Mode::Replace, ..job(&table, files(&[file])) }).await.unwrap();
        assert_eq!(receipt.committed.is_some(), commits);
    }
    assert_eq!(table.show(), "x bigint : 1");
}

#[tokio::test]
async fn a_type_that_turns_out_wider_costs_a_second_reading_and_no_more() {
    let table: Arc<Table> = Arc::default();
    // Long enough that neither samples nor the first block see the odd values.
    let mut text = String::from("n,m,empty\n");
    (0..400_000).for_each(|n| text.push_str(&format!("{n},{n},\n")));
    text.push_str("x,1.5,7\n");
    (0..400_000).for_each(|n| text.push_str(&format!("{n},{n},\n")));
    let receipt = run(job(&table, files(&[("a.csv", &text)]))).await.unwrap();
    assert_eq!(receipt.record.rows_written, 800_001);
    let columns = table.show();
    assert!(columns.starts_with("n text, m double, empty bigint : "), "{}", &columns[..60]);
    assert_eq!((receipt.read_twice, table.state.lock().unwrap().begun), (true, 2));
}

#[tokio::test]
async fn bad_rows_fail_the_load_or_go_to_quarantine() {
    let table = Arc::default();
    let text = "a,b\n1,2\n3\n4,5,6\n7,8,\n";
    let error = run(job(&table, files(&[("t.csv", text)]))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().contains("t.csv, line 3: has 1 field"), "{error}");
    assert_eq!((table.show(), table.quarantine()), ("no table".to_owned(), 2));
    let receipt = run(Ingest { max_bad: 2, ..job(&table, files(&[("t.csv", text)])) }).await.unwrap();
    assert_eq!(table.show(), "a bigint, b bigint : 1,2 | 7,8");
    let record = receipt.record;
    assert_eq!((record.rows_read, record.rows_written, record.rows_quarantined), (4, 2, 2));
    assert_eq!(receipt.warnings.len(), 1, "{:?}", receipt.warnings);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_loaded_fails_the_load() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv");
    std::fs::write(&path, "x\n1\n2\n").unwrap();
    let open = || Csv.open(Arc::new(LocalFile::open(&path).unwrap()), &ReadOptions::default()).unwrap();
    // More rows, and rows that do not fit: the change is the reason, and nothing is put into quarantine.
    for content in ["x\n1\n2\n3\n", "x\n1,2\n3,4\n"] {
        let table: Arc<Table> = Arc::default();
        let inputs = open();
        let written = path.clone();
        table.state.lock().unwrap().at_begin = Some(Box::new(move || std::fs::write(written, content).unwrap()));
        let error = run(job(&table, inputs)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(error.message(), format!("{} changed while it was being read", path.display()));
        assert!(error.remedy().is_some());
        assert_eq!((table.show(), table.quarantine()), ("no table".to_owned(), 0));
    }
    std::fs::write(&path, "x\n1\n2\n3\n").unwrap();
    let table = Arc::default();
    run(job(&table, open())).await.unwrap();
    assert_eq!(table.show(), "x bigint : 1 | 2 | 3");
}

#[tokio::test]
async fn a_limit_is_kept() {
    let table = Arc::default();
    let receipt = run(Ingest { limit: Some(2), ..job(&table, files(&[("a.csv", "x\n1\n2\n3\n")])) }).await.unwrap();
    assert_eq!((table.show().as_str(), receipt.record.rows_read), ("x bigint : 1 | 2", 2));
}

#[tokio::test]
async fn an_empty_file_is_a_mistake_alone_and_a_warning_among_others() {
    let table = Arc::default();
    let error = run(job(&table, files(&[("a.csv", "x\n")]))).await;
    assert!(error.is_ok(), "a header alone is a table without rows");
    let receipt = run(job(&table, files(&[("b.csv", "x\n1\n"), ("c.csv", "x\n")]))).await.unwrap();
    assert_eq!(receipt.record.rows_written, 1);
}

#[tokio::test]
async fn a_cancelled_load_leaves_nothing() {
    let table = Arc::default();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = run_with(job(&table, files(&[("a.csv", "x\n1\n")])), cancel).await.unwrap_err();
    assert_eq!((error.kind(), table.show()), (ErrorKind::Cancelled, "no table".to_owned()));
}

#[tokio::test]
async fn lineage_says_where_a_row_comes_from() {
    let table = Arc::default();
    let job = Ingest { lineage: Some(true), max_bad: 1, ..job(&table, files(&[("a.csv", "x,y\n1,1\n2\n3,3\n")])) };
    let receipt = run(job).await.unwrap();
    let load = receipt.record.load;
    assert!(table.show().ends_with(&format!(" : 1,1,{load},a.csv,1 | 3,3,{load},a.csv,3")), "{}", table.show());
}
