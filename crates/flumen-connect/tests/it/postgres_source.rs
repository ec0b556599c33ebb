//! Tables and queries of a real Postgres server, read as a load reads them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::sync::Arc;

use flumen_connect::postgres::PlainConnector;
use flumen_connect::sources::postgres::PostgresSource;
use flumen_core::Result;
use flumen_core::load::Cursor;
use flumen_core::read::{Input, ReadOptions, ReadRequest, Source};

use flumen_testkit::postgres::{Database, server};

async fn open(db: &Database, address: &str, options: &ReadOptions) -> Result<Arc<dyn Input>> {
    let source = PostgresSource::new(Arc::new(PlainConnector::from_url(&db.url).unwrap()));
    source.open(address, options).await.map(|mut inputs| inputs.remove(0))
}

/// All rows, read by two threads, sorted: ` | ` between values, `MISFIT value` for what did not fit.
fn read(input: &dyn Input) -> Result<Vec<String>> {
    let splits = input.read(&ReadRequest::all(input.schema()))?;
    let piece = || -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while let Some(mut split) = splits.next()? {
            while let Some(raw) = split.next_batch()? {
                let show = |column: &arrow::array::ArrayRef, row| {
                    use arrow::datatypes::{DataType, TimeUnit};
                    let plain = match column.data_type() {
                        DataType::Timestamp(_, Some(_)) => {
                            arrow::compute::cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap()
                        }
                        _ => Arc::clone(column),
                    };
                    arrow::util::display::array_value_to_string(&plain, row).unwrap()
                };
                for row in 0..raw.batch.num_rows() {
                    let mut values: Vec<String> = raw.batch.columns().iter().map(|column| show(column, row)).collect();
                    for misfit in raw.misfits.iter().filter(|misfit| misfit.row == row) {
                        values[misfit.column] = format!("MISFIT {}", misfit.value);
                    }
                    lines.push(values.join(" | "));
                }
            }
        }
        Ok(lines)
    };
    let both = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let threads = [scope.spawn(piece), scope.spawn(piece)];
            threads.map(|thread| thread.join().unwrap())
        })
    });
    let mut lines = Vec::new();
    for part in both {
        lines.extend(part?);
    }
    lines.sort();
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn types_come_as_they_are() {
    let db = server().database().await;
    db.run(
        "create type mood as enum ('glad'); create domain cents as numeric(10,2); \
         create table t (b bool, i2 int2, i4 int4, i8 int8, f4 real, f8 float8, n numeric(10,3), c cents, any_n numeric, \
           s text, v varchar(5), u uuid, j jsonb, m mood, ip inet, by bytea, d date, ti time, ts timestamp, tz timestamptz, \
           iv interval, a int[], ta text[], na numeric[], g int generated always as (i4 + 1) stored); \
         insert into t values (true, -1, 2, 3, 1.5, 0.1, 12.345, 1.5, 123456789012345678901234567890.10, 'ä', 'v', \
           'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": 1}', 'glad', '10.0.0.1', '\\x00ff', '2019-01-01', '23:59:59.5', \
           '2019-01-01 01:02:03.000004', '2019-01-01 00:00:00+02', '1 day 02:00', '{1,null,3}', '{x,\"y z\"}', '{1.50}'); \
         insert into t (n, d, ts, a) values ('NaN', 'infinity', '-infinity', '{{1,2},{3,4}}')",
    )
    .await;
    let input = open(&db, "pg.public.t", &ReadOptions::default()).await.unwrap();
    let types: Vec<String> =
        input.schema().fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    assert_eq!(
        types.join(", "),
        "b Boolean, i2 Int16, i4 Int32, i8 Int64, f4 Float32, f8 Float64, n Decimal128(10, 3), c Decimal128(10, 2), \
         any_n Utf8, s Utf8, v Utf8, u Utf8, j Utf8, m Utf8, ip Utf8, by Binary, d Date32, ti Time64(\u{b5}s), \
         ts Timestamp(\u{b5}s), tz Timestamp(\u{b5}s, \"UTC\"), iv Utf8, a List(Int32), ta List(Utf8), na List(Utf8), g Int32"
    );
    assert_eq!(
        read(input.as_ref()).unwrap(),
        [
            " |  |  |  |  |  | MISFIT NaN |  |  |  |  |  |  |  |  |  | MISFIT infinity |  | MISFIT -infinity |  |  | \
             MISFIT an array of 2 dimensions |  |  | ",
            "true | -1 | 2 | 3 | 1.5 | 0.1 | 12.345 | 1.50 | 123456789012345678901234567890.10 | \u{e4} | v | \
             a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | {\"a\": 1} | glad | 10.0.0.1/32 | 00ff | 2019-01-01 | 23:59:59.500 | \
             2019-01-01T01:02:03.000004 | 2018-12-31T22:00:00 | 1 day 02:00:00 | [1, , 3] | [x, y z] | [1.50] | 3",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_table_is_read_in_ranges_of_one_snapshot() {
    let db = server().database().await;
    // 10 rows a page: two ranges and a bit.
    db.run(
        "create table t (id int, filler text) with (fillfactor = 10); alter table t alter filler set storage plain; \
            insert into t select i, repeat('x', 700) from generate_series(1, 12000) i",
    )
    .await;
    let input = open(&db, "pg.public.t", &ReadOptions::default()).await.unwrap();
    let request = ReadRequest { columns: ReadRequest::all(input.schema()).columns[..1].to_vec() };
    let splits = tokio::task::block_in_place(|| input.read(&request)).unwrap();
    db.run("delete from t where id % 2 = 0; insert into t values (0, 'new')").await;
    let (mut sum, mut ranges) = (0i64, 0);
    tokio::task::block_in_place(|| {
        while let Some(mut split) = splits.next().unwrap() {
            ranges += 1;
            while let Some(raw) = split.next_batch().unwrap() {
                let ids = raw.batch.column(0).as_any().downcast_ref::<arrow::array::Int32Array>().unwrap();
                sum += ids.values().iter().map(|id| i64::from(*id)).sum::<i64>();
            }
        }
    });
    assert_eq!((sum, ranges), (12_000 * 12_001 / 2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_cursors_and_wrong_names() {
    let db = server().database().await;
    db.run("create table trips (id int, at timestamptz); \
            insert into trips select i, '2026-01-01 00:00+00'::timestamptz + i * interval '1 hour' from generate_series(1, 5) i")
        .await;
    let query = |query: &str| ReadOptions { query: Some(query.into()), ..ReadOptions::default() };
    let input = open(&db, "pg", &query("select id, id * 2.5 as x from trips where id > 3; -- the last ones")).await;
    assert_eq!(input.err().unwrap().kind(), flumen_core::ErrorKind::Invalid);
    let input =
        open(&db, "pg", &query("select id, id * 2.5 as x from trips where id > 3 -- the last ones\n;")).await.unwrap();
    assert_eq!(read(input.as_ref()).unwrap(), ["4 | 10.0", "5 | 12.5"]);

    let cursor = |value: &str, lag: Option<&str>| ReadOptions {
        cursor: Some(Cursor { column: "at".into(), value: value.into() }),
        lag: lag.map(str::to_owned),
        ..ReadOptions::default()
    };
    let first = open(&db, "pg.public.trips", &cursor("", None)).await.unwrap();
    let after = first.cursor().unwrap();
    assert_eq!(after.value, "2026-01-01 05:00:00+00");
    db.run("insert into trips values (6, '2026-01-01 06:00+00')").await;
    assert_eq!(read(first.as_ref()).unwrap().len(), 5, "what came later belongs to the next load");
    let next = open(&db, "pg.public.trips", &cursor(&after.value, None)).await.unwrap();
    assert_eq!(read(next.as_ref()).unwrap(), ["6 | 2026-01-01T06:00:00"]);
    let lagging = open(&db, "pg.public.trips", &cursor(&after.value, Some("1 hour"))).await.unwrap();
    assert_eq!(read(lagging.as_ref()).unwrap().len(), 3);
    let none = open(&db, "pg.public.trips", &cursor("2027-01-01", None)).await.unwrap();
    assert_eq!(read(none.as_ref()).unwrap(), [""; 0]);
    assert_eq!(none.cursor().unwrap().value, "2027-01-01");

    let error = open(&db, "pg.public.trip", &ReadOptions::default()).await.err().unwrap();
    assert_eq!(error.message(), "pg.public.trip: there is no table public.trip");
    assert_eq!(error.remedy(), Some("did you mean 'public.trips'?"));
    let error = open(&db, "pg", &query("select nothing from trips")).await.err().unwrap();
    assert!(error.message().contains("column \"nothing\" does not exist"), "{error}");
}
