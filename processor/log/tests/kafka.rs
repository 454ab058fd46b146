//! The log on Kafka beyond the contract: open and aborted transactions, topics that must be refused, lost brokers.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "../../../tests/support/broker.rs"]
mod broker;

mod common;

use broker::Broker;
use bytes::Bytes;
use common::commit;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog, topics};
use processor_log::{Log, LogError, ReadLog};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use schemas::id::{Position, TopicPartition};
use schemas::record::{NewRecord, Record};
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const RAW: TopicPartition = TopicPartition {
    topic: Topic::RawLogs,
    partition: 0,
};
const DELTAS: TopicPartition = TopicPartition {
    topic: Topic::Deltas,
    partition: 0,
};
const CONTROL: TopicPartition = TopicPartition {
    topic: Topic::Control,
    partition: 0,
};

fn seed() -> Seed {
    Seed {
        raw_partitions: 2,
        delta_partitions: 1,
        ..Seed::shipped()
    }
}

fn connect(broker: &Broker, prefix: &str) -> KafkaLog {
    let config = KafkaConfig::worker(
        &Cluster::plain(&broker.bootstrap(), prefix),
        &format!("{prefix}group"),
        "worker",
    );
    KafkaLog::connect(config).unwrap()
}

fn record(to: TopicPartition, value: &str) -> NewRecord {
    NewRecord {
        to,
        key: Some(Bytes::from("k")),
        value: Some(Bytes::from(value.to_owned())),
        headers: Vec::new(),
    }
}

fn read_all(log: &mut KafkaLog, at: TopicPartition) -> Vec<String> {
    let extent = log.extent(at).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut records, mut from): (Vec<Record>, _) = (Vec::new(), extent.start);
    while from < extent.end {
        let batch = log.read(at, from, 100).unwrap();
        from = batch.next;
        records.extend(batch.records);
        assert!(
            Instant::now() < deadline,
            "{at} is not readable up to {:?}: {from:?}",
            extent.end
        );
    }
    records
        .iter()
        .map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap())
        .collect()
}

#[test]
fn an_open_transaction_is_not_read_and_its_abort_is_passed() {
    let broker = Broker::shared();
    topics::prepare(&Cluster::plain(&broker.bootstrap(), "open."), &seed()).unwrap();
    let mut log = connect(broker, "open.");
    log.commit(commit(vec![record(DELTAS, "one")], vec![])).unwrap();
    // A worker of the same identity dies with its transaction open.
    let dead: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("transactional.id", "open.group-worker")
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    dead.init_transactions(PATIENCE).unwrap();
    dead.begin_transaction().unwrap();
    dead.send(
        BaseRecord::<str, str>::to("open.tacho.deltas")
            .partition(0)
            .payload("aborted"),
    )
    .map_err(|(error, _)| error)
    .unwrap();
    dead.flush(PATIENCE).unwrap();

    let mut reader = connect(broker, "open.");
    // Offset 0 is the record, 1 the mark of its commit, 2 the record that nobody has committed.
    assert_eq!(reader.extent(DELTAS).unwrap().end, Position(3));
    assert_eq!(reader.ends(&[DELTAS]).unwrap(), [Position(3)]);
    let batch = reader.read(DELTAS, Position(0), 100).unwrap();
    assert_eq!(
        (
            batch.records.len(),
            reader.read(DELTAS, batch.next, 100).unwrap().next
        ),
        (1, Position(2))
    );

    // Recovery of the identity ends the transaction, and reads go past its records.
    reader.recover().unwrap();
    assert_eq!(read_all(&mut reader, DELTAS), ["one"]);
    reader
        .commit(commit(vec![record(DELTAS, "two")], vec![]))
        .unwrap();
    assert_eq!(read_all(&mut log, DELTAS), ["one", "two"]);
    // The handle from before was fenced by the recovery.
    assert!(matches!(
        log.commit(commit(vec![record(DELTAS, "late")], vec![])),
        Err(LogError::NotCommitted { .. })
    ));
    assert_eq!(read_all(&mut reader, DELTAS), ["one", "two"]);
}

#[test]
fn topics_of_the_wrong_form_are_refused_with_the_way_out() {
    let broker = Broker::shared();
    let bootstrap = broker.bootstrap();
    // The counts of topics that are there win over the given seed, as long as there is none in the log.
    topics::create_topics(&Cluster::plain(&bootstrap, "form."), &seed(), None).unwrap();
    let real = topics::prepare(&Cluster::plain(&bootstrap, "form."), &Seed::shipped()).unwrap();
    assert_eq!(
        real,
        Seed {
            settings: real.settings.clone(),
            ..seed()
        }
    );
    // Counts that a seed in the log contradicts are refused.
    let refused = topics::check_topics(
        &Cluster::plain(&bootstrap, "form."),
        &Seed {
            raw_partitions: 3,
            ..seed()
        },
    )
    .unwrap_err()
    .to_string();
    assert!(
        refused.contains("form.codex.raw.logs.v1: it has 2 partitions, and the settings say 3"),
        "{refused}"
    );
    let refused = topics::check_topics(
        &Cluster::plain(&bootstrap, "form."),
        &Seed {
            raw_partitions: 1,
            ..seed()
        },
    )
    .unwrap_err()
    .to_string();
    assert!(refused.contains("another prefix"), "{refused}");

    let stored = Seed {
        dimensions: vec!["team.id".to_owned()],
        ..seed()
    };
    let mut log = connect(broker, "form.");
    assert_eq!(
        topics::stored_seed(&Cluster::plain(&bootstrap, "form.")).unwrap(),
        None
    );
    log.append(vec![NewRecord {
        value: Some(Bytes::from(stored.to_json())),
        ..record(CONTROL, "")
    }])
    .unwrap();
    assert_eq!(
        topics::prepare(&Cluster::plain(&bootstrap, "form."), &Seed::shipped()).unwrap(),
        stored
    );

    assert_eq!(
        topics::stored_seed(&Cluster::plain(&bootstrap, "nothing.")).unwrap(),
        None
    );
    let missing = topics::check_topics(&Cluster::plain(&bootstrap, "nothing."), &seed()).unwrap_err();
    assert!(matches!(missing, LogError::Topic { .. }), "{missing}");
}

#[test]
fn a_topic_that_producers_stamp_is_refused() {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let broker = Broker::shared();
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap();
    let topic = NewTopic::new("stamp.codex.raw.logs.v1", 2, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "CreateTime");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime
        .block_on(admin.create_topics([&topic], &AdminOptions::new()))
        .unwrap()[0]
        .as_ref()
        .unwrap();
    let refused = topics::prepare(&Cluster::plain(&broker.bootstrap(), "stamp."), &seed())
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("stamp.codex.raw.logs.v1")
            && refused.contains("--add-config message.timestamp.type=LogAppendTime"),
        "{refused}"
    );
}

#[test]
fn a_broker_that_hangs_or_dies_costs_a_commit_but_no_record() {
    let mut broker = Broker::start(&[]);
    topics::prepare(&Cluster::plain(&broker.bootstrap(), ""), &seed()).unwrap();
    let mut log = connect(&broker, "");
    log.recover().unwrap();
    log.append(vec![record(RAW, "raw")]).unwrap();
    log.commit(commit(vec![record(DELTAS, "one")], vec![(RAW, Position(1))]))
        .unwrap();

    broker.pause();
    let second = commit(vec![record(DELTAS, "two")], vec![(RAW, Position(1))]);
    let error = log.commit(second).unwrap_err();
    assert!(matches!(error, LogError::NotCommitted { .. }), "{error}");
    let error = log
        .commit(commit(vec![record(DELTAS, "three")], vec![]))
        .unwrap_err();
    assert!(error.to_string().contains("recover first"), "{error}");
    broker.resume();
    log.recover().unwrap();
    let before = read_all(&mut log, DELTAS);
    assert!(
        before == ["one"] || before == ["one", "two"],
        "all or nothing: {before:?}"
    );
    log.commit(commit(vec![record(DELTAS, "four")], vec![(RAW, Position(1))]))
        .unwrap();

    // The records must be readable before the kill: a broker that dies between its answer to a commit and the marks of that commit can
    // come back without ever writing them ("couldn't find leader endpoint ... can be skipped" in its log).
    let mut expected = before;
    expected.push("four".to_owned());
    assert_eq!(read_all(&mut log, DELTAS), expected);
    assert_eq!(log.committed(&[RAW]).unwrap(), [Some(Position(1))]);

    broker.kill();
    broker.restart();
    log.recover().unwrap();
    assert_eq!(log.append(vec![record(RAW, "raw again")]).unwrap()[0].offset, 1);
    assert_eq!(read_all(&mut log, RAW), ["raw", "raw again"]);
    assert_eq!(read_all(&mut log, DELTAS), expected);
    assert_eq!(log.committed(&[RAW]).unwrap(), [Some(Position(1))]);
    log.commit(commit(vec![], vec![(RAW, Position(2))])).unwrap();
    assert_eq!(log.committed(&[RAW]).unwrap(), [Some(Position(2))]);
}
