#!/usr/bin/env python3
"""Flumen and its peers at the same work, in turn, in one run; prints medians and ratios.

    compare.py [--runs 5] [--only pg-parquet,lake-csv] [--flumen PATH] [--markdown]

Needs the environment that setup.sh writes (source DIR/env.sh). Before each run the destination is removed and the input is
brought into the page cache; after it the rows are counted. Every command is a whole process, its start included. Memory is
the peak of the process tree, without the Postgres server's.
"""
import argparse, glob, json, os, shutil, statistics, subprocess, sys

from measure import measure, warm

HERE = os.path.dirname(os.path.abspath(__file__))
ap = argparse.ArgumentParser()
ap.add_argument("--runs", type=int, default=5)
ap.add_argument("--only")
ap.add_argument("--flumen", default=os.environ.get("FLUMEN", "flumen"))
ap.add_argument("--out", help="append every single run to this file, as JSON lines")
a, _ = ap.parse_known_args()
BENCH, VENVS, URL = os.environ["BENCH"], os.environ["VENVS"], os.environ["PGURL"]
DATA, WORK = f"{BENCH}/data", f"{BENCH}/work"
STEM, ROWS = "yellow_tripdata_2021-01", 1_369_765
PQ, CSV = f"{DATA}/{STEM}.parquet", f"{DATA}/{STEM}.csv"
GZ = CSV + ".gz"
BIG = f"{DATA}/yellow_10x"
PROJECT = f"{WORK}/project"
py = lambda venv: f"{VENVS}/{venv}/bin/python"
COLS = [c.split() for c in """VendorID bigint|tpep_pickup_datetime timestamp|tpep_dropoff_datetime timestamp|passenger_count float8
trip_distance float8|RatecodeID float8|store_and_fwd_flag text|PULocationID bigint|DOLocationID bigint|payment_type bigint
fare_amount float8|extra float8|mta_tax float8|tip_amount float8|tolls_amount float8|improvement_surcharge float8
total_amount float8|congestion_surcharge float8|airport_fee float8""".replace("\n", "|").split("|")]
DDL = "(" + ", ".join(f'"{c}" {t}' for c, t in COLS) + ")"
TYPES = ",".join(f"{c}={'double' if t == 'float8' else t}" for c, t in COLS)


def sql(query):
    return subprocess.run(["psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", URL, "-c", query], check=True, text=True,
                          capture_output=True).stdout.strip()


def empty_table():
    sql(f"drop table if exists trips; create table trips {DDL}")
    sql("checkpoint")


def no_table():
    sql("drop table if exists trips; drop schema if exists _flumen cascade")
    sql("checkpoint")


def pg_rows():
    return int(sql("select count(*) from trips"))


def lake_empty():
    shutil.rmtree(f"{PROJECT}/lake", ignore_errors=True)


def lake_rows():
    out = subprocess.run([a.flumen, "--json", "sql", "select count(*) as n from lake.raw.trips"], cwd=PROJECT, text=True, capture_output=True)
    return json.loads(out.stdout)[0]["n"] if out.returncode == 0 else out.stderr


def out_empty():
    for path in glob.glob(f"{WORK}/out.*"):
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def out_rows(name):
    def rows():
        path = f"{WORK}/out.{name}"
        code = ("import sys; from deltalake import DeltaTable; print(DeltaTable(sys.argv[1]).to_pyarrow_dataset().count_rows())"
                if name == "delta" else "import sys, pyarrow.parquet as p; print(p.ParquetFile(sys.argv[1]).metadata.num_rows)")
        return int(subprocess.run([py("main"), "-c", code, path], text=True, capture_output=True, check=True).stdout)
    return rows


flumen = lambda *args: [a.flumen, "--quiet", "--project", PROJECT, "ingest", *args]
to_pg = ["--to", "pg.public.trips", "--mode", "replace"]
to_lake = ["--to", "lake.raw.trips"]
ingest_peer = lambda venv, peer, path: [py(venv), f"{HERE}/ingest_peers.py", peer, path, "trips"]
convert_peer = lambda peer, path, out, venv="main": [py(venv), f"{HERE}/convert_peers.py", peer, path, f"{WORK}/out.{out}"]
two = lambda kind, form: ["bash", "-c", " & ".join(
    f"psql -X -q -v ON_ERROR_STOP=1 '{URL}' -c \"\\copy trips from '{WORK}/trips{i}.{kind}' with (format {form})\"" for i in (1, 2)) + " & wait"]
PG_OURS, PG_PEER = (no_table, pg_rows), (empty_table, pg_rows)
LAKE = (lake_empty, lake_rows)
# case -> (input, rows, [(tool, command, (prepare, rows))]); ratios are to the first tool
CASES = {
    "pg-parquet": (PQ, ROWS, [
        ("flumen", flumen(PQ, *to_pg), PG_OURS),
        ("flumen --no-analyze", flumen(PQ, *to_pg, "--no-analyze"), PG_OURS),
        ("duckdb", ingest_peer("duck", "duckdb", PQ), PG_PEER),
        ("two binary COPYs of ready bytes", two("bin", "binary"), PG_PEER),
    ]),
    "pg-csv": (CSV, ROWS, [
        ("flumen", flumen(CSV, *to_pg), PG_OURS),
        ("flumen --types", flumen(CSV, *to_pg, "--types", TYPES), PG_OURS),
        ("flumen --types --no-analyze", flumen(CSV, *to_pg, "--types", TYPES, "--no-analyze"), PG_OURS),
        ("duckdb", ingest_peer("duck", "duckdb", CSV), PG_PEER),
        ("two parallel \\copy", two("csv", "csv"), PG_PEER),
    ]),
    "lake-csv": (CSV, ROWS, [
        ("flumen", flumen(CSV, *to_lake), LAKE),
        ("duckdb to Parquet", convert_peer("duckdb", CSV, "parquet"), (out_empty, out_rows("parquet"))),
        ("datafusion to Parquet", convert_peer("datafusion", CSV, "parquet"), (out_empty, out_rows("parquet"))),
    ]),
    "lake-csv-gz": (GZ, ROWS, [
        ("flumen", flumen(GZ, *to_lake), LAKE),
        ("duckdb to Parquet", convert_peer("duckdb", GZ, "parquet"), (out_empty, out_rows("parquet"))),
        ("datafusion to Parquet", convert_peer("datafusion", GZ, "parquet"), (out_empty, out_rows("parquet"))),
    ]),
    "lake-parquet": (PQ, ROWS, [
        ("flumen --reencode", flumen(PQ, *to_lake, "--reencode"), LAKE),
        ("flumen, file taken over", flumen(PQ, *to_lake), LAKE),
        ("polars to Delta", convert_peer("polars", PQ, "delta"), (out_empty, out_rows("delta"))),
        ("deltalake (Python)", convert_peer("deltalake", PQ, "delta"), (out_empty, out_rows("delta"))),
    ]),
    "ten-times": (BIG + ".csv", 10 * ROWS, [
        ("flumen CSV to lake", flumen(BIG + ".csv", *to_lake), LAKE),
        ("flumen Parquet to lake, encoded", flumen(BIG + ".parquet", *to_lake, "--reencode"), LAKE),
        ("flumen CSV to Postgres", flumen(BIG + ".csv", *to_pg), PG_OURS),
        ("flumen Parquet to Postgres", flumen(BIG + ".parquet", *to_pg), PG_OURS),
    ]),
}


def make_inputs():
    """A project, and the ready-made halves for the COPY limits."""
    if not os.path.exists(f"{PROJECT}/flumen.yml"):
        subprocess.run([a.flumen, "--quiet", "init", PROJECT], check=True)
        pw = ["--set", "password=bench", "--set", "sslmode=disable"]
        subprocess.run([a.flumen, "--quiet", "--project", PROJECT, "connection", "add", "pg", "--kind", "postgres", "--set", "host=127.0.0.1",
                        "--set", "port=5599", "--set", "user=bench", "--set", "database=bench", *pw], check=True)
    if not os.path.exists(f"{WORK}/trips2.csv"):
        empty_table()
        sql_file = lambda *q: subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", URL] + [x for s in q for x in ("-c", s)], check=True)
        sql_file(f"\\copy trips from '{CSV}' with (format csv, header)")
        for i, part in ((1, f"limit {ROWS // 2}"), (2, f"offset {ROWS // 2}")):
            for end, form in (("bin", "binary"), ("csv", "csv")):
                sql_file("set synchronize_seqscans = off", f"\\copy (select * from trips {part}) to '{WORK}/trips{i}.{end}' with (format {form})")


def postmaster():
    return int(open(sql("show data_directory") + "/postmaster.pid").readline())


cases = [case for case in CASES if not a.only or case in a.only.split(",")]
if not cases:
    sys.exit(0)
make_inputs()
pm = postmaster()
failed = False
for case in cases:
    source, rows, tools = CASES[case]
    runs = {tool: [] for tool, *_ in tools}
    for i in range(a.runs):
        for tool, command, (prepare, count) in tools:
            prepare()
            warm(source, *glob.glob(f"{WORK}/trips[12].*"))
            r = {"case": case, "tool": tool, "run": i, **measure(command, pm, log=f"{WORK}/log.txt")}
            got = count() if r["rc"] == 0 else f"exit code {r['rc']}, see {WORK}/log.txt"
            if got != rows:
                print(f"{case}, {tool}: {got} rows in place of {rows}", file=sys.stderr)
                failed = True
            runs[tool].append(r)
            if a.out:
                with open(a.out, "a") as f:
                    f.write(json.dumps(r) + "\n")
    median = lambda tool, key: statistics.median(r[key] for r in runs[tool])
    print(f"\n{case}: {rows:,} rows, medians of {a.runs} runs in turn\n")
    print("| tool | s (min to max) | ratio | CPU s | server CPU s | peak MB |\n| --- | --- | --- | --- | --- | --- |")
    first = tools[0][0]
    for tool, *_ in tools:
        w = [r["wall_s"] for r in runs[tool]]
        ratio = statistics.median(x["wall_s"] / y["wall_s"] for x, y in zip(runs[first], runs[tool]))
        print(f"| {tool} | {median(tool, 'wall_s'):.2f} ({min(w):.2f} to {max(w):.2f}) | {ratio:.2f} | {median(tool, 'cpu_s'):.2f} | "
              f"{median(tool, 'server_s'):.2f} | {median(tool, 'rss_mb'):.0f} |", flush=True)
sys.exit(failed)
