#!/bin/bash
# Runs the real `cross` on this project, with the images in this folder, on a Debian host that has no
# container registry: the base image is made by debootstrap, then imported under the name the
# Dockerfiles' FROM line uses. Needs root. Usage: cross/verify.sh [TARGET..]
# WORK=dir (default /tmp/tidegate-cross) keeps images and shims. Missing packages are installed with apt-get.
set -euo pipefail
WORK=${WORK:-/tmp/tidegate-cross}
PROJECT=${PROJECT:-$(cd "$(dirname "$0")/.." && pwd)}
BASE=docker.io/library/debian:bookworm-slim
MIRROR=${MIRROR:-$(awk '/^URIs:/{print $2; exit} /^deb /{for(i=2;i<=NF;i++)if($i~/^https?:/){print $i; exit}}' \
         /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)}
PROFILE=${PROFILE:-release}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf arm-unknown-linux-gnueabihf)
[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 2; }
step() { echo "== $* ($(date +%T))"; }

need=()
for p in podman:podman runc:runc debootstrap:debootstrap qemu-aarch64-static:qemu-user-static; do
  command -v "${p%%:*}" >/dev/null || need+=("${p#*:}")
done
if [ ${#need[@]} -gt 0 ]; then
  step "installing ${need[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${need[@]}" >/dev/null
fi
command -v cross >/dev/null || { echo "cargo install cross --version 0.2.5 --locked, first" >&2; exit 2; }

mkdir -p "$WORK"/{run,graph,shim,xargo}
cat > "$WORK/storage.conf" <<EOF
[storage]
driver = "overlay"
runroot = "$WORK/run"
graphroot = "$WORK/graph"
EOF
# runc with cgroupfs works on hybrid cgroups (crun refuses them); explicit ulimits because a host
# without CAP_SYS_RESOURCE may not raise them; host network because there may be no bridge/iptables.
nofile=$(ulimit -Hn); [ "$nofile" != unlimited ] && [ "$nofile" -le 16384 ] || nofile=16384
cat > "$WORK/containers.conf" <<EOF
[containers]
default_ulimits = ["nofile=$nofile:$nofile", "nproc=32768:32768"]
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
EOF
export CONTAINERS_STORAGE_CONF=$WORK/storage.conf CONTAINERS_CONF=$WORK/containers.conf
export CROSS_CONTAINER_ENGINE=podman XARGO_HOME=$WORK/xargo
export CROSS_BUILD_OPTS="--network=host"
# A host behind an intercepting proxy has its own CA: hand it to pip inside `podman build`.
if ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then
  CROSS_BUILD_OPTS+=" -v /etc/ssl/certs/ca-certificates.crt:/host-ca.crt:ro --env PIP_CERT=/host-ca.crt"
fi

# cross 0.2.5 compares `rustup toolchain list` lines literally; rustup >= 1.28 appends
# "(active, default)", so cross would run `rustup toolchain add` and change the host's toolchain.
REAL_RUSTUP=$(command -v rustup); export REAL_RUSTUP
cat > "$WORK/shim/rustup" <<'EOF'
#!/bin/sh
case "$*" in
  *"toolchain list"*) "$REAL_RUSTUP" "$@" | sed 's/ (.*)$//' ;;
  *) exec "$REAL_RUSTUP" "$@" ;;
esac
EOF
chmod +x "$WORK/shim/rustup"; export PATH=$WORK/shim:$PATH

if ! podman image exists "$BASE"; then
  step "debootstrap $BASE"
  rm -rf "$WORK/rootfs"
  debootstrap --variant=minbase --arch=amd64 bookworm "$WORK/rootfs" "${MIRROR:?set MIRROR}" >"$WORK/debootstrap.log" 2>&1
  tar -C "$WORK/rootfs" --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' \
      --exclude='./var/cache/apt/archives/*.deb' -c . | podman import -q - "$BASE"
  rm -rf "$WORK/rootfs"
fi

cd "$PROJECT"
sysroot=$(rustc --print sysroot)
declare -A prefix=([aarch64-unknown-linux-gnu]=aarch64-linux-gnu [armv7-unknown-linux-gnueabihf]=arm-linux-gnueabihf
                   [arm-unknown-linux-gnueabihf]=arm-linux-gnueabihf)
fail=0; pass=0
for t in "${targets[@]}"; do
  step "$t"
  mkdir -p "target/$t"
  extra=()
  unset CROSS_CUSTOM_TOOLCHAIN RUSTC_BOOTSTRAP CROSS_BUILD_ENV_PASSTHROUGH
  if [ ! -d "$sysroot/lib/rustlib/$t" ]; then
    if [ -d "$sysroot/lib/rustlib/src/rust/library" ]; then
      echo "no prebuilt std for $t: building std from rust-src"
      export CROSS_CUSTOM_TOOLCHAIN=1 RUSTC_BOOTSTRAP=1 CROSS_BUILD_ENV_PASSTHROUGH=RUSTC_BOOTSTRAP
      extra=(-Zbuild-std=std,panic_abort)
    else
      echo "SKIP $t: neither its std nor rust-src is installed"; continue
    fi
  fi
  if time cross test "${extra[@]}" --target "$t" && time cross build "${extra[@]}" --profile "$PROFILE" --target "$t"; then
    pass=$((pass+1))
  else
    fail=$((fail+1)); echo "FAIL $t"; continue
  fi
  dir=$PROFILE; [ "$PROFILE" = dev ] && dir=debug
  for f in target/"$t"/"$dir"/*; do
    [ -f "$f" ] && [ -x "$f" ] && head -c4 "$f" | grep -q ELF || continue
    echo "$f $(stat -c %s "$f") bytes, newest glibc symbol: $(grep -aoE 'GLIBC_2\.[0-9]+' "$f" | sort -uV | tail -1)"
  done
done
echo "$pass passed, $fail failed"
[ "$fail" = 0 ]
