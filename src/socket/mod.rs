//! Sockets as files. So far `icmp`.

mod icmp;

pub(crate) use icmp::{IcmpSockets, SOCKET, stat as icmp_stat};
