//! The privacy policy changes while everything runs, and nothing that is derived changes with it.

use crate::support::broker::Broker;
use crate::support::fixtures;
use crate::support::processes::{Process, ingest, tacho};
use crate::support::replay::{read_topic, replay};
use crate::support::tacho::{Start, Tacho};
use crate::support::traffic::quick_seed;
use crate::support::{eventually, now_ms, otlp};
use bytes::Bytes;
use ingest::{Signal, murmur2_partition, privacy, route::route};
use processor::log::Log;
use processor::log::embedded::Embedded;
use processor::log::kafka::{KafkaConfig, KafkaLog};
use processor::log::simulated::SimCluster;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::cluster::Cluster;
use schemas::control::EPOCH_KEY;
use schemas::id::TopicPartition;
use schemas::privacy::Kept;
use schemas::record::{HEADER_POLICY, HEADER_WALL, NewRecord, Record};
use schemas::settings::Seed;
use schemas::time::AppendTime;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

const PREFIX: &str = "policy.";
/// What is in every prompt, and in every output.
const PROMPT: &str = "Zx7prompt-9Qv";
const OUTPUT: &str = "Zx7output-9Qv";
/// Prompts are kept, outputs not.
const KEEP: &str = "[privacy.default]\nprompt = \"keep\"\n";
const DROP: &str = "[privacy]\n";
/// The ways in, and the conversations of what comes by them.
const WAYS: [&str; 3] = ["ingest", "tacho", "inbox"];

fn request(conversation: &str) -> Vec<u8> {
    let mut record = otlp::prompt(conversation, now_ms());
    record.attributes.push(otlp::attribute("prompt", otlp::text(PROMPT)));
    record.attributes.push(otlp::attribute("output", otlp::text(OUTPUT)));
    otlp::encode(vec![record])
}

/// `tacho control apply`: the epoch.
fn apply(policy: &str, place: &[&OsStr]) -> i64 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    let output = tacho().args(&["control", "apply", file.to_str().unwrap()]).args(place).run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.strip_prefix("epoch ").and_then(|said| said.split(':').next()).unwrap().parse().unwrap()
}

fn holds(record: &Record, text: &str) -> bool {
    record.value.as_deref().unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes())
}

/// The raw records that are no ticks: each holds what the policy of its header keeps. Gives conversation and policy.
fn checked(log: &mut impl Log, keeping: i64) -> Vec<(String, i64)> {
    let records = read_topic(log, Topic::RawLogs).into_iter().filter(|record| record.header("tacho-tick").is_none());
    records
        .map(|record| {
            let epoch = record.header_number(HEADER_POLICY).unwrap();
            assert_eq!(holds(&record, PROMPT), epoch == keeping, "a prompt under epoch {epoch}");
            assert!(!holds(&record, OUTPUT), "an output under epoch {epoch}");
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            (key.strip_prefix("default/").unwrap().to_owned(), epoch)
        })
        .collect()
}

struct Running {
    ingest: Process,
    tacho: Tacho,
    inbox: BaseProducer,
    log: KafkaLog,
}

impl Running {
    /// Sends by all ways until what comes by each of them is cleaned under that epoch.
    fn send_until(&mut self, epoch: i64, keeping: i64) {
        eventually("records under a new policy", || {
            self.ingest.logs(&request("ingest"));
            self.tacho.logs(&request("tacho"));
            let (name, value) = (format!("{PREFIX}{}", Topic::InboxLogs.name()), request("inbox"));
            self.inbox.send(BaseRecord::<(), [u8]>::to(&name).payload(&value)).map_err(|(error, _)| error).unwrap();
            self.inbox.flush(Duration::from_secs(30)).unwrap();
            let found: BTreeSet<(String, i64)> = checked(&mut self.log, keeping).into_iter().collect();
            match WAYS.iter().all(|way| found.contains(&((*way).to_owned(), epoch))) {
                true => Ok(()),
                false => Err(format!("{found:?}, not epoch {epoch} by {WAYS:?}")),
            }
        });
    }
}

#[test]
fn a_policy_holds_for_what_comes_later_without_a_restart() {
    let bootstrap = Broker::shared().bootstrap();
    let place = ["--kafka", &bootstrap, "--prefix", PREFIX];
    let made = tacho().args(&["topics", "apply", "--allow-single-broker", "--raw-partitions", "3"]).args(&place).run();
    assert!(made.status.success(), "{made:?}");
    let config = KafkaConfig::reader(&Cluster::plain(&bootstrap, PREFIX), &format!("{PREFIX}reader"));
    let mut running = Running {
        ingest: ingest(&bootstrap, PREFIX).ready(),
        tacho: Start::kafka(&bootstrap, PREFIX).ready(),
        inbox: ClientConfig::new().set("bootstrap.servers", &bootstrap).create().unwrap(),
        log: KafkaLog::connect(config).unwrap(),
    };
    let place = place.map(OsStr::new);
    running.send_until(0, -1);
    let keeping = apply(KEEP, &place);
    running.send_until(keeping, keeping);
    let dropping = apply(DROP, &place);
    assert!(dropping > keeping);
    running.send_until(dropping, keeping);

    // An epoch that this build can't read: the policy stays. (A processor stops at it.)
    let Running { ingest, tacho, mut log, .. } = running;
    let (status, said) = tacho.end();
    assert!(status.success(), "{said}");
    let wrong = NewRecord {
        to: TopicPartition { topic: Topic::Control, partition: 0 },
        key: Some(Bytes::from_static(EPOCH_KEY.as_bytes())),
        value: Some(Bytes::from_static(br#"{"privacy":{"default":{"prompt":"keep","output":"scrub"}}}"#)),
        headers: Vec::new(),
    };
    let wrong = log.append(vec![wrong]).unwrap()[0].offset;
    eventually("a word about the epoch", || match ingest.said() {
        said if said.contains("an epoch can't be read") && said.contains("scrub") => Ok(()),
        said => Err(said),
    });
    let before = checked(&mut log, keeping).len();
    ingest.logs(&request("ingest"));
    let after = checked(&mut log, keeping);
    assert!(after.len() > before && !after.iter().any(|(_, epoch)| *epoch == wrong), "{after:?}");

    // One that starts now reads all of it before it is ready.
    let fresh = crate::support::processes::ingest(&bootstrap, PREFIX).ready();
    fresh.logs(&request("fresh"));
    let found = checked(&mut log, keeping);
    assert_eq!(found.iter().filter(|(way, _)| way == "fresh").collect::<Vec<_>>(), [&("fresh".to_owned(), dropping)]);
}

fn send_alone(dir: &Path, conversation: &str) {
    let tacho = Start::data(dir).ready();
    tacho.logs(&request(conversation));
    let (status, said) = tacho.end();
    assert!(status.success(), "{said}");
}

#[test]
fn a_policy_in_the_embedded_log_holds_from_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--data".as_ref(), dir.path().as_os_str()];
    send_alone(dir.path(), "first");
    let keeping = apply(KEEP, &place);
    send_alone(dir.path(), "second");
    let dropping = apply(DROP, &place);
    send_alone(dir.path(), "third");
    let mut log = Embedded::open(dir.path(), &Seed::shipped()).unwrap().handle();
    let mut found = checked(&mut log, keeping);
    found.sort();
    assert_eq!(found, [("first".to_owned(), 0), ("second".to_owned(), keeping), ("third".to_owned(), dropping)]);
}

/// The raw records of all recordings, cleaned under a policy; when they are said to have been appended does not depend
/// on it.
fn recorded(kept: Kept, partitions: i32, began_ms: i64) -> Vec<Record> {
    let (mut records, mut at) = (Vec::new(), began_ms);
    let mut ends = vec![0; usize::try_from(partitions).unwrap()];
    for recording in fixtures::all() {
        for body in recording.bodies.iter().filter(|body| body.signal == "logs") {
            let sent = body.shifted(recording.shift_to(at)).bytes;
            let sent = if body.json { ingest::json::to_protobuf(Signal::Logs, &sent).unwrap() } else { sent };
            let cleaned = privacy::apply(Signal::Logs, sent.into(), kept).unwrap();
            for raw in route(Signal::Logs, "default", &cleaned.bytes).unwrap() {
                at += 1;
                let partition = murmur2_partition(raw.key.as_bytes(), partitions);
                let end = &mut ends[usize::try_from(partition).unwrap()];
                records.push(Record {
                    from: TopicPartition { topic: Topic::RawLogs, partition },
                    offset: *end,
                    appended: AppendTime(at),
                    key: Some(raw.key.into()),
                    value: Some(raw.value),
                    headers: vec![(HEADER_WALL.to_owned(), Bytes::from(at.to_string()))],
                });
                *end += 1;
            }
        }
    }
    records
}

#[test]
fn what_is_derived_does_not_depend_on_what_is_kept() {
    let (seed, began_ms) = (quick_seed(), now_ms());
    let under = |kept: Kept| {
        let records = recorded(kept, seed.raw_partitions, began_ms);
        let bytes: usize = records.iter().filter_map(|record| record.value.as_ref()).map(Bytes::len).sum();
        let cluster = SimCluster::new(0, &seed);
        cluster.import(records).unwrap();
        (replay(cluster.log("worker"), &seed, 1_000).unwrap(), bytes)
    };
    let (dropped, small) = under(Kept::NONE);
    assert!(dropped.sessions.len() > 10 && dropped.totals.len() > 100, "the recordings show too little");
    assert!(dropped.total("tacho_tool_nonzero_exit_total") > 0);
    let (kept, large) = under(Kept::ALL);
    assert!(large > small, "texts are kept");
    kept.assert_same(&dropped, "all texts kept and all dropped");
    under(Kept::of(|field| field == "output")).0.assert_same(&dropped, "outputs kept and all dropped");
}
