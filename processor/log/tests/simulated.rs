//! The simulated log beyond the contract: its faults are real, and one seed gives one history.
#![allow(clippy::unwrap_used, reason = "test code")]

mod common;

use bytes::Bytes;
use common::commit;
use processor_log::simulated::{Faults, SimCluster, SimLog};
use processor_log::{Batch, Commit, Log, LogError, Ownership, ReadLog};
use schemas::id::{Position, TopicPartition};
use schemas::record::NewRecord;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::time::Duration;

const RAW: TopicPartition = TopicPartition {
    topic: Topic::RawLogs,
    partition: 0,
};
const DELTAS: TopicPartition = TopicPartition {
    topic: Topic::Deltas,
    partition: 0,
};
const ROWS: TopicPartition = TopicPartition {
    topic: Topic::Sessions,
    partition: 0,
};

fn record(to: TopicPartition, key: &str, value: Option<&str>) -> NewRecord {
    NewRecord {
        to,
        key: Some(Bytes::from(key.to_owned())),
        value: value.map(|value| Bytes::from(value.to_owned())),
        headers: Vec::new(),
    }
}

/// Makes 200 commits under faults; how many were said to fail, and how many of those took effect.
fn history(random: u64) -> (u32, u32, Vec<i64>) {
    let cluster = SimCluster::new(random, &Seed::shipped());
    cluster.set_faults(Faults {
        commit_lost: 200,
        commit_unanswered: 200,
        ..Faults::default()
    });
    let mut log = cluster.log("worker");
    let (mut failed, mut taken) = (0, 0);
    for step in 1..=200 {
        cluster.advance(10);
        let next = commit(vec![record(DELTAS, "d", Some("x"))], vec![(RAW, Position(step))]);
        if let Err(error) = log.commit(next) {
            assert!(matches!(error, LogError::NotCommitted { .. }));
            failed += 1;
            let refused = log.commit(commit(vec![record(DELTAS, "d", Some("y"))], vec![]));
            assert!(
                refused.is_err(),
                "a failed handle commits nothing before it recovers"
            );
            log.recover().unwrap();
            if log.committed(&[RAW]).unwrap() == [Some(Position(step))] {
                taken += 1;
            }
        }
    }
    let records = cluster.records(DELTAS);
    assert_eq!(
        u32::try_from(records.len()).unwrap(),
        200 - failed + taken,
        "records and positions go together"
    );
    (
        failed,
        taken,
        records.iter().map(|record| record.appended.0).collect(),
    )
}

#[test]
fn commits_fail_with_and_without_effect_and_one_seed_is_one_history() {
    let (failed, taken, times) = history(42);
    assert!(
        taken > 0 && failed > taken,
        "{failed} failed, {taken} of them took effect"
    );
    assert_eq!(history(42), (failed, taken, times.clone()));
    assert_ne!(history(43).2, times);
}

#[test]
fn an_append_can_take_effect_unanswered() {
    let cluster = SimCluster::new(1, &Seed::shipped());
    let mut log = cluster.log("worker");
    cluster.set_faults(Faults {
        append_unanswered: 1000,
        ..Faults::default()
    });
    log.append(vec![record(RAW, "k", Some("one"))]).unwrap_err();
    cluster.set_faults(Faults {
        append_lost: 1000,
        ..Faults::default()
    });
    log.append(vec![record(RAW, "k", Some("two"))]).unwrap_err();
    let kept: Vec<_> = cluster
        .records(RAW)
        .into_iter()
        .map(|record| record.value)
        .collect();
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
    let records = vec![
        record(ROWS, "a", Some("1")),
        record(ROWS, "b", Some("1")),
        record(ROWS, "a", Some("2")),
        record(ROWS, "b", None),
    ];
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

/// The number of records that a restore reads of a partition.
fn restored(log: &mut SimLog, at: TopicPartition) -> usize {
    let mut count = 0;
    log.read_all(&[at], &mut |_| count += 1).unwrap();
    count
}

fn one_delta() -> Commit {
    commit(vec![record(DELTAS, "d", Some("x"))], vec![(RAW, Position(1))])
}

#[test]
fn a_late_mark_holds_readers_up_and_a_restore_waits_for_it() {
    let cluster = SimCluster::new(1, &Seed::shipped());
    let (mut writer, mut reader) = (cluster.log("writer"), cluster.log("reader"));
    cluster.set_faults(Faults {
        mark_late: 1000,
        ..Faults::default()
    });
    writer.commit(one_delta()).unwrap();
    let extent = reader.extent(DELTAS).unwrap();
    assert_eq!(
        (extent.end, reader.read(DELTAS, Position(0), 10).unwrap()),
        (Position(1), Batch::default())
    );
    assert_eq!(
        reader.committed(&[RAW]).unwrap(),
        [Some(Position(1))],
        "whoever asks waits until positions are stable"
    );
    assert_eq!(restored(&mut reader, DELTAS), 1);
    assert_eq!((cluster.happened().late_marks, cluster.happened().waits), (2, 2));
    // The writer's next transaction waits for the marks of its last one.
    writer.commit(one_delta()).unwrap();
    writer.commit(one_delta()).unwrap();
    assert_eq!(cluster.records(DELTAS).len(), 2);
}

#[test]
fn a_dead_writers_transaction_is_aborted_by_who_waits_and_by_its_timeout() {
    for by_timeout in [false, true] {
        let cluster = SimCluster::new(1, &Seed::shipped());
        let (mut dead, mut writer, mut reader) =
            (cluster.log("dead"), cluster.log("writer"), cluster.log("reader"));
        cluster.set_faults(Faults {
            commit_lost: 1000,
            ..Faults::default()
        });
        dead.commit(one_delta()).unwrap_err();
        cluster.set_faults(Faults::default());
        writer.commit(one_delta()).unwrap();
        assert_eq!(
            reader.read(DELTAS, Position(0), 10).unwrap().records.len(),
            0,
            "what is behind it waits too"
        );
        if by_timeout {
            cluster.advance(10_001);
            assert_eq!(reader.read(DELTAS, Position(0), 10).unwrap().records.len(), 1);
        }
        assert_eq!(restored(&mut reader, DELTAS), 1);
        assert_eq!(cluster.happened().fenced, usize::from(!by_timeout));
        assert!(
            matches!(dead.commit(one_delta()), Err(LogError::NotCommitted { .. })),
            "it is of no use any more"
        );
    }
}

/// Answers all changes of ownership; the partitions that the handle has then.
fn answer(log: &mut SimLog, has: &mut BTreeSet<TopicPartition>) {
    log.settle(Duration::ZERO).unwrap();
    while let Some(change) = log.ownership() {
        match change {
            Ownership::Assigned(new) => {
                log.take_over(&new.iter().map(|at| (*at, Position(0))).collect::<Vec<_>>())
                    .unwrap();
                has.extend(new);
            }
            Ownership::Revoked(old) | Ownership::Lost(old) => {
                log.release(&old).unwrap();
                has.retain(|at| !old.contains(at));
            }
        }
        log.settle(Duration::ZERO).unwrap();
    }
}

#[test]
fn partitions_move_when_their_owner_lets_go_leaves_or_is_silent() {
    let cluster = SimCluster::new(1, &Seed::shipped());
    let all = usize::try_from(Seed::shipped().raw_partitions + Seed::shipped().delta_partitions).unwrap();
    let (mut a, mut b) = (cluster.log("a"), cluster.log("b"));
    let (mut of_a, mut of_b) = (BTreeSet::new(), BTreeSet::new());
    a.join().unwrap();
    answer(&mut a, &mut of_a);
    assert_eq!(of_a.len(), all);
    b.join().unwrap();
    answer(&mut b, &mut of_b);
    assert!(of_b.is_empty(), "nothing is free yet");
    assert!(matches!(
        a.commit(commit(vec![], vec![(RAW, Position(1))])),
        Err(LogError::Aborted { .. })
    ));
    answer(&mut a, &mut of_a);
    answer(&mut b, &mut of_b);
    assert!(
        of_a.is_disjoint(&of_b) && of_a.len() + of_b.len() == all && of_b.len() >= all / 2,
        "{of_a:?} {of_b:?}"
    );
    // A member that sleeps for long loses all, hears of it when it wakes, and gets its share anew.
    cluster.set_silent("a", true);
    cluster.advance(7_000);
    answer(&mut b, &mut of_b);
    assert_eq!(of_b.len(), all);
    cluster.set_silent("a", false);
    a.settle(Duration::ZERO).unwrap();
    assert_eq!(
        a.ownership(),
        Some(Ownership::Lost(of_a.iter().copied().collect()))
    );
    a.release(&of_a.iter().copied().collect::<Vec<_>>()).unwrap();
    of_a.clear();
    answer(&mut b, &mut of_b);
    answer(&mut a, &mut of_a);
    assert!(
        of_a.is_disjoint(&of_b) && of_a.len() + of_b.len() == all && !of_a.is_empty(),
        "{of_a:?} {of_b:?}"
    );
    // A member that leaves is not waited for; one that comes again under its name in time has the partitions that it had.
    b.leave();
    answer(&mut a, &mut of_a);
    assert_eq!(of_a.len(), all);
    drop(a);
    let (mut again, mut of_again) = (cluster.log("a"), BTreeSet::new());
    again.join().unwrap();
    answer(&mut again, &mut of_again);
    assert_eq!(of_again, of_a);
}
