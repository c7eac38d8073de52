#!/bin/sh
# 50 publishers with persistent messages, each waiting for its confirm: ActiveMQ on its JDBC store,
# then PolyMQ, on the same PostgreSQL that this script starts and ends.
#
# Needs Debian's activemq, libpostgresql-jdbc-java, postgresql and a JDK, and the release builds of
# polymq-server and polymq-bench. Usage: compare.sh [SECONDS]
set -eu
seconds=${1:-10}
here=$(cd "$(dirname "$0")" && pwd)
release=${POLYMQ_RELEASE:-$here/../../../target/release}
postgres=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
dir=$(mktemp -d)
chmod 755 "$dir"
pids=""

tidy() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for pid in $pids; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap tidy EXIT

# PostgreSQL does not run as root.
as_user=""
if [ "$(id -u)" = 0 ]; then as_user="setpriv --reuid=postgres --regid=postgres --clear-groups"; fi
mkdir "$dir/pg"
[ -z "$as_user" ] || chown postgres "$dir/pg"
cd "$dir/pg"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
$as_user "$postgres/initdb" -A trust -U speed -D "$dir/pg/data" >"$dir/initdb.log"
$as_user "$postgres/postgres" -D "$dir/pg/data" -k "$dir/pg" -p "$port" -h 127.0.0.1 \
    >"$dir/postgres.log" 2>&1 &
pids="$!"
until "$postgres/pg_isready" -q -h 127.0.0.1 -p "$port"; do sleep 0.1; done
for name in activemq polymq; do "$postgres/createdb" -h 127.0.0.1 -p "$port" -U speed "$name"; done
cd "$dir"

classpath="/usr/share/activemq/lib/*:/usr/share/java/postgresql.jar"
java="java -cp $classpath $here/ActiveMqJdbc.java"
$java broker "jdbc:postgresql://127.0.0.1:$port/activemq?user=speed" "$dir/activemq" \
    >"$dir/activemq.out" 2>"$dir/activemq.log" &
pids="$! $pids"
broker=$!
until grep -q '^tcp://' "$dir/activemq.out"; do
    kill -0 "$broker" || { head -20 "$dir/activemq.log"; exit 1; }
    sleep 0.1
done
printf 'ActiveMQ, JDBC store: '
$java load "$(grep '^tcp://' "$dir/activemq.out")" "$seconds" 2>"$dir/load.log" ||
    { tail -20 "$dir/load.log" "$dir/activemq.log"; exit 1; }
kill "$broker"
wait "$broker" || true

"$release/polymq" server --dev --port 0 --print-ports --data-dir "$dir/polymq" \
    --set storage.backend=postgres \
    --set "storage.postgres.url=postgres://speed@127.0.0.1:$port/polymq" \
    >"$dir/polymq.out" 2>"$dir/polymq.log" &
pids="$! $pids"
server=$!
until [ -s "$dir/polymq.out" ]; do
    kill -0 "$server" || { tail -20 "$dir/polymq.log"; exit 1; }
    sleep 0.1
done
amqp=$(sed 's/.*"amqp":\([0-9]*\).*/\1/' "$dir/polymq.out")
printf 'PolyMQ, PostgreSQL store, with a consumer: '
"$release/polymq-bench" run amqp-waiting50 --addr "127.0.0.1:$amqp" --pid "$server" \
    --secs "$seconds"
