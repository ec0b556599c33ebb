"""What Flumen's orchestrator itself costs: flows whose tasks do next to nothing.

    bench/flows.py FLUMEN [--runs N] [--pg postgresql://user@host:port/database]

Prints one JSON line a measurement. Times of runs are those of the run's own record: from the moment that it was asked for to the moment
that it ended. Each run is asked for while nothing else is at work.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TASKS = 1000
CHAIN = 50
# How long an idle server is watched.
IDLE_S = 10


def flows(folder):
    """Writes the flows that are measured."""
    folder.mkdir(exist_ok=True)

    def write(name, tasks, extra=""):
        (folder / f"{name}.yml").write_text(f"flow: {name}\n{extra}tasks:\n" + "".join(f"  {task}\n" for task in tasks))

    write("one", ["t0: { shell: \"true\" }"])
    write("empty", [f"t{n}: {{ empty: {{}} }}" for n in range(TASKS)])
    write("shell", [f"t{n}: {{ shell: \"true\" }}" for n in range(TASKS)])
    write("python", [f"t{n}: {{ python: {{ file: work.py, function: work, args: [{n}] }} }}" for n in range(TASKS)])
    write("chain_empty", [f"t{n}: {{ {f'needs: [t{n - 1}], ' if n else ''}empty: {{}} }}" for n in range(CHAIN)])
    write("chain_shell", [f"t{n}: {{ {f'needs: [t{n - 1}], ' if n else ''}shell: \"true\" }}" for n in range(CHAIN)])
    (folder.parent / "work.py").write_text("def work(n):\n    return n\n")


def smaps(pid):
    """The memory of a process, shared pages divided among those that share them, in MB."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def tree(pid):
    """A process and those below it."""
    found = [pid]
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += tree(int(child))
    return found


def cpu_s(pids):
    ticks = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


class Project:
    def __init__(self, flumen, folder, pg):
        self.flumen, self.folder = flumen, folder
        flows(folder / "flows")
        settings = "name: bench\n"
        if pg:
            settings += f"connections:\n  meta: {{ kind: postgres, url: '{pg}' }}\nstore: {{ connection: meta, schema: flumen_bench_{os.getpid()} }}\n"
        (folder / "flumen.yml").write_text(settings)

    def call(self, *arguments):
        return subprocess.run([self.flumen, *arguments], cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def start(self):
        """Starts a server; it, and the seconds until it was ready."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        began = time.monotonic()
        server = subprocess.Popen([self.flumen, "up", "--ready-file", ready], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not ready.exists():
            assert server.poll() is None, "the server ended"
            time.sleep(0.001)
        return server, time.monotonic() - began

    @contextlib.contextmanager
    def server(self):
        """A server for a block; its process."""
        server, _ = self.start()
        try:
            yield server.pid
        finally:
            server.terminate()
            server.wait()

    def run(self, flow):
        """Runs a flow to its end; the record of the run with its tasks."""
        run = self.call("run", flow, "--detach").strip()
        subprocess.run([self.flumen, "--quiet", "run", "follow", run], cwd=self.folder, check=True, capture_output=True)
        record = json.loads(self.call("--json", "run", "show", run))
        assert record["state"] == "success", record["cause"]
        return record


def main():
    options = argparse.ArgumentParser()
    options.add_argument("flumen")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--pg")
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="flumen-bench-") as name:
        project = Project(os.path.abspath(options.flumen), pathlib.Path(name), options.pg)
        starts = []
        for _ in range(options.runs + 1):
            server, ready_s = project.start()
            starts.append(ready_s)
            server.terminate()
            server.wait()
        say("start to ready", statistics.median(starts[1:]), "s")
        with project.server() as pid:
            measure(project, pid, options.runs)


def say(what, value, unit):
    print(json.dumps({"what": what, "value": round(value, 4), "unit": unit}))
    sys.stdout.flush()


def measure(project, pid, runs):
    time.sleep(2)
    pids = tree(pid)
    say("idle memory (PSS)", sum(map(smaps, pids)), "MB")
    before = cpu_s(pids)
    time.sleep(IDLE_S)
    say("idle CPU", 100 * (cpu_s(pids) - before) / IDLE_S, "% of a core")
    seconds = lambda record, begin, end: (moment(record[end]) - moment(record[begin])).total_seconds()
    for flow in ["empty", "shell", "python"]:
        times = [seconds(project.run(flow), "created", "ended") for _ in range(runs)]
        say(f"{TASKS} {flow} tasks", statistics.median(times), "s")
        say(f"{TASKS} {flow} tasks", TASKS / statistics.median(times), "tasks/s")
    for flow in ["chain_empty", "chain_shell"]:
        times = [seconds(project.run(flow), "started", "ended") / CHAIN for _ in range(runs)]
        say(f"a step of {flow}", 1000 * statistics.median(times), "ms")
    firsts = []
    for _ in range(runs * 3):
        record = project.run("one")
        firsts.append((moment(record["tasks"][0]["began"]) - moment(record["created"])).total_seconds())
    say("run to first task on a worker", 1000 * statistics.median(firsts), "ms")


if __name__ == "__main__":
    main()
