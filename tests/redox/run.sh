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
#   NIC         the adapter, a device of QEMU's                                            (e1000)
#   LIMIT       seconds until the machine is stopped                                           (900)
#   LOG         where the serial console goes                                    (redox-test.log)
set -u

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

: "${QEMU_ARGS:=}"
: "${LIMIT:=900}"
: "${LOG:=redox-test.log}"
# shellcheck source=tests/redox/image.sh
. "$here/image.sh"
: "${TUNCTL:=$(dirname "$TUND")/tunctl}"
: "${REDOX_TEST:=$here/target/$built/redox-test}"

prepare "$@"
shift
[ -f "$REDOX_TEST" ] || missing "no test program: $REDOX_TEST (REDOX_TEST)"

open_copy
put_tund
put "$REDOX_TEST" usr/bin/redox-test 755
[ ! -f "$TUNCTL" ] || put "$TUNCTL" usr/bin/tunctl 755
[ $# -gt 0 ] || set -- --with-cost
put_service redox-test "Tests of tund" "$@"
close_copy

if [ -n "$QEMU_ARGS" ]; then
    # shellcheck disable=SC2046 # words, as they are meant
    boot "$LOG" $(printf %s "$QEMU_ARGS" | sed "s|%IMAGE%|$copy|g")
else
    boot_pc "$LOG" ""
fi
passed "$LOG" || exit 1
exit 0
