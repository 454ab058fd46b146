//! The contract of [`Log`]: the same checks over the three logs.
#![allow(clippy::unwrap_used, reason = "test code")]

mod common;

use bytes::Bytes;
use common::commit;
use processor_log::cluster::Cluster;
use processor_log::control::{self, CONTROL};
use processor_log::follow::Follower;
use processor_log::{Commit, Log, LogError};
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a check waits for records that must come.
const PATIENCE: Duration = Duration::from_secs(60);

const RAW: TopicPartition = TopicPartition {
    topic: Topic::RawLogs,
    partition: 1,
};
const RAW_0: TopicPartition = TopicPartition {
    topic: Topic::RawLogs,
    partition: 0,
};
const DELTAS: TopicPartition = TopicPartition {
    topic: Topic::Deltas,
    partition: 0,
};
const STATE: TopicPartition = TopicPartition {
    topic: Topic::SessionsChangelog,
    partition: 1,
};

/// A log with empty topics, and as many users of it as a check wants.
trait World {
    /// One more user of the log, with the same identity.
    fn user(&mut self) -> Box<dyn Log>;
}

fn seed() -> Seed {
    Seed {
        raw_partitions: 2,
        delta_partitions: 3,
        ..Seed::shipped()
    }
}

fn record(to: TopicPartition, key: &str, value: Option<&str>) -> NewRecord {
    NewRecord {
        to,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![
            ("tacho-wall".to_owned(), Bytes::from_static(b"7")),
            ("empty".to_owned(), Bytes::new()),
        ],
    }
}

fn values(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap())
        .collect()
}

/// Reads a partition until `until` is reached.
fn read_until(log: &mut dyn Log, at: TopicPartition, mut from: Position, until: Position) -> Vec<Record> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while from < until {
        let batch = log.read(at, from, 2).unwrap();
        assert!(
            batch.next >= from,
            "a read went back from {from:?} to {:?}",
            batch.next
        );
        assert!(batch.records.len() <= 2);
        assert!(
            batch
                .records
                .iter()
                .all(|record| record.offset >= from.0 && record.offset < batch.next.0)
        );
        records.extend(batch.records);
        from = batch.next;
        assert!(
            Instant::now() < deadline,
            "{at} is not readable up to {until:?}: {from:?}"
        );
    }
    assert!(records.is_sorted_by_key(|record| record.offset));
    records
}

fn read_all(log: &mut dyn Log, at: TopicPartition) -> Vec<Record> {
    let extent = log.extent(at).unwrap();
    read_until(log, at, extent.start, extent.end)
}

/// Polls until there were `count` records.
fn poll_until(log: &mut dyn Log, count: usize) -> Vec<Record> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(log.poll(3, Duration::from_millis(200)).unwrap());
        assert!(Instant::now() < deadline, "polled {} of {count}", records.len());
    }
    records
}

fn partition_counts(world: &mut dyn World) {
    let mut log = world.user();
    assert_eq!(log.partitions(Topic::RawLogs).unwrap(), 2);
    assert_eq!(log.partitions(Topic::SessionsChangelog).unwrap(), 2);
    assert_eq!(log.partitions(Topic::Deltas).unwrap(), 3);
    assert_eq!(log.partitions(Topic::Control).unwrap(), 1);
    assert!(!log.writer().is_empty());
    assert!(log.wall_ms() > 0);
}

fn appended_records_come_back_as_they_were(world: &mut dyn World) {
    let (mut log, mut other) = (world.user(), world.user());
    let sent = vec![
        record(RAW, "a", Some("one")),
        record(RAW_0, "b", Some("two")),
        record(RAW, "a", Some("")),
        record(RAW, "c", Some("four")),
    ];
    let appended = log.append(sent.clone()).unwrap();
    assert_eq!(
        appended.iter().map(|done| done.offset).collect::<Vec<_>>(),
        [0, 0, 1, 2]
    );
    assert_eq!(
        log.append(vec![record(RAW, "d", Some("five"))]).unwrap()[0].offset,
        3
    );

    let read = read_all(&mut *other, RAW);
    assert_eq!(values(&read), ["one", "", "four", "five"]);
    for (record, (sent, done)) in read.iter().zip([
        (&sent[0], &appended[0]),
        (&sent[2], &appended[2]),
        (&sent[3], &appended[3]),
    ]) {
        assert_eq!(
            (record.from, record.offset, record.appended),
            (RAW, done.offset, done.appended)
        );
        assert_eq!(
            (&record.key, &record.value, &record.headers),
            (&sent.key, &sent.value, &sent.headers)
        );
    }
    assert!(read.is_sorted_by_key(|record| record.appended));
    assert!(read[0].appended.0 > 0);
}

fn a_read_at_the_end_is_empty(world: &mut dyn World) {
    let mut log = world.user();
    let extent = log.extent(RAW).unwrap();
    assert_eq!((extent.start, extent.end), (Position(0), Position(0)));
    let batch = log.read(RAW, Position(0), 10).unwrap();
    assert_eq!((batch.records.len(), batch.next), (0, Position(0)));
    log.append(vec![record(RAW, "a", Some("one"))]).unwrap();
    assert_eq!(log.extent(RAW).unwrap().end, Position(1));
    assert_eq!(
        values(&read_until(&mut *log, RAW, Position(0), Position(1))),
        ["one"]
    );
    // Reads from the same position again, and from another one, don't depend on the reads before.
    assert_eq!(
        values(&read_until(&mut *log, RAW, Position(0), Position(1))),
        ["one"]
    );
    assert_eq!(log.read(RAW, Position(1), 10).unwrap().next, Position(1));
}

fn poll_gives_what_is_assigned(world: &mut dyn World) {
    let (mut log, mut other) = (world.user(), world.user());
    let all: Vec<NewRecord> = (0..10)
        .map(|n| record(if n % 2 == 0 { RAW } else { RAW_0 }, "k", Some(&n.to_string())))
        .collect();
    other.append(all).unwrap();
    log.take_over(&[(RAW, Position(1)), (RAW_0, Position(3))])
        .unwrap();
    let records = poll_until(&mut *log, 6);
    let of = |at| {
        values(
            &records
                .iter()
                .filter(|record| record.from == at)
                .cloned()
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(of(RAW), ["2", "4", "6", "8"]);
    assert_eq!(of(RAW_0), ["7", "9"]);
    // The poll goes on where it was, and a read between does not disturb it.
    assert_eq!(read_all(&mut *log, RAW).len(), 5);
    other.append(vec![record(RAW, "k", Some("10"))]).unwrap();
    assert_eq!(values(&poll_until(&mut *log, 1)), ["10"]);
    // One partition is assigned anew, further back in the log; the other one is no longer polled.
    other.append(vec![record(RAW_0, "k", Some("11"))]).unwrap();
    log.release(&[RAW_0]).unwrap();
    log.take_over(&[(RAW, Position(4))]).unwrap();
    assert_eq!(values(&poll_until(&mut *log, 2)), ["8", "10"]);
}

fn a_commit_shows_records_and_positions_together(world: &mut dyn World) {
    let (mut log, mut other) = (world.user(), world.user());
    log.append((0..5).map(|n| record(RAW, "k", Some(&n.to_string()))).collect())
        .unwrap();
    assert_eq!(log.committed(&[RAW, RAW_0]).unwrap(), [None, None]);
    let records = vec![
        record(DELTAS, "d", Some("delta")),
        record(STATE, "s", Some("state")),
    ];
    log.commit(commit(records, vec![(RAW, Position(3))])).unwrap();
    assert_eq!(other.committed(&[RAW_0, RAW]).unwrap(), [None, Some(Position(3))]);
    assert_eq!(values(&read_all(&mut *other, DELTAS)), ["delta"]);
    assert_eq!(values(&read_all(&mut *other, STATE)), ["state"]);
    // A commit may have positions alone, or records alone.
    log.commit(commit(Vec::new(), vec![(RAW, Position(4))])).unwrap();
    log.commit(commit(vec![record(DELTAS, "d", Some("more"))], vec![]))
        .unwrap();
    assert_eq!(other.committed(&[RAW]).unwrap(), [Some(Position(4))]);
    other.take_over(&[(DELTAS, Position(0))]).unwrap();
    assert_eq!(values(&poll_until(&mut *other, 2)), ["delta", "more"]);
    log.commit(Commit::default()).unwrap();
}

fn recover_fences_older_users(world: &mut dyn World) {
    let mut old = world.user();
    old.recover().unwrap();
    old.commit(commit(vec![record(DELTAS, "d", Some("old"))], vec![]))
        .unwrap();
    let mut new = world.user();
    new.recover().unwrap();
    let zombie = commit(
        vec![record(DELTAS, "d", Some("zombie"))],
        vec![(RAW, Position(0))],
    );
    let error = old.commit(zombie).unwrap_err();
    assert!(matches!(error, LogError::NotCommitted { .. }), "{error}");
    new.commit(commit(vec![record(DELTAS, "d", Some("new"))], vec![]))
        .unwrap();
    assert_eq!(values(&read_all(&mut *new, DELTAS)), ["old", "new"]);
    assert_eq!(new.committed(&[RAW]).unwrap(), [None]);
    // The old user can commit again once it has fenced the new one in turn.
    old.recover().unwrap();
    old.commit(commit(vec![record(DELTAS, "d", Some("back"))], vec![]))
        .unwrap();
    assert_eq!(values(&read_all(&mut *new, DELTAS)), ["old", "new", "back"]);
}

fn trimmed_records_are_out_of_range(world: &mut dyn World) {
    let (mut log, mut other) = (world.user(), world.user());
    log.append(
        (0..6)
            .map(|n| record(DELTAS, "k", Some(&n.to_string())))
            .collect(),
    )
    .unwrap();
    assert_eq!(log.read(DELTAS, Position(0), 1).unwrap().next, Position(1));
    log.append((0..3).map(|n| record(RAW_0, "k", Some(&n.to_string()))).collect())
        .unwrap();
    log.trim(&[(DELTAS, Position(4)), (RAW_0, Position(1))]).unwrap();
    log.trim(&[(DELTAS, Position(2))]).unwrap();
    let asked = [RAW, DELTAS, RAW_0];
    let extents = asked.map(|at| other.extent(at).unwrap());
    assert_eq!(
        extents.map(|extent| (extent.start.0, extent.end.0)),
        [(0, 0), (4, 6), (1, 3)]
    );
    assert_eq!(
        other.ends(&asked).unwrap(),
        [0, 6, 3].map(Position),
        "in the order asked"
    );
    assert!(other.ends(&[]).unwrap().is_empty());
    other.trim(&[]).unwrap();
    let extent = other.extent(DELTAS).unwrap();
    assert_eq!((extent.start, extent.end), (Position(4), Position(6)));
    assert_eq!(values(&read_all(&mut *other, DELTAS)), ["4", "5"]);
    let gone = |error: LogError| {
        assert!(
            matches!(
                error,
                LogError::OutOfRange {
                    at: DELTAS,
                    wanted: 1,
                    start: 4
                }
            ),
            "{error}"
        )
    };
    gone(other.read(DELTAS, Position(1), 10).unwrap_err());
    other.take_over(&[(DELTAS, Position(1))]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        match other.poll(10, Duration::from_millis(200)) {
            Ok(records) => assert!(records.is_empty(), "records before the start were given out"),
            Err(error) => break error,
        }
        assert!(Instant::now() < deadline, "no error");
    };
    gone(error);
}

fn a_compacted_topic_keeps_the_latest_values(world: &mut dyn World) {
    let mut log = world.user();
    let changes = [
        ("a", Some("1")),
        ("b", Some("1")),
        ("a", Some("2")),
        ("c", Some("1")),
        ("b", None),
        ("a", Some("3")),
    ];
    let (first, second) = changes.split_at(4);
    for part in [first, second] {
        let records = part
            .iter()
            .map(|(key, value)| record(STATE, key, *value))
            .collect();
        log.commit(commit(records, vec![])).unwrap();
    }
    let mut latest = BTreeMap::new();
    let records = read_all(&mut *log, STATE);
    for record in &records {
        latest.insert(record.key.clone().unwrap(), record.value.clone());
    }
    latest.retain(|_, value| value.is_some());
    let expected = [("a", "3"), ("c", "1")].map(|(key, value)| (Bytes::from(key), Some(Bytes::from(value))));
    assert_eq!(latest, BTreeMap::from(expected));
    let end = log.extent(STATE).unwrap().end;
    assert!(end.0 >= 6, "offsets are never given twice: {end:?}");
}

fn a_follower_shows_each_record_until_it_is_accepted_and_goes_on(world: &mut dyn World) {
    let (mut log, mut other) = (world.user(), world.user());
    let mut follower = Follower::new(CONTROL);
    assert!(follower.collect(&mut *log).unwrap().is_empty());
    // More than one read gives out.
    let many = (0..250).map(|n| record(CONTROL, "k", Some(&n.to_string())));
    other.append(many.collect()).unwrap();
    let mut shown = Vec::new();
    let refused = follower.catch_up(&mut *log, |record| {
        shown.push(record.offset);
        match record.offset {
            120 => Err(LogError::unavailable("refused")),
            _ => Ok(()),
        }
    });
    assert!(refused.is_err());
    assert_eq!((shown.len(), follower.position()), (121, Position(120)));
    let rest = follower.collect(&mut *log).unwrap();
    assert_eq!(
        rest.iter().map(|record| record.offset).collect::<Vec<_>>(),
        (120..250).collect::<Vec<_>>()
    );
    let offset = control::append(&mut *other, "k", b"late".to_vec()).unwrap();
    assert_eq!(offset, 250);
    let late = follower.collect(&mut *log).unwrap();
    assert_eq!(
        (values(&late), follower.position()),
        (vec!["late".to_owned()], Position(251))
    );
}

macro_rules! contract {
    ($log:ident, $world:expr, $($check:ident),+ $(,)?) => {
        mod $log {
            $(#[test]
            fn $check() {
                super::$check(&mut $world);
            })+
        }
    };
    ($log:ident, $world:expr) => {
        contract!(
            $log,
            $world,
            partition_counts,
            appended_records_come_back_as_they_were,
            a_read_at_the_end_is_empty,
            poll_gives_what_is_assigned,
            a_commit_shows_records_and_positions_together,
            recover_fences_older_users,
            trimmed_records_are_out_of_range,
            a_compacted_topic_keeps_the_latest_values,
            a_follower_shows_each_record_until_it_is_accepted_and_goes_on,
        );
    };
}

struct EmbeddedWorld {
    log: std::sync::Arc<processor_log::embedded::Embedded>,
    _dir: tempfile::TempDir,
}

impl EmbeddedWorld {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            log: processor_log::embedded::Embedded::open(dir.path(), &seed()).unwrap(),
            _dir: dir,
        }
    }
}

impl World for EmbeddedWorld {
    fn user(&mut self) -> Box<dyn Log> {
        Box::new(self.log.handle())
    }
}

contract!(embedded, super::EmbeddedWorld::new());

#[path = "../../../tests/support/broker.rs"]
mod broker;

struct KafkaWorld {
    prefix: String,
}

impl KafkaWorld {
    /// A fresh set of topics on the one broker.
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let prefix = format!("contract{number}.");
        let ready = processor_log::kafka::topics::prepare(
            &Cluster::plain(&broker::Broker::shared().bootstrap(), &prefix),
            &seed(),
        )
        .unwrap();
        assert_eq!(ready, seed());
        Self { prefix }
    }
}

impl World for KafkaWorld {
    fn user(&mut self) -> Box<dyn Log> {
        let cluster = Cluster::plain(&broker::Broker::shared().bootstrap(), &self.prefix);
        let config =
            processor_log::kafka::KafkaConfig::worker(&cluster, &format!("{}group", self.prefix), "worker");
        Box::new(processor_log::kafka::KafkaLog::connect(config).unwrap())
    }
}

contract!(kafka, super::KafkaWorld::new());

struct SimulatedWorld(processor_log::simulated::SimCluster);

impl World for SimulatedWorld {
    fn user(&mut self) -> Box<dyn Log> {
        Box::new(self.0.log("worker"))
    }
}

contract!(
    simulated,
    super::SimulatedWorld(processor_log::simulated::SimCluster::new(7, &super::seed()))
);
