#!/usr/bin/env python3
"""DuckDB over Parquet files: the queries of a folder, again and again in one session, every answer fetched.

    sql_duckdb.py DATA QUERIES REPEAT [--answers FILE]       DATA: NAME=PATH,…
"""
import datetime, glob, json, sys
import duckdb

tables = dict(pair.split("=", 1) for pair in sys.argv[1].split(","))
queries = [open(path).read() for path in sorted(glob.glob(f"{sys.argv[2]}/*.sql"))]
session = duckdb.connect(config={"threads": 2})
for name, path in tables.items():
    session.execute(f"create view {name} as from '{path}'")
answers = []
for again in range(int(sys.argv[3])):
    for query in queries:
        rows = session.execute(query).fetchall()
        if again == 0:
            answers.append(rows)
if "--answers" in sys.argv:
    plain = lambda value: value if value is None or isinstance(value, (int, float, str, bool)) else str(value)
    with open(sys.argv[sys.argv.index("--answers") + 1], "w") as out:
        json.dump([[[plain(value) for value in row] for row in rows] for rows in answers], out)
