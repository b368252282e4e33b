//! Internet checksums (RFC 1071) over a pseudo-header.

use std::net::IpAddr;

/// Whether the checksum inside `payload` is right. It covers a pseudo-header with the addresses.
pub(crate) fn verify(src: &IpAddr, dst: &IpAddr, protocol: u8, payload: &[u8]) -> bool {
    fill(src, dst, protocol, payload) == 0
}

/// The checksum to put into `payload`, whose checksum field is zero: over a pseudo-header (RFC 768,
/// RFC 8200 section 8.1). Addresses of different families give a useless sum, but no panic.
pub(crate) fn fill(src: &IpAddr, dst: &IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let addr = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => sum(&addr.octets()),
        IpAddr::V6(addr) => sum(&addr.octets()),
    };
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let pseudo = [
        addr(src),
        addr(dst),
        sum(&len.to_be_bytes()),
        sum(&[0, protocol]),
    ];
    !pseudo.into_iter().fold(sum(payload), add)
}

/// Whether the checksum inside `bytes`, without a pseudo-header, is right.
pub(crate) fn verify_plain(bytes: &[u8]) -> bool {
    fill_plain(bytes) == 0
}

/// The checksum to put into `bytes`, whose checksum field is zero.
pub(crate) fn fill_plain(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The ones' complement sum of two words.
fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u16::from(carry)
}

/// The ones' complement sum of the 16-bit words, an odd last byte padded with zero. The byte order
/// does not matter, and many words may be added at a time (RFC 1071 section 2).
fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut sum = 0_u64;
    for word in words.iter().chain([&last]) {
        let (added, carry) = sum.overflowing_add(u64::from_ne_bytes(*word));
        sum = added + u64::from(carry);
    }
    let quarters = [sum >> 48, sum >> 32, sum >> 16, sum].map(|quarter| quarter as u16);
    u16::from_be(quarters.into_iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_smoltcp_and_total() {
        use smoltcp::wire::{IpProtocol, checksum};

        let v4: [IpAddr; 2] = ["10.0.0.1", "127.255.3.4"].map(|addr| addr.parse().unwrap());
        let v6: [IpAddr; 2] = ["fd00::1", "ff02::1:ff12:3456"].map(|addr| addr.parse().unwrap());
        for [src, dst] in [v4, v6] {
            for len in [0, 1, 8, 1500, 65_535] {
                let payload: Vec<u8> = (0..len).map(|byte: u32| byte as u8).collect();
                let pseudo =
                    checksum::pseudo_header(&src.into(), &dst.into(), IpProtocol::Udp, len);
                let expected = checksum::combine(&[pseudo, checksum::data(&payload)]);
                assert_eq!(
                    fill(&src, &dst, 17, &payload),
                    !expected,
                    "{src} {dst} {len}"
                );
            }
        }
        fill(&v4[0], &v6[0], 17, b"odd");
    }

    #[test]
    fn no_carry_is_lost() {
        let ones = [0xff; 64];
        assert_eq!(sum(&ones), 0xffff);
        assert_eq!(sum(&[0xff, 0xff, 0, 1]), 1);
        assert_eq!(
            sum(&[&[0xff; 8][..], &[0; 7], &[1], &[0xff; 8]].concat()),
            1
        );
    }
}
