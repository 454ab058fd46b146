//! Equal raw records, settings and labels give equal derived rows on Kafka, on the embedded log and on the simulated log.

use crate::support::broker::Broker;
use crate::support::replay::{Results, inputs, replay, worker};
use crate::support::traffic::{Traffic, quick_seed};
use crate::support::{PATIENCE, now_ms};
use processor::runner::{Options, RunError, Runner};
use processor::view::View;
use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::embedded::Embedded;
use processor_log::kafka::{KafkaConfig, KafkaLog, topics};
use processor_log::simulated::SimCluster;
use schemas::record::Record;
use schemas::settings::Seed;
use std::time::Instant;

const PREFIX: &str = "law.";
/// How many raw records there are, and how many come between two restarts of the worker.
const RECORDS: usize = 400;
const RESTART_EVERY: usize = 150;

fn kafka() -> KafkaLog {
    let config = KafkaConfig::worker(
        &Cluster::plain(&Broker::shared().bootstrap(), PREFIX),
        &format!("{PREFIX}tacho"),
        "0",
    );
    let mut log = KafkaLog::connect(config).unwrap();
    log.recover().unwrap();
    log
}

/// Derives traffic on Kafka until everything is final, by a worker that is replaced after every [`RESTART_EVERY`] records.
fn run_on_kafka(seed: &Seed) -> (Results, Vec<Record>) {
    let mut traffic = Traffic::new(1, seed.raw_partitions);
    let mut ingest = kafka_reader();
    let (mut runner, mut view) = worker(kafka(), seed, Options::default());
    for number in 0..RECORDS {
        if number % RESTART_EVERY == RESTART_EVERY - 1 {
            (runner, view) = worker(kafka(), seed, Options::default());
        }
        ingest.append(vec![traffic.record(now_ms())]).unwrap();
        turn(&mut runner);
    }
    let sent = now_ms();
    let deadline = Instant::now() + PATIENCE;
    while !at_rest(&mut runner, &view, seed, sent) {
        turn(&mut runner);
        assert!(
            Instant::now() < deadline,
            "windows and sessions up to {sent} did not become final: {:?}",
            view.partitions
        );
    }
    (Results::of(runner.log(), &view), inputs(runner.log()))
}

/// Runs a turn of a worker. After a failure of the log, state is dropped as [`Runner::run`] does.
fn turn(runner: &mut Runner<KafkaLog>) {
    match runner.turn() {
        Ok(()) => {}
        Err(RunError::Log(error)) => {
            eprintln!("outlived: {error}");
            runner.drop_state();
            runner.log().recover().unwrap();
        }
        Err(error) => panic!("the worker stopped: {error:?}"),
    }
}

/// A handle of the log that commits nothing, so that it fences no worker.
fn kafka_reader() -> KafkaLog {
    let config = KafkaConfig::reader(
        &Cluster::plain(&Broker::shared().bootstrap(), PREFIX),
        &format!("{PREFIX}reader"),
    );
    KafkaLog::connect(config).unwrap()
}

/// Whether all windows up to `sent` and their corrections are final in every partition, and all sessions have ended.
fn at_rest(runner: &mut Runner<KafkaLog>, view: &View, seed: &Seed, sent: i64) -> bool {
    let partitions = usize::try_from(seed.delta_partitions).unwrap();
    let largest = seed.time.window_sizes_ms.len() - 1;
    let is_final = |view: &processor::view::PartitionView| {
        view.latest_final
            .get(largest)
            .copied()
            .flatten()
            .is_some_and(|start| start.0 > sent)
    };
    if view.partitions.len() < partitions || !view.partitions.iter().all(|view| is_final(view.value())) {
        return false;
    }
    Results::of(runner.log(), view).all_ended()
}

#[test]
fn same_raw_bytes_same_rows() {
    let seed = quick_seed();
    assert_eq!(
        topics::prepare(&Cluster::plain(&Broker::shared().bootstrap(), PREFIX), &seed).unwrap(),
        seed
    );
    let (on_kafka, records) = run_on_kafka(&seed);
    assert!(
        on_kafka.windows.len() > 100 && on_kafka.corrections() > 10 && on_kafka.sessions.len() > 5,
        "the traffic has too few windows, corrections or sessions for the test"
    );

    let dir = tempfile::tempdir().unwrap();
    let embedded = Embedded::open(dir.path(), &seed).unwrap();
    embedded.import(records.clone()).unwrap();
    replay(embedded.handle(), &seed, 1_000)
        .unwrap()
        .assert_same(&on_kafka, "embedded and Kafka");

    // With one record a poll, the partitions take turns in another order, and the results are the same.
    for poll_max in [1, 17] {
        let cluster = SimCluster::new(0, &seed);
        cluster.import(records.clone()).unwrap();
        replay(cluster.log("worker"), &seed, poll_max)
            .unwrap()
            .assert_same(&on_kafka, "simulation and Kafka");
    }
    // The partitions are imported in reverse order, which does not matter: only the order within a partition does.
    let cluster = SimCluster::new(0, &seed);
    let mut backwards = records;
    backwards.sort_by_key(|record| (std::cmp::Reverse(record.from), record.offset));
    cluster.import(backwards).unwrap();
    let (mut runner, _) = worker(
        cluster.log("worker"),
        &seed,
        Options {
            ticks: false,
            records_max: 1,
            ..Options::default()
        },
    );
    for _ in 0..60 {
        // State is dropped after every turn, so that it is restored before the next one.
        runner.turn().unwrap();
        runner.drop_state();
    }
    drop(runner);
    replay(cluster.log("worker"), &seed, 1_000)
        .unwrap()
        .assert_same(&on_kafka, "simulation with restores and Kafka");
}
