#!/usr/bin/env bash
# Flumen's main job, end to end, on generated taxi trips: a flow that loads, checks and sums up a month, backfilled over three
# months from a web server into a lake; then SQL. Works in a folder of its own, which it keeps for a look around (make demo says where).
#   FLUMEN      the binary
#   DEMO_ROWS   yellow trips a month (1_000_000; green has a tenth)
#   DEMO_DIR    the folder; it is emptied first
set -euo pipefail
FLUMEN=${FLUMEN:-flumen}
ROWS=${DEMO_ROWS:-1_000_000}
DIR=${DEMO_DIR:-${TMPDIR:-/tmp}/flumen-demo-$(id -u)}
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[2m$ flumen %s\033[0m\n' "$*"; "$FLUMEN" "$@"; }
[ -n "${NO_COLOR:-}" ] && { say() { printf '\n%s\n' "$*"; }; run() { printf '$ flumen %s\n' "$*"; "$FLUMEN" "$@"; }; }

rm -rf "$DIR" && mkdir -p "$DIR" && cd "$DIR"

say "A project, and a web server with three months of taxi trips (generated; no network needed)"
run init taxi
cd taxi
"$FLUMEN" --quiet sample taxi --months 2019-01..2019-03 --rows-per-month "$ROWS" --serve --ready-file "$DIR/url" > "$DIR/server.log" 2>&1 &
SERVER=$!
trap 'kill $SERVER 2> /dev/null; wait $SERVER 2> /dev/null || true' EXIT
until [ -s "$DIR/url" ]; do
  kill -0 $SERVER 2> /dev/null || { cat "$DIR/server.log" >&2; exit 1; }
  sleep 0.05
done
URL=$(cat "$DIR/url"); export TAXI_URL=${URL%/}

say "The flow of the new project (flows/taxi.yml): zones and a month of trips, a check, a table, a report"
run check
run flow graph taxi
say "One month, here and now"
run run taxi --interval 2019-01
run run logs last/report
say "Three months: the one that is there is left out"
run backfill taxi --from 2019-01 --to 2019-03
run run list

say "Any file in one command; the same again loads nothing twice"
run ingest "$TAXI_URL/green_tripdata_{2019-01..2019-03}.csv.gz" --to lake.raw.green
run ingest "$TAXI_URL/green_tripdata_{2019-01..2019-03}.csv.gz" --to lake.raw.green

say "The busiest zones, as the flow has left them"
run sql "select * from lake.marts.busiest_zones order by trips desc limit 8"

say "Revenue by month"
run sql --format chart "
  select colour || ' ' || month as month, round(sum(revenue)) as revenue from (
    select 'yellow' as colour, to_char(tpep_pickup_datetime, '%Y-%m') as month, total_amount as revenue from lake.raw.yellow_tripdata
    union all
    select 'green', to_char(lpep_pickup_datetime, '%Y-%m'), total_amount from lake.raw.green)
  where month between '2019-01' and '2019-03' group by 1 order by 1"

say "What was loaded"
run load list

say "Yours to look at: $DIR/taxi"
cat <<END
  cd $DIR/taxi
  $FLUMEN sql                                      a prompt: \\dt lists the tables, \\q leaves
  $FLUMEN sql "select * from 'your.csv' limit 5"   any file, in place
  $FLUMEN ingest your.csv --to lake.raw.yours      … or into the lake
  $FLUMEN why last/report                          what happened to a task, and why
  $FLUMEN up --pg 127.0.0.1:5439                   flows on their schedules, and in another window, with any client of Postgres:
  psql -h 127.0.0.1 -p 5439 lake
END
