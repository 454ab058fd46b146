//! A zero-copy scan over the bytes of an `ExportLogsServiceRequest`: any order of fields, no allocation per record.
//!
//! Source: opentelemetry-proto `logs/v1/logs.proto`, `common/v1/common.proto`; protobuf encoding guide.

use crate::event::{Attr, EventKind};
use strum::EnumCount;

/// The value of an attribute, borrowed from the request's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A string.
    Str(&'a str),
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// A floating-point number.
    Double(f64),
    /// An array, key-value list, byte string or nothing, as encoded.
    Other(&'a [u8]),
}

/// The attributes that something reads, by [`Attr`]; the last occurrence of a key wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Attrs<'a> {
    slots: [Option<Value<'a>>; Attr::COUNT],
}

impl Default for Attrs<'_> {
    fn default() -> Self {
        Self { slots: [None; Attr::COUNT] }
    }
}

impl<'a> Attrs<'a> {
    /// Sets one.
    pub const fn set(&mut self, attr: Attr, value: Value<'a>) {
        self.slots[attr as usize] = Some(value);
    }

    /// The value as it is.
    #[must_use]
    pub const fn get(&self, attr: Attr) -> Option<Value<'a>> {
        self.slots[attr as usize]
    }

    /// The value if it is a string.
    #[must_use]
    pub const fn text(&self, attr: Attr) -> Option<&'a str> {
        match self.get(attr) {
            Some(Value::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// The value as an integer, whether it came as one or as a decimal string: Codex mixes both.
    #[must_use]
    pub fn int(&self, attr: Attr) -> Option<i64> {
        match self.get(attr)? {
            Value::Int(int) => Some(int),
            Value::Str(text) => text.trim().parse().ok(),
            Value::Double(double) if double.fract() == 0.0 && double.abs() < 9e15 => format!("{double:.0}").parse().ok(),
            _ => None,
        }
    }

    /// The value as a count: an integer that is not negative.
    #[must_use]
    pub fn count(&self, attr: Attr) -> Option<u64> {
        u64::try_from(self.int(attr)?).ok()
    }

    /// The value as a boolean, whether it came as one or as `"true"` or `"false"`.
    #[must_use]
    pub fn flag(&self, attr: Attr) -> Option<bool> {
        match self.get(attr)? {
            Value::Bool(flag) => Some(flag),
            Value::Str(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// One log record, borrowed from the request's bytes.
#[derive(Clone, Debug)]
pub struct LogRecord<'a> {
    /// Attributes of its resource.
    pub resource: &'a Attrs<'a>,
    /// Its own attributes.
    pub attrs: Attrs<'a>,
    /// `time_unix_nano`; 0 where Codex is the sender.
    pub time_ns: u64,
    /// `observed_time_unix_nano`.
    pub observed_ns: u64,
    /// 16 bytes, or none.
    pub trace_id: &'a [u8],
    /// By the attribute `event.name`.
    pub event: EventKind,
    /// The record's number within the request.
    pub index: usize,
    /// The encoded `LogRecord` message.
    pub bytes: &'a [u8],
}

/// Why bytes are not an OTLP log request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The bytes end within a field.
    #[error("the message ends within a field")]
    Truncated,
    /// A varint is longer than ten bytes, or a tag is no tag.
    #[error("not a protobuf message")]
    Malformed,
    /// A field has another wire type than its number says.
    #[error("a field has the wrong wire type")]
    WireType,
    /// A string is not UTF-8.
    #[error("a string is not valid UTF-8")]
    Utf8,
    /// Values are nested deeper than the limit.
    #[error("values are nested too deep")]
    TooDeep,
}
