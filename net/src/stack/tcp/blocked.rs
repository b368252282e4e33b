//! Connections that wait for room in an interface's send queue.

use super::{FlowId, Tcp};
use crate::ifnet::{Flow, IfIndex};
use crate::ip::Ip;
use crate::ip::header::{Endpoints, proto};
use crate::ip::output::Path;

impl Tcp {
    /// Whether an interface has room for a packet of a connection. One that is gone takes everything,
    /// and loses it.
    pub(super) fn has_room(&self, ip: &Ip, dev: IfIndex, id: FlowId) -> bool {
        let (Some(ifp), Some(flow)) = (ip.ifs.get(dev), self.flow(id)) else {
            return true;
        };
        let Endpoints { local, remote, .. } = flow.endpoints;
        ifp.snd
            .admits(|| Flow::between(proto::TCP, local, remote), ip.now)
    }

    /// Has a connection wait for room. Its timers run on.
    pub(super) fn block(&mut self, ip: &mut Ip, id: FlowId, path: Option<Path>) {
        if let Some(path) = path
            && let Some(flow) = self.flow_mut(id)
            && flow.blocked.replace(path.dev) != Some(path.dev)
        {
            if let Some(ifp) = ip.ifs.get_mut(path.dev) {
                ifp.room_awaited = true;
            }
            let Self { flows, blocked, .. } = self;
            let queue = blocked.entry(path.dev).or_default();
            queue.push_back(id);
            // Connections that are gone are swept out before they are more than the others.
            if queue.len() > 2 * flows.len() + 64 {
                queue.retain(|id| {
                    let flow = flows.get(id.key as usize);
                    flow.is_some_and(|flow| {
                        flow.serial == id.serial && flow.blocked == Some(path.dev)
                    })
                });
            }
        }
    }

    /// The send queue of an interface may have room again, or is gone. As many go on as it has room
    /// for, those that waited longest first: each sends one packet at least, or passes on its turn.
    pub(crate) fn unblock(&mut self, ip: &mut Ip, dev: IfIndex) {
        let ifp = ip.ifs.get_mut(dev);
        let count = ifp.as_ref().map_or(usize::MAX, |ifp| ifp.snd.woken());
        self.wake(dev, count);
        if let Some(ifp) = ifp {
            ifp.room_awaited = self.blocked.contains_key(&dev);
        }
    }

    /// A connection had no more to send, and there may be room left for the next.
    pub(super) fn pass_on(&mut self, ip: &Ip, id: FlowId, path: Option<Path>) {
        if let Some(path) = path
            && !self.blocked.is_empty()
            && self.has_room(ip, path.dev, id)
        {
            self.wake(path.dev, 1);
        }
    }

    /// If the routing table changed, connections that are blocked may have another way now, and look.
    #[inline]
    pub(crate) fn reroute(&mut self, ip: &Ip) {
        let generation = ip.routes.generation();
        if std::mem::replace(&mut self.generation, generation) == generation {
            return;
        }
        let devs: Vec<IfIndex> = self.blocked.keys().copied().collect();
        for dev in devs {
            self.wake(dev, usize::MAX);
        }
    }

    /// Wakes as many of those blocked on an interface.
    fn wake(&mut self, dev: IfIndex, mut count: usize) {
        if count == 0 {
            return;
        }
        let Some(mut blocked) = self.blocked.remove(&dev) else {
            return;
        };
        while count > 0
            && let Some(id) = blocked.pop_front()
        {
            // It may have found another way meanwhile.
            if let Some(flow) = self.flow_mut(id)
                && flow.blocked.take_if(|blocked| *blocked == dev).is_some()
            {
                self.make_ready(id);
                count -= 1;
            }
        }
        if !blocked.is_empty() {
            self.blocked.insert(dev, blocked);
        }
    }
}
