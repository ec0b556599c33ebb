"""ADBC over Flight SQL: rows as Arrow, to pandas and Polars; what there is; who may come in."""

import os

import adbc_driver_flightsql.dbapi as flight
import polars as pl

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
if options:
    for wrong in ({"username": options["username"], "password": "wrong"}, {}):
        try:
            with flight.connect(uri, db_kwargs=wrong, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute("select 1")
            raise AssertionError("it was let in")
        except Exception as error:
            assert "password" in str(error), error
print("ok")
