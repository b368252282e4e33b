//! A simulated Ethernet adapter: frames and time are made by hand.

use std::sync::Arc;
use std::time::Duration;

use net::ifnet::AdapterId;
use net::link::Mac;
use net::{Host, Services};
use scheme::errno;
use scheme::local::{Clock, Local, ManualClock, Process};
use scheme::{Now, OpenFlags};

use super::system::machine;

pub const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const EVERYBODY: [u8; 6] = [0xff; 6];

/// One adapter of a stack, with the test at its other end.
pub struct Wire {
    pub local: Arc<Local<Host>>,
    pub process: Process<Host>,
    clock: Arc<ManualClock>,
    pub port: AdapterId,
}

impl Wire {
    /// An adapter that has its link-local address, and found no router.
    pub fn new() -> Self {
        let wire = Self::fresh();
        for _ in 0..15 {
            wire.wait(1000);
            while wire.sent().is_some() {}
        }
        wire
    }

    /// An adapter that has just been attached.
    pub fn fresh() -> Self {
        let (local, clock) = machine(5, Services::ECHO);
        let port = local.with_server(|net| net.attach_ethernet(US)).unwrap();
        local.pump();
        let process = local.process(1, 0);
        Self {
            local,
            process,
            clock,
            port,
        }
    }

    pub fn set(&self, path: &str, line: &str) -> Result<(), errno::Errno> {
        super::program::set(&self.process, path, line).map(drop)
    }

    pub fn text(&self, path: &str) -> String {
        let file = self
            .process
            .open(&format!("/scheme/netcfg/{path}"), OpenFlags::READ)
            .unwrap();
        let mut text = vec![0; 8192];
        let len = self.process.read(file, &mut text).unwrap();
        self.process.close(file).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    }

    pub fn send(&self, dst: [u8; 6], ethertype: u16, payload: &[u8]) {
        let frame = [&dst[..], &PEER.0, &ethertype.to_be_bytes(), payload].concat();
        self.local
            .with_server(|net| net.handle_frame(self.port, &frame));
        self.local.pump();
    }

    /// The next frame that the stack sent.
    pub fn frame(&self) -> Option<net::packet::Packet> {
        self.local.with_server(|net| net.poll_frame(self.port))
    }

    /// The same, split: destination, type, and payload.
    pub fn sent(&self) -> Option<([u8; 6], u16, Vec<u8>)> {
        let frame = self.frame()?;
        assert_eq!(frame[6..12], US.0);
        let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        Some((
            frame[..6].try_into().unwrap(),
            ethertype,
            frame[14..].to_vec(),
        ))
    }

    /// Gives the adapter 10.0.0.1.
    pub fn take_address(&self) {
        self.set("ifaces/eth0/addr/set", "10.0.0.1/24\n").unwrap();
        self.assert_claimed();
    }

    /// Checks that every station is asked for 10.0.0.1 (RFC 5227 section 2.1.1), and that it is
    /// announced.
    pub fn assert_claimed(&self) {
        let (dst, ethertype, arp) = self.sent().unwrap();
        assert_eq!((dst, ethertype), (EVERYBODY, 0x0806));
        assert_eq!(arp[6..8], [0, 1]);
        assert_eq!(
            (&arp[14..18], &arp[24..28]),
            (&[0; 4][..], &[10, 0, 0, 1][..])
        );
        self.assert_announced();
    }

    /// Checks that 10.0.0.1 is announced to every station (RFC 5227 section 3).
    pub fn assert_announced(&self) {
        let (dst, ethertype, arp) = self.sent().unwrap();
        assert_eq!((dst, ethertype), (EVERYBODY, 0x0806));
        assert_eq!(arp[6..8], [0, 1]);
        assert_eq!(arp[8..14], US.0);
        assert_eq!(
            (&arp[14..18], &arp[24..28]),
            (&[10, 0, 0, 1][..], &[10, 0, 0, 1][..])
        );
    }

    pub fn now(&self) -> Now {
        self.clock.now()
    }

    pub fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
        self.local.pump();
    }

    pub fn arp(&self, operation: u8, source: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&head[..], &PEER.0, &source, &[0; 6], &target].concat()
    }

    pub fn assert_ledger_closes(&self) {
        self.local.with_server(|net| {
            let ifp = net.interface("eth0").unwrap();
            assert!(ifp.stats.input().closes(), "{:?}", ifp.stats.input());
            assert!(ifp.stats.output().closes(), "{:?}", ifp.stats.output());
        });
    }
}
