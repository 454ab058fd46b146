//! Writes and reads segments: a head, which says where the segment before it ends, then checksummed records.
//!
//! ```text
//! head    magic 8 | first 8 | before.first 8 | before.end 8 | before.next 8 | xxh3 of these 8
//! record  length 4 | number 8 | xxh3 of number, length and body 8 | body
//! body    written ms 8 | topic 1 | part 4 | policy 1 + 8 | length of key 4 | key | value
//! ```
//!
//! All numbers are little-endian. *written* is when the record was spooled, ms since the Unix epoch.

use crate::sink::RawRecord;
use bytes::Bytes;
use schemas::signal::Signal;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const MAGIC: &[u8; 8] = b"tspool01";
/// Size of a segment's head, in bytes.
pub(super) const HEAD_BYTES: usize = 48;
/// Size of what stands before a record's body, in bytes.
pub(super) const FRAME_BYTES: usize = 20;
/// Largest body, in bytes: what a Kafka message holds, and room for what is written beside it.
pub(super) const BODY_BYTES_MAX: usize = crate::sink::kafka::MESSAGE_BYTES_MAX + (1 << 20);

/// The durable part of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The number of the segment's first record.
    pub first: u64,
    /// How many bytes of the file are durable; requests with bytes behind them were never answered.
    pub end: u64,
    /// The number after that of the segment's last record.
    pub next: u64,
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub first: u64,
    /// The segment before this one; where that is removed already, all is zero but `next`.
    pub before: Extent,
}

impl Head {
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [self.first, self.before.first, self.before.end, self.before.next] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a head; none where it is not whole.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, check) = bytes.get(..HEAD_BYTES)?.split_at(HEAD_BYTES - 8);
        let number = |at: usize| u64_at(head, at);
        let is_whole = head.starts_with(MAGIC) && xxh3_64(head) == u64_at(check, 0)?;
        let before = Extent {
            first: number(16)?,
            end: number(24)?,
            next: number(32)?,
        };
        is_whole.then_some(Self {
            first: number(8)?,
            before,
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Appends a record to `out`.
pub(super) fn push(out: &mut Vec<u8>, number: u64, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&check(number, body).to_le_bytes());
    out.extend_from_slice(body);
}

fn check(number: u64, body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, number ^ ((body.len() as u64) << 40))
}

/// What bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The whole record with that number: its body.
    Whole(&'a [u8]),
    /// The beginning of a record, of which this many bytes are needed.
    Short(usize),
    /// Another record, or a broken one: the size that it says it has, where that can be.
    Broken(Option<usize>),
}

/// Reads the record with that number from the beginning of `bytes`.
pub(super) fn frame(bytes: &[u8], number: u64) -> Frame<'_> {
    let (Some(length), Some(is), Some(sum)) = (u32_at(bytes, 0), u64_at(bytes, 4), u64_at(bytes, 12)) else {
        return Frame::Short(FRAME_BYTES);
    };
    let length = length as usize;
    if length > BODY_BYTES_MAX {
        return Frame::Broken(None);
    }
    match bytes.get(FRAME_BYTES..FRAME_BYTES + length) {
        None => Frame::Short(FRAME_BYTES + length),
        Some(body) if is == number && check(number, body) == sum => Frame::Whole(body),
        Some(_) => Frame::Broken(Some(FRAME_BYTES + length)),
    }
}

/// The byte that stands for a signal in a record's body. It is on disk, so it never changes.
const fn code_of(signal: Signal) -> u8 {
    match signal {
        Signal::Logs => 0,
        Signal::Traces => 1,
        Signal::Metrics => 2,
    }
}

fn signal_of(code: u8) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| code_of(*signal) == code)
}

/// The body of a raw record that is spooled at `written_ms`, ms since the Unix epoch.
pub(super) fn encode(record: &RawRecord, written_ms: i64) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + record.key.len() + record.value.len());
    body.extend_from_slice(&written_ms.to_le_bytes());
    body.push(code_of(record.signal));
    body.extend_from_slice(&record.part.to_le_bytes());
    body.push(u8::from(record.policy.is_some()));
    body.extend_from_slice(&record.policy.unwrap_or_default().to_le_bytes());
    body.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
    body.extend_from_slice(record.key.as_bytes());
    body.extend_from_slice(&record.value);
    body
}

/// Reads a body: the raw record, and when it was spooled. None for bytes that [`encode`] never wrote.
pub(super) fn decode(body: &[u8]) -> Option<(RawRecord, i64)> {
    let written_ms = u64_at(body, 0)?.cast_signed();
    let signal = signal_of(*body.get(8)?)?;
    let part = u32_at(body, 9)?;
    let policy = (*body.get(13)? == 1).then_some(u64_at(body, 14)?.cast_signed());
    let (key, value) = body.get(26..)?.split_at_checked(u32_at(body, 22)? as usize)?;
    let key = std::str::from_utf8(key).ok()?.to_owned();
    Some((
        RawRecord {
            signal,
            key,
            value: Bytes::copy_from_slice(value),
            part,
            policy,
            environment: 0,
        },
        written_ms,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (policy, signal) in [
            (None, Signal::Logs),
            (Some(0), Signal::Traces),
            (Some(-7), Signal::Metrics),
        ] {
            let record = RawRecord {
                signal,
                key: "default/ü".to_owned(),
                value: Bytes::from_static(b"value"),
                part: 9,
                policy,
                environment: 0,
            };
            assert_eq!(decode(&encode(&record, -5)), Some((record, -5)));
        }
        assert_eq!(decode(b"short"), None);
        let head = Head {
            first: 5,
            before: Extent {
                first: 1,
                end: 2,
                next: 3,
            },
        };
        assert_eq!(Head::parse(&head.to_bytes()), Some(head));
        assert_eq!(head.to_bytes().len(), HEAD_BYTES);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut whole = Vec::new();
        push(&mut whole, 7, b"body");
        assert_eq!(frame(&whole, 7), Frame::Whole(b"body"));
        assert_eq!(frame(&whole, 8), Frame::Broken(Some(24)));
        assert_eq!(frame(&whole[..23], 7), Frame::Short(24));
        assert_eq!(frame(&whole[..19], 7), Frame::Short(20));
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(frame(&bytes, 7), Frame::Whole(_)), "bit {bit}");
        }
        let head = Head {
            first: 5,
            before: Extent::default(),
        }
        .to_bytes();
        for bit in 0..head.len() * 8 {
            let mut bytes = head.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::parse(&bytes), None, "bit {bit}");
        }
    }
}
