#!/usr/bin/env bash
# make deps: installs what the tests use and this machine lacks, from the distribution's packages (Debian and Ubuntu).
# make bench-deps (deps.sh bench): also the servers that make bench compares zkq with.
# Elsewhere, and without the right to install, it says what is missing.
#
# Ends with 0, so that `make deps test` runs what can be run. Under CI=true it ends with 1 when something is missing.
set -uo pipefail
cd "$(dirname "$0")/.."

# Each need: what it is for, how to tell that it is there, the packages that bring it.
have_java() { command -v java >/dev/null && java -version >/dev/null 2>&1; }
have_zookeeper() { # where internal/testzk looks for it
  if [ -n "${ZOOKEEPER_HOME:-}" ]; then
    compgen -G "$ZOOKEEPER_HOME/lib/zookeeper-*.jar" >/dev/null
    return
  fi
  local jar
  for jar in zookeeper zookeeper-jute slf4j-simple; do
    [ -e "/usr/share/java/$jar.jar" ] || return 1
  done
}
have_kazoo() { python3 -c 'import kazoo' 2>/dev/null || /usr/bin/python3 -c 'import kazoo' 2>/dev/null; }
have_compiler() { printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | "${CC:-gcc}" -x c -o /dev/null - 2>/dev/null; }

have_postgresql() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }

for_bench=false
case ${1:-} in
  '') users='the tests use' ;;
  bench) for_bench=true users='the tests and the bench use' ;;
  *) echo "deps: $1: the only argument is bench"; exit 2 ;;
esac

missing=() # one line each, for people
packages=()
look() {
  missing=() packages=()
  have_java || { missing+=("a Java runtime (runs the tests' ZooKeeper)"); packages+=(default-jre-headless); }
  have_zookeeper || { missing+=("ZooKeeper's jars (the tests start it themselves)"); packages+=(libzookeeper-java libslf4j-java); }
  have_kazoo || { missing+=("kazoo for Python 3 (tests that Python and Go share a queue)"); packages+=(python3 python3-kazoo); }
  have_compiler || { missing+=("a C compiler (go test -race, in make check)"); packages+=(gcc libc6-dev); }
  $for_bench || return 0
  command -v redis-server >/dev/null || { missing+=("Redis (asynq's store)"); packages+=(redis-server); }
  command -v beanstalkd >/dev/null || { missing+=("beanstalkd"); packages+=(beanstalkd); }
  have_postgresql || { missing+=("PostgreSQL (River's store)"); packages+=(postgresql); }
  command -v setpriv >/dev/null || { missing+=("setpriv (starts PostgreSQL, which refuses root)"); packages+=(util-linux); }
}
report() {
  printf '%s\n' "$1"
  printf '  - %s\n' "${missing[@]}"
}

incomplete() {
  if [ "${CI:-}" = true ]; then
    echo "deps: CI=true: what is missing is a failure"
    exit 1
  fi
  exit 0
}

look
if [ ${#missing[@]} -eq 0 ]; then
  echo "deps: everything that $users is here"
  exit 0
fi

report "deps: not on this machine:"
if ! command -v apt-get >/dev/null; then
  echo "deps: this is not Debian or Ubuntu; install these yourself (there they are: ${packages[*]}), or run the tests without them"
  incomplete
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null || ! { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    echo "deps: installing needs root; as root: apt-get install --no-install-recommends ${packages[*]}"
    incomplete
  fi
  as_root=(sudo)
fi

apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o=Dpkg::Use-Pty=0 "$@"; }
echo "deps: apt-get install ${packages[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { apt install -y --no-install-recommends "${packages[@]}"; }
# The lists may be missing (a fresh container) or name versions that are gone: try once with those at hand.
install >"$log" 2>&1 || { apt update && install; } >"$log" 2>&1 || cat "$log"

look
if [ ${#missing[@]} -ne 0 ]; then
  report "deps: still missing:"
  incomplete
fi
echo "deps: done"
