# Sourced by the scripts that use containers: says how to reach Docker, or why that cannot be.

if ! docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
  echo "no Docker engine answers here (docker version says why); the clusters of docker-compose.yml need one" >&2
  exit 1
fi

# Compose is a part of docker, or a program of its own.
if docker compose version >/dev/null 2>&1; then
  compose() { docker compose "$@"; }
elif command -v docker-compose >/dev/null; then
  compose() { docker-compose "$@"; }
else
  echo "neither 'docker compose' nor 'docker-compose' is installed" >&2
  exit 1
fi
