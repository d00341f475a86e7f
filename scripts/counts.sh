#!/usr/bin/env bash
# make counts: what an entry costs in requests, listings and lost claims, counted on real servers, against the most that it
# may: a little above what docs/performance.md records. No rate is among them, so it holds on any machine. A minute.
set -uo pipefail
cd "$(dirname "$0")/.."

most='
zk-requests-1 1.1
zk-requests-16x8 0.2
zk-listings 0.05
zk-lost-4x4 0.1
zk-requests-idle 6
zk-requests-bound 1
zk-idle 0.2
etcd-requests-1 1.1
etcd-requests-16x8 0.2
etcd-lost-4x4 0.1
etcd-requests-idle 7
etcd-requests-bound 1
etcd-idle 0.2
'

rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
BENCH=counts scripts/bench.sh -json "$rows" # whether its own targets are reached is make bench's affair
counted=$(sed -n 's/^{"row":"\([^"]*\)".*,"value":\([0-9.e+-]*\),.*/\1 \2/p' <(grep -v '"missing":' "$rows"))
awk '
  NR == FNR { if (NF) most[$1] = $2; next }
  { counted[$1] = 1 }
  $1 in most && $2 > most[$1] { printf "%s: %s, and at most %s may be\n", $1, $2, most[$1]; bad = 1 }
  END {
    for (name in most) { n++; if (!(name in counted)) { print name ": was not counted"; bad = 1 } }
    if (!bad) print n " counts are what they may be"
    exit bad
  }
' <(echo "$most") <(echo "$counted")
