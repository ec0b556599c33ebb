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
