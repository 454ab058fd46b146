//! The privacy policy changes while all processes run, and no derived result depends on it.

use crate::support::broker::Broker;
use crate::support::fixtures::{self, raw_records};
use crate::support::processes::{Process, ingest, tacho};
use crate::support::replay::{read_topic, replay};
use crate::support::tacho::{Start, Tacho};
use crate::support::traffic::quick_seed;
use crate::support::{eventually, now_ms, otlp};
use bytes::Bytes;
use ingest::prepare::hash::HashKey;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::embedded::Embedded;
use processor_log::kafka::{KafkaConfig, KafkaLog};
use processor_log::simulated::SimCluster;
use prost::Message;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::control::EPOCH_KEY;
use schemas::derived::SessionRow;
use schemas::id::TopicPartition;
use schemas::privacy::{Action, Actions};
use schemas::record::{HEADER_POLICY, NewRecord, Record};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

const PREFIX: &str = "policy.";
/// The text of every prompt.
const PROMPT: &str = "Zx7prompt-9Qv";
/// The text of every output: a secret, which no policy of the tests keeps. (It is in two parts, so that no
/// scanner takes it for a leak.)
const OUTPUT: &str = concat!("gh", "p_a8Kd93hFq0Zx7Lw2Nb5Vt6Yc1Me4Rj8Su3Pg");
/// A policy that keeps prompts and drops outputs.
const KEEP: &str = "[privacy.default]\nprompt = \"keep\"\n";
const DROP: &str = "[privacy]\n";
const HASH: &str = "[privacy.default]\n\"user.email\" = \"hash\"\nprompt = \"hash\"\n";
/// The e-mail address of the sender.
const EMAIL: &str = "zx7email@example.com";
/// The ways by which records are sent: two processes and the inbox. Each is also the conversation of the
/// records sent by it.
const WAYS: [&str; 3] = ["ingest", "tacho", "inbox"];

fn request(conversation: &str) -> Vec<u8> {
    let mut record = otlp::prompt(conversation, now_ms());
    record
        .attributes
        .push(otlp::attribute("prompt", otlp::text(PROMPT)));
    record
        .attributes
        .push(otlp::attribute("output", otlp::text(OUTPUT)));
    record
        .attributes
        .push(otlp::attribute("user.email", otlp::text(EMAIL)));
    otlp::encode(vec![record])
}

/// Runs `tacho control apply`, and gives the epoch.
fn apply(policy: &str, place: &[&OsStr]) -> i64 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    let output = tacho()
        .args(&["control", "apply", file.to_str().unwrap()])
        .args(place)
        .run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.strip_prefix("epoch ")
        .and_then(|said| said.split(':').next())
        .unwrap()
        .parse()
        .unwrap()
}

fn holds(record: &Record, text: &str) -> bool {
    record
        .value
        .as_deref()
        .unwrap_or_default()
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// Checks that each raw record, ticks left out, holds what the policy in its header keeps. Gives the
/// conversation and the policy's epoch of each.
fn checked(log: &mut impl Log, keeping: i64) -> Vec<(String, i64)> {
    let records = read_topic(log, Topic::RawLogs)
        .into_iter()
        .filter(|record| record.header("tacho-tick").is_none());
    records
        .map(|record| {
            let epoch = record.header_number(HEADER_POLICY).unwrap();
            assert_eq!(
                holds(&record, PROMPT),
                epoch == keeping,
                "a prompt under epoch {epoch}"
            );
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
    /// Sends to all processes and the inbox until the records of each are cleaned under that epoch.
    fn send_until(&mut self, epoch: i64, keeping: i64) {
        eventually("records under a new policy", || {
            self.ingest.logs(&request("ingest"));
            self.tacho.logs(&request("tacho"));
            let (name, value) = (format!("{PREFIX}{}", Topic::InboxLogs.name()), request("inbox"));
            self.inbox
                .send(BaseRecord::<(), [u8]>::to(&name).payload(&value))
                .map_err(|(error, _)| error)
                .unwrap();
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
    let made = tacho()
        .args(&[
            "topics",
            "apply",
            "--allow-single-broker",
            "--raw-partitions",
            "3",
        ])
        .args(&place)
        .run();
    assert!(made.status.success(), "{made:?}");
    let config = KafkaConfig::reader(&Cluster::plain(&bootstrap, PREFIX), &format!("{PREFIX}reader"));
    let mut running = Running {
        ingest: ingest(&bootstrap, PREFIX).ready(),
        tacho: Start::kafka(&bootstrap, PREFIX).ready(),
        inbox: ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .create()
            .unwrap(),
        log: KafkaLog::connect(config).unwrap(),
    };
    let place = place.map(OsStr::new);
    running.send_until(0, -1);
    let keeping = apply(KEEP, &place);
    running.send_until(keeping, keeping);
    let dropping = apply(DROP, &place);
    assert!(dropping > keeping);
    running.send_until(dropping, keeping);

    // Ingest keeps its policy at an epoch that it can't read. (A processor stops at that epoch.)
    let Running {
        ingest,
        tacho,
        mut log,
        ..
    } = running;
    let (status, said) = tacho.end();
    assert!(status.success(), "{said}");
    let wrong = NewRecord {
        to: TopicPartition {
            topic: Topic::Control,
            partition: 0,
        },
        key: Some(Bytes::from_static(EPOCH_KEY.as_bytes())),
        value: Some(Bytes::from_static(
            br#"{"privacy":{"default":{"prompt":"keep","output":"mask"}}}"#,
        )),
        headers: Vec::new(),
    };
    let wrong = log.append(vec![wrong]).unwrap()[0].offset;
    eventually("a word about the epoch", || match ingest.said() {
        said if said.contains("an epoch can't be read") && said.contains("mask") => Ok(()),
        said => Err(said),
    });
    let before = checked(&mut log, keeping).len();
    ingest.logs(&request("ingest"));
    let after = checked(&mut log, keeping);
    assert!(
        after.len() > before && !after.iter().any(|(_, epoch)| *epoch == wrong),
        "{after:?}"
    );

    // An ingest that is started now reads the whole control topic before it is ready.
    let fresh = crate::support::processes::ingest(&bootstrap, PREFIX).ready();
    fresh.logs(&request("fresh"));
    let found = checked(&mut log, keeping);
    assert_eq!(
        found.iter().filter(|(way, _)| way == "fresh").collect::<Vec<_>>(),
        [&("fresh".to_owned(), dropping)]
    );
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
    assert_eq!(
        found,
        [
            ("first".to_owned(), 0),
            ("second".to_owned(), keeping),
            ("third".to_owned(), dropping)
        ]
    );
}

#[test]
fn what_is_derived_does_not_depend_on_the_policy() {
    let (seed, began_ms, key) = (
        quick_seed(),
        now_ms(),
        HashKey::new(b"a key of some length").unwrap(),
    );
    let under = |actions: Actions| {
        let records = raw_records(&fixtures::all(), actions, &key, seed.raw_partitions, began_ms);
        let bytes: usize = records
            .iter()
            .filter_map(|record| record.value.as_ref())
            .map(Bytes::len)
            .sum();
        let cluster = SimCluster::new(0, &seed);
        cluster.import(records).unwrap();
        (replay(cluster.log("worker"), &seed, 1_000).unwrap(), bytes)
    };
    let (kept, large) = under(Actions::all(Action::Keep));
    assert!(
        kept.sessions.len() > 10 && kept.totals.len() > 100,
        "the recordings have too few results for the test"
    );
    assert!(kept.total("tacho_tool_nonzero_exit_total") > 0 && kept.total("tacho_api_errors_total") > 0);
    // Rows name the user if the policy keeps that.
    let outputs = Actions::of(|field| {
        if field.starts_with("user.") {
            Action::Keep
        } else {
            Action::Drop
        }
    });
    let shipped = Seed::shipped().privacy.actions("default");
    for (actions, what) in [
        (Actions::all(Action::Scrub), "all scrubbed"),
        (shipped, "the shipped policy"),
        (outputs, "texts dropped"),
    ] {
        under(actions).0.assert_same(&kept, what);
    }
    let kept = kept.anonymous();
    for action in [Action::Drop, Action::Hash] {
        let (results, small) = under(Actions::all(action));
        assert!(small < large, "the stricter policy removed no texts");
        let named = results
            .sessions
            .values()
            .any(|row| SessionRow::decode(row).unwrap().user_email.starts_with("hmac:"));
        assert_eq!(named, action == Action::Hash);
        results.anonymous().assert_same(&kept, action.name());
    }
}

/// A policy that hashes uses the key of the directory: equal values have equal hashes for ever, and other
/// hashes in another directory.
#[test]
fn a_hash_takes_the_place_of_a_name() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hashes = |dir: &Path| {
        send_alone(dir, "first");
        let epoch = apply(HASH, &["--data".as_ref(), dir.as_os_str()]);
        send_alone(dir, "second");
        send_alone(dir, "third");
        let mut log = Embedded::open(dir, &Seed::shipped()).unwrap().handle();
        let records = read_topic(&mut log, Topic::RawLogs).into_iter();
        let hashed = records.filter(|record| record.header_number(HEADER_POLICY) == Some(epoch));
        let found = hashed.map(|record| {
            assert!(!holds(&record, EMAIL) && !holds(&record, PROMPT));
            let request = ExportLogsServiceRequest::decode(record.value.unwrap()).unwrap();
            let attributes = &request.resource_logs[0].scope_logs[0].log_records[0].attributes;
            let of = |key: &str| {
                attributes
                    .iter()
                    .find(|pair| pair.key == key)
                    .unwrap()
                    .value
                    .clone()
                    .unwrap()
            };
            (of("user.email"), of("prompt"))
        });
        let found: Vec<_> = found.collect();
        assert_eq!(
            found.len(),
            2,
            "the second and the third directory have different hashes"
        );
        assert_eq!(found[0], found[1]);
        let rows = read_topic(&mut log, Topic::Sessions);
        assert!(rows.iter().any(|row| {
            SessionRow::decode(row.value.as_ref().unwrap())
                .unwrap()
                .user_email
                .starts_with("hmac:")
        }));
        found.into_iter().next().unwrap()
    };
    let (first, second) = (hashes(dir.path()), hashes(other.path()));
    assert_ne!(first, second);
    let text = std::fs::read_to_string(dir.path().join("hash.key")).unwrap();
    let key = HashKey::new(text.as_bytes()).unwrap();
    assert_eq!(first.0.value, Some(otlp::text(key.hash(EMAIL.as_bytes()))));
}
