//! A log on a cluster, for reading only: no group, no identity, nothing written.

use super::clients::{self, REQUEST_MAX};
use super::cursors::Cursors;
use super::names::Names;
use super::{offsets, topics};
use crate::cluster::Cluster;
use crate::contact::Contact;
use crate::{Batch, Extent, LogError, ReadLog};
use rdkafka::consumer::{BaseConsumer, Consumer};
use schemas::id::{Position, TopicPartition};
use schemas::record::Record;
use schemas::topic::Topic;
use std::time::Duration;

/// A reader of the topics of one cluster and prefix.
///
/// A client that failed is replaced at the next call: librdkafka may have cut it off for good (see [`crate::contact`]).
pub struct KafkaReader {
    cluster: Cluster,
    names: Names,
    /// How long one question to the brokers may take.
    answer_max: Duration,
    /// The client that answers questions about partitions, uncommitted records included; none after it failed.
    client: Option<BaseConsumer>,
    cursors: Cursors,
}

impl KafkaReader {
    /// Connects to a cluster. The client needs the id of a `group`, which it never joins and commits nothing to.
    ///
    /// # Errors
    /// No broker answers within ten seconds.
    pub fn connect(cluster: &Cluster, group: &str) -> Result<Self, LogError> {
        Self::connect_within(cluster, group, REQUEST_MAX)
    }

    /// [`KafkaReader::connect`], where no question to the brokers may take longer than `answer_max`.
    ///
    /// # Errors
    /// No broker answers in that time.
    pub fn connect_within(cluster: &Cluster, group: &str, answer_max: Duration) -> Result<Self, LogError> {
        let names = Names::new(cluster);
        let mut reader = Self {
            cluster: cluster.clone(),
            answer_max,
            client: None,
            cursors: Cursors::new(cluster, group, names.clone(), answer_max),
            names,
        };
        reader.ask(|_, _, _| Ok(()))?;
        Ok(reader)
    }

    /// Asks a question, and gives the client up if it fails.
    fn ask<T>(
        &mut self,
        question: impl FnOnce(&BaseConsumer, &Names, Duration) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => clients::connected(&self.cluster, &self.names.name(Topic::Control), self.answer_max)?,
        };
        let answer = question(&client, &self.names, self.answer_max);
        match &answer {
            Err(LogError::Unavailable { .. }) => drop(clients::drop_aside(client)),
            Ok(_) | Err(_) => self.client = Some(client),
        }
        answer
    }

    /// Where each of these partitions begins and ends, in the order asked.
    ///
    /// # Errors
    /// The cluster can't be reached.
    pub(super) fn extents(&mut self, at: &[TopicPartition]) -> Result<Vec<Extent>, LogError> {
        self.ask(|client, names, max| offsets::extents(client, names, at, max))
    }

    /// See [`Cursors::read_all`].
    pub(super) fn read_topic(
        &mut self,
        topic: Topic,
        from: &[(i32, Position)],
        take: &mut dyn FnMut(Record),
    ) -> Result<(), LogError> {
        self.cursors.read_all(topic, from, take)
    }

    /// Replaces the client if it is cut off.
    ///
    /// # Errors
    /// No broker answers the new one.
    pub(super) fn stay_in_contact(&mut self, contact: &Contact) -> Result<(), LogError> {
        if self
            .client
            .as_ref()
            .is_some_and(|client| contact.is_silent(client.client()))
        {
            self.client.take().map(clients::drop_aside);
        }
        self.ask(|_, _, _| Ok(()))
    }
}

impl ReadLog for KafkaReader {
    fn partitions(&mut self, topic: Topic) -> Result<i32, LogError> {
        self.ask(|client, names, max| {
            let name = names.name(topic);
            topics::partitions_of(client, &name, max)?.ok_or_else(|| topics::missing(&name))
        })
    }

    fn extent(&mut self, at: TopicPartition) -> Result<Extent, LogError> {
        self.ask(|client, names, max| offsets::extent(client, names, at, max))
    }

    fn ends(&mut self, at: &[TopicPartition]) -> Result<Vec<Position>, LogError> {
        self.ask(|client, names, max| offsets::ends(client, names, at, max))
    }

    fn read(&mut self, at: TopicPartition, from: Position, max: usize) -> Result<Batch, LogError> {
        self.cursors.read(at, from, max)
    }
}
