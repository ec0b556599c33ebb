#!/usr/bin/env bash
# Gets ready what the benchmarks need, under $1: the peers in virtual environments (pinned), the data (from a fixed seed), and a
# Postgres server with default settings on a port of its own. Prints nothing but what it installs.
#   bench/setup.sh DIR && source DIR/env.sh
set -euo pipefail
W=$(mkdir -p "$1" && cd "$1" && pwd)
H=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$W/venvs" "$W/data" "$W/work"
venv() {
  local name=$1; shift
  [ -e "$W/venvs/$name/.ready" ] && return
  echo "bench: installing $*"
  python3 -m venv "$W/venvs/$name"
  "$W/venvs/$name/bin/pip" install -q --disable-pip-version-check "$@"
  touch "$W/venvs/$name/.ready"
}
venv main pyarrow==26.0.1 numpy==2.4.6 duckdb==2.0.0 polars==2.1.0 datafusion==55.0.0 deltalake==1.6.6 pandas==3.1.1 \
  psycopg2-binary==2.9.13 sqlalchemy==2.1.9
venv tpch tpchgen-cli==4.0.0
venv cli duckdb-cli==1.5.6
venv clients -r "$H/../tests/clients/requirements.txt"
# The newest DuckDB for which the registry has the Postgres extension.
venv duck duckdb==1.5.5 duckdb-extension-postgres-scanner==1.5.5 duckdb-extension-tpch==1.5.5

P=$W/venvs/main/bin/python
[ -e "$W/data/yellow_tripdata_2021-01.csv.gz" ] || "$P" "$H/gen_taxi.py" "$W/data" --csv --gz
[ -e "$W/data/yellow_10x.csv" ] || "$P" "$H/gen_taxi.py" "$W/data" --rows 13697650 --months 12 --stem yellow_10x --csv
[ -e "$W/data/zones.parquet" ] || "$P" "$H/gen_taxi.py" "$W/data" --rows 1000 --stem tiny --zones
if [ ! -d "$W/data/tpch/queries" ]; then
  "$W/venvs/tpch/bin/tpchgen-cli" parquet -s 1 --output-dir="$W/data/tpch" > /dev/null
  mkdir -p "$W/data/tpch/queries"
  "$W/venvs/duck/bin/python" - "$W/data/tpch/queries" <<'PY'
import duckdb, glob, site, sys
c = duckdb.connect()
c.execute("load '%s'" % glob.glob(site.getsitepackages()[0] + "/duckdb_extension_tpch/**/*.duckdb_extension", recursive=True)[0])
for number, query in c.execute("from tpch_queries()").fetchall():
    open(f"{sys.argv[1]}/q{number:02d}.sql", "w").write(query)
PY
fi

B=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
as() { if [ "$(id -u)" = 0 ]; then su postgres -s /bin/bash -c "$*"; else bash -c "$*"; fi; }
PG=${BENCH_PG:-/var/tmp/flumen-bench-pg}
mkdir -p "$PG"
[ "$(id -u)" = 0 ] && chown postgres "$PG"
[ -e "$PG/data" ] || as "$B/initdb -D $PG/data -U bench -A trust --locale=C.UTF-8 -E UTF8" > /dev/null
as "$B/pg_ctl -D $PG/data status" > /dev/null || as "$B/pg_ctl -D $PG/data -o '-p 5599 -h 127.0.0.1 -k $PG' -l $PG/log -w start" > /dev/null
psql -h 127.0.0.1 -p 5599 -U bench postgres -qc 'create database bench' 2> /dev/null || true
cat > "$W/env.sh" <<E
export PGURL=postgresql://bench:bench@127.0.0.1:5599/bench VENVS=$W/venvs BENCH=$W BENCH_PG=$PG
E
