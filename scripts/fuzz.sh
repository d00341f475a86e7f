#!/usr/bin/env bash
# make fuzz: each fuzz target for a while (FUZZTIME, 15s). An input that fails is kept in the package's testdata/fuzz, where
# every later go test runs it. Ends with 0 only if no target failed.
set -uo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0

# package target
targets='
./priority FuzzEntryName
./internal/hostile FuzzForeignBytes
./internal/simulation FuzzSchedule
./cmd/zkq FuzzDSN
./cmd/zkq FuzzLines
./cmd/zkq FuzzCLIArgs
./codec FuzzUnmarshal
./internal/layout FuzzCodec
./internal/layout FuzzQueuePath
./internal/layout FuzzNodeNames
./internal/names FuzzSet
'

# So that no target is left out.
listed=$(awk 'NF { print $2 }' <<<"$targets" | sort)
there=$(grep -rhoE --include="*_test.go" "^func Fuzz[A-Za-z0-9]*" . | sed "s/^func //" | sort)
if [ "$listed" != "$there" ]; then
  printf 'the targets listed here and those in the tree differ:\n%s\n' "$(diff <(echo "$listed") <(echo "$there"))"
  exit 1
fi

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
cache=$(go env GOCACHE)/fuzz/github.com/zkq/zkq

# What is built for fuzzing leads it by the code that an input reaches. That is zkq's own, and what parses for it: the etcd that is
# linked into the command would have to be built once more, and what its goroutines reach has nothing to do with the input.
build() { # package binary
  local lead=(-gcflags='github.com/zkq/zkq/...=-d=libfuzzer')
  case $1 in
    . | ./internal/layout) lead+=(-gcflags='encoding/json=-d=libfuzzer') ;;
    ./codec) lead+=(-gcflags='github.com/fxamacker/cbor/...=-d=libfuzzer' -gcflags='github.com/hashicorp/go-msgpack/...=-d=libfuzzer') ;;
  esac
  go test -c "${lead[@]}" -o "$2" "$1"
}

crashed=0 ran=0
while read -r package target; do
  [ -n "$target" ] || continue
  echo "== $target"
  test=$bin/${package//[.\/]/-}.test
  [ -e "$test" ] || build "$package" "$test" || exit
  (cd "$package" && "$test" -test.run='^$' -test.fuzz="^$target\$" -test.fuzztime="${FUZZTIME:-15s}" -test.parallel=2 \
    -test.fuzzcachedir="$cache/${package#./}") 2>&1 | tee "$bin/said"
  # Without the code that leads it fuzzing is guessing.
  [ "${PIPESTATUS[0]}" = 0 ] && ! grep -q 'not built with coverage' "$bin/said" || crashed=$((crashed + 1))
  ran=$((ran + 1))
done <<<"$targets"
echo "$ran fuzz targets, $crashed failed"
[ "$crashed" = 0 ]
