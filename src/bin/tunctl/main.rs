//! Looks at tund's network and changes it, through its files alone: on Redox, and on a Linux mount.

mod bridge;
mod capture;
mod ping;
mod report;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use tree::{Failure, Tree};

/// Look at the network of tund, and change it.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// Where tund serves its tree: /scheme on Redox, the directory of `tund --mount` on Linux
    #[arg(long, value_name = "DIR", default_value = "/scheme", global = true)]
    root: PathBuf,
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
    Show { interface: String },
    /// Bring an interface up
    Up { interface: String },
    /// Take an interface down
    Down { interface: String },
    /// Show or change the addresses of an interface
    #[command(
        after_help = "Examples:\n  tunctl addr tun0\n  tunctl addr tun0 add 10.0.0.1/24\n  \
                            tunctl addr tun0 set 10.0.0.1 peer 10.0.0.2\n  tunctl addr tun0 rm fd00::1/64"
    )]
    Addr {
        interface: String,
        #[arg(value_parser = ["add", "set", "rm"], requires = "address")]
        verb: Option<String>,
        /// ADDRESS/LENGTH, or ADDRESS peer ADDRESS
        #[arg(num_args = 1..=3)]
        address: Vec<String>,
    },
    /// Show or change the largest packet of an interface, bytes
    Mtu {
        interface: String,
        bytes: Option<u16>,
    },
    /// Show or change routes
    #[command(
        after_help = "Examples:\n  tunctl route\n  tunctl route add default via 10.0.0.2\n  \
                            tunctl route add 10.8.0.0/16 dev tun0\n  tunctl route rm 10.8.0.0/16"
    )]
    Route {
        #[arg(value_parser = ["add", "rm"], requires = "route")]
        verb: Option<String>,
        /// PREFIX [via ROUTER] [dev INTERFACE] [src ADDRESS] [metric N]
        route: Vec<String>,
    },
    /// Show or change the send queue of an interface
    #[command(after_help = "Example:\n  tunctl queue tun0 fifo limit 500 packets")]
    Queue {
        interface: String,
        discipline: Vec<String>,
    },
    /// Show the counters of an interface
    Stats {
        interface: String,
        /// Show them again every second, with rates
        #[arg(long)]
        watch: bool,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
        interval: f64,
    },
    /// Write the packets of an interface to a file that Wireshark and tcpdump read (- for stdout)
    Capture {
        interface: String,
        file: PathBuf,
        /// Stop after so many packets
        #[arg(long, value_name = "N")]
        packets: Option<u64>,
    },
    /// Send echo requests
    Ping {
        address: std::net::IpAddr,
        /// How many; without it, until interrupted
        #[arg(short, long)]
        count: Option<u16>,
        /// Seconds between two
        #[arg(short, long, default_value_t = 1.0)]
        interval: f64,
        /// Bytes of data in each
        #[arg(short, long, default_value_t = 56, value_parser = clap::value_parser!(u16).range(16..=65_000))]
        size: u16,
        /// Seconds to wait for the last reply
        #[arg(short = 'W', long, default_value_t = 2.0)]
        timeout: f64,
    },
    /// Forward packets of other hosts: on, off, or show
    Forwarding {
        #[arg(value_parser = ["on", "off"])]
        switch: Option<String>,
    },
    /// Remove a tun interface that nobody has open
    Destroy { interface: String },
    /// Pump packets between tun/UNIT and a tun device of the Linux kernel, made if need be
    #[command(after_help = "Example, as root:\n  tunctl bridge 0 host0 &\n  \
                            ip addr add 10.0.0.2/24 dev host0; ip link set host0 up\n  \
                            tunctl addr tun0 set 10.0.0.1/24; ping 10.0.0.1")]
    Bridge { unit: u16, hostif: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let tree = Tree::new(cli.root);
    match run(&tree, cli.json, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tunctl: {failure}");
            ExitCode::FAILURE
        }
    }
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
            None => report::lines(&tree.get(&interface, "mtu")?, json),
            Some(bytes) => tree.set(&interface, "mtu", &bytes.to_string()),
        },
        Command::Route { verb, route } => match verb {
            None => report::routes(tree, json),
            Some(verb) => tree.write(&format!("netcfg/route/{verb}"), &route.join(" ")),
        },
        Command::Queue {
            interface,
            discipline,
        } => match discipline.is_empty() {
            true => report::lines(&tree.get(&interface, "queue")?, json),
            false => tree.set(&interface, "queue", &discipline.join(" ")),
        },
        Command::Stats {
            interface,
            watch,
            interval,
        } => match watch {
            true => report::watch(tree, &interface, seconds(interval)?, json),
            false => report::stats(tree, &interface, json),
        },
        Command::Capture {
            interface,
            file,
            packets,
        } => capture::run(tree, &interface, &file, packets),
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
                interval: seconds(interval)?,
                size,
                timeout: seconds(timeout)?,
            };
            ping::run(tree, &options, json)
        }
        Command::Forwarding { switch } => match switch.as_deref() {
            None => report::lines(&tree.read("netcfg/ip/forwarding")?, json),
            Some("on") => tree.write("netcfg/ip/forwarding", "1"),
            Some(_) => tree.write("netcfg/ip/forwarding", "0"),
        },
        Command::Destroy { interface } => tree.set(&interface, "destroy", "1"),
        Command::Bridge { unit, hostif } => bridge::run(tree, unit, &hostif),
    }
}

fn seconds(seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Failure::new(format!("{seconds} is no number of seconds to wait")))
}
