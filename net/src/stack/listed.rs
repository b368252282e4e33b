//! A socket as a listing shows it, and the places from which a listing goes on.
//!
//! Sockets come and go while a program reads the list of them. Each has a place that does not change,
//! so a listing that goes on behind a place shows every socket that is there all the time exactly
//! once.

use std::net::IpAddr;

use slab::Slab;

use super::Owner;
use super::tcp::ConnectionStats;

/// What a listing shows of a socket.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The name of its state in RFC 9293; `None` if it is not of TCP.
    pub(crate) state: Option<&'static str>,
    /// Our end, with a port if the protocol has ports.
    pub(crate) local: (IpAddr, Option<u16>),
    /// The other end, likewise; unspecified for none.
    pub(crate) remote: (IpAddr, Option<u16>),
    /// Bytes that wait to be read; of a listener, connections that wait to be accepted.
    pub(crate) recv: usize,
    /// Bytes that are not yet acknowledged; of a listener, its backlog.
    pub(crate) send: usize,
    /// Its owner; `None` if nobody holds it.
    pub(crate) owner: Option<Owner>,
    /// What a connection knows of its path.
    pub(crate) path: Option<ConnectionStats>,
}

/// The first occupied slot from `at` on; moves `at` behind it.
pub(super) fn next_of<'a, T>(slots: &'a Slab<T>, at: &mut usize) -> Option<(usize, &'a T)> {
    let mut keys = *at..slots.capacity();
    let found = keys.find_map(|key| Some((key, slots.get(key)?)))?;
    *at = found.0 + 1;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_on_behind_slots_that_were_emptied() {
        let mut slots: Slab<u8> = (0..5).map(|key| (key, key as u8)).collect();
        let mut at = 0;
        assert_eq!(next_of(&slots, &mut at), Some((0, &0)));
        slots.remove(0);
        slots.remove(1);
        slots.remove(3);
        let rest = std::iter::from_fn(|| next_of(&slots, &mut at).map(|(key, _)| key));
        assert_eq!(rest.collect::<Vec<_>>(), [2, 4]);
    }
}
