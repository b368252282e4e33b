//! A program that has no tunnel and only watches: it prints a file of `netcfg` each time its text
//! changes, and sleeps in between. Every user may run it.
//!
//! ```sh
//! cargo run -p tun-client --example watch -- /tmp/net ifaces/tun0/flags
//! ```

use std::env;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};

fn main() -> io::Result<()> {
    let root = env::args().nth(1).or(env::var("TUND_ROOT").ok());
    let root = root.unwrap_or("/scheme".to_owned());
    let path = env::args().nth(2).unwrap_or("route/list".to_owned());

    let mut file = File::open(Path::new(&root).join("netcfg").join(path))?;
    loop {
        // A file is readable while its text differs from the text last read: at first, and then
        // after each change. Changes that happen together count as one.
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled?,
        };
        // Read from the beginning to the end: the text as it was at one moment.
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        io::stdout().write_all(text.as_bytes())?;
    }
}
