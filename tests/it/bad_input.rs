//! Faults of a request are reported to its sender, and harm no other request.

use crate::support::tacho::{JSON, PROTOBUF, Start, Tacho, read};
use crate::support::{now_ms, otlp};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use std::path::Path;

/// A running process, and how many good requests it got.
struct Door {
    tacho: Tacho,
    good: i64,
}

impl Door {
    fn open(dir: &Path) -> Self {
        Self {
            tacho: Start::data(dir).ready(),
            good: 0,
        }
    }

    /// Sends a good request, which must be answered and counted whatever came before it.
    fn good(&mut self) {
        self.good += 1;
        let id = format!("good-{}", self.good);
        self.tacho.logs(&otlp::encode(vec![otlp::request(
            &id,
            now_ms(),
            "good",
            200,
            "120",
        )]));
        self.tacho
            .wait_for_count("tacho_api_requests_total", &[("model", "good")], self.good);
    }

    /// Sends a request, which must get that answer, and a good one after it, which must be counted.
    fn expect(
        &mut self,
        what: &str,
        status: u16,
        path: &str,
        content_type: &str,
        encoding: Option<&str>,
        body: &[u8],
    ) {
        assert_eq!(
            self.tacho.post_encoded(path, content_type, encoding, body),
            Ok(status),
            "{what}; {}",
            self.tacho.said()
        );
        self.good();
    }

    fn outcome(&self, event: &str, outcome: &str, count: i64) {
        self.tacho.wait_for_count(
            "tacho_log_records_total",
            &[("event", event), ("outcome", outcome)],
            count,
        );
    }
}

fn prompt() -> LogRecord {
    otlp::prompt("c", now_ms())
}

#[expect(clippy::too_many_lines, reason = "a table: one entry an input")]
#[test]
fn refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut door = Door::open(dir.path());
    let body = otlp::encode(vec![prompt()]);
    let gzipped = otlp::gzip(&body);
    door.expect(
        "truncated protobuf",
        400,
        "/v1/logs",
        PROTOBUF,
        None,
        &body[..body.len() - 7],
    );
    let random: Vec<u8> = (0..999_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    door.expect("random bytes", 400, "/v1/logs", PROTOBUF, None, &random);
    door.expect(
        "random bytes for traces",
        400,
        "/v1/traces",
        PROTOBUF,
        None,
        &random,
    );
    door.expect(
        "random bytes for metrics",
        400,
        "/v1/metrics",
        PROTOBUF,
        None,
        &random,
    );
    door.expect(
        "broken JSON",
        400,
        "/v1/logs",
        JSON,
        None,
        b"{\"resourceLogs\": [",
    );
    door.expect(
        "JSON of another kind",
        400,
        "/v1/logs",
        JSON,
        None,
        b"{\"resourceLogs\": 7}",
    );
    door.expect("unknown content type", 415, "/v1/logs", "text/plain", None, &body);
    door.expect(
        "bad gzip",
        400,
        "/v1/logs",
        PROTOBUF,
        Some("gzip"),
        b"no gzip at all",
    );
    door.expect(
        "truncated gzip",
        400,
        "/v1/logs",
        PROTOBUF,
        Some("gzip"),
        &gzipped[..gzipped.len() - 9],
    );
    door.expect("unknown encoding", 415, "/v1/logs", PROTOBUF, Some("br"), &body);
    door.expect("unknown path", 404, "/v1/profiles", PROTOBUF, None, &body);
    door.expect(
        "body over the limit",
        413,
        "/v1/logs",
        PROTOBUF,
        None,
        &vec![0; 17 << 20],
    );
    door.expect(
        "bomb",
        413,
        "/v1/logs",
        PROTOBUF,
        Some("gzip"),
        &otlp::gzip(&vec![0; 80 << 20]),
    );
    // No bad request was counted, and well-formed gzip is counted.
    door.outcome("codex.user_prompt", "applied", 0);
    door.expect("gzip", 200, "/v1/logs", PROTOBUF, Some("gzip"), &gzipped);
    door.outcome("codex.user_prompt", "applied", 1);
}

#[test]
fn odd_but_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut door = Door::open(dir.path());
    let send = |door: &mut Door, what: &str, records: Vec<LogRecord>| {
        door.expect(what, 200, "/v1/logs", PROTOBUF, None, &otlp::encode(records));
    };

    // The privacy policy removes this text, which is far larger than other logs take.
    let mut big = prompt();
    big.attributes
        .push(otlp::attribute("arguments", otlp::text("x".repeat(2 << 20))));
    send(&mut door, "a record of 2 MB of arguments", vec![big]);
    // No privacy policy changes this text: it is kept, or cut with a mark.
    let mut big = prompt();
    big.attributes
        .push(otlp::attribute("of.tomorrow", otlp::text("y".repeat(2 << 20))));
    send(&mut door, "a record of 2 MB", vec![big]);
    door.outcome("codex.user_prompt", "applied", 2);

    let mut timeless = prompt();
    timeless.observed_time_unix_nano = 0;
    timeless
        .attributes
        .retain(|attribute| attribute.key != "event.timestamp");
    send(&mut door, "zero timestamps", vec![timeless]);
    door.outcome("codex.user_prompt", "unmarked", 1);
    door.tacho
        .wait_for_count("tacho_event_time_source_total", &[("source", "received")], 1);

    let mut nameless = prompt();
    nameless
        .attributes
        .retain(|attribute| attribute.key != "event.name");
    send(&mut door, "no event.name", vec![nameless]);
    send(
        &mut door,
        "an event of tomorrow",
        vec![otlp::record("codex.of_tomorrow", "c", now_ms(), vec![])],
    );
    door.tacho
        .wait_for_count("tacho_log_records_total", &[("outcome", "unknown")], 2);

    let mut homeless = prompt();
    homeless
        .attributes
        .retain(|attribute| attribute.key != "conversation.id");
    send(&mut door, "no conversation id", vec![homeless]);
    door.outcome("codex.user_prompt", "applied", 3);
    send(&mut door, "no records", vec![]);
    door.expect("nothing at all", 200, "/v1/logs", PROTOBUF, None, b"");

    // A record that is sent twice counts once.
    let twice = otlp::encode(vec![otlp::prompt("twice", now_ms())]);
    door.expect("sent once", 200, "/v1/logs", PROTOBUF, None, &twice);
    door.expect("sent again", 200, "/v1/logs", PROTOBUF, None, &twice);
    door.outcome("codex.user_prompt", "duplicate", 1);

    // An event time of a client whose clock is wrong by a year is clamped, and no window of others waits for it.
    send(
        &mut door,
        "a clock far ahead",
        vec![otlp::prompt("ahead", now_ms() + 31_536_000_000)],
    );
    door.tacho
        .wait_for_count("tacho_event_time_clamped_total", &[], 1);

    let mut args = vec!["--data".as_ref(), dir.path().as_os_str()];
    assert_eq!(read("codex.quarantine.v1", &args).len(), 0);
    args.push("--from-start".as_ref());
    let raw = read("codex.raw.logs.v1", &args)
        .iter()
        .map(|record| record.to_string().len())
        .max()
        .unwrap();
    assert!(
        raw > 1 << 20,
        "the big record that no policy touches is not in the raw log: the largest has {raw} bytes"
    );
}
