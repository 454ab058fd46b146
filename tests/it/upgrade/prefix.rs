//! A Kafka prefix that processes of commit 6f5a53d wrote is restored and gone on with.

use super::{LARGEST_WINDOW_MS, NEW_CONVERSATIONS, TOKENS};
use crate::support::broker::Broker;
use crate::support::old::{self, OldLog};
use crate::support::processes::{Process, ingest, processor};
use crate::support::replay::{Results, inputs, read_topic, worker};
use crate::support::samples::Samples;
use crate::support::{PATIENCE, eventually, now_ms};
use nix::sys::signal::Signal;
use processor::runner::Options;
use processor::sink::prometheus::{Format, body};
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog};
use processor_log::{Log, ReadLog};
use schemas::derived::WindowRow;
use schemas::id::TopicPartition;
use schemas::topic::Topic;
use std::time::Instant;

const PREFIX: &str = "old.";
/// The name of one of the old processors.
const NAME: &str = "a";
/// The name of its only worker: who goes on under it need not wait until the group has forgotten the process.
const WORKER: &str = "a-0";
/// Nothing is deleted for its age while the test runs: the records are as old as the data file is.
const SETTINGS: [(&str, &str); 2] = [
    ("log.initial.task.delay.ms", "3600000"),
    ("log.retention.check.interval.ms", "3600000"),
];

fn reader(cluster: &Cluster) -> KafkaLog {
    KafkaLog::connect(KafkaConfig::reader(cluster, &format!("{PREFIX}tacho"))).unwrap()
}

/// How many raw records no commit has.
fn unread(log: &mut KafkaLog) -> i64 {
    let mut count = 0;
    for partition in 0..log.partitions(Topic::RawLogs).unwrap() {
        let at = TopicPartition {
            topic: Topic::RawLogs,
            partition,
        };
        count += log.extent(at).unwrap().end.0 - log.committed(&[at]).unwrap()[0].unwrap().0;
    }
    count
}

/// Sends to all conversations, and something that was sent to the old version; waits for totals and windows.
fn go_on(door: &Process, worker: &Process, log: &mut KafkaLog, old: &OldLog) {
    let metrics = [
        "tacho_turns_total",
        "tacho_tokens_total",
        "tacho_log_records_total",
        "tacho_sessions_started_total",
    ];
    let before = metrics.map(|metric| super::old_count(old, metric));
    for (metric, count) in metrics.iter().zip(before) {
        worker.wait_for_count(metric, &[], count);
    }
    let conversations = super::conversations(old);
    let sent_ms = now_ms();
    for conversation in &conversations {
        door.logs(&super::request(conversation));
    }
    let sent = i64::try_from(conversations.len()).unwrap();
    let new = i64::try_from(NEW_CONVERSATIONS).unwrap();
    let added = [sent, TOKENS * sent, 2 * sent, new];
    for ((metric, count), added) in metrics.iter().zip(before).zip(added) {
        worker.wait_for_count(metric, &[], count + added);
    }
    let old_duplicates =
        Samples::parse(&old.metrics).count("tacho_log_records_total", &[("outcome", "duplicate")]);
    door.logs(&super::repeated(old));
    worker.metrics_when("duplicates of an old request", |samples| {
        let records = samples.count("tacho_log_records_total", &[]) - (before[2] + added[2]);
        let repeated = samples.count("tacho_log_records_total", &[("outcome", "duplicate")]) - old_duplicates;
        (repeated > 0 && repeated == records)
            .then_some(())
            .ok_or_else(|| format!("{repeated} of {records}"))
    });
    eventually("the last final window of what was sent", || {
        let rows = read_topic(log, Topic::Windows1h);
        let start = |value: &[u8]| WindowRow::decode(value).unwrap().start_ms;
        let last = rows
            .iter()
            .filter_map(|row| row.value.as_deref().map(start))
            .max();
        let is_final = last.is_some_and(|start| start + LARGEST_WINDOW_MS > sent_ms);
        is_final
            .then_some(())
            .ok_or_else(|| format!("{last:?}, sent at {sent_ms}"))
    });
}

fn end(process: Process) {
    process.signal(Signal::SIGTERM);
    let (status, said) = process.ended();
    assert!(status.success(), "{said}");
}

/// What is in the log, and what a worker without ticks shows, once that is as expected or [`PATIENCE`] is over: the last
/// ticks of the processor may have come after its last commit.
fn at_rest(cluster: &Cluster, old: &OldLog, expected: &(Results, String)) -> (Results, String) {
    let config = KafkaConfig::worker(cluster, &format!("{PREFIX}tacho"), WORKER);
    let mut log = KafkaLog::connect(config).unwrap();
    log.recover().unwrap();
    let options = Options {
        ticks: false,
        ..Options::default()
    };
    let (mut runner, view) = worker(log, &old.seed, options);
    let deadline = Instant::now() + PATIENCE;
    loop {
        runner.turn().unwrap();
        runner.commit().unwrap();
        let metrics = old::samples(&String::from_utf8(body(&view, "", Format::Text)).unwrap());
        let is_over = Instant::now() > deadline;
        if metrics == expected.1 || is_over {
            let found = super::without_positions(Results::of(runner.log(), &view));
            if found == expected.0 || is_over {
                return (found, metrics);
            }
        }
    }
}

#[test]
fn a_prefix_is_gone_on_with() {
    let old = old::log("prefix");
    let broker = Broker::start_on(|data| old::unpack("prefix.files", data), &SETTINGS);
    let bootstrap = broker.bootstrap();
    let cluster = Cluster::plain(&bootstrap, PREFIX);
    let mut log = reader(&cluster);
    assert!(inputs(&mut log) == old.inputs, "the prefix holds the old inputs");
    assert!(
        unread(&mut log) >= 10,
        "the old version ended before it had derived everything"
    );

    let shown = processor(&bootstrap, PREFIX, NAME).ready();
    let door = ingest(&bootstrap, PREFIX).ready();
    go_on(&door, &shown, &mut log, &old);
    end(door);
    end(shown);

    let (expected, metrics) = super::one_pass(&old, super::all_inputs(&old, inputs(&mut log)));
    let expected = (super::without_positions(expected), metrics);
    let (found, metrics) = at_rest(&cluster, &old, &expected);
    assert_eq!(metrics, expected.1);
    super::expect_same_segments(&old, &found);
    let new_windows = found.windows.len() - old.results.windows.len();
    assert!(
        new_windows > 100,
        "windows that the old version had open are final: {new_windows}"
    );
    found.assert_same(&expected.0, "the prefix and one pass");
}
