#!/usr/bin/env bash
# make fuzz: each fuzz target for a while (FUZZTIME, 15s). An input that fails is kept in the package's testdata/fuzz, where
# every later go test runs it. Ends with 0 only if no target failed.
set -uo pipefail
cd "$(dirname "$0")/.."

# package target
targets='
./priority FuzzEntryName
. FuzzCodec
. FuzzQueuePath
. FuzzSchedule
./cmd/zkq FuzzDSN
./cmd/zkq FuzzLines
./cmd/zkq FuzzCLIArgs
'

# So that no target is left out.
listed=$(awk 'NF { print $2 }' <<<"$targets" | sort)
there=$(grep -rhoE --include="*_test.go" "^func Fuzz[A-Za-z0-9]*" . | sed "s/^func //" | sort)
if [ "$listed" != "$there" ]; then
  printf 'the targets listed here and those in the tree differ:\n%s\n' "$(diff <(echo "$listed") <(echo "$there"))"
  exit 1
fi

crashed=0 ran=0
while read -r package target; do
  [ -n "$target" ] || continue
  echo "== $target"
  CGO_ENABLED=0 go test -run='^$' -fuzz="^$target\$" -fuzztime="${FUZZTIME:-15s}" -parallel=2 "$package" || crashed=$((crashed + 1))
  ran=$((ran + 1))
done <<<"$targets"
echo "$ran fuzz targets, $crashed failed"
[ "$crashed" = 0 ]
