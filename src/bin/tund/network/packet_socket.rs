//! Links of Linux, and their frames: `packet(7)`.
//!
//! Frames are handed out as they were on the wire. A frame whose VLAN tag the system took out has it
//! again; one that never was on a wire, such as from the other end of a veth, gets its checksums,
//! and is [split](super::offload) where it holds many segments.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::c_int;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libc::{ifreq, sockaddr_ll, socklen_t, tpacket_auxdata, tpacket_stats};
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::Frames;
use super::offload::{self, Offload};

/// Bytes of frames that wait to be received, the system's own structures included.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long a frame waits for room, before it is refused. Less than what is taken for a driver that
/// does not answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest frame with its VLAN tag: segments that were put together make a whole packet.
const LONGEST: usize = 14 + 4 + 65_535;
/// Bytes of an Ethernet header before the type, or the VLAN tag.
const ADDRESSES: usize = 12;
/// `TPID` of a tag whose own is not told.
const ETHERTYPE_VLAN: u16 = 0x8100;

/// A network interface of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    name: String,
    index: c_int,
    pub(super) mac: [u8; 6],
    mtu: u16,
    /// Whether it is up, and has a carrier.
    pub(super) running: bool,
}

/// The frames of a link.
pub(crate) struct PacketSocket {
    socket: OwnedFd,
    link: Link,
    incoming: Mutex<Incoming>,
    /// Frames that could not be handed out.
    missed: AtomicU64,
}

struct Incoming {
    buffer: Vec<u8>,
    /// Frames that were received as one.
    split: VecDeque<Vec<u8>>,
}

impl Link {
    /// The link with this name, as it is now. It is an error if it carries no Ethernet.
    pub(super) fn look_up(name: &str) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let index = ask(&socket, name, libc::SIOCGIFINDEX)?;
        let flags = ask(&socket, name, libc::SIOCGIFFLAGS)?;
        let mtu = ask(&socket, name, libc::SIOCGIFMTU)?;
        let hardware = ask(&socket, name, libc::SIOCGIFHWADDR)?;
        // SAFETY: each of these requests filled the field of its name.
        let (index, flags, mtu, hardware) = unsafe {
            (
                index.ifr_ifru.ifru_ifindex,
                flags.ifr_ifru.ifru_flags,
                mtu.ifr_ifru.ifru_mtu,
                hardware.ifr_ifru.ifru_hwaddr,
            )
        };
        if hardware.sa_family != libc::ARPHRD_ETHER {
            return Err(io::Error::other("it is not an Ethernet"));
        }
        let running = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(Self {
            name: name.to_owned(),
            index,
            mac: std::array::from_fn(|at| hardware.sa_data[at].cast_unsigned()),
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            running: c_int::from(flags) & running == running,
        })
    }

    /// The addresses that the host has on it: one IPv4 address, and those of IPv6.
    pub(super) fn addresses(&self) -> Vec<std::net::IpAddr> {
        let mut found = Vec::new();
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
        if let Ok(socket) = socket
            && let Ok(answer) = ask(&socket, &self.name, libc::SIOCGIFADDR)
        {
            // SAFETY: the request filled this field.
            let addr = unsafe { answer.ifr_ifru.ifru_addr };
            let octets: [u8; 4] = std::array::from_fn(|at| addr.sa_data[2 + at].cast_unsigned());
            found.push(octets.into());
        }
        // "fe800000000000000000000000000001 02 40 20 80 eth0"
        let text = std::fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some(addr), Some(name)) = (words.next(), words.next_back())
                && name == self.name
                && let Ok(bits) = u128::from_str_radix(addr, 16)
            {
                found.push(std::net::Ipv6Addr::from(bits).into());
            }
        }
        found
    }
}

impl PacketSocket {
    /// Opens the frames of a link. `EPERM` without the right to it.
    pub(super) fn open(link: &Link) -> io::Result<Self> {
        // It receives nothing until it is bound.
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let on: c_int = 1;
        for option in [
            libc::PACKET_AUXDATA,
            libc::PACKET_IGNORE_OUTGOING,
            libc::PACKET_VNET_HDR,
        ] {
            set(&socket, option, &on)?;
        }
        // The groups that are joined are known above. A switch passes on what is reported there.
        let multicast = libc::packet_mreq {
            mr_ifindex: link.index,
            mr_type: libc::PACKET_MR_ALLMULTI as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&socket, libc::PACKET_ADD_MEMBERSHIP, &multicast)?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(SEND_TIMEOUT))?;
        bind(&socket, link.index)?;
        Ok(Self {
            socket,
            link: link.clone(),
            incoming: Mutex::new(Incoming {
                buffer: vec![0; Offload::LEN + LONGEST],
                split: VecDeque::new(),
            }),
            missed: AtomicU64::new(0),
        })
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Frames for PacketSocket {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Incoming {
            buffer: whole,
            split,
        } = &mut *self.incoming.lock();
        while split.is_empty() {
            let (len, tag) = match receive(&self.socket, whole) {
                Ok(received) => received,
                // It cannot be told how these segments were put together.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.missed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Err(error) => return Err(error),
            };
            // It is longer than the buffer, or not a frame.
            let frames = whole
                .get_mut(..len)
                .and_then(|received| received.split_first_chunk_mut())
                .and_then(|(header, frame)| offload::undo(Offload::parse(header), frame));
            let Some(frames) = frames else {
                self.missed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            split.extend(frames);
            if let Some(tag) = tag {
                for frame in &mut *split {
                    frame.splice(ADDRESSES..ADDRESSES, tag);
                }
            }
        }
        let frame = split.pop_front().unwrap_or_default();
        let len = frame.len().min(buffer.len());
        buffer[..len].copy_from_slice(&frame[..len]);
        Ok(len)
    }

    fn missed(&self) -> u64 {
        let overrun = get::<tpacket_stats>(&self.socket, libc::PACKET_STATISTICS);
        let overrun = overrun.map_or(0, |stats| stats.tp_drops);
        self.missed.swap(0, Ordering::Relaxed) + u64::from(overrun)
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(&[0; Offload::LEN]), IoSlice::new(frame)];
        Ok(rustix::io::writev(&self.socket, &parts).map(drop)?)
    }

    /// A link that changed is another one.
    fn probe(&self) -> io::Result<()> {
        let link = Link::look_up(&self.link.name)?;
        match link.running {
            false => Err(io::Error::from_raw_os_error(libc::ENETDOWN)),
            true if link == self.link => Ok(()),
            true => Err(io::Error::other("it has changed")),
        }
    }

    fn mtu(&self) -> Option<u16> {
        Some(self.link.mtu)
    }
}

/// Receives a frame behind its [`Offload`]. Returns the number of bytes, which may be more than
/// there was room for, and the VLAN tag that the frame had.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Option<[u8; 4]>)> {
    // Aligned as the messages in it are.
    let mut control = [0u64; 8];
    let mut iov = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all of its fields may be zero.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the message names the buffer and the control buffer, which outlive the call, with
    // their lengths.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let mut tag = None;
    // SAFETY: the message is as the system left it, and its control buffer is still there.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: the pointer is to a whole header in the control buffer.
        let kind = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if kind == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: the data of a message of this kind is such a structure.
            let data = unsafe {
                libc::CMSG_DATA(header)
                    .cast::<tpacket_auxdata>()
                    .read_unaligned()
            };
            tag = vlan_tag(&data);
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok((len, tag))
}

fn vlan_tag(data: &tpacket_auxdata) -> Option<[u8; 4]> {
    let has = |status| data.tp_status & status != 0;
    let tpid = match has(libc::TP_STATUS_VLAN_TPID_VALID) {
        true => data.tp_vlan_tpid,
        false => ETHERTYPE_VLAN,
    };
    has(libc::TP_STATUS_VLAN_VALID).then(|| {
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
        [a, b, c, d]
    })
}

/// Asks the system something about a link.
fn ask(socket: &OwnedFd, name: &str, request: libc::c_ulong) -> io::Result<ifreq> {
    // SAFETY: all of its fields may be zero.
    let mut argument: ifreq = unsafe { zeroed() };
    // With a zero behind it.
    if name.len() >= argument.ifr_name.len() {
        return Err(ErrorKind::NotFound.into());
    }
    for (to, from) in argument.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed() as _;
    }
    // SAFETY: these requests read and write one such structure.
    match unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut argument) } {
        0 => Ok(argument),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets an option of a packet socket, whose argument is a `T`.
fn set<T: Copy>(socket: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as socklen_t;
    let value: *const T = value;
    // SAFETY: the value is readable for its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            value.cast(),
            len,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The value of an option of a packet socket, of which `T` has the form: integers only.
fn get<T: Copy>(socket: &OwnedFd, option: c_int) -> io::Result<T> {
    // SAFETY: integers may be zero.
    let mut value: T = unsafe { zeroed() };
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: the value is writable for its length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    match result {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// From now on the socket receives every frame of a link.
fn bind(socket: &OwnedFd, index: c_int) -> io::Result<()> {
    // SAFETY: all of its fields may be zero.
    let mut addr: sockaddr_ll = unsafe { zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    addr.sll_ifindex = index;
    let len = size_of::<sockaddr_ll>() as socklen_t;
    // SAFETY: the address is readable for its length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
