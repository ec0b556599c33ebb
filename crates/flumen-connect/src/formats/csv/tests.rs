//! Text in, text out: a file as it may be found, and what comes of it.

use std::sync::Arc;

use arrow::util::display::array_value_to_string;
use flumen_core::read::{RawBatch, ReadOptions, ReadRequest};
use flumen_core::text::TextOptions;

use super::CsvInput;
use crate::blob::Memory;
use crate::formats::input::FileRows;

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
    check("sep=;\r\na;b\n1,2,3;x\n", "a Utf8, b Utf8\n1: 1,2,3 | x");
    let wrong = ReadOptions { delimiter: Some(b'"'), quote: Some(Some(b'"')), ..ReadOptions::default() };
    check_with("x.csv", b"a", &wrong, "--delimiter and --quote are the same character [change one of them]");
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
        "x.csv: line 1: the name of column 1 ('gr\u{fffd}sse') is not valid UTF-8 [if the file is in Latin-1, add --encoding latin-1, in SQL read_csv(…, encoding => 'latin-1')]",
    );
}

#[test]
fn a_quote_that_is_never_closed() {
    // On the last line, the file was cut short there: a bad row.
    check(
        "a,b\n1,\"x\"\n2,\"y",
        "a Int64, b Utf8
        1: 1 | x
        2: BAD line 3: there is no closing quote at the end of column 'b': \"2,\\\"y\"",
    );
    check(
        "a,b,c\n1,\"x\",3\n2,\"y,3",
        "a Int64, b Utf8, c Int64
        1: 1 | x | 3
        2: BAD line 3: has 2 fields, the header has 3: \"2,\\\"y,3\"",
    );
    check(
        "a,b\n1,\"x\n\"\n2,\"y\n3,z\n4,zz\n",
        "x.csv: the quote that opens on line 4 is never closed [double the quotes inside the value, or read the file without quotes: --quote none, in SQL read_csv(…, quote => 'none')]",
    );
    let long = format!("a,b\n1,x\n2,\"{}", "y,z\n".repeat(5 << 20));
    let input = open("x.csv", long.as_bytes(), &ReadOptions::default(), 1 << 20).unwrap();
    assert_eq!(dump(&input).unwrap_err().to_string(), "x.csv: the quote that opens on line 3 is never closed");
    let long = format!("a,b\n1,{}\n2,z\n", "y".repeat(17 << 20));
    let input = open("x.csv", long.as_bytes(), &ReadOptions::default(), 1 << 20).unwrap();
    assert_eq!(dump(&input).unwrap_err().to_string(), "x.csv: line 2 is longer than 16 MiB");
}

#[test]
fn no_quotes_on_demand() {
    let none = ReadOptions { quote: Some(None), ..ReadOptions::default() };
    check_with("x.csv", b"a,b\n1,\"x\n2,y\"\n", &none, "a Int64, b Utf8\n1: 1 | \"x\n2: 2 | y\"");
}

#[test]
fn a_million_columns_are_too_many() {
    let wide = (0..1_000_000).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
    let plain = ReadOptions::default();
    let error = open("x.csv", format!("\n{wide}\n1\n").as_bytes(), &plain, 1 << 20).err().unwrap();
    assert_eq!(error.to_string(), "x.csv: line 2 has 1000000 fields; a table has at most 10000 columns");
    let ragged = open("x.csv", format!("a,b\n1,2\n{wide}\n").as_bytes(), &plain, 1 << 20).unwrap();
    assert!(dump(&ragged).unwrap().contains("2: BAD line 3: has 1000000 fields, the header has 2"));
}

#[test]
fn values_that_come_as_a_surprise_are_misfits() {
    let mut text = "a,b\n".to_owned();
    for n in 0..100_000 {
        text.push_str(&format!("{n},\"{n}.5\"\n"));
    }
    // In memory there are no places to sample, and the beginning has nothing of what follows.
    text.push_str("x7,\"\ny\"\n\"p \"\"q\"\"\",0.5\n");
    let input = open("x.csv", text.as_bytes(), &ReadOptions::default(), 1 << 20).unwrap();
    let dumped = dump(&input).unwrap();
    let tail: Vec<&str> = dumped.lines().skip(99_999).collect();
    assert_eq!(
        tail,
        [
            "100000: 99999 | 99999.5",
            "100001: MISFIT line 100002 \"x7\" | MISFIT line 100002 \"\\ny\"",
            "100002: MISFIT line 100004 \"p \\\"q\\\"\" | 0.5"
        ]
    );
}

#[test]
fn null_tokens_and_trimming() {
    let text = TextOptions { nulls: vec!["NA".into(), "-1".into()], trim: true, ..TextOptions::default() };
    let options = ReadOptions { text, ..ReadOptions::default() };
    check_with(
        "x.csv",
        b"a,b\n1, x \nNA,\"NA\"\n-1,  \n 2 ,NAN\n",
        &options,
        "a Int64, b Utf8
        1: 1 | x
        2: - | -
        3: - | -
        4: 2 | NAN",
    );
}

#[test]
fn types_are_sampled_from_all_over_a_file_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    let row = |n: usize| match n {
        60_000..61_000 => format!("{n},{n}.5,\"a\nb\"\n"),
        99_999 => "x,,\n".to_owned(),
        _ => format!("{n},{n},\n"),
    };
    let text = format!("a,b,c\n{}", (0..100_000).map(row).collect::<String>());
    std::fs::write(&path, &text).unwrap();
    let file = Arc::new(crate::sources::local::LocalFile::open(&path).unwrap());
    let input = CsvInput::open(file, &ReadOptions::default()).unwrap();
    assert_eq!(columns(&input), "a Utf8, b Int64, c Null");
    let all = format!("a,b\n{}", (0..100_000).map(|n| format!("{n},{}\n", n / 30_000)).collect::<String>());
    std::fs::write(&path, all.replace(",1\n", ",1.5\n")).unwrap();
    let file = Arc::new(crate::sources::local::LocalFile::open(&path).unwrap());
    assert_eq!(columns(&CsvInput::open(file, &ReadOptions::default()).unwrap()), "a Int64, b Float64");
}

#[test]
fn packed_files_are_read_ahead_and_their_errors_come_through() {
    let text = format!("a,b\n{}", (0..200_000).map(|n| format!("{n},x{n}\n")).collect::<String>());
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, text.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    let plain = ReadOptions::default();
    let input = open("x.csv.gz", &packed, &plain, 1 << 20).unwrap();
    let splits = input.read(&ReadRequest::all(input.schema())).unwrap();
    let mut rows = 0;
    while let Some(mut split) = splits.next().unwrap() {
        while let Some(raw) = split.next_batch().unwrap() {
            rows += raw.rows_read();
        }
    }
    assert_eq!((rows, splits.bytes_read()), (200_000, packed.len() as u64));
    let input = open("x.csv.gz", &packed[..packed.len() - 100], &plain, 1 << 20).unwrap();
    let error = dump(&input).unwrap_err();
    assert_eq!(error.to_string(), "x.csv.gz ends early: the gzip stream is cut short");
}

/// The real files, as they were published.
fn heads() -> Vec<(String, Vec<u8>)> {
    let path = std::env::var("CARGO_MANIFEST_DIR").unwrap() + "/../../tests/data/tlc_heads.zip";
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut read = |index| {
        let mut member = archive.by_index(index).unwrap();
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut text).unwrap();
        (member.name().unwrap().into_owned(), text)
    };
    (0..152).map(&mut read).collect()
}

#[test]
fn the_real_heads() {
    for block_bytes in [1 << 20, 100] {
        let (mut rows, mut bad, mut short, mut surplus) = (0, 0, 0, 0);
        for (name, text) in heads() {
            let input = open(&name, &text, &ReadOptions::default(), block_bytes).unwrap();
            let dumped = dump(&input).unwrap();
            assert!(!dumped.contains("MISFIT"), "{dumped}");
            rows += dumped.lines().filter(|line| !line.starts_with('!')).count();
            bad += dumped.lines().filter(|line| line.contains(": BAD line")).count();
            short += dumped.lines().filter(|line| line.contains(", the header has ")).count();
            surplus += dumped.lines().filter(|line| line.contains("2 more fields than the header, all empty")).count();
        }
        assert_eq!((bad, short, surplus), (137, 137, 18));
        assert_eq!(rows, HEAD_ROWS);
    }
}

/// Lines of all heads that are neither blank nor a header.
const HEAD_ROWS: usize = 1639;

mod against_a_slow_reader {
    use std::sync::Mutex;

    use arrow::datatypes::DataType;
    use proptest::prelude::*;

    use super::*;

    /// A field's value, or `None` if it is malformed.
    type Field = Option<String>;

    /// The obvious way, one character at a time. `None`: a quote that opens on an earlier line than the last is never closed.
    fn slow(text: &str) -> Option<Vec<Vec<Field>>> {
        let text: Vec<char> = text.strip_suffix('\n').unwrap_or(text).chars().collect();
        let (mut records, mut at) = (Vec::new(), 0);
        while at <= text.len() {
            let (begin, mut fields) = (at, Vec::new());
            loop {
                let quoted = text.get(at) == Some(&'"');
                let (mut value, mut closed) = (String::new(), !quoted);
                if quoted {
                    let opened = at;
                    at += 1;
                    while at < text.len() && !closed {
                        if text[at] == '"' && text.get(at + 1) == Some(&'"') {
                            value.push('"');
                            at += 2;
                        } else if text[at] == '"' {
                            closed = true;
                            at += 1;
                        } else {
                            value.push(text[at]);
                            at += 1;
                        }
                    }
                    if !closed && text[opened..].contains(&'\n') {
                        return None;
                    }
                }
                let from = at;
                while at < text.len() && !matches!(text[at], ',' | '\n') {
                    at += 1;
                }
                let last = text.get(at) != Some(&',');
                let mut rest: String = text[from..at].iter().collect();
                if last {
                    rest = rest.strip_suffix('\r').unwrap_or(&rest).to_owned();
                }
                fields.push(match (quoted, closed) {
                    (false, _) => Some(rest),
                    (true, true) if rest.chars().all(|c| c == ' ') => Some(value),
                    _ => None,
                });
                at += 1;
                if last {
                    break;
                }
            }
            let line: String = text[begin..at.min(text.len() + 1) - 1].iter().collect();
            if !matches!(line.as_str(), "" | "\r") {
                records.push(fields);
            }
        }
        Some(records)
    }

    /// What is to be seen of the records, with the first one's width.
    fn expected(text: &str) -> String {
        let Some(records) = slow(text) else { return "never closed".to_owned() };
        let width = records[0].len();
        let show = |record: &Vec<Field>| {
            if record.len() < width {
                return "BAD".to_owned();
            }
            let surplus_empty =
                record[width..].iter().all(|field| field.as_deref().is_some_and(|value| value.trim() == ""));
            match record[..width].iter().cloned().collect::<Option<Vec<String>>>() {
                Some(values) if surplus_empty => format!("{values:?}"),
                _ => "BAD".to_owned(),
            }
        };
        records.iter().map(show).collect::<Vec<_>>().join("\n")
    }

    fn read(text: &str, block_bytes: usize, threads: usize) -> flumen_core::Result<String> {
        let options = ReadOptions {
            header: Some(false),
            delimiter: Some(b','),
            quote: Some(Some(b'"')),
            ..ReadOptions::default()
        };
        let input = open("x.csv", text.as_bytes(), &options, block_bytes)?;
        let mut request = ReadRequest::all(input.schema());
        for column in &mut request.columns {
            column.data_type = DataType::Utf8;
        }
        let (splits, rows) = (input.read(&request)?, Mutex::new(Vec::new()));
        let work = || -> flumen_core::Result<()> {
            while let Some(mut split) = splits.next()? {
                while let Some(raw) = split.next_batch()? {
                    assert!(raw.misfits.is_empty());
                    let mut rows = rows.lock().unwrap();
                    rows.extend(raw.bad.iter().map(|bad| (bad.row, bad.line.unwrap(), "BAD".to_owned())));
                    for row in 0..raw.batch.num_rows() {
                        let value = |column: &arrow::array::ArrayRef| array_value_to_string(column, row).unwrap();
                        let values: Vec<String> = raw.batch.columns().iter().map(value).collect();
                        rows.push((raw.rows.at(row), 0, format!("{values:?}")));
                    }
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap())
        })?;
        let mut rows = rows.into_inner().unwrap();
        rows.sort();
        for (index, (number, ..)) in rows.iter().enumerate() {
            assert_eq!(*number, index as u64 + 1);
        }
        Ok(rows.into_iter().map(|(.., shown)| shown).collect::<Vec<_>>().join("\n"))
    }

    fn text() -> impl Strategy<Value = String> {
        let tidy = prop::sample::select(vec![
            "a,b,c\n",
            "1,2,3\r\n",
            "\"x\",\"y, z\",\"\"\n",
            "\"p \"\"q\"\"\",\"\n\",ö\n",
            "\n",
            "1,2\n",
            "1,2,3,,\n",
        ]);
        let messy = prop::sample::select(vec![
            "a", "\"", "\"\"", ",", "\n", "\r\n", " ", "ö", "1,2,3", "\n\"", "\",\"", "\"\n",
        ]);
        let pieces = prop_oneof![2 => tidy.boxed(), 1 => messy.clone().boxed()];
        prop_oneof![prop::collection::vec(pieces, 1..60), prop::collection::vec(messy, 1..40)]
            .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_result_is_the_same(text in text(), block_bytes in 1usize..200, threads in 1usize..=3) {
            prop_assume!(text.contains('\n') && text.contains(|c| !matches!(c, '\n' | '\r')));
            let answer = match read(&text, block_bytes, threads) {
                Ok(rows) => rows,
                Err(error) if error.to_string().contains("is never closed") => "never closed".to_owned(),
                Err(error) => error.to_string(),
            };
            prop_assert_eq!(answer, expected(&text), "{:?}", text);
        }
    }
}
