//! Recorded runs of Codex change the derived results by exactly the facts of their manifests.

use crate::support::broker::Broker;
use crate::support::facts::{differ_in_metrics, differ_in_rows, entry};
use crate::support::fixtures::{self, Recording, raw_records};
use crate::support::replay::{Results, replay};
use crate::support::samples::Samples;
use crate::support::tacho::{Start, Tacho, read};
use crate::support::{eventually, now_ms};
use bytes::Bytes;
use ingest::prepare::hash::HashKey;
use processor_log::simulated::SimCluster;
use schemas::derived::{Prewarm, SessionRow};
use schemas::id::TopicPartition;
use schemas::privacy::{Action, Actions};
use schemas::record::{HEADER_TICK, HEADER_WALL, Record};
use schemas::settings::Seed;
use schemas::time::AppendTime;
use schemas::topic::Topic;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

#[test]
fn every_fact_of_every_manifest_has_its_place_or_a_reason() {
    let mut missing = BTreeSet::new();
    for recording in fixtures::all() {
        for fact in recording.expected.as_object().unwrap().keys() {
            if entry(fact).is_none() {
                missing.insert(format!("{fact} ({})", recording.name));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "facts without an entry in tests/support/facts.rs: {missing:?}"
    );
}

#[test]
fn recorded_runs_on_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    let tacho = Start::data(dir.path()).ready();
    replay_and_compare(&tacho, &["--data".as_ref(), dir.path().as_os_str()]);
}

#[test]
fn recorded_runs_on_kafka() {
    let bootstrap = Broker::shared().bootstrap();
    let tacho = Start::kafka(&bootstrap, "facts.").ready();
    replay_and_compare(
        &tacho,
        &["--kafka", &bootstrap, "--prefix", "facts."].map(OsStr::new),
    );
}

/// A tick that moves the clock of a raw partition.
fn tick(partition: i32, appended_ms: i64) -> Record {
    let wall = (HEADER_WALL.to_owned(), Bytes::from(appended_ms.to_string()));
    Record {
        from: TopicPartition {
            topic: Topic::RawLogs,
            partition,
        },
        offset: 1_000_000,
        appended: AppendTime(appended_ms),
        key: None,
        value: Some(Bytes::new()),
        headers: vec![(HEADER_TICK.to_owned(), Bytes::new()), wall],
    }
}

/// The results of recordings, all at once, and what they cost, nano-dollars.
fn results_of(recordings: &[Recording]) -> (Results, i64) {
    let seed = Seed {
        raw_partitions: 2,
        ..Seed::shipped()
    };
    let (began_ms, key) = (now_ms(), HashKey::new(b"a key of some length").unwrap());
    let keep = Actions::all(Action::Keep);
    let mut records = raw_records(recordings, keep, &key, seed.raw_partitions, began_ms);
    // Two hours later all sessions have ended.
    let later_ms = began_ms + 2 * 3_600_000;
    records.extend((0..seed.raw_partitions).map(|partition| tick(partition, later_ms)));
    let cluster = SimCluster::new(0, &seed);
    cluster.import(records).unwrap();
    let results = replay(cluster.log("worker"), &seed, 1_000).unwrap();
    let rows = results.sessions.values();
    let cost = rows
        .map(|row| SessionRow::decode(row).unwrap().cost_nano_usd)
        .sum();
    (results, cost)
}

#[test]
fn recordings_over_websocket_together() {
    let all = fixtures::all();
    let named = |wanted: &dyn Fn(&str) -> bool| -> Vec<Recording> {
        let found = all.iter().filter(|recording| wanted(&recording.name));
        found.cloned().collect()
    };
    let websocket = named(&|name| name.starts_with("0.171.0-ws-"));
    assert_eq!(websocket.len(), 7);
    let (results, _) = results_of(&websocket);
    let rows: Vec<SessionRow> = results
        .sessions
        .values()
        .map(|row| SessionRow::decode(row).unwrap())
        .collect();
    let sum = |of: &dyn Fn(&SessionRow) -> i64| -> i64 { rows.iter().map(of).sum() };
    assert_eq!(sum(&|row| row.api_requests), 18);
    assert_eq!(sum(&|row| row.api_retries), 4);
    assert_eq!(sum(&|row| row.responses_completed), 15);
    let input =
        |row: &SessionRow| row.tokens.input_uncached + row.tokens.input_cached + row.tokens.input_cache_write;
    assert_eq!(sum(&input), 15_250);
    assert_eq!(sum(&|row| row.tokens.total - input(row)), 510);
    assert_eq!(
        sum(&|row| row.websocket.as_ref().map_or(0, |part| part.refused)),
        3
    );
    let prewarm = |of: fn(&Prewarm) -> i64| sum(&|row| row.prewarm.as_ref().map_or(0, of));
    assert_eq!(prewarm(|prewarm| prewarm.completed), 6);
    assert_eq!(prewarm(|prewarm| prewarm.input_uncached), 54_000);
    for (metric, total) in [
        ("tacho_api_requests_total", 18),
        ("tacho_api_retries_total", 4),
        ("tacho_tokens_total", 15_250 + 510),
        ("tacho_prewarm_tokens_total", 54_000),
        ("tacho_websocket_connects_total", 13),
    ] {
        assert_eq!(results.total(metric), total, "{metric}");
    }
    // The same session over either transport costs the same: 0.0075 dollars.
    for basic in ["0.171.0-ws-basic", "0.169.0-http-binary-basic"] {
        let (results, cost) = results_of(&named(&|name| name == basic));
        assert_eq!((results.sessions.len(), cost), (1, 7_500_000), "{basic}");
    }
}

fn replay_and_compare(tacho: &Tacho, place: &[&OsStr]) {
    let mut conversations = BTreeMap::new();
    let recordings: Vec<Recording> = fixtures::all()
        .into_iter()
        .filter(|recording| !recording.lossy)
        .collect();
    let mut before = tacho.metrics();
    for recording in &recordings {
        let (records, of) = send(tacho, recording);
        // Series are in several deltas partitions, which on Kafka become visible one after another, so the
        // test waits for all facts. A count that exceeds its fact fails the test, and one that exceeds it
        // later is found in the increase of the next recording.
        let after: Samples = tacho.metrics_when("the recording's facts", |samples| {
            let wrong = differ(recording, records, &samples.since(&before));
            if wrong.is_empty() {
                Ok(samples.clone())
            } else {
                Err(format!("{}: {}", recording.name, wrong.join("; ")))
            }
        });
        assert!(conversations.insert(recording.name.clone(), of).is_none());
        before = after;
    }
    assert_eq!(
        before.count("tacho_log_records_total", &[("outcome", "duplicate")]),
        0
    );
    assert_eq!(
        before.count("tacho_log_records_total", &[("outcome", "quarantined")]),
        0
    );
    assert_eq!(before.count("tacho_event_time_clamped_total", &[]), 0);

    // The row of an open session follows its last record by some seconds.
    eventually("session rows", || {
        let records = read("codex.sessions.v1", place);
        let mut wrong = Vec::new();
        for recording in &recordings {
            let of = &conversations[&recording.name];
            let rows: Vec<Value> = records
                .iter()
                .map(|record| record["value"].clone())
                .filter(|row| is_of(row, of))
                .collect();
            wrong.extend(
                differ_in_rows(&recording.expected, &rows)
                    .into_iter()
                    .map(|text| format!("{}: {text}", recording.name)),
            );
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    });
    let later = tacho.metrics().since(&before);
    assert_eq!(
        later.count("tacho_log_records_total", &[]),
        0,
        "something was counted a second time"
    );
    assert_eq!(
        later.count("tacho_tokens_total", &[]),
        0,
        "something was counted a second time"
    );
}

/// Compares the increase of `/metrics` with the facts of a recording; the error holds the differences.
fn differ(recording: &Recording, records: i64, growth: &Samples) -> Vec<String> {
    let mut wrong = differ_in_metrics(&recording.expected, growth);
    let counted = growth.count("tacho_log_records_total", &[]);
    if counted != records {
        wrong.push(format!("{counted} of {records} records"));
    }
    // Codex reports a success of the tool, and ingest takes the exit code of the command from its output.
    if recording.expected["scenario"] == "tool_fails"
        && growth.count("tacho_tool_nonzero_exit_total", &[]) != 1
    {
        wrong.push("the exit code of the command is not counted".to_owned());
    }
    wrong
}

fn is_of(row: &Value, conversations: &BTreeSet<String>) -> bool {
    row["conversation_id"]
        .as_str()
        .is_some_and(|id| conversations.contains(id))
}

/// Sends a recording as if it had just ended, and gives the number and the conversations of its log records.
fn send(tacho: &Tacho, recording: &Recording) -> (i64, BTreeSet<String>) {
    let shift = recording.shift_to(now_ms());
    let (mut records, mut conversations) = (0, BTreeSet::new());
    for body in &recording.bodies {
        let sent = body.shifted(shift);
        assert_eq!(
            tacho.post(&body.path(), body.content_type(), &sent.bytes),
            Ok(200),
            "{}",
            recording.name
        );
        records += sent.records;
        conversations.extend(sent.conversations);
    }
    (records, conversations)
}
