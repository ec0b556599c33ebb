"""pandas and Polars: read_sql, read_database, to_sql."""

import os

import pandas as pd
import polars as pl
import sqlalchemy as sa

url = os.environ["FLUMEN_PG"]
engine = sa.create_engine(url.replace("postgres://", "postgresql+psycopg://"))
frame = pd.read_sql("select id, name, fare, at from raw.people order by id", engine)
assert list(frame.columns) == ["id", "name", "fare", "at"] and len(frame) == 3, frame
assert frame["fare"].sum() == 3.75 and str(frame["at"].dtype).startswith("datetime64"), frame.dtypes
table = pd.read_sql_table("people", engine, schema="raw", columns=["id", "ok"])
assert sorted(table["id"]) == [1, 2, 3]
chunks = list(pd.read_sql("select id from raw.people", engine, chunksize=2))
assert [len(chunk) for chunk in chunks] == [2, 1]

with engine.connect() as connection:
    rows = pl.read_database("select id, name, day from raw.people order by id", connection)
assert rows.schema == {"id": pl.Int64, "name": pl.String, "day": pl.Date}, rows.schema
assert rows["name"].to_list() == ["ann", "bob", None]

table = pd.DataFrame({"id": [1, 2], "name": ["x", None], "at": pd.to_datetime(["2019-01-01", "2019-01-02"])})
table.to_sql("frame", engine, schema="shop", index=False)
table.to_sql("frame", engine, schema="shop", index=False, if_exists="append", method="multi")
assert len(pd.read_sql_table("frame", engine, schema="shop")) == 4
table.to_sql("frame", engine, schema="shop", index=False, if_exists="replace")
again = pd.read_sql("select * from shop.frame order by id", engine)
pd.testing.assert_frame_equal(again.fillna("-"), table.fillna("-"), check_dtype=False)
print("ok")
