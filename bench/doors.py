#!/usr/bin/env python3
"""Rows out to a client, from Flumen's doors and from Postgres, in turn, in one run; prints medians and ratios.

    doors.py [--runs 5] [--only doors] [--flumen PATH]

Needs the environment that setup.sh writes (source DIR/env.sh). The same 1,369,765 trips are a lake table and a table of Debian's
Postgres. A client connects, then the time is taken from the query to the last row.
"""
import argparse, os, shutil, statistics, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
ap = argparse.ArgumentParser()
ap.add_argument("--runs", type=int, default=5)
ap.add_argument("--only")
ap.add_argument("--flumen", default=os.environ.get("FLUMEN", "flumen"))
a, _ = ap.parse_known_args()
if a.only and "doors" not in a.only.split(","):
    sys.exit(0)
BENCH, VENVS, URL = os.environ["BENCH"], os.environ["VENVS"], os.environ["PGURL"]
FILE, ROWS = f"{BENCH}/data/yellow_tripdata_2021-01.parquet", 1_369_765
PROJECT = f"{BENCH}/work/doors"
PYTHON = f"{VENVS}/clients/bin/python"
READY = f"{PROJECT}/ready"


def flumen(*args):
    return [a.flumen, "--quiet", "--project", PROJECT, *args]


shutil.rmtree(PROJECT, ignore_errors=True)
subprocess.run([a.flumen, "--quiet", "init", PROJECT], check=True, stdout=subprocess.DEVNULL)
user, rest = URL.removeprefix("postgresql://").split("@")
host, database = rest.split("/")
with open(f"{PROJECT}/flumen.yml", "w") as out:
    out.write(f"name: doors\nconnections:\n  pg: {{ kind: postgres, host: 127.0.0.1, port: {host.split(':')[1]}, database: {database}, "
              f"user: {user.split(':')[0]}, password: {user.split(':')[1]} }}\n")
subprocess.run(flumen("ingest", FILE, "--to", "lake.raw.trips", "--lineage=false"), check=True, stdout=subprocess.DEVNULL)
subprocess.run(flumen("ingest", FILE, "--to", "pg.public.trips", "--mode", "replace"), check=True, stdout=subprocess.DEVNULL)
server = subprocess.Popen(flumen("serve", "--pg", "127.0.0.1:0", "--flight", "127.0.0.1:0", "--ready-file", READY, "--no-maintenance"))
try:
    while not os.path.exists(READY):
        if server.poll() is not None:
            sys.exit("doors: the server ended")
        time.sleep(0.01)
    pg, flight = open(READY).read().split()
    pg = pg.replace("postgres://", "postgres://me@")
    ours, theirs = "select * from raw.trips", "select * from public.trips"
    cases = {
        "flumen, COPY out as text": ["copy", pg, ours],
        "postgres, COPY out as text": ["copy", URL, theirs],
        "flumen, COPY out as binary": ["copy-binary", pg, ours],
        "postgres, COPY out as binary": ["copy-binary", URL, theirs],
        "flumen, Flight SQL to Polars": ["flight", flight, ours],
    }
    seconds = {case: [] for case in cases}
    for _ in range(a.runs):
        for case, args in cases.items():
            ran = subprocess.run([PYTHON, f"{HERE}/fetch.py", *args, str(ROWS)], text=True, capture_output=True)
            if ran.returncode:
                sys.exit(f"{case}: {ran.stderr}")
            seconds[case].append(float(ran.stdout))
finally:
    server.terminate()
    server.wait()
first = next(iter(cases))
print(f"\ndoors: {ROWS:,} rows of 19 columns to a client, medians of {a.runs} runs in turn\n")
print("| what | s (min to max) | ratio |\n| --- | --- | --- |")
for case, of in seconds.items():
    ratio = statistics.median(x / y for x, y in zip(seconds[first], of))
    print(f"| {case} | {statistics.median(of):.2f} ({min(of):.2f} to {max(of):.2f}) | {ratio:.2f} |")
