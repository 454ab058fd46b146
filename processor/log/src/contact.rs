//! Whether a client still reaches the cluster.
//!
//! A cluster tells of no brokers while its controller takes all of them for gone: a single one that was paused, or some
//! rolling upgrades. librdkafka forgets every broker then, and is to begin again at the addresses that it was given. By a
//! race it may not (its [issue 5301](https://github.com/confluentinc/librdkafka/issues/5301), since 2.12): the client says
//! nothing for the rest of its life, and tells nobody. So clients that live long are asked now and then, and one that does
//! not answer where a new one does is replaced by whoever has it.

use crate::cluster::Cluster;
use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use schemas::topic::Topic;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a client is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long it may take to answer, whomever it asks: longer than it waits before it connects again. The first broker that it
/// asks may just have died.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long between two questions.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// So many times in a row nothing must have answered: what a client holds is lost with it.
const SILENCES: u32 = 2;

/// Asks one client whether it reaches the cluster.
#[derive(Debug)]
pub struct Contact {
    cluster: Cluster,
    topic: String,
    asked: Mutex<Asked>,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    silences: u32,
}

impl Contact {
    /// With a client that is new. `topic`: one that it uses.
    #[must_use]
    pub fn new(cluster: &Cluster, topic: Topic) -> Self {
        Self {
            cluster: cluster.clone(),
            topic: format!("{}{}", cluster.prefix, topic.name()),
            asked: Mutex::new(Asked {
                at: Instant::now(),
                silences: 0,
            }),
        }
    }

    /// Whether the client is cut off, though the cluster is there; looks every five seconds, and believes it at the second time.
    /// Blocks, for four at most, where nothing answers.
    pub fn is_lost<C: ClientContext>(&self, client: &Client<C>) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.at.elapsed() < ASK_EVERY {
            return false;
        }
        asked.silences = if self.is_silent(client) {
            asked.silences + 1
        } else {
            0
        };
        let is_lost = asked.silences >= SILENCES;
        if is_lost {
            asked.silences = 0;
            tracing::warn!(
                topic = self.topic,
                "a client reaches no broker, and a new one does: it is replaced"
            );
        }
        asked.at = Instant::now();
        is_lost
    }

    /// Whether it does not answer now, and a new client does.
    pub fn is_silent<C: ClientContext>(&self, client: &Client<C>) -> bool {
        self.ask(client).is_err() && self.ask_anew().is_ok()
    }

    fn ask<C: ClientContext>(&self, client: &Client<C>) -> KafkaResult<()> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match client.fetch_metadata(Some(&self.topic), left) {
                Err(_) if left > ASK_PAUSE => thread::sleep(ASK_PAUSE),
                answer => return answer.map(drop),
            }
        }
    }

    fn ask_anew(&self) -> KafkaResult<()> {
        let config: ClientConfig = self.cluster.properties("tachograph-contact").collect();
        let client: BaseConsumer = config.create()?;
        self.ask(client.client())
    }
}
