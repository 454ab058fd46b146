//! The control topic: the number of raw partitions that is pinned in its seed, and the privacy policy, which later
//! records change.

use super::remembered::Remembered;
use crate::control::policy::{FOLLOW_EVERY, Policies, Reading};
use processor_log::cluster::Cluster;
use processor_log::contact::Contact;
use processor_log::kafka::EndIsNoError;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::settings::SettingsError;
use schemas::topic::Topic;
use settings::process::chain;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long one question to the brokers may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Why there is no number yet, and no policy.
#[derive(Debug, thiserror::Error)]
pub enum NotYet {
    /// No broker answers, or one does not answer this.
    #[error("the cluster can't be asked: {0}")]
    Cluster(#[from] KafkaError),
    /// The topics are not there.
    #[error(
        "there is no topic {topic}: make the topics with `tacho topics apply --kafka {bootstrap}{prefix}`"
    )]
    NoTopic {
        /// The control topic's name.
        topic: String,
        /// The cluster.
        bootstrap: String,
        /// The flag for the prefix, if there is one.
        prefix: String,
    },
    /// Nothing is in the topic.
    #[error(
        "topic {0} is empty: `tacho topics apply`, or the first tacho-processor, writes the settings to it"
    )]
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

/// The control topic, read to its end.
pub struct Control {
    cluster: Cluster,
    consumer: BaseConsumer<EndIsNoError>,
    contact: Contact,
    topic: String,
    reading: Reading,
    /// For a start without the cluster, and the directory where it is kept.
    remembered: Remembered,
    directory: Option<PathBuf>,
    /// The offset to go on from.
    next: i64,
    /// The pinned number of raw partitions.
    pub raw_partitions: i32,
}

impl Control {
    /// Reads all that is there; the policy of it is in force then, and remembered in `directory`. Blocks for up to five seconds
    /// without an answer.
    ///
    /// # Errors
    /// It can't be read now.
    pub fn read(
        cluster: &Cluster,
        policies: Arc<Policies>,
        directory: Option<PathBuf>,
    ) -> Result<Self, NotYet> {
        let mut control = Self::read_quietly(cluster, policies, directory)?;
        control.reading.publish();
        Ok(control)
    }

    /// The pinned number of raw partitions alone, remembered in `directory` too. Blocks as [`Self::read`].
    ///
    /// # Errors
    /// It can't be read now.
    pub fn raw_partitions(cluster: &Cluster, directory: Option<PathBuf>) -> Result<i32, NotYet> {
        Self::read_quietly(cluster, Arc::default(), directory).map(|control| control.raw_partitions)
    }

    fn read_quietly(
        cluster: &Cluster,
        policies: Arc<Policies>,
        directory: Option<PathBuf>,
    ) -> Result<Self, NotYet> {
        let topic = format!("{}{}", cluster.prefix, Topic::Control.name());
        let consumer = consumer(cluster)?;
        let metadata = consumer.fetch_metadata(Some(&topic), REQUEST_MAX)?;
        if !metadata
            .topics()
            .iter()
            .any(|found| found.name() == topic && !found.partitions().is_empty())
        {
            let prefix = if cluster.prefix.is_empty() {
                String::new()
            } else {
                format!(" --prefix {}", cluster.prefix)
            };
            return Err(NotYet::NoTopic {
                topic,
                bootstrap: cluster.bootstrap.clone(),
                prefix,
            });
        }
        let remembered = Remembered::new(&cluster.prefix);
        let reading = Reading::new(policies);
        let (cluster, contact) = (cluster.clone(), Contact::new(cluster, Topic::Control));
        let mut control = Self {
            cluster,
            consumer,
            contact,
            topic,
            reading,
            remembered,
            directory,
            next: 0,
            raw_partitions: 0,
        };
        control.assign()?;
        control.read_all()?;
        control.raw_partitions = control
            .reading
            .raw_partitions()
            .ok_or_else(|| NotYet::Empty(control.topic.clone()))?;
        control.remember();
        Ok(control)
    }

    fn remember(&self) {
        if let Some(directory) = &self.directory
            && let Err(error) = self.remembered.save(directory)
        {
            tracing::warn!(%error, "the settings could not be remembered for a start without the cluster");
        }
    }

    fn assign(&self) -> Result<(), KafkaError> {
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&self.topic, 0, Offset::Offset(self.next))?;
        self.consumer.assign(&from)
    }

    fn read_all(&mut self) -> Result<(), NotYet> {
        let Self {
            consumer,
            topic,
            reading,
            remembered,
            next,
            ..
        } = self;
        loop {
            match consumer.poll(REQUEST_MAX) {
                Some(Ok(message)) => {
                    add(reading, remembered, next, &message).map_err(|source| NotYet::Seed {
                        topic: topic.clone(),
                        source,
                    })?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    return Err(KafkaError::MessageConsumption(
                        rdkafka::types::RDKafkaErrorCode::RequestTimedOut,
                    )
                    .into());
                }
            }
        }
    }

    /// Puts each new policy into force, until the process ends. Where the topic can't be read, the last one stays.
    pub fn follow(mut self, ending: &watch::Receiver<bool>) {
        let mut told = String::new();
        while !*ending.borrow() {
            if let Err(error) = self.stay_in_contact() {
                tracing::warn!(%error, "no other reader of the control topic could be made");
            }
            match self.look() {
                Ok(true) => told.clear(),
                Ok(false) => {}
                Err(why) => {
                    if why != told {
                        tracing::warn!(
                            reason = why,
                            "the control topic can't be read: the privacy policy stays as it is"
                        );
                        told = why;
                    }
                    std::thread::sleep(FOLLOW_EVERY);
                    // A consumer that lost its place does not go on by itself.
                    if let Err(error) = self.assign() {
                        tracing::debug!(%error, "the control topic is not assigned");
                    }
                }
            }
        }
    }

    /// A consumer that is cut off is replaced.
    fn stay_in_contact(&mut self) -> Result<(), KafkaError> {
        if self.contact.is_lost(self.consumer.client()) {
            self.consumer = consumer(&self.cluster)?;
            self.assign()?;
        }
        Ok(())
    }

    /// The next record, or none for a while; whether the topic was heard of.
    fn look(&mut self) -> Result<bool, String> {
        let Self {
            consumer,
            reading,
            remembered,
            next,
            ..
        } = self;
        match consumer.poll(FOLLOW_EVERY) {
            Some(Ok(message)) => {
                let counts = add(reading, remembered, next, &message).map_err(|error| chain(&error))?;
                reading.publish();
                if counts {
                    self.remember();
                }
                Ok(true)
            }
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(true),
            None => Ok(false),
            Some(Err(error)) => Err(error.to_string()),
        }
    }
}

/// Whether it is one to be remembered.
fn add(
    reading: &mut Reading,
    remembered: &mut Remembered,
    next: &mut i64,
    message: &BorrowedMessage<'_>,
) -> Result<bool, SettingsError> {
    let (offset, key, value) = (
        message.offset(),
        message.key(),
        message.payload().unwrap_or_default(),
    );
    reading.add(offset, key, value)?;
    *next = offset + 1;
    Ok(remembered.add(offset, key, value))
}

fn consumer(cluster: &Cluster) -> Result<BaseConsumer<EndIsNoError>, KafkaError> {
    let mut config: ClientConfig = cluster.properties("tacho-ingest").collect();
    config
        // Never joined, and nothing is committed to it.
        .set("group.id", "tacho-ingest")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true");
    config.create_with_context(EndIsNoError)
}
