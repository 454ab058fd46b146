//! Reads and rewrites protobuf messages without decoding them: fields are slices, and an output is begun only where
//! something changes.
//!
//! Source: protobuf encoding guide. Everything that prost accepts is accepted, but for groups, which OTLP does not have.

use crate::prepare::memory::capacity;
use prost::encoding::{encode_varint, encoded_len_varint};

/// How deep messages may be nested, from the request down. Prost reads 100, so every reader reads what passes here.
pub const DEPTH_MAX: usize = 90;

/// Why bytes are not the message that they should be.
pub use schemas::otlp::scan::ScanError as WireError;

/// How a field's payload is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Varint,
    Fixed64,
    Len,
    Fixed32,
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    /// The field's number, from 1.
    pub number: u32,
    pub wire: Wire,
    /// Tag, length and payload, as they stand in the message.
    pub raw: &'a [u8],
    /// The payload alone.
    pub payload: &'a [u8],
}

impl<'a> Field<'a> {
    /// The payload of a message, string or byte string.
    pub fn len_payload(&self) -> Result<&'a [u8], WireError> {
        if self.wire == Wire::Len {
            Ok(self.payload)
        } else {
            Err(WireError::WireType)
        }
    }
}

/// Iterates over the fields of a message; after the first error it ends.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    error: Option<WireError>,
}

impl<'a> Fields<'a> {
    pub const fn new(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            error: None,
        }
    }

    /// The next field; none at the end and at an error, which [`Fields::end`] tells apart. Loops that must be fast use it,
    /// since a field fits into registers, and a field or an error does not.
    #[inline]
    pub fn good(&mut self) -> Option<Field<'a>> {
        let start = self.rest;
        if let Some(field) = short(start) {
            self.rest = &start[field.raw.len()..];
            return Some(field);
        }
        if start.is_empty() {
            return None;
        }
        self.any_field()
            .map_err(|error| (self.rest, self.error) = (&[], Some(error)))
            .ok()
    }

    /// Checks that the message ended where [`Fields::good`] gave no more fields.
    ///
    /// # Errors
    /// The field there is malformed.
    pub const fn end(self) -> Result<(), WireError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Reads a field of any wire type and length; [`short`] reads the usual ones.
    fn any_field(&mut self) -> Result<Field<'a>, WireError> {
        let start = self.rest;
        let (key, mut at) = varint(start)?;
        let number = u32::try_from(key).map_err(|_| WireError::Malformed)? >> 3;
        if number == 0 {
            return Err(WireError::Malformed);
        }
        let (wire, size) = match key & 7 {
            0 => (Wire::Varint, varint(&start[at..])?.1),
            1 => (Wire::Fixed64, 8),
            2 => {
                let (size, length) = varint(&start[at..])?;
                at += length;
                (
                    Wire::Len,
                    usize::try_from(size).map_err(|_| WireError::Truncated)?,
                )
            }
            5 => (Wire::Fixed32, 4),
            _ => return Err(WireError::Malformed),
        };
        let payload = start[at..].get(..size).ok_or(WireError::Truncated)?;
        let end = at + size;
        self.rest = &start[end..];
        Ok(Field {
            number,
            wire,
            raw: &start[..end],
            payload,
        })
    }
}

/// Reads the usual field at the start of a message: bytes, with a key of one byte and a length of one or two.
#[inline(always)]
fn short(message: &[u8]) -> Option<Field<'_>> {
    let (key, length, at) = match message {
        [key @ 0..0x80, length @ 0..0x80, ..] => (*key, usize::from(*length), 2),
        [key @ 0..0x80, low, high @ 0..0x80, ..] => {
            (*key, usize::from(low & 0x7f) | usize::from(*high) << 7, 3)
        }
        _ => return None,
    };
    if key & 7 != 2 || key < 8 {
        return None;
    }
    let raw = message.get(..at + length)?;
    Some(Field {
        number: u32::from(key >> 3),
        wire: Wire::Len,
        raw,
        payload: &raw[at..],
    })
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.good().map(Ok).or_else(|| self.error.take().map(Err))
    }
}

/// Reads the varint at the start of `bytes`: its value, and how many bytes it takes.
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Result<(u64, usize), WireError> {
    if let [byte @ 0..0x80, ..] = bytes {
        return Ok((u64::from(*byte), 1));
    }
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        if at == 9 && byte > 1 {
            return Err(WireError::Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok((value, at + 1));
        }
    }
    Err(WireError::Truncated)
}

/// Appends a field that holds bytes, a string or a message.
pub(crate) fn put_len(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_head(out, number, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the key and length of a field whose payload has `length` bytes.
pub(crate) fn put_head(out: &mut Vec<u8>, number: u32, length: usize) {
    encode_varint(u64::from(number) << 3 | 2, out);
    encode_varint(length as u64, out);
}

/// The size of a whole field whose payload has `length` bytes.
pub(crate) fn len_field_size(number: u32, length: usize) -> usize {
    encoded_len_varint((number as u64) << 3) + encoded_len_varint(length as u64) + length
}

/// Encodes an attribute with an integer value, as a `KeyValue` message.
pub(crate) fn int_attribute(key: &str, value: u64) -> Vec<u8> {
    let mut any = vec![3 << 3];
    encode_varint(value, &mut any);
    attribute(key, &any)
}

/// Encodes an attribute with a string value, as a `KeyValue` message.
pub(crate) fn text_attribute(key: &str, value: &str) -> Vec<u8> {
    let mut any = Vec::with_capacity(value.len() + 4);
    put_len(&mut any, 1, value.as_bytes());
    attribute(key, &any)
}

fn attribute(key: &str, any: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + any.len() + 8);
    put_len(&mut out, 1, key.as_bytes());
    put_len(&mut out, 2, any);
    out
}

/// The key of a `KeyValue`, and its value as an encoded `AnyValue`; the last of each counts, as for every decoder.
#[inline]
pub(crate) fn key_and_value(key_value: &[u8]) -> Result<(&[u8], Option<&[u8]>), WireError> {
    let pair = Pair::of(key_value)?;
    Ok((pair.key, pair.value))
}

/// A `KeyValue` that was read once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    /// The whole encoded `KeyValue`.
    pub raw: &'a [u8],
    pub key: &'a [u8],
    /// The value, an encoded `AnyValue`.
    pub value: Option<&'a [u8]>,
    /// Whether the message is the key, then the value, and nothing else, as nearly every client writes it.
    is_usual: bool,
}

impl<'a> Pair<'a> {
    #[inline]
    pub fn of(raw: &'a [u8]) -> Result<Self, WireError> {
        Self::usual(raw).map_or_else(|| Self::any(raw), Ok)
    }

    #[inline]
    fn usual(raw: &'a [u8]) -> Option<Self> {
        let key = short(raw)?;
        let value = short(&raw[key.raw.len()..])?;
        let is_usual = (key.number, value.number) == (1, 2) && key.raw.len() + value.raw.len() == raw.len();
        is_usual.then_some(Self {
            raw,
            key: key.payload,
            value: Some(value.payload),
            is_usual,
        })
    }

    /// Reads a `KeyValue` with its fields in any order and number.
    fn any(raw: &'a [u8]) -> Result<Self, WireError> {
        let mut pair = Self {
            raw,
            key: &[],
            value: None,
            is_usual: false,
        };
        for field in Fields::new(raw) {
            let field = field?;
            match field.number {
                1 => pair.key = field.len_payload()?,
                2 => pair.value = Some(field.len_payload()?),
                _ => {}
            }
        }
        Ok(pair)
    }

    /// Whether this is certain to be a valid attribute that holds one string, boolean or number. False tells nothing: the
    /// attribute must be walked to know.
    #[inline]
    pub fn is_plain(&self) -> bool {
        let Some(any) = self.value.filter(|_| self.is_usual) else {
            return false;
        };
        let text: &[u8] = match any {
            [0x10, 0..=1] | [0x21, _, _, _, _, _, _, _, _] => &[],
            [0x18, number @ ..] if varint(number).is_ok_and(|(_, length)| length == number.len()) => &[],
            _ => match short(any) {
                Some(text) if text.number == 1 && text.raw.len() == any.len() => text.payload,
                _ => return false,
            },
        };
        // ASCII is the usual case, and one check of all bytes is faster than two of UTF-8.
        self.raw.is_ascii() || (std::str::from_utf8(self.key).is_ok() && std::str::from_utf8(text).is_ok())
    }
}

/// The text of an encoded `AnyValue`, if it holds a string.
pub(crate) fn any_text(any: &[u8]) -> Result<Option<&str>, WireError> {
    if let Some(text) = short(any).filter(|field| field.number == 1 && field.raw.len() == any.len()) {
        return std::str::from_utf8(text.payload)
            .map(Some)
            .map_err(|_| WireError::Utf8);
    }
    let mut text = None;
    for field in Fields::new(any) {
        let field = field?;
        match field.number {
            1 => text = Some(std::str::from_utf8(field.len_payload()?).map_err(|_| WireError::Utf8)?),
            2..=8 => text = None,
            _ => {}
        }
    }
    Ok(text)
}

/// What becomes of a field.
#[derive(Debug)]
pub(crate) enum Edit {
    Keep,
    Remove,
    /// The field gets another payload.
    Replace(Vec<u8>),
}

impl From<Option<Vec<u8>>> for Edit {
    fn from(rewritten: Option<Vec<u8>>) -> Self {
        rewritten.map_or(Self::Keep, Self::Replace)
    }
}

/// A message that is being rewritten, field by field in order. Bytes are copied from the first change on, and not before.
#[derive(Debug)]
pub(crate) struct Patch<'a> {
    input: &'a [u8],
    at: usize,
    out: Option<Vec<u8>>,
}

impl<'a> Patch<'a> {
    pub const fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            at: 0,
            out: None,
        }
    }

    /// Applies an edit to the next field.
    pub fn edit(&mut self, field: &Field<'a>, edit: Edit) {
        match edit {
            Edit::Keep => self.keep(field),
            Edit::Remove => self.remove(field),
            Edit::Replace(payload) => self.replace(field, &payload),
        }
    }

    /// Leaves the next field as it is.
    #[inline]
    pub fn keep(&mut self, field: &Field<'a>) {
        if let Some(out) = &mut self.out {
            out.extend_from_slice(field.raw);
        }
        self.at += field.raw.len();
    }

    /// Removes the next field.
    pub fn remove(&mut self, field: &Field<'a>) {
        self.begin();
        self.at += field.raw.len();
    }

    /// Gives the next field another payload.
    pub fn replace(&mut self, field: &Field<'a>, payload: &[u8]) {
        put_len(self.begin(), field.number, payload);
        self.at += field.raw.len();
    }

    fn begin(&mut self) -> &mut Vec<u8> {
        self.out.get_or_insert_with(|| {
            let mut out = Vec::with_capacity(capacity(self.input.len() + 64));
            out.extend_from_slice(&self.input[..self.at]);
            out
        })
    }

    /// The new message; none where nothing changed.
    pub fn finish(self) -> Option<Vec<u8>> {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_go_round() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            encode_varint(value, &mut bytes);
            assert_eq!(varint(&bytes), Ok((value, bytes.len())));
        }
        assert_eq!(varint(&[0x80]), Err(WireError::Truncated));
        assert_eq!(varint(&[0xff; 10]), Err(WireError::Malformed));
    }

    #[test]
    fn a_patch_without_changes_has_no_output() {
        let message = text_attribute("k", "v");
        let mut patch = Patch::new(&message);
        let mut changed = Patch::new(&message);
        for field in Fields::new(&message) {
            let field = field.unwrap();
            patch.keep(&field);
            if field.number == 1 {
                changed.replace(&field, b"key")
            } else {
                changed.keep(&field)
            }
        }
        assert_eq!(patch.finish(), None);
        assert_eq!(changed.finish(), Some(text_attribute("key", "v")));
    }

    #[test]
    fn tag_zero_groups_and_overlong_lengths_are_no_fields() {
        for (bytes, error) in [
            (&[0x00, 0x00][..], WireError::Malformed),
            (&[0x0b][..], WireError::Malformed),
            (&[0x0a, 0x05, 0x01][..], WireError::Truncated),
            (&[0x09, 0x05, 0x01][..], WireError::Truncated),
        ] {
            let mut fields = Fields::new(bytes);
            assert_eq!(fields.next().unwrap().unwrap_err(), error);
            assert!(fields.next().is_none());
        }
    }
}
