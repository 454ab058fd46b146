//! Topics that an older table made: warned of, and mended by `topics::renew` alone.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "../../../tests/support/broker.rs"]
mod broker;

use broker::Broker;
use processor_log::cluster::Cluster;
use processor_log::kafka::topics::{self, Fault, Severity};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use schemas::settings::Seed;
use schemas::topic::Topic;
use std::time::{Duration, Instant};

/// How long the brokers may take to hear of a setting.
const PATIENCE: Duration = Duration::from_secs(60);
const PREFIX: &str = "older.";

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap()
}

/// Gives a topic these settings, and no others.
fn set(bootstrap: &str, name: &str, settings: &[(&str, &str)]) {
    let altered = AlterConfig::new(ResourceSpecifier::Topic(name));
    let altered = settings
        .iter()
        .fold(altered, |altered, (key, value)| altered.set(key, value));
    let results = run(admin(bootstrap).alter_configs([&altered], &AdminOptions::new())).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    // The controller has the settings now, and tells the brokers.
    settings
        .iter()
        .for_each(|(key, value)| wait_for(bootstrap, name, key, value));
}

fn wait_for(bootstrap: &str, name: &str, key: &str, value: &str) {
    let deadline = Instant::now() + PATIENCE;
    while setting(bootstrap, name, key) != value {
        assert!(Instant::now() < deadline, "{name}: {key} does not become {value}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn setting(bootstrap: &str, name: &str, key: &str) -> String {
    let topic = ResourceSpecifier::Topic(name);
    let found = run(admin(bootstrap).describe_configs([&topic], &AdminOptions::new())).unwrap();
    let config = found.into_iter().next().unwrap().unwrap();
    config.get(key).unwrap().value.clone().unwrap()
}

#[test]
fn topics_of_an_older_table_are_warned_of_and_renewed_and_an_operators_settings_stay() {
    let bootstrap = Broker::shared().bootstrap();
    let cluster = Cluster::plain(&bootstrap, PREFIX);
    let seed = topics::prepare(&cluster, &Seed::shipped()).unwrap();
    let large = ("max.message.bytes", "8400000");
    let sessions = cluster.topic(Topic::Sessions);
    set(&bootstrap, &sessions, &[large, ("cleanup.policy", "compact")]);
    let state = cluster.topic(Topic::SeriesChangelog);
    let old_state = [
        large,
        ("cleanup.policy", "compact"),
        ("segment.bytes", "67108864"),
        ("segment.ms", "600000"),
        ("min.cleanable.dirty.ratio", "0.1"),
    ];
    set(&bootstrap, &state, &old_state);
    // An operator keeps minutes for longer, and says how old segments may be.
    let minutes = cluster.topic(Topic::Windows1m);
    let own = [large, ("retention.ms", "9000000000"), ("segment.ms", "3600000")];
    set(&bootstrap, &minutes, &own);

    let outdated = |faults: &[Fault]| -> Vec<String> {
        let of = faults.iter().filter(|fault| fault.severity == Severity::Outdated);
        of.map(ToString::to_string).collect()
    };
    let faults = topics::faults(&cluster, &seed).unwrap();
    assert_eq!(topics::refusals(faults.clone()), Vec::new(), "processes start");
    let warned = outdated(&faults).join("\n");
    for part in [
        "cleanup.policy is compact, and new topics get compact,delete",
        "min.cleanable.dirty.ratio is 0.1",
        "delete.retention.ms is 86400000",
        "tacho topics apply --kafka",
    ] {
        assert!(warned.contains(part), "{part} is not in:\n{warned}");
    }
    assert!(
        !warned.contains(&minutes),
        "an operator's choice is none of an older table:\n{warned}"
    );

    let renewed = topics::renew(&cluster).unwrap();
    assert!(
        renewed.contains(&format!("{sessions}: cleanup.policy=compact,delete")),
        "{renewed:?}"
    );
    wait_for(&bootstrap, &sessions, "retention.ms", "34560000000");
    wait_for(&bootstrap, &state, "delete.retention.ms", "3600000");
    assert_eq!(
        outdated(&topics::faults(&cluster, &seed).unwrap()),
        Vec::<String>::new()
    );
    assert_eq!(
        setting(&bootstrap, &state, "segment.ms"),
        "600000",
        "what was set before stays"
    );
    assert_eq!(setting(&bootstrap, &minutes, "retention.ms"), "9000000000");
    assert_eq!(
        topics::renew(&cluster).unwrap(),
        Vec::<String>::new(),
        "once is enough"
    );
}
