//! Keys, which files have in base64.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;

/// Bytes of a key.
const LEN: usize = 32;

/// A key that must not be told: a private key, or one shared with a peer. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; LEN]);

impl Secret {
    /// Reads 44 characters of base64.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        parse(text).map(Self)
    }

    /// The public key that belongs to this private key.
    pub fn public(&self) -> Public {
        Public(x25519::PublicKey::from(&self.private()).to_bytes())
    }

    pub(crate) fn private(&self) -> x25519::StaticSecret {
        self.0.into()
    }

    pub(crate) fn bytes(&self) -> [u8; LEN] {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Public([u8; LEN]);

impl Public {
    /// Reads 44 characters of base64.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        parse(text).map(Self)
    }

    pub(crate) fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn key(self) -> x25519::PublicKey {
        self.0.into()
    }
}

impl fmt::Display for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAKey;

impl fmt::Display for NotAKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key is 32 bytes in base64, 44 characters")
    }
}

impl std::error::Error for NotAKey {}

fn parse(text: &str) -> Result<[u8; LEN], NotAKey> {
    let bytes = STANDARD.decode(text).map_err(|_| NotAKey)?;
    bytes.try_into().map_err(|_| NotAKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7748 section 6.1: Alice's keys.
    const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_public_key_is_made_and_a_private_one_never_printed() {
        let secret = Secret::parse(PRIVATE).unwrap();
        assert_eq!(secret.public().to_string(), PUBLIC);
        assert_eq!(Public::parse(PUBLIC), Ok(secret.public()));
        assert_eq!(format!("{secret:?}"), "(hidden)");
    }

    #[test]
    fn what_is_not_a_key() {
        for text in [
            "",
            "x",
            &PUBLIC[1..],
            &format!("{PUBLIC}="),
            &PUBLIC.replace('=', "A"),
            &"=".repeat(44),
        ] {
            assert_eq!(Public::parse(text), Err(NotAKey), "{text}");
        }
    }
}
