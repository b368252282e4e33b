#!/bin/sh
# Checks and measures the network of a Redox image, once on netstack and once on tund.
#
#   usage: run.sh IMAGE [TEST...]
#
# IMAGE is a bootable disk image of Redox with netstack, bare or partitioned, BIOS, not encrypted,
# with base's init. Nothing is written to it: the programs go into copies, into one of them tund as
# well, and each copy is booted in QEMU with an adapter on a network of QEMU's own. Prints the lines of
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
#   NIC       the adapter, a device of QEMU's                                              (e1000)
#   LIMIT     seconds until a machine is stopped                                            (1500)
#   LOGS      the directory for serial consoles, DAEMON.BOOT.log                               (.)
set -u

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)

: "${BOOTS:=1}"
: "${DAEMONS:=netstack tund}"
: "${ICOUNT:=}"
: "${LIMIT:=1500}"
: "${LOGS:=.}"
# shellcheck source=tests/redox/image.sh
. "$here/../image.sh"
: "${PROGRAMS:=$here/target/$built}"

prepare "$@"
shift
for program in net-check net-measure; do
    [ -f "$PROGRAMS/$program" ] || missing "no program: $PROGRAMS/$program (PROGRAMS)"
done
[ -d "$LOGS" ] || missing "no directory: $LOGS (LOGS)"

# fill DAEMON ARGUMENT...: makes the copy in which that daemon is the network.
fill() {
    daemon=$1
    shift
    open_copy
    put "$PROGRAMS/net-check" usr/bin/net-check 755
    put "$PROGRAMS/net-measure" usr/bin/net-measure 755
    [ "$daemon" != tund ] || put_tund
    put_service net-check "Tests of the network" "$@"
    close_copy
}

icount=
if [ -n "$ICOUNT" ]; then
    ACCEL=tcg,thread=single
    icount="-icount shift=$ICOUNT,sleep=on"
fi
network=,tftp=$dir/tftp,guestfwd=tcp:10.0.2.100:7-cmd:cat
network="$network,guestfwd=tcp:10.0.2.100:9-cmd:head -c 4000000 /dev/zero"
mkdir "$dir/tftp"
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
        label="$daemon: "
        # shellcheck disable=SC2086 # two words, or none
        boot_pc "$LOGS/$daemon.$number.log" "$network" $icount
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
    [ ! -f "$log" ] || passed "$log" || exit 1
done
exit 0
