//! Internet checksums (RFC 1071) over a pseudo-header.

use std::net::IpAddr;

use smoltcp::wire::{IpProtocol, checksum};

/// Whether the checksum inside `payload`, of a protocol that covers its addresses, is right.
pub(crate) fn verify(src: &IpAddr, dst: &IpAddr, protocol: u8, payload: &[u8]) -> bool {
    sum(src, dst, protocol, payload) == !0
}

/// The checksum to put into `payload`, where it is zero now.
pub(crate) fn fill(src: &IpAddr, dst: &IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    !sum(src, dst, protocol, payload)
}

fn sum(src: &IpAddr, dst: &IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let (src, dst) = ((*src).into(), (*dst).into());
    checksum::combine(&[
        checksum::pseudo_header(&src, &dst, IpProtocol::from(protocol), len),
        checksum::data(payload),
    ])
}

/// Whether bytes that contain their checksum, without a pseudo-header, add up.
pub(crate) fn verify_plain(bytes: &[u8]) -> bool {
    checksum::data(bytes) == !0
}

/// The checksum to put into `bytes`, where it is zero now.
pub(crate) fn fill_plain(bytes: &[u8]) -> u16 {
    !checksum::data(bytes)
}
