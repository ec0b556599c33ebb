use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use flumen_core::load::Fence;
use object_store::ObjectStore as _;
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;

use super::*;

fn rows() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), None]))),
        ("name", Arc::new(StringArray::from(vec!["a,b", "c"]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_500_000]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn request(mode: Mode) -> LoadRequest {
    LoadRequest {
        load: LoadId::derive(["test"]),
        mode,
        schema: rows().schema(),
        evolve: true,
        files: Vec::new(),
        fence: Fence(0),
        started: chrono::DateTime::UNIX_EPOCH,
        writers: 2,
        partition_by: Vec::new(),
        indexes: Vec::new(),
        primary_key: Vec::new(),
    }
}

fn file_sink(address: &str) -> FileSink {
    FileSink::new(address, &WriteOptions::default(), None, &Spool::new()).unwrap()
}

fn record() -> LoadRecord {
    LoadRecord::new(LoadId::derive(["test"]), "x", Mode::Replace, chrono::DateTime::UNIX_EPOCH)
}

/// Writes `batches` batches by two writers, and commits.
async fn write(sink: &FileSink, batches: usize) -> Committed {
    let session = sink.begin(request(Mode::Replace)).await.unwrap();
    for writer in 0..2 {
        let mut writes = session.writer().unwrap();
        for _ in (0..batches).filter(|batch| batch % 2 == writer) {
            writes.write(&rows()).unwrap();
        }
        writes.finish().unwrap();
    }
    session.commit(&record()).await.unwrap()
}

fn names(folder: &Path) -> String {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.join(" ")
}

#[tokio::test]
async fn every_format_is_written_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", dir.path().display());
    for name in ["x.parquet", "x.csv", "x.csv.gz", "x.tsv.zst", "x.ndjson", "x.ndjson.bz2", "x.arrow", "x.csv.xz"] {
        let sink = file_sink(&at(name));
        let committed = write(&sink, 3).await;
        assert_eq!(committed.bytes_written, fs::metadata(at(name)).unwrap().len(), "{name}");
        let files = crate::sources::Files::new();
        let options = flumen_core::read::ReadOptions::default();
        let inputs = flumen_core::read::FileReader::open(&files, &at(name), &options).await.unwrap();
        let schema = inputs[0].schema();
        assert_eq!(schema.fields().len(), 3, "{name}");
        assert_eq!(schema.field(2).data_type(), rows().schema().field(2).data_type(), "{name}");
        let splits = inputs[0].read(&flumen_core::read::ReadRequest::all(schema)).unwrap();
        let mut read = 0;
        while let Some(mut split) = splits.next().unwrap() {
            while let Some(raw) = split.next_batch().unwrap() {
                read += raw.batch.num_rows();
            }
        }
        assert_eq!(read, 6, "{name}");
    }
    assert_eq!(fs::read_to_string(at("x.csv")).unwrap().lines().next(), Some("id,name,at"));
}

#[tokio::test]
async fn options_say_what_the_name_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{}/{name}", dir.path().display());
    let named = |text: &str| Some(text.to_owned());
    let semicolons = WriteOptions { delimiter: Some(b';'), ..WriteOptions::default() };
    let headless = WriteOptions { header: Some(false), quote: Some(b'\''), null: named("NA"), ..semicolons.clone() };
    for (name, options, expect) in [
        ("x.csv", semicolons, "id;name;at\n1;a,b;1970-01-01 00:00:00\n;c;1970-01-01 00:00:01.500\n"),
        ("y.csv", headless, "1;a,b;1970-01-01 00:00:00\nNA;c;1970-01-01 00:00:01.500\n"),
        (
            "z.txt",
            WriteOptions { format: named("csv"), ..WriteOptions::default() },
            "id,name,at\n1,\"a,b\",1970-01-01 00:00:00\n,c,1970-01-01 00:00:01.500\n",
        ),
    ] {
        write(&FileSink::new(&at(name), &options, None, &Spool::new()).unwrap(), 1).await;
        assert_eq!(fs::read_to_string(at(name)).unwrap(), expect, "{name}");
    }
    let packed = WriteOptions { format: named("CSV"), compression: named("gzip"), ..WriteOptions::default() };
    write(&FileSink::new(&at("packed"), &packed, None, &Spool::new()).unwrap(), 1).await;
    assert!(fs::read(at("packed")).unwrap().starts_with(&[0x1f, 0x8b]));
    // A file without rows and without a header is empty.
    let headless = WriteOptions { header: Some(false), ..WriteOptions::default() };
    write(&FileSink::new(&at("none.csv"), &headless, None, &Spool::new()).unwrap(), 0).await;
    assert_eq!(fs::read_to_string(at("none.csv")).unwrap(), "");
}

#[tokio::test]
async fn nothing_is_seen_of_a_load_that_does_not_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    fs::write(&path, "old").unwrap();
    let sink = file_sink(path.to_str().unwrap());
    let session = sink.begin(request(Mode::Replace)).await.unwrap();
    session.writer().unwrap().write(&rows()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    drop(session);
    assert_eq!(names(dir.path()), "x.csv");
    write(&sink, 0).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "id,name,at\n");
}

#[tokio::test]
async fn several_files_end_with_a_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let sink = file_sink(&format!("{}/out/*.parquet", dir.path().display()));
    let out = dir.path().join("out");
    write(&sink, 4).await;
    assert_eq!(names(&out), "_manifest.json part-00000.parquet part-00001.parquet");
    let manifest: Manifest = serde_json::from_slice(&fs::read(out.join(MANIFEST)).unwrap()).unwrap();
    assert_eq!((manifest.rows, manifest.atomic, manifest.files.len()), (8, false, 2));
    // A smaller load leaves none of the larger one's files.
    write(&sink, 1).await;
    assert_eq!(names(&out), "_manifest.json part-00000.parquet");
}

/// Writes rows by two writers into folders for the values of `name`, and commits.
async fn write_folders(sink: &FileSink, batch: &RecordBatch) {
    let partitioned = LoadRequest { partition_by: vec!["NAME".to_owned()], ..request(Mode::Replace) };
    let session = sink.begin(partitioned).await.unwrap();
    for _ in 0..2 {
        let mut writes = session.writer().unwrap();
        writes.write(batch).unwrap();
        writes.finish().unwrap();
    }
    session.commit(&record()).await.unwrap();
}

#[tokio::test]
async fn rows_go_to_the_folders_of_their_values() {
    let dir = tempfile::tempdir().unwrap();
    let sink = file_sink(&format!("{}/out/*.csv", dir.path().display()));
    write_folders(&sink, &rows()).await;
    let out = dir.path().join("out");
    assert_eq!(names(&out), "_manifest.json name=a%2Cb name=c");
    let files = names(&out.join("name=c"));
    let (first, second) = files.split_once(' ').unwrap();
    for name in [first, second] {
        let text = fs::read_to_string(out.join("name=c").join(name)).unwrap();
        assert_eq!(text, "id,at\n,1970-01-01 00:00:01.500\n");
    }
    // What they hold is what was written, the columns of the folders behind the others.
    let pattern = format!("{}/**/*.csv", out.display());
    let files = crate::sources::Files::new();
    let inputs = flumen_core::read::FileReader::open(&files, &pattern, &Default::default()).await.unwrap();
    let columns: Vec<String> = inputs[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!((inputs.len(), columns.join(" ")), (4, "id at name".to_owned()));
    // Files of values that are there no more go.
    write_folders(&sink, &rows().slice(0, 1)).await;
    assert_eq!((names(&out.join("name=c")).as_str(), names(&out.join("name=a%2Cb")).split(' ').count()), ("", 2));
    let one = file_sink(&format!("{}/x.csv", dir.path().display()));
    let partitioned = LoadRequest { partition_by: vec!["name".to_owned()], ..request(Mode::Replace) };
    let error = one.begin(partitioned.clone()).await.err().unwrap();
    assert!(error.message().ends_with("x.csv is one file, which has no partitions"), "{error}");
    let wrong = LoadRequest { partition_by: vec!["nmae".to_owned()], ..partitioned };
    assert!(sink.begin(wrong).await.err().unwrap().remedy().unwrap().contains("name"));
}

#[tokio::test]
async fn a_writer_keeps_few_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let sink = file_sink(&format!("{}/out/*.parquet", dir.path().display()));
    let count = limits::OPEN_PARTITIONS as i64 + 2;
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..count))),
        ("name", Arc::new(StringArray::from_iter_values((0..count).map(|number| number.to_string())))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let many = LoadRequest { schema: batch.schema(), partition_by: vec!["name".to_owned()], ..request(Mode::Replace) };
    let session = sink.begin(many).await.unwrap();
    let mut writes = session.writer().unwrap();
    writes.write(&batch).unwrap();
    writes.write(&batch).unwrap();
    writes.finish().unwrap();
    session.commit(&record()).await.unwrap();
    let manifest: Manifest = serde_json::from_slice(&fs::read(dir.path().join("out").join(MANIFEST)).unwrap()).unwrap();
    assert_eq!(manifest.rows, 2 * count as u64);
    assert!(manifest.files.len() > count as usize, "some were closed to make room, and others begun");
}

/// A folder in a store.
fn in_store(spool: &Path) -> (Arc<InMemory>, Place) {
    let store = Arc::new(InMemory::new());
    let at = StoreAt {
        url: "s3://bucket/out".parse().unwrap(),
        store: Arc::clone(&store) as Arc<dyn object_store::ObjectStore>,
        path: StorePath::from("out"),
    };
    (store, Place::Store(at, Spool::within(spool)))
}

#[tokio::test]
async fn a_store_has_the_folders_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, place) = in_store(dir.path());
    let sink = FileSink::at("s3://bucket/out/*.csv", place, "*.csv", Encoding::of_name("x.csv").unwrap());
    write_folders(&sink, &rows()).await;
    let folder = StorePath::parse("out/name=a%2Cb").unwrap();
    let listed = store.list_with_delimiter(Some(&folder)).await.unwrap();
    assert_eq!(listed.objects.len(), 2);
}

#[tokio::test]
async fn a_store_gets_whole_objects() {
    let dir = tempfile::tempdir().unwrap();
    let (store, place) = in_store(dir.path());
    let encoding = Encoding::of_name("x.csv").unwrap();
    let sink = FileSink::at("s3://bucket/out/x.csv", place, "x.csv", encoding);
    let committed = write(&sink, 1).await;
    let object = store.get(&StorePath::from("out/x.csv")).await.unwrap().bytes().await.unwrap();
    assert_eq!(object.len() as u64, committed.bytes_written);
    assert!(object.starts_with(b"id,name,at\n1,\"a,b\",1970-01-01 00:00:00\n"));
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let said = |address: &str| {
        FileSink::new(address, &WriteOptions::default(), None, &Spool::new()).err().unwrap().message().to_owned()
    };
    let option = |name: &str, options: WriteOptions| {
        FileSink::new(name, &options, None, &Spool::new()).err().unwrap().message().to_owned()
    };
    let semicolons = WriteOptions { delimiter: Some(b';'), ..WriteOptions::default() };
    assert_eq!(option("x.parquet", semicolons), "a Parquet file has no delimiter");
    let named = |format: &str| WriteOptions { format: Some(format.to_owned()), ..WriteOptions::default() };
    assert_eq!(option("x.csv", named("doc")), "'doc' is not a format that can be written");
    let packed = WriteOptions { compression: Some("zip".to_owned()), ..WriteOptions::default() };
    assert!(option("x.csv", packed).contains("'zip'"));
    assert_eq!(said("x.doc"), "'x.doc' does not end with a format that can be written");
    assert_eq!(said("*/x.csv"), "'*/x.csv': only one '*' can be written to, in the file's name");
    assert_eq!(said("https://host/x.csv"), "'https://host/x.csv' is on a web server, which takes no files");
    let dir = tempfile::tempdir().unwrap();
    let sink = file_sink(&format!("{}/x.csv", dir.path().display()));
    let error = sink.begin(request(Mode::Append)).await.err().unwrap();
    assert!(error.message().ends_with("it can be replaced, and not loaded by append"), "{error}");
    assert!(sink.stored_type(&DataType::new_list(DataType::Int64, true)).is_err());
    assert_eq!(names(dir.path()), "");
}
