//! Names of interfaces that need not be there.

/// Bytes of a name with the zeros behind it (`IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// A name that an interface has, had or will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName {
    bytes: [u8; IFNAMSIZ],
    len: u8,
}

impl IfName {
    /// Reads the name in a device control: one to fifteen visible characters, and zeros. `Some(None)`
    /// if there are only zeros; `None` if it is no name.
    pub fn parse(bytes: [u8; IFNAMSIZ]) -> Option<Option<Self>> {
        let len = bytes.iter().position(|&byte| byte == 0)?;
        let (name, zeros) = bytes.split_at(len);
        let visible = name.iter().all(|&byte| byte.is_ascii_graphic());
        let padded = zeros.iter().all(|&byte| byte == 0);
        let name = Self {
            bytes,
            len: len as u8,
        };
        (visible && padded).then_some((len > 0).then_some(name))
    }

    /// The name that is this text; `None` if it is no name.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; IFNAMSIZ];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Self::parse(bytes)?.filter(|name| name.as_str() == text)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // Its characters are visible ones of ASCII.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(name: &[u8]) -> [u8; IFNAMSIZ] {
        let mut bytes = [0; IFNAMSIZ];
        bytes[..name.len()].copy_from_slice(name);
        bytes
    }

    #[test]
    fn a_name_is_visible_and_padded_with_zeros() {
        let name = |bytes: &[u8]| IfName::parse(padded(bytes));
        assert_eq!(name(b"tun32767").unwrap().unwrap().as_str(), "tun32767");
        assert_eq!(name(b"123456789012345").unwrap().unwrap().len, 15);
        assert_eq!(name(b""), Some(None));
        for bad in [
            &b"1234567890123456"[..],
            b"tun0\0tun1",
            b"\0tun0",
            b"tun 0",
            b"tun0\n",
            b"t\xc3\xbc0",
        ] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
        assert_eq!(IfName::new("tun0"), name(b"tun0").unwrap());
        for bad in [
            "",
            "1234567890123456",
            "12345678901234567",
            "tun 0",
            "tü0",
            "tun0\0",
        ] {
            assert_eq!(IfName::new(bad), None, "{bad:?}");
        }
    }
}
