//! Everything that programs have set, as text: the lines that set it again on another host.
//!
//! A line is the path of a file and what is written there, `netcfg/ip/forwarding 1`. Settings of
//! a tun device that have no file are lines of `tun/N`. The text holds what is there after the
//! last close of every unit, and nothing that is learned again: no addresses that an adapter made
//! itself, and no routes of routers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::time::Duration;

use scheme::errno::{self, Errno};

use super::node::Node;
use super::{commit, generation};
use crate::ifnet::{Driver, IfAddr, Ifnet, parse_decimal};
use crate::ip::LOOPBACK_ADDRS;
use crate::net::Net;
use crate::route::{Origin, RouteSpec, write_route};
use crate::tun::UnitState;

/// Most bytes of the text. If more is set, what the machine needs most comes first: its own
/// interfaces, their routes, then tunnels.
pub const MAX_STATE: usize = 512 << 10;
/// Most times that a group which a program joined again and again is joined again.
const MOST_JOINS: u32 = 16;
/// A text that took no more work than this is made after each change: the bytes in it, and for
/// each route looked at, [`ROUTE`].
const LITTLE: usize = 32 << 10;
/// The work of looking at a route.
const ROUTE: usize = 16;
/// A text that took more work is made once in this time, and in as many times this as it took
/// [`MUCH`].
const PACE: Duration = Duration::from_millis(100);
/// See [`PACE`].
const MUCH: usize = 1 << 20;
/// Most refused lines that the log mentions one by one.
const MOST_TOLD: usize = 8;

/// Makes the text when it has changed, and begins a host with one.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// Lines of a text for adapters that were not found yet, by the name of the interface.
    waiting: BTreeMap<String, Vec<Waiting>>,
    /// The generation that was last made a text of.
    kept: Option<u64>,
    /// The earliest time of the next text.
    due: Duration,
    /// Whether the last text was too long.
    full: bool,
}

/// A line that waits for its adapter.
#[derive(Debug)]
struct Waiting {
    line: String,
    /// Of a route, the place that it has among its equals.
    place: Option<u64>,
}

impl Keeper {
    /// The text, if it may have changed since the last call.
    pub(crate) fn poll(&mut self, net: &Net) -> Option<String> {
        let (now, generation) = (net.ip.now.monotonic, generation(&net.ip));
        if self.kept == Some(generation) || now < self.due {
            return None;
        }
        self.kept = Some(generation);
        let state = self.save(net);
        let work = state.text.len() + state.routes * ROUTE;
        if work > LITTLE {
            self.due = now + PACE * u32::try_from(1 + work / MUCH).unwrap_or(u32::MAX);
        }
        if state.full && !self.full {
            log::warn!("more is set than survives the end of the daemon");
        }
        self.full = state.full;
        Some(state.text)
    }

    /// The time at which a change can be made a text of, if that is in the future.
    pub(crate) fn deadline(&self, net: &Net) -> Option<Duration> {
        let changed = self.kept != Some(generation(&net.ip));
        (changed && net.ip.now.monotonic < self.due).then_some(self.due)
    }

    /// Sets everything that the text says. A line that is refused is left out. Lines for adapters
    /// that are not there wait until they are [attached](Self::attached). Units that are not open
    /// are afterwards as after a last close.
    pub(crate) fn restore(&mut self, net: &mut Net, text: &[u8]) {
        let text = &text[..text.len().min(MAX_STATE)];
        let mut refused = Refused::default();
        for line in text.split(|&byte| byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let done = std::str::from_utf8(line).map_err(|_| errno::EINVAL);
            let done = done.and_then(|line| self.restore_line(net, line));
            refused.note(&String::from_utf8_lossy(line), done);
        }
        net.tun.settle(&mut net.ip);
    }

    /// Sets what the text says of an interface that has just been made.
    pub(crate) fn attached(&mut self, net: &mut Net, name: &str) {
        let mut refused = Refused::default();
        for Waiting { line, place } in self.waiting.remove(name).into_iter().flatten() {
            let done = self.restore_line(net, &line);
            if let (Ok(()), Some(place)) = (done, place) {
                move_route(net, &line, place);
            }
            refused.note(&line, done);
        }
    }

    fn restore_line(&mut self, net: &mut Net, line: &str) -> Result<(), Errno> {
        let (path, text) = line.split_once(' ').ok_or(errno::EINVAL)?;
        if let Some(unit) = path.strip_prefix("tun/") {
            let state = UnitState::parse(text).ok_or(errno::EINVAL)?;
            return net.tun.restore(&mut net.ip, unit, state);
        }
        let path = path.strip_prefix("netcfg/").ok_or(errno::ENOENT)?;
        let name = interface_of(path, text);
        if let Some(name) = name.filter(|name| is_adapter(name) && !is_there(net, name)) {
            let place = (path == "route/add").then(|| net.ip.routes.reserve());
            let line = line.to_owned();
            let waiting = self.waiting.entry(name).or_default();
            waiting.push(Waiting { line, place });
            return Ok(());
        }
        let node = Node::parse(net, path).ok_or(errno::ENOENT)?;
        commit(net, &node, text.as_bytes())
    }

    /// Everything that is set now.
    fn save(&self, net: &Net) -> State {
        let mut state = State::default();
        // What a router advertised is learned again.
        if let Some(addr) = net.nameserver {
            state.line(format_args!("netcfg/resolv/nameserver {addr}"));
        }
        let forwarding = u8::from(net.ip.forwarding);
        state.line(format_args!("netcfg/ip/forwarding {forwarding}"));
        let debug = net.tun.debug();
        state.line(format_args!("netcfg/debug/if_tun_debug {debug}"));
        let (tunnels, others): (Vec<_>, Vec<_>) = net.ip.ifs.iter().partition(|ifp| is_tun(ifp));
        for ifp in &others {
            state.interface(net, ifp);
        }
        for ifp in &others {
            state.missing_routes(net, ifp);
        }
        state.routes(net);
        for Waiting { line, .. } in self.waiting.values().flatten() {
            state.line(format_args!("{line}"));
        }
        for ifp in tunnels {
            if let Driver::Tun(unit) = ifp.driver
                && let Some(unit_state) = net.tun.state(&net.ip, unit)
            {
                // Groups may have been joined before the unit lost the flag.
                let joined = ifp.groups.values().any(|members| members.settings > 0);
                let before = match joined {
                    true => unit_state.with_multicast(),
                    false => unit_state,
                };
                state.line(format_args!("tun/{unit} {before}"));
                state.interface(net, ifp);
                if before != unit_state {
                    state.line(format_args!("tun/{unit} {unit_state}"));
                }
            }
        }
        state
    }
}

/// The text while it is made.
#[derive(Debug, Default)]
struct State {
    text: String,
    /// A line did not fit. None is added after it.
    full: bool,
    /// How many routes were looked at.
    routes: usize,
}

impl State {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        let before = self.text.len();
        if !self.full {
            // A String takes everything.
            let _ = writeln!(self.text, "{line}");
            self.full = self.text.len() > MAX_STATE;
        }
        if self.full {
            self.text.truncate(before);
        }
    }

    fn interface(&mut self, net: &Net, ifp: &Ifnet) {
        let base = format!("netcfg/ifaces/{}", ifp.name);
        if let Driver::Ethernet(adapter) = ifp.driver {
            if let Some(mac) = net.link.mac_set(adapter) {
                self.line(format_args!("{base}/mac {mac}"));
            }
            let autoconf = u8::from(net.link.autoconf(adapter));
            self.line(format_args!("{base}/autoconf {autoconf}"));
        }
        self.line(format_args!("{base}/mtu {}", ifp.mtu));
        for (at, addr) in addrs_set(net, ifp).enumerate() {
            let verb = if at == 0 { "set" } else { "add" };
            self.line(format_args!("{base}/addr/{verb} {addr}"));
        }
        if ifp.is_loopback() && ifp.addrs.is_empty() {
            for addr in LOOPBACK_ADDRS {
                self.line(format_args!("{base}/addr/rm {addr}"));
            }
        }
        for (group, members) in &ifp.groups {
            for _ in 0..members.settings.min(MOST_JOINS) {
                self.line(format_args!("{base}/multicast join {group}"));
            }
        }
        if !ifp.is_loopback() {
            self.line(format_args!("{base}/queue {}", ifp.snd.describe()));
        }
        // No unit is up after its last close.
        if !is_tun(ifp) {
            let flags = if ifp.is_up() { "up" } else { "down" };
            self.line(format_args!("{base}/flags {flags}"));
        }
    }

    /// The routes that somebody removed, of those that come with addresses.
    fn missing_routes(&mut self, net: &Net, ifp: &Ifnet) {
        let missing = addrs_set(net, ifp).filter_map(|addr| net.ip.missing_route(ifp.index, addr));
        for prefix in missing.collect::<BTreeSet<_>>() {
            self.line(format_args!("netcfg/route/rm {prefix} dev {}", ifp.name));
        }
    }

    /// The routes that somebody added, but those over tunnels.
    fn routes(&mut self, net: &Net) {
        let mut line = String::new();
        for (prefix, route) in net.ip.routes.iter() {
            self.routes += 1;
            if self.full {
                return;
            }
            if route.origin != Origin::Static || route.tunnel {
                continue;
            }
            let name = match route.dev.map(|dev| net.ip.ifs.get(dev)) {
                Some(None) => continue,
                Some(Some(ifp)) => Some(ifp.name.as_str()),
                None => None,
            };
            line.clear();
            write_route(&mut line, &prefix, route, name);
            self.line(format_args!("netcfg/route/add {}", line.trim_end()));
        }
    }
}

/// The addresses of an interface that it did not give itself.
fn addrs_set<'a>(net: &'a Net, ifp: &'a Ifnet) -> impl Iterator<Item = &'a IfAddr> {
    let self_made = move |addr: &IfAddr| match ifp.driver {
        Driver::Ethernet(adapter) => net.link.is_autoconfigured(adapter, &addr.addr),
        Driver::Loopback | Driver::Tun(_) => false,
    };
    ifp.addrs.iter().filter(move |addr| !self_made(addr))
}

fn is_tun(ifp: &Ifnet) -> bool {
    matches!(ifp.driver, Driver::Tun(_))
}

fn is_there(net: &Net, name: &str) -> bool {
    net.ip.ifs.by_name(name).is_some()
}

/// Whether this is a name for the interface of an adapter, which may be found at any time.
fn is_adapter(name: &str) -> bool {
    let number = name.strip_prefix("eth").and_then(parse_decimal::<u16>);
    number.is_some()
}

/// The interface that a line is about.
fn interface_of(path: &str, text: &str) -> Option<String> {
    match path {
        "route/add" | "route/rm" => RouteSpec::parse(text)?.dev,
        _ => {
            let (name, _) = path.strip_prefix("ifaces/")?.split_once('/')?;
            Some(name.to_owned())
        }
    }
}

/// Moves the route that a line has set to its place.
fn move_route(net: &mut Net, line: &str, place: u64) {
    let spec = line
        .split_once(' ')
        .and_then(|(_, text)| RouteSpec::parse(text));
    let Some(spec) = spec else {
        return;
    };
    let dev = spec
        .dev
        .as_deref()
        .and_then(|name| net.ip.ifs.by_name(name));
    let metric = spec.metric.unwrap_or(0);
    net.ip.routes.move_to(spec.prefix, place, |route| {
        route.dev == dev && route.metric == metric && route.origin == Origin::Static
    });
}

/// Refused lines, for the log.
#[derive(Default)]
struct Refused(usize);

impl Refused {
    fn note(&mut self, line: &str, done: Result<(), Errno>) {
        if let Err(error) = done {
            self.0 += 1;
            if self.0 <= MOST_TOLD {
                log::warn!("cannot be restored: {line:.100}: {error}");
            }
        }
    }
}

impl Drop for Refused {
    fn drop(&mut self) {
        if let Some(more @ 1..) = self.0.checked_sub(MOST_TOLD) {
            log::warn!("cannot be restored: {more} more lines");
        }
    }
}
