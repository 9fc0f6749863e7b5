#!/bin/bash
# Licences, banned crates, sources and known advisories of everything in the tree, as deny.toml says.
# Installs cargo-deny when it is missing (about ten minutes). Advisories need their database from the network: without
# it the rest is checked, and the last line says what was not.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-deny >/dev/null || cargo install cargo-deny --locked

cargo deny --all-features check licenses bans sources

if cargo deny fetch db; then
    cargo deny --all-features --offline check advisories
    echo "licences, bans, sources and advisories: checked"
else
    echo "ADVISORIES WERE NOT CHECKED: their database could not be fetched. Licences, bans and sources: checked." >&2
fi
