#!/usr/bin/env bash
# make integration: the tests against the clusters that make up started.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/engine.sh
CGO_ENABLED=0 go test -tags cluster -count=1 -timeout 30m -v ./integration/cluster/...
