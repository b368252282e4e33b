//! Echo requests through `icmp/ping/ADDR`: who answers, and who says that nobody will.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::icmp::Message;
use crate::interrupt::{at_interrupt, retry};
use crate::report::{print_json, say};
use crate::tree::{Failure, Tree};

/// A host: its address, and behind `%` the interface on whose link that is meant.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Destination(String);

impl Destination {
    /// The host that `text` names, if `address` accepts the address in it.
    pub(crate) fn parse<E>(
        text: &str,
        address: impl FnOnce(&str) -> Result<IpAddr, E>,
    ) -> Result<Self, E> {
        let (addr, link) = match text.split_once('%') {
            Some((addr, link)) => (addr, Some(link)),
            None => (text, None),
        };
        let addr = address(addr)?.to_string();
        Ok(Self(
            link.map_or(addr.clone(), |link| format!("{addr}%{link}")),
        ))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The destination and the parameters of the requests.
pub(crate) struct Options {
    pub(crate) address: Destination,
    pub(crate) count: Option<u16>,
    pub(crate) interval: Duration,
    pub(crate) size: u16,
    pub(crate) timeout: Duration,
}

/// A message to the sender.
enum Event {
    Heard {
        message: Message,
        /// Bytes of data.
        len: usize,
        at: Instant,
    },
    Failed(std::io::Error),
    Interrupted,
}

/// The results. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Summary {
    address: Destination,
    sent: u64,
    received: u64,
    errors: u64,
    min: Option<f64>,
    average: Option<f64>,
    max: Option<f64>,
}

pub(crate) fn run(tree: &Tree, options: &Options, json: bool) -> Result<(), Failure> {
    let path = format!("icmp/ping/{}", options.address);
    let explain = |error: &std::io::Error| tree.explain(&path, None, error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(tree.path(&path));
    let mut socket = file.map_err(|error| explain(&error))?;
    let mut replies = socket.try_clone().map_err(|error| explain(&error))?;
    let (sender, receiver) = mpsc::channel();
    let stop = sender.clone();
    // If signals cannot be caught, an interrupt just ends the process.
    let _ = at_interrupt(move || drop(stop.send(Event::Interrupted)));
    // This thread lasts as long as the process: nothing else would end its wait.
    thread::spawn(move || {
        let mut reply = vec![0; 65_536];
        loop {
            let len = match retry(|| replies.read(&mut reply)) {
                Ok(len) => len,
                Err(error) => return drop(sender.send(Event::Failed(error))),
            };
            let at = Instant::now();
            let heard = reply.get(..len).and_then(Message::parse);
            if let Some((message, data)) = heard {
                let len = data.len();
                if sender.send(Event::Heard { message, len, at }).is_err() {
                    return;
                }
            }
        }
    });
    if !json {
        say(&format!(
            "PING {}: {} bytes of data",
            options.address, options.size
        ))?;
    }
    let mut request = vec![0x55; 2 + usize::from(options.size)];
    let mut sent_at = std::collections::HashMap::new();
    let mut times = Vec::new();
    let (mut sent, mut errors) = (0, 0);
    let mut sequence = 0_u16;
    'sending: while options.count.is_none_or(|count| sent < u64::from(count)) {
        request[..2].copy_from_slice(&sequence.to_be_bytes());
        let start = Instant::now();
        socket
            .write_all(&request)
            .map_err(|error| explain(&error))?;
        sent_at.insert(sequence, start);
        sent += 1;
        sequence = sequence.wrapping_add(1);
        let last = options.count.is_some_and(|count| sent == u64::from(count));
        let pause = if last {
            options.timeout
        } else {
            options.interval
        };
        let end = start + pause;
        while let Ok(event) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            let (message, len, at) = match event {
                Event::Heard { message, len, at } => (message, len, at),
                Event::Failed(error) => return Err(explain(&error)),
                Event::Interrupted => break 'sending,
            };
            let Message { from, sequence, .. } = message;
            let Some(start) = sent_at.remove(&sequence) else {
                continue;
            };
            let line = if message.is_reply() {
                let millis = at.duration_since(start).as_secs_f64() * 1e3;
                times.push(millis);
                let bytes = len + 8;
                format!("{bytes} bytes from {from}: seq={sequence} time={millis:.3} ms")
            } else {
                errors += 1;
                format!("From {from}: {message}, seq={sequence}")
            };
            if !json {
                say(&line)?;
            }
            if last && sent_at.is_empty() {
                break;
            }
        }
        // Requests that stay unanswered for a minute are forgotten.
        sent_at.retain(|_, start| start.elapsed() < Duration::from_secs(60));
    }
    let summary = Summary {
        address: options.address.clone(),
        sent,
        received: times.len() as u64,
        errors,
        min: times.iter().copied().reduce(f64::min),
        average: (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64),
        max: times.iter().copied().reduce(f64::max),
    };
    if json {
        print_json(&summary)?;
    } else {
        let errors = match summary.errors {
            0 => String::new(),
            1 => ", 1 error".to_owned(),
            errors => format!(", {errors} errors"),
        };
        say(&format!(
            "{} sent, {} received{errors}",
            summary.sent, summary.received
        ))?;
        if let (Some(min), Some(average), Some(max)) = (summary.min, summary.average, summary.max) {
            say(&format!("min/avg/max {min:.3}/{average:.3}/{max:.3} ms"))?;
        }
    }
    match summary.received {
        0 => Err(Failure::new(format!("no reply from {}", options.address))),
        _ => Ok(()),
    }
}
