#!/usr/bin/env python3
"""Flumen's SQL and DuckDB's on the same data, in turn, in one run; prints medians and ratios.

    sql.py [--runs 5] [--only tpch,taxi-sql,startup,many-tables,many-commits] [--flumen PATH] [--out FILE] [--each]

Needs the environment that setup.sh writes (source DIR/env.sh). The lake's tables come from a plain `flumen ingest` of the files
that DuckDB reads through views. A suite of queries runs once in one session, and several times in another: the difference,
divided by the further times, is what it takes in a warm session. Every answer is compared, value by value. CPU seconds are those
of the process, user and system.
"""
import argparse, decimal, glob, json, os, shutil, statistics, subprocess, sys

from measure import measure, warm

HERE = os.path.dirname(os.path.abspath(__file__))
SUITES = ["tpch", "taxi-sql", "startup", "many-tables", "many-commits"]
ap = argparse.ArgumentParser()
ap.add_argument("--runs", type=int, default=5)
ap.add_argument("--only")
ap.add_argument("--flumen", default=os.environ.get("FLUMEN", "flumen"))
ap.add_argument("--out", help="append every single run to this file, as JSON lines")
ap.add_argument("--each", action="store_true", help="also time each query by itself")
ap.add_argument("--warm", type=int, default=3, help="how often a suite runs in a warm session")
a = ap.parse_args()
wanted = [name for name in SUITES if not a.only or name in a.only.split(",")]
if not wanted:
    sys.exit(0)
BENCH, VENVS = os.environ["BENCH"], os.environ["VENVS"]
DATA, WORK = f"{BENCH}/data", f"{BENCH}/work"
PYTHON = f"{VENVS}/main/bin/python"
TPCH = "customer lineitem nation orders part partsupp region supplier".split()
failed = False


def flumen(project, *args, **kwargs):
    return subprocess.run([a.flumen, "--quiet", "--project", project, *args], check=True, text=True, **kwargs)


def project(name):
    """A project, and whether it is new."""
    path = f"{WORK}/{name}"
    new = not os.path.exists(f"{path}/.ready")
    if new:
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([a.flumen, "--quiet", "init", path], check=True, stdout=subprocess.DEVNULL)
    return path, new


def ready(path):
    open(f"{path}/.ready", "w").close()


def record(case, tool, run, result):
    if a.out:
        with open(a.out, "a") as out:
            out.write(json.dumps({"case": case, "tool": tool, "run": run, **result}) + "\n")
    if result["rc"]:
        sys.exit(f"{case}, {tool}: exit code {result['rc']}, see {WORK}/log.txt")
    return result


def table(title, first, runs, show):
    """`runs`: tool -> list of {"s", "cpu", "mb"}."""
    print(f"\n{title}\n\n| tool | s (min to max) | ratio | CPU s | CPU ratio | peak MB |\n| --- | --- | --- | --- | --- | --- |")
    ratio = lambda key, tool: statistics.median(x[key] / max(y[key], 1e-3) for x, y in zip(runs[first], runs[tool]))
    for tool, of in runs.items():
        s = [r["s"] for r in of]
        median = lambda key: statistics.median(r[key] for r in of)
        print(f"| {tool} | {median('s'):{show}} ({min(s):{show}} to {max(s):{show}}) | {ratio('s', tool):.2f} | {median('cpu'):{show}} | "
              f"{ratio('cpu', tool):.2f} | {median('mb'):.0f} |", flush=True)


def same(ours, theirs):
    """Whether two values are equal: numbers to nine digits, or to the last that a decimal of ours has, the rest as text."""
    if ours is None or theirs is None:
        return ours is theirs
    try:
        x, y = decimal.Decimal(str(ours)), decimal.Decimal(str(theirs))
        last = decimal.Decimal(1).scaleb(x.as_tuple().exponent) if x.as_tuple().exponent <= -6 else 0
        return abs(x - y) <= max(last, max(abs(x), abs(y)) * decimal.Decimal("1e-9"))
    except decimal.InvalidOperation:
        # A timestamp may be written with a T, and with no fraction where it is zero.
        text = lambda value: str(value).replace("T", " ").removesuffix(" 00:00:00")
        return text(ours) == text(theirs)


def compare_answers(case, path, queries, theirs):
    global failed
    for file, expected in zip(queries, theirs):
        name = os.path.basename(file)
        out = flumen(path, "--json", "sql", "--threads", "2", "-f", file, capture_output=True).stdout
        got = [list(row.values()) for row in json.loads(out, parse_float=str)]
        wrong = len(got) != len(expected) or not all(same(x, y) for g, e in zip(got, expected) for x, y in zip(g, e))
        if wrong:
            at = next((f"{g} in place of {e}" for g, e in zip(got, expected) if not all(map(same, g, e))), "")
            print(f"{case}, {name}: another answer than DuckDB's ({len(got)} rows, {len(expected)} there) {at[:300]}", file=sys.stderr)
            failed = True


def script(path, queries, repeat):
    with open(path, "w") as out:
        for _ in range(repeat):
            for file in queries:
                out.write(open(file).read().strip().rstrip(";") + ";\n")
    return path


def session(case, path, data, folder):
    queries = sorted(glob.glob(f"{folder}/*.sql"))
    tables = ",".join(f"{name}={file}" for name, file in data.items())
    answers = f"{WORK}/answers.json"
    subprocess.run([PYTHON, f"{HERE}/sql_duckdb.py", tables, folder, "1", "--answers", answers], check=True)
    compare_answers(case, path, queries, json.load(open(answers)))
    ours = lambda queries, repeat: [a.flumen, "--quiet", "--project", path, "sql", "--threads", "2", "--format", "csv", "-f",
                                    script(f"{WORK}/script.sql", queries, repeat)]
    duckdb = lambda folder, repeat: [PYTHON, f"{HERE}/sql_duckdb.py", tables, folder, str(repeat)]
    time(case, f"{case}: {len(queries)} queries in a warm session", ours, duckdb, queries, folder, data)
    for file in queries if a.each else []:
        one = f"{WORK}/one"
        shutil.rmtree(one, ignore_errors=True)
        os.makedirs(one)
        shutil.copy(file, one)
        name = os.path.basename(file)[:-4]
        time(f"{case} {name}", f"{case} {name}", ours, duckdb, [file], one, data)


def time(case, title, ours, duckdb, queries, folder, data):
    runs = {"flumen": [], "duckdb": []}
    for run in range(a.runs):
        for tool, command in (("flumen", lambda n: ours(queries, n)), ("duckdb", lambda n: duckdb(folder, n))):
            warm(*data.values())
            cold = record(case, tool, run, measure(command(1), log=f"{WORK}/log.txt"))
            long = record(case, tool, run, measure(command(1 + a.warm), log=f"{WORK}/log.txt"))
            each = lambda key: max(0.0, long[key] - cold[key]) / a.warm
            runs[tool].append({"s": each("wall_s"), "cpu": each("cpu_s"), "mb": long["rss_mb"]})
    table(f"{title}, medians of {a.runs} runs in turn", "flumen", runs, ".2f")


def tpch():
    path, new = project("tpch")
    data = {name: f"{DATA}/tpch/{name}.parquet" for name in TPCH}
    if new:
        for name, file in data.items():
            flumen(path, "ingest", file, "--to", f"lake.tpch.{name}")
        ready(path)
    session("tpch", path, data, f"{DATA}/tpch/queries")


def taxi():
    path, new = project("taxi")
    data = {"trips": f"{DATA}/yellow_10x.parquet", "zones": f"{DATA}/zones.parquet"}
    if new:
        for name, file in data.items():
            flumen(path, "ingest", file, "--to", f"lake.raw.{name}")
        ready(path)
    session("taxi-sql", path, data, f"{HERE}/queries/taxi")


def whole(case, title, tools, runs):
    """Whole processes, with their start."""
    timed = {tool: [] for tool, _ in tools}
    for run in range(runs):
        for tool, command in tools:
            r = record(case, tool, run, measure(command, log=f"{WORK}/log.txt"))
            timed[tool].append({"s": r["wall_s"], "cpu": r["cpu_s"], "mb": r["rss_mb"]})
    table(f"{title}, medians of {runs} runs in turn", tools[0][0], timed, ".3f")


def startup():
    path, new = project("startup")
    ready(path)
    whole("startup", "startup: select 1, as a whole process", [
        ("flumen", [a.flumen, "--quiet", "--project", path, "sql", "select 1"]),
        ("duckdb (its command line)", [f"{VENVS}/cli/bin/duckdb", "-c", "select 1"]),
    ], 4 * a.runs)


def many_tables():
    path, new = project("many-tables")
    if new:
        flumen(path, "ingest", f"{DATA}/zones.parquet", "--to", "lake.raw.t0")
        for i in range(1, 500):
            shutil.copytree(f"{path}/lake/raw/t0", f"{path}/lake/raw/t{i}")
        ready(path)
    sql = lambda text: [a.flumen, "--quiet", "--project", path, "sql", "--format", "csv", text]
    whole("many-tables", "many-tables: a lake of 500 tables, whole processes", [
        ("list of tables and a query", sql("show tables; select count(*), max(\"Zone\") from raw.t250")),
        ("list of tables", sql("show tables")),
        ("query, its table named in full", sql("select count(*), max(\"Zone\") from raw.t250")),
        ("query, its table named without its namespace", sql("select count(*), max(\"Zone\") from t250")),
    ], a.runs)


def many_commits():
    path, new = project("many-commits")
    if new:
        subprocess.run([PYTHON, f"{HERE}/many_commits.py", f"{path}/lake/raw/rows", "9990"], check=True)
        row = f"{WORK}/row.csv"
        for i in range(9991, 10001):
            with open(row, "w") as out:
                out.write(f"id,name,at\n{i},row {i},2023-11-14 22:13:21.{i:06}\n")
            flumen(path, "ingest", row, "--to", "lake.raw.rows", stdout=subprocess.DEVNULL)
        ready(path)
    sql = lambda text: [a.flumen, "--quiet", "--project", path, "sql", "--format", "csv", text]
    got = subprocess.run(sql("select count(*) as n from raw.rows"), capture_output=True, text=True).stdout.split()
    if got[-1:] != ["10000"]:
        sys.exit(f"many-commits: {got} rows in place of 10,000")
    whole("many-commits", "many-commits: 10,000 appends of one row, whole processes", [
        ("count(*)", sql("select count(*) from raw.rows")),
        ("one row by its key", sql("select name from raw.rows where id = 5000")),
    ], a.runs)


os.makedirs(WORK, exist_ok=True)
for name, suite in zip(SUITES, (tpch, taxi, startup, many_tables, many_commits)):
    if name in wanted:
        suite()
sys.exit(failed)
