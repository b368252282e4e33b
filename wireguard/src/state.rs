//! What a running tunnel tells. It writes a file for each process, which `show` reads: no second way
//! into a program that holds keys.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::tunnel::{Dropped, Tunnel};

/// Where the files are, unless the environment's `TUN_WIREGUARD_STATE` says otherwise.
pub const DIRECTORY: &str = if cfg!(target_os = "redox") {
    "/tmp/tun-wireguard"
} else {
    "/run/tun-wireguard"
};
/// How often the file is written at most.
const PERIOD: Duration = Duration::from_secs(1);

/// A tunnel, as it was at most a second ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Process that carries it.
    pub pid: u32,
    /// The file that describes it.
    pub file: PathBuf,
    /// Name of the interface.
    pub interface: String,
    /// Where the tree of files is that has the interface; none if it is the Linux kernel's.
    pub root: Option<PathBuf>,
    /// Our public key.
    pub public_key: String,
    /// UDP port that we listen on.
    pub listen_port: u16,
    /// Those at the other ends.
    pub peers: Vec<Peer>,
    /// What went no further, by its reason; those of which there were none are left out.
    pub dropped: BTreeMap<String, u64>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its public key.
    pub public_key: String,
    /// Whether there is a key that only it and we know.
    pub preshared_key: bool,
    /// Where it was last heard.
    pub endpoint: Option<String>,
    /// Networks behind it.
    pub allowed_ips: Vec<String>,
    /// When the last handshake was complete, seconds since 1970.
    pub latest_handshake: Option<u64>,
    /// Bytes of its messages.
    pub received: u64,
    /// Bytes of ours.
    pub sent: u64,
    /// Seconds after which something is sent in any case.
    pub persistent_keepalive: Option<u16>,
}

/// Writes the file while the tunnel is there, in a thread of its own, since packets cannot wait for a
/// disk. Dropping it removes the file.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    state: State,
    /// What was given to the thread last.
    written: Option<State>,
    /// When it may be given something again.
    next: Duration,
    /// To the thread; one text waits at most. Both are there until the drop.
    texts: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `state` has what does not change. Others than the user cannot read the directory.
    pub fn new(directory: &Path, state: State) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let path = directory.join(format!("{}.json", state.pid));
        let (texts, given) = sync_channel::<Vec<u8>>(1);
        let thread = std::thread::Builder::new().spawn({
            let path = path.clone();
            move || {
                for text in given {
                    if let Err(error) = replace(&path, &text) {
                        log::debug!("{}: {error}", path.display());
                    }
                }
            }
        })?;
        Ok(Self {
            path,
            state,
            written: None,
            next: Duration::ZERO,
            texts: Some(texts),
            thread: Some(thread),
        })
    }

    /// Has what has changed written, if the last time is a second ago. How long until it should be called
    /// again; `None` if nothing has changed.
    pub fn update(&mut self, config: &Config, tunnel: &Tunnel, now: Duration) -> Option<Duration> {
        if now < self.next {
            return Some(self.next - now);
        }
        self.state.peers = peers(config, tunnel, now);
        let counts = Dropped::ALL.iter().zip(tunnel.dropped());
        self.state.dropped = counts
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect();
        if self.written.as_ref() == Some(&self.state) {
            return None;
        }
        self.next = now + PERIOD;
        // While the disk is busy, what is told is older.
        if let Some(texts) = &self.texts
            && serde_json::to_vec(&self.state).is_ok_and(|text| texts.try_send(text).is_ok())
        {
            self.written = Some(self.state.clone());
        }
        Some(PERIOD)
    }
}

/// Replaces a file as a whole, so that nobody reads half of it.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text)?;
    fs::rename(new, path)
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.texts = None;
        let _ = self.thread.take().map(JoinHandle::join);
        let _ = fs::remove_file(&self.path);
    }
}

/// The peers, with times of the calendar.
fn peers(config: &Config, tunnel: &Tunnel, now: Duration) -> Vec<Peer> {
    let calendar = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let one = |(file, peer): (&crate::config::Peer, &crate::tunnel::Peer)| Peer {
        public_key: peer.public_key().to_string(),
        preshared_key: file.preshared_key.is_some(),
        endpoint: peer.endpoint().map(|endpoint| endpoint.to_string()),
        allowed_ips: file
            .allowed_ips
            .iter()
            .map(|network| network.net.to_string())
            .collect(),
        latest_handshake: peer.last_handshake().map(|at| {
            // Rounded, so that it does not move with the jitter of two clocks.
            let when = calendar.saturating_sub(now.saturating_sub(at));
            (when + Duration::from_millis(500)).as_secs()
        }),
        received: peer.received(),
        sent: peer.sent(),
        persistent_keepalive: peer.keepalive(),
    };
    config.peers.iter().zip(tunnel.peers()).map(one).collect()
}

/// The tunnels that are there. Files of those that were killed are removed.
pub fn all(directory: &Path) -> io::Result<Vec<State>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut states = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Ok(text) = fs::read(&path) else {
            continue;
        };
        match serde_json::from_slice::<State>(&text) {
            Ok(state) if state.lives() => states.push(state),
            _ => {
                let _ = fs::remove_file(path);
            }
        }
    }
    states.sort_by(|a, b| (&a.interface, a.pid).cmp(&(&b.interface, b.pid)));
    Ok(states)
}

impl State {
    /// Whether the process is there that wrote this, and not another with its number.
    fn lives(&self) -> bool {
        let Some(root) = &self.root else {
            return alive(self.pid);
        };
        let status = root
            .join("netcfg/ifaces")
            .join(&self.interface)
            .join("status");
        let opened = format!("PID {}", self.pid);
        fs::read_to_string(status).is_ok_and(|text| text.trim_end().ends_with(&opened))
    }
}

/// Whether there is a process with this number.
pub fn alive(pid: u32) -> bool {
    use rustix::process::{Pid, test_kill_process};

    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// As `wg show` has it.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "interface: {}", self.interface)?;
        writeln!(f, "  public key: {}", self.public_key)?;
        writeln!(f, "  private key: (hidden)")?;
        writeln!(f, "  listening port: {}", self.listen_port)?;
        for (reason, count) in &self.dropped {
            writeln!(f, "  dropped, {reason}: {count}")?;
        }
        let calendar = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        for peer in &self.peers {
            writeln!(f, "\npeer: {}", peer.public_key)?;
            if peer.preshared_key {
                writeln!(f, "  preshared key: (hidden)")?;
            }
            if let Some(endpoint) = &peer.endpoint {
                writeln!(f, "  endpoint: {endpoint}")?;
            }
            let allowed = match peer.allowed_ips.is_empty() {
                true => "(none)".to_owned(),
                false => peer.allowed_ips.join(", "),
            };
            writeln!(f, "  allowed ips: {allowed}")?;
            if let Some(at) = peer.latest_handshake {
                writeln!(
                    f,
                    "  latest handshake: {}",
                    ago(calendar.saturating_sub(at))
                )?;
            }
            if peer.received + peer.sent > 0 {
                let (received, sent) = (bytes(peer.received), bytes(peer.sent));
                writeln!(f, "  transfer: {received} received, {sent} sent")?;
            }
            if let Some(seconds) = peer.persistent_keepalive {
                writeln!(
                    f,
                    "  persistent keepalive: every {}",
                    spoken(seconds.into())
                )?;
            }
        }
        Ok(())
    }
}

fn ago(seconds: u64) -> String {
    match seconds {
        0 => "Now".to_owned(),
        _ => format!("{} ago", spoken(seconds)),
    }
}

/// A time in words.
fn spoken(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "day"),
        (seconds / 3600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let mut text = String::new();
    for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
        let comma = if text.is_empty() { "" } else { ", " };
        let plural = if count == 1 { "" } else { "s" };
        let _ = write!(text, "{comma}{count} {unit}{plural}");
    }
    text
}

/// A number of bytes as `wg` prints it.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            pid: std::process::id(),
            file: "wg0.conf".into(),
            interface: "tun0".to_owned(),
            root: None,
            public_key: "KEY".to_owned(),
            listen_port: 51820,
            peers: vec![Peer {
                public_key: "PEER".to_owned(),
                preshared_key: true,
                endpoint: Some("192.0.2.1:1".to_owned()),
                allowed_ips: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
                latest_handshake: None,
                received: 1536,
                sent: 100,
                persistent_keepalive: Some(25),
            }],
            dropped: [("stranger".to_owned(), 3)].into(),
        }
    }

    #[test]
    fn it_reads_as_that_of_wg() {
        assert_eq!(
            state().to_string(),
            "interface: tun0\n  public key: KEY\n  private key: (hidden)\n  listening port: 51820\n  \
             dropped, stranger: 3\n\npeer: PEER\n  preshared key: (hidden)\n  endpoint: 192.0.2.1:1\n  \
             allowed ips: 0.0.0.0/0, ::/0\n  transfer: 1.50 KiB received, 100 B sent\n  \
             persistent keepalive: every 25 seconds\n"
        );
        assert_eq!(ago(0), "Now");
        assert_eq!(ago(90_061), "1 day, 1 hour, 1 minute, 1 second ago");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 30), "3.00 GiB");
        assert_eq!(bytes(u64::MAX), "16777216.00 TiB");
    }

    #[test]
    fn it_tells_what_has_changed_until_it_ends() {
        let text = "[Interface]\nPrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";
        let config = crate::config::parse(text.as_bytes()).unwrap();
        let tunnel = Tunnel::new(&config, &[], 0, Duration::ZERO);
        let directory =
            std::env::temp_dir().join(format!("tun-wireguard-told-{}", std::process::id()));
        let mut writer = Writer::new(&directory, state()).unwrap();
        let told = State {
            peers: Vec::new(),
            dropped: BTreeMap::new(),
            ..state()
        };
        let mut update =
            |milliseconds| writer.update(&config, &tunnel, Duration::from_millis(milliseconds));
        assert_eq!(update(0), Some(PERIOD));
        assert_eq!(update(400), Some(Duration::from_millis(600)));
        while all(&directory).unwrap() != [told.clone()] {
            std::thread::yield_now();
        }
        assert_eq!(update(1000), None);
        drop(writer);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn files_of_the_dead_and_of_others_are_not_shown() {
        let directory =
            std::env::temp_dir().join(format!("tun-wireguard-state-{}", std::process::id()));
        let writer = Writer::new(&directory, state()).unwrap();
        replace(&writer.path, &serde_json::to_vec(&state()).unwrap()).unwrap();
        let nobody = State {
            pid: i32::MAX as u32,
            ..state()
        };
        fs::write(
            directory.join("1.json"),
            serde_json::to_vec(&nobody).unwrap(),
        )
        .unwrap();
        // Its interface is another's now.
        let elsewhere = State {
            root: Some("/nowhere".into()),
            ..state()
        };
        fs::write(
            directory.join("2.json"),
            serde_json::to_vec(&elsewhere).unwrap(),
        )
        .unwrap();
        fs::write(directory.join("3.json"), "{").unwrap();
        assert_eq!(all(&directory).unwrap(), [state()]);
        drop(writer);
        assert_eq!(all(&directory).unwrap(), []);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir(&directory).unwrap();
        assert_eq!(all(&directory).unwrap(), []);
    }
}
