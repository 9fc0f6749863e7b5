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

# Called through `step`, where set -e is off: each command that must not fail has its own `|| return`.
install_missing() {
    install_packages || return
    install_components || return
    install_python_packages
}

install_packages() {
    local missing=() had_mosquitto=yes had_nats=yes
    command -v mosquitto >/dev/null || { missing+=(mosquitto) && had_mosquitto=no; }
    command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    command -v mount >/dev/null || missing+=(mount)
    command -v ip >/dev/null || missing+=(iproute2)
    command -v nats-server >/dev/null || { missing+=(nats-server) && had_nats=no; }
    command -v pgrep >/dev/null || missing+=(procps)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0

    command -v apt-get >/dev/null || {
        echo "missing: ${missing[*]}; this is no Debian, so install them by hand" >&2
        return 1
    }
    local status=0
    # A fresh machine is often still installing its own updates: wait for them, in seconds.
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    as_root "${apt[@]}" update || status=$?
    as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" || status=$?
    # Also after a failure: the package may be there.
    if [ $had_mosquitto = no ] && command -v mosquitto >/dev/null; then
        stop_packaged_mosquitto || status=$?
    fi
    # The same for this one, which would take the port that the nodes of the tests listen at.
    if [ $had_nats = no ] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now --quiet nats-server || echo "the nats-server service could not be told to stop" >&2
    fi
    return $status
}

# The tests start brokers of their own on free ports. Debian's package also starts one as a service on port 1883: where we
# bring the package in, that service does not stay.
stop_packaged_mosquitto() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now --quiet mosquitto
    elif [ -x /etc/init.d/mosquitto ]; then
        as_root /etc/init.d/mosquitto stop >/dev/null
    fi || echo "the mosquitto service could not be told to stop" >&2
    # What counts is whether it runs.
    if pgrep -f '^/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf' >/dev/null; then
        echo "the mosquitto service that the package started is still running: stop it by hand" >&2
        return 1
    fi
}

# rustup's minimal profile has neither.
install_components() {
    local missing=()
    cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt)
    cargo clippy --version >/dev/null 2>&1 || missing+=(clippy)
    [ ${#missing[@]} -gt 0 ] || return 0

    command -v rustup >/dev/null || {
        echo "missing: ${missing[*]}; there is no rustup, so install them as you installed Rust" >&2
        return 1
    }
    rustup component add "${missing[@]}"
}

# Where the tests that compare windows with those of pandas, and that run the consumer, look for what these need; made once
# for each set of versions.
install_python_packages() {
    local place=${CARGO_TARGET_DIR:-target}/pandas wanted
    wanted=$(cat tests/replay/requirements.txt deploy/consumer/requirements.txt) || return
    [ "$wanted" = "$(cat "$place/installed.txt" 2>/dev/null)" ] && return
    rm -rf "$place" && python3 -m venv "$place" || return
    "$place/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps \
        -r tests/replay/requirements.txt -r deploy/consumer/requirements.txt || {
        echo "pandas and paho-mqtt cannot be installed, and two tests need them; is there a way to the Python packages?" >&2
        return 1
    }
    echo "$wanted" >"$place/installed.txt"
}

# The real binary on an emulated Raspberry Pi: see tests/pi/README.md. TIDEGATE_PI says what if this machine cannot emulate one:
# nothing said skips the step, loudly; `require` fails; `skip` does not even try.
emulated_pi() {
    local reason=
    if [ "${TIDEGATE_PI:-}" = skip ]; then
        reason="TIDEGATE_PI=skip says so"
    else
        local errors status=0
        errors=$(mktemp) || return
        tests/pi/run.sh 2>"$errors" || status=$?
        cat "$errors" >&2
        [ $status != 69 ] || reason=$(tail -n 1 "$errors")
        rm -f "$errors"
        if [ $status != 69 ] || [ "${TIDEGATE_PI:-}" = require ]; then return $status; fi
    fi
    skipped+=("an emulated Pi")
    echo "== SKIPPED: an emulated Pi: $reason" >&2
}

documentation() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items --quiet
}

skipped=()
step "tools" install_missing
step "format" cargo fmt --check
step "clippy" cargo clippy --locked --all-targets --quiet -- -D warnings
step "tests" cargo test --locked --quiet
step "tests that need mosquitto, pandas, paho-mqtt, nats-server or a disk of their own" cargo test --locked --quiet --test all -- --ignored
step "an emulated Pi" emulated_pi
step "documentation" documentation
step "demo" cargo run --locked --release --quiet -- demo --seconds 10 --json
step "flows" "${CARGO_TARGET_DIR:-target}/release/tidegate" check flows
step "tests of flows" "${CARGO_TARGET_DIR:-target}/release/tidegate" test flows --require
if [ ${#skipped[@]} -gt 0 ]; then
    echo "== all passed, but SKIPPED: ${skipped[*]}; $SECONDS s"
else
    echo "== all passed, $SECONDS s"
fi
