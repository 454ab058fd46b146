//! A Kafka prefix that processes of commit 6f5a53d wrote is restored and continued.

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
/// The name of the only worker of that processor. A worker of the same name need not wait for the session timeout.
const WORKER: &str = "a-0";
/// A setting by which no record is deleted by age during the test, since the records are as old as the data file.
const SETTINGS: [(&str, &str); 2] = [
    ("log.initial.task.delay.ms", "3600000"),
    ("log.retention.check.interval.ms", "3600000"),
];

fn reader(cluster: &Cluster) -> KafkaLog {
    KafkaLog::connect(KafkaConfig::reader(cluster, &format!("{PREFIX}tacho"))).unwrap()
}

/// How many raw records are not committed.
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

/// Sends requests for all conversations, and one that the old version got already, and waits for totals and windows.
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

/// The results in the log and the samples that a worker without ticks shows, once they are as expected or [`PATIENCE`] is over.
/// The last ticks of the processor may have come after its last commit.
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
    assert!(
        inputs(&mut log) == old.inputs,
        "the inputs under the prefix are not the old ones"
    );
    assert!(
        unread(&mut log) >= 10,
        "the old version had derived everything before it ended"
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
        "windows that were open in the old version are not final: {new_windows}"
    );
    found.assert_same(&expected.0, "the prefix and one pass");
}
