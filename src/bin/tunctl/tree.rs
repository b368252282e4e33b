//! The tree of files, and what to tell a person when something there does not work.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

/// What went wrong, with what to do about it.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where tund serves its tree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file.
    pub(crate) fn read(&self, path: &str) -> Result<String, Failure> {
        fs::read_to_string(self.path(path)).map_err(|error| self.explain(path, None, &error))
    }

    /// Writes a line.
    pub(crate) fn write(&self, path: &str, line: &str) -> Result<(), Failure> {
        let write = || {
            let mut file = OpenOptions::new().write(true).open(self.path(path))?;
            file.write_all(format!("{line}\n").as_bytes())
        };
        write().map_err(|error| self.explain(path, Some(line), &error))
    }

    /// The text of a file of an interface.
    pub(crate) fn get(&self, interface: &str, file: &str) -> Result<String, Failure> {
        self.read(&format!(
            "netcfg/ifaces/{}/{file}",
            self.interface(interface)?
        ))
    }

    /// Writes a line to a file of an interface.
    pub(crate) fn set(&self, interface: &str, file: &str, line: &str) -> Result<(), Failure> {
        let path = format!("netcfg/ifaces/{}/{file}", self.interface(interface)?);
        self.write(&path, line)
    }

    /// Names of the interfaces.
    pub(crate) fn interfaces(&self) -> Result<Vec<String>, Failure> {
        let path = "netcfg/ifaces";
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(self.path(path))? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        };
        list().map_err(|error| self.explain(path, None, &error))
    }

    /// Checks that there is such an interface, and says which there are if not.
    pub(crate) fn interface<'a>(&self, name: &'a str) -> Result<&'a str, Failure> {
        let names = self.interfaces()?;
        if names.iter().any(|known| known == name) {
            return Ok(name);
        }
        Err(Failure::new(format!(
            "there is no interface {name}; there are: {}. A tun interface comes with the first open \
             of its device.",
            names.join(", ")
        )))
    }

    /// Turns an error of the system into an explanation.
    pub(crate) fn explain(&self, path: &str, line: Option<&str>, error: &io::Error) -> Failure {
        let root = self.root.display();
        if !self.path("netcfg").exists() {
            return Failure::new(format!(
                "tund serves nothing at {root}. On Linux start it with `tund --mount DIR`, as root, \
                 and say where with `--root DIR`."
            ));
        }
        let what = line.unwrap_or(path);
        Failure::new(match (error.kind(), error.raw_os_error()) {
            (ErrorKind::PermissionDenied, _) => format!("{path}: only root may do that"),
            (ErrorKind::InvalidInput, _) => format!("'{what}' was refused: {}", hint(path)),
            (ErrorKind::ResourceBusy, _) => format!("{path}: it is open, by another program"),
            (_, Some(100)) => {
                format!("{path}: the interface of the route is down; `tunctl up` brings it up")
            }
            (_, Some(101)) => format!("{path}: no route; `tunctl route` shows those there are"),
            (_, Some(112)) => format!("{path}: no program has the tun device open"),
            _ => format!("{path}: {error}"),
        })
    }
}

/// What a file takes.
fn hint(path: &str) -> &'static str {
    match path.rsplit('/').next().unwrap_or_default() {
        "set" | "add" if path.contains("/addr/") => {
            "an address is ADDRESS/LENGTH or ADDRESS peer ADDRESS, is not there yet, and IPv6 needs \
             an mtu of 1280"
        }
        "rm" if path.contains("/addr/") => "the interface does not have that address",
        "add" => {
            "a route is PREFIX [via ROUTER] [dev INTERFACE] [src ADDRESS] [metric N], with a router \
             that is on a link or an interface that is there"
        }
        "rm" => "there is no such route; `tunctl route` shows those there are",
        "mtu" => "an mtu is 72 to 65535",
        "queue" => "a queue is: fifo limit N packets M bytes",
        "destroy" => "only a tun interface can be removed",
        _ => "see `tunctl --help`",
    }
}
