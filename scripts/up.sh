#!/usr/bin/env bash
# make up: starts the clusters of docker-compose.yml and waits until every member is healthy.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/engine.sh

limit=120 # seconds
compose up -d --remove-orphans

states() { # SERVICE STATE of each container
  # shellcheck disable=SC2046 # one word each
  docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}} {{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' \
    $(compose ps -q)
}
SECONDS=0
while states | grep -qv ' healthy$'; do
  if [ "$SECONDS" -ge "$limit" ]; then
    echo "up: not healthy after $limit s:" >&2
    states | grep -v ' healthy$' >&2
    compose logs --tail=20 >&2
    exit 1
  fi
  sleep 0.5
done
echo "up: $(states | wc -l) members are healthy"
