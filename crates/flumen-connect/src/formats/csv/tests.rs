//! Text in, text out: a file as it may be found, and what comes of it.

use std::sync::Arc;

use arrow::util::display::array_value_to_string;
use flumen_core::read::{Input, RawBatch, ReadOptions, ReadRequest};
use flumen_core::text::TextOptions;

use super::CsvInput;
use crate::blob::Memory;

fn open(name: &str, text: &[u8], options: &ReadOptions, block_bytes: usize) -> flumen_core::Result<CsvInput> {
    let mut input = CsvInput::open(Arc::new(Memory::new(name, text.to_vec())), options)?;
    input.block_bytes = block_bytes;
    Ok(input)
}

/// Everything in the input, a line each: good rows with their numbers, misfits, bad rows, then warnings.
fn dump(input: &CsvInput) -> flumen_core::Result<String> {
    let splits = input.read(&ReadRequest::all(input.schema()))?;
    let mut lines = Vec::new();
    while let Some(mut split) = splits.next()? {
        while let Some(raw) = split.next_batch()? {
            lines.extend(dump_batch(&raw));
        }
    }
    lines.sort_by_key(|(row, _)| *row);
    let mut lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    lines.extend(input.warnings().into_iter().chain(splits.warnings()).map(|warning| format!("! {warning}")));
    Ok(lines.join("\n"))
}

fn dump_batch(raw: &RawBatch) -> Vec<(u64, String)> {
    let mut lines = Vec::new();
    for row in 0..raw.batch.num_rows() {
        let value = |column: usize| {
            let array = raw.batch.column(column);
            let misfit = raw.misfits.iter().find(|misfit| (misfit.row, misfit.column) == (row, column));
            match misfit {
                Some(misfit) => format!("MISFIT line {} {:?}", misfit.line.unwrap(), misfit.value),
                None if array.is_null(row) => "-".to_owned(),
                None => array_value_to_string(array, row).unwrap(),
            }
        };
        let values: Vec<String> = (0..raw.batch.num_columns()).map(value).collect();
        lines.push((raw.rows.at(row), format!("{}: {}", raw.rows.at(row), values.join(" | "))));
    }
    for bad in &raw.bad {
        let line = bad.line.unwrap();
        lines.push((bad.row, format!("{}: BAD line {line}: {}: {:?}", bad.row, bad.reason, bad.record)));
    }
    lines
}

fn columns(input: &CsvInput) -> String {
    let field = |field: &Arc<arrow::datatypes::Field>| {
        let kind = match field.data_type() {
            arrow::datatypes::DataType::Timestamp(_, None) => "Timestamp".to_owned(),
            other => other.to_string(),
        };
        format!("{} {kind}", field.name())
    };
    input.schema().fields().iter().map(field).collect::<Vec<_>>().join(", ")
}

fn check_with(name: &str, text: &[u8], options: &ReadOptions, expect: &str) {
    let expect: Vec<&str> = expect.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for block_bytes in [1 << 20, 64, 7, 1] {
        let answer = open(name, text, options, block_bytes)
            .and_then(|input| Ok(format!("{}\n{}", columns(&input), dump(&input)?)))
            .unwrap_or_else(|error| format!("{error} [{}]", error.remedy().unwrap_or_default()));
        let shown = String::from_utf8_lossy(text);
        assert_eq!(answer.trim_end().lines().collect::<Vec<_>>(), expect, "{shown}\nin blocks of {block_bytes}");
    }
}

fn check(text: &str, expect: &str) {
    check_with("x.csv", text.as_bytes(), &ReadOptions::default(), expect);
}

#[test]
fn a_plain_file() {
    check(
        "id,name,fare,at\n1,Anna,2.5,2019-01-31 08:00:00\n2,,.5,\n",
        "id Int64, name Utf8, fare Float64, at Timestamp
        1: 1 | Anna | 2.5 | 2019-01-31T08:00:00
        2: 2 | - | 0.5 | -",
    );
}

#[test]
fn blank_lines_and_mixed_line_ends() {
    check(
        "\n a ,b\n\r\n1,x\r\n\n2,y\n\r\n3,z",
        "a Int64, b Utf8
        1: 1 | x
        2: 2 | y
        3: 3 | z",
    );
    check("a,b\r1,x\r2,y\r", "a Int64, b Utf8\n1: 1 | x\n2: 2 | y");
    check("a\n1\n\n2\n", "a Int64\n1: 1\n2: 2");
}

#[test]
fn quotes() {
    check(
        "\"a\",\"b, c\"\r\n\"1\",\"x, \"\"y\"\"\"\r\n\"2\",\"two\nlines\"\n3,\"\"\n4,5\" pipe\n5,\" z \" \n",
        "a Int64, b, c Utf8
        1: 1 | x, \"y\"
        2: 2 | two
        lines
        3: 3 | -
        4: 4 | 5\" pipe
        5: 5 |  z",
    );
    check(
        "a,b\n1,\"x\"y\n2,\"x\"\"\n3,\"z\"\n",
        "a Int64, b Utf8
        1: BAD line 2: text follows the closing quote of column 'b': \"1,\\\"x\\\"y\"
        2: BAD line 3: a quote that is not doubled stands in the middle of column 'b': \"2,\\\"x\\\"\\\"\\n3,\\\"z\\\"\"",
    );
    check(
        "a,b\n1,'x, y'\n2,'z'\n",
        "a Int64, b Utf8
        1: 1 | x, y
        2: 2 | z",
    );
}

#[test]
fn rows_of_another_width() {
    check(
        "a,b,c\n1,2,3\n1,2\n\n1,2,3,\n1,2,3,,\n1,2,3,4\n4,5,6\n",
        "a Int64, b Int64, c Int64
        1: 1 | 2 | 3
        2: BAD line 3: has 2 fields, the header has 3: \"1,2\"
        3: 1 | 2 | 3
        4: 1 | 2 | 3
        5: BAD line 7: has 4 fields, the header has 3: \"1,2,3,4\"
        6: 4 | 5 | 6
        ! x.csv: 2 rows have 1 to 2 more fields than the header, all empty: dropped",
    );
}

#[test]
fn names() {
    check(
        "a,a,,a_2, b \n1,2,3,4,5\n",
        "a Int64, a_3 Int64, column_3 Int64, a_2 Int64, b Int64
        1: 1 | 2 | 3 | 4 | 5
        ! x.csv: the header has 'a' more than once: this one is called 'a_3'",
    );
    check("1,x\n2,y\n", "column_1 Int64, column_2 Utf8\n1: 1 | x\n2: 2 | y");
    check("a,b\n", "a Null, b Null");
    check("", "x.csv is empty [check how the file was made]");
    check("\n\r\n", "x.csv is empty [check how the file was made]");
    let skip = ReadOptions { skip_lines: 2, ..ReadOptions::default() };
    check_with("x.csv", b"made by x\n2019\na,b\n1,2\n", &skip, "a Int64, b Int64\n1: 1 | 2");
    let none = ReadOptions { header: Some(false), ..ReadOptions::default() };
    check_with("x.csv", b"a,b\n1,2\n", &none, "column_1 Utf8, column_2 Utf8\n1: a | b\n2: 1 | 2");
}

#[test]
fn delimiters() {
    check("a;b\n1;x,y\n2;z\n", "a Int64, b Utf8\n1: 1 | x,y\n2: 2 | z");
    check("a\tb c\n1\tx\n", "a Int64, b c Utf8\n1: 1 | x");
    check("a|b\n1|x\n", "a Int64, b Utf8\n1: 1 | x");
    let text = TextOptions { decimal_comma: true, ..TextOptions::default() };
    let german = ReadOptions { text, ..ReadOptions::default() };
    check_with("x.csv", b"a;b\n1,5;1.000,5\n", &german, "a Float64, b Float64\n1: 1.5 | 1000.5");
}

#[test]
fn bytes_that_are_no_text() {
    let plain = ReadOptions::default();
    check_with(
        "x.csv",
        b"a,b\n1,x\n2,\xf6\n3,z\0\n4,y\n",
        &plain,
        "a Int64, b Utf8
        1: 1 | x
        2: BAD line 3: column 'b' is not valid UTF-8; if the file is in Latin-1, add --encoding latin-1: \"2,\u{fffd}\"
        3: BAD line 4: column 'b' holds a NUL byte, which is no text: \"3,z\\0\"
        4: 4 | y",
    );
    let latin = ReadOptions { encoding: Some("latin-1".into()), ..plain.clone() };
    check_with("x.csv", b"a,b\n2,\xf6\n", &latin, "a Int64, b Utf8\n1: 2 | ö");
    let utf16: Vec<u8> = "\u{feff}a,b\r\n1,ö\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    check_with("x.csv", &utf16, &plain, "a Int64, b Utf8\n1: 1 | ö");
    check_with(
        "x.csv",
        b"gr\xf6sse,b\n2,1\n",
        &plain,
        "x.csv: line 1: the name of column 1 ('gr\u{fffd}sse') is not valid UTF-8 [if the file is in Latin-1, add --encoding latin-1]",
    );
}
