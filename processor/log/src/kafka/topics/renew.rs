//! Topics that were made by an older topic table get the settings of this one.

use super::check::{COMPACT, POLICY, describe, shape, value_of};
use super::{admin, admin_options, metadata_client, settings};
use crate::LogError;
use crate::cluster::Cluster;
use crate::kafka::clients::block_on;
use crate::kafka::names::Names;
use rdkafka::admin::{AlterConfig, ConfigEntry, ConfigResource, ConfigSource, ResourceSpecifier};
use schemas::topic::{Cleanup, Topic};
use strum::VariantArray;

/// Settings that an older table may have made otherwise, and that are to be changed: the key and the value of this table.
pub(super) fn current(topic: Topic, found: &impl Fn(&str) -> String) -> Vec<(&'static str, String)> {
    let mut current: Vec<(&'static str, String)> = topic
        .def()
        .config
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()))
        .collect();
    match topic.def().cleanup {
        Cleanup::CompactAndDelete { .. } => {
            let wanted = settings(topic);
            // Kafka keeps the two policies in the order in which they were given.
            if found(POLICY).contains(COMPACT) && found(POLICY) != "delete,compact" {
                current.push((POLICY, wanted[POLICY].clone()));
            }
            // Another age limit is an operator's choice. A topic that was made without one has Kafka's default.
            if found(POLICY) == COMPACT {
                current.push(("retention.ms", wanted["retention.ms"].clone()));
            }
        }
        Cleanup::Delete { .. } | Cleanup::Consumed | Cleanup::Compact | Cleanup::Keep => {}
    }
    current.retain(|(key, value)| found(key) != *value);
    current
}

/// Gives topics that were made by an older table the settings of this one; says what was changed, a line each. Settings
/// that an operator has made stay, and faults for which processes refuse to start are not touched.
///
/// # Errors
/// The cluster can't be reached, or refuses.
pub fn renew(cluster: &Cluster) -> Result<Vec<String>, LogError> {
    let (client, names) = (metadata_client(cluster)?, Names::new(cluster));
    let mut done = Vec::new();
    for &topic in Topic::VARIANTS {
        let name = names.name(topic);
        if shape(&client, &name)?.is_none() {
            continue;
        }
        let config = describe(cluster, &[&name])?.remove(0);
        let found = |key: &str| value_of(&config, key);
        let changes = current(topic, &found);
        if changes.is_empty() {
            continue;
        }
        alter(cluster, &name, &config, &changes)?;
        let line = |(key, value): &(&str, String)| format!("{name}: {key}={value}");
        done.extend(changes.iter().map(line));
    }
    Ok(done)
}

/// Sets some settings of a topic and leaves the others as they are: the request replaces all that were ever set.
fn alter(
    cluster: &Cluster,
    name: &str,
    config: &ConfigResource,
    changes: &[(&'static str, String)],
) -> Result<(), LogError> {
    let set_before = |entry: &&ConfigEntry| entry.source == ConfigSource::DynamicTopic;
    let mut altered = AlterConfig::new(ResourceSpecifier::Topic(name));
    for entry in config.entries.iter().filter(set_before) {
        if let Some(value) = &entry.value {
            altered = altered.set(&entry.name, value);
        }
    }
    for (key, value) in changes {
        altered = altered.set(key, value);
    }
    let results = block_on(admin(cluster)?.alter_configs([&altered], &admin_options()))
        .map_err(|error| LogError::failed("changing topic settings", error))?;
    for result in results {
        result.map_err(|(_, code)| LogError::Topic {
            topic: name.to_owned(),
            fault: format!("its settings can't be changed: {code}"),
        })?;
    }
    Ok(())
}
