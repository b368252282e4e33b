//! `tun-wireguard`: a WireGuard tunnel over a tun device of tund's, from the file that wg-quick reads.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tun::Device;
use wireguard::config::{self, Config, Problem};
use wireguard::outer::Outer;
use wireguard::run::{Parts, run};
use wireguard::tunnel::Tunnel;
use wireguard::{dns, inner, setup, state};

/// A WireGuard tunnel over a tun device of tund's.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    tunnel: Option<TunnelArgs>,
}

#[derive(Subcommand)]
enum Command {
    /// Tunnels that are there: peers, endpoints, last handshakes and bytes.
    Show {
        /// As JSON, one array.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct TunnelArgs {
    /// Description of the tunnel, as wg-quick reads it.
    file: PathBuf,
    /// Where tund serves its tree.
    #[arg(long, env = "TUND_ROOT", default_value = "/scheme")]
    root: PathBuf,
    /// Whose UDP carries the tunnel.
    #[cfg(target_os = "linux")]
    #[arg(long, value_enum, default_value_t = Whose::Host)]
    outer: Whose,
    /// Instead of tund's device, one of the Linux kernel with this name. Addresses and routes are then
    /// for others to set.
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "NAME")]
    host_tun: Option<String>,
    /// Leave routes behind that let nothing out when the tunnel is gone, where the tunnel has the
    /// default route. `tunctl route rm` takes them away.
    #[arg(long)]
    kill_switch: bool,
    /// One packet an operation, to measure what batches save.
    #[arg(long, hide = true)]
    single: bool,
}

#[cfg(target_os = "linux")]
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Whose {
    /// The Linux kernel's.
    Host,
    /// That of the same tund.
    Tund,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format(|out, record| out.write_fmt(format_args!("tun-wireguard: {}\n", record.args())))
        .init();
    let done = match (cli.command, cli.tunnel) {
        (Some(Command::Show { json }), _) => show(json),
        (None, Some(args)) => tunnel(&args),
        (None, None) => Err(Failure("a file is needed".to_owned())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

/// A text for people.
struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn directory() -> PathBuf {
    std::env::var_os("TUN_WIREGUARD_STATE").map_or_else(|| state::DIRECTORY.into(), PathBuf::from)
}

fn show(json: bool) -> Result<(), Failure> {
    let directory = directory();
    let states = state::all(&directory).map_err(|error| about(&directory, &error))?;
    let text = if json {
        serde_json::to_string_pretty(&states).map_err(|error| Failure(error.to_string()))? + "\n"
    } else {
        states
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    // Who reads this may have seen enough.
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure(error.to_string())),
        _ => Ok(()),
    }
}

fn tunnel(args: &TunnelArgs) -> Result<(), Failure> {
    let config = read(&args.file)?;
    let in_file = |problem: Problem| Failure(format!("{}:{problem}", args.file.display()));
    let stop = stop_pipe().map_err(|error| Failure(format!("signals: {error}")))?;
    // What one that was killed has left.
    if cfg!(target_os = "redox") {
        match dns::restore(Path::new(dns::FILE), state::alive) {
            Ok(true) => log::warn!(
                "{}: put back, as it was before another tunnel was killed",
                dns::FILE
            ),
            Ok(false) => {}
            Err(error) => log::warn!("{}: {error}", dns::FILE),
        }
    }
    let endpoints = setup::endpoints(&config).map_err(in_file)?;
    let device = device(args, &config)?;
    let name = device
        .name()
        .map_err(|error| Failure(format!("the device: {error}")))?;
    let outer = outer(args, &config, &name)?;
    if host_tun(args).is_none() {
        setup::interface(&args.root, &name, &config).map_err(in_file)?;
        if args.kill_switch {
            let set = setup::kill_switch(&args.root, &config);
            set.map_err(|error| Failure(format!("kill switch: {error}")))?;
        }
    }
    let _dns = name_server(&config);
    let began = Instant::now();
    let chance = getrandom::u32().map_err(|error| Failure(format!("randomness: {error}")))?;
    let tunnel = Tunnel::new(&config, &endpoints, chance, began.elapsed());
    let state = state::State {
        pid: std::process::id(),
        file: args.file.clone(),
        interface: name.clone(),
        root: host_tun(args).is_none().then(|| args.root.clone()),
        public_key: config.private_key.public().to_string(),
        listen_port: outer.port(),
        peers: Vec::new(),
        dropped: BTreeMap::new(),
    };
    let directory = directory();
    let state = match state::Writer::new(&directory, state) {
        Ok(writer) => Some(writer),
        Err(error) => {
            log::warn!(
                "{}: {error}: `show` will not know this tunnel",
                directory.display()
            );
            None
        }
    };
    // Nobody need listen.
    let _ = writeln!(io::stdout(), "{name}: port {}", outer.port());
    let parts = Parts {
        config: &config,
        tunnel,
        device: &*device,
        outer,
        state,
        stop: stop.as_fd(),
        began,
    };
    run(parts).map_err(|error| Failure(format!("{name}: {error}")))
}

/// The file, checked.
fn read(file: &Path) -> Result<Config, Failure> {
    let failed = |error: io::Error| about(file, &error);
    let open = File::open(file).map_err(failed)?;
    let metadata = open.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        log::warn!(
            "{}: others may read it, and it has keys in it: chmod 600",
            file.display()
        );
    }
    let mut text = Vec::new();
    open.take(config::MAX_FILE + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > config::MAX_FILE {
        return Err(Failure(format!(
            "{}: longer than {} bytes",
            file.display(),
            config::MAX_FILE
        )));
    }
    let named = |problem: &Problem| format!("{}:{problem}", file.display());
    let config = config::parse(&text)
        .map_err(|problems| Failure(problems.iter().map(named).collect::<Vec<_>>().join("\n")))?;
    for warning in &config.warnings {
        log::warn!("{}", named(warning));
    }
    Ok(config)
}

fn about(path: &Path, error: &io::Error) -> Failure {
    Failure(format!("{}: {error}", path.display()))
}

/// Readable from the first signal on that ends the program.
fn stop_pipe() -> io::Result<io::PipeReader> {
    let (reader, writer) = io::pipe()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

#[cfg(target_os = "linux")]
fn host_tun(args: &TunnelArgs) -> Option<&str> {
    args.host_tun.as_deref()
}

#[cfg(not(target_os = "linux"))]
fn host_tun(_: &TunnelArgs) -> Option<&str> {
    None
}

fn device(args: &TunnelArgs, config: &Config) -> Result<Box<dyn Device>, Failure> {
    #[cfg(target_os = "linux")]
    if let Some(name) = host_tun(args) {
        return inner::host(name).map_err(|error| Failure(format!("{name}: {error}")));
    }
    let opened = inner::open(&args.root, config.mtu, !args.single);
    opened.map_err(|error| about(&args.root.join("tun"), &error))
}

fn outer(args: &TunnelArgs, config: &Config, interface: &str) -> Result<Outer, Failure> {
    let port = config.listen_port;
    #[cfg(target_os = "linux")]
    let opened = match args.outer {
        Whose::Host => Outer::host(port),
        Whose::Tund => Outer::stack(&args.root, port, interface),
    };
    #[cfg(not(target_os = "linux"))]
    let opened = Outer::stack(&args.root, port, interface);
    opened.map_err(|error| Failure(format!("UDP port {port}: {error}")))
}

/// Sets the name server, where the system has one that can be set.
fn name_server(config: &Config) -> Option<dns::Dns> {
    if config.dns.is_empty() {
        return None;
    }
    if !cfg!(target_os = "redox") {
        log::warn!("DNS: not set on this system, whose resolver is not ours");
        return None;
    }
    let Some(server) = setup::name_server(config) else {
        log::warn!("DNS: not set, since the resolver here needs one with IPv4");
        return None;
    };
    match dns::Dns::set(Path::new(dns::FILE), server, state::alive) {
        Ok(dns) => Some(dns),
        Err(error) => {
            log::warn!("DNS: {}: not set: {error}", dns::FILE);
            None
        }
    }
}
