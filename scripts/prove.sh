#!/bin/bash
# Real faults on real parts, as often as you like: what docs/guarantees.md reports was run with this.
#
#   scripts/prove.sh kills 2000     SIGKILL at random moments
#   scripts/prove.sh cuts 200       power cuts on a disk of their own (root or sudo, loop devices, ext4)
#   scripts/prove.sh readonly 20    a disk of its own that the kernel makes read-only under load (root or sudo)
#   scripts/prove.sh links 100      cables pulled, slow links, killed brokers, in a network namespace (root or sudo)
#   scripts/prove.sh outage 60      so many seconds without the cloud at 5,000 readings a second; again, with SIGKILL half way
#   scripts/prove.sh nodes 20       nodes of a cluster of brokers killed, one after another (nats-server)
#   scripts/prove.sh bytes 1        every so-many-th byte of a small store, one bit of it flipped
#   scripts/prove.sh soak 1800      so many seconds under load, with memory and disk watched
#
# SEED=N repeats the random moments of a run. The last line says what was proved; scripts/test.sh installs what is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin

usage() {
    sed -n 's/^#   //p' "$0" >&2
    exit 2
}

target=()
[ $# = 2 ] || usage
case $1 in
kills) variable=KILLS test=faults::kills ;;
cuts) variable=CUTS test=faults::power_cuts ;;
readonly) variable=READONLY test=faults::read_only ;;
links) variable=LINKS test=faults::links ;;
outage) variable=OUTAGE test=faults::outage ;;
nodes) variable=NODES test=faults::cluster ;;
soak) variable=SOAK test=faults::soak ;;
bytes) variable=BYTES target=(--lib) test=outbox::care::tests::every_byte ;;
*) usage ;;
esac
[[ $2 =~ ^[1-9][0-9]*$ ]] || usage
[ "${#target[@]}" != 0 ] || target=(--test all)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$SECONDS
env "$variable=$2" cargo test --locked --release --quiet "${target[@]}" -- --ignored --nocapture "$test" 2>&1 | tee "$log"
grep -q '^PROVED' "$log"
echo "$(date -u +%F), $((SECONDS - start)) s: $(grep '^PROVED' "$log")"
