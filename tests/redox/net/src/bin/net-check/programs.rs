//! Ordinary programs: netutils' `ping` and `nc`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use redox_net::place::Place;

use crate::ethernet::GATEWAY;
use crate::{Test, skip};

pub(crate) const TESTS: &[Test] = &[
    Test::lo("program_ping", ping),
    Test::eth("program_ping_gateway", ping_gateway),
    Test::lo("program_nc", nc),
    Test::lo("program_nc_refused", nc_refused),
];

/// A program of the image, if it is there.
fn program(name: &str) -> Command {
    let path = format!("/usr/bin/{name}");
    if !Path::new(&path).exists() {
        skip(&format!("no {path}"));
    }
    Command::new(path)
}

fn pings(to: Ipv4Addr) {
    let ping = program("ping")
        .args(["-c", "3"])
        .arg(to.to_string())
        .output();
    let output = ping.expect("ping");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("3 packets received"), "{said}");
}

fn ping(place: &Place) {
    pings(place.target);
}

fn ping_gateway(_place: &Place) {
    pings(GATEWAY);
}

/// A running `nc`, and its output.
struct Netcat {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Netcat {
    fn start(args: &[&str]) -> Self {
        let mut command = program("nc");
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().expect("nc");
        Self {
            input: child.stdin.take().expect("input"),
            output: BufReader::new(child.stdout.take().expect("output")),
            child,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line
    }
}

/// Each end prints the lines typed at the other; when one closes its input, both end.
fn nc(place: &Place) {
    let name = SocketAddrV4::new(place.target, 4720);
    let mut server = Netcat::start(&["-l", &name.to_string()]);
    // It listens once the port can no longer be bound.
    while TcpListener::bind(name).is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
    let mut client = Netcat::start(&[&name.to_string()]);
    assert_eq!(client.line(), format!("Remote host: {name}\n"));
    for round in 0..20 {
        let text = format!("question {round}\n");
        client.input.write_all(text.as_bytes()).expect("question");
        assert_eq!(server.line(), text);
        let text = format!("answer {round}\n");
        server.input.write_all(text.as_bytes()).expect("answer");
        assert_eq!(client.line(), text);
    }
    drop(client.input);
    assert!(client.child.wait().expect("client").success());
    let mut rest = String::new();
    server.output.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "");
    assert!(server.child.wait().expect("server").success());
}

fn nc_refused(place: &Place) {
    let nobody = SocketAddrV4::new(place.target, 4721).to_string();
    let output = program("nc").arg(nobody).stdin(Stdio::null()).output();
    let said = output.expect("nc").stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("refused"), "{said}");
}
