#!/usr/bin/env bash
# make faults: real faults on clusters of real processes, without containers. The last line is the sum of it all, and the exit
# status 0 only if everything holds. ROUNDS=n lets every fault happen n times, each time to new clusters; SHARE=INDEX/COUNT
# selects some of the faults.
set -uo pipefail
cd "$(dirname "$0")/.."

said=$(mktemp)
trap 'rm -f "$said"' EXIT
ZKQ_TEST_SHARE=${SHARE:-} CGO_ENABLED=0 go test -tags faults -count=1 -timeout "$((${ROUNDS:-1} * 15 + 15))m" -v ./integration/faults | tee "$said"
status=${PIPESTATUS[0]}
grep -E '^[0-9]+ faults, [0-9]+ histories, ' "$said" | tail -n 1 || status=1
exit "$status"
