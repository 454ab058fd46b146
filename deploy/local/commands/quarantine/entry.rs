//! A record of the quarantine as people and programs see it: one line, a JSON object, or all with a dump of the bytes.

use crate::commands::render::{decoded, text_or_base64, visible};
use schemas::record::{
    HEADER_CUT_FROM, HEADER_KEY, HEADER_ORIGIN, HEADER_REASON, HEADER_RETRIED, HEADER_RETRIED_TO,
    HEADER_RETRY_OF, HEADER_TENANT, Record,
};
use schemas::signal::Signal;
use schemas::time::{AppendTime, EventTime, format_rfc3339};
use schemas::topic::Topic;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write;

/// The most bytes that a dump shows.
const DUMP_BYTES_MAX: usize = 4 << 10;
/// The bytes in one line of a dump.
const DUMP_LINE: usize = 16;

/// A note that a record was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The new place of the record: `topic/partition@offset`.
    pub to: String,
}

impl Note {
    /// Reads a note, with the offset of the record that it is about; `None` if the record is no note.
    pub fn of(record: &Record) -> Option<(i64, Self)> {
        let of = record.header_number(HEADER_RETRIED)?;
        Some((
            of,
            Self {
                to: text(record, HEADER_RETRIED_TO).unwrap_or_default(),
            },
        ))
    }
}

/// What is known of a quarantined record, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The offset in the quarantine.
    pub offset: i64,
    /// When the record came into the quarantine.
    pub appended: AppendTime,
    /// The tenant, if it is known.
    pub tenant: Option<String>,
    /// The inbox topic of the record's signal; none if its origin tells no signal.
    pub inbox: Option<Topic>,
    /// Why the record was quarantined.
    pub reason: String,
    /// The place from which the record came: `topic/partition@offset`.
    pub origin: String,
    /// The key that the record had in the raw topic.
    pub key: Option<String>,
    /// The bytes that are kept.
    pub bytes: usize,
    /// The bytes that the record had, if not all are kept.
    pub cut_from: Option<i64>,
    /// The quarantined record that this one is a retry of, as `OFFSET ORIGIN`.
    pub retry_of: Option<String>,
}

impl Entry {
    /// Reads the headers of a quarantined record.
    pub fn of(record: &Record) -> Self {
        let origin = text(record, HEADER_ORIGIN).unwrap_or_default();
        let reason = text(record, HEADER_REASON)
            .or_else(|| Some(String::from_utf8_lossy(record.key.as_deref()?).into_owned()));
        Self {
            offset: record.offset,
            appended: record.appended,
            tenant: text(record, HEADER_TENANT),
            inbox: origin
                .split_once('/')
                .and_then(|(topic, _)| inbox_of(Topic::by_name(topic)?)),
            reason: reason.unwrap_or_default(),
            origin,
            key: text(record, HEADER_KEY),
            bytes: record.value.as_deref().map_or(0, <[u8]>::len),
            cut_from: record.header_number(HEADER_CUT_FROM),
            retry_of: text(record, HEADER_RETRY_OF),
        }
    }

    /// The signal: `logs`, `traces` or `metrics`; `-` if it is not known.
    pub fn signal(&self) -> &'static str {
        self.inbox.and_then(Signal::of).map_or("-", Signal::name)
    }

    /// The entry as one line for people.
    pub fn line(&self, note: Option<&Note>) -> String {
        let Self {
            offset,
            appended,
            tenant,
            reason,
            origin,
            bytes,
            cut_from,
            retry_of,
            ..
        } = self;
        let (at, tenant, signal) = (
            format_rfc3339(EventTime(appended.0)),
            tenant.as_deref().unwrap_or("-"),
            self.signal(),
        );
        let mut line = format!("{offset} {at} {tenant} {signal} {reason} {origin} {bytes} bytes");
        if let Some(length) = cut_from {
            let _ = write!(line, ", cut from {length}");
        }
        if let Some((of, _)) = retry_of.as_ref().and_then(|of| of.split_once(' ')) {
            let _ = write!(line, ", a retry of {of}");
        }
        if let Some(note) = note {
            let _ = write!(line, ", sent again to {}", note.to);
        }
        visible(&line)
    }

    /// The entry as a JSON object.
    pub fn json(&self, note: Option<&Note>) -> Value {
        json!({
            "offset": self.offset,
            "timestamp_ms": self.appended.0,
            "tenant": self.tenant,
            "signal": self.inbox.map(|_| self.signal()),
            "reason": self.reason,
            "origin": self.origin,
            "key": self.key,
            "bytes": self.bytes,
            "cut_from": self.cut_from,
            "retry_of": self.retry_of,
            "retried_to": note.map(|note| &note.to),
        })
    }

    /// The entry as a JSON object with the bytes of the record.
    pub fn json_with_bytes(&self, record: &Record, note: Option<&Note>) -> Value {
        let mut shown = self.json(note);
        let bytes = record.value.as_deref().unwrap_or_default();
        shown["value"] = self.decoded(bytes).unwrap_or_else(|| text_or_base64(bytes));
        shown
    }

    /// Writes everything about a record, for people: line, headers and bytes.
    pub fn write(&self, record: &Record, note: Option<&Note>, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "{}", self.line(note))?;
        for (name, value) in &record.headers {
            let value =
                std::str::from_utf8(value).map_or_else(|_| text_or_base64(value).to_string(), str::to_owned);
            writeln!(out, "{}: {}", visible(name), visible(&value))?;
        }
        writeln!(out)?;
        let bytes = record.value.as_deref().unwrap_or_default();
        if let Some(value) = self.decoded(bytes) {
            let pretty = serde_json::to_string_pretty(&value).unwrap_or_else(|_| value.to_string());
            return pretty
                .lines()
                .try_for_each(|line| writeln!(out, "{}", visible(line)));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if !is_binary(text) => text
                .lines()
                .try_for_each(|line| writeln!(out, "{}", visible(line))),
            _ => dump(bytes, out),
        }
    }

    /// The bytes as the request that they were meant to be; `None` if they are cut or can't be decoded. A request that was
    /// quarantined for its size can be.
    fn decoded(&self, bytes: &[u8]) -> Option<Value> {
        decoded(self.inbox.filter(|_| self.cut_from.is_none())?, bytes)
    }
}

/// Whether a text is nothing that people read: it has control characters other than white space.
fn is_binary(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && !c.is_ascii_whitespace())
}

/// Writes bytes as a dump, 16 a line: offset, hexadecimal, ASCII.
fn dump(bytes: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
    let shown = &bytes[..bytes.len().min(DUMP_BYTES_MAX)];
    for (line, chunk) in shown.chunks(DUMP_LINE).enumerate() {
        let hex = chunk.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x} ");
            hex
        });
        let ascii: String = chunk
            .iter()
            .map(|byte| {
                if byte.is_ascii_graphic() || *byte == b' ' {
                    char::from(*byte)
                } else {
                    '.'
                }
            })
            .collect();
        writeln!(
            out,
            "{:08x}  {hex:width$} {ascii}",
            line * DUMP_LINE,
            width = DUMP_LINE * 3
        )?;
    }
    if shown.len() < bytes.len() {
        writeln!(
            out,
            "{} more bytes: --raw gives them all",
            bytes.len() - shown.len()
        )?;
    }
    Ok(())
}

/// The inbox topic of the signal of a raw or inbox topic; `None` for a topic without a signal.
fn inbox_of(topic: Topic) -> Option<Topic> {
    Signal::of(topic).map(Signal::inbox)
}

/// A header as text.
fn text(record: &Record, header: &str) -> Option<String> {
    record
        .header(header)
        .map(|value| String::from_utf8_lossy(value).into_owned())
}
