//! A tun program in batch mode: one read brings every packet that is queued, one write sends many.
//!
//! It is an echo of UDP, on every port of every address in its tunnel.
//!
//! ```sh
//! cargo run -p tun-client --example batch -- /tmp/net      # where `tund --mount` serves; /scheme on Redox
//! ```

use std::{env, fs, io};

use tun::{Tun, Unit, batch};

/// Most bytes of one read. A packet that does not fit stays queued for the next one.
const BUFFER: usize = 256 * 1024;

fn main() -> io::Result<()> {
    let root = env::args().nth(1).or(env::var("TUND_ROOT").ok());
    let root = root.unwrap_or("/scheme".to_owned());

    let tun = Tun::open(&root, Unit::Clone)?;
    tun.set_transient(true)?;
    tun.set_batch(true)?;

    let name = tun.name()?;
    let addresses = format!("{root}/netcfg/ifaces/{name}/addr/add");
    fs::write(addresses, "10.8.0.1/24\n")?;
    println!("{name}: send datagrams to 10.8.0.2");

    let mut buf = vec![0; BUFFER];
    let mut replies = Vec::new();
    loop {
        let len = match tun.read(&mut buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        // The bytes read are a sequence of frames: each a length, the packet, and zeros up to a
        // multiple of four. `packets` iterates over them, `push` builds the same format.
        replies.clear();
        for packet in batch::packets(&buf[..len]) {
            let mut packet = packet.to_vec();
            if turn_round(&mut packet).is_some() {
                batch::push(&mut replies, &packet);
            }
        }
        if !replies.is_empty() {
            tun.write(&replies)?;
        }
        println!("{} in one read", batch::packets(&buf[..len]).count());
    }
}

/// Sends an IPv4 UDP datagram back to its sender. `None` for every other packet.
fn turn_round(packet: &mut [u8]) -> Option<()> {
    const UDP: u8 = 17;

    if packet.first()? >> 4 != 4 || packet.get(9) != Some(&UDP) {
        return None;
    }
    // Addresses and ports are only exchanged, so no checksum changes.
    let header = usize::from(packet[0] & 0xf) * 4;
    let (src, dst) = packet.get_mut(header..header + 4)?.split_at_mut(2);
    src.swap_with_slice(dst);
    let (src, dst) = packet.get_mut(12..20)?.split_at_mut(4);
    src.swap_with_slice(dst);
    Some(())
}
