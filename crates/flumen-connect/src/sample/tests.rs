//! The data set as a whole: the same everywhere, with the right columns, and true to form.

use std::io::Read as _;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use flumen_core::ErrorKind;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::folder::Folder;
use super::trips::{Cell, Model};
use super::*;

fn trips(kind: Kind, month: &str, rows: u64) -> Trips {
    Trips { kind, month: month.parse().unwrap(), rows, bad_rows: 0, seed: 0 }
}

fn csv(trips: &Trips, block_rows: u64, gzip: bool, workers: usize) -> Vec<u8> {
    let mut out = Vec::new();
    text::write_blocks(trips, block_rows, gzip, &mut out, workers, &Watch::default()).unwrap();
    out
}

fn parquet(trips: &Trips, group_rows: u64, workers: usize) -> Vec<u8> {
    let mut out = Vec::new();
    columns::write_groups(trips, group_rows, &mut out, workers, &Watch::default()).unwrap();
    out
}

fn taxi(format: Format, kinds: &[Kind]) -> Taxi {
    Taxi {
        months: parse_months("2019-01").unwrap(),
        rows_per_month: 200,
        format,
        kinds: kinds.to_vec(),
        bad_rows: 0,
        seed: 0,
    }
}

/// These change only together with [`GENERATION`].
#[test]
fn the_same_arguments_give_the_same_bytes() {
    for (kind, month, expect) in [
        (Kind::Yellow, "2019-01", "10a6332ca8efa29f"),
        (Kind::Yellow, "2025-01", "f7f2ceec5f76d17f"),
        (Kind::Green, "2019-02", "50721a53280b1aaa"),
        (Kind::Fhv, "2019-02", "ba0562ffab6caa22"),
    ] {
        let text = csv(&trips(kind, month, 5_000), 1_000, false, 1);
        assert_eq!(blake3::hash(&text).to_hex()[..16], *expect, "{kind} {month}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for kind in [Kind::Yellow, Kind::Green, Kind::Fhv] {
        let trips = trips(kind, "2021-02", 3_000);
        assert!(csv(&trips, 700, false, 1) == csv(&trips, 700, false, 3));
        assert!(csv(&trips, 700, true, 1) == csv(&trips, 700, true, 3));
        assert!(parquet(&trips, 700, 1) == parquet(&trips, 700, 3));
    }
}

#[test]
fn a_packed_file_is_one_member_with_the_plain_text() {
    let trips = trips(Kind::Yellow, "2021-02", 2_500);
    let packed = csv(&trips, 700, true, 2);
    let mut unpacked = Vec::new();
    let mut decoder = flate2::bufread::GzDecoder::new(packed.as_slice());
    decoder.read_to_end(&mut unpacked).unwrap();
    assert!(decoder.into_inner().is_empty());
    assert!(unpacked == csv(&trips, 700, false, 1));
    // Plain text does not even depend on the size of the blocks.
    assert!(unpacked == csv(&trips, 10_000, false, 1));
}

#[test]
fn parquet_and_csv_hold_the_same_values() {
    for (kind, month) in [
        (Kind::Yellow, "2018-06"),
        (Kind::Yellow, "2021-01"),
        (Kind::Yellow, "2025-03"),
        (Kind::Green, "2025-01"),
        (Kind::Fhv, "2019-01"),
    ] {
        let trips = trips(kind, month, 1_500);
        let file = bytes::Bytes::from(parquet(&trips, 600, 2));
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(*builder.schema(), layout::schema(kind, trips.month), "{kind} {month}");
        assert_eq!(builder.metadata().num_row_groups(), 3);
        let names: Vec<&str> = builder.schema().fields().iter().map(|field| field.name().as_str()).collect();
        let mut text = names.join(",") + "\n";
        for batch in builder.build().unwrap() {
            push_csv(&mut text, &batch.unwrap());
        }
        assert!(text.as_bytes() == csv(&trips, 700, false, 1), "{kind} {month}");
    }
}

fn push_csv(text: &mut String, batch: &RecordBatch) {
    for row in 0..batch.num_rows() {
        let cells: Vec<String> = batch
            .columns()
            .iter()
            .map(|column| match column.data_type() {
                _ if column.is_null(row) => String::new(),
                DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
                DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
                DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
                DataType::LargeUtf8 => column.as_string::<i64>().value(row).to_owned(),
                DataType::Timestamp(_, _) => {
                    let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
                    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap();
                    time.format("%Y-%m-%d %H:%M:%S").to_string()
                }
                other => panic!("{other}"),
            })
            .collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
}

fn check_schema(kind: Kind, month: &str, expect: &str) {
    let schema = layout::schema(kind, month.parse().unwrap());
    let short = |of: &DataType| match of {
        DataType::Int32 => "i32",
        DataType::Int64 => "i64",
        DataType::Float64 => "f64",
        DataType::Utf8 => "text",
        DataType::LargeUtf8 => "large",
        _ => "time",
    };
    let got: Vec<String> =
        schema.fields().iter().map(|field| format!("{}:{}", field.name(), short(field.data_type()))).collect();
    assert_eq!(got.join(" "), expect.split_whitespace().collect::<Vec<_>>().join(" "));
}

#[test]
fn columns_are_those_of_the_public_records() {
    check_schema(
        Kind::Yellow,
        "2019-01",
        "VendorID:i64 tpep_pickup_datetime:time tpep_dropoff_datetime:time passenger_count:f64 trip_distance:f64
         RatecodeID:f64 store_and_fwd_flag:text PULocationID:i64 DOLocationID:i64 payment_type:i64 fare_amount:f64
         extra:f64 mta_tax:f64 tip_amount:f64 tolls_amount:f64 improvement_surcharge:f64 total_amount:f64
         congestion_surcharge:f64 airport_fee:f64",
    );
    check_schema(
        Kind::Yellow,
        "2025-01",
        "VendorID:i32 tpep_pickup_datetime:time tpep_dropoff_datetime:time passenger_count:i64 trip_distance:f64
         RatecodeID:i64 store_and_fwd_flag:large PULocationID:i32 DOLocationID:i32 payment_type:i64 fare_amount:f64
         extra:f64 mta_tax:f64 tip_amount:f64 tolls_amount:f64 improvement_surcharge:f64 total_amount:f64
         congestion_surcharge:f64 Airport_fee:f64 cbd_congestion_fee:f64",
    );
    check_schema(
        Kind::Green,
        "2019-01",
        "VendorID:i64 lpep_pickup_datetime:time lpep_dropoff_datetime:time store_and_fwd_flag:text RatecodeID:f64
         PULocationID:i64 DOLocationID:i64 passenger_count:f64 trip_distance:f64 fare_amount:f64 extra:f64 mta_tax:f64
         tip_amount:f64 tolls_amount:f64 ehail_fee:f64 improvement_surcharge:f64 total_amount:f64 payment_type:f64
         trip_type:f64 congestion_surcharge:f64",
    );
    check_schema(
        Kind::Fhv,
        "2019-01",
        "dispatching_base_num:text pickup_datetime:time dropOff_datetime:time PUlocationID:f64 DOlocationID:f64
         SR_Flag:i32 Affiliated_base_number:text",
    );
    assert!(
        ZONES_CSV.starts_with("\"LocationID\",\"Borough\",\"Zone\",\"service_zone\"\n1,\"EWR\",\"Newark Airport\"")
    );
    assert_eq!(Kind::Zones.rows_of(0), 265);
}

/// The place of the first cell of money in a yellow row, and of the total.
const FARE: usize = 10;
const TOTAL: usize = 16;

#[test]
fn yellow_trips_are_true_to_form() {
    const ROWS: u64 = 100_000;
    let trips = trips(Kind::Yellow, "2021-01", ROWS);
    let model = Model::new(&trips);
    let (mut hours, mut zones) = ([0_u32; 24], [0_u32; 266]);
    let (mut nulls, mut refunds, mut strays, mut cards, mut tips, mut miles) = (0, 0, 0, 0_i64, 0_i64, 0);
    let mut cells = Vec::new();
    let start = trips.month.first_day() * 86_400;
    for row in 0..ROWS {
        model.row(row, &mut cells);
        let money = |cell: usize| if let Cell::Hundredths(cents) = cells[cell] { cents } else { 0 };
        let int = |cell: usize| if let Cell::Int(value) = cells[cell] { value } else { -1 };
        let (Cell::Time(pickup), Cell::Time(dropoff)) = (cells[1], cells[2]) else { panic!("no times") };
        assert!(dropoff > pickup && dropoff - pickup < 86_400);
        let parts: i64 = (FARE..TOTAL).chain([17, 18]).map(money).sum();
        assert_eq!(money(TOTAL), parts, "row {row}");
        let dispatched = cells[3] == Cell::Null;
        assert!([5, 6, 17, 18].iter().all(|cell| (cells[*cell] == Cell::Null) == dispatched), "row {row}");
        nulls += u32::from(dispatched);
        refunds += u32::from(money(FARE) < 0);
        strays += u32::from(!(start..start + 31 * 86_400).contains(&pickup));
        if int(9) == 1 {
            cards += money(FARE);
            tips += money(13);
        }
        miles += money(4);
        hours[(pickup.rem_euclid(86_400) / 3_600) as usize] += 1;
        zones[int(7) as usize] += 1;
    }
    assert!((6_700..7_700).contains(&nulls), "dispatched: {nulls}");
    assert!((200..800).contains(&refunds), "refunds: {refunds}");
    assert!((5..30).contains(&strays), "strays: {strays}");
    assert!(hours[18] > 5 * hours[4], "hours: {hours:?}");
    assert!(zones.iter().enumerate().all(|(zone, trips)| zone == 237 || *trips < zones[237]), "{zones:?}");
    assert!((3_000..5_500).contains(&zones[237]));
    assert!((15..26).contains(&(tips * 100 / cards)), "tips: {} %", tips * 100 / cards);
    assert!((230..450).contains(&(miles / ROWS as i64)), "hundredths of a mile: {}", miles / ROWS as i64);
}

#[test]
fn bad_rows_come_only_when_asked_for() {
    let shape = |bad_rows| {
        let text = csv(&Trips { bad_rows, ..trips(Kind::Yellow, "2019-01", 100) }, 30, false, 2);
        let lines = String::from_utf8(text).unwrap();
        let fields: Vec<usize> = lines.lines().skip(1).map(|line| line.split(',').count()).collect();
        let count = |of: std::ops::Range<usize>| fields.iter().filter(|fields| of.contains(fields)).count();
        (count(0..19), count(19..20), count(20..99))
    };
    assert_eq!(shape(0), (0, 100, 0));
    assert_eq!(shape(1), (1, 99, 0));
    assert_eq!(shape(7), (4, 93, 3));
    assert_eq!(shape(100), (50, 0, 50));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let refused = |taxi: Taxi, expect: &str| {
        let error = taxi.files().unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Invalid, expect));
    };
    let yellow = |format| taxi(format, &[Kind::Yellow]);
    refused(Taxi { bad_rows: 1, ..yellow(Format::Parquet) }, "a Parquet file cannot hold bad rows");
    refused(
        Taxi { bad_rows: 201, ..yellow(Format::Csv) },
        "201 bad rows do not fit into the 200 rows of yellow 2019-01",
    );
    refused(Taxi { kinds: vec![], ..yellow(Format::Csv) }, "no kind of sample file was asked for");
    refused(Taxi { rows_per_month: 1 << 40, ..yellow(Format::Csv) }, "1099511627776 rows a month are too many");
}

#[test]
fn an_empty_month_is_a_file_without_rows() {
    let none = trips(Kind::Green, "2019-01", 0);
    assert_eq!(csv(&none, 10, false, 2).iter().filter(|byte| **byte == b'\n').count(), 1);
    let file = bytes::Bytes::from(parquet(&none, 10, 2));
    assert_eq!(ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().count(), 0);
}

#[test]
fn counts_are_read_as_people_write_them() {
    for (text, expect) in [
        ("1400000", Some(1_400_000)),
        ("1_400_000", Some(1_400_000)),
        ("1,400,000", Some(1_400_000)),
        ("1.4M", Some(1_400_000)),
        ("100k", Some(100_000)),
        ("0", Some(0)),
        ("1.5", None),
        ("1.2345k", None),
        ("", None),
        ("k", None),
        ("-1", None),
        ("2e6", None),
        ("99999999999999999999", None),
        ("9999999999999999999G", None),
    ] {
        assert_eq!(parse_count(text).ok(), expect, "{text}");
    }
}

#[test]
fn a_folder_keeps_what_is_the_same_and_guards_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let files = taxi(Format::Csv, &Kind::ALL).files().unwrap();
    let watch = Watch::default();
    let make_all = |force| -> Result<Vec<bool>> {
        let mut folder = Folder::open(dir.path())?;
        folder.check(&files, force)?;
        files.iter().map(|file| folder.make(file, force, 2, &watch).map(|made| made.kept)).collect()
    };
    assert_eq!(make_all(false).unwrap(), [false; 4]);
    assert_eq!(make_all(false).unwrap(), [true; 4]);
    // Same length, other content: no longer ours.
    let yellow = dir.path().join("yellow_tripdata_2019-01.csv");
    let mut text = std::fs::read(&yellow).unwrap();
    let whole = text.clone();
    text[500] ^= 1;
    std::fs::write(&yellow, &text).unwrap();
    let error = make_all(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().ends_with("a different file of this name is there already"), "{error}");
    assert!(std::fs::read(&yellow).unwrap() == text);
    assert_eq!(make_all(true).unwrap(), [false, true, true, true]);
    assert!(std::fs::read(&yellow).unwrap() == whole);
    // Gone is made again; so is what a killed run left unfinished, whose list may end in half a line.
    std::fs::remove_file(&yellow).unwrap();
    std::fs::write(dir.path().join(".yellow_tripdata_2019-01.csv.partial"), "half").unwrap();
    let list = dir.path().join(".flumen-sample.ndjson");
    let half = [std::fs::read(&list).unwrap(), b"{\"file\":".to_vec()].concat();
    std::fs::write(&list, half).unwrap();
    assert_eq!(make_all(false).unwrap(), [false, true, true, true]);
    assert_eq!(make_all(false).unwrap(), [true; 4]);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = Folder::open(dir.path()).unwrap();
    assert_eq!(Folder::open(dir.path()).unwrap_err().kind(), ErrorKind::Conflict);
    drop(first);
    Folder::open(dir.path()).unwrap();
}

#[test]
fn a_cancelled_run_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    watch.cancel();
    for format in [Format::Parquet, Format::Csv, Format::CsvGz] {
        let files = taxi(format, &[Kind::Yellow]).files().unwrap();
        let mut folder = Folder::open(dir.path()).unwrap();
        let error = folder.make(&files[0], false, 2, &watch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".flumen-sample.ndjson"]);
}

#[test]
fn a_full_disk_is_named() {
    let full = |kind: std::io::ErrorKind| {
        struct Full(std::io::ErrorKind);
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        for format in [Format::Parquet, Format::Csv, Format::CsvGz] {
            let file = taxi(format, &[Kind::Yellow]).files().unwrap().remove(0);
            let error = file.write("out/x", Full(kind), 2, &Watch::default()).unwrap_err();
            assert_eq!(error.message(), "out/x: the disk is full", "{format:?}");
        }
    };
    full(std::io::ErrorKind::StorageFull);
}
