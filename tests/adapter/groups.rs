//! Groups that we joined, and those that ask for their members.

use crate::bed::Bed;
use crate::common::wait::until;

const GROUPS: [&str; 2] = ["239.1.2.3", "ff15::1234"];

pub(crate) fn queries(bed: &Bed) {
    join(bed);
    bed.python(concat!(
        include_str!("reports.py"),
        include_str!("querier.py")
    ));
}

/// A bridge of the kernel that asks, and passes on to a port what was reported behind it.
pub(crate) fn queries_of_a_bridge(bed: &Bed) {
    join(bed);
    let ip = |line: &str| {
        let words: Vec<_> = ["ip"].into_iter().chain(line.split(' ')).collect();
        bed.run(&words);
    };
    ip(
        "link add br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_igmp_version 3 mcast_mld_version 2",
    );
    // Hundredths of a second.
    for (interval, time) in [
        ("query", 100),
        ("startup_query", 100),
        ("query_response", 50),
    ] {
        ip(&format!(
            "link set br0 type bridge mcast_{interval}_interval {time}"
        ));
    }
    ip("addr flush dev b0 scope global");
    ip("link set b0 master br0");
    ip("addr add 10.0.0.2/24 dev br0");
    ip("addr add fd00::2/64 dev br0 nodad");
    ip("link set br0 up");
    let known = |group: &str| {
        let text = bed.run(&["bridge", "mdb", "show"]);
        let line = format!(" port b0 grp {group} ");
        text.lines().any(|known| known.contains(&line))
    };
    // The newest first: once an older querier was there, everybody hears what it understands.
    for (igmp, mld) in [("3", "2"), ("2", "1")] {
        ip(&format!(
            "link set br0 type bridge mcast_igmp_version {igmp} mcast_mld_version {mld}"
        ));
        let script = concat!(include_str!("reports.py"), include_str!("bridge.py"));
        bed.python(&script.replace("VERSION", igmp));
        for group in GROUPS {
            until("the bridge knows of it", || known(group));
        }
    }
    assert!(!known("239.1.2.4") && !known("ff15::1235"));
    for group in GROUPS {
        bed.set("ifaces/eth0/multicast", &format!("leave {group}"));
        until("the bridge knows that it was left", || !known(group));
    }
    bed.kernel_ping("10.0.0.1", "56");
    bed.kernel_ping("fd00::1", "56");
}

fn join(bed: &Bed) {
    for group in GROUPS {
        bed.set("ifaces/eth0/multicast", &format!("join {group}"));
    }
}
