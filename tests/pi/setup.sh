#!/bin/bash
# Fetches and builds what an emulated Pi needs; quick when that has been done.
#   tests/pi/setup.sh CACHE
# CACHE gets, without any change to this machine's own packages: QEMU, Debian's arm64 kernel with the modules and device trees
# of the Pi, a small file system, and the bench: kernel modules that play the wires on the pins and the chips on a bus. That takes a minute or two
# and about 420 MB the first time, and the package archive that this machine's apt uses. Compilers are installed as packages.
# Ends with 69, and the reason in one line on stderr, where this machine cannot have them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)

# To be raised when what is fetched changes.
parts_version=1
suite=bookworm
modules="bcm2835_wdt i2c-bcm2835 i2c-dev spi-bcm2835 pwm-bcm2835 phy-generic dwc2 cdc_ether bmp280-i2c"
unavailable=69

cannot() {
    echo "$*" >&2
    exit $unavailable
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# A program of the cache, with the libraries that it brought along.
cached() (
    export LD_LIBRARY_PATH=$cache/host/usr/lib/x86_64-linux-gnu:$cache/host/lib/x86_64-linux-gnu
    exec "$@"
)

check_machine() {
    # shellcheck source=/dev/null
    local codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")
    [ "$codename" = $suite ] || cannot "the emulator is put together from packages of Debian 12, and this is none"
    [ "$(dpkg --print-architecture)" = amd64 ] || cannot "the emulator is put together for x86-64 only"
}

install_compilers() {
    local missing=()
    # The compiler that the kernel was built with, for a module of it.
    command -v aarch64-linux-gnu-gcc-12 >/dev/null || missing+=(gcc-12-aarch64-linux-gnu)
    command -v make >/dev/null || missing+=(make)
    command -v xz >/dev/null || missing+=(xz-utils)
    [ ${#missing[@]} -gt 0 ] || return 0
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    as_root "${apt[@]}" update >&2 || cannot "the lists of packages cannot be fetched"
    as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 || cannot "cannot install ${missing[*]}"
}

# Where this machine gets Debian's packages from; nothing if apt has no lists yet.
archive() {
    apt-get indextargets --format '$(ORIGIN) $(RELEASE) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite=$suite '$1 == "Debian" && ($2 == suite || $3 == suite) { print $NF; exit }'
}

# An apt of our own that knows the backports, whose QEMU has more of a Pi, and arm64.
make_apt() {
    local archive
    archive=$(archive)
    if [ -z "$archive" ]; then
        as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || cannot "the lists of packages cannot be fetched"
        archive=$(archive)
    fi
    [ -n "$archive" ] || cannot "apt knows no archive of Debian 12's packages"
    rm -rf "$apt"
    mkdir -p "$apt"/{etc/none,state/lists/partial,cache/archives/partial}
    for part in $suite $suite-backports; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=amd64,arm64] $archive $part main"
    done >"$apt/etc/sources.list"
    cat >"$apt/apt.conf" <<END
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "$apt/etc/none";
Dir::Etc::preferences "$apt/etc/preferences";
Dir::Etc::preferencesparts "$apt/etc/none";
Dir::State::lists "$apt/state/lists";
Dir::Cache "$apt/cache";
APT::Architecture "amd64";
APT::Architectures "amd64,arm64";
APT::Sandbox::User "root";
APT::Default-Release "$suite-backports";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Debug::NoLocking "1";
END
    export APT_CONFIG=$apt/apt.conf
}

# Unpacks all packages that were fetched into a directory.
unpack() {
    local package
    for package in ./*.deb; do
        case $package in ./qemu-user*) ;; *) dpkg-deb -x "$package" "$1" ;; esac
    done
    rm -f ./*.deb
}

fetch_parts() (
    apt=$cache/apt
    make_apt
    apt-get update -qq >&2 || cannot "the lists of Debian's backports and arm64 packages cannot be fetched"
    kernel=$(apt-cache depends linux-image-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[^:]*\).*/\1/p' | head -n 1)
    version=${kernel#linux-image-}
    [ -n "$version" ] || cannot "apt knows no arm64 kernel"
    rm -rf "$cache"/{host,arm64,headers}
    mkdir -p "$cache"/{host,arm64,headers}
    cd "$apt/cache/archives"
    # The emulator and tools, with the libraries that this machine does not have yet.
    apt-get install -y -qq --no-install-recommends --download-only --reinstall -o Dir::Cache::archives="$apt/cache/archives" \
        qemu-system-arm cpio kmod device-tree-compiler libfdt1 >&2 || cannot "QEMU cannot be fetched"
    unpack "$cache/host"
    apt-get download -qq "$kernel:arm64" busybox-static:arm64 libc6:arm64 libgcc-s1:arm64 >&2 || cannot "the kernel cannot be fetched"
    unpack "$cache/arm64"
    apt-get download -qq "linux-headers-$version:arm64" "linux-headers-${version%-arm64}-common" "linux-kbuild-${version%-arm64}:amd64" >&2 ||
        cannot "the kernel's headers cannot be fetched"
    unpack "$cache/headers"
    rm -rf "$apt"
    [ -e "$cache/host/bin/depmod" ] || ln -s kmod "$cache/host/bin/depmod"
    cached "$cache/host/usr/bin/qemu-system-aarch64" --version >/dev/null || cannot "the QEMU that was fetched does not run here"
    echo "$version" >"$cache/kernel-version"
)

build_bench() {
    local version=$1 place=$cache/bench headers
    headers=$cache/headers/usr/src/linux-headers-$version
    rm -rf "$place"
    cp -r "$here/bench" "$place"
    sed -i "s#^include .*/usr/src/#include $cache/headers/usr/src/#" "$headers/Makefile"
    cached make -s -C "$headers" M="$place" CONFIG_DEBUG_INFO_BTF_MODULES= modules >"$place/build.log" 2>&1 || {
        cat "$place/build.log" >&2
        echo "the modules of the bench do not build for Linux $version" >&2
        return 1
    }
    aarch64-linux-gnu-strip -g "$place"/*.ko
}

# The wanted modules with what they depend on, uncompressed.
copy_modules() {
    local version=$1 to=$2 from=$cache/arm64/lib/modules/$1 module file
    [ -f "$from/modules.dep" ] || cached "$cache/host/bin/depmod" -b "$cache/arm64" "$version"
    for module in $modules; do
        grep -E "/${module//[-_]/[-_]}\.ko[.a-z]*:" "$from/modules.dep" | tr -d : | tr ' ' '\n'
    done | sort -u | while read -r file; do
        [ -n "$file" ] || continue
        mkdir -p "$to/$(dirname "$file")"
        case $file in
        *.xz) xz -dc "$from/$file" >"$to/${file%.xz}" ;;
        *) cp "$from/$file" "$to/$file" ;;
        esac
    done
    mkdir -p "$to/extra"
    cp "$cache"/bench/*.ko "$to/extra/"
    cp "$from"/modules.{builtin,builtin.modinfo,order} "$to/"
}

# The part of the Pi's file system that is the same for every run.
build_root() {
    local version=$1 root=$cache/root name
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,etc,root,home/{pi,visitor},work,opt,lib/modules/"$version"}
    ln -s . "$root/usr"
    ln -s bin "$root/sbin"
    cp "$cache/arm64/bin/busybox" "$root/bin/"
    for name in sh mount; do ln -s busybox "$root/bin/$name"; done
    cp -a "$cache"/arm64/lib/aarch64-linux-gnu "$root/lib/"
    cp -aL "$cache"/arm64/lib/ld-linux-aarch64.so.1 "$root/lib/"
    copy_modules "$version" "$root/lib/modules/$version"
    cached "$cache/host/bin/depmod" -b "$root" "$version"
    # `visitor` is in none of the groups that may use the pins.
    printf '%s:x:%d:%d::%s:/bin/sh\n' root 0 0 /root pi 1000 1000 /home/pi visitor 1001 1001 /home/visitor >"$root/etc/passwd"
    printf '%s:x:%d:%s\n' root 0 '' pi 1000 '' visitor 1001 '' gpio 997 pi i2c 998 pi spi 999 pi >"$root/etc/group"
    printf '127.0.0.1 localhost\n10.0.2.2 host\n' >"$root/etc/hosts"
    install -m 755 "$here/guest/init" "$root/init"
    install -m 755 "$here/guest/pi" "$root/bin/pi"
    (cd "$root" && find . | cached "$cache/host/bin/cpio" -o -H newc --quiet -R 0:0 | gzip -1) >"$cache/root.cpio.gz"
}

build_device_trees() {
    local name tree node put
    for name in bcm2837-rpi-3-b.dtb bcm2711-rpi-4-b.dtb; do
        tree=$cache/$name
        put="cached $cache/host/usr/bin/fdtput"
        cp "$cache"/arm64/usr/lib/linux-image-*/broadcom/$name "$tree"
        # The serial line that mainline gives to Bluetooth is for what is printed.
        $put -r "$tree" /soc/serial@7e201000/bluetooth
        $put -t s "$tree" /soc/spi@7e204000 status okay
        $put -c "$tree" /soc/spi@7e204000/spidev@0
        $put -t s "$tree" /soc/spi@7e204000/spidev@0 compatible rohm,dh2228fv
        $put -t i "$tree" /soc/spi@7e204000/spidev@0 reg 0
        $put -t i "$tree" /soc/spi@7e204000/spidev@0 spi-max-frequency 10000000
        $put -t i "$tree" /soc/i2c@7e804000 clock-frequency 100000
        $put -t s "$tree" /soc/usb@7e980000 dr_mode host
    done
    # What mainline's device tree of a Pi 4 has and QEMU's has not: touching it is a bus error or a storm of interrupts.
    for node in $(cached "$cache/host/usr/bin/fdtget" -l "$tree" /soc | grep -E \
        '^(interrupt-controller@7ef|i2c@7ef|hdmi@|clock@7ef|hvs@|pixelvalve@|vec@|dsi@|dpi@|txp@|csi@|avs-monitor@|serial@7e215040)'); do
        $put -t s "$tree" "/soc/$node" status disabled
    done
    $put -t s "$tree" /gpu status disabled
}

exec 9>"$cache/lock"
flock 9
if [ "$(cat "$cache/parts-version" 2>/dev/null)" != $parts_version ]; then
    check_machine
    install_compilers
    fetch_parts
    rm -f "$cache/built-from"
    echo $parts_version >"$cache/parts-version"
fi
built_from=$(cat "$0" "$here"/guest/* "$here"/bench/* | sha256sum)
if [ "$(cat "$cache/built-from" 2>/dev/null)" != "$built_from" ]; then
    version=$(cat "$cache/kernel-version")
    build_bench "$version"
    build_root "$version"
    build_device_trees
    echo "$built_from" >"$cache/built-from"
fi
