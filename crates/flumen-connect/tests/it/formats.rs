//! Every format: what is written is read back.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;
use arrow::util::display::array_value_to_string;
use flumen_connect::sources::Files;
use flumen_connect::spool::Spool;
use flumen_core::Result;
use flumen_core::read::{FileReader, Input, ReadOptions, ReadRequest};

/// All that there is to see of a file: its warnings, its columns, its rows.
pub async fn show(address: &str, options: &ReadOptions) -> String {
    let spool = tempfile::tempdir().unwrap();
    let files = Files::new().with_spool(Spool::within(spool.path()));
    match FileReader::open(&files, address, options).await {
        Ok(inputs) => inputs.iter().map(|input| show_input(input.as_ref())).collect::<Vec<_>>().join("\n--\n"),
        Err(error) => format!("{error} [{}]", error.remedy().unwrap_or_default()),
    }
}

/// All that there is to see of one input.
pub fn show_input(input: &dyn Input) -> String {
    let mut lines: Vec<String> = input.warnings().iter().map(|warning| format!("! {warning}")).collect();
    let columns: Vec<String> =
        input.schema().fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
    lines.push(columns.join(", "));
    match rows(input) {
        Ok(rows) => lines.extend(rows),
        Err(error) => lines.push(format!("{error} [{}]", error.remedy().unwrap_or_default())),
    }
    lines.join("\n")
}

fn rows(input: &dyn Input) -> Result<Vec<String>> {
    let splits = input.read(&ReadRequest::all(input.schema()))?;
    let mut lines = Vec::new();
    while let Some(mut split) = splits.next()? {
        while let Some(raw) = split.next_batch()? {
            for row in 0..raw.batch.num_rows() {
                let values = raw.batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
                lines.push(format!("{}: {}", raw.rows.at(row), values.collect::<Vec<_>>().join(" | ")));
            }
            for misfit in raw.misfits {
                lines.push(format!("misfit in row {} column {}: {}", misfit.row, misfit.column, misfit.value));
            }
            for bad in raw.bad {
                lines.push(format!("bad row {} (line {:?}): {}: {}", bad.row, bad.line, bad.reason, bad.record));
            }
        }
    }
    lines.extend(splits.warnings().into_iter().map(|warning| format!("! {warning}")));
    Ok(lines)
}

/// Four columns, in the layouts that plain types stand for.
fn trips() -> RecordBatch {
    let zones: DictionaryArray<Int32Type> = vec!["JFK", "LGA", "JFK"].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("fare", Arc::new(Float64Array::from(vec![Some(4.5), None, Some(-1.0)]))),
        ("zone", Arc::new(zones)),
        ("note", Arc::new(LargeStringArray::from(vec![Some("a,b"), None, Some("")]))),
        ("view", Arc::new(StringViewArray::from(vec!["x", "y", "a text that is longer than a view"]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_546_300_800_000_000, 2]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

const SHOWN: &str = "\
id: Int64, fare: Float64, zone: Utf8, note: Utf8, view: Utf8, at: Timestamp(µs)
1: 1 | 4.5 | JFK | a,b | x | 1970-01-01T00:00:00
2: 2 |  | LGA |  | y | 2019-01-01T00:00:00
3: 3 | -1.0 | JFK |  | a text that is longer than a view | 1970-01-01T00:00:00.000002";

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn ipc_file(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn ipc_stream(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn avro(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_avro::writer::AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// What is seen of a file called `name` with `bytes`, with the folder's name left out.
async fn check(name: &str, bytes: &[u8]) -> String {
    check_with(name, bytes, &ReadOptions::default()).await
}

async fn check_with(name: &str, bytes: &[u8], options: &ReadOptions) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let shown = show(path.to_str().unwrap(), options).await;
    shown.replace(&format!("{}/", Path::new(dir.path()).display()), "")
}

#[tokio::test]
async fn typed_formats_read_back_in_plain_types() {
    let batch = trips();
    assert_eq!(check("t.parquet", &parquet(&batch)).await, SHOWN);
    assert_eq!(check("t.arrow", &ipc_file(&batch)).await, SHOWN);
    assert_eq!(check("t.arrow", &ipc_stream(&batch)).await, SHOWN);
    // The bytes decide where the name does not, and packing changes nothing.
    assert_eq!(check("t", &parquet(&batch)).await, SHOWN);
    assert_eq!(check("t.csv", &parquet(&batch)).await, SHOWN);
    assert_eq!(check("t.parquet.gz", &gzip(&parquet(&batch))).await, SHOWN);
    assert_eq!(check("t", b"a,b\n1,x\n").await, "a: Int64, b: Utf8\n1: 1 | x");
    assert_eq!(check("t.csv.gz", &gzip(b"a,b\n1,x\n")).await, "a: Int64, b: Utf8\n1: 1 | x");
    assert_eq!(check("t.feather.gz", &gzip(&ipc_file(&batch))).await, SHOWN);
}

#[tokio::test]
async fn avro_is_read_and_missed_when_it_is_cut_short() {
    let columns: Vec<(&str, ArrayRef)> =
        vec![("id", Arc::new(Int64Array::from(vec![1, 2]))), ("name", Arc::new(StringArray::from(vec!["a", "b"])))];
    let bytes = avro(&RecordBatch::try_from_iter(columns).unwrap());
    let shown = "id: Int64, name: Utf8\n1: 1 | a\n2: 2 | b";
    assert_eq!(check("t.avro", &bytes).await, shown);
    assert_eq!(check("t.avro.gz", &gzip(&bytes)).await, shown);
    let cut = check("t.avro", &bytes[..bytes.len() - 5]).await;
    assert!(cut.contains("t.avro ends early: its last Avro block is cut short"), "{cut}");
    let packed = gzip(&bytes);
    let cut = check("t.avro.gz", &packed[..packed.len() - 12]).await;
    assert!(cut.contains("t.avro.gz ends early: the gzip stream is cut short"), "{cut}");
}

#[tokio::test]
async fn an_index_of_pandas_is_left_out() {
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![7])) as ArrayRef),
        ("__index_level_0__", Arc::new(Int64Array::from(vec![0])) as ArrayRef),
    ]);
    assert_eq!(
        check("t.parquet", &parquet(&batch.unwrap())).await,
        "! t.parquet: the pandas index __index_level_0__ is left out\nid: Int64\n1: 7"
    );
}

#[tokio::test]
async fn broken_files_say_what_is_wrong() {
    let bytes = parquet(&trips());
    let cut = check("t.parquet", &bytes[..bytes.len() - 20]).await;
    assert!(cut.starts_with("t.parquet is no whole Parquet file: its footer is missing or damaged [download"), "{cut}");
    assert_eq!(
        check("t.parquet", b"<html>404</html>").await,
        "t.parquet is not a Parquet file: it holds a web page [check the address, or name the format with --format]"
    );
    assert_eq!(
        check("t.csv", b"<!DOCTYPE html><html>").await,
        "t.csv holds a web page, not a table [check the address: a page to log in or to look at often stands where the file should be]"
    );
    let cut = check("t.arrow", &ipc_file(&trips())[..200]).await;
    assert!(cut.starts_with("t.arrow is no whole Arrow file"), "{cut}");
    let stream = ipc_stream(&trips());
    let cut = check("t.arrow", &stream[..stream.len() - 20]).await;
    assert!(cut.contains("t.arrow is no whole Arrow file"), "{cut}");
    assert_eq!(check("t.parquet", b"").await, "! t.parquet is empty\n");
    let wrong = ReadOptions { format: Some("avro".into()), ..ReadOptions::default() };
    assert_eq!(
        check_with("t.parquet", &bytes, &wrong).await,
        "t.parquet is not an Avro file: it holds a Parquet file [give --format parquet, or leave it out]"
    );
}

#[tokio::test]
async fn every_table_in_a_zip_is_an_input() {
    let one = parquet(&RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap());
    let archive =
        zip(&[("d/one.parquet", &one), ("readme", b"x"), ("__MACOSX/._one.parquet", b"x"), ("two.parquet", &one)]);
    assert_eq!(check("t.zip", &archive).await, "a: Int64\n1: 1\n--\na: Int64\n1: 1");
    assert_eq!(
        check("t.zip", &zip(&[("a.doc", b"x"), ("b.pdf", b"x")])).await,
        "t.zip holds no table [t.zip holds a.doc, b.pdf]"
    );
    assert!(check("t.zip", &archive[..archive.len() - 30]).await.starts_with("t.zip is no whole zip archive"));
}

#[tokio::test]
async fn big_row_groups_are_read_in_parts() {
    let rows = 600_000;
    let batch =
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(1..=rows)) as ArrayRef)]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    std::fs::write(&path, parquet(&batch)).unwrap();
    let inputs = FileReader::open(&Files::new(), path.to_str().unwrap(), &ReadOptions::default()).await.unwrap();
    let splits = inputs[0].read(&ReadRequest::all(inputs[0].schema())).unwrap();
    let (mut seen, mut pieces) = (0, 0);
    while let Some(mut split) = splits.next().unwrap() {
        pieces += 1;
        while let Some(raw) = split.next_batch().unwrap() {
            let values = raw.batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            for row in 0..values.len() {
                assert_eq!(values.value(row) as u64, raw.rows.at(row));
            }
            seen += values.len();
        }
    }
    assert_eq!((seen, pieces), (rows as usize, 3));
    assert_eq!(splits.bytes_read(), inputs[0].bytes().unwrap());
}

#[tokio::test]
async fn json_is_read_in_all_its_layouts() {
    let shown =
        "id: Int64, zone: Utf8, at: Timestamp(µs)\n1: 1 | JFK | 2019-01-01T00:00:00\n2: 2 |  | \n3: 3 | x\"y | ";
    let [one, two, three] =
        [r#"{"id":1,"zone":"JFK","at":"2019-01-01 00:00:00"}"#, r#"{"id": 2}"#, r#"{"zone":"x\"y", "id": 3}"#];
    let lines = format!("{one}\n\n{two}\r\n{three}");
    let array = format!("\u{feff} [\n{one},{two}\n,\n{three}] \n");
    let free = format!("{{\n{}\n{two}{three}", &one[1..]);
    assert_eq!(check("t.ndjson", lines.as_bytes()).await, shown);
    assert_eq!(check("t.json", lines.as_bytes()).await, shown);
    assert_eq!(check("t", lines.as_bytes()).await, shown);
    assert_eq!(check("t.json", array.as_bytes()).await, shown);
    assert_eq!(check("t.json", free.as_bytes()).await, shown);
    assert_eq!(check("t.json.gz", &gzip(array.as_bytes())).await, shown);
}

#[tokio::test]
async fn nested_json_is_structs_or_flat() {
    let text = br#"{"a":{"b":1,"c":[1,2.5]},"d":[{"e":"x"},{"e":null}],"m":1}
{"a":{"b":null},"d":[],"m":{"z":1},"n":null}"#;
    assert_eq!(
        check("t.ndjson", text).await,
        "a: Struct(\"b\": Int64, \"c\": List(Float64)), d: List(Struct(\"e\": Utf8)), m: Utf8, n: Null\n\
         1: {b: 1, c: [1.0, 2.5]} | [{e: x}, {e: }] | 1 | \n\
         2: {b: , c: } | [] | {\"z\":1} | "
    );
    let flat = ReadOptions { flatten: true, ..ReadOptions::default() };
    assert_eq!(
        check_with("t.ndjson", br#"{"a":{"b":1,"c":{"d":"x"}},"e":2}"#, &flat).await,
        "a_b: Int64, a_c_d: Utf8, e: Int64\n1: 1 | x | 2"
    );
}

#[tokio::test]
async fn records_that_are_no_json_are_bad_rows() {
    assert_eq!(
        check("t.ndjson", b"{\"a\":1}\n{\"a\":\n[1]\n{\"a\":\"\xff\"}\n{\"a\":9223372036854775808}").await,
        "a: Utf8\n1: 1\n5: 9223372036854775808\n\
         bad row 2 (line Some(2)): is not valid JSON: the value is missing at byte 6: {\"a\":\n\
         bad row 3 (line Some(3)): is not a JSON object: [1]\n\
         bad row 4 (line Some(4)): is not valid UTF-8: {\"a\":\"\u{fffd}\"}"
    );
    assert_eq!(
        check("t.json", b"[{\"a\":1},{\"a\" 2},\n3]").await,
        "a: Int64\n1: 1\nbad row 2 (line Some(1)): is not valid JSON: a colon is missing at byte 6: {\"a\" 2}\n\
         bad row 3 (line Some(2)): is not a JSON object: 3"
    );
    for cut in ["[{\"a\":1},", "[{\"a\":1}", "[{\"a\":", "[{\"a\":\"x", "["] {
        let shown = check("t.json", cut.as_bytes()).await;
        assert!(shown.starts_with("t.json ends early: its last value or its array is not closed"), "{cut}: {shown}");
    }
    assert!(check("t.json", b"[{}] {}").await.starts_with("t.json: there is more text after the array"));
}

#[tokio::test]
async fn a_key_that_comes_late_is_a_column() {
    let mut text = "{\"a\":1}\n".repeat(400_000);
    text.push_str("{\"a\":2.5,\"b\":true}\n");
    let shown = check("t.ndjson", text.as_bytes()).await;
    assert!(shown.starts_with("a: Float64, b: Boolean\n1: 1.0 | \n"), "{}", &shown[..100]);
    assert!(shown.ends_with("\n400001: 2.5 | true"));
    let array = format!("[{}{{\"a\":2.5,\"b\":true}}]", "{\"a\":1},\n".repeat(400_000));
    assert_eq!(check("t.json", array.as_bytes()).await, shown);
}

/// A workbook with one sheet, whose rows are given as XML.
fn workbook(rows: &str) -> Vec<u8> {
    let relations = "http://schemas.openxmlformats.org/package/2006/relationships";
    let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    let types = r#"<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>"#;
    let root = format!(
        r#"<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>"#
    );
    let book = format!(
        r#"<workbook xmlns="{main}" xmlns:r="{office}"><sheets><sheet name="Trips" sheetId="1" r:id="r1"/></sheets></workbook>"#
    );
    let of_book = format!(
        r#"<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="r2" Type="{office}/styles" Target="styles.xml"/></Relationships>"#
    );
    let styles = format!(
        r#"<styleSheet xmlns="{main}"><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="22"/></cellXfs></styleSheet>"#
    );
    let sheet = format!(r#"<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>"#);
    zip(&[
        ("[Content_Types].xml", types.as_bytes()),
        ("_rels/.rels", root.as_bytes()),
        ("xl/workbook.xml", book.as_bytes()),
        ("xl/_rels/workbook.xml.rels", of_book.as_bytes()),
        ("xl/styles.xml", styles.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
    ])
}

#[tokio::test]
async fn a_sheet_is_a_table() {
    let text = |cell: &str, text: &str| format!(r#"<c r="{cell}" t="inlineStr"><is><t>{text}</t></is></c>"#);
    let number = |cell: &str, number: &str| format!(r#"<c r="{cell}"><v>{number}</v></c>"#);
    let rows = [
        format!(
            "<row r=\"2\">{}{}{}{}</row>",
            text("A2", "id"),
            text("B2", " fare "),
            text("C2", "at"),
            text("D2", "id")
        ),
        format!(
            "<row r=\"3\">{}{}<c r=\"C3\" s=\"1\"><v>43466.5</v></c>{}</row>",
            number("A3", "1"),
            number("B3", "4.5"),
            text("D3", "007")
        ),
        format!("<row r=\"5\">{}{}<c r=\"D5\" t=\"e\"><v>#DIV/0!</v></c></row>", number("A5", "2"), number("B5", "3")),
    ];
    let shown = "! t.xlsx: 1 cells hold an error (such as #DIV/0!) and are read as null\n\
        id: Int64, fare: Float64, at: Timestamp(µs), id_2: Utf8\n\
        1: 1 | 4.5 | 2019-01-01T12:00:00 | 007\n2: 2 | 3.0 |  | ";
    let book = workbook(&rows.concat());
    assert_eq!(check("t.xlsx", &book).await, shown);
    assert_eq!(check("t.xlsx.gz", &gzip(&book)).await, shown.replace("t.xlsx:", "t.xlsx.gz:"));
    let other = ReadOptions { sheet: Some("Trip".into()), ..ReadOptions::default() };
    assert_eq!(check_with("t.xlsx", &book, &other).await, "t.xlsx has no sheet 'Trip' [did you mean 'Trips'?]");
}
