//! A data directory whose `tacho` of commit 6f5a53d was killed is opened, restored and continued.

use super::{LARGEST_WINDOW_MS, NEW_CONVERSATIONS, TOKENS};
use crate::support::old::{self, OldLog};
use crate::support::replay::{Results, inputs, settle, worker};
use crate::support::tacho::{Start, Tacho, read};
use crate::support::{eventually, now_ms};
use processor::runner::Options;
use processor::sink::prometheus::{Format, body};
use processor_log::embedded::{self, Embedded, EmbeddedLog, Retention};
use processor_log::{Log, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A window row as topic, key and value.
type WindowRow = (&'static str, String, Vec<u8>);

/// Opens the log without deleting raw records by age, since they are as old as the data file.
fn open(dir: &Path, old: &OldLog) -> Arc<Embedded> {
    let retention = Retention {
        raw_age_ms: now_ms(),
        ..Retention::default()
    };
    let limits = embedded::Limits {
        retention,
        ..embedded::Limits::default()
    };
    Embedded::open_with(dir, &old.seed, "", limits).unwrap()
}

/// The ends of all partitions of the windows topics.
fn window_ends(log: &mut EmbeddedLog) -> BTreeMap<TopicPartition, Position> {
    let mut ends = BTreeMap::new();
    for topic in [Topic::Windows1m, Topic::Windows5m, Topic::Windows1h] {
        for partition in 0..log.partitions(topic).unwrap() {
            let at = TopicPartition { topic, partition };
            ends.insert(at, log.extent(at).unwrap().end);
        }
    }
    ends
}

/// The window rows from the given ends on, sorted.
fn windows_from(log: &mut EmbeddedLog, from: &BTreeMap<TopicPartition, Position>) -> Vec<WindowRow> {
    let mut rows = Vec::new();
    for (&at, &from) in from {
        let batch = log.read(at, from, usize::MAX).unwrap();
        assert_eq!(batch.next, log.extent(at).unwrap().end);
        for record in batch.records {
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            rows.push((at.topic.name(), key, record.value.unwrap().to_vec()));
        }
    }
    rows.sort();
    rows
}

/// Derives what is not committed yet, and gives the results and the samples on `/metrics`.
fn catch_up(log: EmbeddedLog, old: &OldLog) -> (Results, String) {
    let options = Options {
        ticks: false,
        ..Options::default()
    };
    let (mut runner, view) = worker(log, &old.seed, options);
    settle(&mut runner).unwrap();
    let text = String::from_utf8(body(&view, "", Format::Text)).unwrap();
    (Results::of(runner.log(), &view), old::samples(&text))
}

/// How many raw records are not committed.
fn unread(log: &mut EmbeddedLog) -> i64 {
    let partitions = log.partitions(Topic::RawLogs).unwrap();
    let raw = |partition| TopicPartition {
        topic: Topic::RawLogs,
        partition,
    };
    let of = |at| log.extent(at).unwrap().end.0 - log.committed(&[at]).unwrap()[0].unwrap().0;
    (0..partitions).map(raw).map(of).sum()
}

/// Sends requests for all conversations, and one that the old version got already, and waits for totals, rows and windows.
fn go_on(tacho: &Tacho, dir: &Path, old: &OldLog) {
    let metrics = [
        "tacho_turns_total",
        "tacho_tokens_total",
        "tacho_log_records_total",
        "tacho_sessions_started_total",
    ];
    let before = metrics.map(|metric| super::old_count(old, metric));
    for (metric, count) in metrics.iter().zip(before) {
        tacho.wait_for_count(metric, &[], count);
    }
    let duplicates = |tacho: &Tacho| {
        tacho
            .metrics()
            .count("tacho_log_records_total", &[("outcome", "duplicate")])
    };
    let duplicates_before = duplicates(tacho);
    let conversations = super::conversations(old);
    let sent_ms = now_ms();
    for conversation in &conversations {
        tacho.logs(&super::request(conversation));
    }
    let sent = i64::try_from(conversations.len()).unwrap();
    let new = i64::try_from(NEW_CONVERSATIONS).unwrap();
    let added = [sent, TOKENS * sent, 2 * sent, new];
    for ((metric, count), added) in metrics.iter().zip(before).zip(added) {
        tacho.wait_for_count(metric, &[], count + added);
    }
    tacho.logs(&super::repeated(old));
    eventually("duplicates of an old request", || {
        let records = tacho.metrics().count("tacho_log_records_total", &[]) - (before[2] + added[2]);
        let repeated = duplicates(tacho) - duplicates_before;
        (repeated > 0 && repeated == records)
            .then_some(())
            .ok_or_else(|| format!("{repeated} of {records}"))
    });
    let place = ["--data".as_ref(), dir.as_os_str()];
    eventually("the last final window of what was sent", || {
        let rows = read(Topic::Windows1h.name(), &place);
        let last = rows
            .iter()
            .filter_map(|row| row["value"]["start_ms"].as_i64())
            .max();
        let is_final = last.is_some_and(|start| start + LARGEST_WINDOW_MS > sent_ms);
        is_final
            .then_some(())
            .ok_or_else(|| format!("{last:?}, sent at {sent_ms}"))
    });
}

#[test]
fn a_directory_is_gone_on_with() {
    let old = old::log("directory");
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("data");
    old::unpack("directory.files", &dir);

    let embedded = open(&dir, &old);
    let mut log = embedded.handle();
    assert!(
        inputs(&mut log) == old.inputs,
        "the inputs in the directory are not the old ones"
    );
    assert!(
        unread(&mut log) >= 10,
        "the old version had derived everything before it was killed"
    );
    let from = window_ends(&mut log);
    let (results, metrics) = catch_up(embedded.handle(), &old);
    assert!(
        results.totals == old.results.totals,
        "the totals of the old inputs differ"
    );
    assert_eq!(metrics, old.metrics);
    drop((log, embedded));

    let tacho = Start::data(&dir).ready();
    go_on(&tacho, &dir, &old);
    let (status, said) = tacho.end();
    assert!(status.success(), "{said}");

    let embedded = open(&dir, &old);
    let (found, metrics) = catch_up(embedded.handle(), &old);
    let mut log = embedded.handle();
    let everything = super::all_inputs(&old, inputs(&mut log));
    let (mut expected, expected_metrics) = super::one_pass(&old, everything);
    assert_eq!(metrics, expected_metrics);
    super::expect_same_segments(&old, &found);
    // Old window rows may have been deleted by age, depending on the day of the test.
    let new_windows = windows_from(&mut log, &from);
    assert!(
        new_windows.len() > 100,
        "windows that were open in the old version are not final"
    );
    expected
        .windows
        .retain(|row| old.results.windows.binary_search(row).is_err());
    let found = Results {
        windows: new_windows,
        ..found
    };
    super::without_positions(found)
        .assert_same(&super::without_positions(expected), "the directory and one pass");
}
