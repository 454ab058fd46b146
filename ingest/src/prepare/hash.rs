//! Makes keyed hashes that take the place of values. Equal values stay equal, and without the key nobody can tell which value
//! it was, not even by trying all of them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::{self, Write};
use std::path::Path;

/// Shortest key, in bytes: a shorter one could be guessed.
pub const KEY_BYTES_MIN: usize = 16;
/// Longest key, and longest file with a key, in bytes: a longer one is taken for a mistake.
pub const KEY_BYTES_MAX: usize = 4096;
/// The text that every hash begins with.
pub const PREFIX: &str = "hmac:";
/// How many bytes of an HMAC are kept, each as two hex digits.
const SHOWN_BYTES: usize = 16;

/// A key for hashes, which is never shown.
#[derive(Clone)]
pub struct HashKey {
    keyed: Hmac<Sha256>,
    bytes: Vec<u8>,
}

/// Why there is no key. No message shows any of a key's bytes.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key, or the file that holds it, is too short or too long.
    #[error("has {bytes} bytes: a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX}")]
    Length {
        /// How many bytes there are.
        bytes: u64,
    },
    /// The file that holds the key can't be read.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

impl HashKey {
    /// A key of these bytes.
    ///
    /// # Errors
    /// There are too few or too many bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) {
            return Err(KeyError::Length {
                bytes: bytes.len() as u64,
            });
        }
        let keyed = Hmac::<Sha256>::new_from_slice(bytes).expect("HMAC takes keys of any length");
        Ok(Self {
            keyed,
            bytes: bytes.to_vec(),
        })
    }

    /// The key in a file, without white space around it.
    ///
    /// # Errors
    /// The file can't be read, or holds no key.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let bytes = std::fs::metadata(path)?.len();
        if bytes > KEY_BYTES_MAX as u64 {
            return Err(KeyError::Length { bytes });
        }
        Self::new(std::fs::read(path)?.trim_ascii())
    }

    /// The hash of a value: `hmac:` and the first 16 bytes of its HMAC-SHA256, as 32 hex digits.
    #[must_use]
    pub fn hash(&self, value: &[u8]) -> String {
        let mut keyed = self.keyed.clone();
        keyed.update(value);
        let mut out = String::with_capacity(PREFIX.len() + 2 * SHOWN_BYTES);
        out.push_str(PREFIX);
        for byte in &keyed.finalize().into_bytes()[..SHOWN_BYTES] {
            let _ = write!(out, "{byte:02x}");
        }
        out
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(***)")
    }
}

impl PartialEq for HashKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for HashKey {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector is the sixth of RFC 4231; the second one has a key of 4 bytes, which is too short here.
    #[test]
    fn hashes_are_those_of_the_rfc_and_the_key_is_not_shown() {
        let key = HashKey::new(&[0xaa; 131]).unwrap();
        let hash = key.hash(b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hash, "hmac:60e431591ee0b67f0d8a26aacbf5b77f");
        assert_ne!(key.hash(b"a"), key.hash(b"b"));
        assert_ne!(HashKey::new(&[0xab; 131]).unwrap().hash(b"a"), key.hash(b"a"));
        assert_eq!(format!("{key:?}"), "HashKey(***)");
        assert!(
            HashKey::new(b"short")
                .unwrap_err()
                .to_string()
                .contains("has 5 bytes")
        );
        assert!(HashKey::new(&[1; KEY_BYTES_MAX + 1]).is_err());
    }
}
