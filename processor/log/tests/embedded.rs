//! The embedded log beyond the contract: what a crash leaves, whose a directory is, what is deleted, a full disk.
#![allow(clippy::unwrap_used, reason = "test code")]

mod common;

use bytes::Bytes;
use common::commit;
use processor_log::embedded::{Embedded, Limits, Retention};
use processor_log::{Log, LogError, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::settings::Seed;
use schemas::time::AppendTime;
use schemas::topic::Topic;
use std::path::Path;
use std::sync::Arc;

const RAW: TopicPartition = TopicPartition {
    topic: Topic::RawLogs,
    partition: 0,
};
const TRACES: TopicPartition = TopicPartition {
    topic: Topic::RawTraces,
    partition: 0,
};
const ROWS: TopicPartition = TopicPartition {
    topic: Topic::Sessions,
    partition: 0,
};
const DELTAS: TopicPartition = TopicPartition {
    topic: Topic::Deltas,
    partition: 2,
};

fn open(dir: &Path) -> Arc<Embedded> {
    Embedded::open(dir, &Seed::shipped()).unwrap()
}

fn record(to: TopicPartition, key: &str, value: &str) -> NewRecord {
    NewRecord {
        to,
        key: Some(Bytes::from(key.to_owned())),
        value: Some(Bytes::from(value.to_owned())),
        headers: Vec::new(),
    }
}

fn values(log: &mut impl Log, at: TopicPartition) -> Vec<String> {
    let extent = log.extent(at).unwrap();
    let batch = log.read(at, extent.start, usize::MAX).unwrap();
    assert_eq!(batch.next, extent.end);
    batch
        .records
        .iter()
        .map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap())
        .collect()
}

/// The directory that a crash of the process leaves: a copy of the files as they are while the log is open.
fn crash(dir: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(dir, copied.path());
    copied
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut user = log.handle();
    let appended = user
        .append(vec![record(RAW, "k", "one"), record(RAW, "k", "two")])
        .unwrap();
    user.commit(commit(
        vec![record(ROWS, "r", "first"), record(DELTAS, "d", "delta")],
        vec![(RAW, Position(2))],
    ))
    .unwrap();
    user.commit(commit(vec![record(ROWS, "r", "second")], vec![]))
        .unwrap();
    let left = crash(dir.path());
    user.append(vec![record(RAW, "k", "after the crash")]).unwrap();

    let again = open(left.path());
    let mut user_again = again.handle();
    assert_eq!(user_again.writer(), user.writer());
    assert_eq!(values(&mut user_again, RAW), ["one", "two"]);
    assert_eq!(values(&mut user_again, ROWS), ["second"]);
    assert_eq!(values(&mut user_again, DELTAS), ["delta"]);
    assert_eq!(user_again.committed(&[RAW]).unwrap(), [Some(Position(2))]);
    // Offsets and append times go on after the restart.
    let next = user_again.append(vec![record(RAW, "k", "three")]).unwrap();
    assert_eq!(next[0].offset, 2);
    assert!(next[0].appended >= appended[1].appended);
}

#[test]
fn a_closed_log_opens_again_with_its_own_counts() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.handle().append(vec![record(RAW, "k", "one")]).unwrap();
    drop(log);
    let other = Seed {
        raw_partitions: 9,
        ..Seed::shipped()
    };
    let log = Embedded::open(dir.path(), &other).unwrap();
    assert_eq!(log.partitions(Topic::RawLogs), 4);
    assert_eq!(values(&mut log.handle(), RAW), ["one"]);
    let beyond = TopicPartition {
        topic: Topic::RawLogs,
        partition: 4,
    };
    assert!(matches!(
        log.handle().append(vec![record(beyond, "k", "v")]),
        Err(LogError::Topic { .. })
    ));
}

fn refusal(result: Result<Arc<Embedded>, LogError>) -> String {
    result.err().expect("it opened").to_string()
}

#[test]
fn a_directory_has_one_user_and_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let log = open(dir.path());
    let refused = refusal(Embedded::open(dir.path(), &Seed::shipped()));
    assert!(
        refused.contains(&path) && refused.contains("another process"),
        "{refused}"
    );
    drop(log);
    drop(open(dir.path()));

    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("thesis.txt"), "chapter 1").unwrap();
    let refused = refusal(Embedded::open(foreign.path(), &Seed::shipped()));
    assert!(
        refused.contains(&foreign.path().display().to_string()) && refused.contains("thesis.txt"),
        "{refused}"
    );
    assert_eq!(std::fs::read_dir(foreign.path()).unwrap().count(), 1);

    std::fs::write(
        dir.path().join("tachograph.format"),
        "tachograph data, format 99\nx\n",
    )
    .unwrap();
    let refused = refusal(Embedded::open(dir.path(), &Seed::shipped()));
    assert!(
        refused.contains("format 99") && refused.contains(&path),
        "{refused}"
    );
}

#[test]
fn a_commit_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut user = log.handle();
    let beyond = TopicPartition {
        topic: Topic::Deltas,
        partition: 99,
    };
    let records = vec![record(DELTAS, "d", "delta"), record(beyond, "d", "delta")];
    user.commit(commit(records, vec![])).unwrap_err();
    let ahead = commit(vec![record(DELTAS, "d", "delta")], vec![(RAW, Position(1))]);
    assert!(matches!(user.commit(ahead), Err(LogError::NotCommitted { .. })));
    let keyless = NewRecord {
        key: None,
        ..record(ROWS, "", "row")
    };
    user.commit(commit(vec![record(DELTAS, "d", "delta"), keyless], vec![]))
        .unwrap_err();
    assert_eq!(values(&mut user, DELTAS), [""; 0]);
    assert_eq!(user.committed(&[RAW]).unwrap(), [None]);
}

#[test]
fn a_compacted_topic_holds_nothing_but_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut user = log.handle();
    let tombstone = NewRecord {
        value: None,
        ..record(ROWS, "b", "")
    };
    // Keys are superseded within one commit, and across commits.
    let records = vec![
        record(ROWS, "a", "1"),
        record(ROWS, "a", "2"),
        record(ROWS, "b", "1"),
        record(ROWS, "c", "1"),
    ];
    user.commit(commit(records, vec![])).unwrap();
    assert_eq!(values(&mut user, ROWS), ["2", "1", "1"]);
    let records = vec![
        tombstone.clone(),
        record(ROWS, "a", "3"),
        record(ROWS, "d", "1"),
        NewRecord {
            key: Some(Bytes::from("d")),
            ..tombstone
        },
    ];
    user.commit(commit(records, vec![])).unwrap();
    assert_eq!(values(&mut user, ROWS), ["1", "3"]);
    assert_eq!(user.extent(ROWS).unwrap().end, Position(8));
    // Keys of trimmed records are forgotten, so no later record supersedes them.
    user.trim(&[(ROWS, Position(8))]).unwrap();
    user.commit(commit(vec![record(ROWS, "a", "4")], vec![])).unwrap();
    assert_eq!(values(&mut user, ROWS), ["4"]);
}

#[test]
fn concurrent_appends_keep_their_order_and_share_offsets_densely() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    const EACH: usize = 200;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                let answers: Vec<_> = (0..EACH)
                    .map(|n| {
                        log.append_async(vec![
                            record(RAW, &thread.to_string(), &n.to_string()),
                            record(TRACES, "t", "x"),
                        ])
                    })
                    .collect();
                for answer in answers {
                    assert_eq!(answer.blocking_recv().unwrap().unwrap().len(), 2);
                }
            });
        }
    });
    let mut user = log.handle();
    let records = user.read(RAW, Position(0), usize::MAX).unwrap().records;
    assert_eq!(
        records.iter().map(|record| record.offset).collect::<Vec<_>>(),
        (0..4 * EACH as i64).collect::<Vec<_>>()
    );
    assert!(records.is_sorted_by_key(|record| record.appended));
    for thread in 0..4 {
        let key = Bytes::from(thread.to_string());
        let mine: Vec<_> = records
            .iter()
            .filter(|record| record.key.as_ref() == Some(&key))
            .map(|record| record.value.clone().unwrap())
            .collect();
        assert_eq!(
            mine,
            (0..EACH).map(|n| Bytes::from(n.to_string())).collect::<Vec<_>>()
        );
    }
}

fn imported(at: TopicPartition, offset: i64, appended: i64) -> Record {
    Record {
        from: at,
        offset,
        appended: AppendTime(appended),
        key: Some(Bytes::from("k")),
        value: Some(Bytes::from(vec![b'x'; 1000])),
        headers: vec![],
    }
}

#[test]
fn imported_records_keep_offsets_and_times() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let records = vec![
        imported(RAW, 3, 1000),
        imported(RAW, 7, 900),
        imported(DELTAS, 0, 5),
    ];
    log.import(records.clone()).unwrap();
    let mut user = log.handle();
    let batch = user.read(RAW, Position(0), 10).unwrap();
    assert_eq!(
        (batch.records.as_slice(), batch.next),
        (&records[..2], Position(8))
    );
    log.import(vec![imported(RAW, 7, 2000)]).unwrap_err();
    assert_eq!(user.append(vec![record(RAW, "k", "next")]).unwrap()[0].offset, 8);
}

#[test]
fn age_and_size_delete_raw_records_only_below_the_committed_position() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        raw_age_ms: 1000,
        raw_bytes: 5_500,
    };
    let log = Embedded::open_with(
        dir.path(),
        &Seed::shipped(),
        "",
        Limits {
            retention,
            ..Limits::default()
        },
    )
    .unwrap();
    // The records are 10 years in the future, so the log's own deletions, which go by the real time, find nothing old.
    let now = log.handle().wall_ms() + 315_360_000_000;
    log.import((0..20).map(|n| imported(RAW, n, now + n)).collect())
        .unwrap();
    log.import((0..3).map(|n| imported(DELTAS, n, now + n)).collect())
        .unwrap();
    let mut user = log.handle();
    let start = |user: &mut dyn Log, at| user.extent(at).unwrap().start.0;
    log.retain(now + 1005).unwrap();
    assert_eq!(start(&mut user, RAW), 0, "nothing is committed");
    user.commit(commit(vec![], vec![(RAW, Position(3))])).unwrap();
    log.retain(now + 1005).unwrap();
    assert_eq!(start(&mut user, RAW), 3, "what is not committed stays");
    user.commit(commit(vec![], vec![(RAW, Position(20))])).unwrap();
    log.retain(now + 1005).unwrap();
    let kept = 20 - start(&mut user, RAW);
    assert_eq!(
        kept, 5,
        "5,500 bytes hold 5 records of 1,000 and what comes with them"
    );
    log.retain(now + 1018).unwrap();
    assert_eq!(start(&mut user, RAW), 18, "by age");
    log.retain(now + 2000).unwrap();
    assert_eq!(start(&mut user, RAW), 20, "all of them are old");
    assert_eq!(start(&mut user, DELTAS), 0, "deltas wait for their consumer");
    assert_eq!(user.append(vec![record(RAW, "k", "next")]).unwrap()[0].offset, 20);
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    // No disk has that much free.
    let log = Embedded::open_with(
        dir.path(),
        &Seed::shipped(),
        "",
        Limits {
            disk_reserve_bytes: u64::MAX / 4,
            ..Limits::default()
        },
    )
    .unwrap();
    let mut user = log.handle();
    assert!(matches!(
        user.append(vec![record(RAW, "k", "one")]),
        Err(LogError::Full { .. })
    ));
    let commit = commit(vec![record(DELTAS, "d", "delta")], vec![]);
    assert!(matches!(user.commit(commit), Err(LogError::Full { .. })));
    assert!(matches!(
        log.append_async(vec![record(RAW, "k", "one")])
            .blocking_recv()
            .unwrap(),
        Err(LogError::Full { .. })
    ));
    assert_eq!(
        (values(&mut user, RAW), values(&mut user, DELTAS)),
        (vec![], vec![])
    );
    drop((user, log));
    open(dir.path())
        .handle()
        .append(vec![record(RAW, "k", "one")])
        .unwrap();
}
