//! Decompresses bodies within limits: gzip, zstd, or no compression at all.

use crate::prepare::admit::{Busy, Permit};
use crate::prepare::memory::capacity;
use bytes::Bytes;
use std::io::Read;

/// Decompression asks the permit for room in steps of that many bytes.
const STEP_BYTES: usize = 64 << 10;
/// How far a zstd frame may look back, as a power of two in bytes: 8 MiB, which RFC 8878 wants every decoder to support.
const WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// The body is not compressed.
    Identity,
    /// RFC 1952: gzip, with any number of members.
    Gzip,
    /// RFC 8878: zstd, with any number of frames.
    Zstd,
}

/// Why a body can't be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodingError {
    /// The body is not of that coding, breaks off, or something else follows it.
    #[error("not valid {}", .0.name())]
    Malformed(Coding),
    /// The decompressed body would be larger than the limit.
    #[error("larger than the limit when decompressed")]
    TooLarge,
    /// Open requests hold too many bytes for another step.
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl Coding {
    /// The coding with that name in a header; an empty name stands for no compression.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let name = name.trim();
        if name.is_empty() || name.eq_ignore_ascii_case("identity") {
            Some(Self::Identity)
        } else if name.eq_ignore_ascii_case("gzip") {
            Some(Self::Gzip)
        } else if name.eq_ignore_ascii_case("zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    /// The coding's name in a header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The decompressed body, of `limit` bytes at most; the permit grows by what it takes. An empty body stays empty.
    pub(crate) fn decode(self, body: Bytes, limit: usize, permit: &mut Permit) -> Result<Bytes, CodingError> {
        let malformed = |_| CodingError::Malformed(self);
        match self {
            Self::Identity if body.len() > limit => Err(CodingError::TooLarge),
            Self::Identity => Ok(body),
            _ if body.is_empty() => Ok(body),
            Self::Gzip => self.inflate(flate2::read::MultiGzDecoder::new(body.as_ref()), limit, permit),
            Self::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(body.as_ref()).map_err(malformed)?;
                decoder.window_log_max(WINDOW_LOG_MAX).map_err(malformed)?;
                self.inflate(decoder, limit, permit)
            }
        }
    }

    fn inflate(self, mut reader: impl Read, limit: usize, permit: &mut Permit) -> Result<Bytes, CodingError> {
        let mut out = Vec::new();
        loop {
            permit.grow(STEP_BYTES)?;
            if out.capacity() - out.len() < STEP_BYTES {
                // A large buffer gets room for all that may come at once, since growing copies it and holds it twice.
                let grown = 2 * out.len() + STEP_BYTES;
                let room = if capacity(grown) == grown {
                    grown
                } else {
                    capacity(limit + STEP_BYTES)
                };
                out.reserve_exact(room.max(grown) - out.len());
            }
            let step = (&mut reader)
                .take(STEP_BYTES as u64)
                .read_to_end(&mut out)
                .map_err(|_| CodingError::Malformed(self))?;
            if out.len() > limit {
                return Err(CodingError::TooLarge);
            }
            if step == 0 {
                return Ok(Bytes::from(out));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::admit::Admission;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn encode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Identity => bytes.to_vec(),
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        }
    }

    fn decode(coding: Coding, body: &[u8], limit: usize, room: u64) -> Result<Bytes, CodingError> {
        coding.decode(
            Bytes::copy_from_slice(body),
            limit,
            &mut Admission::new(room, room).permit("t").unwrap(),
        )
    }

    #[test]
    fn decodes_all_members_up_to_the_limit_and_nothing_after_them() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let two = [encode(coding, &[1; 100_000]), encode(coding, &[2; 10])].concat();
            let whole = decode(coding, &two, 100_010, 1 << 20).unwrap();
            assert_eq!((whole.len(), whole[99_999], whole[100_000]), (100_010, 1, 2));
            assert_eq!(decode(coding, &two, 100_009, 1 << 20), Err(CodingError::TooLarge));
            let malformed = Err(CodingError::Malformed(coding));
            let broken = decode(coding, &two[..two.len() - 5], 100_010, 1 << 20);
            assert!(broken == malformed, "{coding:?}");
            assert_eq!(decode(coding, &two[..two.len() - 1], 100_010, 1 << 20), malformed);
            assert_eq!(
                decode(coding, &[&two[..], b"more"].concat(), 100_010, 1 << 20),
                malformed
            );
            assert_eq!(decode(coding, b"not that", 100_010, 1 << 20), malformed);
            assert_eq!(decode(coding, b"", 0, 0).unwrap(), "");
        }
    }

    #[test]
    fn a_bomb_takes_no_more_than_may_be() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let bomb = encode(coding, &vec![0; 32 << 20]);
            assert_eq!(
                decode(coding, &bomb, 64 << 20, 1 << 20),
                Err(CodingError::Busy(Busy))
            );
            assert_eq!(
                decode(coding, &bomb, 1 << 20, 64 << 20),
                Err(CodingError::TooLarge)
            );
        }
    }

    #[test]
    fn a_frame_that_looks_back_too_far_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(WINDOW_LOG_MAX + 2).unwrap();
        encoder.write_all(&vec![7; 40 << 20]).unwrap();
        let far = encoder.finish().unwrap();
        assert_eq!(
            decode(Coding::Zstd, &far, 64 << 20, 128 << 20),
            Err(CodingError::Malformed(Coding::Zstd))
        );
    }
}
