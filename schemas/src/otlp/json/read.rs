//! The reader of OTLP/JSON: takes the events of a serde deserializer, and writes protobuf by the table of
//! messages.

use super::table::{ANY_VALUE, Field, Kind, Message};
use super::text::{base64, finite, hex, integral, unicode};
use super::write::Writer;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Reads a JSON object as a message, and writes the message's fields.
pub(super) fn message<'de, D: Deserializer<'de>>(
    table: &'static Message,
    out: &mut Writer,
    reader: D,
) -> Result<(), D::Error> {
    reader.deserialize_map(Members { table, out })
}

/// Calls `see` with the name of each member of a JSON object.
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

/// The name of a member, as bytes, since it need not be Unicode.
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
    out: &'o mut Writer,
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

/// The value of a member; a null writes nothing.
struct Member<'o> {
    field: &'static Field,
    out: &'o mut Writer,
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
            Kind::Bool
            | Kind::Fixed64
            | Kind::Sfixed64
            | Kind::Fixed32
            | Kind::Uint32
            | Kind::Int32
            | Kind::Int64
            | Kind::Sint32
            | Kind::Double => reader.deserialize_any(Scalar { field, out }),
        }
    }
}

/// The items of a list that is the value of a field.
struct Items<'o> {
    field: &'static Field,
    out: &'o mut Writer,
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
    out: &'o mut Writer,
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
        // A null in a list of `AnyValue`s is an empty value, which keeps the places of the others; in any
        // other list it writes nothing.
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
            Kind::Text
            | Kind::Hex
            | Kind::Base64
            | Kind::Bool
            | Kind::Fixed64
            | Kind::Sfixed64
            | Kind::Fixed32
            | Kind::Uint32
            | Kind::Int32
            | Kind::Int64
            | Kind::Sint32
            | Kind::Double
            | Kind::Fixed64s
            | Kind::Uint64s
            | Kind::Doubles
            | Kind::One(_) => reader.deserialize_any(Scalar { field, out }),
        }
    }
}

/// A value that is neither a message nor a list.
struct Scalar<'o> {
    field: &'static Field,
    out: &'o mut Writer,
}

impl Scalar<'_> {
    fn text<E: Error>(self, text: &[u8]) -> Result<(), E> {
        match self.field.kind {
            Kind::Text => self.bytes(&unicode(text)),
            Kind::Texts => {
                self.out.bytes(self.field.number, &unicode(text));
                self.out.check()
            }
            Kind::Hex => self.bytes(&hex(text).ok_or_else(|| E::custom("an id must be hexadecimal"))?),
            Kind::Base64 => self.bytes(&base64(text).ok_or_else(|| E::custom("not base64"))?),
            Kind::Double | Kind::Doubles => {
                let number = match text {
                    b"NaN" => f64::NAN,
                    b"Infinity" => f64::INFINITY,
                    b"-Infinity" => f64::NEG_INFINITY,
                    _ => finite(text).ok_or_else(|| E::custom("not a number"))?,
                };
                self.double(number)
            }
            Kind::Fixed64
            | Kind::Sfixed64
            | Kind::Fixed32
            | Kind::Uint32
            | Kind::Int32
            | Kind::Int64
            | Kind::Sint32
            | Kind::Fixed64s
            | Kind::Uint64s => {
                let digits = std::str::from_utf8(text).ok();
                let whole = digits.and_then(|digits| digits.parse::<i128>().ok());
                let whole = whole
                    .or_else(|| integral(finite(text)?))
                    .ok_or_else(|| E::custom("not an integer"))?;
                self.integer(whole)
            }
            Kind::Bool | Kind::One(_) | Kind::Many(_) => Err(E::custom("a text where there can be none")),
        }
    }

    /// Writes a length-delimited field, unless it has its default value and need not be written with that.
    fn bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        let Self { field, out } = self;
        if field.is_explicit || !bytes.is_empty() {
            out.bytes(field.number, bytes);
        }
        out.check()
    }

    fn double<E: Error>(self, value: f64) -> Result<(), E> {
        let Self { field, out } = self;
        match field.kind {
            Kind::Double => {
                if field.is_explicit || value.to_bits() != 0 {
                    out.fixed64(field.number, value.to_le_bytes());
                }
                out.check()
            }
            Kind::Doubles => {
                out.packed_fixed64(value.to_le_bytes());
                out.check()
            }
            Kind::Text
            | Kind::Hex
            | Kind::Base64
            | Kind::Bool
            | Kind::Fixed64
            | Kind::Sfixed64
            | Kind::Fixed32
            | Kind::Uint32
            | Kind::Int32
            | Kind::Int64
            | Kind::Sint32
            | Kind::Texts
            | Kind::Fixed64s
            | Kind::Uint64s
            | Kind::One(_)
            | Kind::Many(_) => {
                let whole = integral(value).ok_or_else(|| E::custom("not an integer"))?;
                Self { field, out }.integer(whole)
            }
        }
    }

    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let Self { field, out } = self;
        match field.kind {
            Kind::Fixed64s => out.packed_fixed64(within::<u64, E>(value)?.to_le_bytes()),
            Kind::Uint64s => out.packed_varint(within(value)?),
            Kind::Fixed64 => {
                let bits = within::<u64, E>(value)?;
                if field.is_written(value) {
                    out.fixed64(field.number, bits.to_le_bytes());
                }
            }
            Kind::Sfixed64 => {
                let bits = within::<i64, E>(value)?;
                if field.is_written(value) {
                    out.fixed64(field.number, bits.to_le_bytes());
                }
            }
            Kind::Fixed32 => {
                let bits = within::<u32, E>(value)?;
                if field.is_written(value) {
                    out.fixed32(field.number, bits.to_le_bytes());
                }
            }
            Kind::Uint32 => {
                let varint = within::<u32, E>(value)?.into();
                if field.is_written(value) {
                    out.varint(field.number, varint);
                }
            }
            Kind::Int32 => {
                let varint = i64::from(within::<i32, E>(value)?).cast_unsigned();
                if field.is_written(value) {
                    out.varint(field.number, varint);
                }
            }
            Kind::Int64 => {
                let varint = within::<i64, E>(value)?.cast_unsigned();
                if field.is_written(value) {
                    out.varint(field.number, varint);
                }
            }
            Kind::Sint32 => {
                let int = within::<i32, E>(value)?;
                let zigzag = ((int << 1) ^ (int >> 31)).cast_unsigned();
                if field.is_written(value) {
                    out.varint(field.number, zigzag.into());
                }
            }
            Kind::Text
            | Kind::Hex
            | Kind::Base64
            | Kind::Bool
            | Kind::Double
            | Kind::Texts
            | Kind::Doubles
            | Kind::One(_)
            | Kind::Many(_) => return Err(E::custom("a number where there can be none")),
        }
        out.check()
    }
}

impl Field {
    /// Whether the field is written with a number.
    const fn is_written(&self, value: i128) -> bool {
        self.is_explicit || value != 0
    }
}

/// A number as an integer of a field's type.
fn within<N: TryFrom<i128>, E: Error>(value: i128) -> Result<N, E> {
    N::try_from(value).map_err(|_| E::custom("out of range"))
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
            out.varint(field.number, value.into());
        }
        out.check()
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        if self.field.kind.is_float() {
            self.double(value as f64)
        } else {
            self.integer(value.into())
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if self.field.kind.is_float() {
            self.double(value as f64)
        } else {
            self.integer(value.into())
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
