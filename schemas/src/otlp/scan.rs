//! The zero-copy scan over the bytes of an `ExportLogsServiceRequest`: fields in any order, no allocation for
//! a record.
//!
//! **Invariant:** the scan refuses exactly the bytes that prost refuses, and never panics.
//!
//! Source: opentelemetry-proto `logs/v1/logs.proto`, `common/v1/common.proto`; protobuf encoding guide.

mod attrs;

pub use attrs::{Attrs, Value};

use super::wire::{Fields, Payload};
use crate::event::{Attr, EventKind};

/// One log record, borrowed from the request's bytes.
#[derive(Clone, Debug)]
pub struct LogRecord<'r, 'a> {
    /// Attributes of the record's resource; empty if [`Visit::resource`] returned that the resource is known.
    pub resource: &'r Attrs<'a>,
    /// Attributes of the record.
    pub attrs: Attrs<'a>,
    /// Field `time_unix_nano`; Codex leaves it 0.
    pub time_ns: u64,
    /// Field `observed_time_unix_nano`.
    pub observed_ns: u64,
    /// Field `trace_id`: 16 bytes or none by the specification, which is not checked.
    pub trace_id: &'a [u8],
    /// The event that the attribute `event.name` names.
    pub event: EventKind,
    /// The record's number in the request, from 0.
    pub index: usize,
    /// The encoded `LogRecord` message.
    pub bytes: &'a [u8],
}

impl<'r, 'a> LogRecord<'r, 'a> {
    fn new(resource: &'r Attrs<'a>, bytes: &'a [u8], index: usize) -> Self {
        Self {
            resource,
            attrs: Attrs::default(),
            time_ns: 0,
            observed_ns: 0,
            trace_id: &[],
            event: EventKind::Unknown,
            index,
            bytes,
        }
    }

    /// All attributes of the record, in the order of the encoded record, repeated keys included.
    ///
    /// They are read from the encoded record, which the scan checked before it showed the record.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let mut fields = Fields::new(self.bytes);
        std::iter::from_fn(move || {
            while let Some((number, payload)) = fields.good() {
                if number == LOG_RECORD_ATTRIBUTES {
                    return key_value(&fields, payload).ok();
                }
            }
            None
        })
    }
}

/// Why bytes are not an OTLP log request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The bytes end within a field.
    #[error("the message ends within a field")]
    Truncated,
    /// A varint is longer than ten bytes, or a tag has no valid field number or wire type.
    #[error("not a protobuf message")]
    Malformed,
    /// A known field has another wire type than the message's definition says.
    #[error("a field has the wrong wire type")]
    WireType,
    /// A string is not UTF-8.
    #[error("a string is not valid UTF-8")]
    Utf8,
    /// Values are nested deeper than prost's limit of 100 levels.
    #[error("values are nested too deep")]
    TooDeep,
}

const REQUEST_RESOURCE_LOGS: u32 = 1;
const LOG_RECORD_ATTRIBUTES: u32 = 6;

/// Calls `visit` with every log record of an encoded `ExportLogsServiceRequest`, and gives their number.
///
/// A record is visited before the bytes after it are checked, so records may have been visited when an error
/// comes. A caller that must not act on part of a request calls [`check`] first. Nothing is allocated on the
/// heap.
///
/// # Errors
/// Prost would refuse to decode the bytes, its limit of nesting included.
pub fn scan<'a>(request: &'a [u8], visit: impl FnMut(LogRecord<'_, 'a>)) -> Result<usize, ScanError> {
    scan_for(request, &mut Each(visit))
}

/// The visitor of a scan, called in the order of the request.
pub trait Visit<'a> {
    /// Called before the records of a resource, with the encoded `Resource` message if that is in one piece.
    /// Returns whether the visitor knows the resource; then its attributes are not read.
    ///
    /// A visitor may know only resources of records that a scan has shown it before, since their bytes are
    /// not checked again.
    fn resource(&mut self, encoded: Option<&'a [u8]>) -> bool;

    /// Called with each log record of the resource shown last.
    fn record(&mut self, record: LogRecord<'_, 'a>);
}

/// A visitor that knows no resource.
struct Each<F>(F);

impl<'a, F: FnMut(LogRecord<'_, 'a>)> Visit<'a> for Each<F> {
    fn resource(&mut self, _: Option<&'a [u8]>) -> bool {
        false
    }

    fn record(&mut self, record: LogRecord<'_, 'a>) {
        (self.0)(record);
    }
}

/// Scans like [`scan`], for a visitor that may know resources.
///
/// # Errors
/// Prost would refuse to decode the bytes, its limit of nesting included.
pub fn scan_for<'a>(request: &'a [u8], visit: &mut impl Visit<'a>) -> Result<usize, ScanError> {
    let mut count = 0;
    let mut fields = Fields::new(request);
    while let Some((number, payload)) = fields.good() {
        if number == REQUEST_RESOURCE_LOGS {
            resource_logs(fields.enter(payload)?, &mut count, visit)?;
        } else {
            fields.unknown()?;
        }
    }
    fields.end()?;
    Ok(count)
}

/// Checks an encoded `ExportLogsServiceRequest` as a whole, and gives the number of its log records.
///
/// # Errors
/// Prost would refuse to decode the bytes, its limit of nesting included.
pub fn check(request: &[u8]) -> Result<usize, ScanError> {
    scan(request, |_| {})
}

/// Scans a `ResourceLogs` message in two passes, since the resource may come after its records, and in
/// several parts.
fn resource_logs<'a>(
    message: Fields<'a>,
    count: &mut usize,
    visit: &mut impl Visit<'a>,
) -> Result<(), ScanError> {
    let mut attrs = Attrs::default();
    let mut fields = message;
    // The first part of the resource is read late: if it is the only one, the visitor may know it.
    let (mut first, mut is_whole) = (None, true);
    while let Some((number, payload)) = fields.good() {
        match number {
            1 if first.is_none() => first = Some(payload),
            1 => {
                if let Some(first) = first.filter(|_| std::mem::take(&mut is_whole)) {
                    resource(message.enter(first)?, &mut attrs)?;
                }
                resource(message.enter(payload)?, &mut attrs)?;
            }
            2 => drop(payload.bytes()?),
            3 => drop(payload.text()?),
            _ => fields.unknown()?,
        }
    }
    fields.end()?;
    let first = first.filter(|_| is_whole);
    let encoded = first.map(Payload::bytes).transpose()?;
    if !visit.resource(encoded)
        && let Some(first) = first
    {
        resource(message.enter(first)?, &mut attrs)?;
    }
    let mut fields = message;
    while let Some((number, payload)) = fields.good() {
        if number == 2 {
            scope_logs(fields.enter(payload)?, &attrs, count, visit)?;
        }
    }
    fields.end()
}

fn resource<'a>(mut fields: Fields<'a>, attrs: &mut Attrs<'a>) -> Result<(), ScanError> {
    while let Some((number, payload)) = fields.good() {
        match number {
            1 => attribute(&fields, payload, attrs)?,
            2 => drop(payload.varint()?),
            3 => entity_ref(fields.enter(payload)?)?,
            _ => fields.unknown()?,
        }
    }
    fields.end()
}

fn entity_ref(mut fields: Fields<'_>) -> Result<(), ScanError> {
    while let Some((number, payload)) = fields.good() {
        match number {
            1..=4 => drop(payload.text()?),
            _ => fields.unknown()?,
        }
    }
    fields.end()
}

fn scope_logs<'a>(
    mut fields: Fields<'a>,
    resource: &Attrs<'a>,
    count: &mut usize,
    visit: &mut impl Visit<'a>,
) -> Result<(), ScanError> {
    while let Some((number, payload)) = fields.good() {
        match number {
            1 => scope(fields.enter(payload)?)?,
            2 => {
                let mut record = LogRecord::new(resource, payload.bytes()?, *count);
                log_record(fields.enter(payload)?, &mut record)?;
                *count += 1;
                visit.record(record);
            }
            3 => drop(payload.text()?),
            _ => fields.unknown()?,
        }
    }
    fields.end()
}

fn scope(mut fields: Fields<'_>) -> Result<(), ScanError> {
    while let Some((number, payload)) = fields.good() {
        match number {
            1 | 2 => drop(payload.text()?),
            3 => drop(key_value(&fields, payload)?),
            4 => drop(payload.varint()?),
            _ => fields.unknown()?,
        }
    }
    fields.end()
}

fn log_record<'a>(mut fields: Fields<'a>, record: &mut LogRecord<'_, 'a>) -> Result<(), ScanError> {
    while let Some((number, payload)) = fields.good() {
        match number {
            1 => record.time_ns = payload.fixed64()?,
            11 => record.observed_ns = payload.fixed64()?,
            2 | 7 => drop(payload.varint()?),
            3 | 12 => drop(payload.text()?),
            5 => any_value(fields.enter(payload)?, &mut None)?,
            LOG_RECORD_ATTRIBUTES => attribute(&fields, payload, &mut record.attrs)?,
            8 => payload.fixed32()?,
            9 => record.trace_id = payload.bytes()?,
            10 => drop(payload.bytes()?),
            _ => fields.unknown()?,
        }
    }
    fields.end()?;
    record.event = record
        .attrs
        .text(Attr::EventName)
        .map_or(EventKind::Unknown, EventKind::by_name);
    Ok(())
}

#[inline]
fn attribute<'a>(parent: &Fields<'a>, payload: Payload<'a>, attrs: &mut Attrs<'a>) -> Result<(), ScanError> {
    let mut keep = |key: &str, value| {
        if let Some(attr) = Attr::by_key(key.as_bytes()) {
            attrs.set(attr, value);
        }
    };
    // `keep` is called in both branches, since a value that joins the two results would go through memory
    // (see `Fields::good`).
    if let Some((key, value)) = plain_key_value(parent, payload) {
        keep(key, value);
    } else {
        let (key, value) = any_key_value(parent, payload)?;
        keep(key, value);
    }
    Ok(())
}

/// Reads a `KeyValue`: the key and the value.
pub(super) fn key_value<'a>(
    parent: &Fields<'a>,
    payload: Payload<'a>,
) -> Result<(&'a str, Value<'a>), ScanError> {
    plain_key_value(parent, payload).map_or_else(|| any_key_value(parent, payload), Ok)
}

/// Reads a `KeyValue` of any form, whose value may come before its key, and in several parts.
#[inline(never)]
fn any_key_value<'a>(parent: &Fields<'a>, payload: Payload<'a>) -> Result<(&'a str, Value<'a>), ScanError> {
    let mut fields = parent.enter(payload)?;
    let mut key = "";
    let mut value = None;
    while let Some((number, payload)) = fields.good() {
        match number {
            1 => key = payload.text()?,
            2 => any_value(fields.enter(payload)?, &mut value)?,
            3 => drop(payload.varint()?),
            _ => fields.unknown()?,
        }
    }
    fields.end()?;
    Ok((key, value.unwrap_or(Value::Other(payload.bytes()?))))
}

/// Reads a `KeyValue` of the usual form at once: a key, then a string, a boolean or an integer, each with a
/// length or number of one byte. `None` for every other form, invalid ones included, which [`any_key_value`]
/// reads field by field.
#[inline(always)]
fn plain_key_value<'a>(parent: &Fields<'a>, payload: Payload<'a>) -> Option<(&'a str, Value<'a>)> {
    const KEY: u8 = 1 << 3 | 2;
    const VALUE: u8 = 2 << 3 | 2;
    const STRING: u8 = 1 << 3 | 2;
    const BOOL: u8 = 2 << 3;
    const INT: u8 = 3 << 3;
    let Payload::Bytes(bytes) = payload else {
        return None;
    };
    if !parent.reaches(2) {
        return None;
    }
    let [KEY, key_length @ 0..=127, rest @ ..] = bytes else {
        return None;
    };
    let (_, rest) = rest.split_at_checked(usize::from(*key_length))?;
    let [VALUE, length @ 0..=127, any @ ..] = rest else {
        return None;
    };
    if any.len() != usize::from(*length) {
        return None;
    }
    // Tags and lengths are below 128, which makes them valid UTF-8: key and value are checked at once.
    let text = std::str::from_utf8(bytes).ok()?;
    let value = match any {
        [STRING, length @ 0..=127, value @ ..] if value.len() == usize::from(*length) => {
            Value::Str(text.get(text.len() - value.len()..)?)
        }
        [BOOL, flag @ 0..=1] => Value::Bool(*flag == 1),
        [INT, int @ 0..=127] => Value::Int(i64::from(*int)),
        _ => return None,
    };
    Some((text.get(2..2 + usize::from(*key_length))?, value))
}

/// Reads an `AnyValue` into `value`: its last member, or `None` for a member that [`Value::Other`] stands
/// for.
fn any_value<'a>(mut fields: Fields<'a>, value: &mut Option<Value<'a>>) -> Result<(), ScanError> {
    while let Some((number, payload)) = fields.good() {
        *value = match number {
            1 => Some(Value::Str(payload.text()?)),
            2 => Some(Value::Bool(payload.varint()? != 0)),
            3 => Some(Value::Int(payload.varint()?.cast_signed())),
            4 => Some(Value::Double(f64::from_bits(payload.fixed64()?))),
            5 => {
                array(fields.enter(payload)?)?;
                None
            }
            6 => {
                key_values(fields.enter(payload)?)?;
                None
            }
            7 => payload.bytes().map(|_| None)?,
            8 => payload.varint().map(|_| None)?,
            _ => {
                fields.unknown()?;
                continue;
            }
        }
    }
    fields.end()
}

fn array(mut fields: Fields<'_>) -> Result<(), ScanError> {
    while let Some((number, payload)) = fields.good() {
        match number {
            1 => any_value(fields.enter(payload)?, &mut None)?,
            _ => fields.unknown()?,
        }
    }
    fields.end()
}

fn key_values(mut fields: Fields<'_>) -> Result<(), ScanError> {
    while let Some((number, payload)) = fields.good() {
        match number {
            1 => drop(key_value(&fields, payload)?),
            _ => fields.unknown()?,
        }
    }
    fields.end()
}
