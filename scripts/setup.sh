#!/usr/bin/env bash
# Installs what is missing on a Debian machine that has a Rust toolchain, and says so. Can be run any number of times.
#   setup.sh build    a C compiler, for the libraries that are built from C
#   setup.sh test     the same, and what the tests start and connect with: Debian's postgresql, docker.io and busybox-static; azurite
#                     (from npm) and moto (from PyPI), the emulators of Azure and S3; Java with its Postgres driver, chromium, and Python packages:
#                     the SQL clients of tests/clients/requirements.txt, pgAdmin with what drives a browser
#                     (pgadmin-requirements.txt), the readers of Delta tables of tests/interop/requirements.txt.
#                     What is not Debian's goes to ~/.cache/flumen (FLUMEN_TEST_TOOLS, FLUMEN_CLIENTS, FLUMEN_PGADMIN override it)
set -euo pipefail
azurite=3.35.0
moto=5.2.5
# Checkouts share one folder for build artefacts, and cargo tells fresh from stale by time stamps: when another checkout was
# built last, this one's sources have to look newer than what that left.
target=${CARGO_TARGET_DIR:-target}
here=$(cd "$(dirname "$0")/.." && pwd)
if [ "$(cat "$target/checkout" 2> /dev/null)" != "$here" ]; then
  mkdir -p "$target"
  find "$here/crates" -name '*.rs' -exec touch {} +
  echo "$here" > "$target/checkout"
fi
command -v cargo > /dev/null || {
  echo "setup: there is no cargo; install Rust first (rustup)" >&2
  exit 1
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Installs the Debian packages that are named.
install_packages() {
  [ $# -gt 0 ] || return 0
  echo "setup: installing $* (Debian packages)"
  if [ "$(id -u)" != 0 ] && ! command -v sudo > /dev/null; then
    echo "setup: not root, and there is no sudo; ask someone who is root for: apt-get install $*" >&2
    exit 1
  fi
  # Debian's postgresql starts a cluster of its own on install; nothing here wants it.
  if [[ " $* " == *" postgresql "* ]]; then
    as_root mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf > /dev/null
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

# Runs `make` with an empty folder, which becomes the tool $1 of version $2 when that ends well: what was interrupted is done
# again.
install_tool() {
  local tool=$1 version=$2 make=$3 folder=$tools/$1 half=$tools/.$1.$$
  [ "$(cat "$folder/version" 2> /dev/null)" = "$version" ] && return 0
  echo "setup: installing $tool $version into $folder"
  rm -rf "$half"
  mkdir -p "$half"
  "$make" "$half" "$version"
  echo "$version" > "$half/version"
  rm -rf "$folder"
  mv "$half" "$folder"
}

make_azurite() { npm install --silent --no-audit --no-fund --omit=dev --prefix "$1" "azurite@$2"; }

make_moto() {
  # Packages lie in a folder without an environment round them, which could not be moved.
  python3 -m venv "$1/venv"
  "$1/venv/bin/pip" install --quiet --disable-pip-version-check --target "$1/packages" "moto[s3]==$2" flask flask-cors
  rm -rf "$1/venv"
}

# Makes the folder $2 a Python environment with the packages of the list $3, unless it has been made from that very list. $1 says
# what they are.
install_python() {
  local what=$1 folder=$2 list=$3
  cmp -s "$list" "$folder/requirements.txt" && return 0
  echo "setup: installing $what into $folder"
  python3 -m venv --clear "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$list"
  cp "$list" "$folder/requirements.txt"
}

# The version of these is that of the list that names them all.
make_interop() {
  python3 -m venv "$1/venv"
  "$1/venv/bin/pip" install --quiet --disable-pip-version-check --target "$1/packages" -r "$here/tests/interop/requirements.txt"
  rm -rf "$1/venv"
}

want=()
command -v cc > /dev/null || want+=(build-essential)
if [ "${1:-build}" = test ]; then
  compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || want+=(postgresql)
  command -v node > /dev/null || want+=(nodejs)
  command -v npm > /dev/null || want+=(npm)
  command -v java > /dev/null || want+=(default-jre-headless)
  [ -e /usr/share/java/postgresql.jar ] || want+=(libpostgresql-jdbc-java)
  command -v chromium > /dev/null || want+=(chromium)
  command -v chromedriver > /dev/null || want+=(chromium-driver)
  command -v dockerd > /dev/null || want+=(docker.io)
  [ -e /bin/busybox ] || want+=(busybox-static)
  command -v ip > /dev/null || want+=(iproute2)
  command -v python3 > /dev/null || want+=(python3)
  python3 -c 'import venv, ensurepip' 2> /dev/null || want+=(python3-venv)
fi
install_packages "${want[@]}"
[ "${1:-build}" = test ] || exit 0

tools=${FLUMEN_TEST_TOOLS:-$HOME/.cache/flumen/tools}
install_tool azurite "$azurite" make_azurite
install_tool moto "$moto" make_moto
install_python "the Python clients" "${FLUMEN_CLIENTS:-$HOME/.cache/flumen/clients}" "$here/tests/clients/requirements.txt"
# pgAdmin wants other versions of some packages than the clients do.
install_python "pgAdmin" "${FLUMEN_PGADMIN:-$HOME/.cache/flumen/pgadmin}" "$here/tests/clients/pgadmin-requirements.txt"
install_tool interop "$(cksum < "$here/tests/interop/requirements.txt")" make_interop
