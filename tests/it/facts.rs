//! Recorded runs of Codex change the derived results by exactly the facts of their manifests.

use crate::support::broker::Broker;
use crate::support::facts::{differ_in_metrics, differ_in_rows, entry};
use crate::support::fixtures::{self, Recording};
use crate::support::samples::Samples;
use crate::support::tacho::{Start, Tacho, read};
use crate::support::{eventually, now_ms};
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
    assert!(missing.is_empty(), "facts without an entry in tests/support/facts.rs: {missing:?}");
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
    replay_and_compare(&tacho, &["--kafka", &bootstrap, "--prefix", "facts."].map(OsStr::new));
}

fn replay_and_compare(tacho: &Tacho, place: &[&OsStr]) {
    let mut wrong = Vec::new();
    let mut conversations = BTreeMap::new();
    let recordings: Vec<Recording> = fixtures::all().into_iter().filter(|recording| !recording.lossy).collect();
    let mut before = tacho.metrics();
    for recording in &recordings {
        let (records, of) = send(tacho, recording);
        let expected = before.count("tacho_log_records_total", &[]) + records;
        let after: Samples = tacho.metrics_when("all records counted", |samples| match samples.count("tacho_log_records_total", &[]) {
            count if count == expected => Ok(samples.clone()),
            count => Err(format!("{}: {count} of {expected} records", recording.name)),
        });
        wrong.extend(
            differ_in_metrics(&recording.expected, &after.since(&before)).into_iter().map(|text| format!("{}: {text}", recording.name)),
        );
        // Codex says that the tool worked; the command's exit code is taken out of its output.
        if recording.expected["scenario"] == "tool_fails" {
            assert_eq!(after.since(&before).count("tacho_tool_nonzero_exit_total", &[]), 1, "{}", recording.name);
        }
        assert!(conversations.insert(recording.name.clone(), of).is_none());
        before = after;
    }
    assert!(wrong.is_empty(), "on /metrics:\n{}", wrong.join("\n"));
    assert_eq!(before.count("tacho_log_records_total", &[("outcome", "duplicate")]), 0);
    assert_eq!(before.count("tacho_log_records_total", &[("outcome", "quarantined")]), 0);
    assert_eq!(before.count("tacho_event_time_clamped_total", &[]), 0);

    // An open session's row follows its last record by some seconds.
    eventually("session rows", || {
        let records = read("codex.sessions.v1", place);
        let mut wrong = Vec::new();
        for recording in &recordings {
            let of = &conversations[&recording.name];
            let rows: Vec<Value> = records.iter().map(|record| record["value"].clone()).filter(|row| is_of(row, of)).collect();
            wrong.extend(differ_in_rows(&recording.expected, &rows).into_iter().map(|text| format!("{}: {text}", recording.name)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    });
}

fn is_of(row: &Value, conversations: &BTreeSet<String>) -> bool {
    row["conversation_id"].as_str().is_some_and(|id| conversations.contains(id))
}

/// Sends a recording as if it had just ended: how many log records, and their conversations.
fn send(tacho: &Tacho, recording: &Recording) -> (i64, BTreeSet<String>) {
    let shift = recording.shift_to(now_ms());
    let (mut records, mut conversations) = (0, BTreeSet::new());
    for body in &recording.bodies {
        let sent = body.shifted(shift);
        assert_eq!(tacho.post(&body.path(), body.content_type(), &sent.bytes), Ok(200), "{}", recording.name);
        records += sent.records;
        conversations.extend(sent.conversations);
    }
    (records, conversations)
}
