//! Cost of the whole processor over a real broker: CPU seconds of the process for a million log records, from
//! the raw topic to `/metrics`. The same run measures floors on the same topic: a bare consumer that touches
//! every byte, and one that decodes with prost. Then it measures the latency at a steady load.
//!
//! `cargo bench --bench end_to_end -- [RECORDS] [REPEATS] [LOG RECORDS A MESSAGE] [WORKERS]`: with the last
//! two, only that row is measured, and no latency. `-- commits`: only the duration of commits is measured.
//! Criterion is not used, since it can't measure another process.

mod support;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog, topics};
use processor_log::{Commit, Log, Part};
use prost::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::id::{Position, TopicPartition};
use schemas::record::{HEADER_WALL, NewRecord};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::process::broker::Broker;
use support::process::{PARTITIONS, Processor, RUN_MAX, now_ms, prepare, used};
use support::requests::Traffic;
use support::touch;

/// How many conversations the messages are spread over.
const CONVERSATIONS: u64 = 10_000;
/// How many log records a message has: a batch, and one.
const PER_MESSAGE: [usize; 2] = [50, 1];
/// How many workers the process has.
const WORKERS: [usize; 3] = [1, 2, 4];
/// How many messages a second the latency run sends, and for how long.
const STEADY: (u32, Duration) = (500, Duration::from_secs(20));

/// How many partitions a transaction writes to, and how many transactions are timed.
const TOUCHED: [i32; 4] = [4, 16, 64, 256];
const COMMITS: usize = 40;

/// The cost of one run.
struct Run {
    cpu_s: f64,
    wall_s: f64,
    rss_mib: f64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [mode, kind, bootstrap, topic, messages] = &args[..]
        && mode == "floor"
    {
        return floor(kind, bootstrap, topic, messages.parse().expect("a number"));
    }
    let number = |index: usize, default| {
        args.get(index)
            .and_then(|arg| arg.parse().ok())
            .unwrap_or(default)
    };
    let (records, repeats) = (number(0, 1_000_000), number(1, 3));
    let broker = Broker::start(&[("log.retention.check.interval.ms", "600000")]);
    let bootstrap = broker.bootstrap();
    if args.first().is_some_and(|arg| arg == "commits") {
        return commit_latency(&bootstrap);
    }
    println!("{records} log records, {repeats} repeats\n");
    println!(
        "| records a message | what | CPU s a million, least (most) | log records a second, most | RSS, MiB |"
    );
    println!("|---|---|---|---|---|");
    let only = |index: usize, value: usize| number(index, value) == value;
    for per_message in PER_MESSAGE
        .into_iter()
        .filter(|per_message| only(2, *per_message))
    {
        for workers in WORKERS.into_iter().filter(|workers| only(3, *workers)) {
            let mut rows: [(String, Vec<Run>); 3] =
                ["floor: touch", "floor: prost", ""].map(|name| (name.to_owned(), Vec::new()));
            rows[2].0 = format!("tacho-processor, {workers} workers");
            for repeat in 0..repeats {
                let prefix = format!("b{per_message}-{workers}-{repeat}.");
                let messages = fill(&bootstrap, &prefix, per_message, records);
                // The floors are measured once, since they do not depend on the number of workers.
                if workers == WORKERS[0] || args.len() > 2 {
                    rows[0].1.push(run_floor("touch", &bootstrap, &prefix, messages));
                    rows[1].1.push(run_floor("prost", &bootstrap, &prefix, messages));
                }
                rows[2]
                    .1
                    .push(run_processor(&bootstrap, &prefix, workers, records));
            }
            rows.iter()
                .filter(|(_, runs)| !runs.is_empty())
                .for_each(|(name, runs)| report(per_message, name, runs, records));
        }
    }
    if args.len() <= 2 {
        latency(&bootstrap);
        commit_latency(&bootstrap);
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn report(per_message: usize, name: &str, runs: &[Run], records: usize) {
    let millions = records as f64 / 1e6;
    let cpu = |pick: fn(f64, f64) -> f64| {
        runs.iter()
            .map(|run| run.cpu_s / millions)
            .reduce(pick)
            .unwrap_or(0.0)
    };
    let rate = runs
        .iter()
        .map(|run| records as f64 / run.wall_s)
        .fold(0.0, f64::max);
    let rss = runs.iter().map(|run| run.rss_mib).fold(0.0, f64::max);
    println!(
        "| {per_message} | {name} | {:.2} ({:.2}) | {rate:.0} | {rss:.0} |",
        cpu(f64::min),
        cpu(f64::max)
    );
}

fn producer(bootstrap: &str) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("compression.type", "lz4");
    config.create().expect("a producer")
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, key: &str, value: &[u8]) {
    let partition = ingest::sink::partition::murmur2_partition(key.as_bytes(), PARTITIONS);
    let wall = now_ms().to_string();
    let headers = OwnedHeaders::new().insert(Header {
        key: HEADER_WALL,
        value: Some(&wall),
    });
    let mut message = BaseRecord::to(topic)
        .partition(partition)
        .key(key)
        .payload(value)
        .headers(headers);
    while let Err((_, back)) = producer.send(message) {
        std::thread::sleep(Duration::from_millis(1));
        message = back;
    }
}

/// Fills a raw topic, and gives the number of messages.
fn fill(bootstrap: &str, prefix: &str, per_message: usize, records: usize) -> usize {
    prepare(bootstrap, prefix, PARTITIONS);
    let (traffic, producer) = (Traffic::recorded(per_message), producer(bootstrap));
    let topic = format!("{prefix}{}", Topic::RawLogs.name());
    let messages = records / per_message;
    for turn in 0..messages {
        let raw = traffic.message(per_message, CONVERSATIONS, now_ms(), turn as u64);
        send(&producer, &topic, &raw.key, &raw.value);
    }
    producer.flush(RUN_MAX).expect("the broker takes it all");
    messages
}

/// Reads the topic once in a new process, and gives the cost.
fn run_floor(kind: &str, bootstrap: &str, prefix: &str, messages: usize) -> Run {
    let topic = format!("{prefix}{}", Topic::RawLogs.name());
    let output = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["floor", kind, bootstrap, &topic, &messages.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("this program can be run again");
    let said = String::from_utf8(output.stdout).expect("numbers");
    let numbers: Vec<f64> = said
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect();
    Run {
        cpu_s: numbers[0],
        wall_s: numbers[1],
        rss_mib: numbers[2],
    }
}

fn floor(kind: &str, bootstrap: &str, topic: &str, messages: usize) {
    let began = Instant::now();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "floor")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("partitions can be assigned");
    let mut seen = 0;
    while seen < messages {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else {
            continue;
        };
        let message = message.expect("the broker gives it out");
        let value = message.payload().unwrap_or_default();
        match kind {
            "prost" => drop(black_box(
                ExportLogsServiceRequest::decode(value).expect("a request"),
            )),
            _ => drop(black_box(touch(value))),
        }
        seen += 1;
    }
    let (cpu_s, rss_mib) = used("self");
    println!("{cpu_s} {} {rss_mib}", began.elapsed().as_secs_f64());
}

fn run_processor(bootstrap: &str, prefix: &str, workers: usize, records: usize) -> Run {
    let began = Instant::now();
    let processor = Processor::start(bootstrap, prefix, workers);
    processor.wait_for(records);
    let (cpu_s, rss_mib) = used(&processor.0.id().to_string());
    Run {
        cpu_s,
        wall_s: began.elapsed().as_secs_f64(),
        rss_mib,
    }
}

/// Measures the time from the append of a raw record to the commit that made it visible, at a steady load.
fn latency(bootstrap: &str) {
    let (rate, length) = STEADY;
    let prefix = "steady.";
    prepare(bootstrap, prefix, PARTITIONS);
    let processor = Processor::start(bootstrap, prefix, 1);
    let (traffic, producer) = (Traffic::recorded(10), producer(bootstrap));
    let topic = format!("{prefix}{}", Topic::RawLogs.name());
    let began = Instant::now();
    let mut turn: u32 = 0;
    while began.elapsed() < length {
        let raw = traffic.message(10, CONVERSATIONS, now_ms(), u64::from(turn));
        send(&producer, &topic, &raw.key, &raw.value);
        turn += 1;
        std::thread::sleep((Duration::from_secs(1) * turn / rate).saturating_sub(began.elapsed()));
    }
    processor.wait_for(usize::try_from(turn).expect("it fits") * 10);
    println!(
        "\n{} log records a second, one worker: raw append to visible, commits by time:",
        rate * 10
    );
    let name = "tacho_end_to_end_latency_seconds";
    let all = processor.sum(&format!("{name}_bucket{{le=\"+Inf\"}}"));
    for bound in ["0.1", "0.25", "0.5", "1", "2"] {
        println!(
            "- within {bound} s: {:.1} %",
            100.0 * processor.sum(&format!("{name}_bucket{{le=\"{bound}\"}}")) / all
        );
    }
}

/// Measures how long a commit takes by the number of partitions that it writes to, with one small record to
/// each.
fn commit_latency(bootstrap: &str) {
    let prefix = "touched.";
    let cluster = Cluster::plain(bootstrap, prefix);
    let most = TOUCHED.into_iter().max().unwrap_or_default();
    topics::prepare(
        &cluster,
        &Seed {
            raw_partitions: most,
            ..Seed::shipped()
        },
    )
    .expect("the topics can be made");
    let mut log = KafkaLog::connect(KafkaConfig::worker(
        &cluster,
        &format!("{prefix}commits"),
        "bench",
    ))
    .expect("the broker answers");
    log.recover().expect("the broker answers");
    println!("\nA commit by partitions written to, {COMMITS} each:");
    for count in TOUCHED {
        let records = || (0..count).map(record).collect();
        let mut took: Vec<Duration> = Vec::new();
        // The first commit of each size is left out, since the client does not know the leaders of the
        // partitions yet.
        for _ in 0..=COMMITS {
            let began = Instant::now();
            let part = Part {
                input: TopicPartition {
                    topic: Topic::RawLogs,
                    partition: 0,
                },
                position: Position(0),
                records: records(),
            };
            log.commit(Commit { parts: vec![part] })
                .expect("the broker commits");
            took.push(began.elapsed());
        }
        took.remove(0);
        took.sort();
        println!(
            "- {count}: median {} ms, 95th percentile {} ms",
            took[COMMITS / 2].as_millis(),
            took[COMMITS * 95 / 100].as_millis()
        );
    }
}

fn record(partition: i32) -> NewRecord {
    let to = TopicPartition {
        topic: Topic::SessionsChangelog,
        partition,
    };
    NewRecord {
        to,
        key: Some("bench".into()),
        value: Some(vec![0; 200].into()),
        headers: Vec::new(),
    }
}
