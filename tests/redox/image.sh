# What run.sh here and the one in net/ share, which source it: a copy of a Redox image, with programs
# and service units of ours, is booted in QEMU, and its serial console followed to the end of the
# tests. Whoever sources it has set `top`, the directory of the project, and LIMIT.
# shellcheck shell=sh

built=x86_64-unknown-redox/release

: "${TUND:=$top/target/$built/tund}"
: "${REDOXFS:=redoxfs}"
: "${QEMU:=qemu-system-x86_64}"
: "${ACCEL:=tcg}"
: "${NIC:=e1000}"

# Stands before each line of a test.
label=
mounter=
machine=

missing() {
    echo "run.sh: $*" >&2
    exit 2
}

# prepare [IMAGE]: checks what is needed to boot it, and makes room for the copy.
prepare() {
    [ $# -ge 1 ] || missing "usage: run.sh IMAGE [TEST...]"
    image=$1
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
    [ -d "$top/redox/init.d" ] || missing "no service units: $top/redox/init.d"
    dir=$(mktemp -d) || exit 2
    copy=$dir/image
    tree=$dir/tree
    trap clean EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir "$tree" || exit 2
}

clean() {
    [ -z "$machine" ] || kill "$machine" 2>/dev/null
    if [ -n "$mounter" ]; then
        $unmount "$tree" 2>/dev/null
        wait "$mounter"
    fi
    rm -rf "$dir"
}

# Makes a copy of the image, and opens it to be filled.
open_copy() {
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
}

# put FILE PATH MODE: into the copy.
put() {
    cp "$1" "$tree/$2" && chmod "$3" "$tree/$2" || missing "cannot write $2 into the image"
}

# Puts the daemon and its service units into the copy.
put_tund() {
    put "$TUND" usr/bin/tund 755
    for unit in "$top"/redox/init.d/*; do
        put "$unit" "etc/init.d/$(basename "$unit")" 644
    done
}

# put_service PROGRAM DESCRIPTION ARGUMENT...: has the copy start it when the network is there.
put_service() {
    program=$1
    description=$2
    shift 2
    cat >"$dir/unit" <<UNIT || exit 2
[unit]
description = "$description"
requires_weak = [
    "10_net.target",
]

[service]
cmd = "$program"
args = [$(strings "$@")]
type = "oneshot_async"
UNIT
    put "$dir/unit" "etc/init.d/95_$program.service" 644
}

# Prints the words as a list of strings.
strings() {
    for word in "$@"; do
        printf '"%s", ' "$word"
    done
}

close_copy() {
    $unmount "$tree" || missing "cannot unmount $tree"
    wait "$mounter"
    mounter=
}

# boot_pc LOG NETWORK ARGUMENT...: boots the copy on a PC with an adapter on a network of QEMU's
# own, with these options.
boot_pc() {
    log=$1
    network=$2
    shift 2
    boot "$log" -machine pc -cpu max -smp 1 -m 1024 -display none -vga none -monitor none \
        -drive "file=$copy,format=raw,if=none,id=disk" \
        -device ahci,id=ahci -device ide-hd,drive=disk,bus=ahci.0 \
        -netdev "user,id=net,restrict=on$network" -device "$NIC,netdev=net" "$@"
}

# boot LOG ARGUMENT...: starts QEMU, and shows the lines of the tests until they are done.
boot() {
    log=$1
    shift
    : >"$log"
    "$QEMU" -accel "$ACCEL" -no-reboot "$@" -serial "file:$log" </dev/null &
    machine=$!
    shown=0
    waited=0
    why="no end within $LIMIT s"
    while [ $waited -lt "$LIMIT" ]; do
        sleep 1
        waited=$((waited + 1))
        show
        if count "$log" >/dev/null; then
            why=
            break
        fi
        if ! kill -0 "$machine" 2>/dev/null; then
            why="the machine stopped"
            break
        fi
        if grep -q 'KERNEL PANIC' "$log"; then
            why="the kernel panicked"
            break
        fi
    done
    kill "$machine" 2>/dev/null
    wait "$machine" 2>/dev/null
    machine=
    # Nobody writes any more: the last line is whole, even without its end.
    [ -z "$(tail -c 1 "$log")" ] || echo >>"$log"
    show
    if [ -n "$why" ]; then
        echo "run.sh: $why; the console is in $log" >&2
        exit 3
    fi
}

# Shows the whole lines that came since the last time, each once. The log grows meanwhile, so it is
# read once; a line that is still being written has no end, and is not counted.
show() {
    lines "$log" >"$dir/lines"
    whole=$(wc -l <"$dir/lines")
    tail -n +$((shown + 1)) "$dir/lines" | head -n $((whole - shown)) | sed "s/^/$label/"
    shown=$whole
}

# The lines for machines, wherever they stand in a line of the console $1.
lines() {
    tr -d '\r' <"$1" | sed -n 's/^.*\(redox-\(test\|cost\|net\)[: ].*\)$/\1/p'
}

# The last line of the tests in the console $1.
count() {
    lines "$1" | grep '^redox-test: [0-9]* passed, [0-9]* failed, [0-9]* skipped$'
}

# Whether every test in the console $1 passed.
passed() {
    count "$1" | grep -q ' 0 failed,'
}
