//! `netisr/ipx` and `netisr/atalk`: packets of protocols that are not ours, for a program that is.
//!
//! While a file is open, the packets of its family that are written to tun devices are read from it,
//! one a read, behind the name of the interface; a write, likewise prefixed, sends one.

use scheme::errno::{self, Errno};
use scheme::{Caller, DirEntry, FileId, FileKind, Outcome, Pid, Processes, Ready, Stat};

use crate::ifnet::Family;
use crate::ip::{Arrived, Ip, destination_of};
use crate::packet::Packet;

/// Bytes of the name before a packet (`IFNAMSIZ`). It ends in zeros, at least one.
const NAME: usize = 16;

/// The files.
const FILES: [(&str, Family); 2] = [("ipx", Family::Ipx), ("atalk", Family::AppleTalk)];

/// The answer of `stat`.
pub(crate) const DEVICE: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o600,
    size: 0,
};

/// An open file: its program takes the packets of a family.
#[derive(Debug)]
pub(crate) struct Handle {
    family: Family,
    file: FileId,
    /// The process that used it last.
    user: Pid,
}

/// The entries of the directory `netisr`.
pub(crate) fn list() -> Vec<DirEntry> {
    let entry = |(name, _): (&str, Family)| DirEntry {
        name: name.to_owned(),
        kind: FileKind::Device,
    };
    FILES.into_iter().map(entry).collect()
}

fn family(path: &str) -> Result<Family, Errno> {
    let file = FILES.into_iter().find(|(name, _)| *name == path);
    file.map(|(_, family)| family).ok_or(errno::ENOENT)
}

/// Describes a file without claiming it.
pub(crate) fn stat(path: &str) -> Result<Stat, Errno> {
    family(path).map(|_| DEVICE)
}

/// Registers for a family. `EPERM` unless the caller is the superuser, `EBUSY` while another program
/// has the file open. Where a close can get lost, a file is taken over when all who used it are dead.
pub(crate) fn open(
    ip: &mut Ip,
    path: &str,
    caller: Caller,
    file: FileId,
    processes: &dyn Processes,
) -> Result<Handle, Errno> {
    let family = family(path)?;
    if caller.uid != 0 {
        return Err(errno::EPERM);
    }
    if processes.closes_get_lost() && ip.is_abandoned(family, |pid| processes.alive(pid)) {
        ip.evict(family);
    }
    let user = caller.pid;
    match ip.register(family, file, user) {
        true => Ok(Handle { family, file, user }),
        false => Err(errno::EBUSY),
    }
}

impl Handle {
    pub(crate) fn path(&self) -> String {
        let file = FILES.iter().find(|(_, family)| *family == self.family);
        format!("netisr/{}", file.map_or("", |(name, _)| name))
    }

    /// Notes that the caller uses it. `EHOSTDOWN` if the registration was taken over.
    fn used(
        &mut self,
        ip: &mut Ip,
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<(), Errno> {
        let users = ip.registered_users(self.family, self.file);
        let users = users.ok_or(errno::EHOSTDOWN)?;
        if std::mem::replace(&mut self.user, caller.pid) != caller.pid
            && processes.closes_get_lost()
        {
            users.add(caller.pid, |pid| processes.is_known_dead(pid));
        }
        Ok(())
    }

    /// Whether it has the registration still.
    fn is_registered(&self, ip: &mut Ip) -> bool {
        ip.registered_users(self.family, self.file).is_some()
    }

    /// Reads one packet behind the name of its interface, truncated to the buffer.
    pub(crate) fn read(
        &mut self,
        ip: &mut Ip,
        buf: &mut [u8],
        caller: Caller,
        processes: &dyn Processes,
    ) -> Outcome<usize> {
        if let Err(error) = self.used(ip, caller, processes) {
            return error.into();
        }
        if buf.is_empty() {
            ip.registered_take(self.family, None);
            return Outcome::Done(Ok(0));
        }
        let Some(Arrived {
            interface, packet, ..
        }) = ip.registered_peek(self.family)
        else {
            return Outcome::Wait;
        };
        let mut name = [0; NAME];
        for (to, from) in name[..NAME - 1].iter_mut().zip(interface.bytes()) {
            *to = from;
        }
        let head = NAME.min(buf.len());
        let (to_name, to_packet) = buf.split_at_mut(head);
        to_name.copy_from_slice(&name[..head]);
        let len = packet.len().min(to_packet.len());
        to_packet[..len].copy_from_slice(&packet[..len]);
        let truncated = len < packet.len();
        ip.registered_take(self.family, Some(truncated));
        Outcome::Done(Ok(head + len))
    }

    /// Ends the oldest read. If it was not `delivered`, its packet is read again.
    pub(crate) fn complete(&self, ip: &mut Ip, delivered: bool) {
        if self.is_registered(ip) {
            ip.registered_complete(self.family, delivered);
        }
    }

    /// Sends a packet out of the interface that is named before it. `EINVAL` if there is no name or no
    /// packet, `ENXIO` if there is no such interface, `EMSGSIZE` if the packet is longer than its mtu.
    pub(crate) fn write(
        &mut self,
        ip: &mut Ip,
        buf: &[u8],
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<usize, Errno> {
        self.used(ip, caller, processes)?;
        if buf.is_empty() {
            return Ok(0);
        }
        let (name, packet) = buf.split_first_chunk::<NAME>().ok_or(errno::EINVAL)?;
        let end = name.iter().position(|&byte| byte == 0);
        let (name, rest) = name.split_at(end.ok_or(errno::EINVAL)?);
        if packet.is_empty() || rest.iter().any(|&byte| byte != 0) {
            return Err(errno::EINVAL);
        }
        let name = std::str::from_utf8(name).map_err(|_| errno::EINVAL)?;
        let dev = ip.ifs.by_name(name).ok_or(errno::ENXIO)?;
        let mtu = ip.ifs.get(dev).ok_or(errno::ENXIO)?.mtu;
        if packet.len() > usize::from(mtu) {
            return Err(errno::EMSGSIZE);
        }
        // Neither protocol has addresses of ours.
        let next_hop = destination_of(self.family, &[]);
        ip.if_output(dev, self.family, Packet::from(packet), next_hop)?;
        Ok(buf.len())
    }

    /// Readable while a packet waits, writable always. Both when it was taken over.
    pub(crate) fn ready(&self, ip: &mut Ip) -> Ready {
        if !self.is_registered(ip) {
            return Ready::all();
        }
        match ip.registered_peek(self.family) {
            Some(_) => Ready::all(),
            None => Ready::WRITE,
        }
    }

    /// Ends the registration.
    pub(crate) fn close(&self, ip: &mut Ip) {
        if self.is_registered(ip) {
            ip.unregister(self.family);
        }
    }
}
