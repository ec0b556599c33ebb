"""Whether a server's memory grows with the runs that it has done: a backfill of 100,000 runs of one empty task.

    bench/flows_memory.py FLUMEN [--runs N]

Prints one JSON line for each tenth of the runs: how many have ended, the memory of the server, and the runs a second so far.
"""

import argparse
import json
import pathlib
import sqlite3
import subprocess
import tempfile
import time

from flows import Project, smaps, tree


def main():
    options = argparse.ArgumentParser()
    options.add_argument("flumen")
    options.add_argument("--runs", type=int, default=100_000)
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="flumen-bench-") as name:
        project = Project(str(pathlib.Path(options.flumen).resolve()), pathlib.Path(name), None)
        flow = "flow: small\nschedule: { cron: '0 * * * *', start: 2000-01-01, catchup: none }\ntasks:\n  only: { empty: {} }\n"
        (pathlib.Path(name) / "flows" / "small.yml").write_text(flow)
        with project.server() as pid:
            watch(project, pid, options.runs)


def watch(project, pid, runs):
    time.sleep(2)
    days = runs // 24 + 1
    last = time.strftime("%Y-%m-%d", time.gmtime(946_684_800 + days * 86_400))
    say(0, pid, 0)
    began = time.monotonic()
    project.call("backfill", "small", "--from", "2000-01-01", "--to", last, "--max-active", "16", "--detach")
    database = sqlite3.connect(f"file:{project.folder}/.flumen/flumen.db?mode=ro", uri=True)
    tenths = 1
    while tenths <= 10:
        time.sleep(0.5)
        # By its number in the database: counting rows would be work for the machine that is measured.
        done = database.execute("select max(seq) from runs").fetchone()[0] or 0
        if done >= runs * tenths // 10:
            say(done, pid, done / (time.monotonic() - began))
            tenths += 1


def say(runs, pid, pace):
    print(json.dumps({"runs": runs, "memory_mb": round(sum(map(smaps, tree(pid))), 1), "runs_per_s": round(pace)}), flush=True)


if __name__ == "__main__":
    main()
