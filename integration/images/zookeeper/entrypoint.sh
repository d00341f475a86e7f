#!/bin/bash
# Runs ZooKeeper by the environment of the official image, as far as docker-compose.yml uses it.
set -euo pipefail

config=/conf/zoo.cfg
if [ ! -e "$config" ]; then
  {
    printf '%s\n' "dataDir=/data" "dataLogDir=/datalog" \
      "tickTime=${ZOO_TICK_TIME:-2000}" "initLimit=${ZOO_INIT_LIMIT:-5}" "syncLimit=${ZOO_SYNC_LIMIT:-2}" \
      "maxClientCnxns=${ZOO_MAX_CLIENT_CNXNS:-60}" "admin.enableServer=${ZOO_ADMINSERVER_ENABLED:-true}" \
      "autopurge.purgeInterval=${ZOO_AUTOPURGE_PURGEINTERVAL:-0}" "4lw.commands.whitelist=${ZOO_4LW_COMMANDS_WHITELIST:-srvr}"
    for server in ${ZOO_SERVERS:-server.1=localhost:2888:3888;2181}; do echo "$server"; done
  } >"$config"
fi
if [ ! -e /data/myid ]; then echo "${ZOO_MY_ID:-1}" >/data/myid; fi

java=/usr/share/java
exec /opt/java/bin/java "-Xmx${ZK_SERVER_HEAP:-1000}m" -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.showDateTime=true \
  -cp "$java/zookeeper.jar:$java/zookeeper-jute.jar:$java/slf4j-simple.jar" \
  org.apache.zookeeper.server.quorum.QuorumPeerMain "$config"
