//! Resets and SYNs on a connection that stands, which anybody can forge (RFC 5961).
//!
//! smoltcp takes a reset anywhere in the window, and says nothing to a SYN without an ACK. RFC 9293
//! section 3.10.7.4 has both answered by an ACK: a peer that meant it replies with a reset of
//! exactly the number that the ACK named, and one that started anew gets rid of the old connection
//! that way (section 3.5.1). smoltcp keeps its sequence numbers to itself, so they are read off
//! what it sends.

use std::time::Duration;

use smoltcp::socket::tcp::State;
use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use super::answers::bare;
use super::patience::Standing;
use super::{Flow, FlowId, Tcp};
use crate::ifnet::DropReason;
use crate::ip::header::proto;
use crate::ip::{Ip, Verdict};

/// Least time between two challenges on one connection: forged segments must not have us flood the
/// peer (RFC 5961 section 7).
const PAUSE: Duration = Duration::from_millis(500);

/// What a challenge needs besides the numbers of both directions.
#[derive(Debug, Default)]
pub(super) struct Challenge {
    /// The window as last sent.
    pub(super) window: u16,
    /// What came since the last ACK, which RCV.NXT is ahead of it.
    pub(super) unacked: usize,
    /// When one may be sent again.
    next: Duration,
}

impl Flow {
    /// A segment was taken in: RCV.NXT moves with the bytes to read, and with the FIN.
    pub(super) fn note_received(&mut self, before: Standing) {
        let after = self.standing();
        let ended = |standing: Standing| {
            matches!(
                standing.state,
                State::CloseWait | State::LastAck | State::Closing | State::TimeWait
            )
        };
        let data = after.unread.saturating_sub(before.unread);
        self.challenge.unacked += data + usize::from(ended(after) && !ended(before));
    }
}

impl Tcp {
    /// Keeps from a connection that stands what could end it by a guess, and answers that with an
    /// ACK. `None` if the segment is fine.
    pub(super) fn challenge(&mut self, ip: &mut Ip, id: FlowId, segment: &[u8]) -> Option<Verdict> {
        let tcp = TcpPacket::new_checked(segment).ok()?;
        if !tcp.rst() && !tcp.syn() {
            return None;
        }
        let now = ip.now.monotonic;
        let socket = self.socket(id)?;
        let state = socket.state();
        let room = socket.recv_capacity() - socket.recv_queue();
        if matches!(state, State::Closed | State::Listen | State::SynSent) {
            return None;
        }
        let flow = self.flow_mut(id)?;
        let (send, receive) = (flow.snd_nxt?, flow.rcv_nxt? + flow.challenge.unacked);
        if tcp.rst() {
            let seq = tcp.seq_number();
            if seq == receive {
                return None;
            }
            if seq < receive || seq >= receive + room {
                return Some(Verdict::Dropped(DropReason::NotWanted));
            }
        } else if state == State::SynReceived {
            // The same SYN again, or one that crossed ours.
            return None;
        }
        if now >= flow.challenge.next {
            flow.challenge.next = now + PAUSE;
            let window = flow.challenge.window;
            self.send_challenge(ip, id, send, receive, window);
        }
        Some(Verdict::Dropped(DropReason::NotWanted))
    }

    fn send_challenge(
        &mut self,
        ip: &mut Ip,
        id: FlowId,
        send: TcpSeqNumber,
        receive: TcpSeqNumber,
        window: u16,
    ) {
        let Some(flow) = self.flow(id) else {
            return;
        };
        let (endpoints, hop_limit) = (flow.endpoints, flow.terms.hop_limit);
        let segment = bare(&endpoints, |ack| {
            ack.set_seq_number(send);
            ack.set_ack_number(receive);
            ack.set_ack(true);
            ack.set_window_len(window);
        });
        if let Some(Some(path)) = self.path(ip, id) {
            let (src, dst) = (endpoints.local.0, endpoints.remote.0);
            let _ = ip.ip_output(path, src, dst, proto::TCP, hop_limit, segment);
        }
    }
}
