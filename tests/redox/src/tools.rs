//! tunctl, where the image has it: what it shows at once, and the command lines of BSD.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::device::Tun;
use crate::harness::skip;
use crate::{netcfg, tests};

const TUNCTL: &str = "/usr/bin/tunctl";
const EX_USAGE: i32 = 64;

tests![
    tunctl_shows_the_network_once,
    tunctl_is_ifconfig,
    tunctl_is_route,
];

/// Runs tunctl under a name.
fn run(name: &str, words: &str) -> Output {
    if !Path::new(TUNCTL).exists() {
        skip("no tunctl");
    }
    let words = words.split_whitespace();
    let run = Command::new(TUNCTL).arg0(name).args(words).output();
    run.expect("run tunctl")
}

/// What a command line that succeeds prints.
#[track_caller]
fn prints(name: &str, words: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = run(name, words);
    let errors = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{name} {words}: {status}, {errors}");
    String::from_utf8_lossy(&stdout).into_owned()
}

fn tunctl_shows_the_network_once() {
    let _tun = Tun::up(35);
    let picture = prints("tunctl", "top --once");
    assert!(picture.contains("tun35"), "{picture}");
    let sockets = prints("tunctl", "sockets");
    assert!(!sockets.contains("panicked"), "{sockets}");
    let route = prints("tunctl", "route get 10.0.35.2");
    assert!(route.contains("tun35"), "{route}");
}

fn tunctl_is_ifconfig() {
    let _tun = Tun::fresh(35);
    prints(
        "ifconfig",
        "tun35 10.80.0.2 10.80.0.1 mtu 1450 netmask 255.255.255.255 up",
    );
    assert_eq!(
        netcfg::get_if(35, "addr/list"),
        "10.80.0.2 peer 10.80.0.1\n"
    );
    assert_eq!(netcfg::get_if(35, "mtu"), "1450\n");
    assert!(prints("ifconfig", "tun35").contains("10.80.0.2"));
    assert!(prints("ifconfig", "-a").contains("lo0"));
    prints("ifconfig", "tun35 down");
    assert!(!netcfg::get_if(35, "flags").contains("UP"));
    let usage = run("ifconfig", "tun35 frobnicate");
    assert_eq!(usage.status.code(), Some(EX_USAGE));
}

fn tunctl_is_route() {
    let _tun = Tun::up(35);
    prints("route", "add -net 198.18.0.0 10.0.35.2 255.254.0.0");
    let line = "198.18.0.0/15 via 10.0.35.2 dev tun35\n";
    assert!(netcfg::get("route/list").contains(line));
    assert!(prints("route", "get 198.18.0.1").contains("tun35"));
    assert!(prints("route", "-n show").contains("198.18.0.0"));
    prints("route", "delete -net 198.18.0.0 10.0.35.2 255.254.0.0");
    assert!(!netcfg::get("route/list").contains("198.18.0.0"));
}
