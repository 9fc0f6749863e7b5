#!/bin/bash
# Builds the release binary for a Raspberry Pi with Debian's cross compilers, which it installs when they are missing.
#   scripts/build-pi.sh [aarch64|armv7] [cargo's options]
# aarch64 is for a 64-bit system on a Pi 3, 4, 5 or Zero 2; armv7 for a 32-bit one on a Pi 2, 3 or 4. The binary needs a glibc
# at least as new as this machine's symbols, which are printed at the end. For other cases see cross/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-aarch64} in
aarch64) target=aarch64-unknown-linux-gnu gcc=aarch64-linux-gnu-gcc packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
armv7) target=armv7-unknown-linux-gnueabihf gcc=arm-linux-gnueabihf-gcc packages=(gcc-arm-linux-gnueabihf libc6-dev-armhf-cross) ;;
*)
    echo "usage: $0 [aarch64|armv7] [cargo's options]" >&2
    exit 2
    ;;
esac
[ $# -eq 0 ] || shift

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if ! command -v $gcc >/dev/null; then
    apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    as_root "${apt[@]}" update
    as_root "${apt[@]}" install -y --no-install-recommends "${packages[@]}"
fi
if command -v rustup >/dev/null; then
    rustup target add --quiet $target 2>/dev/null || rustup target add $target
fi

# .cargo/config.toml names the linker; the crates that compile C find the same compiler by its name.
cargo build --release --locked --target $target "$@"

binary=${CARGO_TARGET_DIR:-target}/$target/release/tidegate
if [ -f "$binary" ]; then
    echo "$binary: $(stat -c %s "$binary") bytes, newest symbol $(grep -aoE 'GLIBC_2\.[0-9]+' "$binary" | sort -uV | tail -1)"
fi
