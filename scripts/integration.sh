#!/usr/bin/env bash
# make integration: the tests against the clusters that make up started. SHARE=INDEX/COUNT selects some of the faults, and at most
# one service's run of the contract's suite.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/engine.sh
ZKQ_TEST_SHARE=${SHARE:-} CGO_ENABLED=0 go test -tags cluster -count=1 -timeout 30m -v ./integration/cluster/...
