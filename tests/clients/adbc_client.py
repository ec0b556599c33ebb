"""ADBC over Flight SQL: rows as Arrow, to pandas and Polars; what there is; who may come in."""

import datetime
import decimal
import os

import adbc_driver_flightsql.dbapi as flight
import polars as pl
import pyarrow as pa

uri = os.environ["FLUMEN_FLIGHT"]
options = {}
if "FLUMEN_USER" in os.environ:
    options = {"username": os.environ["FLUMEN_USER"], "password": os.environ["FLUMEN_PASSWORD"]}
with flight.connect(uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
    cursor.execute("select id, name, fare, at from raw.people order by id")
    table = cursor.fetch_arrow_table()
    assert table.column("name").to_pylist() == ["ann", "bob", None], table
    cursor.execute("select * from raw.people")
    assert len(cursor.fetch_df()) == 3
    frame = pl.read_database("select id, day from raw.people order by id", connection)
    assert frame["id"].to_list() == [1, 2, 3]
    cursor.execute("select value from generate_series(1, 1000000)")
    rows = sum(batch.num_rows for batch in cursor.fetch_record_batch())
    assert rows == 1_000_000, rows
    objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    names = {(s["db_schema_name"], t["table_name"]) for s in objects[0]["catalog_db_schemas"] for t in s["db_schema_tables"]}
    assert ("raw", "people") in names, names
    schema = connection.adbc_get_table_schema("people", db_schema_filter="raw")
    assert schema.names[:2] == ["id", "name"], schema
    try:
        cursor.execute("select nope from raw.people")
        raise AssertionError("it was not refused")
    except Exception as error:
        assert "nope" in str(error), error
    # Parameters of prepared statements, in both spellings.
    for query in ("select id, name from raw.people where id = ? and name = ?", "select id, name from raw.people where id = $1 and name = $2"):
        cursor.execute(query, (2, "bob"))
        assert cursor.fetchall() == [(2, "bob")]
        cursor.execute(query, (2, "it's"))
        assert cursor.fetchall() == []
    cursor.execute("select id from raw.people where day = ? or fare = ? order by id", (datetime.date(2019, 1, 2), 1.5))
    assert cursor.fetchall() == [(1,), (2,)]
    cursor.execute("select ? as a, ? as b", (None, decimal.Decimal("1.50")))
    assert cursor.fetchall() == [(None, decimal.Decimal("1.50"))]
if options.get("username") != "reader":
    at = datetime.datetime(2020, 2, 29, 12, 30, 0, 5, tzinfo=datetime.timezone.utc)
    rows = pa.table({
        "id": pa.array([1, 2, None], pa.int32()),
        "name": pa.array(["one", None, "it's"]),
        "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
        "at": pa.array([at, None, at], pa.timestamp("us", "UTC")),
        "price": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.00")], pa.decimal128(10, 2)),
        "list": pa.array([[1, 2], [], None], pa.list_(pa.int64())),
    })
    with flight.connect(uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        count = lambda: (cursor.execute("select count(*) from arrow.rows"), cursor.fetchone()[0])[1]
        assert cursor.adbc_ingest("rows", rows, mode="create", db_schema_name="arrow") == 3
        cursor.execute("select id, name, kind, at, price, list from arrow.rows order by id")
        got = cursor.fetch_arrow_table().to_pylist()
        assert got == rows.to_pylist(), got
        assert cursor.adbc_ingest("rows", rows, mode="append", db_schema_name="arrow") == 3
        assert count() == 6
        for mode, table, words in (("create", "rows", "already"), ("append", "missing", "no table")):
            try:
                cursor.adbc_ingest(table, rows, mode=mode, db_schema_name="arrow")
                raise AssertionError("it was not refused")
            except Exception as error:
                assert words in str(error), error
        assert cursor.adbc_ingest("rows", rows.slice(0, 2), mode="replace", db_schema_name="arrow") == 2
        assert count() == 2
        assert cursor.adbc_ingest("rows", rows.slice(2), mode="create_append", db_schema_name="arrow") == 1
        assert count() == 3
        # A message that is larger than most, and batches one after the other.
        wide = pa.table({"a": pa.array(range(100_000), pa.int64()), "b": pa.array(["x" * 60] * 100_000)})
        assert cursor.adbc_ingest("wide", wide, mode="create", db_schema_name="arrow") == 100_000
        reader = pa.RecordBatchReader.from_batches(wide.schema, wide.to_batches(max_chunksize=1000))
        assert cursor.adbc_ingest("wide", reader, mode="append", db_schema_name="arrow") == 100_000
        cursor.execute("select count(*), sum(a), max(b) from arrow.wide")
        assert cursor.fetchone() == (200_000, 99_999 * 100_000, "x" * 60)
        # Changes with parameters, once for each row of them.
        cursor.executemany("insert into arrow.rows (id, name) values (?, ?)", [(7, "seven"), (8, None)])
        cursor.execute("update arrow.rows set name = ? where id = ?", ("acht", 8))
        cursor.execute("select id, name from arrow.rows where id > 6 order by id")
        assert cursor.fetchall() == [(7, "seven"), (8, "acht")]
        frame = pl.DataFrame({"x": [1, 2], "y": ["a", None]})
        frame.write_database("arrow.frame", connection, if_table_exists="replace")
        assert pl.read_database("select x, y from arrow.frame order by x", connection).equals(frame)
else:
    with flight.connect(uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        try:
            cursor.adbc_ingest("refused", pa.table({"a": [1]}), mode="create", db_schema_name="arrow")
            raise AssertionError("it was not refused")
        except Exception as error:
            assert "may only read" in str(error), error
if options:
    for wrong in ({"username": options["username"], "password": "wrong"}, {}):
        try:
            with flight.connect(uri, db_kwargs=wrong, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute("select 1")
            raise AssertionError("it was let in")
        except Exception as error:
            assert "password" in str(error), error
print("ok")
