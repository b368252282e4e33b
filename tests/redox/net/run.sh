#!/bin/sh
# Checks and measures the network of a Redox image, once on netstack and once on tund.
#
#   usage: run.sh IMAGE [TEST...]
#
# IMAGE is a bootable disk image of Redox with netstack, bare or partitioned, BIOS, not encrypted,
# with base's init. Nothing is written to it: the programs go into copies, into one of them tund as
# well, and each copy is booted in QEMU with an e1000 on a network of QEMU's own. Prints the lines of
# the tests of both, then what was measured, side by side: for several boots, the medians. With
# TEST, only tests whose names begin so, and no measurements.
#
#   exit 0  every test passed on tund     exit 2  something is missing, and which
#        1  a test failed on tund              3  no end: time limit, or the machine stopped
#
# From the environment:
#   BOOTS     of each; the tests run in the first                                              (1)
#   DAEMONS   which                                                                (netstack tund)
#   TUND      the daemon, built for x86_64-unknown-redox   (target/x86_64-unknown-redox/release/tund)
#   PROGRAMS  where net-check and net-measure are    (tests/redox/net/target/x86_64-unknown-redox/release)
#   REDOXFS   the program that mounts the file system                                    (redoxfs)
#             cargo install redoxfs; it needs FUSE
#   QEMU      the emulator                                                    (qemu-system-x86_64)
#   ACCEL     tcg, or kvm where it is truly usable                                           (tcg)
#   ICOUNT    with tcg: an instruction takes 2^ICOUNT ns of the machine's time, so that nothing
#             else on the host matters; 1 is about what it takes anyhow
#   LIMIT     seconds until a machine is stopped                                            (1500)
#   LOGS      the directory for serial consoles, DAEMON.BOOT.log                               (.)
set -u

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
built=x86_64-unknown-redox/release

: "${BOOTS:=1}"
: "${DAEMONS:=netstack tund}"
: "${TUND:=$top/target/$built/tund}"
: "${PROGRAMS:=$here/target/$built}"
: "${REDOXFS:=redoxfs}"
: "${QEMU:=qemu-system-x86_64}"
: "${ACCEL:=tcg}"
: "${ICOUNT:=}"
: "${LIMIT:=1500}"
: "${LOGS:=.}"

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
for program in net-check net-measure; do
    [ -f "$PROGRAMS/$program" ] || missing "no program: $PROGRAMS/$program (PROGRAMS)"
done
[ -d "$LOGS" ] || missing "no directory: $LOGS (LOGS)"

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

put() {
    cp "$1" "$tree/$2" && chmod "$3" "$tree/$2" || missing "cannot write $2 into the image"
}

# fill DAEMON ARGUMENT...: makes the copy in which that daemon is the network.
fill() {
    daemon=$1
    shift
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
    mkdir -p "$tree/etc/init.d"
    put "$PROGRAMS/net-check" usr/bin/net-check 755
    put "$PROGRAMS/net-measure" usr/bin/net-measure 755
    if [ "$daemon" = tund ]; then
        put "$TUND" usr/bin/tund 755
        for unit in "$top"/redox/init.d/*; do
            put "$unit" "etc/init.d/$(basename "$unit")" 644
        done
    fi
    cat >"$dir/unit" <<UNIT || exit 2
[unit]
description = "Tests of the network"
requires_weak = [
    "10_net.target",
]

[service]
cmd = "net-check"
args = [$(strings "$@")]
type = "oneshot_async"
UNIT
    put "$dir/unit" etc/init.d/95_net-check.service 644
    $unmount "$tree" || missing "cannot unmount $tree"
    wait "$mounter"
    mounter=
}

# The lines for machines, wherever they stand in a line of the console $1.
lines() {
    tr -d '\r' <"$1" | sed -n 's/^.*\(redox-\(test\|net\)[: ].*\)$/\1/p'
}

# boot LOG: starts the copy, waits for its end.
boot() {
    log=$1
    : >"$log"
    # shellcheck disable=SC2086 # words, as they are meant
    "$QEMU" -accel $ACCEL -no-reboot -machine pc -cpu max -smp 1 -m 1024 \
        -display none -vga none -monitor none \
        -drive "file=$copy,format=raw,if=none,id=disk" \
        -device ahci,id=ahci -device ide-hd,drive=disk,bus=ahci.0 \
        -netdev "user,id=net,restrict=on,tftp=$dir/tftp,guestfwd=tcp:10.0.2.100:7-cmd:cat" \
        -device e1000,netdev=net \
        -serial "file:$log" </dev/null &
    machine=$!
    shown=0
    waited=0
    why="no end within $LIMIT s"
    while [ $waited -lt "$LIMIT" ]; do
        sleep 1
        waited=$((waited + 1))
        lines "$log" | tail -n +$((shown + 1)) | sed "s/^/$daemon: /"
        shown=$(lines "$log" | wc -l)
        if lines "$log" | grep -q '^redox-test: .* skipped$'; then
            why=
            break
        fi
        if ! kill -0 "$machine" 2>/dev/null; then
            why="the machine stopped"
            break
        fi
    done
    kill "$machine" 2>/dev/null
    wait "$machine" 2>/dev/null
    machine=
    if [ -n "$why" ]; then
        echo "run.sh: $why; the console is in $log" >&2
        exit 3
    fi
}

if [ -n "$ICOUNT" ]; then
    ACCEL="tcg,thread=single -icount shift=$ICOUNT,sleep=on"
fi
mkdir "$tree" "$dir/tftp"
seq 1 30000 | head -c 100000 >"$dir/tftp/numbers"
measured=
[ $# -gt 0 ] || measured=--measured
# In turns, so that whatever else the host does meets both.
for number in $(seq "$BOOTS"); do
    for daemon in $DAEMONS; do
        # Tests once; further boots are for the medians. No name begins with a dash.
        if [ "$number" -eq 1 ]; then
            # shellcheck disable=SC2086 # it may be none
            fill "$daemon" $measured "$@"
        else
            fill "$daemon" --measured -
        fi
        boot "$LOGS/$daemon.$number.log"
    done
done

# Medians of each, in the order in which they were measured; the last of a failed one is a text.
for daemon in $DAEMONS; do
    for number in $(seq "$BOOTS"); do
        lines "$LOGS/$daemon.$number.log" | sed -n "s/^redox-net \([^ ]*\) \([0-9.]*\)$/$daemon \1 \2/p"
    done
done | awk '
    function median(text,    values, count, i, j, value) {
        count = split(text, values, " ")
        for (i = 2; i <= count; i++) {
            value = values[i] + 0
            for (j = i - 1; j >= 1 && values[j] + 0 > value; j--)
                values[j + 1] = values[j]
            values[j + 1] = value
        }
        return values[int((count + 1) / 2)]
    }
    !(($2) in seen) { seen[$2] = 1; order[++names] = $2 }
    { all[$1, $2] = all[$1, $2] " " $3 }
    END {
        printf "%-44s %10s %10s %7s\n", "", "netstack", "tund", "ratio"
        for (i = 1; i <= names; i++) {
            name = order[i]
            old = median(all["netstack", name]); new = median(all["tund", name])
            ratio = "-"
            if (old + 0 > 0 && new + 0 > 0)
                ratio = sprintf("%.2f", name ~ /per_s$/ ? new / old : old / new)
            printf "%-44s %10s %10s %7s\n", name, old == "" ? "-" : old, new == "" ? "-" : new, ratio
        }
    }'

for number in $(seq "$BOOTS"); do
    log=$LOGS/tund.$number.log
    [ ! -f "$log" ] || lines "$log" | grep -q '^redox-test: .* 0 failed,' || exit 1
done
exit 0
