#!/bin/bash
# Runs one scenario on an emulated Raspberry Pi and shows what is printed there; its exit code is the scenario's.
#   tests/pi/rig.sh SCENARIO BINARY CACHE
# SCENARIO is a directory:
#   scenario.sh       runs on the Pi, as root; it does what `pi` can do (see guest/pi)
#   tidegate.toml, flows/   and whatever else there is: copied to /work on the Pi
#   rig.env           if it is there: what is not as usual; see below
# BINARY is tidegate for aarch64; CACHE is what setup.sh has filled. Ends with 124 if it takes too long.
set -euo pipefail

# What rig.env can change:
MODEL=3b        # or 4b, of which QEMU has pins and their interrupts only
RUN_AS=pi       # in the groups gpio, i2c and spi; or visitor, who is in none of them; or root
PINS=           # levels that are on pins before the start: "17=1 27=0"
NETWORK=        # yes: the Pi reaches this machine as 10.0.2.2
HOST=           # a script of host/ that runs here, in the copy of the scenario that goes to the Pi: with `prepare` before the
                # start, with the arguments of each `pi host`, and with `end` at the end
COMPATIBLE=     # what the device tree says instead of the Pi's own name: "raspberrypi,5-model-b brcm,bcm2712"
NAME=           # and its model
TEMPERATURE=21.5 # of the I2C sensor (TMP105 at 0x48, bus 1), in degrees C
TIMEOUT=180     # for all of it, in seconds

here=$(cd "$(dirname "$0")" && pwd)
scenario=$(cd "$1" && pwd)
binary=$2
cache=$(cd "$3" && pwd)
# shellcheck source=/dev/null
[ ! -f "$scenario/rig.env" ] || . "$scenario/rig.env"

case $MODEL in
3b) tree=bcm2837-rpi-3-b.dtb console=ttyS1 serial=(-serial chardev:out -serial chardev:con) ;;
4b) tree=bcm2711-rpi-4-b.dtb console=ttyAMA0 serial=(-serial chardev:con) ;;
*)
    echo "rig: MODEL in $scenario/rig.env is 3b or 4b" >&2
    exit 2
    ;;
esac

cached() (
    export LD_LIBRARY_PATH=$cache/host/usr/lib/x86_64-linux-gnu:$cache/host/lib/x86_64-linux-gnu
    exec "$@"
)

run=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-pi.XXXXXX")
files=$run/files work=$run/files/work
started=()

# Calls the scenario's script of host/, if it has one, where the files of the Pi are.
on_host() {
    [ -n "$HOST" ] || return 0
    (cd "$work" && RUN=$run bash "$here/host/$HOST" "$@" </dev/null 6>&- 7>&- 8<&-)
}

cleanup() {
    local pid
    on_host end || true
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# What goes to the Pi beside its root file system.
prepare() {
    mkdir -p "$work" "$files/opt"
    install -m 755 "$binary" "$files/opt/tidegate"
    cp -a "$scenario/." "$work/"
    mv "$work/scenario.sh" "$files/scenario.sh"
    rm -f "$work/rig.env"
    on_host prepare || {
        echo "rig: $HOST cannot prepare the scenario" >&2
        exit 1
    }
    {
        printf 'export MODEL=%s RUN_AS=%s\n' "$MODEL" "$RUN_AS"
        printf 'PINS=%s NETWORK=%s NOW=%s\n' "$(quoted "$PINS")" "$NETWORK" "$(date +%s)"
    } >"$files/pi.env"
    cp "$cache/root.cpio.gz" "$run/initrd"
    (cd "$files" && find . | cached "$cache/host/bin/cpio" -o -H newc --quiet -R 0:0 | gzip -1) >>"$run/initrd"
    cp "$cache/$tree" "$run/tree"
    # shellcheck disable=SC2086 # several names are several values
    [ -z "$COMPATIBLE" ] || cached "$cache/host/usr/bin/fdtput" -t s "$run/tree" / compatible $COMPATIBLE
    [ -z "$NAME" ] || cached "$cache/host/usr/bin/fdtput" -t s "$run/tree" / model "$NAME"
}

# Switches the Pi on: 6 is its monitor, 7 and 8 its console.
switch_on() {
    local network=()
    [ -z "$NETWORK" ] || network=(-netdev "user,id=n0" -device "usb-net,netdev=n0")
    mkfifo "$run"/{con,mon}.{in,out}
    (
        export LD_LIBRARY_PATH=$cache/host/usr/lib/x86_64-linux-gnu:$cache/host/lib/x86_64-linux-gnu
        exec timeout -k 5 "$TIMEOUT" "$cache/host/usr/bin/qemu-system-aarch64" \
            -M "raspi$MODEL" -accel tcg,thread=single -no-reboot -display none -nodefaults -L "$cache/host/usr/share/qemu" \
            -kernel "$cache"/arm64/boot/vmlinuz-* -dtb "$run/tree" -initrd "$run/initrd" \
            -append "console=$console,115200 loglevel=3 panic=-1 nokaslr iomem=relaxed maxcpus=1" \
            -chardev stdio,id=out,signal=off -chardev pipe,id=con,path="$run/con" "${serial[@]}" \
            -chardev pipe,id=mon,path="$run/mon" -mon chardev=mon,mode=readline \
            -device tmp105,bus=i2c-bus.1,address=0x48,id=sensor -device w25q80,bus=spi "${network[@]}"
    ) </dev/null 2>"$run/qemu.err" &
    qemu=$!
    started+=("$qemu")
    cat "$run/mon.out" >/dev/null &
    started+=($!)
    exec 6>"$run/mon.in" 7>"$run/con.in" 8<"$run/con.out"
    set_temperature "$TEMPERATURE"
}

set_temperature() {
    awk -v degrees="$1" 'BEGIN { printf "qom-set /machine/peripheral/sensor temperature %d\n", degrees * 1000 }' >&6
}

# Answers what the Pi asks for until it is switched off, and sets `code` to what the scenario ended with.
serve() {
    local line command rest result
    while IFS= read -r line <&8; do
        line=${line%$'\r'}
        case $line in
        *@PI\ temp\ *)
            set_temperature "${line##*@PI temp }"
            echo "answer 0" >&7
            ;;
        *@PI\ host\ *)
            result=0
            # A word, and the rest as one argument, which may be a pattern with spaces.
            read -r command rest <<<"${line##*@PI host }"
            on_host "$command" "$rest" || result=$?
            echo "answer $result" >&7
            ;;
        *@PI\ exit\ *) code=${line##*@PI exit } ;;
        *@PI\ started*) ;;
        *) printf '%s\n' "$line" ;;
        esac
    done
}

prepare
switch_on
code=
serve
ended=0
wait "$qemu" || ended=$?
if [ -z "$code" ]; then
    [ $ended != 124 ] || echo "rig: the scenario has not ended after $TIMEOUT s" >&2
    echo "rig: the Pi stopped before the scenario had ended; QEMU ended with $ended" >&2
    cat "$run/qemu.err" >&2
    [ $ended = 124 ] && exit 124
    exit 70
fi
exit "$code"
