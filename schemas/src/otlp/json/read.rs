//! The reader: serde's events in, protobuf out, by the tables.

use super::table::{ANY_VALUE, Field, Kind, Message};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// What is written so far.
pub(super) struct Out {
    bytes: Vec<u8>,
    limit: usize,
    is_over: bool,
}

impl Out {
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

    fn check<E: Error>(&mut self) -> Result<(), E> {
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

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.key(number, WireType::LengthDelimited);
        encode_varint(bytes.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(bytes);
    }

    /// Begins a field that has its length in front; gives where its content begins.
    fn begin(&mut self, number: u32) -> usize {
        self.key(number, WireType::LengthDelimited);
        self.bytes.push(0);
        self.bytes.len()
    }

    /// Ends it: the length goes before the content, which moves only where the length takes more than one byte.
    fn end<E: Error>(&mut self, start: usize) -> Result<(), E> {
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

/// Reads a message.
pub(super) fn message<'de, D: Deserializer<'de>>(
    table: &'static Message,
    out: &mut Out,
    reader: D,
) -> Result<(), D::Error> {
    reader.deserialize_map(Members { table, out })
}

/// Shows the names of an object's members.
pub(super) fn members<'de, D: Deserializer<'de>>(
    see: &mut dyn FnMut(&[u8]),
    reader: D,
) -> Result<(), D::Error> {
    reader.deserialize_map(Names(see))
}

struct Names<'a>(&'a mut dyn FnMut(&[u8]));

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Name(&mut *self.0))?.is_some() {
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// A member's name, as bytes: it may be no Unicode.
struct Name<F>(F);

impl<'de, T, F: FnOnce(&[u8]) -> T> DeserializeSeed<'de> for Name<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<T, D::Error> {
        reader.deserialize_bytes(self)
    }
}

impl<T, F: FnOnce(&[u8]) -> T> Visitor<'_> for Name<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<T, E> {
        Ok((self.0)(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
        Ok((self.0)(name.as_bytes()))
    }
}

struct Members<'o> {
    table: &'static Message,
    out: &'o mut Out,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(Name(|name: &[u8]| self.table.field(name)))? {
            match known {
                Some(field) => map.next_value_seed(Member {
                    field,
                    out: &mut *self.out,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A member's value; a null is none.
struct Member<'o> {
    field: &'static Field,
    out: &'o mut Out,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let Self { field, out } = self;
        match field.kind {
            Kind::One(table) => {
                let start = out.begin(field.number);
                message(table, out, reader)?;
                out.end(start)
            }
            Kind::Many(_) | Kind::Texts => reader.deserialize_seq(Items { field, out }),
            Kind::Fixed64s | Kind::Uint64s | Kind::Doubles => {
                let start = out.begin(field.number);
                reader.deserialize_seq(Items {
                    field,
                    out: &mut *out,
                })?;
                out.end(start)
            }
            Kind::Text | Kind::Hex | Kind::Base64 => reader.deserialize_bytes(Scalar { field, out }),
            _ => reader.deserialize_any(Scalar { field, out }),
        }
    }
}

/// The items of a list.
struct Items<'o> {
    field: &'static Field,
    out: &'o mut Out,
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list
            .next_element_seed(Item {
                field: self.field,
                out: &mut *self.out,
            })?
            .is_some()
        {}
        Ok(())
    }
}

struct Item<'o> {
    field: &'static Field,
    out: &'o mut Out,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        // A null among values has its place; among records it is nothing.
        if let Kind::Many(table) = self.field.kind
            && std::ptr::eq(table, &raw const ANY_VALUE)
        {
            self.out.bytes(self.field.number, &[]);
        }
        self.out.check()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let Self { field, out } = self;
        match field.kind {
            Kind::Many(table) => {
                let start = out.begin(field.number);
                message(table, out, reader)?;
                out.end(start)
            }
            Kind::Texts => reader.deserialize_bytes(Scalar { field, out }),
            _ => reader.deserialize_any(Scalar { field, out }),
        }
    }
}

/// A value that is no message and no list.
struct Scalar<'o> {
    field: &'static Field,
    out: &'o mut Out,
}

impl Scalar<'_> {
    fn text<E: Error>(self, text: &[u8]) -> Result<(), E> {
        let Self {
            field:
                &Field {
                    number,
                    kind,
                    is_explicit,
                    ..
                },
            out,
        } = self;
        let bytes = match kind {
            Kind::Text | Kind::Texts => unicode(text),
            Kind::Hex => Cow::Owned(hex(text).ok_or_else(|| E::custom("an id must be hexadecimal"))?),
            Kind::Base64 => Cow::Owned(base64(text).ok_or_else(|| E::custom("not base64"))?),
            Kind::Double | Kind::Doubles => {
                let number = match text {
                    b"NaN" => f64::NAN,
                    b"Infinity" => f64::INFINITY,
                    b"-Infinity" => f64::NEG_INFINITY,
                    _ => finite(text).ok_or_else(|| E::custom("not a number"))?,
                };
                return Self {
                    field: self.field,
                    out,
                }
                .double(number);
            }
            Kind::Bool => return Err(E::custom("not a boolean")),
            _ => {
                let whole = std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse::<i128>().ok());
                let whole = whole
                    .or_else(|| integral(finite(text)?))
                    .ok_or_else(|| E::custom("not an integer"))?;
                return Self {
                    field: self.field,
                    out,
                }
                .integer(whole);
            }
        };
        if is_explicit || !bytes.is_empty() || matches!(kind, Kind::Texts) {
            out.bytes(number, &bytes);
        }
        out.check()
    }

    fn double<E: Error>(self, value: f64) -> Result<(), E> {
        let Self { field, out } = self;
        match field.kind {
            Kind::Double => {
                if field.is_explicit || value.to_bits() != 0 {
                    out.key(field.number, WireType::SixtyFourBit);
                    out.bytes.extend_from_slice(&value.to_le_bytes());
                }
            }
            Kind::Doubles => out.bytes.extend_from_slice(&value.to_le_bytes()),
            _ => {
                let whole = integral(value).ok_or_else(|| E::custom("not an integer"))?;
                return Self { field, out }.integer(whole);
            }
        }
        out.check()
    }

    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let Self {
            field:
                &Field {
                    number,
                    kind,
                    is_explicit,
                    ..
                },
            out,
        } = self;
        let range = || E::custom("out of range");
        let is_there = is_explicit || value != 0;
        match kind {
            Kind::Fixed64 | Kind::Sfixed64 => {
                let bits = match kind {
                    Kind::Fixed64 => u64::try_from(value).map_err(|_| range())?,
                    _ => i64::try_from(value).map_err(|_| range())?.cast_unsigned(),
                };
                if is_there {
                    out.key(number, WireType::SixtyFourBit);
                    out.bytes.extend_from_slice(&bits.to_le_bytes());
                }
            }
            Kind::Fixed32 => {
                let bits = u32::try_from(value).map_err(|_| range())?;
                if is_there {
                    out.key(number, WireType::ThirtyTwoBit);
                    out.bytes.extend_from_slice(&bits.to_le_bytes());
                }
            }
            Kind::Fixed64s => out
                .bytes
                .extend_from_slice(&u64::try_from(value).map_err(|_| range())?.to_le_bytes()),
            Kind::Uint64s => encode_varint(u64::try_from(value).map_err(|_| range())?, &mut out.bytes),
            Kind::Uint32 | Kind::Int32 | Kind::Int64 | Kind::Sint32 => {
                let varint = match kind {
                    Kind::Uint32 => u32::try_from(value).map(u64::from).map_err(|_| range())?,
                    Kind::Int32 => i32::try_from(value)
                        .map(|value| i64::from(value).cast_unsigned())
                        .map_err(|_| range())?,
                    Kind::Int64 => i64::try_from(value)
                        .map(i64::cast_unsigned)
                        .map_err(|_| range())?,
                    _ => {
                        let value = i32::try_from(value).map_err(|_| range())?;
                        u64::from(((value << 1) ^ (value >> 31)).cast_unsigned())
                    }
                };
                if is_there {
                    out.key(number, WireType::Varint);
                    encode_varint(varint, &mut out.bytes);
                }
            }
            _ => return Err(E::custom("a number where there can be none")),
        }
        out.check()
    }
}

impl Visitor<'_> for Scalar<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.field.kind)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        let Self { field, out } = self;
        if !matches!(field.kind, Kind::Bool) {
            return Err(E::custom("a boolean where there can be none"));
        }
        if field.is_explicit || value {
            out.key(field.number, WireType::Varint);
            out.bytes.push(u8::from(value));
        }
        out.check()
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double | Kind::Doubles => self.double(value as f64),
            _ => self.integer(value.into()),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double | Kind::Doubles => self.double(value as f64),
            _ => self.integer(value.into()),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.double(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(text.as_bytes())
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<(), E> {
        self.text(text)
    }
}

/// The text, with U+FFFD where it is no Unicode: what serde_json gives for half a surrogate pair.
fn unicode(text: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(text) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn finite(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    // Rust reads "inf" and "nan" in any spelling; JSON does not.
    number.is_finite().then_some(number)
}

/// A number without a fraction, of a size that any integer field could hold.
fn integral(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() < 1e20).then_some(number as i128)
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

/// Both alphabets, with or without padding: proto3's JSON mapping.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |last| last + 1);
    if text.len() - end > 2 || end % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(end / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_in_all_its_forms() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zg", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("-_-_", b"\xfb\xff\xbf"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zg===", "Z g=", "Zg=g"] {
            assert_eq!(base64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_length_of_any_size_stands_before_its_content() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 2_100_000] {
            let mut out = Out::new(Vec::new(), usize::MAX);
            let start = out.begin(3);
            out.bytes.extend(std::iter::repeat_n(b'x', size));
            out.end::<serde_json::Error>(start).unwrap();
            let mut expected = Out::new(Vec::new(), usize::MAX);
            expected.bytes(3, &vec![b'x'; size]);
            assert!(out.bytes == expected.bytes, "{size}");
        }
    }
}
