#!/bin/bash
# The cloud's side: mosquitto with mutual TLS, and mosquitto_sub as the witness.
#   prepare        certificates, and a broker and a witness that run
#   broker-start, broker-stop
#   heard REGEX    waits for up to 30 s until the witness has got a message, `TOPIC PAYLOAD`, that is so
#   end            stops them
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
tls=$RUN/tls
root=$(cd "$(dirname "$0")/../../.." && pwd)

start() { # NAME COMMAND..: in the background, what it prints in NAME.log
    local name=$1
    shift
    "$@" >>"$RUN/$name.log" 2>&1 &
    echo $! >"$RUN/$name.pid"
}

stop() {
    [ -f "$RUN/$1.pid" ] || return 0
    local pid
    pid=$(cat "$RUN/$1.pid")
    rm "$RUN/$1.pid"
    kill "$pid" 2>/dev/null || return 0
    # It may be the child of an earlier call, so it cannot be waited for in another way.
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}

until_printed() { # NAME REGEX
    local tries=300
    until grep -qE -- "$2" "$RUN/$1.log" 2>/dev/null; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || {
            echo "host: $1 has not printed /$2/, but:" >&2
            cat "$RUN/$1.log" >&2
            return 1
        }
        sleep 0.1
    done
}

# Over a restart it keeps what the witness has not got yet.
broker_start() {
    : >"$RUN/broker.log"
    start broker mosquitto -v -c "$RUN/mosquitto.conf"
    until_printed broker 'mosquitto version .* running'
}

case $1 in
prepare)
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "${CARGO_TARGET_DIR:-$root/target}/debug/tidegate" certs new "$tls" --device press-7 --device witness --server 10.0.2.2 --server 127.0.0.1 >/dev/null
    mkdir tls
    cp "$tls"/{ca.pem,press-7.pem,press-7.key} tls/
    sed -i "s/PORT/$port/" tidegate.toml
    cat >"$RUN/mosquitto.conf" <<END
user root
listener $port 127.0.0.1
allow_anonymous false
cafile $tls/ca.pem
certfile $tls/server.pem
keyfile $tls/server.key
require_certificate true
use_identity_as_username true
persistence true
persistence_location $RUN/
END
    broker_start
    start witness stdbuf -oL mosquitto_sub -h 127.0.0.1 -p "$port" --cafile "$tls/ca.pem" \
        --cert "$tls/witness.pem" --key "$tls/witness.key" -i witness -d -q 1 -c -t '#' -F '%t %p'
    until_printed witness 'Subscribed'
    ;;
broker-start) broker_start ;;
broker-stop) stop broker ;;
heard) until_printed witness "$2" ;;
end)
    stop witness
    stop broker
    ;;
*)
    echo "host: there is no $1" >&2
    exit 2
    ;;
esac
