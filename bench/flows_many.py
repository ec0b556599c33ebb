"""How late runs begin where there are many flows and a long history.

    bench/flows_many.py FLUMEN [--flows 10000] [--runs 100000] [--seconds 120]

Makes a project with so many flows, each of which runs once an hour at a second of its own, and a store (SQLite) with so many ended runs of
ten tasks. Then a server runs for so long. Prints one JSON line a measurement: how long after its interval's end the task of a scheduled run
was taken by a worker, and what the server takes.
"""

import argparse
import datetime
import json
import os
import pathlib
import sqlite3
import statistics
import tempfile
import time
import uuid

from flows import Project, cpu_s, moment, say, smaps, tree

TASKS = 10
HOUR_S = 3600


def write_flows(folder, count, seconds):
    """Flows whose hours end one after another, from a minute from now on."""
    first = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds - HOUR_S)
    for number in range(count):
        start = first + datetime.timedelta(seconds=HOUR_S * number / count)
        (folder / f"f{number}.yml").write_text(
            f"flow: f{number}\nschedule: {{ every: 1h, start: \"{start.isoformat(timespec='seconds')}\" }}\ntasks:\n  only: {{ shell: \"true\" }}\n"
        )
    (folder / "past.yml").write_text("flow: past\ntasks:\n" + "".join(f"  t{n}: {{ shell: \"true\" }}\n" for n in range(TASKS)))


def fill(path, count):
    """Copies the one run that is there so many times, with its tasks and events."""
    store = sqlite3.connect(path)
    store.execute("pragma synchronous = off")
    names = [row[1] for row in store.execute("pragma table_info(runs)") if row[1] not in ("seq", "id", "body")]
    seq, old, *rest, body = store.execute(f"select seq, id, {', '.join(names)}, body from runs").fetchone()
    old = uuid.UUID(bytes=old).hex
    insert = f"insert into runs (id, {', '.join(names)}, body) values ({', '.join('?' * (len(names) + 2))})"
    tasks = store.execute("select key, state, body from tasks where run = ?", (seq,)).fetchall()
    events = [row[0] for row in store.execute("select body from events where run = ? order by id", (seq,))]
    for _ in range(count):
        new = uuid.uuid4()
        run = store.execute(insert, (new.bytes, *rest, body.replace(old, new.hex))).lastrowid
        store.executemany("insert into tasks (run, key, state, body) values (?, ?, ?, ?)", [(run, *task) for task in tasks])
        store.executemany("insert into events (run, body) values (?, ?)", [(run, event.replace(old, new.hex)) for event in events])
    store.commit()
    store.execute("pragma wal_checkpoint(truncate)")
    tasks = store.execute("select count(*) from tasks").fetchone()[0]
    store.close()
    return tasks


def main():
    options = argparse.ArgumentParser()
    options.add_argument("flumen")
    options.add_argument("--flows", type=int, default=10_000)
    options.add_argument("--runs", type=int, default=100_000)
    options.add_argument("--seconds", type=int, default=120)
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="flumen-bench-") as name:
        folder = pathlib.Path(name)
        project = Project(os.path.abspath(options.flumen), folder, None)
        for flow in (folder / "flows").iterdir():
            flow.unlink()
        write_flows(folder / "flows", 0, 0)
        project.call("run", "past")
        say("task runs in the store", fill(folder / ".flumen/flumen.db", options.runs), "task runs")
        say("size of the store", (folder / ".flumen/flumen.db").stat().st_size / 1e6, "MB")
        # The first one is due when the server has begun.
        write_flows(folder / "flows", options.flows, 30)
        began = time.monotonic()
        project.call("check")
        say(f"check of {options.flows} flows", time.monotonic() - began, "s")
        server, ready_s = project.start()
        try:
            say("start to ready", ready_s, "s")
            time.sleep(options.seconds)
            pids = tree(server.pid)
            say("CPU of the server", cpu_s(pids), "s")
            say("memory (PSS)", sum(map(smaps, pids)), "MB")
            runs = json.loads(project.call("--json", "run", "list", "--limit", "10000"))
            runs = [run for run in runs if run["flow"] != "past"]
            delays = []
            for run in runs:
                record = json.loads(project.call("--json", "run", "show", run["id"]))
                end = moment(record["interval"]["end"])
                for task in record["tasks"]:
                    if task.get("began"):
                        delays.append((moment(task["began"]) - end).total_seconds())
            delays.sort()
            say("scheduled runs", len(delays), "runs")
            say("delay, median", 1000 * statistics.median(delays), "ms")
            say("delay, p99", 1000 * delays[int(len(delays) * 0.99)], "ms")
            say("delay, longest", 1000 * delays[-1], "ms")
        finally:
            server.terminate()
            server.wait()


main()
