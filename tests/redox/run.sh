#!/bin/sh
# Runs the tests inside a Redox image.
#
#   usage: run.sh IMAGE [TEST...]
#
# IMAGE is a bootable disk image of Redox, bare or partitioned, BIOS, not encrypted, with base's
# init. Nothing is written to it: daemon, service units and test program go into a copy, which is
# booted in QEMU. Prints one line for each test and measurement, then the count; the whole serial
# console goes to LOG. With TEST, only tests whose names begin so, and no measurements.
#
#   exit 0  every test passed        exit 2  something is missing, and which
#        1  a test failed                 3  no end: time limit, or the machine stopped
#
# From the environment:
#   TUND        the daemon, built for x86_64-unknown-redox   (target/x86_64-unknown-redox/release/tund)
#   TUNCTL      the tool, if there is one                                        (beside the daemon)
#   REDOX_TEST  the test program, built here     (tests/redox/target/x86_64-unknown-redox/release/redox-test)
#   REDOXFS     the program that mounts the file system                                    (redoxfs)
#               cargo install redoxfs; it needs FUSE
#   QEMU        the emulator                                                    (qemu-system-x86_64)
#   QEMU_ARGS   instead of the machine below; %IMAGE% stands for the copy
#   ACCEL       tcg, or kvm where it is truly usable                                           (tcg)
#   LIMIT       seconds until the machine is stopped                                           (900)
#   LOG         where the serial console goes                                    (redox-test.log)
set -u

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
built=x86_64-unknown-redox/release

: "${TUND:=$top/target/$built/tund}"
: "${TUNCTL:=$(dirname "$TUND")/tunctl}"
: "${REDOX_TEST:=$here/target/$built/redox-test}"
: "${REDOXFS:=redoxfs}"
: "${QEMU:=qemu-system-x86_64}"
: "${QEMU_ARGS:=}"
: "${ACCEL:=tcg}"
: "${LIMIT:=900}"
: "${LOG:=redox-test.log}"

missing() {
    echo "run.sh: $*" >&2
    exit 2
}

[ $# -ge 1 ] || missing "usage: run.sh IMAGE [TEST...]"
image=$1
shift
[ -f "$image" ] || missing "no image: $image"
command -v "$QEMU" >/dev/null || missing "no emulator: $QEMU (QEMU)"
command -v "$REDOXFS" >/dev/null || missing "no redoxfs: cargo install redoxfs (REDOXFS)"
[ -e /dev/fuse ] || missing "no FUSE: /dev/fuse"
if command -v fusermount3 >/dev/null; then
    unmount="fusermount3 -u"
elif command -v fusermount >/dev/null; then
    unmount="fusermount -u"
else
    missing "no FUSE: fusermount3"
fi
[ -f "$TUND" ] || missing "no daemon: $TUND (TUND)"
[ -f "$REDOX_TEST" ] || missing "no test program: $REDOX_TEST (REDOX_TEST)"
[ -d "$top/redox/init.d" ] || missing "no service units: $top/redox/init.d"

dir=$(mktemp -d) || exit 2
copy=$dir/image
tree=$dir/tree
mounter=
machine=

clean() {
    [ -z "$machine" ] || kill "$machine" 2>/dev/null
    if [ -n "$mounter" ]; then
        $unmount "$tree" 2>/dev/null
        wait "$mounter"
    fi
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints the words as a list of strings.
strings() {
    for word in "$@"; do
        printf '"%s", ' "$word"
    done
}

mkdir "$tree"
cp --sparse=always "$image" "$copy" || exit 2

# It finds the file system in the image by itself, wherever its partition begins.
"$REDOXFS" --no-daemon "$copy" "$tree" 2>"$dir/mount.log" &
mounter=$!
tries=0
until mountpoint -q "$tree"; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ] || ! kill -0 "$mounter" 2>/dev/null; then
        cat "$dir/mount.log" >&2
        mounter=
        missing "$REDOXFS cannot mount $image"
    fi
    sleep 0.1
done

[ $# -gt 0 ] || set -- --with-cost
put() {
    cp "$1" "$tree/$2" && chmod "$3" "$tree/$2" || missing "cannot write $2 into the image"
}
mkdir -p "$tree/etc/init.d"
put "$TUND" usr/bin/tund 755
put "$REDOX_TEST" usr/bin/redox-test 755
[ ! -f "$TUNCTL" ] || put "$TUNCTL" usr/bin/tunctl 755
for unit in "$top"/redox/init.d/*; do
    put "$unit" "etc/init.d/$(basename "$unit")" 644
done
cat >"$dir/unit" <<UNIT || exit 2
[unit]
description = "Tests of tund"
requires_weak = [
    "10_net.target",
]

[service]
cmd = "redox-test"
args = [$(strings "$@")]
type = "oneshot_async"
UNIT
put "$dir/unit" etc/init.d/95_redox-test.service 644
$unmount "$tree" || missing "cannot unmount $tree"
wait "$mounter"
mounter=

: >"$LOG"
if [ -n "$QEMU_ARGS" ]; then
    # shellcheck disable=SC2046 # words, as they are meant
    set -- $(printf %s "$QEMU_ARGS" | sed "s|%IMAGE%|$copy|g")
else
    set -- -machine pc -cpu max -smp 1 -m 1024 -display none -vga none -monitor none \
        -drive "file=$copy,format=raw,if=none,id=disk" \
        -device ahci,id=ahci -device ide-hd,drive=disk,bus=ahci.0 \
        -netdev user,id=net,restrict=on -device e1000,netdev=net
fi
"$QEMU" -accel "$ACCEL" -no-reboot "$@" -serial "file:$LOG" </dev/null &
machine=$!

# The lines for machines, wherever they stand in a line of the console.
lines() {
    tr -d '\r' <"$LOG" | sed -n 's/^.*\(redox-\(test\|cost\)[: ].*\)$/\1/p'
}
shown=0
show() {
    lines | tail -n +$((shown + 1))
    shown=$(lines | wc -l)
}
end() {
    lines | grep '^redox-test: [0-9]* passed, [0-9]* failed, [0-9]* skipped$'
}
waited=0
why="no end within $LIMIT s"
while [ $waited -lt "$LIMIT" ]; do
    if end >/dev/null; then
        why=
        break
    fi
    if ! kill -0 "$machine" 2>/dev/null; then
        why="the machine stopped"
        break
    fi
    if grep -q 'KERNEL PANIC' "$LOG"; then
        why="the kernel panicked"
        break
    fi
    sleep 1
    waited=$((waited + 1))
    show
done
show
if [ -n "$why" ]; then
    echo "run.sh: $why; the console is in $LOG" >&2
    exit 3
fi
end | grep -q ' 0 failed,' || exit 1
exit 0
