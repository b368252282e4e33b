#!/bin/sh
# A full tunnel out of a Redox image: the unit starts tun-wireguard after the network, and a wireguard-go
# outside, in a namespace with the emulator, reaches the image through it.
#
#   usage: run.sh IMAGE
#
# IMAGE is as for ../net/run.sh, whose environment holds here too: TUND REDOXFS QEMU ACCEL NIC LIMIT, and LOGS
# for the serial console, wireguard.log. NETWORKS is what goes through the tunnel (0.0.0.0/0, ::/0). OPTIONS are
# the program's, for example --single, to measure what batches save. TUN_WIREGUARD is the program, built for
# x86_64-unknown-redox (wireguard/target/x86_64-unknown-redox/release/tun-wireguard). Needs root, iproute2,
# wireguard-go and wireguard-tools.
#
#   exit 0  everything passed        exit 2  something is missing, and which
#        1  something failed
set -u

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)

: "${LIMIT:=300}"
: "${LOGS:=.}"
: "${OPTIONS:=}"
: "${NETWORKS:=0.0.0.0/0, ::/0}"
# shellcheck source=tests/redox/image.sh
. "$here/../image.sh"
: "${TUN_WIREGUARD:=$top/wireguard/target/$built/tun-wireguard}"

prepare "$@"
[ -f "$TUN_WIREGUARD" ] || missing "no program: $TUN_WIREGUARD (TUN_WIREGUARD)"
[ -d "$LOGS" ] || missing "no directory: $LOGS (LOGS)"
for tool in ip nsenter wg wireguard-go python3; do
    command -v "$tool" >/dev/null || missing "no $tool"
done

umask 077
wg genkey >"$dir/ours"
wg genkey >"$dir/theirs"
# The address of the machine outside, in QEMU's network.
cat >"$dir/conf" <<CONF
[Interface]
PrivateKey = $(cat "$dir/ours")
Address = 10.9.0.1/24, fd09::1/64
[Peer]
PublicKey = $(wg pubkey <"$dir/theirs")
Endpoint = 10.0.2.2:51820
AllowedIPs = $NETWORKS
CONF

open_copy
put_tund
sed 's/^cmd = "tund"$/&\nargs = ["--serve", "echo,discard,chargen"]/' "$top/redox/init.d/10_smolnetd.service" >"$dir/unit"
put "$dir/unit" etc/init.d/10_smolnetd.service 644
put "$TUN_WIREGUARD" usr/bin/tun-wireguard 755
# shellcheck disable=SC2086 # several words, or none
sed "s|^args = \[|&$(strings $OPTIONS)|" "$top/redox/wireguard/20_wireguard.service" >"$dir/unit"
put "$dir/unit" etc/init.d/20_wireguard.service 644
mkdir -p "$tree/etc/net"
put "$dir/conf" etc/net/wireguard.conf 600
close_copy

python3 "$here/outside.py" "$dir" "$LOGS/wireguard.log" "$LIMIT" "$QEMU" -accel "$ACCEL" -no-reboot \
    -machine pc -cpu max -smp 1 -m 1024 -display none -vga none -monitor none \
    -drive "file=$copy,format=raw,if=none,id=disk" -device ahci,id=ahci -device ide-hd,drive=disk,bus=ahci.0 \
    -netdev user,id=net -device "$NIC,netdev=net" -serial "file:$LOGS/wireguard.log"
