//! The recorded runs of Codex, with their times moved, since event times as old as theirs would be clamped.

use bytes::Bytes;
use ingest::prepare::hash::HashKey;
use ingest::prepare::privacy;
use ingest::prepare::route::route;
use ingest::{Signal, murmur2_partition};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message;
use schemas::id::TopicPartition;
use schemas::privacy::Actions;
use schemas::record::{HEADER_WALL, Record};
use schemas::time::{AppendTime, EventTime, format_rfc3339, parse_rfc3339};
use schemas::topic::Topic;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One recorded run.
#[derive(Clone)]
pub struct Recording {
    /// The name of the recording: `VERSION-PROTOCOL-SCENARIO`.
    pub name: String,
    /// The member `expected` of the manifest.
    pub expected: Value,
    /// The bodies, in the order in which they were sent.
    pub bodies: Vec<Body>,
    /// Whether Codex itself dropped telemetry.
    pub lossy: bool,
}

/// A request body with moved times.
pub struct Sent {
    /// The bytes of the body.
    pub bytes: Vec<u8>,
    /// How many log records the body holds.
    pub records: i64,
    /// The conversations of its log records.
    pub conversations: BTreeSet<String>,
}

/// A recorded request body.
#[derive(Clone)]
pub struct Body {
    /// The signal: `logs`, `traces` or `metrics`.
    pub signal: String,
    /// Whether the body is JSON. Messages of gRPC are recorded as protobuf without a frame.
    pub json: bool,
    /// The body as Codex sent it.
    pub bytes: Vec<u8>,
    /// When the body was received, ms since the Unix epoch.
    pub arrived_ms: i64,
}

/// All recordings, in the order of their names.
pub fn all() -> Vec<Recording> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let index: Vec<Value> = serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    let folder = |entry: &Value| entry["folder"].as_str().unwrap().to_owned();
    let mut listed: Vec<String> = index.iter().map(folder).collect();
    let entries = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
    let mut there: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    listed.sort();
    there.sort();
    assert!(!listed.is_empty());
    assert_eq!(listed, there, "index.json does not list the folders");
    let mut all: Vec<Recording> = index
        .iter()
        .map(|entry| load(&dir.join(folder(entry)), entry["lossy"].as_bool().unwrap()))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The raw records of recordings, cleaned under a policy, with append times that do not depend on it.
pub fn raw_records(
    recordings: &[Recording],
    actions: Actions,
    key: &HashKey,
    partitions: i32,
    began_ms: i64,
) -> Vec<Record> {
    let (mut records, mut at) = (Vec::new(), began_ms);
    let mut ends = vec![0; usize::try_from(partitions).unwrap()];
    for recording in recordings {
        for body in recording.bodies.iter().filter(|body| body.signal == "logs") {
            let sent = body.shifted(recording.shift_to(at)).bytes;
            let sent = if body.json {
                ingest::prepare::json::to_protobuf(Signal::Logs, &sent).unwrap()
            } else {
                sent
            };
            let cleaned = privacy::apply(Signal::Logs, sent.into(), actions, Some(key)).unwrap();
            for raw in route(Signal::Logs, "default", &cleaned.bytes).unwrap() {
                at += 1;
                let partition = murmur2_partition(raw.key.as_bytes(), partitions);
                let end = &mut ends[usize::try_from(partition).unwrap()];
                records.push(Record {
                    from: TopicPartition {
                        topic: Topic::RawLogs,
                        partition,
                    },
                    offset: *end,
                    appended: AppendTime(at),
                    key: Some(raw.key.into()),
                    value: Some(raw.value),
                    headers: vec![(HEADER_WALL.to_owned(), Bytes::from(at.to_string()))],
                });
                *end += 1;
            }
        }
    }
    records
}

fn load(dir: &Path, lossy: bool) -> Recording {
    let manifest: Value = serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let body = |body: &Value| {
        let file = body["file"].as_str().unwrap();
        let stored = std::fs::read(dir.join(file)).unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 in ms fit")]
        Body {
            signal: body["signal"].as_str().unwrap().to_owned(),
            json: body["content_type"].as_str().unwrap().contains("json"),
            bytes: if file.ends_with(".gz") {
                gunzip(&stored)
            } else {
                stored
            },
            arrived_ms: (body["received_at_unix"].as_f64().unwrap() * 1000.0) as i64,
        }
    };
    Recording {
        name: dir.file_name().unwrap().to_str().unwrap().to_owned(),
        expected: manifest["expected"].clone(),
        bodies: manifest["bodies"].as_array().unwrap().iter().map(body).collect(),
        lossy,
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut plain)
        .unwrap();
    plain
}

impl Recording {
    /// By how many ms the times of a recording must move for its last body to come at `now_ms`.
    pub fn shift_to(&self, now_ms: i64) -> i64 {
        now_ms - self.bodies.iter().map(|body| body.arrived_ms).max().unwrap()
    }
}

impl Body {
    /// The path and the content type with which the body is sent.
    pub fn path(&self) -> String {
        format!("/v1/{}", self.signal)
    }

    /// The content type of the body.
    pub fn content_type(&self) -> &'static str {
        if self.json {
            super::tacho::JSON
        } else {
            super::tacho::PROTOBUF
        }
    }

    /// The body with the times of its log records moved by `ms`.
    ///
    /// Traces and metrics stay as they are: nothing is derived from them.
    pub fn shifted(&self, ms: i64) -> Sent {
        let mut sent = Sent {
            bytes: self.bytes.clone(),
            records: 0,
            conversations: BTreeSet::new(),
        };
        if self.signal != "logs" {
            return sent;
        }
        if self.json {
            // The JSON is edited as JSON, so that everything else stays as Codex wrote it.
            let mut request: Value = serde_json::from_slice(&self.bytes).unwrap();
            for_each_json(&mut request, &mut |record| {
                sent.records += 1;
                sent.conversations.extend(shift_json(record, ms));
            });
            sent.bytes = serde_json::to_vec_pretty(&request).unwrap();
            return sent;
        }
        let mut request = ExportLogsServiceRequest::decode(self.bytes.as_slice()).unwrap();
        let scopes = request
            .resource_logs
            .iter_mut()
            .flat_map(|resource| &mut resource.scope_logs);
        for record in scopes.flat_map(|scope| &mut scope.log_records) {
            sent.records += 1;
            for time in [&mut record.time_unix_nano, &mut record.observed_time_unix_nano] {
                if *time != 0 {
                    *time = time.checked_add_signed(ms * 1_000_000).unwrap();
                }
            }
            for attribute in &mut record.attributes {
                let Some(Any::StringValue(text)) =
                    attribute.value.as_mut().and_then(|value| value.value.as_mut())
                else {
                    continue;
                };
                match attribute.key.as_str() {
                    "event.timestamp" => *text = shift_text(text, ms),
                    "conversation.id" => sent.conversations.extend([text.clone()]),
                    _ => {}
                }
            }
        }
        sent.bytes = request.encode_to_vec();
        sent
    }
}

fn for_each_json(request: &mut Value, each: &mut impl FnMut(&mut Value)) {
    for resource in request["resourceLogs"].as_array_mut().unwrap() {
        for scope in resource["scopeLogs"].as_array_mut().unwrap() {
            scope["logRecords"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(&mut *each);
        }
    }
}

/// Moves the times of a log record, and gives its conversation.
fn shift_json(record: &mut Value, ms: i64) -> Option<String> {
    let mut conversation = None;
    for name in ["timeUnixNano", "observedTimeUnixNano"] {
        let Some(time) = record[name].as_str().map(|text| text.parse::<i64>().unwrap()) else {
            continue;
        };
        if time != 0 {
            record[name] = (time + ms * 1_000_000).to_string().into();
        }
    }
    for attribute in record["attributes"].as_array_mut().unwrap() {
        if attribute["key"] == "event.timestamp" {
            let text = attribute["value"]["stringValue"].as_str().unwrap();
            attribute["value"]["stringValue"] = shift_text(text, ms).into();
        } else if attribute["key"] == "conversation.id" {
            conversation = attribute["value"]["stringValue"].as_str().map(str::to_owned);
        }
    }
    conversation
}

fn shift_text(text: &str, ms: i64) -> String {
    format_rfc3339(EventTime(parse_rfc3339(text).unwrap().0 + ms))
}
