#!/usr/bin/env bash
# A Kafka broker on free ports of 127.0.0.1, on the jars of the tests (tests/support/broker.rs).
#
#   .ci/interop/kafka.sh DIR [NAME=VALUE]...
#   .ci/interop/kafka.sh --jars
#
# DIR takes its data and server.log; further arguments are added to its properties. Prints HOST:PORT once it serves, and
# ends it when stdin does: when whoever started this ends, however that is. Needs java, python3, and maven once. With --jars
# it prints the folder with the jars, once they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

START_SECONDS_MAX=180
CLUSTER_ID=dGFjaG9ncmFwaC10ZXN0cw
pom=tests/support/kafka/pom.xml

fail() {
  echo "interop: $*" >&2
  exit 1
}

[[ $# -ge 1 && (-d $1 || $1 == --jars) ]] || fail "usage: kafka.sh DIR [NAME=VALUE]... | --jars"
if [[ $1 != --jars ]]; then dir=$(cd "$1" && pwd); fi
command -v python3 >/dev/null || fail "\`python3\` is missing. On Debian: apt-get install python3"
command -v java >/dev/null || fail "\`java\` is missing: it runs Kafka. On Debian: apt-get install default-jre-headless"

# The same folder as the tests': FNV-1a of the pom.
hash=$(python3 -c '
import sys
value = 0xCBF29CE484222325
for byte in open(sys.argv[1], "rb").read():
    value = (value ^ byte) * 0x100000001B3 % 2**64
print(f"{value:016x}")' "$pom")
jars=${TACHO_KAFKA_JARS:-${XDG_CACHE_HOME:-$HOME/.cache}/tachograph/kafka/$hash}
if [[ ! -d $jars ]]; then
  command -v mvn >/dev/null || fail "\`mvn\` is missing: it fetches Kafka, once. On Debian: apt-get install maven"
  mkdir -p "$(dirname "$jars")"
  part=$(mktemp -d "$(dirname "$jars")/fetching-XXXXXX")
  cp "$pom" "$part/pom.xml"
  mvn -q -B -f "$part/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$part/jars" >&2 || fail "Maven could not fetch Kafka"
  mv -T "$part/jars" "$jars" 2>/dev/null || [[ -d $jars ]] || fail "can't put the jars into $jars"
  rm -rf "$part"
fi

if [[ $1 == --jars ]]; then
  echo "$jars"
  exit
fi
shift

read -r port controller < <(python3 -c '
import socket
free = [socket.socket() for _ in range(2)]
for each in free:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in free))')
cp tests/support/kafka/log4j2.properties "$dir/"
cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=0
controller.quorum.voters=0@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
PROPERTIES
for property in "$@"; do
  echo "$property" >>"$dir/server.properties"
done

run=(java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true "-Dlog4j2.configurationFile=$dir/log4j2.properties" -cp "$jars/*")
"${run[@]}" kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$dir/server.properties" </dev/null >"$dir/format.log" 2>&1 || {
  cat "$dir/format.log" >&2
  fail "Kafka's storage tool failed"
}
"${run[@]}" kafka.Kafka "$dir/server.properties" </dev/null >"$dir/server.log" 2>&1 &
broker=$!
trap 'kill -9 "$broker" 2>/dev/null || true' EXIT
began=$SECONDS
until grep -q "Kafka Server started" "$dir/server.log"; do
  if ! kill -0 "$broker" 2>/dev/null || ((SECONDS - began > START_SECONDS_MAX)); then
    tail -n 40 "$dir/server.log" >&2
    fail "the Kafka broker did not start"
  fi
  sleep 0.1
done
echo "127.0.0.1:$port"
# Until the end of stdin.
while read -r _; do :; done
