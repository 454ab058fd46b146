//! A Kafka prefix that processes of commit 6f5a53d wrote is upgraded as `deploy/UPGRADING.md` says.

use super::page::{self, PageCommand};
use super::{COUNTED, LARGEST_WINDOW_MS, NEW_CONVERSATIONS, TOKENS};
use crate::support::broker::Broker;
use crate::support::old::{self, OldLog};
use crate::support::processes::{self, Launch, Process, ingest, processor};
use crate::support::replay::{Results, inputs, read_topic, worker};
use crate::support::samples::Samples;
use crate::support::{PATIENCE, eventually, now_ms};
use nix::sys::signal::Signal;
use processor::runner::Options;
use processor::sink::prometheus::{Format, body};
use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog};
use schemas::derived::WindowRow;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::time::Instant;

const PREFIX: &str = "old.";
/// The name of one of the old processors.
const NAME: &str = "a";
/// The name of the only worker of that processor. A worker of the same name need not wait for the session
/// timeout.
const WORKER: &str = "a-0";
/// A setting by which no record is deleted by age during the test, since the records are as old as the data
/// file.
const SETTINGS: [(&str, &str); 2] = [
    ("log.initial.task.delay.ms", "3600000"),
    ("log.retention.check.interval.ms", "3600000"),
];

fn reader(cluster: &Cluster) -> KafkaLog {
    KafkaLog::connect(KafkaConfig::reader(cluster, &format!("{PREFIX}tacho"))).unwrap()
}

/// Sends requests for all conversations, and one that the old version got already, and waits for totals and
/// windows.
fn go_on(door: &Process, worker: &Process, log: &mut KafkaLog, old: &OldLog) {
    let before = super::counts_of_one_pass(old);
    for (metric, count) in COUNTED.iter().zip(before) {
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
    for ((metric, count), added) in COUNTED.iter().zip(before).zip(added) {
        worker.wait_for_count(metric, &[], count + added);
    }
    let duplicates =
        |samples: &Samples| samples.count("tacho_log_records_total", &[("outcome", "duplicate")]);
    let duplicates_before = worker.metrics_when("duplicates", |samples| Ok(duplicates(samples)));
    door.logs(&super::repeated(old));
    worker.metrics_when("duplicates of an old request", |samples| {
        let records = samples.count("tacho_log_records_total", &[]) - (before[2] + added[2]);
        let repeated = duplicates(samples) - duplicates_before;
        (repeated > 0 && records >= repeated)
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

/// The results in the log and the samples that a worker without ticks shows, once they are as expected or
/// [`PATIENCE`] is over. The last ticks of the processor may have come after its last commit.
fn at_rest(cluster: &Cluster, old: &OldLog, expected: &(Results, String)) -> (Results, String) {
    let config = KafkaConfig::worker(cluster, &format!("{}tacho", cluster.derived_prefix), WORKER);
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

/// Adds the settings of a command of the page to a processor of the log's prefix.
fn with_settings(launch: Launch, command: &PageCommand) -> Launch {
    assert_eq!(
        (command.program.as_str(), command.args.len()),
        ("tacho-processor", 0)
    );
    command
        .settings
        .iter()
        .fold(launch, |launch, (name, value)| launch.env(name, value))
}

#[test]
fn a_prefix_is_derived_anew_beside_what_is_there() {
    let old = old::log("prefix");
    let broker = Broker::start_on(|data| old::unpack("prefix.files", data), &SETTINGS);
    let bootstrap = broker.bootstrap();
    let variables = [("KAFKA", bootstrap.as_str()), ("PREFIX", PREFIX)];
    let [apply, beside, alone]: [PageCommand; 3] =
        page::commands("A Kafka cluster", &variables).try_into().unwrap();

    let refused = processor(&bootstrap, PREFIX, NAME).start();
    let (status, said) = refused.ended();
    assert!(!status.success(), "{said}");
    assert!(
        said.contains("semantics 1") && said.contains("deploy/UPGRADING.md"),
        "{said}"
    );

    let applied = processes::tacho()
        .args(&apply.args)
        .args(&["--replication-factor", "1", "--allow-single-broker"])
        .run();
    let said = [applied.stdout, applied.stderr].concat();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&said));
    let door = ingest(&bootstrap, PREFIX).ready();
    let shown = with_settings(processor(&bootstrap, PREFIX, NAME), &beside).ready();
    for (metric, count) in COUNTED.iter().zip(super::counts_of_one_pass(&old)) {
        shown.wait_for_count(metric, &[], count);
    }
    end(shown);
    let shown = with_settings(processor(&bootstrap, PREFIX, NAME), &alone).ready();
    let derived_prefix = &alone.settings[0].1;
    let cluster = Cluster::plain(&bootstrap, PREFIX).deriving(derived_prefix);
    let mut log = reader(&cluster);
    go_on(&door, &shown, &mut log, &old);
    end(door);
    end(shown);

    let (expected, metrics) = super::one_pass(&old, super::all_inputs(&old, inputs(&mut log)));
    let expected = (super::without_positions(expected), metrics);
    let (found, metrics) = at_rest(&cluster, &old, &expected);
    assert_eq!(metrics, expected.1);
    found.assert_same(&expected.0, "the prefix and one pass");
    // The old rows are as they were.
    let mut before = reader(&Cluster::plain(&bootstrap, PREFIX));
    let keys: BTreeSet<_> = read_topic(&mut before, Topic::Sessions)
        .into_iter()
        .filter_map(|record| record.key)
        .collect();
    assert_eq!(keys.len(), super::rows_committed(&old));
}
