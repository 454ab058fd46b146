//! The writer of protobuf that OTLP/JSON is read into, of bounded size.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use serde::de::Error;

/// The protobuf that is written so far.
pub(super) struct Writer {
    bytes: Vec<u8>,
    limit: usize,
    is_over: bool,
}

impl Writer {
    /// Writes into `room`, which must be empty, at most `limit` bytes.
    pub const fn new(room: Vec<u8>, limit: usize) -> Self {
        Self {
            bytes: room,
            limit,
            is_over: false,
        }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether reading ended because of the limit.
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Fails once more is written than the limit allows.
    pub fn check<E: Error>(&mut self) -> Result<(), E> {
        self.is_over = self.bytes.len() > self.limit;
        if self.is_over {
            Err(E::custom("too large"))
        } else {
            Ok(())
        }
    }

    fn key(&mut self, number: u32, wire: WireType) {
        encode_key(number, wire, &mut self.bytes);
    }

    /// Writes a length-delimited field.
    pub fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.key(number, WireType::LengthDelimited);
        encode_varint(bytes.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a varint field.
    pub fn varint(&mut self, number: u32, value: u64) {
        self.key(number, WireType::Varint);
        encode_varint(value, &mut self.bytes);
    }

    /// Writes a fixed64, sfixed64 or double field.
    pub fn fixed64(&mut self, number: u32, bytes: [u8; 8]) {
        self.key(number, WireType::SixtyFourBit);
        self.bytes.extend_from_slice(&bytes);
    }

    /// Writes a fixed32 field.
    pub fn fixed32(&mut self, number: u32, bytes: [u8; 4]) {
        self.key(number, WireType::ThirtyTwoBit);
        self.bytes.extend_from_slice(&bytes);
    }

    /// Writes a number of a packed field of fixed64 or double.
    pub fn packed_fixed64(&mut self, bytes: [u8; 8]) {
        self.bytes.extend_from_slice(&bytes);
    }

    /// Writes a number of a packed field of varints.
    pub fn packed_varint(&mut self, value: u64) {
        encode_varint(value, &mut self.bytes);
    }

    /// Begins a length-delimited field, and gives the index at which its content begins.
    pub fn begin(&mut self, number: u32) -> usize {
        self.key(number, WireType::LengthDelimited);
        self.bytes.push(0);
        self.bytes.len()
    }

    /// Ends a length-delimited field whose content began at `start`: writes the length before the content,
    /// which is moved only if the length takes more than one byte.
    pub fn end<E: Error>(&mut self, start: usize) -> Result<(), E> {
        let end = self.bytes.len();
        let length = (end - start) as u64;
        let more = encoded_len_varint(length) - 1;
        if more > 0 {
            self.bytes.resize(end + more, 0);
            self.bytes.copy_within(start..end, start + more);
        }
        encode_varint(length, &mut &mut self.bytes[start - 1..start + more]);
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_any_size_stands_before_its_content() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 2_100_000] {
            let mut out = Writer::new(Vec::new(), usize::MAX);
            let start = out.begin(3);
            out.bytes.extend(std::iter::repeat_n(b'x', size));
            out.end::<serde_json::Error>(start).unwrap();
            let mut expected = Writer::new(Vec::new(), usize::MAX);
            expected.bytes(3, &vec![b'x'; size]);
            assert!(out.bytes == expected.bytes, "{size}");
        }
    }
}
