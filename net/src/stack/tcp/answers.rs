//! Segments that no socket sees: for nobody, or for a connection in TIME-WAIT.

use smoltcp::wire::{TCP_HEADER_LEN, TcpPacket};

use super::Tcp;
use crate::ifnet::IfIndex;
use crate::ip::header::Endpoints;
use crate::ip::header::{Header, proto};
use crate::ip::output::HOP_LIMIT;
use crate::ip::{Ip, checksum};
use crate::packet::Packet;
use crate::stack::time_wait::{TimeWait, WAIT};

/// A segment from one end to the other without data and options; `fill` sets flags and numbers.
pub(super) fn bare(endpoints: &Endpoints, fill: impl FnOnce(&mut TcpPacket<&mut [u8]>)) -> Packet {
    let Endpoints { local, remote } = endpoints;
    let mut segment = Packet::zeroed(TCP_HEADER_LEN);
    let mut tcp = TcpPacket::new_unchecked(&mut segment[..]);
    tcp.set_src_port(local.1);
    tcp.set_dst_port(remote.1);
    tcp.set_header_len(TCP_HEADER_LEN as u8);
    tcp.clear_flags();
    fill(&mut tcp);
    let sum = checksum::fill(&local.0, &remote.0, proto::TCP, tcp.as_ref());
    tcp.set_checksum(sum);
    segment
}

impl Tcp {
    /// Answers a segment that is for nobody (RFC 9293 section 3.10.7.1).
    pub(super) fn refuse(&mut self, ip: &mut Ip, rcvif: IfIndex, header: &Header, packet: &[u8]) {
        self.answer(ip, rcvif, header, packet, |tcp, rst| {
            rst.set_rst(true);
            if tcp.ack() {
                rst.set_seq_number(tcp.ack_number());
            } else {
                rst.set_ack(true);
                rst.set_ack_number(tcp.seq_number() + tcp.segment_len());
            }
        });
    }

    /// Whether a segment is for a connection in TIME-WAIT; if so, deals with it (RFC 9293 section
    /// 3.10.7.4).
    pub(super) fn late(
        &mut self,
        ip: &mut Ip,
        rcvif: IfIndex,
        endpoints: &Endpoints,
        header: &Header,
        packet: &[u8],
    ) -> bool {
        let now = ip.now.monotonic;
        let Some(wait) = self.waits.get(endpoints, now) else {
            return false;
        };
        let Ok(tcp) = TcpPacket::new_checked(&packet[header.payload..]) else {
            return true;
        };
        // A reset must not end the wait (RFC 1337). What is empty needs no answer, and would never
        // see an end if the other side waits as well.
        if tcp.rst() || tcp.segment_len() == 0 {
            return true;
        }
        // The other end has not heard the last ACK.
        if tcp.fin() {
            let until = now + WAIT;
            self.waits.insert(*endpoints, TimeWait { until, ..wait });
        }
        self.answer(ip, rcvif, header, packet, |_, ack| {
            ack.set_ack(true);
            ack.set_seq_number(wait.seq);
            ack.set_ack_number(wait.ack);
        });
        true
    }

    /// Sends a bare segment back to where one came from.
    fn answer(
        &mut self,
        ip: &mut Ip,
        rcvif: IfIndex,
        header: &Header,
        packet: &[u8],
        fill: impl FnOnce(&TcpPacket<&[u8]>, &mut TcpPacket<&mut [u8]>),
    ) {
        let Ok(tcp) = TcpPacket::new_checked(&packet[header.payload..]) else {
            return;
        };
        let endpoints = Endpoints {
            local: (header.dst, tcp.dst_port()),
            remote: (header.src, tcp.src_port()),
        };
        let reply = bare(&endpoints, |answer| fill(&tcp, answer));
        let path = ip
            .route_to(&header.src, None)
            .or_else(|_| ip.route_to(&header.src, Some(rcvif)));
        if let Ok(path) = path {
            let _ = ip.ip_output(path, header.dst, header.src, proto::TCP, HOP_LIMIT, reply);
        }
    }
}
