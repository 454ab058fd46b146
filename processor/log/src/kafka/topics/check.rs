//! Checks whether the topics of a cluster are as they must be. A [`Fault`] says what is wrong, and holds the
//! command that mends it.
//!
//! Topics are checked as a whole: every fault is found. What correctness rests on (partition counts, who
//! stamps, cleanup, retention of what must be kept, unclean elections) refuses the start. One replica is a
//! fault of a severity of its own, since a try on one broker must work. Settings of an older topic table are
//! warned of, and `tacho topics apply` mends them.

use super::commands::Commands;
use super::renew::current;
use super::{MIN_IN_SYNC, admin, admin_options, metadata_client, real_partitions, stored_seed};
use crate::LogError;
use crate::cluster::Cluster;
use crate::kafka::clients::{REQUEST_MAX, block_on};
use crate::kafka::names::Names;
use rdkafka::admin::{ConfigResource, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use schemas::settings::Seed;
use schemas::topic::{Cleanup, MESSAGE_BYTES_MAX, Partitions, Topic};
use std::fmt;
use strum::VariantArray;

/// What is wrong with a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The topic's name, prefix included.
    pub topic: String,
    /// What is wrong, and why that matters.
    pub what: String,
    /// The command that mends it.
    pub mend: String,
    /// Whether processes start all the same.
    pub severity: Severity,
}

/// How bad a [`Fault`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A promise does not hold with this fault, so no process starts.
    Refused,
    /// The topic was made by an older topic table: all promises hold, at more cost. Processes start, and warn;
    /// `tacho topics apply` mends it.
    Outdated,
    /// The topic has one replica, which is fine for a try on one broker, and is lost with it. Processes start, and warn.
    OneReplica,
}

impl Fault {
    /// Whether processes refuse to start because of it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.severity == Severity::Refused
    }

    /// Whether `tacho topics apply` mends it.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.severity == Severity::Outdated
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {}: {}; {}", self.topic, self.what, self.mend)
    }
}

/// The seed that holds on the cluster, and every fault of the topics: see [`faults`]. `seed` is for a cluster that has
/// none yet.
///
/// # Errors
/// The cluster can't be reached, or the record at offset 0 of the control topic is no seed.
pub fn inspect(cluster: &Cluster, seed: &Seed) -> Result<(Seed, Vec<Fault>), LogError> {
    let seed = match stored_seed(cluster)? {
        Some(stored) => stored,
        None => real_partitions(cluster, seed)?,
    };
    let faults = faults(cluster, &seed)?;
    Ok((seed, faults))
}

/// Refuses topics that are missing, have another number of partitions than the seed says, or wrong settings.
///
/// # Errors
/// All topics at fault, with the commands that mend them; or the cluster can't be reached.
pub fn check_topics(cluster: &Cluster, seed: &Seed) -> Result<(), LogError> {
    let refused = refusals(faults(cluster, seed)?);
    let Some((first, others)) = refused.split_first() else {
        return Ok(());
    };
    let mut fault = format!("{}; {}", first.what, first.mend);
    others.iter().for_each(|other| fault += &format!("; {other}"));
    Err(LogError::Topic {
        topic: first.topic.clone(),
        fault,
    })
}

/// The faults with which no process starts; warns of the others.
#[must_use]
pub fn refusals(faults: Vec<Fault>) -> Vec<Fault> {
    let (refused, borne): (Vec<Fault>, Vec<Fault>) = faults.into_iter().partition(Fault::is_refused);
    for (severity, message) in [
        (Severity::OneReplica, "topics have one replica"),
        (Severity::Outdated, "topics were made by an older version"),
    ] {
        let mut of = borne.iter().filter(|fault| fault.severity == severity);
        // As a rule every topic has the same fault, so one line will do.
        let Some(first) = of.next() else { continue };
        tracing::warn!(
            faults = 1 + of.count(),
            first = first.topic,
            fault = first.what,
            mend = first.mend,
            message
        );
    }
    refused
}

/// Every fault of every topic, for partition counts as the seed says.
///
/// # Errors
/// The cluster can't be reached.
pub fn faults(cluster: &Cluster, seed: &Seed) -> Result<Vec<Fault>, LogError> {
    let (client, names, commands) = (
        metadata_client(cluster)?,
        Names::new(cluster),
        Commands { cluster },
    );
    let mut faults = Vec::new();
    let mut present = Vec::new();
    for &topic in Topic::VARIANTS {
        let name = names.name(topic);
        let Some((count, replicas)) = shape(&client, &name)? else {
            faults.push(refused(
                &name,
                "there is no such topic".to_owned(),
                commands.apply(),
            ));
            continue;
        };
        let wanted = seed.partitions(topic);
        if count != wanted && topic.def().partitions != Partitions::Few {
            faults.push(refused(
                &name,
                format!("it has {count} partitions, and the settings say {wanted}"),
                commands.again(&name),
            ));
        }
        present.push((topic, name, replicas));
    }
    let names: Vec<&str> = present.iter().map(|(_, name, _)| name.as_str()).collect();
    for ((topic, name, replicas), config) in present.iter().zip(describe(cluster, &names)?) {
        setting_faults(*topic, name, *replicas, &config, &commands, &mut faults);
    }
    Ok(faults)
}

/// The settings of topics, in the order asked.
pub(super) fn describe(cluster: &Cluster, names: &[&str]) -> Result<Vec<ConfigResource>, LogError> {
    let resources: Vec<ResourceSpecifier<'_>> =
        names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    if resources.is_empty() {
        return Ok(Vec::new());
    }
    let described = block_on(admin(cluster)?.describe_configs(&resources, &admin_options()))
        .map_err(|error| LogError::failed("asking for topic settings", error))?;
    let config = |(result, name): (Result<ConfigResource, RDKafkaErrorCode>, &&str)| {
        result.map_err(|code| LogError::Topic {
            topic: (*name).to_owned(),
            fault: format!("its settings can't be read: {code}"),
        })
    };
    described.into_iter().zip(names).map(config).collect()
}

/// The value of a setting; empty where Kafka gives none.
pub(super) fn value_of(config: &ConfigResource, key: &str) -> String {
    config
        .get(key)
        .and_then(|entry| entry.value.clone())
        .unwrap_or_default()
}

/// How many partitions a topic has, and how many replicas the partition with the fewest; `None`: there is no such topic.
pub(super) fn shape(client: &BaseConsumer, name: &str) -> Result<Option<(i32, usize)>, LogError> {
    let metadata = client
        .fetch_metadata(Some(name), REQUEST_MAX)
        .map_err(|error| LogError::failed("asking for topics", error))?;
    let partitions = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == name)
        .map_or(&[][..], |topic| topic.partitions());
    let replicas = partitions
        .iter()
        .map(|partition| partition.replicas().len())
        .min();
    Ok(replicas.map(|replicas| (i32::try_from(partitions.len()).unwrap_or(i32::MAX), replicas)))
}

/// The setting that says how a topic forgets.
pub(super) const POLICY: &str = "cleanup.policy";
/// The policy that keeps the latest record of each key.
pub(super) const COMPACT: &str = "compact";

/// Settings that a topic must have, with the value of each and why: correctness rests on these, so other values are
/// refused.
fn required(
    topic: Topic,
    found: &impl Fn(&str) -> String,
) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut required = vec![(
        "unclean.leader.election.enable",
        "false",
        "what was acknowledged must stay",
    )];
    let def = topic.def();
    if def.stamped {
        required.push((
            "message.timestamp.type",
            "LogAppendTime",
            "time must come from the broker",
        ));
    }
    match def.cleanup {
        Cleanup::Compact => required.push((POLICY, COMPACT, "the latest record of each key must stay")),
        // Older tables had no age limit for these topics: a policy that compacts is enough, and `current` adds the rest.
        Cleanup::CompactAndDelete { .. } => {
            if !found(POLICY).contains(COMPACT) {
                required.push((POLICY, COMPACT, "the latest record of each key must stay"));
            }
        }
        Cleanup::Delete { .. } | Cleanup::Consumed | Cleanup::Keep => {
            required.push((POLICY, "delete", "equal keys are different records"))
        }
    }
    match def.cleanup {
        Cleanup::Consumed | Cleanup::Keep => {
            required.push(("retention.ms", "-1", "no record may go by age"));
            required.push(("retention.bytes", "-1", "no record may go by size"));
        }
        Cleanup::Delete { .. } | Cleanup::Compact | Cleanup::CompactAndDelete { .. } => {}
    }
    required
}

/// Adds the faults of a topic's settings.
fn setting_faults(
    topic: Topic,
    name: &str,
    replicas: usize,
    config: &ConfigResource,
    commands: &Commands<'_>,
    faults: &mut Vec<Fault>,
) {
    let value = |key: &str| value_of(config, key);
    for (key, wanted, why) in required(topic, &value) {
        let found = value(key);
        if found != wanted {
            faults.push(refused(
                name,
                format!("{key} is {found}, and {why}"),
                commands.alter(name, key, wanted),
            ));
        }
    }
    for (key, wanted) in current(topic, &value) {
        faults.push(Fault {
            topic: name.to_owned(),
            what: format!("{key} is {}, and new topics get {wanted}", value(key)),
            mend: commands.apply(),
            severity: Severity::Outdated,
        });
    }
    let (key, least) = ("max.message.bytes", MESSAGE_BYTES_MAX);
    let found = value(key);
    if found.parse::<i64>().is_ok_and(|found| found < least) {
        faults.push(refused(
            name,
            format!("{key} is {found}, and records can be larger"),
            commands.alter(name, key, &least.to_string()),
        ));
    }
    faults.extend(in_sync_fault(
        name,
        replicas,
        value(MIN_IN_SYNC).parse().unwrap_or(1),
        commands,
    ));
}

/// The fault of a topic whose acknowledged records would not survive the loss of a broker; `least` is how many replicas must
/// have a record before it is acknowledged.
fn in_sync_fault(name: &str, replicas: usize, least: usize, commands: &Commands<'_>) -> Option<Fault> {
    match (replicas, least) {
        (replicas, least) if least > replicas => Some(refused(
            name,
            format!("{MIN_IN_SYNC} is {least}, and it has {replicas} replicas: nothing can be written"),
            commands.alter(name, MIN_IN_SYNC, &replicas.min(2).to_string()),
        )),
        (1, _) => Some(Fault {
            topic: name.to_owned(),
            what: format!(
                "it has 1 replica, and {MIN_IN_SYNC} is {least}: what was acknowledged goes with its broker"
            ),
            mend: format!(
                "give it more with kafka-reassign-partitions.sh{}, then {MIN_IN_SYNC}=2",
                commands.connection()
            ),
            severity: Severity::OneReplica,
        }),
        (replicas, 1) => Some(refused(
            name,
            format!(
                "{MIN_IN_SYNC} is 1 of {replicas} replicas: what was acknowledged may go with one broker"
            ),
            commands.alter(name, MIN_IN_SYNC, "2"),
        )),
        _ => None,
    }
}

fn refused(topic: &str, what: String, mend: String) -> Fault {
    Fault {
        topic: topic.to_owned(),
        what,
        mend,
        severity: Severity::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_replicas_must_have_what_is_acknowledged() {
        let cluster = Cluster::plain("a:1", "");
        let fault = |replicas, least| in_sync_fault("t", replicas, least, &Commands { cluster: &cluster });
        assert_eq!((fault(3, 2), fault(2, 2), fault(3, 3)), (None, None, None));
        let one = fault(1, 1).unwrap();
        assert!(!one.is_refused() && one.what.contains("1 replica"), "{one}");
        let loose = fault(3, 1).unwrap();
        assert!(
            loose.is_refused()
                && loose
                    .mend
                    .ends_with("--entity-name t --add-config min.insync.replicas=2"),
            "{loose}"
        );
        let stuck = fault(1, 2).unwrap();
        assert!(
            stuck.is_refused() && stuck.mend.ends_with("min.insync.replicas=1"),
            "{stuck}"
        );
    }
}
