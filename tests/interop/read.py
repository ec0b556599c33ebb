"""Reads a Delta table as another program does, and holds its rows against a Parquet file that Flumen wrote.

    read.py READER TABLE PARQUET      READER is deltalake, polars, sail; or parquet, for TABLE a file
"""

import datetime
import decimal
import math
import os
import sys

import pyarrow.parquet


def rows_of_deltalake(table):
    import deltalake

    return pyarrow.table(deltalake.DeltaTable(table).to_pyarrow_table())


def rows_of_polars(table):
    import polars

    return polars.scan_delta(table).collect().to_arrow()


def rows_of_sail(table):
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    _, port = server.listening_address
    session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    rows = session.read.format("delta").load(table).toArrow()
    session.stop()
    server.stop()
    return rows


def rows_of_parquet(file):
    return pyarrow.parquet.read_table(file)


def plain(value):
    """A value whose text is the same for all readers."""
    match value:
        case dict():
            return {name: plain(value[name]) for name in sorted(value)}
        case list() | tuple():
            return [plain(item) for item in value]
        case datetime.datetime() if value.tzinfo:
            return value.astimezone(datetime.timezone.utc).isoformat()
        case datetime.datetime() | datetime.date():
            return value.isoformat()
        case decimal.Decimal():
            return format(value, "f")
        case float() if math.isnan(value):
            return "NaN"
        case _:
            return value


def lines(table):
    names = sorted(table.column_names)
    return sorted(repr([(name, plain(row[name])) for name in names]) for row in table.to_pylist())


def main(reader, table, parquet):
    readers = {"deltalake": rows_of_deltalake, "polars": rows_of_polars, "sail": rows_of_sail, "parquet": rows_of_parquet}
    found = lines(readers[reader](table))
    expected = lines(pyarrow.parquet.read_table(parquet))
    if found != expected:
        for line in [f"- {line}" for line in expected if line not in found][:5]:
            print(line)
        for line in [f"+ {line}" for line in found if line not in expected][:5]:
            print(line)
        sys.exit(f"{reader} has {len(found)} rows, and not the {len(expected)} expected")
    print(f"{reader}: {len(found)} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Done: the libraries' threads are not waited for, of which one crashes now and then while the interpreter ends.
    sys.stdout.flush()
    os._exit(0)
