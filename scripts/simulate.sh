#!/bin/sh
# Simulates many lives of a device under faults, on all cores: scripts/simulate.sh [COUNT [FROM]]. Without arguments 100,000 seeds.
# Prints how many lives a second it was, what went wrong in them, and how many records came through; a seed that fails prints
# itself. See docs/decisions/0020-simulation.md.
set -eu

cd "$(dirname "$0")/.."
count=${1:-100000}
from=${2:-0}
# Quicker to build than what is released, and nearly as fast.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=2
SEEDS="$from..$((from + count))" exec cargo test --release --quiet --lib \
    simulation::tests::nothing_is_lost_whatever_happens -- --exact --nocapture
