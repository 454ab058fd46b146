//! The commands that prepare the topics of a cluster: what they refuse, and how it is mended.

use super::processes::{apply, assert_refused, text};
use crate::support::broker::Broker;
use crate::support::processes::{processor, tacho};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

/// Creates a topic with other settings than those of the table.
fn plant(bootstrap: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = settings
        .iter()
        .fold(topic, |topic, (key, value)| topic.set(key, value));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime
        .block_on(admin.create_topics([&topic], &AdminOptions::new()))
        .unwrap()[0]
        .as_ref()
        .unwrap();
}

/// Creates topics under the prefix `wrong.`, most of which have faults.
fn plant_faults(bootstrap: &str) {
    let large = ("max.message.bytes", "8400000");
    let stamped = ("message.timestamp.type", "LogAppendTime");
    plant(bootstrap, "wrong.codex.raw.logs.v1", 3, &[large, stamped]);
    plant(bootstrap, "wrong.codex.raw.traces.v1", 2, &[large, stamped]);
    plant(
        bootstrap,
        "wrong.codex.raw.metrics.v1",
        3,
        &[large, ("message.timestamp.type", "CreateTime")],
    );
    plant(
        bootstrap,
        "wrong.codex.sessions.v1",
        3,
        &[large, ("cleanup.policy", "delete")],
    );
    plant(
        bootstrap,
        "wrong.tacho.control",
        1,
        &[large, ("retention.ms", "1000")],
    );
    plant(
        bootstrap,
        "wrong.tacho.labels",
        1,
        &[
            large,
            ("unclean.leader.election.enable", "true"),
            ("retention.ms", "-1"),
        ],
    );
}

/// The faults that `topics check` must name for those topics: a line of the output holds both texts.
const FAULTS: [[&str; 2]; 7] = [
    [
        "wrong.codex.raw.traces.v1: it has 2 partitions, and the settings say 3",
        "--delete --topic wrong.codex.raw.traces.v1",
    ],
    [
        "wrong.codex.raw.metrics.v1: message.timestamp.type is CreateTime",
        "--add-config message.timestamp.type=LogAppendTime",
    ],
    [
        "wrong.codex.sessions.v1: cleanup.policy is delete",
        "--add-config cleanup.policy=compact",
    ],
    [
        "wrong.codex.sessions.v1: it has 1 replica, and min.insync.replicas is 1",
        "kafka-reassign-partitions.sh",
    ],
    [
        "wrong.tacho.control: retention.ms is 1000",
        "--add-config retention.ms=-1",
    ],
    [
        "wrong.tacho.labels: unclean.leader.election.enable is true",
        "--add-config unclean.leader.election.enable=false",
    ],
    [
        "wrong.codex.quarantine.v1: there is no such topic",
        "tacho topics apply --kafka",
    ],
];

#[test]
fn topics_that_are_wrong_are_all_named_with_what_mends_them() {
    let bootstrap = Broker::shared().bootstrap();
    plant_faults(&bootstrap);
    let check = || tacho().args(&["topics", "check", "--kafka", &bootstrap, "--prefix", "wrong."]);
    let output = check().run();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for parts in FAULTS {
        assert!(
            said.lines()
                .any(|line| parts.iter().all(|part| line.contains(part))),
            "{parts:?} is not in:\n{said}"
        );
    }
    assert!(
        !said.contains("codex.raw.logs.v1: message"),
        "a topic without faults is named:\n{said}"
    );

    // The processor does not start with these topics either, and names the same faults.
    let refused = [
        "raw.traces",
        "raw.metrics",
        "codex.sessions.v1: cleanup",
        "tacho.control",
        "tacho.labels",
    ];
    let missing = [
        "inbox.logs",
        "inbox.traces",
        "inbox.metrics",
        "quarantine",
        "windows.1m",
        "windows.5m",
        "windows.1h",
        "tacho.deltas",
        "sessions-changelog",
        "series-changelog",
    ];
    assert_refused(
        processor(&bootstrap, "wrong.", "one"),
        64,
        &[&refused[..], &missing].concat(),
    );

    // `topics apply` creates the missing topic, changes no other, and names the faults that are left.
    let output = tacho()
        .args(&["topics", "apply", "--kafka", &bootstrap, "--prefix", "wrong."])
        .run();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("created wrong.codex.quarantine.v1")
            && said.contains("raw.metrics.v1: message.timestamp.type"),
        "{said}"
    );
    assert!(
        !said.contains("there is no such topic") && !said.contains("wrote the settings"),
        "{said}"
    );
}

#[test]
fn one_replica_is_refused_unless_it_is_allowed() {
    let bootstrap = Broker::shared().bootstrap();
    apply(&bootstrap, "replicas.", None);
    let check = |more: &[&str]| {
        tacho()
            .args(&["topics", "check", "--kafka", &bootstrap, "--prefix", "replicas."])
            .args(more)
            .run()
    };
    let refused = check(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(
        text(&refused).contains("min.insync.replicas is 1")
            && text(&refused).contains("--allow-single-broker"),
        "{}",
        text(&refused)
    );
    let taken = check(&["--allow-single-broker"]);
    assert!(
        taken.status.success() && text(&taken).contains("16 topics are as they must be"),
        "{}",
        text(&taken)
    );
}
