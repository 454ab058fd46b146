//! Whether a client still reaches the cluster.
//!
//! A cluster tells of no brokers while its controller takes all of them for gone: a single one that was paused, or some
//! rolling upgrades. librdkafka forgets every broker then, and is to begin again at the addresses that it was given. By a
//! race it may not (its [issue 5301](https://github.com/confluentinc/librdkafka/issues/5301), since 2.12): the client says
//! nothing for the rest of its life, and tells nobody. So clients that live long are asked now and then, and one that does
//! not answer where a new one does is replaced by whoever has it.

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use schemas::cluster::Cluster;
use schemas::topic::Topic;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a client is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long it may take to answer: longer than it waits before it connects again.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Asks one client whether it reaches the cluster.
#[derive(Debug)]
pub struct Contact {
    cluster: Cluster,
    topic: String,
    asked: Mutex<Instant>,
}

impl Contact {
    /// With a client that is new. `topic`: one that it uses.
    #[must_use]
    pub fn new(cluster: &Cluster, topic: Topic) -> Self {
        Self { cluster: cluster.clone(), topic: format!("{}{}", cluster.prefix, topic.name()), asked: Mutex::new(Instant::now()) }
    }

    /// Whether the client is cut off, though the cluster is there; looks every five seconds. Blocks, for four at most, where
    /// nothing answers.
    pub fn is_lost<C: ClientContext>(&self, client: &Client<C>) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.elapsed() < ASK_EVERY {
            return false;
        }
        let is_lost = self.is_lost_now(client);
        *asked = Instant::now();
        is_lost
    }

    /// The same, now.
    pub fn is_lost_now<C: ClientContext>(&self, client: &Client<C>) -> bool {
        let Err(error) = self.ask(client) else { return false };
        let is_lost = self.ask_anew().is_ok();
        if is_lost {
            tracing::warn!(%error, topic = self.topic, "a client reaches no broker, and a new one does: it is replaced");
        }
        is_lost
    }

    fn ask<C: ClientContext>(&self, client: &Client<C>) -> KafkaResult<()> {
        client.fetch_metadata(Some(&self.topic), ANSWER_MAX).map(drop)
    }

    fn ask_anew(&self) -> KafkaResult<()> {
        let config: ClientConfig = self.cluster.properties("tachograph-contact").collect();
        let client: BaseConsumer = config.create()?;
        self.ask(client.client())
    }
}
