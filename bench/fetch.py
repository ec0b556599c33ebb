#!/usr/bin/env python3
"""Fetches all rows of a query once and prints the seconds that took, its connection made, and a small query asked, before.

    fetch.py copy|copy-binary|flight|rows URL QUERY EXPECTED_ROWS
"""
import sys, time

kind, url, query, expected = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
if kind == "flight":
    import adbc_driver_flightsql.dbapi as flight
    import polars as pl

    with flight.connect(url, autocommit=True) as connection:
        # What a client loads when it is first asked is not the door's.
        pl.read_database("select 1 as one", connection)
        start = time.perf_counter()
        rows = len(pl.read_database(query, connection))
        seconds = time.perf_counter() - start
else:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select 1 as one")
        start = time.perf_counter()
        if kind == "rows":
            cursor.execute(query)
            rows = cursor.rowcount
        else:
            text = f"copy ({query}) to stdout" + (" (format binary)" if kind == "copy-binary" else "")
            rows, size = 0, 0
            with cursor.copy(text) as copy:
                for part in copy:
                    size += len(part)
            rows = cursor.rowcount
        seconds = time.perf_counter() - start
if rows != expected:
    sys.exit(f"{kind}: {rows} rows in place of {expected}")
print(seconds)
