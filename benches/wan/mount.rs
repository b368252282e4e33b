//! A host that is tund, serving a mount of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tun::Tun;

/// How long the daemon may take to exit.
const PATIENCE: Duration = Duration::from_secs(5);

/// A daemon and its mount. Both end when this is dropped, and calls that wait on its files fail.
#[derive(Debug)]
pub(crate) struct Mount {
    daemon: Child,
    dir: TempDir,
}

impl Mount {
    /// Starts the daemon, and gives `tun0` this address in a /24. The caller carries the packets of
    /// the returned device.
    pub(crate) fn new(program: &Path, address: Ipv4Addr) -> io::Result<(Self, Tun)> {
        let dir = tempfile::tempdir()?;
        let daemon = Command::new(program)
            .arg("--mount")
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut mount = Self { daemon, dir };
        let mut line = String::new();
        if let Some(output) = mount.daemon.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        if !line.contains("serving") {
            return Err(io::Error::other(format!("tund said {line:?}")));
        }
        let tun = Tun::open(mount.dir.path(), 0)?;
        let line = format!("{address}/24\n");
        OpenOptions::new()
            .write(true)
            .open(mount.dir.path().join("netcfg/ifaces/tun0/addr/set"))?
            .write_all(line.as_bytes())?;
        Ok((mount, tun))
    }

    /// Connects from a program of the mount.
    pub(crate) fn dial(&self, to: SocketAddrV4) -> io::Result<File> {
        let path = self.dir.path().join("tcp").join(to.to_string());
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn end(&mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.daemon), Signal::TERM)?;
        let start = Instant::now();
        while self.daemon.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                self.daemon.kill()?;
                self.daemon.wait()?;
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("wan: tund does not end: {error}");
        }
    }
}
