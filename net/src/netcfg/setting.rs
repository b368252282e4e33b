//! Lines that can be written: those that each file accepts, parsed completely before any is
//! applied.

use std::net::IpAddr;

use super::node::{IfNode, Node};
use crate::ifnet::{FifoLimits, IF_MINMTU, IfAddr, is_host, parse_decimal};
use crate::link::Mac;
use crate::route::RouteSpec;

/// One line, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Nameserver(IpAddr),
    TunDebug(i32),
    Forwarding(bool),
    AddRoute(RouteSpec),
    RemoveRoute(RouteSpec),
    Interface(String, IfSetting),
}

/// One line about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfSetting {
    SetAddr(IfAddr),
    AddAddr(IfAddr),
    RemoveAddr(IfAddr),
    Mtu(u16),
    Up(bool),
    Join(IpAddr),
    Leave(IpAddr),
    Queue(FifoLimits),
    Mac(Mac),
    Autoconf(bool),
    Destroy,
}

impl Setting {
    /// The interface that it is about.
    pub(super) fn interface(&self) -> Option<&str> {
        match self {
            Self::Interface(name, _) => Some(name),
            _ => None,
        }
    }

    /// Whether it cannot be undone.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Interface(_, IfSetting::Destroy))
    }

    /// Parses a line written to `node`. `None` if the file does not accept it.
    pub(super) fn parse(node: &Node, line: &str) -> Option<Self> {
        let line = line.trim_ascii();
        Some(match node {
            Node::Nameserver => Self::Nameserver(line.parse().ok().filter(is_host)?),
            Node::TunDebug => Self::TunDebug(line.parse().ok()?),
            Node::Forwarding => Self::Forwarding(parse_switch(line)?),
            Node::RouteAdd => Self::AddRoute(RouteSpec::parse(line)?),
            Node::RouteRm => Self::RemoveRoute(RouteSpec::parse(line)?),
            Node::RouteList | Node::RouteLookup | Node::TcpStats => return None,
            Node::Interface(name, node) => {
                Self::Interface(name.clone(), IfSetting::parse(*node, line)?)
            }
        })
    }
}

fn parse_switch(line: &str) -> Option<bool> {
    match line {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

impl IfSetting {
    fn parse(node: IfNode, line: &str) -> Option<Self> {
        Some(match node {
            IfNode::AddrSet => Self::SetAddr(IfAddr::parse(line)?),
            IfNode::AddrAdd => Self::AddAddr(IfAddr::parse(line)?),
            IfNode::AddrRm => Self::RemoveAddr(IfAddr::parse(line)?),
            IfNode::Mtu => Self::Mtu(parse_decimal(line).filter(|&mtu| mtu >= IF_MINMTU)?),
            IfNode::Flags => Self::Up(match line {
                "up" => true,
                "down" => false,
                _ => return None,
            }),
            IfNode::Multicast => {
                let (verb, group) = line.split_once(' ')?;
                let group: IpAddr = group.trim_ascii().parse().ok()?;
                match verb {
                    _ if !group.is_multicast() => return None,
                    "join" => Self::Join(group),
                    "leave" => Self::Leave(group),
                    _ => return None,
                }
            }
            IfNode::Queue => Self::Queue(FifoLimits::parse(line)?),
            IfNode::Destroy if line == "1" => Self::Destroy,
            IfNode::Mac => Self::Mac(Mac::parse(line)?),
            IfNode::Autoconf => Self::Autoconf(parse_switch(line)?),
            IfNode::Destroy
            | IfNode::AddrList
            | IfNode::Status
            | IfNode::Stats
            | IfNode::Ledger
            | IfNode::Events => return None,
        })
    }
}
