//! Foreign writers: what they write to the inbox topics is derived once, whichever ingest dies or sleeps meanwhile.

use crate::support::broker::Broker;
use crate::support::processes::{self, Process, tacho};
use crate::support::replay::read_topic;
use crate::support::samples::Samples;
use crate::support::traffic::Random;
use crate::support::{eventually, now_ms, otlp};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog};
use prost::Message;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::origin::Origin;
use schemas::record::Record;
use schemas::topic::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A secret, which must not be in any topic but the inbox.
const PLANTED: &str = "Zx7canary-9Qv";
const CONVERSATIONS: usize = 40;
/// A record that is no request.
const GARBAGE: &[u8] = b"\xff\xff no request at all";
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

fn apply(bootstrap: &str, prefix: &str) {
    let args = [
        "topics",
        "apply",
        "--allow-single-broker",
        "--kafka",
        bootstrap,
        "--prefix",
        prefix,
        "--raw-partitions",
        "3",
    ];
    let output = tacho().args(&args).run();
    assert!(output.status.success(), "{output:?}");
}

fn ingest(bootstrap: &str, prefix: &str) -> Process {
    let timeout = format!("{}s", SESSION_TIMEOUT.as_secs());
    processes::ingest(bootstrap, prefix)
        .set("inbox.session_timeout", &timeout)
        .ready()
}

/// A foreign writer of the inbox topics.
struct Writer {
    producer: BaseProducer,
    prefix: String,
    /// What a foreign writer has sent: log records by kind, and records that are no requests.
    sent: BTreeMap<&'static str, i64>,
    unique: i64,
}

impl Writer {
    /// A writer whose records have numbers from `unique` on.
    fn new(bootstrap: &str, prefix: &str, unique: i64) -> Self {
        let mut config = ClientConfig::new();
        let producer = config
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("message.max.bytes", "8388608")
            .create()
            .unwrap();
        Self {
            producer,
            prefix: prefix.to_owned(),
            sent: BTreeMap::new(),
            unique,
        }
    }

    fn count(&mut self, what: &'static str, count: i64) {
        *self.sent.entry(what).or_default() += count;
    }

    fn write(&self, topic: Topic, partition: usize, value: &[u8]) {
        let name = format!("{}{}", self.prefix, topic.name());
        let record = BaseRecord::<(), [u8]>::to(&name)
            .payload(value)
            .partition(i32::try_from(partition % 4).unwrap());
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// A number that no other record has, since equal records count once.
    fn unique(&mut self, mut record: LogRecord) -> LogRecord {
        self.unique += 1;
        record
            .attributes
            .push(otlp::attribute("number", otlp::int(self.unique)));
        record
    }

    /// A request with several conversations: with private texts, with records that have no dedup mark, and with tokens.
    fn request(&mut self, number: usize) -> Vec<u8> {
        let mut records = Vec::new();
        for further in 0..3 {
            let conversation = format!("c{}", (number * 7 + further * 3) % CONVERSATIONS);
            let now = now_ms();
            let mut prompt = otlp::prompt(&conversation, now);
            prompt
                .attributes
                .push(otlp::attribute("prompt", otlp::text(format!("say {PLANTED}"))));
            prompt.body = Some(AnyValue {
                value: Some(otlp::text(PLANTED)),
            });
            let noise = otlp::record(
                "codex.sse_event",
                &conversation,
                now,
                vec![("event.kind", otlp::text("response.created"))],
            );
            for record in [prompt, noise, otlp::tokens(&conversation, now, 10, 1)] {
                records.push(self.unique(record));
            }
            self.count("tacho_turns_total", 1);
            self.count("tacho_tokens_total", 11);
            self.count("log records", 3);
        }
        otlp::encode(records)
    }

    fn burst(&mut self, requests: usize) {
        for number in 0..requests {
            let request = self.request(number);
            self.write(Topic::InboxLogs, number, &request);
            if number % 100 == 0 {
                self.write(Topic::InboxLogs, number, GARBAGE);
                self.write(Topic::InboxLogs, number, b"");
                self.write(Topic::InboxTraces, number, &traces());
                self.write(Topic::InboxMetrics, number, &metrics());
                self.count("garbage", 1);
                self.count("others", 1);
            }
        }
        self.flush();
    }

    /// Writes in small bursts until `stop` is set.
    fn write_on(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) {
            self.burst(10);
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }
}

fn traces() -> Vec<u8> {
    let attributes = vec![otlp::attribute("prompt", otlp::text(PLANTED))];
    let span = Span {
        trace_id: vec![7; 16],
        span_id: vec![7; 8],
        name: "span".to_owned(),
        attributes,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

fn metrics() -> Vec<u8> {
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![Metric {
            name: "m".to_owned(),
            ..Metric::default()
        }],
        ..ScopeMetrics::default()
    }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    }
    .encode_to_vec()
}

/// Waits until all that was sent is derived once.
fn expect(worker: &Process, sent: &BTreeMap<&'static str, i64>) {
    worker.metrics_when("what was sent", |samples| {
        let once = |name: &'static str| samples.count(name, &[]);
        let of = |outcome| samples.count("tacho_log_records_total", &[("outcome", outcome)]);
        let records = once("tacho_log_records_total") - of("duplicate");
        let is = [
            once("tacho_turns_total"),
            once("tacho_tokens_total"),
            records,
            of("quarantined"),
        ];
        let wanted = [
            sent["tacho_turns_total"],
            sent["tacho_tokens_total"],
            sent["log records"],
            0,
        ];
        if is == wanted {
            Ok(())
        } else {
            Err(format!("{is:?}, and not {wanted:?}"))
        }
    });
}

fn drained(process: &Process) -> i64 {
    process.metrics_when("a scrape", |samples| {
        Ok(samples.count("tacho_inbox_records_total", &[("signal", "logs")]))
    })
}

/// Waits until one of the processes has drained further records, and gives its index.
fn busy(processes: &[Process]) -> usize {
    let before: Vec<i64> = processes.iter().map(drained).collect();
    eventually("drained records", || {
        let now: Vec<i64> = processes.iter().map(drained).collect();
        let said = || processes.iter().map(Process::said).collect::<String>();
        (0..now.len())
            .find(|one| now[*one] > before[*one])
            .ok_or_else(|| format!("{now:?}; {}", said()))
    })
}

fn end(process: Process) {
    process.signal(Signal::SIGTERM);
    let (status, said) = process.ended();
    assert_eq!(status.code(), Some(0), "{said}");
}

#[test]
fn foreign_records_count_once_whoever_dies_or_sleeps() {
    const PREFIX: &str = "inbox.";
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, PREFIX);
    let worker = processes::processor(&bootstrap, PREFIX, "one").ready();
    // These records are written before any ingest runs, since a first start drains from the start of the log.
    let mut writer = Writer::new(&bootstrap, PREFIX, 0);
    writer.burst(500);
    let mut ingests: Vec<Process> = (0..3).map(|_| ingest(&bootstrap, PREFIX)).collect();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let other = Writer::new(&bootstrap, PREFIX, 1 << 40);
        let other = scope.spawn(|| other.write_on(&stop));
        busy(&ingests);
        writer.burst(2_000);
        let killed = ingests.remove(busy(&ingests));
        killed.signal(Signal::SIGKILL);
        drop(killed);
        // The process sleeps for longer than its session timeout, so that the others drain again what it has not committed.
        let asleep = ingests.remove(busy(&ingests));
        asleep.signal(Signal::SIGSTOP);
        ingests.push(ingest(&bootstrap, PREFIX));
        std::thread::sleep(SESSION_TIMEOUT);
        busy(&ingests);
        asleep.signal(Signal::SIGCONT);
        ingests.push(asleep);
        writer.burst(500);
        busy(&ingests);
        stop.store(true, Ordering::Relaxed);
        let mut sent = other.join().unwrap().sent;
        writer
            .sent
            .iter()
            .for_each(|(what, count)| *sent.get_mut(what).unwrap() += count);
        sent
    });
    expect(&worker, &sent);
    eventually("an inbox without lag", || {
        let lag = |process: &Process| {
            process.metrics_when("a scrape", |samples| {
                Ok(samples.count("tacho_inbox_lag_records", &[]))
            })
        };
        let lags: Vec<i64> = ingests.iter().map(lag).collect();
        if lags.iter().sum::<i64>() == 0 {
            Ok(())
        } else {
            Err(format!(
                "{lags:?}; {}",
                ingests
                    .iter()
                    .map(|process| process.said() + &process.get("/metrics").unwrap().1)
                    .collect::<String>()
            ))
        }
    });
    ingests.into_iter().for_each(end);
    expect(&worker, &sent);
    end(worker);
    look_at_topics(&bootstrap, PREFIX, &sent);
}

/// Checks that drained records hold no secret and have an origin, and that the quarantine topic has what is no request.
fn look_at_topics(bootstrap: &str, prefix: &str, sent: &BTreeMap<&'static str, i64>) {
    let mut log = KafkaLog::connect(KafkaConfig::reader(
        &Cluster::plain(bootstrap, prefix),
        &format!("{prefix}reader"),
    ))
    .unwrap();
    let header = |record: &Record, name| {
        record
            .header(name)
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    };
    for (topic, least) in [
        (Topic::RawLogs, sent["log records"] / 9),
        (Topic::RawTraces, sent["others"]),
        (Topic::RawMetrics, sent["others"]),
    ] {
        let mut records = read_topic(&mut log, topic);
        records.retain(|record| record.header("tacho-tick").is_none());
        assert!(
            i64::try_from(records.len()).unwrap() >= least,
            "{}: {}",
            topic.name(),
            records.len()
        );
        for record in &records {
            let bytes = record.value.as_deref().unwrap();
            assert!(
                !bytes
                    .windows(PLANTED.len())
                    .any(|part| part == PLANTED.as_bytes()),
                "{} holds the text",
                topic.name()
            );
            let origin = header(record, "tacho-origin").unwrap();
            let origin = Origin::parse(&origin).unwrap_or_else(|| panic!("{origin}"));
            let inbox = topic.name().replace("raw", "inbox");
            assert!(
                origin.source.starts_with(&inbox) && origin.stamped_ms > 0,
                "{origin}"
            );
            assert!(record.header_number("tacho-wall").is_some());
        }
    }
    let mut garbage = BTreeSet::new();
    for record in read_topic(&mut log, Topic::Quarantine) {
        assert_eq!(record.value.as_deref(), Some(GARBAGE));
        assert_eq!(header(&record, "tacho-reason").as_deref(), Some("protobuf"));
        let origin = header(&record, "tacho-origin").unwrap();
        assert!(origin.starts_with("codex.inbox.logs.v1/"), "{origin}");
        // A record can be in the quarantine topic twice after a crash; its origin tells which record it is.
        garbage.insert(origin);
    }
    assert_eq!(i64::try_from(garbage.len()).unwrap(), sent["garbage"]);
}

#[test]
fn ingest_runs_without_an_inbox_and_finds_it_later() {
    const PREFIX: &str = "lateinbox.";
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, PREFIX);
    let names = ["logs", "traces", "metrics"].map(|signal| format!("{PREFIX}codex.inbox.{signal}.v1"));
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .create()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let gone = runtime
        .block_on(admin.delete_topics(&names.each_ref().map(String::as_str), &AdminOptions::new()))
        .unwrap();
    assert!(gone.iter().all(Result::is_ok), "{gone:?}");

    let door = ingest(&bootstrap, PREFIX);
    door.logs(&otlp::encode(vec![otlp::prompt("direct", now_ms())]));
    eventually("a word about the topics", || {
        let said = door.said();
        if said.contains("not all inbox topics are there") {
            Ok(())
        } else {
            Err(said)
        }
    });
    apply(&bootstrap, PREFIX);
    let mut writer = Writer::new(&bootstrap, PREFIX, 0);
    let request = writer.request(1);
    writer.write(Topic::InboxLogs, 0, &request);
    writer.flush();
    eventually("drained records", || {
        if drained(&door) == 1 {
            Ok(())
        } else {
            Err(door.said())
        }
    });
    assert_eq!(
        door.said().matches("not all inbox topics are there").count(),
        1,
        "told once: {}",
        door.said()
    );
    assert_eq!(door.get("/readyz").unwrap().0, 200);
    end(door);
}

#[test]
fn what_the_brokers_turn_down_is_quarantined_and_passed() {
    const PREFIX: &str = "largeinbox.";
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, PREFIX);
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .create()
        .unwrap();
    let raw = format!("{PREFIX}{}", Topic::RawLogs.name());
    let settings = AlterConfig::new(ResourceSpecifier::Topic(&raw)).set("max.message.bytes", "1500000");
    let settings = settings.set("message.timestamp.type", "LogAppendTime");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let altered = runtime
        .block_on(admin.alter_configs([&settings], &AdminOptions::new()))
        .unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");

    let mut writer = Writer::new(&bootstrap, PREFIX, 0);
    let mut random = Random(1);
    // The bytes are random, so that lz4 can't compress them.
    let noise: String = (0..3_000_000)
        .map(|_| char::from(b'!' + u8::try_from(random.below(90)).unwrap()))
        .collect();
    let mut large = otlp::prompt("large", now_ms());
    large.attributes.push(otlp::attribute("noise", otlp::text(noise)));
    let [before, after] = [1, 2].map(|number| writer.request(number));
    for request in [before, otlp::encode(vec![large]), after] {
        writer.write(Topic::InboxLogs, 0, &request);
    }
    writer.flush();
    let door = ingest(&bootstrap, PREFIX);
    eventually("all that was written", || {
        if drained(&door) == 3 {
            Ok(())
        } else {
            Err(door.said())
        }
    });
    let quarantined =
        |samples: &Samples| samples.count("tacho_inbox_quarantined_total", &[("reason", "message_size")]);
    assert_eq!(
        door.metrics_when("a scrape", |samples| Ok(quarantined(samples))),
        1
    );
    end(door);
    let mut log = KafkaLog::connect(KafkaConfig::reader(
        &Cluster::plain(&bootstrap, PREFIX),
        &format!("{PREFIX}reader"),
    ))
    .unwrap();
    let kept = read_topic(&mut log, Topic::Quarantine);
    assert_eq!(kept.len(), 1);
    assert!(
        kept[0]
            .value
            .as_deref()
            .is_some_and(|value| value.len() > 3_000_000)
    );
    let conversations: BTreeSet<_> = read_topic(&mut log, Topic::RawLogs)
        .into_iter()
        .map(|record| record.key.unwrap())
        .collect();
    assert_eq!(
        conversations.len(),
        6,
        "the two requests around the large record have three conversations each"
    );
}
