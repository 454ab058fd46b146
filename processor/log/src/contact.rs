//! Whether a client still reaches the cluster.
//!
//! A cluster tells of no brokers while its controller takes all of them for gone: a single one that was
//! paused, or some rolling upgrades. librdkafka forgets every broker then, and is to begin again at the
//! addresses that it was given. By a race it may not (its [issue
//! 5301](https://github.com/confluentinc/librdkafka/issues/5301), since 2.12): the client says nothing for
//! the rest of its life, and tells nobody.
//!
//! Clients that live long are therefore asked every five seconds, and a client that twice does not answer where a new
//! client does is replaced: the worker's by `Log::recover`, those of ingest (its producers, the reader of the
//! control topic, the clients of inbox and spool) by whoever has them. The test `tests/it/veiled.rs` hides
//! the brokers of a real cluster from its clients again and again (`tests/support/veil.rs`).

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
/// How long a client may take to answer: longer than it waits before it connects again, since the first broker that it asks
/// may just have died.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long between two questions to a client that does not answer.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// How many times in a row a client must have been silent before it counts as lost, since the records that it holds are lost
/// with it.
const SILENCES: u32 = 2;

/// Asks one client whether it reaches the cluster.
#[derive(Debug)]
pub struct Contact {
    cluster: Cluster,
    topic: String,
    asked: Mutex<Asked>,
}

/// What came of asking so far.
#[derive(Debug)]
struct Asked {
    /// When the client was last asked.
    at: Instant,
    /// How many times in a row it was silent.
    silences: u32,
}

impl Contact {
    /// Contact with a client that is new; `topic` is one that it uses, and is asked about.
    #[must_use]
    pub fn new(cluster: &Cluster, topic: Topic) -> Self {
        Self {
            cluster: cluster.clone(),
            topic: cluster.topic(topic),
            asked: Mutex::new(Asked {
                at: Instant::now(),
                silences: 0,
            }),
        }
    }

    /// Whether the client is cut off, though the cluster is there: it is asked every five seconds, and counts as cut off when
    /// it was silent twice. Blocks, for four seconds at most, where nothing answers.
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

    /// Whether the client does not answer now, while a new client does.
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
