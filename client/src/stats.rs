//! The counters of an interface.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::netcfg;

/// The counters of an interface (`ifaces/IF/stats`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets received: written to the device.
    pub ipackets: u64,
    /// Their bytes.
    pub ibytes: u64,
    /// Packets sent: put into the queue that the device's reader empties.
    pub opackets: u64,
    /// Their bytes.
    pub obytes: u64,
    /// Packets dropped, by the reason.
    pub drops: BTreeMap<String, u64>,
    /// Every line of the file that is none of these, by its name.
    pub others: BTreeMap<String, u64>,
}

impl Stats {
    /// Those of an interface of the tree at `root`. Every user may ask. `ENOENT` if there is no
    /// such interface.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let stats = tun::Stats::of("/scheme", "tun0")?;
    /// println!("{} packets in, {} out", stats.ipackets, stats.opackets);
    /// for (reason, count) in stats.drops {
    ///     println!("{count} lost: {reason}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn of(root: impl AsRef<Path>, interface: &str) -> io::Result<Self> {
        let file = format!("ifaces/{interface}/stats");
        Ok(Self::parse(&netcfg::get(root.as_ref(), &file)?))
    }

    fn parse(text: &str) -> Self {
        let mut stats = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse() else {
                continue;
            };
            match (name, name.strip_prefix("drop.")) {
                ("ipackets", _) => stats.ipackets = value,
                ("ibytes", _) => stats.ibytes = value,
                ("opackets", _) => stats.opackets = value,
                ("obytes", _) => stats.obytes = value,
                (_, Some(reason)) => {
                    stats.drops.insert(reason.to_owned(), value);
                }
                (name, None) => {
                    stats.others.insert(name.to_owned(), value);
                }
            }
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_not_known_are_kept() {
        let stats = Stats::parse("ipackets 3\nobytes 9\nnew 7\ndrop.no_route 2\nodd\nx y\n");
        assert_eq!((stats.ipackets, stats.obytes), (3, 9));
        assert_eq!(stats.drops, [("no_route".to_owned(), 2)].into());
        assert_eq!(stats.others, [("new".to_owned(), 7)].into());
    }
}
