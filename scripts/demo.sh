#!/usr/bin/env bash
# make demo: a queue without a server, real work, and a crash half way.
#
# The path of every .go file of the Go toolchain's source tree is put into a queue. Four processes take them and print
# the file's SHA-256. One of the four also runs the store for all of them; that one is killed with -9 when half of the
# work is done. At the end the sums are compared with those of a plain sha256sum.
set -euo pipefail
cd "$(dirname "$0")/.."

workers=4
limit=180 # seconds; a run that takes longer is a failure
zkq=$PWD/bin/zkq

fail() {
  printf '\ndemo: %s\n' "$*" >&2
  for f in "$dir"/err.*; do
    if [ -s "$f" ]; then printf 'worker %s said:\n%s\n' "${f##*.}" "$(tail -n 5 "$f")" >&2; fi
  done
  exit 1
}

# Settings of the person who runs this are not part of it.
unset "${!ZKQ_@}"
dir=$(mktemp -d)
export ZKQ_COORDINATOR=local:$dir/store ZKQ_PROGRESS=never

pids=()
cleanup() {
  for pid in $(jobs -pr); do kill -KILL "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What a worker runs for each entry: the path comes on stdin. An entry that was handed out before leaves a mark.
export REDELIVERED=$dir/redelivered
: >"$REDELIVERED"
# shellcheck disable=SC2016 # the worker's shell expands these
hash='IFS= read -r path
[ "$ZKQ_DELIVERIES" = 1 ] || echo "$ZKQ_NAME" >>"$REDELIVERED"
exec sha256sum -- "$path"'

running() { [ -n "$(jobs -pr)" ]; }
works() { # PID: it runs a command right now, as far as the kernel tells
  local task children
  for task in "/proc/$1/task"/*; do
    children=
    read -r children 2>/dev/null <"$task/children" || true
    if [ -n "$children" ]; then return 0; fi
  done
  return 1
}
done_lines() { cat "$dir"/out.* | wc -l; }

progress() { # DONE TOTAL: a bar that redraws itself on a terminal, now and then a line elsewhere
  local n=$(($1 < $2 ? $1 : $2)) # a redelivered entry may have two lines
  if [ -t 2 ]; then
    local full=$((40 * n / $2))
    printf '\r  [%s%s] %d/%d ' "$(printf '%*s' "$full" '' | tr ' ' '#')" "$(printf '%*s' $((40 - full)) '')" "$n" "$2" >&2
  elif [ "$SECONDS" -ge "$next_line" ]; then
    next_line=$((SECONDS + 5))
    printf '  %d/%d\n' "$n" "$2" >&2
  fi
}
next_line=0
end_progress() { if [ -t 2 ]; then echo >&2; fi; }

goroot=$(go env GOROOT)
find "$goroot/" -name '*.go' -type f | LC_ALL=C sort >"$dir/files"
total=$(wc -l <"$dir/files")
[ "$total" -gt 0 ] || fail "no .go files below $goroot"

SECONDS=0
echo "put: $total paths of .go files below $goroot"
ZKQ_PROGRESS=auto "$zkq" put -l files <"$dir/files" >"$dir/names"
[ "$(wc -l <"$dir/names")" -eq "$total" ] || fail "put printed $(wc -l <"$dir/names") names for $total lines"

echo "consume: $workers processes, sha256sum for each path"
for n in $(seq "$workers"); do
  "$zkq" consume --drain -j 4 files -- sh -c "$hash" >"$dir/out.$n" 2>"$dir/err.$n" &
  pids+=($!)
done

# Half way: the process that runs the store says so in the store's lock file.
while n=$(done_lines) && [ "$n" -lt $((total / 2)) ]; do
  progress "$n" "$total"
  [ "$SECONDS" -lt "$limit" ] || fail "only $n of $total after $SECONDS s"
  running || fail "the workers ended after $n of $total"
  sleep 0.1
done
read -r owner <"$dir/store/lock"
killed='' status=0
for n in $(seq "$workers"); do
  if [ "${pids[n - 1]}" = "$owner" ]; then killed=$n; fi
done
[ -n "$killed" ] || fail "the store's lock file names process $owner, which is none of the workers ${pids[*]}"
for _ in $(seq 100); do # so that it takes something into its grave
  if works "$owner"; then break; fi
  sleep 0.01
done
{ kill -KILL "$owner" && wait "$owner"; } 2>/dev/null || status=$? # without the shell's own note
[ "$status" -eq 137 ] || fail "worker $killed ended with status $status before it could be killed"
end_progress
echo "kill -9: process $owner (worker $killed), which runs the store for all $workers"

while n=$(done_lines) && running; do
  progress "$n" "$total"
  [ "$SECONDS" -lt "$limit" ] || fail "only $n of $total after $SECONDS s"
  sleep 0.1
done
progress "$n" "$total"
end_progress
seconds=$SECONDS

for n in $(seq "$workers"); do
  [ "$n" != "$killed" ] || continue
  wait "${pids[n - 1]}" || fail "worker $n ended with status $?"
done
read -r heir <"$dir/store/lock"
[ "$heir" != "$owner" ] || fail "nobody became the store after process $owner"
left=$("$zkq" -o json stat files | sed -n 's/.*"total":\([0-9]*\).*/\1/p')

# The killed worker may have been writing: a last line without its newline does not count. A line that stands twice was
# written by a worker that died before it removed the entry.
whole_lines() { if [ -n "$(tail -c 1 "$1")" ]; then sed '$d' "$1"; else cat "$1"; fi; }
for n in $(seq "$workers"); do whole_lines "$dir/out.$n"; done | LC_ALL=C sort -u >"$dir/sums"
tr '\n' '\0' <"$dir/files" | xargs -0 sha256sum -- | LC_ALL=C sort >"$dir/plain"
missing=$(LC_ALL=C comm -13 "$dir/sums" "$dir/plain" | wc -l)
different=$(LC_ALL=C comm -23 "$dir/sums" "$dir/plain" | wc -l)

cat <<EOF

  entries       $total put, $(wc -l <"$dir/sums") sums, $missing missing, $different different, $left left in the queue
  redeliveries  $(wc -l <"$REDELIVERED")
  time          $seconds s

EOF
if [ "$missing" -ne 0 ] || [ "$different" -ne 0 ] || [ "$left" != 0 ]; then
  fail "the sums are not those of a plain sha256sum, or entries are left"
fi
cat <<EOF
No server was started: the first of the $workers workers that came became the store, the others connected to it.
It was killed with -9 half way; another worker became the store, and whatever the dead one held was handed out again.
Every file was hashed, and every sum is the one that a plain sha256sum gives.
EOF
