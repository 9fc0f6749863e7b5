#!/bin/bash
# Runs scenarios with the real binary on an emulated Raspberry Pi: those that are named, or all.
#   tests/pi/run.sh [NAME..]
# Builds tidegate for aarch64 with Debian's cross compiler and fetches what the emulator needs, into target/pi. Prints a line
# per scenario, and what was printed on the Pi if it failed. Ends with 1 if one failed, and with 69, and why, where this machine
# cannot run any.
#   TIDEGATE_PI_JOBS   how many run at a time; 2 if nothing is said
set -euo pipefail
cd "$(dirname "$0")/../.."
target=aarch64-unknown-linux-gnu
cache=${CARGO_TARGET_DIR:-target}/pi
unavailable=69

cannot() {
    echo "$*" >&2
    exit $unavailable
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_cross_compiler() {
    if ! command -v aarch64-linux-gnu-gcc >/dev/null; then
        command -v apt-get >/dev/null || cannot "there is no cross compiler aarch64-linux-gnu-gcc, and this is no Debian"
        local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
        as_root "${apt[@]}" update >&2 || cannot "the lists of packages cannot be fetched"
        as_root "${apt[@]}" install -y --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross >&2 ||
            cannot "the cross compiler cannot be installed"
    fi
    if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
        command -v rustup >/dev/null || cannot "Rust's standard library for $target is missing, and there is no rustup"
        rustup target add --quiet $target >&2 || cannot "Rust's standard library for $target cannot be fetched"
    fi
}

# Runs one scenario in the background of the others.
run_one() {
    local name=$1 start=$SECONDS code=0
    tests/pi/rig.sh "tests/pi/scenarios/$name" "$cache/tidegate" "$cache" >"$logs/$name.log" 2>&1 &
    echo $! >"$logs/$name.pid"
    wait $! || code=$?
    rm -f "$logs/$name.pid"
    if [ $code = 0 ]; then
        echo "PASS  $name, $((SECONDS - start)) s"
        return
    fi
    # At once, so that the output of two does not mix.
    echo "FAIL  $name, $((SECONDS - start)) s, with $code
$(tail -n 200 "$logs/$name.log" | sed 's/^/    /')"
    touch "$logs/$name.failed"
}

if [ $# = 0 ]; then
    set -- $(ls tests/pi/scenarios)
fi
for name; do
    [ -d "tests/pi/scenarios/$name" ] || {
        echo "there is no scenario $name; there are: $(ls tests/pi/scenarios | tr '\n' ' ')" >&2
        exit 2
    }
done

tests/pi/setup.sh "$cache"
install_cross_compiler
cargo build --locked --quiet --target $target --bin tidegate
# The scenarios that need certificates make them here.
cargo build --locked --quiet --bin tidegate
# Without its symbols it is a third as large, and goes to the Pi in less time.
aarch64-linux-gnu-strip -o "$cache/tidegate" "${CARGO_TARGET_DIR:-target}/$target/debug/tidegate"

logs=$cache/logs
rm -rf "$logs"
mkdir -p "$logs"
# A background job of a script does not hear Ctrl-C.
trap 'cat "$logs"/*.pid 2>/dev/null | xargs -r kill; exit 130' INT TERM
for name; do
    while [ "$(jobs -rp | wc -l)" -ge "${TIDEGATE_PI_JOBS:-2}" ]; do wait -n || true; done
    run_one "$name" &
done
wait
failed=$(find "$logs" -name '*.failed' -exec basename {} .failed \; | sort | tr '\n' ' ')
[ -z "$failed" ] || {
    echo "failed: $failed" >&2
    exit 1
}
