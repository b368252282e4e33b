//! Shows and changes tund's network through its files alone: on Redox, and on a Linux mount.

// They panic when the output cannot be written: `say` and `note` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg_attr(not(target_os = "linux"), path = "bridge_none.rs")]
mod bridge;
mod bsd;
mod capture;
mod explain;
mod icmp;
mod interrupt;
#[path = "../../manual.rs"]
mod manual;
mod ping;
mod report;
mod sockets;
mod top;
mod tree;

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use bsd::Program;
use manual::Manual;
use tree::{Failure, Tree};

/// Look at the network of tund, and change it.
#[derive(Debug, Parser)]
#[command(
    name = "tunctl",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  tunctl list\n  tunctl addr tun0 set 10.0.0.1/24\n  tunctl route add default dev tun0\n  \
                        tunctl top\n\n`tunctl COMMAND --help` says more about a command."
)]
struct Cli {
    /// Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux
    /// [default: the environment's TUND_ROOT, or /scheme]
    // With a default of its own, every usage line would show it as if it were required.
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List interfaces
    List,
    /// Show everything about an interface
    Show {
        /// Name of the interface, as `tunctl list` shows it
        interface: String,
    },
    /// Bring an interface up
    Up {
        /// Name of the interface, as `tunctl list` shows it
        interface: String,
    },
    /// Take an interface down
    Down {
        /// Name of the interface, as `tunctl list` shows it
        interface: String,
    },
    /// Show or change the addresses of an interface
    #[command(
        after_help = "Examples:\n  tunctl addr tun0\n  tunctl addr tun0 add 10.0.0.1/24\n  \
                            tunctl addr tun0 set 10.0.0.1 peer 10.0.0.2\n  tunctl addr tun0 rm fd00::1/64"
    )]
    Addr {
        /// Name of the interface, as `tunctl list` shows it
        interface: String,
        #[arg(value_parser = ["add", "set", "rm"], requires = "address")]
        verb: Option<String>,
        /// ADDRESS/LENGTH, or ADDRESS peer ADDRESS
        #[arg(num_args = 1..=3)]
        address: Vec<String>,
    },
    /// Show or change the largest packet of an interface, bytes
    #[command(after_help = "Examples:\n  tunctl mtu tun0\n  tunctl mtu tun0 1400")]
    Mtu {
        /// Name of the interface, as `tunctl list` shows it
        interface: String,
        /// The new mtu: 72 to 65535, and for IPv6 at least 1280
        #[arg(value_parser = clap::value_parser!(u16).range(72..=65_535))]
        bytes: Option<u16>,
    },
    /// Show or change routes
    #[command(
        after_help = "Examples:\n  tunctl route\n  tunctl route get 10.8.0.2\n  \
                            tunctl route add default via 10.0.0.2\n  \
                            tunctl route add 10.8.0.0/16 dev tun0\n  \
                            tunctl route add default unreachable metric 1000\n  \
                            tunctl route rm 10.8.0.0/16"
    )]
    Route {
        #[arg(value_parser = ["add", "rm", "get"], requires = "route")]
        verb: Option<String>,
        /// PREFIX [via ROUTER] [dev INTERFACE] [src ADDRESS] [metric N], or PREFIX unreachable
        /// [metric N]; for get, an address
        route: Vec<String>,
    },
    /// Show or change the send queue of an interface
    #[command(after_help = "Example:\n  tunctl queue tun0 fifo limit 500 packets")]
    Queue {
        /// Name of the interface, as `tunctl list` shows it
        interface: String,
        /// fifo limit N packets M bytes
        discipline: Vec<String>,
    },
    /// Show the counters of an interface
    Stats {
        /// Name of the interface, as `tunctl list` shows it
        interface: String,
        /// Show them again and again, with rates; as JSON one object a line
        #[arg(long)]
        watch: bool,
        /// Seconds between two looks, at least 0.01
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval, requires = "watch")]
        interval: Duration,
        /// Say what each reason for drops means, and what to do
        #[arg(long, conflicts_with = "watch")]
        explain: bool,
    },
    /// Show who is connected, as ss does
    #[command(
        after_help = "Examples:\n  tunctl sockets -tl\n  tunctl sockets -t --info\n\nThe processes of \
                            other users' sockets are shown to root only."
    )]
    Sockets(sockets::Options),
    /// Show what the network does now: rates, queues, drops, the busiest sockets
    Top {
        /// Print it once, for scripts
        #[arg(long)]
        once: bool,
        /// Seconds between two looks, at least 0.01
        #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
        interval: Duration,
    },
    /// Write packets to a file that Wireshark and tcpdump read: those of an interface, or all that are
    /// dropped, with the reason
    #[command(
        override_usage = "tunctl capture [OPTIONS] <INTERFACE> <FILE>\n       \
                                tunctl capture [OPTIONS] --drops <FILE>",
        after_help = "Examples:\n  tunctl capture tun0 tun0.pcap\n  tunctl capture tun0 - | tcpdump -r -\n  \
                            tunctl capture --drops drops.pcapng\n  \
                            tshark -r drops.pcapng -T fields -e frame.interface_name -e frame.comment"
    )]
    Capture {
        /// Name of the interface, as `tunctl list` shows it; not with --drops
        #[arg(value_name = "INTERFACE")]
        first: String,
        /// Where to write; - is stdout
        #[arg(
            value_name = "FILE",
            required_unless_present = "drops",
            conflicts_with = "drops"
        )]
        second: Option<PathBuf>,
        /// The packets that any interface drops, as pcapng with the reason as a comment on each
        #[arg(long)]
        drops: bool,
        /// Stop after so many packets
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        packets: Option<u64>,
    },
    /// Send echo requests
    Ping {
        /// Address of the host: IPv4 or IPv6
        #[arg(value_parser = destination)]
        address: ping::Destination,
        /// How many; without it, until interrupted
        #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
        count: Option<u16>,
        /// Seconds between two, at least 0.01
        #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
        interval: Duration,
        /// Bytes of data in each
        #[arg(short, long, default_value_t = 56, value_parser = clap::value_parser!(u16).range(16..=65_000))]
        size: u16,
        /// Seconds to wait for the last reply
        #[arg(short = 'W', long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
        timeout: Duration,
    },
    /// Forward packets of other hosts: on, off, or show
    Forwarding {
        #[arg(value_parser = switch, value_name = "on|off")]
        switch: Option<bool>,
    },
    /// Remove a tun interface that nobody has open
    Destroy {
        /// Name of the interface, as `tunctl list` shows it
        interface: String,
    },
    /// Pump packets between tun/UNIT and a tun device of the Linux kernel, made if need be
    #[command(after_help = "Example, as root:\n  tunctl bridge 0 host0 &\n  \
                            ip addr add 10.0.0.2/24 dev host0; ip link set host0 up\n  \
                            tunctl addr tun0 set 10.0.0.1/24; ping 10.0.0.1")]
    Bridge {
        /// Number of our device: 0 is tun/0 with the interface tun0
        #[arg(value_parser = clap::value_parser!(u16).range(0..=32_767))]
        unit: u16,
        /// Name of the kernel's interface, 1 to 15 bytes
        #[arg(value_parser = host_interface)]
        hostif: String,
    },
    #[command(flatten)]
    Manual(Manual),
}

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name);
    if let Some(program) = name.and_then(OsStr::to_str).and_then(Program::named) {
        let words: Vec<_> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        return program.run(&tree(None), &words);
    }
    let cli = Cli::parse();
    let tree = tree(cli.root);
    match run(&tree, cli.json, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::note(&format!("tunctl: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// The tree at this directory, or where the environment says.
fn tree(root: Option<PathBuf>) -> Tree {
    let root = root.or_else(|| std::env::var_os("TUND_ROOT").map(PathBuf::from));
    Tree::new(root.unwrap_or_else(|| "/scheme".into()))
}

fn run(tree: &Tree, json: bool, command: Command) -> Result<(), Failure> {
    match command {
        Command::List => report::list(tree, json),
        Command::Show { interface } => report::show(tree, &interface, json),
        Command::Up { interface } => tree.set(&interface, "flags", "up"),
        Command::Down { interface } => tree.set(&interface, "flags", "down"),
        Command::Addr {
            interface,
            verb,
            address,
        } => match verb {
            None => report::lines(&tree.get(&interface, "addr/list")?, json),
            Some(verb) => tree.set(&interface, &format!("addr/{verb}"), &address.join(" ")),
        },
        Command::Mtu { interface, bytes } => match bytes {
            None => report::value(&tree.get(&interface, "mtu")?, json, |mtu| {
                mtu.parse::<u16>().ok().into()
            }),
            Some(bytes) => tree.set(&interface, "mtu", &bytes.to_string()),
        },
        Command::Route { verb, route } => match verb {
            None => report::routes(tree, json),
            Some(verb) if verb == "get" => {
                let address = host_address(&route.join(" ")).map_err(Failure::new)?;
                report::route(&tree.lookup(address)?, json)
            }
            Some(verb) => tree.write(&format!("netcfg/route/{verb}"), &route.join(" ")),
        },
        Command::Queue {
            interface,
            discipline,
        } => match discipline.is_empty() {
            true => report::value(&tree.get(&interface, "queue")?, json, |queue| queue.into()),
            false => tree.set(&interface, "queue", &discipline.join(" ")),
        },
        Command::Stats {
            interface,
            watch,
            interval,
            explain,
        } => match watch {
            true => report::watch(tree, &interface, interval, json),
            false => report::stats(tree, &interface, explain, json),
        },
        Command::Sockets(options) => sockets::run(tree, &options, json),
        Command::Top { once, interval } => match once || json {
            true => top::once(tree, interval, json),
            false => top::run(tree, interval),
        },
        Command::Capture {
            first,
            second,
            packets,
            ..
        } => match second {
            Some(file) => capture::run(tree, Some(&first), &file, packets),
            None => capture::run(tree, None, Path::new(&first), packets),
        },
        Command::Ping {
            address,
            count,
            interval,
            size,
            timeout,
        } => {
            let options = ping::Options {
                address,
                count,
                interval,
                size,
                timeout,
            };
            ping::run(tree, &options, json)
        }
        Command::Forwarding { switch } => match switch {
            None => {
                let on = tree.read("netcfg/ip/forwarding")?.trim() == "1";
                let word = if on { "on" } else { "off" };
                report::value(word, json, |_| on.into())
            }
            Some(on) => tree.write("netcfg/ip/forwarding", if on { "1" } else { "0" }),
        },
        Command::Destroy { interface } => tree.set(&interface, "destroy", "1"),
        Command::Bridge { unit, hostif } => bridge::run(tree, unit, &hostif),
        Command::Manual(manual) => {
            let print = |text: &str| report::say(text).map_err(std::io::Error::other);
            let done = manual.run(Cli::command(), print);
            done.map_err(|error| Failure::new(error.to_string()))
        }
    }
}

/// Parses a time to wait. What is longer than a clock can count to is a year.
fn seconds(text: &str) -> Result<Duration, String> {
    const YEAR: f64 = 365.0 * 86_400.0;

    let seconds = text.parse().ok();
    seconds
        .map(|seconds| if seconds > YEAR { YEAR } else { seconds })
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "not a number of seconds".to_owned())
}

/// Parses an address, with an interface behind `%` if it is meant on the link of that.
fn destination(text: &str) -> Result<ping::Destination, String> {
    ping::Destination::parse(text, host_address)
}

/// Parses an address. Names are not looked up.
fn host_address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| "an address is wanted, such as 10.0.0.2 or fd00::2, not a name".to_owned())
}

/// Parses on and off, and what the file says.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "1" => Ok(true),
        "off" | "0" => Ok(false),
        _ => Err("on or off".to_owned()),
    }
}

/// Parses an interval, which must not be too short.
fn interval(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(10);

    seconds(text).and_then(|interval| match interval >= SHORTEST {
        true => Ok(interval),
        false => Err("at least 0.01 seconds".to_owned()),
    })
}

/// Parses a name that Linux accepts for an interface (`IFNAMSIZ`).
fn host_interface(name: &str) -> Result<String, String> {
    let odd = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    match name.len() {
        1..=15 if !name.bytes().any(odd) => Ok(name.to_owned()),
        _ => Err("the name of an interface has 1 to 15 bytes, without blanks, / and :".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_waited_for() {
        for text in ["1e19", "1e300", "inf"] {
            let end = std::time::Instant::now().checked_add(seconds(text).unwrap());
            assert!(end.is_some(), "{text}");
            assert!(interval(text).is_ok(), "{text}");
        }
        for text in ["", "-1", "NaN", "a while"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_program_speaks_of_itself() {
        let error = |args: &[&str]| Cli::try_parse_from(args).unwrap_err().to_string();
        assert!(error(&["tunctl", "--version"]).starts_with("tunctl "));
        let usage = error(&["tunctl", "addr", "tun0", "add"]);
        assert!(!usage.contains("--root"), "{usage}");
        let name = error(&["tunctl", "ping", "www.example.org"]);
        assert!(name.contains("not a name"), "{name}");
        let link = destination("fe80:0::1%tun0").map(|host| host.to_string());
        assert_eq!(link, Ok("fe80::1%tun0".to_owned()));
        assert!(destination("tun0%tun0").is_err());
        let none = error(&["tunctl", "ping", "-c", "0", "10.0.0.2"]);
        assert!(none.contains("is not in 1..=65535"), "{none}");
    }

    #[test]
    fn a_switch_is_set_by_what_it_shows() {
        for (text, on) in [("on", true), ("1", true), ("off", false), ("0", false)] {
            assert_eq!(switch(text), Ok(on));
        }
        assert!(switch("yes").is_err());
    }
}
