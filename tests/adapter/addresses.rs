//! Addresses that two stations have, and how they find out.

use crate::bed::Bed;
use crate::common::wait::until;

/// We take an address that the kernel has: it is asked for, and the kernel objects.
pub(crate) fn the_kernel_has_it(bed: &Bed) {
    bed.run(&["ip", "addr", "add", "10.0.0.9/24", "dev", "b0"]);
    bed.run(&["ip", "addr", "add", "fd00::9/64", "dev", "b0", "nodad"]);
    let events = bed.events();
    // An announcement follows each question, and one more is the defence.
    let asked = bed.watch(
        r#"
four, six = socket.inet_aton("10.0.0.9"), socket.inet_pton(socket.AF_INET6, "fd00::9")
group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:9")
questions, announced = set(), 0
for frame in frames():
    if frame[12:14] == b"\x08\x06" and frame[38:42] == four:
        if frame[20:22] == b"\x00\x01" and frame[28:32] == bytes(4):
            assert frame[:6] == b"\xff" * 6
            questions.add("four")
        announced += frame[28:32] == four
    if frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 135 and frame[62:78] == six:
        assert frame[21] == 255 and frame[22:54] == bytes(16) + group, "not a question of who has it"
        assert len(frame) == 78, "a station without an address names none"
        questions.add("six")
    if len(questions) == 2 and announced >= 2:
        print("all seen")
        break
"#,
    );
    bed.set("ifaces/eth0/addr/add", "10.0.0.9/24");
    bed.set("ifaces/eth0/addr/add", "fd00::9/64");
    assert_eq!(asked.line(), "all seen\n");
    until("the address is given up", || {
        !bed.has("ifaces/eth0/addr/list", "fd00::9")
    });
    until("it is told", || events.told("addr rm fd00::9/64\n"));
    until("it is logged", || {
        bed.log()
            .contains("another station has fd00::9, which is removed")
    });
    // Nobody would give this host another one (RFC 5227 section 2.4 (c)).
    until("it is logged", || {
        bed.log().contains("has our address 10.0.0.9, too")
    });
    assert!(bed.has("ifaces/eth0/addr/list", "10.0.0.9"));
    assert!(!events.told("addr rm 10.0.0.9"));
    bed.set("ifaces/eth0/addr/rm", "10.0.0.9");
    bed.ping("10.0.0.9", "56");
    bed.ping("fd00::9", "56");
}

/// The kernel takes an address that we have: it hears that it is taken.
pub(crate) fn we_have_it(bed: &Bed) {
    bed.kernel_file("net/ipv6/conf/b0/accept_dad", "1");
    for address in ["fd00::1", &bed.link_local()] {
        let network = format!("{address}/64");
        bed.run(&["ip", "addr", "add", &network, "dev", "b0"]);
        until_refused(bed, &network);
        bed.run(&["ip", "addr", "del", &network, "dev", "b0"]);
        assert!(bed.has("ifaces/eth0/addr/list", &network));
    }
    // The kernel does not ask who has an IPv4 address. A program does, and is told.
    let probe = ["arping", "-D", "-c", "1", "-w", "20", "-I", "b0"];
    let (status, text) = bed.try_run(&[&probe[..], &["10.0.0.1"]].concat());
    assert_eq!(status, Some(1), "{text}");
    // Another takes it without asking, and says so. We say that it is ours.
    bed.run(&["ip", "addr", "add", "10.0.0.1/32", "dev", "b0"]);
    let defended = bed.watch(
        r#"
four = socket.inet_aton("10.0.0.1")
for frame in frames():
    if frame[12:14] == b"\x08\x06" and frame[28:32] == four and frame[38:42] == four:
        assert frame[:6] == b"\xff" * 6 and frame[22:28] == ours
        print("defended")
        break
"#,
    );
    let announce = ["arping", "-A", "-c", "1", "-I", "b0", "-s", "10.0.0.1"];
    bed.run(&[&announce[..], &["10.0.0.1"]].concat());
    assert_eq!(defended.line(), "defended\n");
    until("it is logged", || {
        bed.log().contains("has our address 10.0.0.1, too")
    });
    bed.run(&["ip", "addr", "del", "10.0.0.1/32", "dev", "b0"]);
    assert!(bed.has("ifaces/eth0/addr/list", "10.0.0.1/24"));
    bed.kernel_ping("10.0.0.1", "56");
    bed.kernel_ping("fd00::1", "56");
}

/// We take an address while the kernel is still asking for it: it hears our question, and does not
/// take it (RFC 4862 section 5.4.3).
pub(crate) fn the_kernel_is_about_to_have_it(bed: &Bed) {
    bed.kernel_file("net/ipv6/conf/b0/accept_dad", "1");
    // It waits for an answer until the test is over.
    bed.kernel_file("net/ipv6/neigh/b0/retrans_time_ms", "600000");
    bed.run(&["ip", "addr", "add", "fd00::8/64", "dev", "b0"]);
    bed.set("ifaces/eth0/addr/add", "fd00::8/64");
    until_refused(bed, "fd00::8/64");
}

fn until_refused(bed: &Bed, network: &str) {
    until("the kernel hears that it is taken", || {
        bed.run(&["ip", "-6", "addr", "show", "dev", "b0"])
            .lines()
            .any(|line| line.contains(network) && line.contains("dadfailed"))
    });
}

/// RFC 826 and RFC 5227, asked by a program that shows what it gets.
pub(crate) fn arping(bed: &Bed) {
    let mac = bed.mac().to_uppercase();
    let text = bed.run(&["arping", "-c", "1", "-w", "20", "-I", "b0", "10.0.0.1"]);
    assert!(text.contains(&mac) && text.contains("Received"), "{text}");
    // Whether it may be taken: no.
    let (status, text) = bed.try_run(&[
        "arping", "-D", "-c", "1", "-w", "20", "-I", "b0", "10.0.0.1",
    ]);
    assert_eq!(status, Some(1), "{text}");
    let (status, text) = bed.try_run(&[
        "arping",
        "-D",
        "-c",
        "1",
        "-w",
        "1",
        "-I",
        "b0",
        "10.0.0.77",
    ]);
    assert_eq!(status, Some(0), "{text}");
    // An announcement of another host's address does not become ours.
    bed.run(&[
        "arping", "-U", "-c", "1", "-I", "b0", "-s", "10.0.0.2", "10.0.0.2",
    ]);
    bed.ping("10.0.0.2", "56");
}

pub(crate) fn ndisc6(bed: &Bed) {
    let mac = bed.mac().to_uppercase();
    for address in ["fd00::1", &bed.link_local()] {
        let text = bed.run(&["ndisc6", "-1", "-w", "10000", address, "b0"]);
        assert!(text.contains(&mac), "{text}");
    }
    let (status, text) = bed.try_run(&["ndisc6", "-1", "-r", "1", "-w", "200", "fd00::77", "b0"]);
    assert_ne!(status, Some(0), "{text}");
}
