#!/bin/bash
# Everything that must hold before a change lands. On a fresh Debian machine with Rust it installs what is missing.
# Each step is printed with the time it took; the first that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin # where Debian puts mosquitto, for users who are not root

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@" || {
        local code=$?
        echo "== FAILED: $name, after $((SECONDS - start)) s, with $code" >&2
        exit "$code"
    }
    echo "== done: $name, $((SECONDS - start)) s"
}

# The tests start brokers of their own on free ports. Debian's package also starts one as a service on port 1883: where we
# bring the package in, that service does not stay.
install_missing() {
    local missing=() had_mosquitto=yes
    command -v mosquitto >/dev/null || { missing+=(mosquitto) && had_mosquitto=no; }
    command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    [ ${#missing[@]} -gt 0 ] || return 0

    command -v apt-get >/dev/null || {
        echo "missing: ${missing[*]}; this is no Debian, so install them by hand" >&2
        return 1
    }
    local status=0
    as_root apt-get update -qq || status=$?
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" || status=$?
    if [ $had_mosquitto = no ] && command -v mosquitto >/dev/null; then
        stop_packaged_mosquitto
    fi
    return $status
}

stop_packaged_mosquitto() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now --quiet mosquitto
    elif [ -x /etc/init.d/mosquitto ]; then
        as_root /etc/init.d/mosquitto stop >/dev/null
    fi
    ! pgrep -f '^/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf' >/dev/null || {
        echo "the mosquitto service that the package started is still running: stop it by hand" >&2
        return 1
    }
}

documentation() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --document-private-items --quiet
}

step "tools" install_missing
step "format" cargo fmt --check
step "clippy" cargo clippy --all-targets --quiet -- -D warnings
step "tests" cargo test --quiet
step "tests that need mosquitto" cargo test --quiet --test all -- --ignored
step "documentation" documentation
step "demo" cargo run --release --quiet -- demo --seconds 10 --json
echo "== all passed, $SECONDS s"
