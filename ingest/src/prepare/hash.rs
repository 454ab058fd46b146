//! Keyed hashes in place of values: equal values stay equal, and without the key nobody can tell which value it was, not
//! even by trying all of them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::{self, Write};
use std::path::Path;

/// A shorter key could be guessed.
pub const KEY_BYTES_MIN: usize = 16;
/// A longer one is a mistake, and so is a longer file.
pub const KEY_BYTES_MAX: usize = 4096;
/// What a hash begins with.
pub const PREFIX: &str = "hmac:";
/// How many bytes of the hash are written, as twice as many hex digits.
const SHOWN_BYTES: usize = 16;

/// The key. It is never shown.
#[derive(Clone)]
pub struct HashKey {
    keyed: Hmac<Sha256>,
    bytes: Vec<u8>,
}

impl HashKey {
    /// A key of these bytes.
    ///
    /// # Errors
    /// Why they are none: too few or too many, never which.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) {
            return Err(format!(
                "has {} bytes: a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX}",
                bytes.len()
            ));
        }
        let keyed = Hmac::<Sha256>::new_from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            keyed,
            bytes: bytes.to_vec(),
        })
    }

    /// The key in a file, without space around it.
    ///
    /// # Errors
    /// The file can't be read, or holds no key.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if length > KEY_BYTES_MAX as u64 {
            return Err(format!(
                "has {length} bytes: a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX}"
            ));
        }
        Self::new(
            std::fs::read(path)
                .map_err(|error| error.to_string())?
                .trim_ascii(),
        )
    }

    /// HMAC-SHA256 of a value, its first 16 bytes as text: `hmac:` and 32 hex digits.
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

    /// The second vector of RFC 4231 has a key of 4 bytes, too few here; the sixth has 131.
    #[test]
    fn hashes_are_those_of_the_rfc_and_the_key_is_not_shown() {
        let key = HashKey::new(&[0xaa; 131]).unwrap();
        let hash = key.hash(b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hash, "hmac:60e431591ee0b67f0d8a26aacbf5b77f");
        assert_ne!(key.hash(b"a"), key.hash(b"b"));
        assert_ne!(HashKey::new(&[0xab; 131]).unwrap().hash(b"a"), key.hash(b"a"));
        assert_eq!(format!("{key:?}"), "HashKey(***)");
        assert!(HashKey::new(b"short").unwrap_err().contains("has 5 bytes"));
        assert!(HashKey::new(&[1; KEY_BYTES_MAX + 1]).is_err());
    }
}
