//! A record of the quarantine, as it is listed and shown.

use crate::commands::render::{decoded, text_or_base64, visible};
use schemas::record::{
    HEADER_CUT_FROM, HEADER_KEY, HEADER_ORIGIN, HEADER_REASON, HEADER_RETRIED, HEADER_RETRIED_TO,
    HEADER_RETRY_OF, HEADER_TENANT, Record,
};
use schemas::time::{AppendTime, EventTime, format_rfc3339};
use schemas::topic::Topic;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write;

/// So many bytes are dumped at most.
const DUMP_BYTES_MAX: usize = 4 << 10;
/// And in one line of a dump.
const DUMP_LINE: usize = 16;

/// That a record was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where to: `topic/partition@offset`.
    pub to: String,
}

impl Note {
    /// The offset of the record that it is about, and the note; `None` if it is none.
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

/// What is known of a record, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub offset: i64,
    /// When it came into the quarantine.
    pub appended: AppendTime,
    pub tenant: Option<String>,
    /// The inbox of its signal.
    pub inbox: Option<Topic>,
    pub reason: String,
    /// `topic/partition@offset`.
    pub origin: String,
    /// The key that it had in the raw topic.
    pub key: Option<String>,
    /// How many bytes are there.
    pub bytes: usize,
    /// How many there were, if not all are there.
    pub cut_from: Option<i64>,
    /// `OFFSET ORIGIN` of the record here that it is a retry of.
    pub retry_of: Option<String>,
}

impl Entry {
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

    /// `logs`, `traces` or `metrics`; `-` if that is not known.
    pub const fn signal(&self) -> &'static str {
        match self.inbox {
            Some(Topic::InboxLogs) => "logs",
            Some(Topic::InboxTraces) => "traces",
            Some(Topic::InboxMetrics) => "metrics",
            _ => "-",
        }
    }

    /// One line, for people.
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

    /// As a JSON object.
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

    /// As a JSON object, with the bytes.
    pub fn json_with_bytes(&self, record: &Record, note: Option<&Note>) -> Value {
        let mut shown = self.json(note);
        let bytes = record.value.as_deref().unwrap_or_default();
        shown["value"] = self.decoded(bytes).unwrap_or_else(|| text_or_base64(bytes));
        shown
    }

    /// All that there is, for people.
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

    /// The bytes as what they were to be, if they are that: a request that is well formed, but too large, say.
    fn decoded(&self, bytes: &[u8]) -> Option<Value> {
        decoded(self.inbox.filter(|_| self.cut_from.is_none())?, bytes)
    }
}

/// Text that people would not read: control characters other than white space.
fn is_binary(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && !c.is_ascii_whitespace())
}

/// Sixteen bytes a line: offset, hexadecimal, ASCII.
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

/// Where foreign writers put what was in that topic.
const fn inbox_of(topic: Topic) -> Option<Topic> {
    match topic {
        Topic::RawLogs | Topic::InboxLogs => Some(Topic::InboxLogs),
        Topic::RawTraces | Topic::InboxTraces => Some(Topic::InboxTraces),
        Topic::RawMetrics | Topic::InboxMetrics => Some(Topic::InboxMetrics),
        _ => None,
    }
}

fn text(record: &Record, header: &str) -> Option<String> {
    record
        .header(header)
        .map(|value| String::from_utf8_lossy(value).into_owned())
}
