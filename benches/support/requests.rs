//! Requests made of recorded records, for any number of conversations and any time.

use super::log_bodies;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use schemas::event::Attr;
use schemas::otlp::decode::decode;
use schemas::time::{EventTime, format_rfc3339};

/// How many teams the conversations are spread over. The number of series with label `team` grows with it.
const TEAMS: u64 = 40;
/// The time at which the log begins, ms.
pub const START: i64 = 1_795_348_800_000;

/// Placeholders for what differs between messages; each is as long as the text that replaces it.
const CONVERSATION: &str = "cccccccc-cccc-cccc-cccc-cccccccccccc";
const STAMP: &str = "1999-12-31T23:59:59.999Z";
const NANOS: u64 = 0x7a7b_7c7d_7e7f_6a6b;
const TEAM: &str = "team-xx";

/// Spreads a number over 64 bits (`splitmix64`), so that the order of conversations looks random and is the
/// same in each run.
pub const fn spread(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The id of a conversation: a UUID of version 7, as in Codex, from the half hour before the log begins.
fn conversation(number: u64, open: u64) -> String {
    let born = START.unsigned_abs() - 1_800_000 + number * 1_800_000 / open;
    let tail = spread(number);
    format!(
        "{:08x}-{:04x}-7{:03x}-a{:03x}-{:012x}",
        born >> 16,
        born & 0xffff,
        tail >> 52,
        tail >> 40 & 0xfff,
        tail & 0xffff_ffff_ffff
    )
}

/// An encoded request, and where the placeholders are in it.
struct Template {
    bytes: Vec<u8>,
    conversations: Vec<usize>,
    stamps: Vec<usize>,
    nanos: Vec<usize>,
    teams: Vec<usize>,
}

fn places(bytes: &[u8], of: &[u8]) -> Vec<usize> {
    (0..bytes.len() - of.len())
        .filter(|at| bytes[*at..].starts_with(of))
        .collect()
}

impl Template {
    fn new(resource: &Resource, log_records: &[LogRecord]) -> Self {
        let scope_logs = vec![ScopeLogs {
            log_records: log_records.to_vec(),
            ..ScopeLogs::default()
        }];
        let resource_logs = vec![ResourceLogs {
            resource: Some(resource.clone()),
            scope_logs,
            ..ResourceLogs::default()
        }];
        let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        let find = |of: &[u8]| places(&bytes, of);
        let (conversations, stamps) = (find(CONVERSATION.as_bytes()), find(STAMP.as_bytes()));
        let (nanos, teams) = (find(&NANOS.to_le_bytes()), find(TEAM.as_bytes()));
        assert_eq!(
            (conversations.len(), teams.len()),
            (log_records.len(), 1),
            "every record has a conversation to replace"
        );
        Self {
            bytes,
            conversations,
            stamps,
            nanos,
            teams,
        }
    }

    /// The request for a conversation and a time; `turn` makes its records differ from all others.
    fn request(&self, conversation: &str, team: &str, time: i64, turn: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut put = |at: usize, new: &[u8]| bytes[at..at + new.len()].copy_from_slice(new);
        let stamp = format_rfc3339(EventTime(time));
        self.conversations
            .iter()
            .for_each(|at| put(*at, conversation.as_bytes()));
        self.stamps.iter().for_each(|at| put(*at, stamp.as_bytes()));
        self.teams.iter().for_each(|at| put(*at, team.as_bytes()));
        for (number, at) in (0..).zip(&self.nanos) {
            let nanos = time.unsigned_abs() * 1_000_000 + (turn * 100 + number) % 1_000_000;
            put(*at, &nanos.to_le_bytes());
        }
        bytes
    }
}

fn text(record: &LogRecord, attr: Attr) -> Option<&str> {
    let found = record
        .attributes
        .iter()
        .find(|attribute| attribute.key == attr.key())?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn attribute(key: &str, text: &str) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(text.to_owned())),
    });
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

/// Recorded records of conversations, with placeholders in place of ids and times, and a resource.
fn recorded() -> (Resource, Vec<LogRecord>) {
    let mut records = Vec::new();
    let mut resource = Resource::default();
    let bodies = log_bodies();
    for resource_logs in bodies
        .iter()
        .flat_map(|body| decode(body).expect("recorded requests are valid").resource_logs)
    {
        resource = resource_logs.resource.unwrap_or(resource);
        records.extend(
            resource_logs
                .scope_logs
                .into_iter()
                .flat_map(|scope| scope.log_records),
        );
    }
    records.retain(|record| text(record, Attr::ConversationId).is_some());
    for record in &mut records {
        record.observed_time_unix_nano = NANOS;
        for attribute in &mut record.attributes {
            let stand_in = match attribute.key.as_str() {
                "conversation.id" => CONVERSATION,
                "event.timestamp" => STAMP,
                _ => continue,
            };
            attribute.value = Some(AnyValue {
                value: Some(Value::StringValue(stand_in.to_owned())),
            });
        }
    }
    resource.attributes.push(attribute(Attr::TeamId.key(), TEAM));
    (resource, records)
}

/// A raw record of the log.
pub struct Raw {
    pub key: String,
    pub value: Vec<u8>,
}

/// A source of messages: recorded records in their order, for conversations drawn at random.
pub struct Traffic {
    fill: Template,
    alone: Vec<Template>,
    batched: Vec<Template>,
}

impl Traffic {
    /// A source whose batches have that many log records.
    pub fn recorded(per_message: usize) -> Self {
        let (resource, records) = recorded();
        let first = |wanted: &dyn Fn(&&LogRecord) -> bool| records.iter().find(wanted).cloned();
        let named = |name: &'static str| first(&move |record| text(record, Attr::EventName) == Some(name));
        let completed = first(&|record| {
            record
                .attributes
                .iter()
                .any(|attribute| attribute.key == Attr::InputTokenCount.key())
        });
        let opening = [
            named("codex.conversation_starts"),
            named("codex.user_prompt"),
            completed,
        ];
        let opening: Vec<_> = opening
            .into_iter()
            .map(|record| record.expect("a recorded run has one"))
            .collect();
        let templates = |size: usize| {
            records
                .chunks_exact(size)
                .map(|some| Template::new(&resource, some))
                .collect()
        };
        Self {
            fill: Template::new(&resource, &opening),
            alone: templates(1),
            batched: templates(per_message),
        }
    }

    /// A source of tool results, which have the most text, whose batches have that many log records.
    pub fn tool_results(per_message: usize) -> Self {
        let (resource, mut records) = recorded();
        records.retain(|record| text(record, Attr::EventName) == Some("codex.tool_result"));
        let batch: Vec<Template> = records
            .chunks_exact(per_message)
            .map(|some| Template::new(&resource, some))
            .collect();
        Self {
            batched: batch,
            ..Self::recorded(per_message)
        }
    }

    fn raw(template: &Template, number: u64, open: u64, time: i64, turn: u64) -> Raw {
        let id = conversation(number, open);
        let team = format!("team-{:02}", number % TEAMS);
        Raw {
            value: template.request(&id, &team, time, turn),
            key: format!("default/{id}"),
        }
    }

    /// The message that opens conversation `number` of `open`.
    pub fn opening(&self, number: u64, open: u64, time: i64) -> Raw {
        Self::raw(&self.fill, number, open, time, 0)
    }

    /// The message of turn `turn`, with one log record or a batch, for one of `open` conversations.
    pub fn message(&self, per_message: usize, open: u64, time: i64, turn: u64) -> Raw {
        let templates = if per_message == 1 {
            &self.alone
        } else {
            &self.batched
        };
        let template = &templates[usize::try_from(turn).unwrap_or(0) % templates.len()];
        Self::raw(template, spread(turn) % open, open, time, turn)
    }
}
