//! `ifconfig` and `route`, as the scripts and BSD code of tunnel programs call them.
//!
//! Under these names tunctl understands the command lines that such programs run, and nothing else:
//! the grammar is BSD's, in which one word changes the meaning of the next, so it is read by hand.
//! Each command line becomes lines for files of `netcfg`.

mod ifconfig;
mod route;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use ipnet::IpNet;

use crate::report;
use crate::tree::{Failure, Tree};

/// `EX_USAGE` of `<sysexits.h>`.
const EX_USAGE: u8 = 64;

/// A program of BSD that tunctl can stand in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Ifconfig,
    Route,
}

impl Program {
    /// The program with this name, if it is one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "ifconfig" => Some(Self::Ifconfig),
            "route" => Some(Self::Route),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ifconfig => "ifconfig",
            Self::Route => "route",
        }
    }

    const fn usage(self) -> &'static str {
        match self {
            Self::Ifconfig => ifconfig::USAGE,
            Self::Route => route::USAGE,
        }
    }

    /// Runs it with these arguments, its name not included.
    pub(crate) fn run(self, tree: &Tree, words: &[String]) -> ExitCode {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = match self {
            Self::Ifconfig => ifconfig::parse(&words).map(|command| command.run(tree)),
            Self::Route => route::parse(&words).map(|command| command.run(tree)),
        };
        match done {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(failure)) => {
                report::note(&format!("{}: {failure}", self.name()));
                ExitCode::FAILURE
            }
            Err(Usage(what)) => {
                report::note(&format!("{}: {what}\n{}", self.name(), self.usage()));
                ExitCode::from(EX_USAGE)
            }
        }
    }
}

/// A command line that is not understood, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Usage(String);

impl Usage {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// The word behind `word`, which needs one.
fn following<'a>(words: &mut impl Iterator<Item = &'a str>, word: &str) -> Result<&'a str, Usage> {
    let next = words.next();
    next.ok_or_else(|| Usage::new(format!("{word}: what follows is missing")))
}

fn address(word: &str) -> Result<IpAddr, Usage> {
    let parsed = word.parse();
    parsed.map_err(|_| Usage::new(format!("{word}: not an address")))
}

/// The length of the prefix that a netmask stands for: dotted, or hexadecimal as BSD prints it.
fn mask_len(word: &str) -> Result<u8, Usage> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => word.parse::<Ipv4Addr>().ok().map(u32::from),
    };
    let mask = number.filter(|mask| mask.leading_ones() + mask.trailing_zeros() >= 32);
    let mask = mask.ok_or_else(|| Usage::new(format!("{word}: not a netmask")))?;
    Ok(mask.leading_ones() as u8)
}

/// The length of a prefix, in bits, for addresses of this family.
fn prefix_len(word: &str, family: IpAddr) -> Result<u8, Usage> {
    let most = if family.is_ipv4() { 32 } else { 128 };
    let len = word.parse().ok().filter(|&len| len <= most);
    len.ok_or_else(|| Usage::new(format!("{word}: not a length of a prefix")))
}

/// The netmask that an address has if nobody says another: that of its class, or the whole address.
fn class_len(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V6(_) => 128,
        IpAddr::V4(addr) => match addr.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            192..224 => 24,
            _ => 32,
        },
    }
}

/// The interface that an address of this machine belongs to; `None` if it is not of this machine.
fn interface_with(tree: &Tree, addr: IpAddr) -> Result<Option<String>, Failure> {
    for name in tree.interfaces()? {
        let list = tree.get(&name, "addr/list")?;
        let own = |line: &str| {
            let addr = line.split([' ', '/']).next();
            addr.and_then(|addr| addr.parse::<IpAddr>().ok())
        };
        if list.lines().any(|line| own(line) == Some(addr)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The prefix as routes are written.
fn network(addr: IpAddr, len: u8) -> Result<IpNet, Usage> {
    let net = IpNet::new(addr, len);
    let net = net.map_err(|_| Usage::new(format!("/{len}: not a length of a prefix")))?;
    Ok(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks_of_every_spelling() {
        for (word, len) in [
            ("255.255.255.0", 24),
            ("255.255.255.255", 32),
            ("0.0.0.0", 0),
            ("128.0.0.0", 1),
            ("0xffffff00", 24),
            ("0xffff0000", 16),
        ] {
            assert_eq!(mask_len(word), Ok(len));
        }
        for bad in [
            "255.0.255.0",
            "0.0.0.1",
            "24",
            "0x",
            "0xffffffff0",
            "fd00::",
            "",
        ] {
            assert!(mask_len(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_these_two() {
        assert_eq!(Program::named("ifconfig"), Some(Program::Ifconfig));
        assert_eq!(Program::named("route"), Some(Program::Route));
        assert_eq!(Program::named("tunctl"), None);
    }
}
