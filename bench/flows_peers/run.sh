#!/usr/bin/env bash
# Flumen's orchestrator beside Airflow and Prefect, by turns, with nothing beside them: a quarter of an hour, and 600 MB of packages.
#   bench/flows_peers/run.sh PATH/TO/flumen [DIR]
# Prints one JSON line a measurement. The Postgres server is one of its own, with default settings.
set -euo pipefail
FLUMEN=$(realpath "$1")
cd "$(dirname "$0")"
DIR=$(mkdir -p "${2:-$HOME/.cache/flumen/bench/flows}" && cd "${2:-$HOME/.cache/flumen/bench/flows}" && pwd)
export BENCH_HOME=$DIR

venv() {
  local name=$1; shift
  [ -e "$DIR/$name/.ready" ] && return
  echo "bench: installing $*" >&2
  python3 -m venv "$DIR/$name"
  "$DIR/$name/bin/pip" install -q --disable-pip-version-check "$@"
  # Or the first start that is timed pays for it.
  "$DIR/$name/bin/python" -m compileall -q "$DIR/$name/lib" > /dev/null 2>&1 || true
  touch "$DIR/$name/.ready"
}
# Prefect does not start with the newest FastAPI.
venv prefect prefect 'fastapi>=0.139,<0.145'
venv airflow apache-airflow psycopg2-binary asyncpg apache-airflow-providers-postgres

PG=$(mktemp -d /var/tmp/flumen-bench-XXXXXX)
trap './pg.sh stop "$PG" > /dev/null; rm -rf "$PG"' EXIT
./pg.sh start "$PG" 55432 > /dev/null
for database in airflow flumen; do
  "$DIR/airflow/bin/python" - "$database" <<'PY'
import sys
import psycopg2

connection = psycopg2.connect("postgresql://bench@127.0.0.1:55432/postgres")
connection.autocommit = True
connection.cursor().execute(f"create database {sys.argv[1]}")
PY
done

flumen() {
  python3 ../flows.py "$FLUMEN"
  python3 ../flows.py "$FLUMEN" --pg postgresql://bench@127.0.0.1:55432/flumen
}

flumen
rm -rf "$DIR/prefect_work"
"$DIR/prefect/bin/python" prefect_bench.py "$DIR/prefect_work" 1
flumen
. ./airflow.env
export PATH=$BENCH_HOME/airflow/bin:$PATH
airflow db migrate > /dev/null 2>&1
"$DIR/airflow/bin/python" airflow_bench.py run chain_python_50 fan_python_1000
flumen
