#!/usr/bin/env bash
# scripts/share.sh COUNT: prints INDEX/COUNT, the share of a long list of tests that this commit runs (SHARE of make mutants,
# faults, fuzz and integration). INDEX comes from the commit's hash, so that a run can be repeated and many commits cover the list.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:?usage: share.sh COUNT}
hash=$(git rev-parse --short=7 HEAD 2>/dev/null || echo 0)
echo "$((16#${hash:0:7} % count))/$count"
