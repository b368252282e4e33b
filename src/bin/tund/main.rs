//! The daemon: wiring only.

// They panic when nobody reads the output. What cannot be printed must not end a daemon.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(target_os = "linux")]
mod demo;
mod logger;
#[path = "../../manual.rs"]
mod manual;
mod network;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use log::Log;
use logger::{Logger, Stream};
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
    /// Drive this Ethernet interface of the host, as eth0; once more for eth1, and so on (with --mount)
    #[arg(long = "adapter", value_name = "IF", global = true)]
    #[cfg(target_os = "linux")]
    adapters: Vec<String>,
    /// Say more; twice for even more
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
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
    let level = match cli.verbose {
        0 => log::LevelFilter::Info,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    let logger = Logger::install(level);
    let result = match &cli.command {
        Some(Command::Manual(manual)) => manual
            .run(Cli::command(), |text| writeln!(io::stdout(), "{text}"))
            .map_err(Into::into),
        _ => run(cli, &logger),
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logger.say(Stream::Err, &format!("tund: {error}"));
            ExitCode::FAILURE
        }
    };
    logger.flush();
    code
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
fn run(cli: Cli, logger: &Logger) -> Result<(), Box<dyn std::error::Error>> {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use scheme::FileServer;
    use scheme::fuse::{self, LinuxProcesses, Mount};
    use scheme::local::{Clock, SystemClock};

    if cli.mount.is_none() && cli.serve.is_some() {
        return Err("--serve goes with --mount; the demonstration has all services".into());
    }
    if cli.mount.is_none() && !cli.adapters.is_empty() {
        return Err("--adapter goes with --mount".into());
    }
    let config = config(cli.serve)?;
    match (cli.command, cli.mount) {
        (Some(Command::Demo(_)), Some(_)) => {
            Err("the demonstration runs in one process, without --mount".into())
        }
        (Some(Command::Demo(options)), None) => demo::run(config, options),
        (_, None) => demo::run(config, demo::Options::default()),
        (_, Some(dir)) => {
            logger.start()?;
            // Before there is a mount that a signal could leave behind.
            let stop = fuse::stop_signals()?;
            let mount = Mount::new(&dir)
                .map_err(|error| format!("cannot mount at {}: {error}", dir.display()))?;
            let mut net = Host::new(config, LinuxProcesses);
            let clock = Arc::new(SystemClock::default());
            let drivers = match cli.adapters.is_empty() {
                true => None,
                false => {
                    // The host is told the time before it gets adapters.
                    let _ = net.turn(clock.now());
                    let work = fuse::DriverWork::new(clock.clone())?;
                    let links = Arc::new(network::Links::new(cli.adapters, &work)?);
                    Some((network::attach(&mut net, links, work.clone())?, work))
                }
            };
            let serving = format!("tund: serving {}", mount.dir().display());
            logger.say(Stream::Out, &serving);
            fuse::serve(net, &mount, &clock, stop.as_fd(), drivers)?;
            Ok(())
        }
    }
}

#[cfg(target_os = "redox")]
fn run(cli: Cli, logger: &Logger) -> Result<(), Box<dyn std::error::Error>> {
    use std::sync::Arc;

    use scheme::FileServer;
    use scheme::redox;

    if cli.mount.is_some() {
        return Err("--mount is for Linux; here the schemes are served at /scheme".into());
    }
    let names = &net::host::SCHEMES;
    redox::supervise(names, net::MAX_STATE, |worker| {
        logger.start()?;
        let config = config(cli.serve).map_err(io::Error::other)?;
        let processes = redox::processes::Known::default();
        let mut net = Host::new(config, processes.clone());
        // The host is told the time before it gets settings and adapters.
        let _ = net.turn(redox::now());
        if let Some(state) = worker.state() {
            net.restore(&state);
        }
        let work = redox::DriverWork::default();
        let schemes = Arc::new(network::Schemes::keep());
        let adapters = network::attach(&mut net, schemes, work.clone())?;
        redox::serve(net, names, processes, adapters, &work, worker)
    })?;
    Ok(())
}
