//! Records as people and programs read them: one line of text or JSON a record, with values decoded by topic.

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use schemas::derived::Row;
use schemas::record::Record;
use schemas::signal::Signal;
use schemas::time::{EventTime, format_rfc3339};
use schemas::topic::{Holds, Topic};
use serde_json::{Map, Value, json};

/// One record as one line without its end: a JSON object, or compact text.
pub fn line(record: &Record, as_json: bool) -> String {
    let value = value_of(record);
    if as_json {
        let mut object = json!({
            "topic": record.from.topic.name(),
            "partition": record.from.partition,
            "offset": record.offset,
            "timestamp_ms": record.appended.0,
            "key": record.key.as_deref().map(text_or_base64),
            "value": value,
        });
        if !record.headers.is_empty() {
            let headers: Map<String, Value> = record
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), text_or_base64(value)))
                .collect();
            object["headers"] = Value::Object(headers);
        }
        return object.to_string();
    }
    let key = record
        .key
        .as_deref()
        .map_or_else(String::new, |key| match text_or_base64(key) {
            Value::String(key) => key,
            other => other.to_string(),
        });
    let at = format_rfc3339(EventTime(record.appended.0));
    visible(&format!("{at} {}@{} {key} {value}", record.from, record.offset))
}

/// The text with control characters as escapes: what comes off the wire must not drive the terminal.
pub fn visible(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .fold(String::with_capacity(text.len()), |mut shown, c| {
            if hidden(c) {
                shown.extend(c.escape_unicode())
            } else {
                shown.push(c)
            }
            shown
        })
}

fn value_of(record: &Record) -> Value {
    let Some(bytes) = record.value.as_deref() else {
        return Value::Null;
    };
    decoded(record.from.topic, bytes).unwrap_or_else(|| text_or_base64(bytes))
}

/// The value of a record of `topic` as JSON; `None` where the topic's values have no such form, or the bytes are not one.
pub fn decoded(topic: Topic, bytes: &[u8]) -> Option<Value> {
    if bytes.is_empty() {
        // The value of a tick is empty, which is not the absence of a value.
        return Some(Value::from(""));
    }
    match topic.def().holds {
        Holds::Rows(_) => Row::decode(topic, bytes).ok().map(|row| row.to_json()),
        Holds::Raw(signal) | Holds::Inbox(signal) => match signal {
            Signal::Logs => serde_json::to_value(ExportLogsServiceRequest::decode(bytes).ok()?).ok(),
            Signal::Traces => serde_json::to_value(ExportTraceServiceRequest::decode(bytes).ok()?).ok(),
            Signal::Metrics => serde_json::to_value(ExportMetricsServiceRequest::decode(bytes).ok()?).ok(),
        },
        Holds::Control => serde_json::from_slice(bytes).ok(),
        Holds::Labels | Holds::Quarantined | Holds::Deltas | Holds::State => None,
    }
}

/// Bytes as JSON: UTF-8 as a string, others as `{"base64": "…"}`.
pub fn text_or_base64(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({"base64": base64(bytes)}), Value::from)
}

/// Bytes in base64 with padding, as in RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, at| {
            (word << 8) | usize::from(three.get(at).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            let shown = digit <= three.len();
            text.push(if shown {
                char::from(ALPHABET[(word >> (18 - 6 * digit)) & 63])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use schemas::id::TopicPartition;
    use schemas::time::AppendTime;

    fn record(topic: Topic, key: &'static [u8], value: Option<&'static [u8]>) -> Record {
        Record {
            from: TopicPartition { topic, partition: 2 },
            offset: 7,
            appended: AppendTime(1234),
            key: Some(Bytes::from_static(key)),
            value: value.map(Bytes::from_static),
            headers: vec![],
        }
    }

    #[test]
    fn base64_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }

    #[test]
    fn json_line_has_the_fixed_fields() {
        let line = line(&record(Topic::Control, b"k", Some(b"{\"a\":1}")), true);
        let expected = json!({"topic": "tacho.control", "partition": 2, "offset": 7, "timestamp_ms": 1234, "key": "k", "value": {"a": 1}});
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn what_can_not_be_decoded_is_shown_as_it_is() {
        let shown = |record: &Record| serde_json::from_str::<Value>(&line(record, true)).unwrap();
        assert_eq!(
            shown(&record(Topic::Deltas, &[0xff], Some(&[0xff])))["value"],
            json!({"base64": "/w=="})
        );
        assert_eq!(
            shown(&record(Topic::RawLogs, b"k", Some(b"not protobuf")))["value"],
            "not protobuf"
        );
        assert_eq!(shown(&record(Topic::Sessions, b"k", None))["value"], Value::Null);
        assert_eq!(
            shown(&record(Topic::Labels, b"k", Some(b"4711")))["value"],
            "4711",
            "a label's value is text"
        );
    }

    #[test]
    fn human_line_is_one_line_and_can_not_drive_a_terminal() {
        let line = line(
            &record(Topic::Quarantine, b"a\n\x1b[31m", Some("x\u{202e}".as_bytes())),
            false,
        );
        assert_eq!(
            line,
            "1970-01-01T00:00:01.234Z codex.quarantine.v1/2@7 a\\u{a}\\u{1b}[31m \"x\\u{202e}\""
        );
    }

    #[test]
    fn raw_logs_are_shown_as_otlp_json() {
        let request = ExportLogsServiceRequest {
            resource_logs: vec![Default::default()],
        };
        let bytes: &'static [u8] = request.encode_to_vec().leak();
        let shown: Value =
            serde_json::from_str(&line(&record(Topic::RawLogs, b"k", Some(bytes)), true)).unwrap();
        assert!(shown["value"]["resourceLogs"].is_array(), "{shown}");
    }
}
