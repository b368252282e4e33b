//! A tun program: it answers every ping that the system sends into its tunnel.
//!
//! ```sh
//! cargo run -p tun-client --example echo -- /tmp/net   # where `tund --mount` serves; /scheme on Redox
//! tunctl --root /tmp/net ping 10.9.0.2                 # elsewhere; any of 10.9.0.0/24 or fd09::/64
//! ```

use std::{env, fs, io};

use tun::{Tun, Unit};

/// Bytes of address family before each packet.
const HEAD: usize = 4;

fn main() -> io::Result<()> {
    let root = env::args().nth(1).or(env::var("TUND_ROOT").ok());
    let root = root.unwrap_or("/scheme".to_owned());

    // The lowest free tunnel. Opening it makes the interface, which is transient: it is destroyed
    // when its program ends.
    let tun = Tun::open(&root, Unit::Clone)?;
    tun.set_transient(true)?;
    // The family before each packet, so that the tunnel carries both IPv4 and IPv6.
    tun.set_ifhead(true)?;

    // Settings are lines of text. The first address brings the interface up, and makes the route
    // that leads packets for its network into the tunnel.
    let name = tun.name()?;
    let addresses = format!("{root}/netcfg/ifaces/{name}/addr/add");
    fs::write(addresses, "10.9.0.1/24\nfd09::1/64\n")?;
    println!("{name}: ping 10.9.0.2 or fd09::2");

    let mut buf = [0; 65_536];
    loop {
        // One read is one packet. It waits until there is one.
        let len = match tun.read(&mut buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        // One write is one packet. The family is still in front of it.
        if answer(&mut buf[HEAD..len]).is_some() {
            tun.write(&buf[..len])?;
        }
    }
}

/// Turns an echo request into its reply. `None` for every other packet.
fn answer(packet: &mut [u8]) -> Option<()> {
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;

    // Source and destination are only exchanged, which leaves the checksum as it is; the new type
    // changes it by a difference.
    match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&ICMP) => {
            let header = usize::from(packet[0] & 0xf) * 4;
            retype(packet.get_mut(header..)?, 8, 0)?;
            let (src, dst) = packet.get_mut(12..20)?.split_at_mut(4);
            src.swap_with_slice(dst);
        }
        6 if packet.get(6) == Some(&ICMPV6) => {
            retype(packet.get_mut(40..)?, 128, 129)?;
            let (src, dst) = packet.get_mut(8..40)?.split_at_mut(16);
            src.swap_with_slice(dst);
        }
        _ => return None,
    }
    Some(())
}

/// Changes the type of an ICMP message, and its checksum with it (RFC 1624, equation 3).
fn retype(message: &mut [u8], from: u8, to: u8) -> Option<()> {
    let [kind, _code, sum @ ..] = message.first_chunk_mut::<4>()?;
    if *kind != from {
        return None;
    }
    *kind = to;
    // The type is the upper byte of its word.
    let word = |kind: u8| u16::from_be_bytes([kind, 0]);
    let new = u32::from(!u16::from_be_bytes(*sum)) + u32::from(!word(from)) + u32::from(word(to));
    let new = (new & 0xffff) + (new >> 16);
    let new = (new & 0xffff) + (new >> 16);
    *sum = (!(new as u16)).to_be_bytes();
    Some(())
}
