//! Upgrades from commit 6f5a53d, whose semantics were 1: this version derives the same results from its logs, but for those
//! that it changes by intent, in its directories and topics, beside what is there.

mod directory;
mod page;
mod prefix;
mod results;

use crate::support::old::{self, OldLog};
use crate::support::replay::{Results, replay_into_view};
use crate::support::samples::Samples;
use crate::support::{now_ms, otlp};
use processor::sink::prometheus::{Format, body};
use processor_log::simulated::SimCluster;
use schemas::derived::{SegmentState, SessionRow};
use schemas::record::{HEADER_TICK, Record};
use schemas::topic::Topic;
use std::collections::BTreeSet;

/// The largest window size of the old logs that are continued, ms.
const LARGEST_WINDOW_MS: i64 = 4_000;
/// How many conversations begin after the old version has ended.
const NEW_CONVERSATIONS: usize = 3;
/// The tokens of the response in each request that is sent.
const TOKENS: i64 = 110;

/// The conversations that requests are sent for: all of the old log, open and ended ones, and new ones.
fn conversations(old: &OldLog) -> Vec<String> {
    let rows = old
        .results
        .sessions
        .values()
        .map(|row| SessionRow::decode(row).unwrap());
    let rows: Vec<SessionRow> = rows.collect();
    for state in [SegmentState::Open, SegmentState::Ended, SegmentState::Reopened] {
        assert!(
            rows.iter().any(|row| row.state == state),
            "the old log has no session that is {state:?}"
        );
    }
    let known: BTreeSet<String> = rows.into_iter().map(|row| row.conversation_id).collect();
    known
        .into_iter()
        .chain((0..NEW_CONVERSATIONS).map(|number| format!("new-{number}")))
        .collect()
}

/// A request with a prompt and a response of [`TOKENS`].
fn request(conversation: &str) -> Vec<u8> {
    let now = now_ms();
    otlp::encode(vec![
        otlp::prompt(conversation, now),
        otlp::tokens(conversation, now, TOKENS - 10, 10),
    ])
}

/// The value of an old raw record. If it is sent again, all of its log records are duplicates.
fn repeated(old: &OldLog) -> Vec<u8> {
    let is_request =
        |record: &&Record| record.from.topic == Topic::RawLogs && record.header(HEADER_TICK).is_none();
    let last = old.inputs.iter().rev().find(is_request).unwrap();
    last.value.clone().unwrap().to_vec()
}

/// The counters by which a test sees how far a process has come.
const COUNTED: [&str; 4] = [
    "tacho_turns_total",
    "tacho_tokens_total",
    "tacho_log_records_total",
    "tacho_sessions_started_total",
];

/// The counts of [`COUNTED`] that this version derives from the old inputs.
fn counts_of_one_pass(old: &OldLog) -> [i64; 4] {
    let samples = Samples::parse(&one_pass(old, old.inputs.clone()).1);
    COUNTED.map(|metric| samples.count(metric, &[]))
}

/// How many sessions have rows in the log of the old version, which was killed before it had derived everything.
fn rows_committed(old: &OldLog) -> usize {
    old.results.sessions.len()
}

/// All records that the inputs of the log ever held: those of the old version, and later ones.
///
/// Raw records that are older than their retention may have been deleted from the log itself.
fn all_inputs(old: &OldLog, now: Vec<Record>) -> Vec<Record> {
    let place = |record: &Record| (record.from, record.offset);
    let known: BTreeSet<_> = old.inputs.iter().map(place).collect();
    let (still, new): (Vec<Record>, Vec<Record>) =
        now.into_iter().partition(|record| known.contains(&place(record)));
    for record in still {
        let at = old.inputs.binary_search_by_key(&place(&record), place).unwrap();
        assert!(
            old.inputs[at] == record,
            "{}@{} has changed",
            record.from,
            record.offset
        );
    }
    let mut all: Vec<Record> = old.inputs.iter().cloned().chain(new).collect();
    all.sort_by_key(place);
    all
}

/// The results of one pass over a whole log, and its samples on `/metrics`.
fn one_pass(old: &OldLog, inputs: Vec<Record>) -> (Results, String) {
    let cluster = SimCluster::new(0, &old.seed);
    cluster.import(inputs).unwrap();
    let (results, view) = replay_into_view(cluster.log("worker"), &old.seed, 1_000).unwrap();
    let text = String::from_utf8(body(&view, "", Format::Text)).unwrap();
    (results, old::samples(&text))
}

/// The results without the positions in rows of open sessions, which depend on commits; all else in the rows
/// does not.
fn without_positions(mut results: Results) -> Results {
    for row in results.sessions.values_mut() {
        let decoded = SessionRow::decode(row).unwrap();
        if decoded.state != SegmentState::Ended {
            *row = SessionRow {
                position: 0,
                revision: 0,
                ..decoded
            }
            .encode();
        }
    }
    results
}
