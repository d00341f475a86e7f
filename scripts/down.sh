#!/usr/bin/env bash
# make down: removes the clusters of docker-compose.yml and what they kept.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/engine.sh
compose down --volumes --remove-orphans
