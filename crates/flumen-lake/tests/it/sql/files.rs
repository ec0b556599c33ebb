//! Queries over files, by a reader whose files are in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use flumen_core::load::FileIdentity;
use flumen_core::read::{
    BadRow, FileReader, Input, Misfit, RawBatch, ReadOptions, ReadRequest, RowNumbers, Split, Splits,
};
use flumen_core::text::{TextColumn, TextOptions};
use flumen_core::{Error, Result};

use flumen_core::sql::SqlEngine;
use futures::TryStreamExt;

use super::{check, engine, run, text};

/// Rows in a piece.
const PIECE_ROWS: usize = 2;

/// Files in memory, by address: text with commas, or batches.
#[derive(Default)]
pub struct MemoryFiles {
    files: BTreeMap<String, Vec<Arc<MemoryFile>>>,
}

struct MemoryFile {
    address: String,
    content: Content,
    schema: SchemaRef,
    bytes: u64,
    requests: Mutex<Vec<ReadRequest>>,
    pieces_read: Arc<AtomicUsize>,
}

enum Content {
    Text(Vec<Vec<String>>),
    Batch(RecordBatch),
}

impl MemoryFiles {
    /// Adds a text file: a header with `name:type`, and rows. It says that it has `bytes`.
    fn text(mut self, address: &str, name: &str, content: &str, bytes: u64) -> Self {
        let mut lines = content.lines();
        let field = |column: &str| {
            let (name, guess) = column.split_once(':').unwrap();
            let guess = match guess {
                "int" => DataType::Int64,
                "float" => DataType::Float64,
                "null" => DataType::Null,
                _ => DataType::Utf8,
            };
            Field::new(name, guess, true)
        };
        let schema = Arc::new(Schema::new(lines.next().unwrap().split(',').map(field).collect::<Vec<_>>()));
        let rows = lines.map(|line| line.split(',').map(str::to_owned).collect()).collect();
        self.add(address, name, Content::Text(rows), schema, bytes);
        self
    }

    /// A small file.
    pub fn trips() -> Self {
        Self::default().text("trips.csv", "trips.csv", "zone:text,fare:int\na,1\nb,2\na,3", SMALL)
    }

    fn batch(mut self, address: &str, name: &str, batch: RecordBatch) -> Self {
        let schema = batch.schema();
        self.add(address, name, Content::Batch(batch), schema, 1);
        self
    }

    fn add(&mut self, address: &str, name: &str, content: Content, schema: SchemaRef, bytes: u64) {
        let file = MemoryFile {
            address: name.to_owned(),
            content,
            schema,
            bytes,
            requests: Mutex::default(),
            pieces_read: Arc::default(),
        };
        self.files.entry(address.to_owned()).or_default().push(Arc::new(file));
    }

    fn file(&self, address: &str) -> Arc<MemoryFile> {
        Arc::clone(&self.files[address][0])
    }
}

#[async_trait]
impl FileReader for MemoryFiles {
    async fn open(&self, address: &str, _options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>> {
        match self.files.get(address) {
            Some(files) => Ok(files.iter().map(|file| Arc::new(Opened(Arc::clone(file))) as Arc<dyn Input>).collect()),
            None => Err(Error::not_found(format!("{address}: no such file or folder"))),
        }
    }
}

struct Opened(Arc<MemoryFile>);

impl Input for Opened {
    fn address(&self) -> &str {
        &self.0.address
    }

    fn identity(&self) -> Result<FileIdentity> {
        Err(Error::internal("nobody asks for it"))
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.0.bytes)
    }

    fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    fn is_text(&self) -> bool {
        matches!(self.0.content, Content::Text(_))
    }

    fn read(&self, request: &ReadRequest) -> Result<Arc<dyn Splits>> {
        self.0.requests.lock().unwrap().push(request.clone());
        Ok(Arc::new(Pieces { file: Arc::clone(&self.0), request: request.clone(), next: AtomicUsize::new(0) }))
    }
}

struct Pieces {
    file: Arc<MemoryFile>,
    request: ReadRequest,
    next: AtomicUsize,
}

impl Splits for Pieces {
    fn next(&self) -> Result<Option<Box<dyn Split>>> {
        let rows = match &self.file.content {
            Content::Text(rows) => rows.len(),
            Content::Batch(batch) => batch.num_rows(),
        };
        let start = self.next.fetch_add(PIECE_ROWS, Ordering::SeqCst);
        if start >= rows {
            return Ok(None);
        }
        self.file.pieces_read.fetch_add(1, Ordering::SeqCst);
        let piece = Piece {
            file: Arc::clone(&self.file),
            request: self.request.clone(),
            rows: Some(start..rows.min(start + PIECE_ROWS)),
        };
        Ok(Some(Box::new(piece)))
    }

    fn bytes_read(&self) -> u64 {
        0
    }
}

struct Piece {
    file: Arc<MemoryFile>,
    request: ReadRequest,
    rows: Option<std::ops::Range<usize>>,
}

impl Split for Piece {
    fn next_batch(&mut self) -> Result<Option<RawBatch>> {
        let Some(rows) = self.rows.take() else { return Ok(None) };
        let text = match &self.file.content {
            Content::Batch(batch) => {
                let columns: Vec<usize> = self.request.columns.iter().map(|column| column.index).collect();
                let piece = batch.slice(rows.start, rows.len()).project(&columns)?;
                return Ok(Some(RawBatch::good(piece, rows.start as u64 + 1)));
            }
            Content::Text(text) => text,
        };
        let options = TextOptions::default();
        let mut columns = Vec::new();
        for wanted in &self.request.columns {
            columns.push(TextColumn::new(&wanted.data_type, rows.len(), &options)?);
        }
        let (mut misfits, mut bad, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let (fields, line) = (&text[row], row as u64 + 2);
            if fields.len() != self.file.schema.fields().len() {
                bad.push(BadRow {
                    row: row as u64 + 1,
                    line: Some(line),
                    column: None,
                    reason: format!("has {} fields, the header has {}", fields.len(), self.file.schema.fields().len()),
                    value: None,
                    record: fields.join(","),
                });
                continue;
            }
            for (index, (wanted, column)) in self.request.columns.iter().zip(&mut columns).enumerate() {
                let value = &fields[wanted.index];
                if value.is_empty() {
                    column.append_null();
                } else if !column.append(value.as_bytes()) {
                    misfits.push(Misfit { row: numbers.len(), column: index, line: Some(line), value: value.clone() });
                }
            }
            numbers.push(row as u64 + 1);
        }
        let field = |wanted: &flumen_core::read::WantedColumn| {
            Field::new(self.file.schema.field(wanted.index).name(), wanted.data_type.clone(), true)
        };
        let schema = Arc::new(Schema::new(self.request.columns.iter().map(field).collect::<Vec<_>>()));
        let arrays: Vec<ArrayRef> = columns.iter_mut().map(TextColumn::finish).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)?;
        Ok(Some(RawBatch { batch, rows: RowNumbers::List(numbers), misfits, bad }))
    }
}

const SMALL: u64 = 100;
const LARGE: u64 = 1 << 30;

#[tokio::test]
async fn files_are_tables() {
    let files = MemoryFiles::default().text("x.csv", "x.csv", "id:int,fare:float\n1,1.5\n2,\n3,2", SMALL);
    let engine = engine(None, files);
    for name in ["'x.csv'", "\"x.csv\"", "'x.csv' as t"] {
        check(&engine, &format!("select count(*), sum(fare), max(id) from {name}"), "3|3.5|3").await;
    }
    check(&engine, "select t.id from 'x.csv' t where fare is null", "2").await;
    check(&engine, "select a.id from 'x.csv' a join 'x.csv' b on a.id = b.id + 2", "3").await;
    assert_eq!(engine.columns("x.csv").await.unwrap().field(0).name(), "id");
    let missing = text(&engine, "select * from 'y.csv'").await;
    assert_eq!(missing, "not_found: y.csv: no such file or folder");
}

#[tokio::test]
async fn small_text_gets_types_that_hold_for_all_of_it() {
    let rows = "a:int,b:int,c:null,d:int\n1,1.5,,1\n2,2,,2\n3,2.5,,3\n4,4,x,2019-01-01";
    let engine = engine(None, MemoryFiles::default().text("x.csv", "x.csv", rows, SMALL));
    check(&engine, "select a, b, c, d from 'x.csv' where a > 2", "3|2.5|NULL|3\n4|4.0|x|2019-01-01").await;
    check(&engine, "select arrow_typeof(b), arrow_typeof(d) from 'x.csv' limit 1", "Float64|Utf8").await;
}

#[tokio::test]
async fn a_query_begins_anew_when_a_guess_was_too_narrow() {
    let rows = "a:int,b:int,c:int\n1,1,x\n2,2,2\n3,2.5,3\n4,3.5,4\n5,5,5";
    let files = MemoryFiles::default().text("big.csv", "big.csv", rows, LARGE);
    let file = files.file("big.csv");
    let engine = engine(None, files);
    check(&engine, "select sum(a) from 'big.csv'", "15").await;
    assert_eq!(file.requests.lock().unwrap().len(), 1, "what is not read is not looked at");
    check(&engine, "select sum(b), arrow_typeof(min(b)) from 'big.csv'", "14.0|Float64").await;
    check(&engine, "select arrow_typeof(c) from 'big.csv' limit 1", "Utf8").await;
    check(&engine, "create table t as select max(c) as c from 'big.csv'", "").await;
    check(&engine, "select c from t", "x").await;
}

#[tokio::test]
async fn rows_that_were_given_out_are_not_given_again() {
    let rows = format!("a:int\n{}x\n2.5", "1\n".repeat(100));
    let engine = engine(None, MemoryFiles::default().text("big.csv", "big.csv", &rows, LARGE));
    let mut answer = engine.query("select a from 'big.csv'").await.unwrap();
    let mut given = 0;
    let error = loop {
        match answer.batches.try_next().await {
            Ok(batch) => given += batch.expect("an error comes first").num_rows(),
            Err(error) => break error,
        }
    };
    assert!(given > 0);
    let expect = "big.csv: line 102: 'x' in column 'a' is no Int64, which samples of the file suggested";
    assert_eq!(error.message(), expect);
    assert!(engine.learn_types(&error).await.unwrap());
    assert!(!engine.learn_types(&Error::data("another")).await.unwrap());
    check(&engine, "select count(a), max(a) from 'big.csv'", "102|x").await;
}

#[tokio::test]
async fn a_bad_row_is_an_error_with_its_place() {
    for bytes in [SMALL, LARGE] {
        let engine = engine(None, MemoryFiles::default().text("x.csv", "x.csv", "a:int,b:int\n1,1\n2", bytes));
        let error = text(&engine, "select count(*) from 'x.csv'").await;
        assert!(error.starts_with("data: x.csv: line 3 has 1 fields, the header has 2\nhint: "), "{error}");
    }
}

#[tokio::test]
async fn only_wanted_columns_and_rows_are_read() {
    let lines: Vec<String> = (0..1000).map(|row| format!("{row},x,{row}")).collect();
    let files =
        MemoryFiles::default().text("big.csv", "big.csv", &format!("a:int,b:text,c:int\n{}", lines.join("\n")), LARGE);
    let file = files.file("big.csv");
    let engine = engine(None, files);
    check(&engine, "select sum(c) from 'big.csv'", "499500").await;
    let request = file.requests.lock().unwrap().pop().unwrap();
    assert_eq!(request.columns.iter().map(|column| column.index).collect::<Vec<_>>(), [2]);
    check(&engine, "select count(*) from 'big.csv'", "1000").await;
    let before = file.pieces_read.load(Ordering::SeqCst);
    assert_eq!(
        run(&engine, "select a from 'big.csv' limit 3").await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(),
        3
    );
    let read = file.pieces_read.load(Ordering::SeqCst) - before;
    assert!(read < 100, "{read} pieces of 500 were read for three rows");
}

#[tokio::test]
async fn files_of_one_pattern_meet_by_name_and_widen() {
    let floats = RecordBatch::try_from_iter([
        ("FARE", Arc::new(Float64Array::from(vec![2.5])) as ArrayRef),
        ("Tip", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
    ])
    .unwrap();
    let ints = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("fare", Arc::new(Int64Array::from(vec![3])) as ArrayRef),
    ])
    .unwrap();
    let files = MemoryFiles::default()
        .batch("*.parquet", "a.parquet", ints)
        .batch("*.parquet", "b.parquet", floats)
        .text("*.csv", "a.csv", "id:int,fare:int\n1,3", SMALL)
        .text("*.csv", "b.csv", "FARE:float,Tip:int\n2.5,7", SMALL);
    let engine = engine(None, files);
    for pattern in ["*.parquet", "*.csv"] {
        check(&engine, &format!("select id, fare, \"Tip\" from '{pattern}' order by fare"), "NULL|2.5|7\n1|3.0|NULL")
            .await;
    }
}

#[tokio::test]
async fn a_plan_that_runs_twice_reads_twice() {
    let files = MemoryFiles::default().text("x.csv", "x.csv", "a:int\n1\n2\n3", LARGE);
    let engine = engine(None, files);
    check(
        &engine,
        "with recursive r as (select 1 as n union all select n + 1 from r where n < 3 and exists (select 1 from 'x.csv' where a = n)) select max(n), count(*) from r",
        "3|3",
    )
    .await;
}
