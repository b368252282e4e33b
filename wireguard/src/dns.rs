//! The name server of the machine, while the tunnel is there.
//!
//! Redox has one, in a file. The old text is kept beside it, with the process that put it there, so
//! that it can be put back: at the end, or by the next one after a kill.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where Redox's programs look up the name server.
pub const FILE: &str = "/etc/net/dns";
/// Longest text that is kept, bytes.
const MAX_TEXT: usize = 4096;

/// A name server that is set. Dropping it puts the old one back.
#[derive(Debug)]
pub struct Dns {
    file: PathBuf,
    set: String,
}

impl Dns {
    /// Writes `server` to `file`, and keeps the text that was there. `alive` tells whether a process
    /// is still there. `EBUSY` if another tunnel that is there has set one.
    pub fn set(file: &Path, server: IpAddr, alive: impl Fn(u32) -> bool) -> io::Result<Self> {
        restore(file, alive)?;
        if kept(file).exists() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let old = match fs::read_to_string(file) {
            Ok(text) if text.len() > MAX_TEXT => return Err(io::ErrorKind::InvalidData.into()),
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let head = format!("{}\n", std::process::id());
        let text = match &old {
            Some(old) => format!("{head}was\n{old}"),
            None => format!("{head}none\n"),
        };
        // Whole or not there: a kill may come at any moment.
        let new = with_suffix(file, ".tun-wireguard.new");
        fs::write(&new, text)?;
        fs::rename(&new, kept(file))?;
        let dns = Self {
            file: file.to_owned(),
            set: format!("{server}\n"),
        };
        fs::write(file, &dns.set)?;
        Ok(dns)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        // Who has written another since then wants that one.
        let ours = fs::read_to_string(&self.file).is_ok_and(|text| text == self.set);
        let back = if ours {
            put_back(&self.file)
        } else {
            fs::remove_file(kept(&self.file))
        };
        if let Err(error) = back {
            log::warn!(
                "{}: the old name server is not put back: {error}",
                self.file.display()
            );
        }
    }
}

/// Puts back what one that was killed could not. Whether there was something.
pub fn restore(file: &Path, alive: impl Fn(u32) -> bool) -> io::Result<bool> {
    let text = match fs::read_to_string(kept(file)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let owner = text.lines().next().and_then(|line| line.parse().ok());
    if owner.is_some_and(alive) {
        return Ok(false);
    }
    put_back(file)?;
    Ok(true)
}

fn put_back(file: &Path) -> io::Result<()> {
    let kept = kept(file);
    let text = fs::read_to_string(&kept)?;
    let mut parts = text.splitn(3, '\n').skip(1);
    match (parts.next(), parts.next()) {
        (Some("was"), Some(old)) => fs::write(file, old)?,
        (Some("none"), _) => match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        },
        _ => {}
    }
    fs::remove_file(kept)
}

fn kept(file: &Path) -> PathBuf {
    with_suffix(file, ".tun-wireguard")
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own for each test.
    fn directory(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("tun-wireguard-dns-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn server() -> IpAddr {
        "10.9.0.1".parse().unwrap()
    }

    #[test]
    fn the_old_text_is_put_back() {
        let directory = directory("back");
        let file = directory.join("dns");
        fs::write(&file, "9.9.9.9\n").unwrap();
        let dns = Dns::set(&file, server(), |_| true).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "10.9.0.1\n");
        // A second tunnel leaves it alone.
        let busy = Dns::set(&file, server(), |_| true).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        drop(dns);
        assert_eq!(fs::read_to_string(&file).unwrap(), "9.9.9.9\n");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn after_a_kill_the_next_one_puts_it_back() {
        let directory = directory("kill");
        let file = directory.join("dns");
        for old in [Some("9.9.9.9\n"), Some(""), Some("two\nlines"), None] {
            match old {
                Some(text) => fs::write(&file, text).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            std::mem::forget(Dns::set(&file, server(), |_| true).unwrap());
            assert!(!restore(&file, |_| true).unwrap(), "it lives");
            assert!(restore(&file, |_| false).unwrap());
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), old);
            assert!(!restore(&file, |_| false).unwrap());
            // And it is not taken for the old one when the next one sets its own.
            std::mem::forget(Dns::set(&file, server(), |_| true).unwrap());
            drop(Dns::set(&file, "10.9.0.2".parse().unwrap(), |_| false).unwrap());
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), old);
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let directory = directory("else");
        let file = directory.join("dns");
        fs::write(&file, "9.9.9.9\n").unwrap();
        let dns = Dns::set(&file, server(), |_| true).unwrap();
        fs::write(&file, "1.1.1.1\n").unwrap();
        drop(dns);
        assert_eq!(fs::read_to_string(&file).unwrap(), "1.1.1.1\n");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
