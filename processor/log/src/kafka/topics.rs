//! The topics of a cluster, by the topic table: creation of missing ones, checks of those that are there.

mod check;
mod commands;
mod renew;

pub use check::{Fault, Severity, check_topics, faults, inspect, refusals};
pub use renew::renew;

use super::clients::{self, REQUEST_MAX, block_on};
use super::cursors::Cursors;
use super::names::Names;
use crate::LogError;
use crate::cluster::Cluster;
use crate::control::CONTROL;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use schemas::id::Position;
use schemas::settings::Seed;
use schemas::topic::{Cleanup, MESSAGE_BYTES_MAX, Topic};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use strum::VariantArray;

/// How long created topics may take to have leaders everywhere.
const LEADERS_MAX: Duration = Duration::from_secs(30);
/// How long between two looks for leaders.
const LEADERS_EVERY: Duration = Duration::from_millis(50);
/// How many replicas a created partition gets, where there are as many brokers.
pub const REPLICAS: i32 = 3;
/// The setting that says how many replicas must have a record before it is acknowledged.
const MIN_IN_SYNC: &str = "min.insync.replicas";
/// One day, ms.
const DAY_MS: i64 = 86_400_000;
/// The group id of the client that looks for the seed; nothing is committed to it.
const SEED_GROUP: &str = "tacho-seed";

/// The settings that a topic is created with, beside [`MIN_IN_SYNC`].
fn settings(topic: Topic) -> BTreeMap<&'static str, String> {
    let def = topic.def();
    let mut settings: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut set = |key, value: &str| drop(settings.insert(key, value.to_owned()));
    def.config.iter().for_each(|(key, value)| set(key, value));
    set("cleanup.policy", cleanup_policy(def.cleanup));
    set("max.message.bytes", &MESSAGE_BYTES_MAX.to_string());
    if def.stamped {
        set("message.timestamp.type", "LogAppendTime");
    }
    if def.cleanup != Cleanup::Compact {
        // Topics whose records have no age limit have no limit of size either.
        let age_ms = def
            .cleanup
            .retention_days()
            .map_or(-1, |days| i64::from(days) * DAY_MS);
        set("retention.ms", &age_ms.to_string());
        set("retention.bytes", "-1");
    }
    settings
}

/// Kafka's name for a cleanup policy.
const fn cleanup_policy(cleanup: Cleanup) -> &'static str {
    match cleanup {
        // The processor deletes consumed records itself, by DeleteRecords, which works under this policy alone.
        Cleanup::Delete { .. } | Cleanup::Consumed | Cleanup::Keep => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactAndDelete { .. } => "compact,delete",
    }
}

/// Makes the cluster ready: creates missing topics and checks all; gives the seed that holds there.
///
/// The seed that holds is the one in the control topic, if there is one; else `seed` with the partition counts of topics that
/// exist. It is not written here: the caller appends it to the control topic, as the first record there.
///
/// # Errors
/// The cluster can't be reached, or a topic has other partition counts or settings than it must have.
pub fn prepare(cluster: &Cluster, seed: &Seed) -> Result<Seed, LogError> {
    let seed = match stored_seed(cluster)? {
        Some(stored) => stored,
        None => real_partitions(cluster, seed)?,
    };
    create_topics(cluster, &seed, None)?;
    check_topics(cluster, &seed)?;
    Ok(seed)
}

/// The seed in the control topic; `None` where there is no such topic, or nothing in it.
///
/// # Errors
/// The cluster can't be reached, or the record is no seed.
pub fn stored_seed(cluster: &Cluster) -> Result<Option<Seed>, LogError> {
    let names = Names::new(cluster);
    let client = metadata_client(cluster)?;
    if partitions_of(&client, &names.name(Topic::Control), REQUEST_MAX)?.is_none() {
        return Ok(None);
    }
    let at = CONTROL;
    let batch = Cursors::new(cluster, SEED_GROUP, names, REQUEST_MAX).read(at, Position(0), 1)?;
    let Some(record) = batch.records.first() else {
        return Ok(None);
    };
    let place = || format!("{at}@0");
    let value = record
        .value
        .as_deref()
        .ok_or_else(|| LogError::corrupt(place(), "no value"))?;
    Seed::from_json(value)
        .map(Some)
        .map_err(|error| LogError::undecodable(place(), "a seed", error))
}

/// The seed with the partition counts that the cluster's topics have, where they exist.
///
/// # Errors
/// The cluster can't be reached.
pub fn real_partitions(cluster: &Cluster, seed: &Seed) -> Result<Seed, LogError> {
    let (client, names) = (metadata_client(cluster)?, Names::new(cluster));
    let mut seed = seed.clone();
    if let Some(count) = partitions_of(&client, &names.name(Topic::RawLogs), REQUEST_MAX)? {
        seed.raw_partitions = count;
    }
    if let Some(count) = partitions_of(&client, &names.name(Topic::Deltas), REQUEST_MAX)? {
        seed.delta_partitions = count;
    }
    Ok(seed)
}

/// Creates the topics that are missing, and waits until each of their partitions has a leader; gives their names. Topics that
/// are there are not changed.
///
/// Each partition gets `replicas`; left out, as many as there are brokers, up to [`REPLICAS`]. With two replicas or more, two
/// must have a record before it is acknowledged.
///
/// # Errors
/// The cluster can't be reached, or refuses.
pub fn create_topics(cluster: &Cluster, seed: &Seed, replicas: Option<i32>) -> Result<Vec<String>, LogError> {
    let (client, names) = (metadata_client(cluster)?, Names::new(cluster));
    let replicas = match replicas {
        Some(replicas) => replicas,
        None => brokers(&client)?.clamp(1, REPLICAS),
    };
    let mut missing_topics = Vec::new();
    for &topic in Topic::VARIANTS {
        let name = names.name(topic);
        if partitions_of(&client, &name, REQUEST_MAX)?.is_none() {
            let mut settings = settings(topic);
            settings.insert(MIN_IN_SYNC, replicas.clamp(1, 2).to_string());
            missing_topics.push((topic, name, settings));
        }
    }
    if missing_topics.is_empty() {
        return Ok(Vec::new());
    }
    let new: Vec<NewTopic<'_>> = missing_topics
        .iter()
        .map(|(topic, name, settings)| {
            let new = NewTopic::new(name, seed.partitions(*topic), TopicReplication::Fixed(replicas));
            settings.iter().fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    let results = block_on(admin(cluster)?.create_topics(&new, &admin_options()))
        .map_err(|error| LogError::failed("creating topics", error))?;
    for result in results {
        match result {
            // Where another process was faster, its topic is checked like any other.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(LogError::Topic {
                    topic,
                    fault: format!("can't be created: {code}"),
                });
            }
        }
    }
    for (topic, name, _) in &missing_topics {
        wait_for_leaders(&client, name, seed.partitions(*topic))?;
    }
    Ok(missing_topics.into_iter().map(|(_, name, _)| name).collect())
}

fn brokers(client: &BaseConsumer) -> Result<i32, LogError> {
    let metadata = client
        .fetch_metadata(None, REQUEST_MAX)
        .map_err(|error| LogError::failed("asking for brokers", error))?;
    Ok(i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX))
}

fn wait_for_leaders(client: &BaseConsumer, name: &str, count: i32) -> Result<(), LogError> {
    let deadline = Instant::now() + LEADERS_MAX;
    loop {
        let metadata = client
            .fetch_metadata(Some(name), REQUEST_MAX)
            .map_err(|error| LogError::failed("asking for topics", error))?;
        let led = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
            .filter(|partition| partition.leader() >= 0)
            .count();
        if led >= usize::try_from(count).unwrap_or(0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(LogError::Topic {
                topic: name.to_owned(),
                fault: "was created, but has partitions without a leader".to_owned(),
            });
        }
        std::thread::sleep(LEADERS_EVERY);
    }
}

/// How many partitions a topic has; `None`: there is no such topic.
///
/// # Errors
/// No broker answers within `answer_max`.
pub(super) fn partitions_of(
    client: &BaseConsumer,
    name: &str,
    answer_max: Duration,
) -> Result<Option<i32>, LogError> {
    let metadata = client
        .fetch_metadata(Some(name), answer_max)
        .map_err(|error| LogError::failed("asking for topics", error))?;
    let count = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == name)
        .map_or(0, |topic| topic.partitions().len());
    Ok((count > 0).then(|| i32::try_from(count).unwrap_or(i32::MAX)))
}

/// The error of a topic that is not there.
pub(super) fn missing(name: &str) -> LogError {
    LogError::Topic {
        topic: name.to_owned(),
        fault: "there is no such topic; `tacho topics apply` makes it".to_owned(),
    }
}

/// How long brokers may take over requests of administration.
pub(super) fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_MAX))
        .operation_timeout(Some(REQUEST_MAX))
}

fn admin(cluster: &Cluster) -> Result<AdminClient<DefaultClientContext>, LogError> {
    clients::admin(cluster)
        .create()
        .map_err(|error| LogError::failed("making an admin client", error))
}

fn metadata_client(cluster: &Cluster) -> Result<BaseConsumer, LogError> {
    clients::uncommitted(cluster)
        .create()
        .map_err(|error| LogError::failed("making a client", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_no_age_and_state_has_none_either() {
        for topic in [Topic::Control, Topic::Deltas] {
            let settings = settings(topic);
            assert_eq!(
                (
                    settings["retention.ms"].as_str(),
                    settings["cleanup.policy"].as_str()
                ),
                ("-1", "delete")
            );
        }
        let state = settings(Topic::SeriesChangelog);
        assert_eq!(state["cleanup.policy"], "compact");
        assert!(!state.contains_key("retention.ms"));
        let sessions = settings(Topic::Sessions);
        assert_eq!(sessions["cleanup.policy"], "compact,delete");
        assert_eq!(sessions["retention.ms"], (400 * DAY_MS).to_string());
    }
}
