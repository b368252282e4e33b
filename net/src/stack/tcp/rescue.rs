//! The ACK of a segment that repeats what was received.

use smoltcp::wire::{TCP_HEADER_LEN, TcpPacket, TcpSeqNumber};

use super::Flow;
use super::flows::LARGEST_BUFFER;

impl Flow {
    /// The bare ACK of a segment that repeats what has been received, if it is one and its ACK
    /// should count.
    ///
    /// RFC 9293 section 3.10.7.4 drops such a segment with its ACK, and so does smoltcp. But after a
    /// timeout smoltcp sends its empty ACKs, too, with the sequence number that it starts again
    /// from, not with `SND.NXT`: two ends that retransmit at once never hear each other any more.
    /// So the ACK is heard here, as BSD always did. `known` was acknowledged before it came.
    pub(super) fn rescue_ack(
        &mut self,
        segment: &[u8],
        known: TcpSeqNumber,
    ) -> Option<[u8; TCP_HEADER_LEN]> {
        let (snd_nxt, rcv_nxt) = (self.snd_nxt?, self.rcv_nxt?);
        let tcp = TcpPacket::new_checked(segment).ok()?;
        if !tcp.ack() || tcp.syn() || tcp.rst() {
            return None;
        }
        let (start, ack) = (tcp.seq_number(), tcp.ack_number());
        // No further back than a window reaches: beyond, it is somebody's guess (RFC 5961 section 5).
        let repeated =
            start < known && start + tcp.segment_len() <= known && known <= start + LARGEST_BUFFER;
        if !repeated || snd_nxt < ack {
            return None;
        }
        // With data it is no duplicate ACK (RFC 5681 section 2), so it must not count as more.
        if !tcp.payload().is_empty() {
            if self.rescued.is_some_and(|rescued| ack <= rescued) {
                return None;
            }
            self.rescued = Some(ack);
        }
        let mut bare = [0; TCP_HEADER_LEN];
        bare.copy_from_slice(segment.get(..TCP_HEADER_LEN)?);
        let mut tcp = TcpPacket::new_unchecked(&mut bare[..]);
        tcp.clear_flags();
        tcp.set_ack(true);
        tcp.set_header_len(TCP_HEADER_LEN as u8);
        tcp.set_seq_number(rcv_nxt);
        Some(bare)
    }
}
