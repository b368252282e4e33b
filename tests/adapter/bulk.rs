//! Much at once, both ways: every byte is checked.

use std::fs::OpenOptions;
use std::io::{Read, Write};

use crate::bed::Bed;
use crate::common::wait::until;

/// Bytes each way.
const BYTES: usize = 6_000_000;

/// We connect to the kernel.
pub(crate) fn connections_of_ours(bed: &Bed) {
    for (family, address) in [("AF_INET", "10.0.0.2"), ("AF_INET6", "fd00::2")] {
        let server = bed.start_python(&format!(
            r#"
import array, socket, threading
def bytes_of(salt):
    words = (i * 2654435761 + salt & 0xffffffff for i in range({words}))
    return array.array("I", words).tobytes()
theirs, ours = bytes_of(1), bytes_of(2)
listener = socket.create_server(("{address}", 5001), family=socket.{family})
print("ready", flush=True)
t, peer = listener.accept()
t.settimeout(60)
sender = threading.Thread(target=t.sendall, args=(theirs,))
sender.start()
back = bytearray()
while len(back) < len(ours) and (piece := t.recv(1 << 20)):
    back += piece
sender.join()
assert back == ours, len(back)
t.shutdown(socket.SHUT_WR)
assert t.recv(1) == b"", "more than there was"
print("all good")
"#,
            words = BYTES / 4
        ));
        let name = match address.contains(':') {
            true => format!("tcp/[{address}]:5001"),
            false => format!("tcp/{address}:5001"),
        };
        let path = bed.system.dir().join(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut back = Vec::new();
        std::thread::scope(|scope| {
            let mut sender = file.try_clone().unwrap();
            scope.spawn(move || sender.write_all(&bytes_of(2)).unwrap());
            // To the end of the stream.
            file.read_to_end(&mut back).unwrap();
        });
        assert!(back == bytes_of(1), "{} bytes came back", back.len());
        drop(file);
        assert_eq!(server.line(), "all good\n");
    }
    for reason in ["bad_checksum", "malformed", "missed", "refused"] {
        assert_eq!(bed.drops(reason), 0, "{reason}");
    }
}

/// What the script above has under the same name.
fn bytes_of(salt: u32) -> Vec<u8> {
    let words = (0..BYTES as u32 / 4).map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(salt));
    words.flat_map(u32::to_ne_bytes).collect()
}

/// A program of another kernel behind us, which we forward for.
pub(crate) fn iperf3(bed: &Bed) {
    let behind = bed.behind();
    let _server = bed.start(&["iperf3", "-s"]);
    until("it listens", || {
        bed.run(&["cat", "/proc/net/tcp6"]).contains(":1451 ")
    });
    let bytes = BYTES.to_string();
    for address in ["10.0.0.2", "fd00::2"] {
        for direction in [&[][..], &["-R"], &["--bidir"]] {
            let program = ["iperf3", "--json", "-c", address, "-n", &bytes];
            let (_, text) = behind.run(&[&program[..], direction].concat());
            let report: serde_json::Value = serde_json::from_str(&text).unwrap();
            // The server stops counting while the last of them are under way, and when one way is done.
            let bytes = |sum: &str| report["end"][sum]["bytes"].as_u64();
            let ways = match direction {
                ["--bidir"] => &["", "_bidir_reverse"][..],
                _ => &[""],
            };
            let sent = ways.iter().map(|way| bytes(&format!("sum_sent{way}")));
            assert!(sent.max().flatten() >= Some(BYTES as u64), "{text}");
            let mut received = ways.iter().map(|way| bytes(&format!("sum_received{way}")));
            assert!(received.all(|bytes| bytes > Some(0)), "{text}");
        }
    }
    for reason in ["bad_checksum", "malformed", "missed", "refused"] {
        assert_eq!(bed.drops(reason), 0, "{reason}");
    }
}
