#!/usr/bin/env bash
# All comparisons of docs/benchmarks.md, from nothing: builds, installs the peers, makes the data, measures.
set -euo pipefail
cd "$(dirname "$0")/.."
make build
DIR=${BENCH_DIR:-$HOME/.cache/flumen/bench}
bench/setup.sh "$DIR"
source "$DIR/env.sh"
export FLUMEN=${CARGO_TARGET_DIR:-$HOME/.cache/flumen/target}/release/flumen
# Each script takes the cases that are its own.
python3 bench/compare.py "$@"
python3 bench/sql.py "$@"
python3 bench/doors.py "$@"
# Flows, where no other case is asked for: beside Airflow and Prefect, then many flows over a long history, then a long backfill.
if [ $# = 0 ]; then
  bench/flows_peers/run.sh "$FLUMEN" "$DIR/flows"
  python3 bench/flows_many.py "$FLUMEN"
  python3 bench/flows_memory.py "$FLUMEN"
fi
