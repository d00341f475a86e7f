#!/usr/bin/env bash
# make images: stand-ins for the official images of ZooKeeper and etcd, for machines that cannot pull. ZooKeeper's is made of
# this machine's own packages (make deps), etcd's is built from its Go module. The file .env tells Compose to use them.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/engine.sh

# A tag says what the image was made from: nothing is done for one that exists.
tag() { find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-12; }
have() { docker image inspect "$1" >/dev/null 2>&1; }

zookeeper=zkq-zookeeper:$(tag integration/images/zookeeper)
etcd=zkq-etcd:$(tag integration/images/etcd)

if ! have "$zookeeper"; then
  echo "images: $zookeeper"
  go run ./integration/images/zookeeper | docker import \
    -c 'USER 1000:1000' -c 'VOLUME ["/data", "/datalog", "/logs"]' -c 'EXPOSE 2181 2888 3888' \
    -c 'ENTRYPOINT ["/entrypoint.sh"]' - "$zookeeper" >/dev/null
fi

if ! have "$etcd"; then
  echo "images: $etcd"
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  mkdir -p "$root/usr/local/bin" "$root/var/lib/etcd" "$root/tmp"
  (
    cd integration/images/etcd
    export CGO_ENABLED=0 GOOS=linux
    go build -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/etcd" go.etcd.io/etcd/server/v3
    go build -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/etcdctl" go.etcd.io/etcd/etcdctl/v3
  )
  tar -C "$root" --owner=0 --group=0 -c . | docker import \
    -c 'EXPOSE 2379 2380' -c 'CMD ["/usr/local/bin/etcd"]' - "$etcd" >/dev/null
fi

# Other lines of the file are somebody else's.
touch .env
others=$(grep -v -e '^ZKQ_ZOOKEEPER_IMAGE=' -e '^ZKQ_ETCD_IMAGE=' .env || true)
printf '%s\n' ${others:+"$others"} "ZKQ_ZOOKEEPER_IMAGE=$zookeeper" "ZKQ_ETCD_IMAGE=$etcd" >.env
echo "images: $zookeeper and $etcd are named in .env"
