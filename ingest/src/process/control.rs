//! The seed in the control topic: ingest needs the number of raw partitions that is pinned there.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::cluster::Cluster;
use schemas::settings::{Seed, SettingsError};
use schemas::topic::Topic;
use std::time::Duration;

/// How long one question to the brokers may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Why there is no number yet.
#[derive(Debug, thiserror::Error)]
pub enum NotYet {
    /// No broker answers, or one does not answer this.
    #[error("the cluster can't be asked: {0}")]
    Cluster(#[from] KafkaError),
    /// The topics are not there.
    #[error("there is no topic {topic}: make the topics with `tacho topics apply --kafka {bootstrap}{prefix}`")]
    NoTopic {
        /// The control topic's name.
        topic: String,
        /// The cluster.
        bootstrap: String,
        /// The flag for the prefix, if there is one.
        prefix: String,
    },
    /// Nothing is in the topic.
    #[error("topic {0} is empty: `tacho topics apply`, or the first tacho-processor, writes the settings to it")]
    Empty(String),
    /// What is in it is not the seed.
    #[error("topic {topic} has no settings at offset 0")]
    Seed {
        /// The control topic's name.
        topic: String,
        /// What is wrong.
        #[source]
        source: SettingsError,
    },
}

/// The pinned number of raw partitions. Blocks for up to ten seconds.
///
/// # Errors
/// It can't be told now.
pub fn raw_partitions(cluster: &Cluster) -> Result<i32, NotYet> {
    let topic = format!("{}{}", cluster.prefix, Topic::Control.name());
    let mut config = ClientConfig::new();
    // Ours come after what is passed through, and win.
    for (name, value) in &cluster.options {
        config.set(name, value);
    }
    let consumer: BaseConsumer = config
        .set("bootstrap.servers", &cluster.bootstrap)
        .set("client.id", "tacho-ingest")
        // Never joined, and nothing is committed to it.
        .set("group.id", "tacho-ingest")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(&topic), REQUEST_MAX)?;
    if !metadata.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty()) {
        let prefix = if cluster.prefix.is_empty() { String::new() } else { format!(" --prefix {}", cluster.prefix) };
        return Err(NotYet::NoTopic { topic, bootstrap: cluster.bootstrap.clone(), prefix });
    }
    let mut first = TopicPartitionList::new();
    first.add_partition_offset(&topic, 0, Offset::Offset(0))?;
    consumer.assign(&first)?;
    let answer = consumer.poll(REQUEST_MAX);
    match answer {
        Some(Ok(message)) => match Seed::from_json(message.payload().unwrap_or_default()) {
            Ok(seed) => Ok(seed.raw_partitions),
            Err(source) => Err(NotYet::Seed { topic, source }),
        },
        Some(Err(KafkaError::PartitionEOF(_))) => Err(NotYet::Empty(topic)),
        Some(Err(error)) => Err(error.into()),
        None => Err(KafkaError::MessageConsumption(rdkafka::types::RDKafkaErrorCode::RequestTimedOut).into()),
    }
}
