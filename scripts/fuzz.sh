#!/bin/sh
# Fuzzes: scripts/fuzz.sh [SECONDS] [TARGET...]. Without arguments, each target for 60 s.
# Needs rustup and a C++ compiler. What it finds is in fuzz/artifacts/TARGET; `cargo +nightly fuzz run TARGET FILE` shows
# it again.
set -eu

cd "$(dirname "$0")/.."
seconds=60
case "${1-}" in
    *[!0-9]* | "") ;;
    *) seconds=$1; shift ;;
esac
[ $# -gt 0 ] || set -- flow_parser checker nodes javascript mqtt

rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

# The corpus begins with what the normal test runs over.
FUZZ_CORPUS="$PWD/fuzz/corpus" cargo test --quiet --lib fuzzing::tests::write_seeds -- --ignored --exact

found=0
for target in "$@"; do
    echo "== $target, $seconds s"
    case $target in
        flow_parser | checker) words=-dict=fuzz/corpus/words ;;
        *) words= ;;
    esac
    # Leaks are looked for by the soak test: QuickJS keeps what it shares, once for each thread.
    # What the target prints goes nowhere (1: standard output); what is found is told on standard error.
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 \
        -max_len=16384 ${words:+$words} -detect_leaks=0 -print_final_stats=1 -close_fd_mask=1 || found=1
done
exit $found
