//! Segments that no connection sees: for nobody, or for one in TIME-WAIT.

use smoltcp::wire::{TCP_HEADER_LEN, TcpPacket};

use super::Tcp;
use super::connection::{Flags, Header, Options, Segment, SeqNumber, TIME_WAIT, TimeWait};
use crate::ifnet::{IfIndex, IfName};
use crate::ip::header::{Endpoints, proto};
use crate::ip::{Ip, checksum};
use crate::packet::Packet;

/// A segment without text and options, with a checksum of zero.
fn bare(endpoints: &Endpoints, seq: SeqNumber, ack: SeqNumber, flags: Flags) -> Packet {
    let header = Header {
        src_port: endpoints.local.1,
        dst_port: endpoints.remote.1,
        seq,
        ack,
        window: 0,
        flags,
        options: Options::default(),
    };
    header.emit(&[], &[])
}

/// Fills in the checksum of a segment.
pub(super) fn fill_checksum(endpoints: &Endpoints, segment: &mut Packet) {
    let (src, dst) = (endpoints.local.0, endpoints.remote.0);
    let sum = checksum::fill(&src, &dst, proto::TCP, segment);
    if segment.len() >= TCP_HEADER_LEN {
        TcpPacket::new_unchecked(&mut segment[..]).set_checksum(sum);
    }
}

impl Tcp {
    /// Answers a segment that is for nobody (RFC 9293 section 3.10.7.1).
    pub(super) fn refuse(
        &mut self,
        ip: &mut Ip,
        rcvif: IfIndex,
        endpoints: &Endpoints,
        segment: &Segment<'_>,
    ) {
        if segment.flags.has(Flags::RST) {
            return;
        }
        let zero = SeqNumber(0);
        let (seq, ack, flags) = match segment.flags.has(Flags::ACK) {
            true => (segment.ack, zero, Flags::RST),
            false => (zero, segment.end(), Flags::RST.with(Flags::ACK)),
        };
        let answer = bare(endpoints, seq, ack, flags);
        self.stats.resets += 1;
        self.answer(ip, rcvif, endpoints, answer, None);
    }

    /// Deals with a segment for a connection in TIME-WAIT that begins no new one (RFC 9293 section
    /// 3.10.7.4).
    pub(super) fn answer_late(
        &mut self,
        ip: &mut Ip,
        rcvif: IfIndex,
        endpoints: &Endpoints,
        wait: TimeWait,
        segment: &Segment<'_>,
    ) {
        // A reset must not end the wait (RFC 1337). What is empty needs no answer, and would never
        // see an end if the other side waits as well.
        if segment.flags.has(Flags::RST) || segment.len() == 0 {
            return;
        }
        // The other end has not heard the last ACK.
        if segment.flags.has(Flags::FIN) {
            let until = ip.now.monotonic + TIME_WAIT;
            self.waits.insert(*endpoints, wait, until);
        }
        let answer = bare(endpoints, wait.snd_nxt, wait.rcv_nxt, Flags::ACK);
        self.answer(ip, rcvif, endpoints, answer, None);
    }

    /// Sends a segment to where one came from, by any way there is that does not lead through
    /// `bypass`.
    pub(super) fn answer(
        &self,
        ip: &mut Ip,
        rcvif: IfIndex,
        endpoints: &Endpoints,
        mut segment: Packet,
        bypass: Option<IfName>,
    ) {
        fill_checksum(endpoints, &mut segment);
        let (src, dst) = (endpoints.local.0, endpoints.remote.0);
        let never = ip.bypassed(bypass);
        if let Ok(path) = ip.route_back(rcvif, Some(src), &dst, never) {
            let _ = ip.ip_output(path, src, dst, proto::TCP, path.hops, segment);
        }
    }
}
