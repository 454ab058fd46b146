//! Rewrites a recorded body as one that is sent now: with fresh ids, shifted times and another owner.
//!
//! Within one replay an id is renamed the same way everywhere, so that records of one session still belong together.
//! All times of a body move by the same distance: that from the recorded arrival to now.

use super::{Body, Owner, ReplayError};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use schemas::time::{EventTime, format_rfc3339, parse_rfc3339};
use std::collections::HashMap;
use uuid::Uuid;

/// The length of a UUID in text, bytes.
const UUID_LEN: usize = 36;
/// How ids that the model API makes begin.
const PREFIXES: [&str; 5] = ["call_", "msg_", "resp_", "rs_", "fc_"];
/// How many letters or digits follow the prefix of an id at least.
const ID_TAIL_MIN: usize = 8;
/// The depth to which nested values are renamed; deeper ones are left as they are.
const DEPTH_MAX: usize = 16;

/// The renames of one replay: at most as many as the recording has ids.
pub struct Rewrite {
    owner: Owner,
    texts: HashMap<String, String>,
    bytes: HashMap<Vec<u8>, Vec<u8>>,
}

impl Rewrite {
    /// No renames yet, for a replay that belongs to `owner`.
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            texts: HashMap::new(),
            bytes: HashMap::new(),
        }
    }

    /// The body as it would be sent at `now_ms`, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The recording can't be unpacked or decoded.
    pub fn body(&mut self, body: &Body, now_ms: i64) -> Result<Vec<u8>, ReplayError> {
        let plain = body.plain()?;
        let shift = Shift {
            ms: now_ms - body.arrived_ms,
        };
        match body.path {
            "/v1/logs" => {
                let mut request = ExportLogsServiceRequest::decode(plain.as_slice())?;
                self.logs(&mut request, shift);
                Ok(request.encode_to_vec())
            }
            "/v1/traces" => {
                let mut request = ExportTraceServiceRequest::decode(plain.as_slice())?;
                self.traces(&mut request, shift);
                Ok(request.encode_to_vec())
            }
            _ => {
                let mut request = ExportMetricsServiceRequest::decode(plain.as_slice())?;
                self.metrics(&mut request, shift);
                Ok(request.encode_to_vec())
            }
        }
    }

    fn logs(&mut self, request: &mut ExportLogsServiceRequest, shift: Shift) {
        for resource in &mut request.resource_logs {
            self.resource(resource.resource.get_or_insert_default(), shift);
            for record in resource
                .scope_logs
                .iter_mut()
                .flat_map(|scope| &mut scope.log_records)
            {
                shift.nanos(&mut record.time_unix_nano);
                shift.nanos(&mut record.observed_time_unix_nano);
                self.id_bytes(&mut record.trace_id);
                self.id_bytes(&mut record.span_id);
                self.attributes(&mut record.attributes, shift);
                if let Some(body) = &mut record.body {
                    self.value(body, 0);
                }
            }
        }
    }

    fn traces(&mut self, request: &mut ExportTraceServiceRequest, shift: Shift) {
        for resource in &mut request.resource_spans {
            self.resource(resource.resource.get_or_insert_default(), shift);
            for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
                shift.nanos(&mut span.start_time_unix_nano);
                shift.nanos(&mut span.end_time_unix_nano);
                self.id_bytes(&mut span.trace_id);
                self.id_bytes(&mut span.span_id);
                self.id_bytes(&mut span.parent_span_id);
                self.attributes(&mut span.attributes, shift);
                for event in &mut span.events {
                    shift.nanos(&mut event.time_unix_nano);
                    self.attributes(&mut event.attributes, shift);
                }
                for link in &mut span.links {
                    self.id_bytes(&mut link.trace_id);
                    self.id_bytes(&mut link.span_id);
                    self.attributes(&mut link.attributes, shift);
                }
            }
        }
    }

    fn metrics(&mut self, request: &mut ExportMetricsServiceRequest, shift: Shift) {
        macro_rules! points {
            ($points:expr) => {
                for point in $points {
                    shift.nanos(&mut point.start_time_unix_nano);
                    shift.nanos(&mut point.time_unix_nano);
                    self.attributes(&mut point.attributes, shift);
                }
            };
        }
        for resource in &mut request.resource_metrics {
            self.resource(resource.resource.get_or_insert_default(), shift);
            for metric in resource
                .scope_metrics
                .iter_mut()
                .flat_map(|scope| &mut scope.metrics)
            {
                match &mut metric.data {
                    Some(Data::Gauge(data)) => points!(&mut data.data_points),
                    Some(Data::Sum(data)) => points!(&mut data.data_points),
                    Some(Data::Histogram(data)) => points!(&mut data.data_points),
                    Some(Data::ExponentialHistogram(data)) => points!(&mut data.data_points),
                    Some(Data::Summary(data)) => points!(&mut data.data_points),
                    None => {}
                }
            }
        }
    }

    fn resource(&mut self, resource: &mut Resource, shift: Shift) {
        self.attributes(&mut resource.attributes, shift);
        let owner = self.owner;
        for (key, value) in [
            ("team.id", owner.team),
            ("project", owner.project),
            ("cost_centre", owner.cost_centre),
            ("department", owner.department),
            ("env", owner.env),
        ] {
            resource.attributes.retain(|attribute| attribute.key != key);
            let value = AnyValue {
                value: Some(Value::StringValue(value.to_owned())),
            };
            resource.attributes.push(KeyValue {
                key: key.to_owned(),
                value: Some(value),
                ..KeyValue::default()
            });
        }
    }

    fn attributes(&mut self, attributes: &mut [KeyValue], shift: Shift) {
        for attribute in attributes {
            let Some(value) = &mut attribute.value else {
                continue;
            };
            match (attribute.key.as_str(), &mut value.value) {
                ("event.timestamp", Some(Value::StringValue(text))) => shift.rfc3339(text),
                ("started_at_ms" | "completed_at_ms", Some(Value::IntValue(ms))) => *ms += shift.ms,
                _ => self.value(value, 0),
            }
        }
    }

    fn value(&mut self, value: &mut AnyValue, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        match &mut value.value {
            Some(Value::StringValue(text)) => *text = self.text(text),
            Some(Value::ArrayValue(array)) => array
                .values
                .iter_mut()
                .for_each(|value| self.value(value, depth + 1)),
            Some(Value::KvlistValue(list)) => {
                list.values
                    .iter_mut()
                    .filter_map(|entry| entry.value.as_mut())
                    .for_each(|value| self.value(value, depth + 1));
            }
            _ => {}
        }
    }

    /// Renames a trace or span id; an id that is absent or all zeros stays so.
    fn id_bytes(&mut self, id: &mut Vec<u8>) {
        if id.iter().any(|byte| *byte != 0) {
            let fresh = || {
                Uuid::new_v4()
                    .as_bytes()
                    .iter()
                    .copied()
                    .cycle()
                    .take(id.len())
                    .collect()
            };
            let renamed: &Vec<u8> = self.bytes.entry(id.clone()).or_insert_with(fresh);
            *id = renamed.clone();
        }
    }

    /// Renames every id within a text.
    fn text(&mut self, text: &str) -> String {
        let mut renamed = String::with_capacity(text.len());
        let mut rest = text;
        let mut within_word = false;
        while let Some(c) = rest.chars().next() {
            let id = if within_word {
                None
            } else {
                uuid_at(rest).or_else(|| prefixed_at(rest))
            };
            if let Some(id) = id {
                renamed.push_str(self.texts.entry(id.to_owned()).or_insert_with(|| fresh(id)));
                rest = &rest[id.len()..];
                within_word = true;
            } else {
                renamed.push(c);
                rest = &rest[c.len_utf8()..];
                within_word = c.is_ascii_alphanumeric();
            }
        }
        renamed
    }
}

/// The distance that times move.
#[derive(Clone, Copy)]
struct Shift {
    ms: i64,
}

impl Shift {
    /// Shifts a time in ns since the Unix epoch; 0 means that there is no time.
    fn nanos(self, at: &mut u64) {
        if *at != 0 {
            *at = at.saturating_add_signed(self.ms.saturating_mul(1_000_000));
        }
    }

    /// Shifts a time in RFC 3339; a text that is none stays.
    fn rfc3339(self, text: &mut String) {
        if let Some(at) = parse_rfc3339(text) {
            *text = format_rfc3339(EventTime(at.0.saturating_add(self.ms)));
        }
    }
}

/// The UUID in its usual form that `text` begins with.
fn uuid_at(text: &str) -> Option<&str> {
    let id = text.get(..UUID_LEN)?;
    let form = |(at, byte): (usize, u8)| {
        if matches!(at, 8 | 13 | 18 | 23) {
            byte == b'-'
        } else {
            byte.is_ascii_hexdigit()
        }
    };
    let ends = !text[UUID_LEN..].starts_with(|c: char| c.is_ascii_alphanumeric());
    (ends && id.bytes().enumerate().all(form)).then_some(id)
}

/// The id with one of [`PREFIXES`] that `text` begins with.
fn prefixed_at(text: &str) -> Option<&str> {
    let prefix = PREFIXES.iter().find(|prefix| text.starts_with(**prefix))?;
    let tail = text[prefix.len()..]
        .bytes()
        .take_while(u8::is_ascii_alphanumeric)
        .count();
    let digits = text[prefix.len()..prefix.len() + tail]
        .bytes()
        .any(|byte| byte.is_ascii_digit());
    (tail >= ID_TAIL_MIN && digits).then(|| &text[..prefix.len() + tail])
}

/// A new id of the form of `id`.
fn fresh(id: &str) -> String {
    match id.split_once('_') {
        Some((prefix, _)) => format!("{prefix}_{}", Uuid::new_v4().simple()),
        None if id.as_bytes()[14] == b'7' => Uuid::now_v7().to_string(),
        None => Uuid::new_v4().to_string(),
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
