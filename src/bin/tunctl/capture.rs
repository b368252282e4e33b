//! Copies a capture from `bpf/IF` or `bpf/drops` to a file.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use crate::interrupt::{at_interrupt, retry};
use crate::report::note;
use crate::tree::{Failure, Tree};

/// The format of a stream. Numbers in it are in host byte order.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// Classic pcap: a header, and packets with a header each.
    Pcap,
    /// Blocks that begin with their type and length; one type is that of packets.
    Pcapng,
}

/// Bytes of the header of a pcap stream, and of that of each packet.
const HEADERS: (usize, usize) = (24, 16);
/// Bytes of type and length of a pcapng block.
const BLOCK: usize = 8;
/// Type of a block with a packet (Enhanced Packet Block).
const PACKET: u32 = 6;

impl Format {
    /// The length of the record that a stream goes on with, and whether it is a packet; `None` if
    /// `bytes` are too few to say. `started` says whether it is not the first.
    fn record(self, bytes: &[u8], started: bool) -> Option<(usize, bool)> {
        let number = |at: usize| {
            let number = bytes.get(at..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*number))
        };
        match self {
            Self::Pcap if !started => Some((HEADERS.0, false)),
            Self::Pcap => Some((HEADERS.1 + number(8)? as usize, true)),
            Self::Pcapng => {
                let len = number(4)? as usize;
                Some((len.max(BLOCK), number(0)? == PACKET))
            }
        }
    }
}

/// Finds the ends of packets in a stream that comes in pieces.
struct Counter {
    format: Format,
    pending: Vec<u8>,
    started: bool,
    packets: u64,
}

impl Counter {
    fn new(format: Format) -> Self {
        Self {
            format,
            pending: Vec::new(),
            started: false,
            packets: 0,
        }
    }

    /// Takes a piece; returns how many bytes of it belong to the first `limit` packets.
    fn take(&mut self, piece: &[u8], limit: u64) -> usize {
        let held = self.pending.len();
        self.pending.extend_from_slice(piece);
        let mut at = 0;
        while self.packets < limit
            && let Some((len, is_packet)) = self.format.record(&self.pending[at..], self.started)
            && len <= self.pending.len() - at
        {
            at += len;
            self.started = true;
            self.packets += u64::from(is_packet);
        }
        self.pending.drain(..at);
        match self.packets >= limit {
            true => at.saturating_sub(held),
            false => piece.len(),
        }
    }
}

/// A message to the writer.
enum Event {
    Piece(Vec<u8>),
    End,
    Failed(io::Error),
}

pub(crate) fn run(
    tree: &Tree,
    interface: Option<&str>,
    to: &Path,
    packets: Option<u64>,
) -> Result<(), Failure> {
    let (path, format, what) = match interface {
        Some(name) => (format!("bpf/{}", tree.interface(name)?), Format::Pcap, name),
        None => ("bpf/drops".to_owned(), Format::Pcapng, "what is dropped"),
    };
    let to_stdout = to == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::new(
            "a capture is not for a terminal: give a file, or pipe it to a program",
        ));
    }
    let from = File::open(tree.path(&path)).map_err(|error| tree.explain(&path, None, &error))?;
    let mut to_file: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout())
    } else {
        let file = File::create(to);
        let file = file.map_err(|error| Failure::new(format!("{}: {error}", to.display())))?;
        note(&format!(
            "Capturing {what} to {}; interrupt to stop.",
            to.display()
        ));
        Box::new(file)
    };
    let (sender, events) = mpsc::sync_channel(4);
    let stop = sender.clone();
    // If signals cannot be caught, an interrupt just ends the process.
    let _ = at_interrupt(move || drop(stop.send(Event::End)));
    // This thread lasts as long as the process: nothing else would end its wait.
    thread::spawn(move || read(from, &sender));

    let mut counter = Counter::new(format);
    let limit = packets.unwrap_or(u64::MAX);
    while counter.packets < limit {
        let piece = match events.recv() {
            Ok(Event::Piece(piece)) => piece,
            Ok(Event::End) | Err(_) => break,
            Ok(Event::Failed(error)) => return Err(tree.explain(&path, None, &error)),
        };
        let len = counter.take(&piece, limit);
        match to_file
            .write_all(&piece[..len])
            .and_then(|()| to_file.flush())
        {
            // The reader of the pipe is gone and wants no more.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::new(format!("{}: {error}", to.display()))),
            Ok(()) => {}
        }
    }
    if !to_stdout {
        let plural = if counter.packets == 1 { "" } else { "s" };
        note(&format!("{} packet{plural}", counter.packets));
    }
    Ok(())
}

/// Reads the capture and sends it to the writer, until the interface or the writer is gone.
fn read(mut from: File, events: &SyncSender<Event>) {
    const ENXIO: i32 = 6;

    let mut piece = vec![0; 256 << 10];
    loop {
        let event = match retry(|| from.read(&mut piece)) {
            Ok(0) => Event::End,
            Ok(len) => Event::Piece(piece[..len].to_vec()),
            Err(error) if error.raw_os_error() == Some(ENXIO) => Event::End,
            Err(error) => Event::Failed(error),
        };
        let last = !matches!(event, Event::Piece(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(lens: &[usize]) -> Vec<u8> {
        let mut stream = vec![0; HEADERS.0];
        for &len in lens {
            let mut header = [0; HEADERS.1];
            header[8..12].copy_from_slice(&(len as u32).to_ne_bytes());
            stream.extend_from_slice(&header);
            stream.resize(stream.len() + len, 7);
        }
        stream
    }

    #[test]
    fn stops_at_the_end_of_a_packet_wherever_the_pieces_end() {
        let stream = stream(&[40, 100, 1]);
        let two = HEADERS.0 + 2 * HEADERS.1 + 140;
        for size in 1..stream.len() {
            let mut counter = Counter::new(Format::Pcap);
            let mut taken = 0;
            for piece in stream.chunks(size) {
                if counter.packets < 2 {
                    taken += counter.take(piece, 2);
                }
            }
            assert_eq!((taken, counter.packets), (two, 2), "pieces of {size}");
        }
    }

    #[test]
    fn of_blocks_only_those_with_a_packet_count() {
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for (kind, len) in [
            (0x0a0d_0d0a_u32, 28_u32),
            (1, 32),
            (PACKET, 60),
            (1, 32),
            (PACKET, 36),
        ] {
            stream.extend_from_slice(&kind.to_ne_bytes());
            stream.extend_from_slice(&len.to_ne_bytes());
            stream.resize(stream.len() + len as usize - BLOCK, 6);
            ends.push(stream.len());
        }
        for size in 1..stream.len() {
            let mut counter = Counter::new(Format::Pcapng);
            let mut taken = 0;
            for piece in stream.chunks(size) {
                if counter.packets < 1 {
                    taken += counter.take(piece, 1);
                }
            }
            assert_eq!((taken, counter.packets), (ends[2], 1), "pieces of {size}");
        }
    }
}
