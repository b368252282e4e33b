//! The daemon: wiring only.

// They panic when nobody reads the output. What cannot be printed must not end a daemon.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(target_os = "linux")]
mod demo;
#[path = "../../manual.rs"]
mod manual;
#[cfg(target_os = "redox")]
mod network;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use manual::Manual;
use net::{Config, Host, Services};

/// The TUN device and network stack for Redox OS.
///
/// On Redox it serves the schemes tun, netcfg, bpf, tcp, udp, icmp and ip. On Linux, `--mount DIR` serves the same
/// tree as files, and without arguments a demonstration runs in one process.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Serve the tree at this directory, through FUSE, until interrupted (Linux, as root)
    #[arg(long, value_name = "DIR", global = true)]
    mount: Option<PathBuf>,
    /// Run small services on TCP and UDP of every interface: echo, discard, chargen
    #[arg(long, value_name = "LIST", global = true)]
    serve: Option<Services>,
    /// Say more; twice for even more
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Serve, as the child of the parent that starts a daemon which died again
    #[cfg(target_os = "redox")]
    #[arg(long, hide = true)]
    worker: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Stack, driver and a client in one process: pings, UDP, and TCP through a real tun device
    #[cfg(target_os = "linux")]
    Demo(demo::Options),
    #[command(flatten)]
    Manual(Manual),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Manual(manual)) = &cli.command {
        return ended(manual.run(Cli::command(), |text| writeln!(io::stdout(), "{text}")));
    }
    let level = match cli.verbose {
        0 => log::LevelFilter::Info,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    env_logger::Builder::new().filter_level(level).init();
    ended(run(cli))
}

/// The exit status, with a word about an error.
fn ended<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tund: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Takes the random seed from the system once: the network itself reads no randomness.
fn config(services: Option<Services>) -> Result<Config, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(Config {
        seed: seed.into(),
        services: services.unwrap_or(Services::empty()),
    })
}

#[cfg(target_os = "linux")]
fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    use std::os::fd::AsFd;

    use scheme::fuse::{self, LinuxProcesses, Mount};
    use scheme::local::SystemClock;

    if cli.mount.is_none() && cli.serve.is_some() {
        return Err("--serve goes with --mount; the demonstration has all services".into());
    }
    let config = config(cli.serve)?;
    match (cli.command, cli.mount) {
        (Some(Command::Demo(_)), Some(_)) => {
            Err("the demonstration runs in one process, without --mount".into())
        }
        (Some(Command::Demo(options)), None) => demo::run(config, options),
        (_, None) => demo::run(config, demo::Options::default()),
        (_, Some(dir)) => {
            // Before there is a mount that a signal could leave behind.
            let stop = fuse::stop_signals()?;
            let mount = Mount::new(&dir)
                .map_err(|error| format!("cannot mount at {}: {error}", dir.display()))?;
            let net = Host::new(config, LinuxProcesses);
            if let Err(error) = writeln!(io::stdout(), "tund: serving {}", mount.dir().display()) {
                log::debug!("standard output: {error}");
            }
            fuse::serve(net, &mount, &SystemClock::default(), stop.as_fd())?;
            Ok(())
        }
    }
}

#[cfg(target_os = "redox")]
fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    use std::process::Command;

    use scheme::FileServer;

    if cli.mount.is_some() {
        return Err("--mount is for Linux; here the schemes are served at /scheme".into());
    }
    if cli.worker {
        let mut net = Host::new(config(cli.serve)?, scheme::redox::RedoxProcesses);
        // The host is told the time before it gets adapters.
        let _ = net.turn(scheme::redox::now());
        let work = scheme::redox::DriverWork::default();
        let adapters = network::attach(&mut net, work.clone());
        let names = &net::host::SCHEMES;
        return Ok(scheme::redox::serve(net, names, adapters, &work)?);
    }
    let mut worker = Command::new(std::env::current_exe()?);
    worker.args(std::env::args_os().skip(1)).arg("--worker");
    Ok(scheme::redox::supervise(worker, &net::host::SCHEMES)?)
}
