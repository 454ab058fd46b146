//! The quarantine: a record that can't be derived is there once, with the reason, and can be sent again once it is mended.

use crate::support::broker::Broker;
use crate::support::processes::{self, Process, tacho};
use crate::support::replay::read_topic;
use crate::support::tacho::Start;
use crate::support::{now_ms, otlp};
use bytes::Bytes;
use nix::sys::signal::Signal;
use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::embedded::Embedded;
use processor_log::kafka::{KafkaConfig, KafkaLog};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::id::TopicPartition;
use schemas::record::{
    HEADER_KEY, HEADER_ORIGIN, HEADER_REASON, HEADER_RETRIED, HEADER_RETRY_OF, HEADER_TENANT, HEADER_WALL,
    NewRecord, Record,
};
use schemas::settings::Seed;
use schemas::topic::Topic;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Output;
use std::time::Duration;

/// Bytes with an escape sequence, which must not reach a terminal.
const GARBAGE: &[u8] = b"\xff\x1b[31m no request";

/// A prefix on a cluster, and a foreign producer.
struct Place {
    bootstrap: String,
    prefix: &'static str,
    producer: BaseProducer,
}

impl Place {
    fn new(prefix: &'static str) -> Self {
        let bootstrap = Broker::shared().bootstrap();
        let args = [
            "topics",
            "apply",
            "--allow-single-broker",
            "--kafka",
            &bootstrap,
            "--prefix",
            prefix,
            "--raw-partitions",
            "3",
        ];
        let output = tacho().args(&args).run();
        assert!(output.status.success(), "{output:?}");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .create()
            .unwrap();
        Self {
            bootstrap,
            prefix,
            producer,
        }
    }

    fn ingest(&self, body_bytes_max: &str) -> Process {
        let ingest = processes::ingest(&self.bootstrap, self.prefix).set("inbox.session_timeout", "6s");
        ingest.set("limits.body_bytes_max", body_bytes_max).ready()
    }

    fn write(&self, topic: Topic, key: &str, value: &[u8]) {
        let (name, wall) = (format!("{}{}", self.prefix, topic.name()), now_ms().to_string());
        let headers = OwnedHeaders::new().insert(Header {
            key: HEADER_WALL,
            value: Some(&wall),
        });
        self.producer
            .send(
                BaseRecord::to(&name)
                    .key(key)
                    .payload(value)
                    .partition(1)
                    .headers(headers),
            )
            .map_err(|(error, _)| error)
            .unwrap();
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    fn quarantine(&self, args: &[&str]) -> Output {
        let at = ["--kafka", &self.bootstrap, "--prefix", self.prefix];
        tacho().args(&["quarantine"]).args(args).args(&at).run()
    }

    /// Runs a command, which must succeed, and gives its output.
    fn said(&self, args: &[&str]) -> String {
        let output = self.quarantine(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn listed(&self, args: &[&str]) -> Vec<Value> {
        let text = self.said(&[&["list", "--json"], args].concat());
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn read(&self, topic: Topic) -> Vec<Record> {
        let config = KafkaConfig::reader(
            &Cluster::plain(&self.bootstrap, self.prefix),
            &format!("{}reader", self.prefix),
        );
        read_topic(&mut KafkaLog::connect(config).unwrap(), topic)
    }
}

fn drained(process: &Process, count: i64) {
    process.wait_for_count("tacho_inbox_records_total", &[("signal", "logs")], count);
}

fn end(process: Process) {
    process.signal(Signal::SIGTERM);
    let (status, said) = process.ended();
    assert_eq!(status.code(), Some(0), "{said}");
}

fn header(record: &Record, name: &str) -> String {
    String::from_utf8(
        record
            .header(name)
            .unwrap_or_else(|| panic!("no {name}: {record:?}"))
            .to_vec(),
    )
    .unwrap()
}

#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
#[test]
fn what_was_too_large_passes_once_the_limit_is_raised() {
    let place = Place::new("poison.");
    let worker = processes::processor(&place.bootstrap, place.prefix, "one").ready();
    let strict = place.ingest("2KiB");
    let mut large = otlp::prompt("large", now_ms());
    large
        .attributes
        .push(otlp::attribute("noise", otlp::text("x".repeat(3_000))));
    let large = otlp::encode(vec![large]);
    place.write(Topic::InboxLogs, "", GARBAGE);
    place.write(Topic::InboxLogs, "", &large);
    drained(&strict, 2);
    end(strict);

    let entries = place.listed(&[]);
    let told = |entry: &Value| {
        ["offset", "tenant", "signal", "reason", "origin", "bytes"]
            .map(|name| entry[name].to_string())
            .join(" ")
    };
    let wanted = [
        format!(
            "0 \"default\" \"logs\" \"protobuf\" \"codex.inbox.logs.v1/1@0\" {}",
            GARBAGE.len()
        ),
        format!(
            "1 \"default\" \"logs\" \"body_size\" \"codex.inbox.logs.v1/1@1\" {}",
            large.len()
        ),
    ];
    assert_eq!(entries.iter().map(told).collect::<Vec<_>>(), wanted);
    assert_eq!(place.listed(&["--reason", "body_size"]).len(), 1);
    assert_eq!(place.listed(&["--since", "1h", "--limit", "1"])[0]["offset"], 1);
    let lines = place.said(&["list"]);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_eq!(place.quarantine(&["show", "0", "--raw"]).stdout, GARBAGE);
    let dump = place.said(&["show", "0"]);
    assert!(dump.contains("ff 1b 5b 33") && !dump.contains('\x1b'), "{dump}");
    assert!(place.said(&["show", "1"]).contains("\"stringValue\": \"large\""));

    let door = place.ingest("16MiB");
    let sent = place.said(&["retry", "--reason", "body_size"]);
    assert!(
        sent.starts_with("1 sent again to codex.inbox.logs.v1/1@2\n"),
        "{sent}"
    );
    worker.wait_for_count("tacho_turns_total", &[], 1);
    let raw = place.read(Topic::RawLogs);
    let passed: Vec<_> = raw
        .iter()
        .filter(|record| record.header(HEADER_RETRY_OF).is_some())
        .collect();
    assert_eq!(passed.len(), 1);
    assert_eq!(header(passed[0], HEADER_RETRY_OF), "1 codex.inbox.logs.v1/1@1");

    // A record is sent a second time only with a flag, and its log records are duplicates then.
    let sent = place.said(&["retry", "--reason", "body_size"]);
    assert!(
        sent.contains("1 was sent again already, to codex.inbox.logs.v1/1@2")
            && sent.ends_with("0 sent again, 1 left out\n"),
        "{sent}"
    );
    assert_eq!(place.quarantine(&["retry", "1"]).status.code(), Some(1));
    assert_eq!(place.quarantine(&["retry", "7"]).status.code(), Some(1));
    assert!(
        place
            .said(&["retry", "1", "--again"])
            .starts_with("1 sent again to codex.inbox.logs.v1/1@3\n")
    );
    worker.wait_for_count("tacho_log_records_total", &[("outcome", "duplicate")], 1);
    worker.wait_for_count("tacho_turns_total", &[], 1);

    // A record that is no request is quarantined again, and names the first record.
    place.said(&["retry", "0"]);
    drained(&door, 3);
    let entries = place.listed(&["--reason", "protobuf"]);
    let retries: Vec<_> = entries.iter().map(|entry| entry["retry_of"].as_str()).collect();
    assert_eq!(retries, [None, Some("0 codex.inbox.logs.v1/1@0")]);
    assert_eq!(entries[0]["retried_to"], "codex.inbox.logs.v1/0@0");
    assert_eq!(
        place
            .read(Topic::Quarantine)
            .iter()
            .filter(|record| record.header(HEADER_RETRIED).is_some())
            .count(),
        3
    );
    end(door);
    end(worker);
}

#[test]
fn raw_records_under_a_wrong_key_are_quarantined_once_whoever_dies() {
    const RECORDS: usize = 300;
    let place = Place::new("misrouted.");
    let outcome = |worker: &Process, count: i64| {
        worker.wait_for_count("tacho_log_records_total", &[("outcome", "quarantined")], count);
    };
    let mut worker = processes::processor(&place.bootstrap, place.prefix, "one")
        .set("group.session_timeout", "6s")
        .ready();
    for number in 0..RECORDS {
        let record = otlp::encode(vec![otlp::prompt(&format!("c{number}"), now_ms())]);
        place.write(Topic::RawLogs, "default/somebody-else", &record);
        if number % 100 == 99 {
            worker.signal(Signal::SIGKILL);
            drop(worker);
            worker = processes::processor(&place.bootstrap, place.prefix, "one")
                .set("group.session_timeout", "6s")
                .ready();
        }
    }
    outcome(&worker, i64::try_from(RECORDS).unwrap());
    let kept = place.read(Topic::Quarantine);
    assert_eq!(kept.len(), RECORDS);
    let origins: BTreeSet<String> = kept.iter().map(|record| header(record, HEADER_ORIGIN)).collect();
    assert_eq!(origins.len(), RECORDS);
    for record in &kept {
        let headers = [HEADER_REASON, HEADER_TENANT, HEADER_KEY].map(|name| header(record, name));
        assert_eq!(headers, ["misrouted", "default", "default/somebody-else"]);
        assert_eq!(record.key.as_deref(), Some(&b"misrouted"[..]));
    }

    // Records that go through the inbox get the right keys.
    let door = place.ingest("16MiB");
    let sent = place.said(&["retry", "--all"]);
    assert!(
        sent.ends_with(&format!("{RECORDS} sent again, 0 left out\n")),
        "{sent}"
    );
    worker.wait_for_count("tacho_turns_total", &[], i64::try_from(RECORDS).unwrap());
    outcome(&worker, i64::try_from(RECORDS).unwrap());
    let raw = place.read(Topic::RawLogs);
    let from = |record: &&Record| record.header(HEADER_RETRY_OF).is_some();
    let keys: BTreeSet<_> = raw
        .iter()
        .filter(from)
        .map(|record| record.key.clone().unwrap())
        .collect();
    assert_eq!(keys.len(), RECORDS);
    assert!(
        place
            .listed(&[])
            .iter()
            .all(|entry| entry["retried_to"].is_string())
    );
    end(door);
    end(worker);
}

/// The embedded log has no inbox, so its quarantined records are sent again to the port for OTLP.
#[test]
fn the_embedded_log_has_a_quarantine_too() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = otlp::encode(vec![otlp::prompt("c", now_ms())]);
    let raw = |key: &'static str, value: &[u8]| NewRecord {
        to: TopicPartition {
            topic: Topic::RawLogs,
            partition: 0,
        },
        key: Some(Bytes::from_static(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value)),
        headers: vec![(HEADER_WALL.to_owned(), Bytes::from(now_ms().to_string()))],
    };
    let mut log = Embedded::open(dir.path(), &Seed::shipped()).unwrap().handle();
    log.append(vec![raw("default/other", &bytes), raw("default/c", GARBAGE)])
        .unwrap();
    drop(log);
    let quarantine = |args: &[&str]| {
        tacho()
            .args(&["quarantine"])
            .args(args)
            .args(&["--data".as_ref(), dir.path().as_os_str()])
            .run()
    };
    let listed = || {
        let output = quarantine(&["list", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let entry = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let told = |entry: Value| {
            ["reason", "origin", "key"]
                .map(|name| entry[name].as_str().unwrap().to_owned())
                .join(" ")
        };
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(entry)
            .map(told)
            .collect::<Vec<_>>()
    };
    let wanted = [
        "misrouted codex.raw.logs.v1/0@0 default/other",
        "undecodable codex.raw.logs.v1/0@1 default/c",
    ];
    for _ in 0..2 {
        let running = Start::data(dir.path()).ready();
        running.wait_for_count("tacho_log_records_total", &[("outcome", "quarantined")], 2);
        assert_eq!(listed(), wanted, "the list through the running process differs");
        drop(running);
        assert_eq!(listed(), wanted, "the list from the directory differs");
    }
    let refused = quarantine(&["retry", "0"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("show OFFSET --raw"),
        "{refused:?}"
    );
    let running = Start::data(dir.path()).ready();
    let kept = quarantine(&["show", "0", "--raw"]);
    assert_eq!(kept.stdout, bytes);
    running.logs(&kept.stdout);
    running.wait_for_count("tacho_turns_total", &[], 1);
}
