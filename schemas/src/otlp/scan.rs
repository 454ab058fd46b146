//! A zero-copy scan over the bytes of an `ExportLogsServiceRequest`: any order of fields, no allocation per record.
//!
//! Source: opentelemetry-proto `logs/v1/logs.proto`, `common/v1/common.proto`; protobuf encoding guide.

use super::wire::{Fields, Payload};
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
    /// An array, key-value list, byte string or nothing: the encoded `KeyValue` that holds it, key included.
    ///
    /// (The value alone need not be one piece: protobuf merges a message field that occurs twice.)
    Other(&'a [u8]),
}

/// The attributes that something reads, by [`Attr`]; the last occurrence of a key wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Attrs<'a> {
    slots: [Option<Value<'a>>; Attr::COUNT],
}

impl Default for Attrs<'_> {
    fn default() -> Self {
        Self {
            slots: [None; Attr::COUNT],
        }
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
            Value::Double(double) if double.fract() == 0.0 && double.abs() < 9e15 => Some(double as i64),
            _ => None,
        }
    }

    /// The value as a count: an integer that is not negative.
    #[must_use]
    pub fn count(&self, attr: Attr) -> Option<u64> {
        u64::try_from(self.int(attr)?).ok()
    }

    /// A value in milliseconds as whole microseconds: an integer, a decimal string or a number with a fraction.
    ///
    /// Codex sends whole milliseconds as strings; a fraction beyond the microsecond is cut off.
    #[must_use]
    pub fn micros(&self, attr: Attr) -> Option<u64> {
        match self.get(attr)? {
            Value::Str(text) => scaled(text, 3),
            Value::Double(double) if (0.0..9e12).contains(&double) => {
                format!("{:.0}", (double * 1_000.0).floor()).parse().ok()
            }
            _ => self.count(attr).map(|ms| ms.saturating_mul(1_000)),
        }
    }

    /// A value as whole billionths: an integer, a decimal string (Codex sends money so) or a number with a fraction. What is
    /// finer than a billionth is cut off.
    #[must_use]
    pub fn billionths(&self, attr: Attr) -> Option<u64> {
        match self.get(attr)? {
            Value::Str(text) if text.contains(['e', 'E']) => {
                scaled(&text.trim().parse::<f64>().ok()?.to_string(), 9)
            }
            Value::Str(text) => scaled(text, 9),
            // Its shortest decimal, which is never in scientific form.
            Value::Double(double) => scaled(&double.to_string(), 9),
            _ => self.count(attr).map(|whole| whole.saturating_mul(1_000_000_000)),
        }
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

/// A decimal that is not negative, times ten to the power of `digits`; what is finer is cut off.
fn scaled(text: &str, digits: u32) -> Option<u64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return None;
    }
    let rest = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(digits as usize);
    let rest = rest.fold(0, |rest: u64, digit| rest * 10 + u64::from(digit - b'0'));
    Some(
        whole
            .parse::<u64>()
            .ok()?
            .saturating_mul(10_u64.pow(digits))
            .saturating_add(rest),
    )
}

/// One log record, borrowed from the request's bytes.
#[derive(Clone, Debug)]
pub struct LogRecord<'r, 'a> {
    /// Attributes of its resource; none, where [`Visit::resource`] said that it is known.
    pub resource: &'r Attrs<'a>,
    /// Its own attributes.
    pub attrs: Attrs<'a>,
    /// `time_unix_nano`; 0 where Codex is the sender.
    pub time_ns: u64,
    /// `observed_time_unix_nano`.
    pub observed_ns: u64,
    /// 16 bytes, or none; the length is the sender's and not checked.
    pub trace_id: &'a [u8],
    /// By the attribute `event.name`.
    pub event: EventKind,
    /// The record's number within the request.
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

    /// All of the record's own attributes, as they are in the record: in its order, repeated keys too.
    ///
    /// Reads the encoded record again, which was checked when the record was visited.
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

const REQUEST_RESOURCE_LOGS: u32 = 1;
const LOG_RECORD_ATTRIBUTES: u32 = 6;

/// Shows every log record of an encoded `ExportLogsServiceRequest`, and says how many there were.
///
/// Records are shown before the bytes after them are checked: after an error some were shown. Who must not act on
/// part of a request calls [`check`] first. Nothing is allocated on the heap.
///
/// # Errors
/// Exactly for the bytes that prost refuses to decode, its limit of nesting included.
pub fn scan<'a>(request: &'a [u8], visit: impl FnMut(LogRecord<'_, 'a>)) -> Result<usize, ScanError> {
    scan_for(request, &mut Each(visit))
}

/// What a scan shows, in order.
pub trait Visit<'a> {
    /// The resource of the records to come: the encoded `Resource` message, if it is in one piece. Whether it is known:
    /// then it is not read.
    ///
    /// Only a resource may be known whose records a scan has shown before: its bytes are not checked again.
    fn resource(&mut self, encoded: Option<&'a [u8]>) -> bool;

    /// A log record of that resource.
    fn record(&mut self, record: LogRecord<'_, 'a>);
}

/// Knows no resource.
struct Each<F>(F);

impl<'a, F: FnMut(LogRecord<'_, 'a>)> Visit<'a> for Each<F> {
    fn resource(&mut self, _: Option<&'a [u8]>) -> bool {
        false
    }

    fn record(&mut self, record: LogRecord<'_, 'a>) {
        (self.0)(record);
    }
}

/// As [`scan`], for who remembers resources.
///
/// # Errors
/// As [`scan`].
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

/// Checks an encoded `ExportLogsServiceRequest` as a whole, and says how many records it holds.
///
/// # Errors
/// As [`scan`].
pub fn check(request: &[u8]) -> Result<usize, ScanError> {
    scan(request, |_| {})
}

/// Two passes, because the resource may come after the records that are its own, and may come in parts.
fn resource_logs<'a>(
    message: Fields<'a>,
    count: &mut usize,
    visit: &mut impl Visit<'a>,
) -> Result<(), ScanError> {
    let mut attrs = Attrs::default();
    let mut fields = message;
    // The first part of the resource waits for whether it is the only one.
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
    // Apart from each other: what two ways of reading may give goes through memory, see `Fields::good`.
    if let Some((key, value)) = plain_key_value(parent, payload) {
        keep(key, value);
    } else {
        let (key, value) = any_key_value(parent, payload)?;
        keep(key, value);
    }
    Ok(())
}

/// Reads a `KeyValue`.
pub(super) fn key_value<'a>(
    parent: &Fields<'a>,
    payload: Payload<'a>,
) -> Result<(&'a str, Value<'a>), ScanError> {
    plain_key_value(parent, payload).map_or_else(|| any_key_value(parent, payload), Ok)
}

/// Reads a `KeyValue` of any form: the value may come before the key, and in parts.
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

/// Reads the usual `KeyValue` at once: key, then a value that is a string, a boolean or an integer, each with a length
/// or number of one byte. `None` for all others, wrong ones too: those are read field by field.
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
    // Tags and lengths are below 128, and so are text themselves: key and value are checked at once.
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

/// Reads an `AnyValue`: `value` is the member seen last, `None` for what [`Value::Other`] stands for.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_in_every_form() {
        let micros = |value| {
            let mut attrs = Attrs::default();
            attrs.set(Attr::DurationMs, value);
            attrs.micros(Attr::DurationMs)
        };
        assert_eq!(micros(Value::Str("120")), Some(120_000));
        assert_eq!(micros(Value::Str("1.5")), Some(1_500));
        assert_eq!(micros(Value::Str("0.00099")), Some(0));
        assert_eq!(micros(Value::Int(7)), Some(7_000));
        assert_eq!(micros(Value::Double(2.25)), Some(2_250));
        for nonsense in [
            Value::Str("-1"),
            Value::Str("1e3"),
            Value::Str("."),
            Value::Str(""),
            Value::Double(f64::NAN),
            Value::Int(-1),
        ] {
            assert_eq!(micros(nonsense), None, "{nonsense:?}");
        }
    }
}
