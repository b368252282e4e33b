//! Clients' processes: their state in `/proc`, and signals.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid as SysPid, PidfdFlags, Signal};

use crate::server::{Pid, Processes, Signal as Sigio, SignalTarget};

/// A descriptor that becomes readable at SIGINT, SIGTERM or SIGHUP; not at a SIGHUP that was
/// ignored before us, by `nohup`.
pub fn stop_signals() -> io::Result<OwnedFd> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if signal != SIGHUP || !is_ignored(signal) {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
    }
    Ok(reader)
}

/// Whether we ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let mask = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        u64::from_str_radix(mask?.trim(), 16).ok()
    };
    mask().unwrap_or(0) & 1 << (signal - 1) != 0
}

/// The processes of a Linux system.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxProcesses;

impl Processes for LinuxProcesses {
    fn session(&self, target: SignalTarget) -> Option<Pid> {
        // A kernel thread has session 0, which is no process and no number for getsid(2)'s callers.
        let session = |pid: Pid| {
            stat_field(pid, 3)
                .and_then(|session| u32::try_from(session).ok())
                .map(Pid)
        };
        match target {
            SignalTarget::Process(pid) => session(pid),
            // The leader may be gone while its group lives on.
            SignalTarget::Group(group) => members(group).find_map(session),
        }
    }

    /// The start time, to a hundredth of a second, combined with the inode of the pidfd, which is
    /// unique since Linux 6.9.
    fn identity(&self, pid: Pid) -> Option<u64> {
        let started = stat_field(pid, 19)?;
        let number = SysPid::from_raw(i32::try_from(pid.0).ok()?)?;
        let open = rustix::process::pidfd_open(number, PidfdFlags::empty());
        let inode = open
            .and_then(rustix::fs::fstat)
            .map_or(0, |stat| stat.st_ino);
        Some(started.rotate_left(32) ^ inode)
    }

    fn closes_get_lost(&self) -> bool {
        false
    }
}

/// The processes of a group.
fn members(group: Pid) -> impl Iterator<Item = Pid> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(move |entry| {
        let pid = Pid(entry.file_name().to_str()?.parse().ok()?);
        (stat_field(pid, 2)? == u64::from(group.0)).then_some(pid)
    })
}

/// A number of `/proc/PID/stat`, counted from the state, which is field 0.
fn stat_field(pid: Pid, at: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.0)).ok()?;
    // The name before it may contain any character.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(at)?.parse().ok()
}

/// A line of `/proc/THREAD/status`; `None` if there is no such thread.
fn status_of(thread: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", thread.0)).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().to_owned())
}

/// The process of a thread. FUSE reports threads.
pub(super) fn process_of(thread: Pid) -> Pid {
    let process = status_of(thread, "Tgid:").and_then(|pid| pid.parse().ok());
    process.map_or(thread, Pid)
}

/// Whether a thread that waits will end before it sees an answer.
pub(super) fn is_killed(thread: Pid) -> bool {
    // Until it is answered it exists. If it cannot be seen, it is in another namespace.
    let pending = status_of(thread, "SigPnd:");
    let pending = pending.and_then(|pending| u64::from_str_radix(&pending, 16).ok());
    pending.unwrap_or(0) & 1 << (Signal::KILL.as_raw() - 1) != 0
}

/// Sends `SIGIO`, if it is still wanted.
pub(super) fn send_sigio(signal: Sigio) {
    if !signal.is_wanted(&LinuxProcesses) {
        return;
    }
    let target = signal.target;
    let pid = |pid: Pid| i32::try_from(pid.0).ok().and_then(SysPid::from_raw);
    let sent = match target {
        SignalTarget::Process(process) => {
            pid(process).map(|pid| rustix::process::kill_process(pid, Signal::IO))
        }
        SignalTarget::Group(group) => {
            pid(group).map(|pid| rustix::process::kill_process_group(pid, Signal::IO))
        }
    };
    if let Some(Err(error)) = sent {
        log::debug!("SIGIO to {target:?}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn every_process_has_a_session() {
        // Its leader is itself; ours may be outside this namespace of processes, with number 0.
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", "echo; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut started = [0];
        leader
            .stdout
            .take()
            .unwrap()
            .read_exact(&mut started)
            .unwrap();
        let pid = Pid(leader.id());
        assert_eq!(
            LinuxProcesses.session(SignalTarget::Process(pid)),
            Some(pid)
        );
        assert_eq!(LinuxProcesses.session(SignalTarget::Group(pid)), Some(pid));
        drop(leader.stdin.take());
        leader.wait().unwrap();
        assert_eq!(LinuxProcesses.session(SignalTarget::Process(pid)), None);
    }

    #[test]
    fn a_process_without_a_leader_to_be_seen_is_no_mistake() {
        let own = Pid(std::process::id());
        assert!(LinuxProcesses.session(SignalTarget::Process(own)).is_some());
        // The first kernel thread, where it can be seen, belongs to session 0.
        let _ = LinuxProcesses.session(SignalTarget::Process(Pid(2)));
        assert_eq!(
            LinuxProcesses.session(SignalTarget::Process(Pid(u32::MAX))),
            None
        );
    }
}
