//! The simulated log beyond the contract: its faults are real, and one seed gives one history.
#![allow(clippy::unwrap_used, reason = "test code")]

use bytes::Bytes;
use processor::log::simulated::{Faults, SimCluster};
use processor::log::{Commit, Log, LogError};
use schemas::id::{Position, TopicPartition};
use schemas::record::NewRecord;
use schemas::settings::Seed;
use schemas::topic::Topic;

const RAW: TopicPartition = TopicPartition { topic: Topic::RawLogs, partition: 0 };
const DELTAS: TopicPartition = TopicPartition { topic: Topic::Deltas, partition: 0 };
const ROWS: TopicPartition = TopicPartition { topic: Topic::Sessions, partition: 0 };

fn record(to: TopicPartition, key: &str, value: Option<&str>) -> NewRecord {
    NewRecord { to, key: Some(Bytes::from(key.to_owned())), value: value.map(|value| Bytes::from(value.to_owned())), headers: Vec::new() }
}

/// 200 commits under faults; how many were said to fail, and how many of those took effect.
fn history(random: u64) -> (u32, u32, Vec<i64>) {
    let cluster = SimCluster::new(random, &Seed::shipped());
    cluster.set_faults(Faults { commit_lost: 200, commit_unanswered: 200, ..Faults::default() });
    let mut log = cluster.log("worker");
    let (mut failed, mut taken) = (0, 0);
    for step in 1..=200 {
        cluster.advance(10);
        let commit = Commit { records: vec![record(DELTAS, "d", Some("x"))], positions: vec![(RAW, Position(step))] };
        if let Err(error) = log.commit(commit) {
            assert!(matches!(error, LogError::NotCommitted { .. }));
            failed += 1;
            let refused = log.commit(Commit { records: vec![record(DELTAS, "d", Some("y"))], positions: vec![] });
            assert!(refused.is_err(), "a failed handle commits nothing before it recovers");
            log.recover().unwrap();
            if log.committed(&[RAW]).unwrap() == [Some(Position(step))] {
                taken += 1;
            }
        }
    }
    let records = cluster.records(DELTAS);
    assert_eq!(u32::try_from(records.len()).unwrap(), 200 - failed + taken, "records and positions go together");
    (failed, taken, records.iter().map(|record| record.appended.0).collect())
}

#[test]
fn commits_fail_with_and_without_effect_and_one_seed_is_one_history() {
    let (failed, taken, times) = history(42);
    assert!(taken > 0 && failed > taken, "{failed} failed, {taken} of them took effect");
    assert_eq!(history(42), (failed, taken, times.clone()));
    assert_ne!(history(43).2, times);
}

#[test]
fn an_append_can_take_effect_unanswered() {
    let cluster = SimCluster::new(1, &Seed::shipped());
    let mut log = cluster.log("worker");
    cluster.set_faults(Faults { append_unanswered: 1000, ..Faults::default() });
    log.append(vec![record(RAW, "k", Some("one"))]).unwrap_err();
    cluster.set_faults(Faults { append_lost: 1000, ..Faults::default() });
    log.append(vec![record(RAW, "k", Some("two"))]).unwrap_err();
    let kept: Vec<_> = cluster.records(RAW).into_iter().map(|record| record.value).collect();
    assert_eq!(kept, [Some(Bytes::from("one"))]);
}

#[test]
fn time_stands_still_until_it_is_moved() {
    let cluster = SimCluster::new(1, &Seed::shipped());
    let mut log = cluster.log("worker");
    let first = log.append(vec![record(RAW, "k", Some("one"))]).unwrap()[0].appended;
    cluster.advance(250);
    let second = log.append(vec![record(RAW, "k", Some("two"))]).unwrap()[0].appended;
    assert_eq!((second.0 - first.0, second.0), (250, log.wall_ms()));
}

#[test]
fn compaction_leaves_the_latest_and_the_offsets() {
    let cluster = SimCluster::new(1, &Seed::shipped());
    let mut log = cluster.log("worker");
    let records = vec![record(ROWS, "a", Some("1")), record(ROWS, "b", Some("1")), record(ROWS, "a", Some("2")), record(ROWS, "b", None)];
    log.append(records).unwrap();
    cluster.compact();
    let left: Vec<i64> = cluster.records(ROWS).iter().map(|record| record.offset).collect();
    assert_eq!(left, [2]);
    assert_eq!(log.read(ROWS, Position(0), 10).unwrap().next, Position(4));
    let again = SimCluster::new(1, &Seed::shipped());
    again.import(cluster.records(ROWS)).unwrap();
    assert_eq!(again.records(ROWS), cluster.records(ROWS));
    again.import(cluster.records(ROWS)).unwrap_err();
}
