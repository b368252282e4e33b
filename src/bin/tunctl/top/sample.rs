//! What is read from the tree, and what happened between two looks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use serde::Serialize;

use crate::report::counters;
use crate::sockets::{self, Socket};
use crate::tree::{Failure, Tree};

/// Rates that are kept: of the last minute, with a look every second.
pub(super) const KEPT: usize = 60;

/// One look at the tree.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    interfaces: Vec<Interface>,
    sockets: Vec<Socket>,
}

#[derive(Debug)]
struct Interface {
    name: String,
    up: bool,
    stats: BTreeMap<String, u64>,
}

impl Sample {
    pub(super) fn read(tree: &Tree) -> Result<Self, Failure> {
        let mut interfaces = Vec::new();
        for name in tree.interfaces()? {
            let read = || -> Result<Interface, Failure> {
                Ok(Interface {
                    up: tree
                        .get(&name, "flags")?
                        .trim()
                        .split(',')
                        .any(|flag| flag == "UP"),
                    stats: counters(&tree.get(&name, "stats")?),
                    name: name.clone(),
                })
            };
            match read() {
                Ok(interface) => interfaces.push(interface),
                // An interface that was removed in the meantime is not shown.
                Err(_) if !tree.interfaces()?.contains(&name) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(Self {
            at: Instant::now(),
            interfaces,
            sockets: sockets::read(tree)?,
        })
    }

    fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.name == name)
    }
}

/// What was seen lately.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<Sample>,
    now: Now,
    /// Bits a second in and out of each interface, oldest first.
    rates: BTreeMap<String, [VecDeque<u64>; 2]>,
    /// For each reason of each interface, how many looks ago it last rose.
    rose: BTreeMap<(String, String), usize>,
}

/// The picture in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Now {
    pub(super) interfaces: Vec<Rates>,
    pub(super) drops: Vec<Drops>,
    pub(super) sockets: Vec<Busy>,
}

/// What an interface does, per second.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rates {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) in_bits: u64,
    pub(super) out_bits: u64,
    pub(super) in_packets: u64,
    pub(super) out_packets: u64,
    pub(super) drops: u64,
    /// Packets in the send queue; `None` where tund does not tell.
    pub(super) queued: Option<u64>,
    /// The delay of the packet that left the queue last, microseconds; likewise.
    pub(super) delay_us: Option<u64>,
}

/// Packets that an interface drops for a reason.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Drops {
    pub(super) interface: String,
    pub(super) reason: String,
    pub(super) per_second: u64,
    pub(super) total: u64,
}

/// What a socket does.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Busy {
    /// Bits a second that were acknowledged, and that arrived; only TCP tells.
    pub(super) out_bits: u64,
    pub(super) in_bits: u64,
    #[serde(flatten)]
    pub(super) socket: Socket,
}

impl History {
    /// The picture as it stands.
    pub(super) fn now(&self) -> &Now {
        &self.now
    }

    /// Bits a second of the last minute, in and out, oldest first.
    pub(super) fn rates(&self, interface: &str) -> Option<&[VecDeque<u64>; 2]> {
        self.rates.get(interface)
    }

    /// Takes in another look.
    pub(super) fn add(&mut self, sample: Sample) {
        let took = self.last.as_ref().map(|last| sample.at - last.at);
        let per_second = |before: u64, now: u64| match took {
            Some(took) if !took.is_zero() => {
                (now.saturating_sub(before) as f64 / took.as_secs_f64()).round() as u64
            }
            _ => 0,
        };
        let before = |name: &str| self.last.as_ref().and_then(|last| last.interface(name));
        let mut now = Now::default();
        let mut rising = Vec::new();
        for Interface { name, up, stats } in &sample.interfaces {
            let old = before(name).map_or(stats, |interface| &interface.stats);
            let rate = |counter: &str| {
                let get = |from: &BTreeMap<String, u64>| from.get(counter).copied().unwrap_or(0);
                per_second(get(old), get(stats))
            };
            let mut drops = 0;
            for (counter, &total) in stats {
                let Some(reason) = counter.strip_prefix("drop.") else {
                    continue;
                };
                let rose = total > old.get(counter).copied().unwrap_or(0);
                drops += rate(counter);
                rising.push((name, reason, rose, rate(counter), total));
            }
            now.interfaces.push(Rates {
                name: name.clone(),
                up: *up,
                in_bits: rate("ibytes") * 8,
                out_bits: rate("obytes") * 8,
                in_packets: rate("ipackets"),
                out_packets: rate("opackets"),
                drops,
                queued: stats.get("queue.packets").copied(),
                delay_us: stats.get("queue.delay_us").copied(),
            });
        }
        for (interface, reason, rose, per_second, total) in rising {
            let key = (interface.clone(), reason.to_owned());
            match (rose, self.rose.get_mut(&key)) {
                (true, _) => drop(self.rose.insert(key.clone(), 0)),
                (false, Some(ago)) => *ago += 1,
                (false, None) => continue,
            }
            if self.rose.get(&key).is_some_and(|&ago| ago < KEPT) {
                now.drops.push(Drops {
                    interface: key.0,
                    reason: key.1,
                    per_second,
                    total,
                });
            }
        }
        now.drops
            .sort_by_key(|drops| std::cmp::Reverse((drops.per_second, drops.total)));
        let old: BTreeMap<_, _> = self
            .last
            .iter()
            .flat_map(|last| &last.sockets)
            .map(|socket| (name_of(socket), socket))
            .collect();
        for socket in &sample.sockets {
            let moved = |counter: &str| {
                // The counters of a connection wrap around.
                let before = old.get(&name_of(socket))?.number(counter) as u32;
                Some(u64::from(
                    (socket.number(counter) as u32).wrapping_sub(before),
                ))
            };
            let rate = |counter: &str| per_second(0, moved(counter).unwrap_or(0)) * 8;
            now.sockets.push(Busy {
                out_bits: rate("acked"),
                in_bits: rate("received"),
                socket: socket.clone(),
            });
        }
        let waits = |socket: &Socket| match socket.state.as_str() {
            // A listener counts connections, not bytes.
            "LISTEN" => 0,
            _ => socket.number("recv") + socket.number("send"),
        };
        now.sockets.sort_by_key(|busy| {
            std::cmp::Reverse((busy.out_bits + busy.in_bits, waits(&busy.socket)))
        });
        if took.is_some() {
            for rates in &now.interfaces {
                let kept = self.rates.entry(rates.name.clone()).or_default();
                for (kept, rate) in kept.iter_mut().zip([rates.in_bits, rates.out_bits]) {
                    kept.push_back(rate);
                    if kept.len() > KEPT {
                        kept.pop_front();
                    }
                }
            }
        }
        let there = |name: &str| now.interfaces.iter().any(|rates| rates.name == name);
        self.rates.retain(|name, _| there(name));
        self.rose.retain(|(name, _), _| there(name));
        self.now = now;
        self.last = Some(sample);
    }
}

/// What tells a socket from others.
fn name_of(socket: &Socket) -> (&str, &str, &str) {
    (&socket.protocol, &socket.local, &socket.remote)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    /// Two looks, one second apart, at a tunnel that carries a connection and drops.
    pub(crate) fn history() -> History {
        let start = Instant::now();
        let look = |second: u64| {
            Sample {
            at: start + Duration::from_secs(second),
            interfaces: vec![Interface {
                name: "tun0".to_owned(),
                up: true,
                stats: counters(&format!(
                    "ipackets {}\nibytes {}\nopackets 7\nobytes 700\ndrop.no_port {}\ndrop.purged 9\n\
                     queue.packets 3\nqueue.delay_us 1500\n",
                    second * 100,
                    second * 125_000,
                    second * 5
                )),
            }],
            sockets: [
                "udp - 0.0.0.0:53 0.0.0.0:0 recv 0 send 0 pid 4".to_owned(),
                format!(
                    "tcp ESTABLISHED 10.0.0.1:22 10.0.0.2:40000 recv 0 send 9 pid 5 acked {} received 0",
                    u32::MAX.wrapping_add(250_000 * second as u32)
                ),
            ]
            .iter()
            .filter_map(|line| Socket::parse(line))
            .collect(),
        }
        };
        let mut history = History::default();
        history.add(look(0));
        history.add(look(1));
        history
    }

    #[test]
    fn rates_are_differences() {
        let history = history();
        let now = history.now();
        let rates = &now.interfaces[0];
        assert_eq!(
            (rates.in_bits, rates.in_packets, rates.out_bits),
            (1_000_000, 100, 0)
        );
        assert_eq!(
            (rates.drops, rates.queued, rates.delay_us),
            (5, Some(3), Some(1500))
        );
        assert_eq!(history.rates("tun0").unwrap()[0], [1_000_000]);
    }

    #[test]
    fn only_reasons_that_rise_are_shown_and_the_busiest_socket_is_first() {
        let history = history();
        let now = history.now();
        let reasons: Vec<_> = now.drops.iter().map(|drops| &drops.reason).collect();
        assert_eq!(reasons, ["no_port"]);
        assert_eq!((now.drops[0].per_second, now.drops[0].total), (5, 5));
        assert_eq!(now.sockets[0].out_bits, 2_000_000);
        assert_eq!(now.sockets[0].socket.protocol, "tcp");
    }
}
