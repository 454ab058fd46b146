//! One conversation that sends as much as the shipped limits allow is derived, and its totals are exact.

use crate::support::broker::Broker;
use crate::support::now_ms;
use crate::support::otlp::{self, attribute, text};
use crate::support::replay::{read_topic, worker};
use bytes::Bytes;
use ingest::prepare::route::VALUE_BYTES_MAX;
use processor::runner::{Options, Runner};
use processor::view::View;
use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::embedded::Embedded;
use processor_log::kafka::{KafkaConfig, KafkaLog, topics};
use schemas::id::{Position, TopicPartition, raw_key};
use schemas::metric::Amount;
use schemas::record::{HEADER_WALL, NewRecord};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const DAY_MS: i64 = 86_400_000;
const CONVERSATION: &str = "large";
/// How many token records the conversation has.
const RECORDS: i64 = 64_000;
/// How many raw records hold the token records, so that each has 7.8 MB.
const MESSAGES: i64 = 4;
/// How many models the token records use by turns, so that nearly every one has a minute and model of its own.
const MODELS: i64 = 7;
/// The time from the first token record to now: a little less than the age at which times are clamped.
const SPAN_MS: i64 = 7 * DAY_MS - 3_600_000;
/// How many bytes of a token record are in an attribute that nothing reads.
const PADDING_BYTES: usize = 150;
/// How long a test waits for totals. Without optimisation they take half a minute of one core.
const WORK_MAX: Duration = Duration::from_secs(300);

/// A raw record of the conversation.
fn raw(value: Vec<u8>) -> NewRecord {
    let to = TopicPartition {
        topic: Topic::RawLogs,
        partition: 0,
    };
    NewRecord {
        to,
        key: Some(raw_key("default", CONVERSATION).into()),
        value: Some(value.into()),
        headers: vec![(HEADER_WALL.to_owned(), Bytes::from(now_ms().to_string()))],
    }
}

fn model(number: i64) -> String {
    format!("model-{}", number % MODELS)
}

/// The input tokens of a record; no two records of a model have the same number.
fn input(number: i64) -> i64 {
    1_000 + number
}

/// Token records over nearly seven days, in [`MESSAGES`] raw records.
fn a_week_of_tokens() -> Vec<NewRecord> {
    let began = now_ms() - SPAN_MS;
    let record = |number: i64| {
        let mut record = otlp::tokens(
            CONVERSATION,
            began + SPAN_MS / RECORDS * number,
            input(number),
            10,
        );
        record.attributes.retain(|pair| pair.key != "model");
        record.attributes.push(attribute("model", text(model(number))));
        record
            .attributes
            .push(attribute("padding", text("x".repeat(PADDING_BYTES))));
        record
    };
    let each = RECORDS / MESSAGES;
    let message = |number: i64| otlp::encode((number * each..(number + 1) * each).map(record).collect());
    (0..MESSAGES).map(|number| raw(message(number))).collect()
}

/// The committed sums of a counter, by the value of one label.
fn totals(view: &View, metric: &str, label: &str) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for partition in &view.partitions {
        for (series, shown) in &partition.series {
            let series = schemas::delta::Series::parse(series).unwrap();
            if let (true, Some(Amount::Count(count))) = (series.metric.def().name == metric, &shown.total) {
                let value = series.labels().find(|(of, _)| of.def().name == label);
                *sums
                    .entry(value.map_or("", |(_, value)| value).to_owned())
                    .or_default() += count;
            }
        }
    }
    sums
}

/// Runs turns of a worker until the totals are as wanted. An error of the log fails the test.
fn work_until<L: Log>(
    runner: &mut Runner<L>,
    view: &View,
    (metric, label): (&str, &str),
    wanted: &BTreeMap<String, i64>,
) {
    let deadline = Instant::now() + WORK_MAX;
    loop {
        runner.turn().unwrap();
        // The options decide about the first commit, so that it holds as much as they allow.
        if has_deltas(runner.log()) {
            runner.commit().unwrap();
        }
        let found = totals(view, metric, label);
        if found == *wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{metric}: {found:?}, not {wanted:?}");
    }
}

/// Whether a commit has written deltas.
fn has_deltas(log: &mut impl Log) -> bool {
    let partitions = log.partitions(Topic::Deltas).unwrap();
    let at = |partition| TopicPartition {
        topic: Topic::Deltas,
        partition,
    };
    (0..partitions).any(|partition| log.extent(at(partition)).unwrap().end > Position(0))
}

/// The shipped options without commits by time: a commit comes by the number of raw records, or by the shipped limits of a
/// commit.
fn one_commit(raw_records: usize) -> Options {
    Options {
        commit_interval: Duration::from_secs(3_600),
        behind_interval: Duration::from_secs(3_600),
        records_max: raw_records,
        ticks: false,
        ..Options::default()
    }
}

fn expect_a_week<L: Log>(log: L, seed: &Seed) {
    let (mut runner, view) = worker(log, seed, one_commit(usize::try_from(MESSAGES).unwrap()));
    let mut tokens = BTreeMap::new();
    for number in 0..RECORDS {
        *tokens.entry(model(number)).or_default() += input(number) + 10;
    }
    work_until(&mut runner, &view, ("tacho_tokens_total", "model"), &tokens);
    let records = totals(&view, "tacho_log_records_total", "event");
    assert_eq!(records, BTreeMap::from([("codex.sse_event".to_owned(), RECORDS)]));
    assert_eq!(
        totals(&view, "tacho_sessions_started_total", "tenant")
            .values()
            .sum::<i64>(),
        1
    );
}

fn expect_large_messages<L: Log>(log: L, seed: &Seed) {
    // A worker without ticks writes nothing to the quarantine topic.
    let options = Options {
        ticks: true,
        ..one_commit(4)
    };
    let (mut runner, view) = worker(log, seed, options);
    let wanted = BTreeMap::from([("applied".to_owned(), 2), ("quarantined".to_owned(), 2)]);
    work_until(
        &mut runner,
        &view,
        ("tacho_log_records_total", "outcome"),
        &wanted,
    );
    assert_eq!(
        totals(&view, "tacho_turns_total", "tenant").values().sum::<i64>(),
        2
    );
    let quarantined = read_topic(runner.log(), Topic::Quarantine);
    let sizes: Vec<usize> = quarantined
        .iter()
        .map(|record| record.value.as_ref().unwrap().len())
        .collect();
    assert_eq!(sizes, [VALUE_BYTES_MAX; 2]);
}

/// Four raw records of the size that ingest cuts requests to: two prompts, and two that can't be read.
fn large_messages() -> Vec<NewRecord> {
    let prompt = |number: i64| {
        let with = |padding: usize| {
            let mut record = otlp::prompt(CONVERSATION, now_ms() - number);
            record
                .attributes
                .push(attribute("padding", text("x".repeat(padding))));
            otlp::encode(vec![record])
        };
        // The size grows by as many bytes as the padding, if that grows by a little.
        let about = VALUE_BYTES_MAX - 1_000;
        let value = with(about + VALUE_BYTES_MAX - with(about).len());
        assert_eq!(value.len(), VALUE_BYTES_MAX);
        raw(value)
    };
    let unreadable = || raw(vec![0xff; VALUE_BYTES_MAX]);
    vec![prompt(1), prompt(2), unreadable(), unreadable()]
}

fn on_kafka(prefix: &str, seed: &Seed, records: Vec<NewRecord>) -> KafkaLog {
    let cluster = Cluster::plain(&Broker::shared().bootstrap(), prefix);
    topics::prepare(&cluster, seed).unwrap();
    let group = format!("{prefix}tacho");
    let mut log = KafkaLog::connect(KafkaConfig::worker(&cluster, &group, "0")).unwrap();
    log.append(records).unwrap();
    log.recover().unwrap();
    log
}

fn embedded(seed: &Seed, records: Vec<NewRecord>) -> (tempfile::TempDir, impl Log + use<>) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Embedded::open(dir.path(), seed).unwrap().handle();
    log.append(records).unwrap();
    (dir, log)
}

#[test]
fn a_week_of_one_conversation_at_once_on_the_embedded_log() {
    let seed = Seed::shipped();
    let (_dir, log) = embedded(&seed, a_week_of_tokens());
    expect_a_week(log, &seed);
}

#[test]
fn a_week_of_one_conversation_at_once_on_kafka() {
    let seed = Seed::shipped();
    expect_a_week(on_kafka("week.", &seed, a_week_of_tokens()), &seed);
}

#[test]
fn messages_just_under_the_limit_follow_each_other() {
    let seed = Seed::shipped();
    let (_dir, log) = embedded(&seed, large_messages());
    expect_large_messages(log, &seed);
    expect_large_messages(on_kafka("large.", &seed, large_messages()), &seed);
}
