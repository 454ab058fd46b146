//! Random telemetry that follows from a seed: everything that clients may send.

use super::otlp;
use bytes::Bytes;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use schemas::id::{TopicPartition, raw_key};
use schemas::price::{PriceRow, PriceSource, PriceTable};
use schemas::privacy::PrivacyPolicy;
use schemas::record::{HEADER_WALL, NewRecord};
use schemas::settings::{Seed, Settings, TimeRules};
use schemas::topic::Topic;
use std::collections::BTreeMap;

/// How many conversations are used at a time; old ones are left and used again later.
const CONVERSATIONS: u64 = 12;

/// The random number generator `splitmix64`.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// `true` in `per_cent` of 100 cases.
    pub fn chance(&mut self, per_cent: u64) -> bool {
        self.below(100) < per_cent
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// A seed under which windows and sessions end within seconds, and labels exceed their caps.
pub fn quick_seed() -> Seed {
    Seed {
        id: String::new(),
        privacy: PrivacyPolicy::default(),
        raw_partitions: 3,
        delta_partitions: 2,
        time: TimeRules {
            slot_ms: 1_000,
            window_sizes_ms: vec![1_000, 2_000, 4_000],
            grace_ms: 500,
            mark_ms: 1_000,
            max_skew_ms: 300,
            max_age_ms: 60_000,
            max_step_ms: 600_000,
            mark_age_ms: 3_600_000,
            marks_max: 16_384,
        },
        dimensions: vec!["team.id".to_owned()],
        caps: BTreeMap::from([("team".to_owned(), 2), ("model".to_owned(), 2)]),
        settings: Settings {
            semantics: 1,
            session_gap_ms: 3_000,
            reopen_horizon_ms: 8_000,
            row_interval_ms: 500,
        },
        prices: prices(1_250_000),
    }
}

/// Prices of the model that [`Traffic`] uses. A million input tokens cost `input` millionths of a dollar, or a tenth as many
/// millionths of a credit. Output tokens cost six times as much, tier priority twice as much, and tier flex has no price.
pub fn prices(input: i64) -> PriceTable {
    let row = |book: &str, tier: &str, input: i64| PriceRow {
        book: book.to_owned(),
        model: "gpt-5.5".to_owned(),
        tier: tier.to_owned(),
        input,
        output: 6 * input,
        source: "made up".to_owned(),
        ..PriceRow::default()
    };
    let source = PriceSource {
        what: "a test".to_owned(),
        read: "2026-11-23".to_owned(),
    };
    PriceTable {
        version: format!("test {input}"),
        sources: BTreeMap::from([("made up".to_owned(), source)]),
        rows: vec![
            row("api_usd", "default", input),
            row("api_usd", "priority", 2 * input),
            row("chatgpt_credits", "default", input / 10),
        ],
    }
}

/// A generator of raw records.
pub struct Traffic {
    random: Random,
    partitions: i32,
    /// The last values that were sent, some of which are sent again.
    sent: Vec<NewRecord>,
}

impl Traffic {
    /// The generator with that seed, for `partitions` raw partitions.
    pub fn new(seed: u64, partitions: i32) -> Self {
        Self {
            random: Random(seed ^ 0x7ac0),
            partitions,
            sent: Vec::new(),
        }
    }

    /// The next raw record, as ingest would write it at `now_ms`.
    pub fn record(&mut self, now_ms: i64) -> NewRecord {
        if !self.sent.is_empty() && self.random.chance(10) {
            return self.random.one(&self.sent).clone();
        }
        let number = self.random.below(CONVERSATIONS);
        let conversation = format!("c{number}");
        let value = if self.random.chance(2) {
            b"\xff\xff no request".to_vec()
        } else {
            self.request(&conversation, now_ms)
        };
        let partition = i32::try_from(number).unwrap() % self.partitions;
        let record = NewRecord {
            to: TopicPartition {
                topic: Topic::RawLogs,
                partition,
            },
            key: Some(raw_key("default", &conversation).into()),
            value: Some(value.into()),
            headers: vec![(HEADER_WALL.to_owned(), Bytes::from(now_ms.to_string()))],
        };
        self.sent.push(record.clone());
        if self.sent.len() > 8 {
            self.sent.remove(0);
        }
        record
    }

    fn request(&mut self, conversation: &str, now_ms: i64) -> Vec<u8> {
        let records = (0..=self.random.below(4))
            .map(|_| self.event(conversation, now_ms))
            .collect();
        let mut request = otlp::logs(records);
        let team = *self.random.one(&["red", "green", "blue", "grey"]);
        let attributes = vec![otlp::attribute("team.id", otlp::text(team))];
        request.resource_logs[0].resource = Some(Resource {
            attributes,
            ..Resource::default()
        });
        request.encode_to_vec()
    }

    fn event(&mut self, conversation: &str, now_ms: i64) -> LogRecord {
        let random = &mut self.random;
        let age = match random.below(20) {
            0 => 30_000,
            1 | 2 => 6_000,
            3 => -2_000,
            _ => i64::try_from(random.below(900)).unwrap(),
        };
        let time = now_ms - age;
        let model = *random.one(&["gpt-a", "gpt-b", "gpt-c"]);
        let tool = *random.one(&["exec_command", "apply_patch", "made_up"]);
        let call = ("call_id", otlp::text(format!("call{}", random.below(50))));
        let mut record = match random.below(9) {
            0 | 1 => otlp::prompt(conversation, time),
            2 | 3 => {
                let status = *random.one(&[200, 200, 429, 500]);
                otlp::request(
                    conversation,
                    time,
                    model,
                    status,
                    &(1 + random.below(90_000)).to_string(),
                )
            }
            4 | 5 => response(random, conversation, time),
            6 => {
                let decision = ("decision", otlp::text(*random.one(&["approved", "denied"])));
                let source = ("source", otlp::text(*random.one(&["User", "Config"])));
                otlp::record(
                    "codex.tool_decision",
                    conversation,
                    time,
                    vec![("tool_name", otlp::text(tool)), call, decision, source],
                )
            }
            7 => {
                let success = ("success", otlp::text(*random.one(&["true", "false"])));
                let duration = ("duration_ms", otlp::text(random.below(5_000).to_string()));
                let exit = (
                    "tacho.exit_code",
                    otlp::int(i64::try_from(random.below(3)).unwrap()),
                );
                let attributes = vec![("tool_name", otlp::text(tool)), call, success, duration, exit];
                otlp::record("codex.tool_result", conversation, time, attributes)
            }
            _ => otlp::record("codex.of_tomorrow", conversation, time, vec![]),
        };
        if random.chance(5) {
            // The record has no time of its own.
            record.observed_time_unix_nano = 0;
            record
                .attributes
                .retain(|attribute| attribute.key != "event.timestamp");
        }
        record
    }
}

/// A completed response, some with a tier and some on a ChatGPT plan.
fn response(random: &mut Random, conversation: &str, time: i64) -> LogRecord {
    let (input, output) = (
        i64::try_from(random.below(9_000)).unwrap(),
        i64::try_from(random.below(500)).unwrap(),
    );
    let mut response = otlp::tokens(conversation, time, input, output);
    if random.chance(30) {
        let tier = *random.one(&["priority", "flex"]);
        response
            .attributes
            .push(otlp::attribute("service_tier", otlp::text(tier)));
    }
    if random.chance(30) {
        response
            .attributes
            .push(otlp::attribute("auth_mode", otlp::text("Chatgpt")));
    }
    response
}
