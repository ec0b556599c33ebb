#!/usr/bin/env bash
# Installs what is missing on a Debian machine that has a Rust toolchain, and says so. Can be run any number of times.
#   setup.sh build    a C compiler, for the libraries that are built from C
#   setup.sh test     the same, Debian's postgresql (its server is started by the tests themselves), and the SQL clients that
#                     the tests connect with: Java and its Postgres driver, and Python packages in a folder of their own
set -euo pipefail
# Checkouts share one folder for build artefacts, and cargo tells fresh from stale by time stamps: when another checkout was
# built last, this one's sources have to look newer than what that left.
target=${CARGO_TARGET_DIR:-target}
here=$(cd "$(dirname "$0")/.." && pwd)
if [ "$(cat "$target/checkout" 2> /dev/null)" != "$here" ]; then
  mkdir -p "$target"
  find "$here/crates" -name '*.rs' -exec touch {} +
  echo "$here" > "$target/checkout"
fi
want=()
command -v cc > /dev/null || want+=(build-essential)
if [ "${1:-build}" = test ]; then
  compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || want+=(postgresql)
  command -v java > /dev/null || want+=(default-jre-headless)
  [ -e /usr/share/java/postgresql.jar ] || want+=(libpostgresql-jdbc-java)
  command -v python3 > /dev/null || want+=(python3)
  python3 -c 'import ensurepip' 2> /dev/null || want+=(python3-venv)
fi
command -v cargo > /dev/null || {
  echo "setup: there is no cargo; install Rust first (rustup)" >&2
  exit 1
}
# The Python clients, as requirements.txt has them.
python_clients() {
  [ "${1:-build}" = test ] || return 0
  local folder=${FLUMEN_CLIENTS:-$HOME/.cache/flumen/clients} wanted=$here/tests/clients/requirements.txt
  cmp -s "$wanted" "$folder/requirements.txt" && return 0
  echo "setup: installing the Python clients into $folder"
  python3 -m venv --clear "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
  cp "$wanted" "$folder/requirements.txt"
}
if [ ${#want[@]} -eq 0 ]; then
  python_clients "$@"
  exit 0
fi

echo "setup: installing ${want[*]} (Debian packages)"
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if [ "$(id -u)" != 0 ] && ! command -v sudo > /dev/null; then
  echo "setup: not root, and there is no sudo; ask someone who is root for: apt-get install ${want[*]}" >&2
  exit 1
fi
# Debian's postgresql starts a cluster of its own on install; nothing here wants it.
if [[ " ${want[*]} " == *" postgresql "* ]]; then
  as_root mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf > /dev/null
fi
as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${want[@]}"
python_clients "$@"
