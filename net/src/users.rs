//! Who uses a file that only one program may have open.
//!
//! Where a close can get lost, such a file is taken over when every process that was seen on it is
//! dead.

use std::collections::BTreeSet;

use scheme::Pid;

/// Most processes remembered for a file. With more, it is never taken over.
const MAX_USERS: usize = 256;

/// The processes that have used a handle, to tell when all of them are dead.
#[derive(Debug, Default)]
pub(crate) struct Users {
    pids: BTreeSet<Pid>,
    /// There were too many to remember: the handle counts as in use for ever.
    overflow: bool,
}

impl Users {
    /// The opener alone.
    pub(crate) fn of(opener: Pid) -> Self {
        Self {
            pids: BTreeSet::from([opener]),
            overflow: false,
        }
    }

    /// Notes a process. `dead` helps to forget others when they become many: the system may have to
    /// find out first, and know at the next one.
    #[inline]
    pub(crate) fn add(&mut self, pid: Pid, dead: impl Fn(Pid) -> bool) {
        if self.pids.contains(&pid) || self.overflow {
            return;
        }
        if self.pids.len() >= MAX_USERS / 2 {
            self.pids.retain(|&pid| !dead(pid));
        }
        if self.pids.len() >= MAX_USERS {
            self.overflow = true;
        } else {
            self.pids.insert(pid);
        }
    }

    /// Whether none of them is alive, and there can be no other.
    pub(crate) fn all_dead(&self, alive: impl Fn(Pid) -> bool) -> bool {
        !self.overflow && !self.pids.iter().any(|&pid| alive(pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_only_when_every_user_is_dead() {
        let mut users = Users::default();
        users.add(Pid(1), |_| false);
        users.add(Pid(2), |_| false);
        assert!(!users.all_dead(|pid| pid == Pid(2)));
        assert!(users.all_dead(|_| false));
        for pid in 0..=MAX_USERS as u32 {
            users.add(Pid(pid), |_| false);
        }
        assert!(!users.all_dead(|_| false));
    }

    /// It is enough to know who died with a delay.
    #[test]
    fn the_dead_make_room() {
        let mut users = Users::default();
        for pid in 0..10 * MAX_USERS as u32 {
            users.add(Pid(pid), |other| other.0 + 10 < pid);
        }
        assert!(users.all_dead(|_| false));
        assert!(users.pids.len() <= MAX_USERS / 2 + 1);
    }
}
