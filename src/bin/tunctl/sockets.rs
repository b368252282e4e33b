//! The list of sockets: its lines, and a table of them that users of `ss` know.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::report::{print_json, say};
use crate::tree::{Failure, Tree};

/// Names of the pairs that every socket has, which columns show.
const COLUMNS: [&str; 3] = ["recv", "send", "pid"];

/// A socket: a line of `netcfg/sockets`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Socket {
    pub(crate) protocol: String,
    /// The state of a TCP socket, the protocol number of a raw one, and else `-`.
    pub(crate) state: String,
    pub(crate) local: String,
    pub(crate) remote: String,
    /// Every other name and its value, in the order of the line.
    #[serde(flatten)]
    pub(crate) pairs: Map<String, Value>,
}

impl Socket {
    /// Parses a line; `None` if it is none of a socket.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        let mut socket = Self {
            protocol: words.next()?,
            state: words.next()?,
            local: words.next()?,
            remote: words.next()?,
            pairs: Map::new(),
        };
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let value = value.parse::<u64>().map_or(Value::from(value), Value::from);
            socket.pairs.insert(name, value);
        }
        Some(socket)
    }

    /// A number by its name; 0 if the line does not have it.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.pairs.get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Whether it has no other end.
    fn is_unconnected(&self) -> bool {
        let addr = self.remote.strip_suffix(":0").unwrap_or(&self.remote);
        matches!(addr, "0.0.0.0" | "[::]" | "::")
    }

    /// Whether strangers may reach it: a listener, or a socket of datagrams without another end.
    fn listens(&self) -> bool {
        match self.protocol.as_str() {
            "tcp" => self.state == "LISTEN",
            _ => self.is_unconnected(),
        }
    }

    /// The word for its state.
    pub(crate) fn state(&self) -> &str {
        match self.protocol.as_str() {
            "tcp" => &self.state,
            _ if self.is_unconnected() => "UNCONN",
            _ => "CONN",
        }
    }

    /// The protocol as `ss` names it; of a raw socket, with its number.
    pub(crate) fn kind(&self) -> String {
        match self.protocol.as_str() {
            "ip" => format!("ip/{}", self.state),
            protocol => protocol.to_owned(),
        }
    }

    /// What TCP knows of its path, with units.
    fn info(&self) -> String {
        let mut words = Vec::new();
        for (name, value) in &self.pairs {
            if COLUMNS.contains(&name.as_str()) {
                continue;
            }
            words.push(match (name.strip_suffix("_us"), value.as_u64()) {
                (Some(name), Some(micros)) => format!("{name}:{:.3}ms", micros as f64 / 1e3),
                (None, Some(rate)) if name == "delivery_rate" => format!("{name}:{rate}B/s"),
                // RFC 5681 section 3.1: arbitrarily high, until there was a loss.
                (None, Some(none)) if name == "ssthresh" && none == u64::from(u32::MAX) => {
                    continue;
                }
                (_, Some(number)) => format!("{name}:{number}"),
                (_, None) => format!("{name}:{}", value.as_str().unwrap_or_default()),
            });
        }
        words.join(" ")
    }
}

/// Every socket.
pub(crate) fn read(tree: &Tree) -> Result<Vec<Socket>, Failure> {
    let text = tree.read("netcfg/sockets")?;
    Ok(text.lines().filter_map(Socket::parse).collect())
}

/// Which sockets are shown, and what of them.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Only sockets of TCP
    #[arg(short, long)]
    tcp: bool,
    /// Only sockets of UDP
    #[arg(short, long)]
    udp: bool,
    /// Only sockets for whole packets and for pings
    #[arg(short = 'w', long)]
    raw: bool,
    /// Only sockets that strangers may reach: listeners, and those without another end
    #[arg(short, long)]
    listening: bool,
    /// Show addresses and ports as numbers, which is always done
    #[arg(short, long)]
    numeric: bool,
    /// Show what TCP knows of its path
    #[arg(short, long)]
    info: bool,
}

impl Options {
    fn shows(&self, socket: &Socket) -> bool {
        let any = !(self.tcp || self.udp || self.raw);
        let kind = match socket.protocol.as_str() {
            "tcp" => self.tcp,
            "udp" => self.udp,
            _ => self.raw,
        };
        (any || kind) && (!self.listening || socket.listens())
    }
}

pub(crate) fn run(tree: &Tree, options: &Options, json: bool) -> Result<(), Failure> {
    let mut sockets = read(tree)?;
    sockets.retain(|socket| options.shows(socket));
    if json {
        return print_json(&sockets);
    }
    say(&table(&sockets, options.info))
}

fn table(sockets: &[Socket], info: bool) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "Netid",
        "State",
        "Recv-Q",
        "Send-Q",
        "Local Address:Port",
        "Peer Address:Port",
        "Process",
    ]);
    // Nobody has port 0: any.
    let name = |name: &str| match name.strip_suffix(":0") {
        Some(addr) => format!("{addr}:*"),
        None => name.to_owned(),
    };
    for socket in sockets {
        let pid = match socket.number("pid") {
            0 => String::new(),
            pid => format!("PID {pid}"),
        };
        table.add_row([
            socket.kind(),
            socket.state().to_owned(),
            socket.number("recv").to_string(),
            socket.number("send").to_string(),
            name(&socket.local),
            name(&socket.remote),
            pid,
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let text = table.trim_fmt();
    if !info {
        return text;
    }
    let mut lines = text.lines();
    let mut out: Vec<String> = lines.next().into_iter().map(str::to_owned).collect();
    for (line, socket) in lines.zip(sockets) {
        out.push(line.to_owned());
        let info = socket.info();
        if !info.is_empty() {
            out.push(format!("      {info}"));
        }
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 5] = [
        "tcp LISTEN 0.0.0.0:80 0.0.0.0:0 recv 2 send 128 pid 7",
        "tcp ESTABLISHED 10.0.0.1:22 10.0.0.2:40000 recv 0 send 5840 pid 42 srtt_us 20311 rto_us 220000 \
         cwnd 14480 ssthresh 4294967295 bypass tun0",
        "udp - [fd00::1]:53 [::]:0 recv 512 send 0 pid 9",
        "icmp - 0.0.0.0 10.0.0.2 recv 0 send 0 pid 5",
        "ip 89 0.0.0.0 0.0.0.0 recv 0 send 0 pid 0",
    ];

    fn sockets() -> Vec<Socket> {
        LINES
            .iter()
            .filter_map(|line| Socket::parse(line))
            .collect()
    }

    #[test]
    fn a_table_that_users_of_ss_know() {
        let text = table(&sockets(), true);
        let words: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_ascii_whitespace().collect())
            .collect();
        assert_eq!(
            words[1],
            [
                "tcp",
                "LISTEN",
                "2",
                "128",
                "0.0.0.0:80",
                "0.0.0.0:*",
                "PID",
                "7"
            ]
        );
        assert_eq!(words[2][..3], ["tcp", "ESTABLISHED", "0"]);
        assert_eq!(
            words[3],
            [
                "srtt:20.311ms",
                "rto:220.000ms",
                "cwnd:14480",
                "bypass:tun0"
            ]
        );
        assert_eq!(words[4][..2], ["udp", "UNCONN"]);
        assert_eq!(words[5][..2], ["icmp", "CONN"]);
        assert_eq!(words[6][..2], ["ip/89", "UNCONN"]);
        assert_eq!(words[6].last(), Some(&"0.0.0.0"));
    }

    #[test]
    fn choices_as_those_of_ss() {
        let shown = |words: &[&str]| -> Vec<_> {
            #[derive(clap::Parser)]
            struct Cli {
                #[command(flatten)]
                options: Options,
            }
            let words = std::iter::once("sockets").chain(words.iter().copied());
            let options = <Cli as clap::Parser>::parse_from(words).options;
            let sockets = sockets().into_iter();
            let shown = sockets.filter(|socket| options.shows(socket));
            shown.map(|socket| socket.kind()).collect()
        };
        assert_eq!(shown(&["-tuln"]), ["tcp", "udp"]);
        assert_eq!(shown(&["-t"]), ["tcp", "tcp"]);
        assert_eq!(shown(&["-l"]), ["tcp", "udp", "ip/89"]);
        assert_eq!(shown(&["-w"]), ["icmp", "ip/89"]);
        assert_eq!(shown(&[]).len(), LINES.len());
    }

    #[test]
    fn every_pair_is_there_for_programs() {
        let json = serde_json::to_value(&sockets()[1]).unwrap();
        assert_eq!(
            (&json["cwnd"], &json["bypass"]),
            (&14_480.into(), &"tun0".into())
        );
        assert_eq!(json["remote"], "10.0.0.2:40000");
    }
}
