//! Internet checksums (RFC 1071) over a pseudo-header.

use std::net::IpAddr;

use smoltcp::wire::checksum;

/// Whether the checksum inside `payload`, of a protocol that covers its addresses, is right.
pub(crate) fn verify(src: &IpAddr, dst: &IpAddr, protocol: u8, payload: &[u8]) -> bool {
    sum(src, dst, protocol, payload) == !0
}

/// The checksum to put into `payload`, where it is zero now.
pub(crate) fn fill(src: &IpAddr, dst: &IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    !sum(src, dst, protocol, payload)
}

/// Adds up the pseudo-header (RFC 768, RFC 8200 section 8.1) word by word: two addresses of
/// different families make a sum that is of no use, but not a panic.
fn sum(src: &IpAddr, dst: &IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let addr = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => checksum::data(&addr.octets()),
        IpAddr::V6(addr) => checksum::data(&addr.octets()),
    };
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    checksum::combine(&[
        addr(src),
        addr(dst),
        u16::from(protocol),
        (len >> 16) as u16,
        len as u16,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_smoltcp_and_total() {
        use smoltcp::wire::IpProtocol;

        let v4: [IpAddr; 2] = ["10.0.0.1", "127.255.3.4"].map(|addr| addr.parse().unwrap());
        let v6: [IpAddr; 2] = ["fd00::1", "ff02::1:ff12:3456"].map(|addr| addr.parse().unwrap());
        for [src, dst] in [v4, v6] {
            for len in [0, 1, 8, 1500, 65_535] {
                let payload: Vec<u8> = (0..len).map(|byte: u32| byte as u8).collect();
                let pseudo =
                    checksum::pseudo_header(&src.into(), &dst.into(), IpProtocol::Udp, len);
                let expected = checksum::combine(&[pseudo, checksum::data(&payload)]);
                assert_eq!(sum(&src, &dst, 17, &payload), expected, "{src} {dst} {len}");
            }
        }
        fill(&v4[0], &v6[0], 17, b"odd");
    }
}
