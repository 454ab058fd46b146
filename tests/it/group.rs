//! Several workers share the partitions. They come and go under load, and the results are those of one worker.

use crate::support::broker::Broker;
use crate::support::replay::{Results, inputs, replay};
use crate::support::traffic::{Traffic, quick_seed};
use crate::support::{PATIENCE, eventually, now_ms};
use processor::runner::Options;
use processor::view::View;
use processor::workers::{Config, Workers};
use processor_log::Log;
use processor_log::cluster::Cluster;
use processor_log::kafka::{KafkaConfig, KafkaLog, topics};
use processor_log::simulated::SimCluster;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::record::HEADER_WRITER;
use schemas::settings::Seed;
use std::sync::Arc;
use std::time::Duration;

const PREFIX: &str = "group.";
/// How many records come between two changes of the group.
const RECORDS: usize = 120;

fn cluster() -> Cluster {
    Cluster::plain(&Broker::shared().bootstrap(), PREFIX)
}

fn start(name: &str, is_static: bool, workers: usize, seed: &Seed, view: &Arc<View>) -> Workers {
    let config = Config {
        cluster: cluster(),
        group: format!("{PREFIX}tacho"),
        name: name.to_owned(),
        is_static,
        session_timeout: Duration::from_secs(6),
        workers,
        seed: seed.clone(),
        options: Options {
            commit_interval: Duration::from_millis(50),
            ..Options::default()
        },
    };
    let workers = Workers::start(&config, view).unwrap();
    eventually("a worker that has its partitions", || {
        if workers.health.is_ready() {
            Ok(())
        } else {
            Err(name.to_owned())
        }
    });
    workers
}

fn end(workers: Workers) {
    assert!(workers.end(PATIENCE), "the workers did not end");
}

#[test]
fn workers_come_and_go_and_the_results_are_those_of_one() {
    let seed = Seed {
        raw_partitions: 6,
        delta_partitions: 4,
        ..quick_seed()
    };
    topics::prepare(&cluster(), &seed).unwrap();
    let mut client = KafkaLog::connect(KafkaConfig::reader(&cluster(), &format!("{PREFIX}reader"))).unwrap();
    let mut traffic = Traffic::new(7, seed.raw_partitions);
    let mut send = |client: &mut KafkaLog| {
        for _ in 0..RECORDS {
            client.append(vec![traffic.record(now_ms())]).unwrap();
        }
    };
    let view = Arc::new(View::default());
    let first = start("first", false, 2, &seed, &view);
    send(&mut client);
    let second = start("second", true, 1, &seed, &view);
    send(&mut client);
    end(first);
    send(&mut client);
    let third = start("third", false, 3, &seed, &view);
    send(&mut client);
    // A static member that stops and starts again within the session timeout keeps its partitions.
    end(second);
    send(&mut client);
    let second = start("second", true, 1, &seed, &view);
    send(&mut client);

    let sent = now_ms();
    let results = eventually("windows final and sessions ended", || {
        at_rest(&mut client, &view, &seed, sent)
    });
    assert!(
        results.windows.len() > 100 && results.sessions.len() > 5,
        "the traffic has too few windows, corrections or sessions for the test"
    );
    end(second);
    end(third);
    let alone = SimCluster::new(0, &seed);
    alone.import(inputs(&mut client)).unwrap();
    replay(alone.log("worker"), &seed, 1_000)
        .unwrap()
        .assert_same(&results, "one worker and many");
    assert!(
        view.partitions.is_empty(),
        "a worker that has left still shows partitions"
    );
}

/// The results, once all windows up to `sent` and their corrections are final in every partition, and all sessions have ended.
fn at_rest(client: &mut KafkaLog, view: &View, seed: &Seed, sent: i64) -> Result<Results, String> {
    let largest = seed.time.window_sizes_ms.len() - 1;
    let partitions = usize::try_from(seed.delta_partitions).unwrap();
    if view.partitions.len() < partitions {
        return Err(format!(
            "{} of {partitions} partitions are shown",
            view.partitions.len()
        ));
    }
    for partition in &view.partitions {
        let latest = partition.latest_final.get(largest).copied().flatten();
        if latest.is_none_or(|start| start.0 <= sent) {
            return Err(format!(
                "partition {} is final up to {latest:?}, not {sent}",
                partition.key()
            ));
        }
    }
    let results = Results::of(client, view);
    if results.all_ended() {
        Ok(results)
    } else {
        Err("sessions are open".to_owned())
    }
}

/// Leaves a transaction open as a worker that died does. The broker would keep it open for ten minutes.
fn leave_open(
    writer: &str,
    prefix: &str,
    to: &str,
    offsets_of: Option<&str>,
) -> ThreadedProducer<DefaultProducerContext> {
    let bootstrap = Broker::shared().bootstrap();
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("transactional.id", writer)
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let headers = OwnedHeaders::new().insert(Header {
        key: HEADER_WRITER,
        value: Some(writer),
    });
    let topic = format!("{prefix}{to}");
    producer
        .send(
            BaseRecord::<str, str>::to(&topic)
                .partition(0)
                .key("of")
                .payload("a dead worker")
                .headers(headers),
        )
        .map_err(|(error, _)| error)
        .unwrap();
    producer.flush(PATIENCE).unwrap();
    if let Some(input) = offsets_of {
        let member: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .set("group.id", format!("{prefix}tacho"))
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&format!("{prefix}{input}"), 0, Offset::Offset(1))
            .unwrap();
        producer
            .send_offsets_to_transaction(&list, &member.group_metadata().unwrap(), PATIENCE)
            .unwrap();
    }
    producer
}

#[test]
fn a_dead_workers_open_transaction_is_ended_by_who_waits_for_it() {
    const PREFIX: &str = "open-ends.";
    let cluster = Cluster::plain(&Broker::shared().bootstrap(), PREFIX);
    let seed = Seed {
        raw_partitions: 1,
        delta_partitions: 1,
        ..quick_seed()
    };
    topics::prepare(&cluster, &seed).unwrap();
    let mut client = KafkaLog::connect(KafkaConfig::reader(&cluster, &format!("{PREFIX}reader"))).unwrap();
    let mut traffic = Traffic::new(3, 1);

    // Committed positions and changelogs end before the open transaction, so a restore waits, and then fences its writer.
    let at_restore = leave_open(
        &format!("{PREFIX}tacho-dead-0"),
        PREFIX,
        "tacho.sessions-changelog",
        Some("codex.raw.logs.v1"),
    );
    let view = Arc::new(View::default());
    let config = Config {
        cluster,
        group: format!("{PREFIX}tacho"),
        name: "alive".to_owned(),
        is_static: true,
        session_timeout: Duration::from_secs(6),
        workers: 1,
        seed: seed.clone(),
        options: Options::default(),
    };
    let workers = Workers::start(&config, &view).unwrap();
    eventually("a restore", || {
        if workers.health.is_ready() {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    assert!(
        at_restore.commit_transaction(PATIENCE).is_err(),
        "the dead worker was not fenced once"
    );

    // Readers of deltas can't read past the open transaction.
    let at_work = leave_open(&format!("{PREFIX}tacho-dead-1"), PREFIX, "tacho.deltas", None);
    for _ in 0..20 {
        client.append(vec![traffic.record(now_ms())]).unwrap();
    }
    let sent = now_ms();
    eventually("results behind the open transaction", || {
        at_rest(&mut client, &view, &seed, sent)
    });
    assert!(
        at_work.commit_transaction(PATIENCE).is_err(),
        "the dead worker was not fenced once"
    );
    end(workers);
}
