//! Settings as lines of text in the files of `netcfg`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// Writes one line. `EINVAL` if it is more than one.
pub(crate) fn set(root: &Path, file: &str, line: &str) -> io::Result<()> {
    if line.contains('\n') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = root.join("netcfg").join(file);
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// The text of a file.
pub(crate) fn get(root: &Path, file: &str) -> io::Result<String> {
    std::fs::read_to_string(root.join("netcfg").join(file))
}
